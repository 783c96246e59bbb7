"""English sentences and their German translations (Multi30K), from `wmt16.tar.gz`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.dataset.words import member_lines
from holdfast.fluid.paddle.reader.decorator import Reader

NAME = "wmt16.tar.gz"
ORIGIN = "http://paddlemodels.bj.bcebos.com/wmt/wmt16.tar.gz"
TOTAL_EN_WORDS = 11250
TOTAL_DE_WORDS = 19220
START_MARK, END_MARK, UNK_MARK = "<s>", "<e>", "<unk>"
_MARKS = (START_MARK, END_MARK, UNK_MARK)
_TOTAL = {"en": TOTAL_EN_WORDS, "de": TOTAL_DE_WORDS}


def train(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Reader:
    """A reader of the training set: source from `<s>` to `<e>`, target from `<s>` on, and target to `<e>`, as numbers of words.

    Args:
        src_dict_size: words in the source's dictionary, with `<s>`, `<e>` and `<unk>`.
        trg_dict_size: the same for the target.
        src_lang: `en` or `de`; the other is the target.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: while reading, when it is damaged.
        ValueError: `src_lang` is another language.
    """
    return _reader("wmt16/train", src_dict_size, trg_dict_size, src_lang)


def test(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Reader:  # noqa: PT028 - no test
    """A reader of the test set; see `train`."""
    return _reader("wmt16/test", src_dict_size, trg_dict_size, src_lang)


def validation(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Reader:
    """A reader of the validation set; see `train`."""
    return _reader("wmt16/val", src_dict_size, trg_dict_size, src_lang)


def get_dict(lang: str, dict_size: int, reverse: bool = False) -> dict[Any, Any]:
    """Word → number of a language; number → word if `reverse`."""
    words = _dictionary(_path(), _known(lang), min(dict_size, _TOTAL[_known(lang)]))
    return {number: word for word, number in words.items()} if reverse else dict(words)


def fetch() -> None:
    """Check that the archive is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    _path()


def _path() -> Path:
    return common.need("wmt16", NAME, origin=ORIGIN)


def _known(lang: str) -> str:
    if lang not in _TOTAL:
        raise ValueError(f"paddle.dataset.wmt16: the language is 'en' or 'de', not {lang!r}")
    return lang


@functools.lru_cache(maxsize=8)
def _dictionary(path: Path, lang: str, size: int) -> dict[str, int]:
    """Counted anew in each process: Paddle left its dictionaries as files beside the archive, and read them back unchecked."""
    counts = Counter(word for pair in _pairs(path, "wmt16/train") for word in pair[lang == "de"].split())
    ranked = sorted(counts, key=lambda word: -counts[word])  # equal counts: the first to occur is the first
    return {word: number for number, word in enumerate([*_MARKS, *ranked][:size])}


def _pairs(path: Path, name: str) -> Iterator[list[str]]:
    for line in member_lines(path, name):
        pair = line.decode().split("\t")
        if len(pair) == 2:
            yield pair


def _reader(name: str, src_dict_size: int, trg_dict_size: int, src_lang: str) -> Reader:
    source_at = ("en", "de").index(_known(src_lang))
    trg_lang = ("de", "en")[source_at]
    path = _path()

    def samples() -> Iterator[tuple[list[int], list[int], list[int]]]:
        source = _dictionary(path, src_lang, min(src_dict_size, _TOTAL[src_lang]))
        target = _dictionary(path, trg_lang, min(trg_dict_size, _TOTAL[trg_lang]))
        start, end, unknown = range(len(_MARKS))
        for pair in _pairs(path, name):
            words = [source.get(word, unknown) for word in pair[source_at].split()]
            translation = [target.get(word, unknown) for word in pair[1 - source_at].split()]
            yield [start, *words, end], [start, *translation], [*translation, end]

    return samples
