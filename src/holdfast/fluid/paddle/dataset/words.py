"""Dictionaries of words: the number of each word, the most frequent first."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset.common import DAMAGED

UNKNOWN = "<unk>"


class Words(dict[Any, int]):
    """Word → number. Keys are bytes, as in Paddle under Python 3; text finds them too, as programs for Python 2 expect."""

    def __missing__(self, word: Any) -> int:
        other = _other(word)
        if other is None or not dict.__contains__(self, other):
            raise KeyError(word)
        return dict.__getitem__(self, other)

    def __contains__(self, word: object) -> bool:
        return dict.__contains__(self, word) or dict.__contains__(self, _other(word))

    def get(self, word: Any, default: Any = None) -> Any:
        """The number of a word, or `default`."""
        try:
            return self[word]
        except KeyError:
            return default


def _other(word: object) -> bytes | str | None:
    if isinstance(word, str):
        return word.encode("utf-8", "surrogateescape")
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else None


def numbered(counts: Mapping[Any, int], more_than: int) -> Words:
    """The words that occur more often than that, numbered by falling frequency, then by the word; the last is `<unk>`."""
    # `<s>` stands as text beside words of bytes, so words are compared as bytes.
    frequent = [(-count, _bytes(word), word) for word, count in counts.items() if count > more_than]
    numbers = Words((word, number) for number, (_, _, word) in enumerate(sorted(frequent, key=lambda entry: entry[:2])))
    numbers[UNKNOWN] = len(numbers)
    return numbers


def _bytes(word: Any) -> bytes:
    return word.encode() if isinstance(word, str) else word


def plain(numbers: Mapping[Any, int]) -> dict[Any, int]:
    """The same numbers in a plain dictionary, for looking up millions of words of bytes quickly."""
    known = dict(numbers)
    return {**{_bytes(word): number for word, number in known.items() if _bytes(word) not in known}, **known}


def member_lines(archive: Path, name: str) -> Iterator[bytes]:
    """The lines of a member of a tar archive, found by the end of its name, without their ends.

    Raises:
        FormatError: while reading, when the archive is damaged or has no such member.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.endswith(name) and (file := tar.extractfile(member)) is not None:
                    for line in file:
                        yield line.strip()
                    return
    except DAMAGED as error:
        raise FormatError(f"{archive} is no complete tar archive: {error}") from error
    raise FormatError(f"{archive} has no member {name}; get it again")
