"""LoDTensor records, as Fluid's `save` writes them into a file and `save_combine` one after another.

Layout: u32 version 0, u64 number of LoD levels; per level u64 length *in bytes* and the offsets as u64; then the tensor
(`tensor.py`). No magic number, no checksum, no name. A file that was read is written again byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from holdfast.errors import UnsupportedVariableError
from holdfast.interop import tensor
from holdfast.interop.source import Source, of_bytes, opened
from holdfast.interop.tensor import Dialect

Lod = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class LoDTensor:
    """An array and, for variable-length sequences, where they begin.

    Attributes:
        array: the elements.
        lod: per level the *offsets* of its sequences, `(0, …, n)`; the last level's count rows of the array. Empty for an
            ordinary tensor.
    """

    array: np.ndarray
    lod: Lod = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says about itself, without its elements."""

    lod: Lod
    tensor: tensor.Header

    @property
    def dtype(self) -> np.dtype:
        """Of the elements."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.tensor.shape


def read_header(source: Source) -> Record:
    """The header of a record whose elements are all there.

    Raises:
        FormatError: it is malformed or cut off.
    """
    version = source.integer("I", "the version")
    if version != 0:
        source.bad(
            f"version {version} of a LoDTensor is not known, only 0 is: this is no Fluid tensor, or it is damaged"
        )
    count = source.integer("Q", "the number of LoD levels")
    source.need(16 * count, f"{count:,} levels of LoD")
    lod = []
    for level in range(count):
        length = source.integer("Q", f"the length of LoD level {level}")
        if length % 8:
            source.bad(f"LoD level {level} has {length} bytes, which is no whole number of offsets")
        offsets = np.frombuffer(source.take(length, f"LoD level {level}"), "<u8")
        lod.append(tuple(offsets.tolist()))
    record = Record(tuple(lod), tensor.read_header(source))
    if problem := lod_problem(record.lod, record.shape):
        source.bad(problem)
    return record


def read(source: Source) -> LoDTensor:
    """The next record."""
    record = read_header(source)
    return LoDTensor(tensor.read_data(source, record.tensor), record.lod)


def read_file(path: str | os.PathLike[str]) -> LoDTensor:
    """The one LoDTensor of a file; the array is new.

    Raises:
        FormatError: the file is cut off, too long or malformed; the message names it, with expected and found lengths.
        StorageError: the system refused to read.
    """
    with opened(path) as source:
        made = read(source)
        source.end()
    return made


def headers(source: Source) -> Iterator[Record]:
    """The headers of all records of a file, one after another; the elements are passed over."""
    while source.left:
        record = read_header(source)
        source.skip(record.tensor.nbytes, "the data")
        yield record


def lod_problem(lod: Lod, shape: tuple[int, ...]) -> str | None:
    """What is wrong with LoD offsets; the rules are Fluid's own (CheckLoD)."""
    for level, offsets in enumerate(lod):
        if len(offsets) < 2 or offsets[0] != 0 or any(later < earlier for earlier, later in pairwise(offsets)):
            return f"the offsets of LoD level {level} do not ascend from 0"
        below = len(lod[level + 1]) - 1 if level + 1 < len(lod) else (shape[0] if shape else 0)
        if offsets[-1] != below:
            what = "sequences in the level below" if level + 1 < len(lod) else "rows in the tensor"
            return f"LoD level {level} ends at {offsets[-1]}, but there are {below} {what}"
    return None


def problem(value: LoDTensor, dialect: Dialect) -> str | None:
    """Why no file can hold a value; None if one can."""
    return tensor.problem(value.array, dialect) or lod_problem(value.lod, value.array.shape)


def encoded(value: LoDTensor) -> Iterator[bytes | np.ndarray]:
    """The pieces of the record of a value without a `problem`."""
    head = bytearray((0).to_bytes(4, "little") + len(value.lod).to_bytes(8, "little"))
    for offsets in value.lod:
        head += (8 * len(offsets)).to_bytes(8, "little") + np.array(offsets, "<u8").tobytes()
    yield bytes(head) + tensor.encoded_header(value.array)
    yield tensor.encoded_data(value.array)


def to_bytes(value: LoDTensor, *, dialect: Dialect = "fluid") -> bytes:
    """A record.

    Raises:
        UnsupportedVariableError: Fluid's files cannot hold the value.
    """
    if reason := problem(value, dialect):
        raise UnsupportedVariableError({"tensor": reason})
    return b"".join(piece if isinstance(piece, bytes) else piece.tobytes() for piece in encoded(value))


def from_bytes(data: bytes, name: str = "record") -> LoDTensor:
    """A record of exactly these bytes; `name` is for messages.

    Raises:
        FormatError: it is cut off, too long or malformed.

    Example:
        >>> import numpy as np
        >>> record = to_bytes(LoDTensor(np.array([0.25], np.float32)))
        >>> len(record), from_bytes(record).array
        (28, array([0.25], dtype=float32))
    """
    source = of_bytes(data, name)
    made = read(source)
    source.end()
    return made
