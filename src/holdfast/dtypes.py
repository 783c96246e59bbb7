"""The one table of element types: the format's names and their NumPy dtypes.

Source: the safetensors specification and its `Dtype` enumeration; ml_dtypes for what NumPy lacks.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

_TABLE: dict[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "U16": np.uint16,
        "I16": np.int16,
        "U32": np.uint32,
        "I32": np.int32,
        "U64": np.uint64,
        "I64": np.int64,
        "F16": np.float16,
        "F32": np.float32,
        "F64": np.float64,
        "C64": np.complex64,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _TABLE.items()}
ITEMSIZE: dict[str, int] = {name: dtype.itemsize for name, dtype in _TABLE.items()}
"""Bytes per element, by the format's name."""


def to_numpy(name: str) -> np.dtype:
    """The NumPy dtype, in native byte order, of a dtype name of the format such as `"BF16"`."""
    return _TABLE[name]


def from_numpy(dtype: np.dtype) -> str | None:
    """The format's name of a NumPy dtype of any byte order; None if the format cannot hold it."""
    name = _NAMES.get(dtype)  # the common case first: 100,000 variables pass here
    if name is not None:
        return name
    return _NAMES.get(dtype.newbyteorder("=")) if dtype.kind in "iufcb" else None
