"""Arrays as bytes in row-major, little-endian order, whatever their strides and byte order: the format's view of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from holdfast.format.geometry import range_boxes

BIG_ENDIAN_MACHINE = sys.byteorder == "big"


def stored_dtype(dtype: np.dtype) -> np.dtype:
    """The same dtype in little-endian order."""
    return dtype if dtype.isnative and not BIG_ENDIAN_MACHINE else dtype.newbyteorder("<")


def flat_bytes(array: np.ndarray) -> np.ndarray | None:
    """The array's own memory as flat uint8, if it is laid out as in a file; else None."""
    if not array.flags.c_contiguous or (array.dtype != stored_dtype(array.dtype)):
        return None
    return array.reshape(-1).view(np.uint8)


def gather(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """A copy of elements `start` to `stop` in row-major order, as flat uint8 in little-endian order."""
    out = np.empty(stop - start, stored_dtype(array.dtype))
    at = 0
    for box in range_boxes(array.shape, start, stop):
        np.copyto(out[at : at + box.size].reshape(box.shape), array[box.index])
        at += box.size
    return out.view(np.uint8)


def overlaps_itself(array: np.ndarray) -> bool:
    """Whether two elements may share memory, as in windows made by `as_strided`: such an array cannot be filled."""
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return False
    return strides_overlap(array.itemsize, array.shape, array.strides)


def strides_overlap(itemsize: int, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements of an array may share memory; what is empty has none."""
    if 0 in shape:
        return False
    reach = itemsize
    for stride, extent in sorted(zip(map(abs, strides), shape, strict=True)):
        if extent > 1:
            if stride < reach:
                return True
            reach += stride * (extent - 1)
    return False


def cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`values` as another dtype, rounded; whoever calls has made sure that nothing worse happens to them."""
    if values.dtype.kind == "c" and dtype.kind != "c":
        values = values.real
    with np.errstate(all="ignore"):
        try:
            return values.astype(dtype)
        except TypeError:  # ml_dtypes knows no way between some of its 8-bit types; float32 holds all their values
            return values.astype(np.float32).astype(dtype)


def scatter(values: np.ndarray, target: np.ndarray, start: int) -> None:
    """Write flat `values` into elements `start` … of `target` in row-major order, cast to its dtype."""
    if values.dtype != target.dtype:
        values = cast(values, target.dtype)
    at = 0
    for box in range_boxes(target.shape, start, start + values.size):
        np.copyto(target[box.index], values[at : at + box.size].reshape(box.shape))
        at += box.size
