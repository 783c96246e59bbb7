"""Sums, means and the like, over some dimensions or all. Fluid has no tensors without dimensions: all of them give [1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.core import to_numpy
from holdfast.fluid.ops.known import folds
from holdfast.fluid.registry import op


@op("X -> Out")
def mean(x: Array) -> Array:
    """The mean of all elements, shape [1]."""
    return jnp.mean(x).reshape(1)


def _reduction(name: str, function: Callable[..., Array], *, differentiable: bool = True) -> None:
    @folds
    def run(
        x: Array,
        *,
        dim: Sequence[int] | int = (0,),
        keep_dim: bool = False,
        reduce_all: bool = False,
        out_dtype: int = -1,
    ) -> Array:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        every = reduce_all or not dims
        options: dict[str, Any] = {} if out_dtype < 0 else {"dtype": to_numpy(out_dtype)}
        if not options and name in ("sum", "prod"):
            options["dtype"] = x.dtype  # NumPy would widen integers
        out = function(x, axis=None if every else dims, keepdims=keep_dim, **options)
        return out.reshape(1) if out.ndim == 0 else out

    op("X -> Out", f"reduce_{name}", differentiable=differentiable)(run)


_reduction("sum", jnp.sum)
_reduction("mean", jnp.mean)
_reduction("max", jnp.max)
_reduction("min", jnp.min)
_reduction("prod", jnp.prod)
_reduction("all", jnp.all, differentiable=False)
_reduction("any", jnp.any, differentiable=False)


def _test(name: str, function: Callable[[Array], Array]) -> None:
    op("X -> Out", name, differentiable=False)(lambda x: function(x).reshape(1))


_test("isinf", lambda x: jnp.any(jnp.isinf(x)))
_test("isnan", lambda x: jnp.any(jnp.isnan(x)))
_test("isfinite", lambda x: jnp.all(jnp.isfinite(x)))
_test("is_empty", lambda x: jnp.asarray(x.size == 0))


@op("X -> Out", differentiable=False)
def arg_max(x: Array, *, axis: int = 0, keepdims: bool = False, dtype: int = -1) -> Array:
    """The place of the largest element along an axis, int64."""
    return _place(jnp.argmax(x, axis, keepdims=keepdims), dtype)


@op("X -> Out", differentiable=False)
def arg_min(x: Array, *, axis: int = 0, keepdims: bool = False, dtype: int = -1) -> Array:
    """The place of the smallest element along an axis, int64."""
    return _place(jnp.argmin(x, axis, keepdims=keepdims), dtype)


def _place(found: Array, dtype: int) -> Array:
    found = found.astype(jnp.int64 if dtype < 0 else to_numpy(dtype))
    return found.reshape(1) if found.ndim == 0 else found


@op("X -> Out Indices")
def argsort(x: Array, *, axis: int = -1, descending: bool = False) -> tuple[Array, Array]:
    """Sorted along an axis, and the places int64; equal elements keep their order."""
    places = jnp.argsort(x, axis, descending=descending, stable=True)
    return jnp.take_along_axis(x, places, axis), places.astype(jnp.int64)


@op("Input -> Out")
def trace(x: Array, *, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """The sum of a diagonal."""
    out = jnp.trace(x, offset, dim1, dim2, dtype=x.dtype)
    return out.reshape(1) if out.ndim == 0 else out
