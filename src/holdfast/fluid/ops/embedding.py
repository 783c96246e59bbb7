"""Tables that are looked up by number, and numbers as vectors of zeros and a one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.core import to_numpy
from holdfast.fluid.registry import op


@op("W Ids -> Out")
def lookup_table_v2(table: Array, ids: Array, *, padding_idx: int = -1) -> Array:
    """A row of the table for each number; zeros for `padding_idx`, NaN for a number that has no row."""
    # A negative number would count from the end.
    rows = jnp.take(table, jnp.where(ids < 0, table.shape[0], ids), axis=0, mode="fill")
    return rows if padding_idx == -1 else jnp.where((ids == padding_idx)[..., None], jnp.zeros((), table.dtype), rows)


@op("W Ids -> Out")
def lookup_table(table: Array, ids: Array, *, padding_idx: int = -1) -> Array:
    """`lookup_table_v2` for numbers (..., 1): the last dimension becomes the row."""
    if ids.shape[-1] != 1:
        raise ValueError(
            f"the last dimension of the ids must be 1, but they are {list(ids.shape)}; use fluid.embedding"
        )
    return lookup_table_v2(table, ids[..., 0], padding_idx=padding_idx)


@op("X -> Out", differentiable=False)
def one_hot_v2(x: Array, *, depth: int, dtype: int = 5, allow_out_of_range: bool = False) -> Array:
    """(..., depth): one where the number stands, else zero; only zeros for a number that is not in [0, depth)."""
    del allow_out_of_range  # a compiled program cannot refuse a value: ranges.py looks at what is fed
    return jax.nn.one_hot(x, depth, dtype=to_numpy(dtype))


@op("X -> Out", differentiable=False)
def one_hot(x: Array, *, depth: int, dtype: int = 5, allow_out_of_range: bool = False) -> Array:
    """`one_hot_v2` for numbers (..., 1): the last dimension becomes the vector."""
    if x.shape[-1] != 1:
        raise ValueError(f"the last dimension must be 1, but the numbers are {list(x.shape)}; use fluid.one_hot")
    return one_hot_v2(x[..., 0], depth=depth, dtype=dtype, allow_out_of_range=allow_out_of_range)
