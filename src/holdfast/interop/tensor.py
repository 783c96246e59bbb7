"""The tensor inside every Fluid record: version, description (dtype and shape), data; and what Fluid can hold.

Layout, all integers little-endian: u32 version 0, i32 length of the description, the description (a protobuf `TensorDesc`),
the elements in C order. Only the form that Fluid itself writes is taken, so that what was read is written again byte for byte.

Source: Fluid's tensor_util.cc and framework.proto; the files of paddlepaddle 1.8.5 and 3.3.1 under tests/fixtures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from holdfast.interop import wire
from holdfast.interop.source import Source

Dialect = Literal["fluid", "paddle"]
"""Who is to read what is written: Fluid up to 1.8.5, or Paddle 2 and later, which knows more dtypes and 0-d tensors."""

_FLUID = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1"}
DTYPES: dict[int, np.dtype] = {code: np.dtype(name) for code, name in _FLUID.items()} | {
    22: np.dtype(ml_dtypes.bfloat16),
    23: np.dtype("<c8"),
    24: np.dtype("<c16"),
}
"""NumPy dtypes by their codes in `VarType.Type`."""

CODES = {dtype: code for code, dtype in DTYPES.items()}
_OTHERS = {
    7: "LOD_TENSOR", 8: "SELECTED_ROWS", 9: "FEED_MINIBATCH", 10: "FETCH_LIST", 17: "RAW", 19: "SIZE_T", 25: "STRING",
    32: "FP8_E4M3FN", 33: "FP8_E5M2",
}  # fmt: skip
MAX_RANK = {"fluid": 9, "paddle": 64}
"""Dimensions that a tensor may have: Fluid's DDim has room for 9, a NumPy array for 64."""

_MAX_DESCRIPTION = 2 + 11 * 64  # dtype, and 64 dimensions of at most a tag and ten bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the elements.

    Attributes:
        dtype: of the elements.
        shape: of the tensor.
    """

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(source: Source) -> Header:
    """The header of a tensor whose elements are all there.

    Raises:
        FormatError: it is malformed, or the file ends before the last element.
    """
    version = source.integer("I", "the tensor's version")
    if version != 0:
        source.bad(f"version {version} of a tensor is not known, only 0 is: this is no Fluid tensor, or it is damaged")
    length = source.integer("i", "the length of the tensor's description")
    if not 2 <= length <= _MAX_DESCRIPTION:
        source.bad(f"a tensor's description cannot have {length:,} bytes: this is no Fluid tensor, or it is damaged")
    code, dims = _described(source.take(length, "the tensor's description"), source)
    dtype = DTYPES.get(code)
    if dtype is None:
        name = _OTHERS.get(code, "unknown")
        source.bad(f"dtype code {code} ({name}) is not one that NumPy can hold; known are {sorted(DTYPES)}")
    if any(extent < 0 for extent in dims) or math.prod(max(extent, 1) for extent in dims) >= 1 << 60:
        source.bad(f"no tensor has the shape {dims}")
    header = Header(dtype, dims)
    source.need(header.nbytes, f"the data of {dtype} {dims}")
    return header


def _described(data: bytes, source: Source) -> tuple[int, tuple[int, ...]]:
    code, dims = -1, []
    for order, (number, kind, value, *_) in enumerate(wire.fields(data, source.name)):
        # The dtype first, then each dimension in a field of its own, as Fluid writes them.
        if kind != wire.VARINT or not isinstance(value, int) or number != (1 if order == 0 else 2):
            source.bad("the tensor's description is not one that Fluid writes")
        if order == 0:
            code = wire.signed(value)
        else:
            dims.append(wire.signed(value))
    if len(dims) > MAX_RANK["paddle"]:
        source.bad(f"no tensor has {len(dims)} dimensions")
    return code, tuple(dims)


def read_data(source: Source, header: Header) -> np.ndarray:
    """The elements, as a new array."""
    made = source.array(header.dtype, header.shape, f"the data of {header.dtype} {header.shape}")
    if header.dtype == np.bool_ and made.size and made.view(np.uint8).max() > 1:
        source.bad("a bool is neither 0 nor 1: the data are damaged")
    return made


def problem(array: np.ndarray, dialect: Dialect) -> str | None:
    """Why no file can hold an array; None if one can."""
    code = _code(array.dtype)
    if code is None or (dialect == "fluid" and code not in _FLUID):
        names = sorted(str(DTYPES[code]) for code in (_FLUID if dialect == "fluid" else DTYPES))
        more = "; Paddle 2 and later can read it, Fluid cannot" if code is not None else ""
        return f"Fluid's files cannot hold {array.dtype}, only {', '.join(names)}{more}"
    if array.ndim > MAX_RANK[dialect]:
        return f"it has {array.ndim} dimensions, and Fluid's tensors have at most {MAX_RANK[dialect]}"
    if array.ndim == 0 and dialect == "fluid":
        return "it is a scalar, and Fluid has none; reshape it to (1,)"
    return None


def _code(dtype: np.dtype) -> int | None:
    return CODES.get(dtype if dtype in CODES else dtype.newbyteorder("="))


def encoded_header(array: np.ndarray) -> bytes:
    """The bytes before the elements of an array without a `problem`."""
    code = _code(array.dtype)
    assert code is not None
    description = wire.put_field(1, wire.VARINT, code)
    description += b"".join(wire.put_field(2, wire.VARINT, extent) for extent in array.shape)
    return (0).to_bytes(4, "little") + len(description).to_bytes(4, "little") + description


def encoded_data(array: np.ndarray) -> np.ndarray:
    """The elements as bytes: a view if the array is contiguous and little-endian."""
    code = _code(array.dtype)
    assert code is not None
    return np.ascontiguousarray(array, DTYPES[code]).reshape(-1).view(np.uint8)
