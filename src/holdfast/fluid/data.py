"""`fluid.data`: a variable that is fed, with its whole shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid import layers
from holdfast.fluid.framework import Variable


def data(name: str, shape: Sequence[int | None], dtype: Any = "float32", lod_level: int = 0) -> Variable:
    """A variable that every run is fed; unlike `fluid.layers.data`, the shape is the whole one.

    Args:
        name: the key in `feed`.
        shape: with the batch; None or -1 for a dimension of any size.
        dtype: of the arrays that are fed.
        lod_level: 0; sequences are not supported yet.
    """
    whole = [-1 if n is None else int(n) for n in shape]
    return layers.data(name, whole, append_batch_size=False, dtype=dtype, lod_level=lod_level)
