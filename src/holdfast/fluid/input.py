"""`fluid.embedding` and `fluid.one_hot` of 1.8: as those in `fluid.layers`, for numbers without a last dimension of 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layers.embedding import add_embedding, add_one_hot

__all__ = ["embedding", "one_hot"]


def embedding(
    input: Variable,
    size: Sequence[int],
    is_sparse: bool = False,
    is_distributed: bool = False,
    padding_idx: int | None = None,
    param_attr: Any = None,
    dtype: Any = "float32",
) -> Variable:
    """A row of a table for each number of any shape; the rest as in `fluid.layers.embedding`."""
    return add_embedding("lookup_table_v2", input, size, padding_idx, param_attr, dtype)


def one_hot(input: Variable, depth: int, allow_out_of_range: bool = False) -> Variable:
    """Vectors of zeros with a one where the number stands, as one more dimension; the rest as in `fluid.layers.one_hot`."""
    return add_one_hot("one_hot_v2", input, depth, allow_out_of_range)
