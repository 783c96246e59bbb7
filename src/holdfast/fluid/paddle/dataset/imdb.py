"""Film reviews and their sentiment, from `aclImdb_v1.tar.gz`."""

from __future__ import annotations

import re
import string
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.dataset.words import UNKNOWN, Words, numbered, plain
from holdfast.fluid.paddle.reader.decorator import Reader

NAMES = common.spellings("imdb%2FaclImdb_v1.tar.gz")
ORIGIN = "http://ai.stanford.edu/~amaas/data/sentiment/"
_PUNCTUATION = string.punctuation.encode("ascii")


def tokenize(pattern: re.Pattern[str]) -> Iterator[list[bytes]]:
    """The words of each review whose file name matches: lower case, punctuation dropped, in the archive's order.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: it is damaged.
    """
    path = common.need("imdb", *NAMES, origin=ORIGIN)
    try:
        with tarfile.open(path) as archive:
            for member in archive:  # one after the other: 100,000 small members, no index
                if pattern.match(member.name) and (file := archive.extractfile(member)) is not None:
                    yield file.read().rstrip(b"\n\r").translate(None, _PUNCTUATION).lower().split()
    except common.DAMAGED as error:
        raise FormatError(f"{path} is no complete tar archive: {error}") from error


def build_dict(pattern: re.Pattern[str], cutoff: int) -> Words:
    """Numbers of the words that occur more than `cutoff` times in the matching reviews; the last is `<unk>`."""
    return numbered(Counter(word for review in tokenize(pattern) for word in review), cutoff)


def word_dict() -> Words:
    """Numbers of the words that occur more than 150 times in all labelled reviews."""
    return build_dict(re.compile(r"aclImdb/((train)|(test))/((pos)|(neg))/.*\.txt$"), 150)


def train(word_idx: Mapping[Any, int]) -> Reader:
    """A reader of the training set: the numbers of a review's words, and 0 for a good one, 1 for a bad one.

    The archive is read at this call; all good reviews come before the bad ones, so shuffle them.

    Args:
        word_idx: from `word_dict` or `build_dict`.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: it is damaged.
    """
    return _reader("train", word_idx)


def test(word_idx: Mapping[Any, int]) -> Reader:
    """A reader of the test set; see `train`."""
    return _reader("test", word_idx)


def fetch() -> None:
    """Check that the archive is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    common.need("imdb", *NAMES, origin=ORIGIN)


def _reader(part: str, word_idx: Mapping[Any, int]) -> Reader:
    numbers, unknown = plain(word_idx), word_idx[UNKNOWN]
    samples = [
        ([numbers.get(word, unknown) for word in review], label)
        for label, kind in enumerate(("pos", "neg"))
        for review in tokenize(re.compile(rf"aclImdb/{part}/{kind}/.*\.txt$"))
    ]
    return lambda: iter(samples)
