"""French sentences and their English translations, from `wmt14.tgz`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.dataset.words import member_lines
from holdfast.fluid.paddle.reader.decorator import Reader

NAMES = ("wmt14.tgz", "wmt%2Fwmt14.tgz")
ORIGIN = "http://paddlemodels.bj.bcebos.com/wmt/wmt14.tgz"
START, END, UNK = "<s>", "<e>", "<unk>"
UNK_IDX = 2
_LONGEST = 80


def train(dict_size: int) -> Reader:
    """A reader of the training set: source, target from `<s>` on, and target to `<e>`, as lists of the numbers of words.

    Pairs with a sentence of more than 80 words are left out.

    Args:
        dict_size: words in each dictionary; all others are number 2.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: while reading, when it is damaged.
    """
    return _reader("train/train", dict_size)


def test(dict_size: int) -> Reader:
    """A reader of the test set; see `train`."""
    return _reader("test/test", dict_size)


def gen(dict_size: int) -> Reader:
    """A reader of the set for generating; see `train`."""
    return _reader("gen/gen", dict_size)


def get_dict(dict_size: int, reverse: bool = True) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Number → word of source and target; word → number if not `reverse`."""
    both = _dictionaries(_path(), dict_size)
    if reverse:
        return tuple({number: word for word, number in words.items()} for words in both)  # type: ignore[return-value]
    return both


def fetch() -> None:
    """Check that the archive is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    _path()


def _path() -> Path:
    return common.need("wmt14", *NAMES, origin=ORIGIN)


def _dictionaries(path: Path, size: int) -> tuple[dict[str, int], dict[str, int]]:
    source, target = (
        {line.decode(): number for number, line in enumerate(islice(member_lines(path, name), size))}
        for name in ("src.dict", "trg.dict")
    )
    return source, target


def _reader(name: str, dict_size: int) -> Reader:
    path = _path()

    def samples() -> Iterator[tuple[list[int], list[int], list[int]]]:
        source, target = _dictionaries(path, dict_size)
        if missing := {START, END} - target.keys():
            raise FormatError(f"{path}: the first {dict_size} words of trg.dict lack {sorted(missing)}")
        for line in member_lines(path, name):
            pair = line.decode().split("\t")
            if len(pair) != 2:
                continue
            words = [source.get(word, UNK_IDX) for word in (START, *pair[0].split(), END)]
            translation = [target.get(word, UNK_IDX) for word in pair[1].split()]
            if max(len(words), len(translation)) <= _LONGEST:
                yield words, [target[START], *translation], [*translation, target[END]]

    return samples
