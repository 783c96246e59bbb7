"""Sentences of the Penn Treebank for language models, from `simple-examples.tgz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.dataset.words import UNKNOWN, Words, member_lines, numbered, plain
from holdfast.fluid.paddle.reader.decorator import Reader

NAMES = common.spellings("imikolov%2Fsimple-examples.tgz")
ORIGIN = "http://www.fit.vutbr.cz/~imikolov/rnnlm/"
_TRAIN, _TEST = "simple-examples/data/ptb.train.txt", "simple-examples/data/ptb.valid.txt"


class DataType:
    """What a reader yields: N-grams, or whole sentences beside themselves shifted by one."""

    NGRAM = 1
    SEQ = 2


def word_count(f: Iterable[bytes], word_freq: dict[Any, int] | None = None) -> dict[Any, int]:
    """How often each word occurs in lines; `<s>` and `<e>` once in each. Added to `word_freq` if that is given."""
    counts: dict[Any, int] = Counter() if word_freq is None else word_freq
    for line in f:
        for word in (*line.split(), "<s>", "<e>"):
            counts[word] = counts.get(word, 0) + 1
    return counts


def build_dict(min_word_freq: int = 50) -> Words:
    """Numbers of the words that occur more than `min_word_freq` times; the last is `<unk>`.

    The corpus itself contains the word `<unk>`. As in Paddle under Python 3 it is a word like others, of bytes, beside the
    last entry, which is text: files that were saved there have one row more than the books of Python 2 print.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: it is damaged.
    """
    archive = common.need("imikolov", *NAMES, origin=ORIGIN)
    counts = word_count(member_lines(archive, _TEST), word_count(member_lines(archive, _TRAIN)))
    return numbered(counts, min_word_freq)


def train(word_idx: Mapping[Any, int], n: int, data_type: int = DataType.NGRAM) -> Reader:
    """A reader of the training set, as numbers of words.

    Args:
        word_idx: from `build_dict`.
        n: words in an N-gram; or, of sentences, the most words (with `<s>`) of those that are not left out, 0 for any.
        data_type: `DataType.NGRAM` for tuples of `n` numbers, `DataType.SEQ` for a sentence from `<s>` on and to `<e>`.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: while reading, when it is damaged.
        ValueError: `n` or `data_type` is none of these.
    """
    return _reader(_TRAIN, word_idx, n, data_type)


def test(word_idx: Mapping[Any, int], n: int, data_type: int = DataType.NGRAM) -> Reader:  # noqa: PT028 - no test
    """A reader of the validation set; see `train`."""
    return _reader(_TEST, word_idx, n, data_type)


def fetch() -> None:
    """Check that the archive is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    common.need("imikolov", *NAMES, origin=ORIGIN)


def _reader(name: str, word_idx: Mapping[Any, int], n: int, data_type: int) -> Reader:
    if data_type not in (DataType.NGRAM, DataType.SEQ):
        raise ValueError(
            f"paddle.dataset.imikolov: data_type must be DataType.NGRAM or DataType.SEQ, not {data_type!r}"
        )
    if data_type == DataType.NGRAM and n < 1:
        raise ValueError(f"paddle.dataset.imikolov: an N-gram has at least one word, not n={n!r}")
    archive = common.need("imikolov", *NAMES, origin=ORIGIN)
    numbers, unknown = plain(word_idx), word_idx[UNKNOWN]

    def sentences() -> Iterator[list[int]]:
        for line in member_lines(archive, name):
            yield [numbers.get(word, unknown) for word in line.split()]

    def grams() -> Iterator[tuple[int, ...]]:
        for sentence in sentences():
            marked = [numbers.get("<s>", unknown), *sentence, numbers.get("<e>", unknown)]
            for end in range(n, len(marked) + 1):
                yield tuple(marked[end - n : end])

    def sequences() -> Iterator[tuple[list[int], list[int]]]:
        for sentence in sentences():
            if n <= 0 or len(sentence) < n:
                yield [numbers["<s>"], *sentence], [*sentence, numbers["<e>"]]

    return grams if data_type == DataType.NGRAM else sequences
