"""SelectedRows: some rows of a table, with their numbers; what a parameter server saves of its lookup table.

Layout: u32 version 0, u64 *number* of rows, the row numbers as i64, i64 height of the whole table; then the tensor
(`tensor.py`), without LoD. A file does not say that it is one: the variable's type in the program does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from holdfast.errors import UnsupportedVariableError
from holdfast.interop import tensor
from holdfast.interop.source import Source, of_bytes, opened
from holdfast.interop.tensor import Dialect


@dataclass(frozen=True, slots=True, eq=False)
class SelectedRows:
    """Rows of a table.

    Attributes:
        rows: int64 (n,), the numbers of the rows in the table, in any order.
        height: rows of the whole table.
        array: (at least n, …): row i is that of number `rows[i]`. Fluid may have made room for more rows than it used.
    """

    rows: np.ndarray
    height: int
    array: np.ndarray


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says about itself, without its elements; `rows` are as in `SelectedRows`."""

    rows: np.ndarray
    height: int
    tensor: tensor.Header

    @property
    def dtype(self) -> np.dtype:
        """Of the elements."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows that are there; the table's is `(height, *shape[1:])`."""
        return self.tensor.shape


def read_header(source: Source) -> Record:
    """The header of a record whose elements are all there.

    Raises:
        FormatError: it is malformed or cut off.
    """
    version = source.integer("I", "the version")
    if version != 0:
        source.bad(f"version {version} of SelectedRows is not known, only 0 is: this is none, or it is damaged")
    count = source.integer("Q", "the number of rows")
    rows = source.array(np.dtype("<i8"), (count,), f"the numbers of {count:,} rows")
    record = Record(rows, source.integer("q", "the height"), tensor.read_header(source))
    if reason := _rows_problem(rows, record.height, record.shape):
        source.bad(reason)
    return record


def _rows_problem(rows: np.ndarray, height: int, shape: tuple[int, ...]) -> str | None:
    if not shape or len(rows) > shape[0]:
        return f"it has {len(rows)} row numbers for a tensor of shape {shape}"
    if len(rows) and rows.min() < 0:
        return f"a row has the number {rows.min()}"
    if not 0 <= height < 1 << 63:
        return f"no table has {height} rows"
    return None


def read(source: Source) -> SelectedRows:
    """The next record."""
    record = read_header(source)
    return SelectedRows(record.rows, record.height, tensor.read_data(source, record.tensor))


def read_file(path: str | os.PathLike[str]) -> SelectedRows:
    """The one SelectedRows of a file; the arrays are new.

    Raises:
        FormatError: the file is cut off, too long or malformed.
        StorageError: the system refused to read.
    """
    with opened(path) as source:
        made = read(source)
        source.end()
    return made


def problem(value: SelectedRows, dialect: Dialect) -> str | None:
    """Why no file can hold a value; None if one can."""
    if value.rows.ndim != 1 or value.rows.dtype.newbyteorder("=") != np.int64:
        return f"the row numbers must be int64 of one dimension, not {value.rows.dtype} {value.rows.shape}"
    return tensor.problem(value.array, dialect) or _rows_problem(value.rows, value.height, value.array.shape)


def encoded(value: SelectedRows) -> Iterator[bytes | np.ndarray]:
    """The pieces of the record of a value without a `problem`."""
    rows = np.ascontiguousarray(value.rows, "<i8").tobytes()
    yield (0).to_bytes(4, "little") + len(value.rows).to_bytes(8, "little") + rows + value.height.to_bytes(8, "little")
    yield tensor.encoded_header(value.array)
    yield tensor.encoded_data(value.array)


def to_bytes(value: SelectedRows, *, dialect: Dialect = "fluid") -> bytes:
    """A record.

    Raises:
        UnsupportedVariableError: Fluid's files cannot hold the value.
    """
    if reason := problem(value, dialect):
        raise UnsupportedVariableError({"rows": reason})
    return b"".join(piece if isinstance(piece, bytes) else piece.tobytes() for piece in encoded(value))


def from_bytes(data: bytes, name: str = "record") -> SelectedRows:
    """A record of exactly these bytes; `name` is for messages.

    Raises:
        FormatError: it is cut off, too long or malformed.
    """
    source = of_bytes(data, name)
    made = read(source)
    source.end()
    return made
