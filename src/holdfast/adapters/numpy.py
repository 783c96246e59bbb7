"""NumPy arrays as variables: which of them a checkpoint can hold."""

from __future__ import annotations

import numpy as np

from holdfast import dtypes


def array_problem(array: np.ndarray) -> str | None:
    """Why no checkpoint can hold an array; None if one can."""
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        return "a masked array would lose its mask; save .data and .mask"
    if dtypes.from_numpy(array.dtype) is None:
        return dtype_problem(array.dtype)
    return None


def dtype_problem(dtype: object) -> str:
    """What to say of a dtype that no checkpoint can hold."""
    return f"dtype {dtype} is not one that the format holds ({', '.join(dtypes.ITEMSIZE)})"


def plain_array(array: np.ndarray) -> np.ndarray:
    """The same memory without a class of its own: a matrix, for one, cannot be made flat."""
    return array if type(array) is np.ndarray else array.view(np.ndarray)
