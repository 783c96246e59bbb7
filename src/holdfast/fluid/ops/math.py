"""Arithmetic, activations and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.registry import op


@op("X Y -> Out")
def mul(x: Array, y: Array, *, x_num_col_dims: int = 1, y_num_col_dims: int = 1) -> Array:
    """Matrix product of two arrays, each made a matrix first by joining its dimensions."""
    a = x.reshape(math.prod(x.shape[:x_num_col_dims]), math.prod(x.shape[x_num_col_dims:]))
    b = y.reshape(math.prod(y.shape[:y_num_col_dims]), math.prod(y.shape[y_num_col_dims:]))
    return jnp.matmul(a, b).reshape(*x.shape[:x_num_col_dims], *y.shape[y_num_col_dims:])


def aligned(x: Array, y: Array, axis: int) -> Array:
    """`y` with dimensions added at the end, so that its first one stands at `axis` of `x`; -1: at the last ones."""
    if y.ndim >= x.ndim or axis in (-1, x.ndim - y.ndim):
        return y
    while y.ndim > 1 and y.ndim + axis > x.ndim and y.shape[-1] == 1:
        y = y.reshape(y.shape[:-1])  # Fluid leaves out trailing ones
    return y.reshape(*y.shape, *(1,) * (x.ndim - axis - y.ndim))


def _elementwise(name: str, function: Callable[[Array, Array], Array]) -> None:
    def run(x: Array, y: Array, *, axis: int = -1) -> Array:
        return function(x, aligned(x, y, axis))

    op("X Y -> Out", f"elementwise_{name}")(run)


_elementwise("add", jnp.add)
_elementwise("sub", jnp.subtract)
_elementwise("mul", jnp.multiply)
_elementwise("div", lambda x, y: x / y if jnp.issubdtype(x.dtype, jnp.floating) else jnp.trunc(x / y).astype(x.dtype))


@op("X -> Out")
def mean(x: Array) -> Array:
    """The mean of all elements, shape [1]."""
    return jnp.mean(x).reshape(1)


@op("X* -> Out")
def sum_(xs: list[Array]) -> Array:
    """The sum of arrays of one shape."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


@op("X -> Out")
def scale(x: Array, *, scale: float = 1.0, bias: float = 0.0, bias_after_scale: bool = True) -> Array:
    """`scale * x + bias`, or `scale * (x + bias)`."""
    s, b = jnp.asarray(scale, x.dtype), jnp.asarray(bias, x.dtype)
    return x * s + b if bias_after_scale else (x + b) * s


op("X -> Out", "relu")(lambda x: jnp.maximum(x, 0))
op("X -> Out", "tanh")(jnp.tanh)
op("X -> Out", "sigmoid")(jax.nn.sigmoid)
op("X -> Out", "square")(jnp.square)


@op("X -> Out")
def softmax(x: Array, *, axis: int = -1, is_test: bool = False) -> Array:
    """Exponentials that add up to one along an axis."""
    return jax.nn.softmax(x, axis)
