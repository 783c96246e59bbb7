"""Operators that make, copy and rearrange tensors."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.core import to_numpy
from holdfast.fluid.registry import op


@op(" -> Out", differentiable=False)
def fill_constant(*, shape: list[int], dtype: int, value: float = 0.0) -> Array:
    """A tensor of one value."""
    return jnp.full(tuple(shape), value, to_numpy(dtype))


@op("X -> Out", differentiable=False)
def fill_any_like(x: Array, *, value: float = 0.0, dtype: int | None = None) -> Array:
    """A tensor of one value and another's shape."""
    return jnp.full(x.shape, value, x.dtype if dtype is None else to_numpy(dtype))


@op("X -> Out")
def assign(x: Array) -> Array:
    """The tensor itself."""
    return x
