"""Arithmetic of two tensors, with Fluid's rule for the place of the smaller one, and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.ops.known import folds
from holdfast.fluid.registry import op


def aligned(x: Array, y: Array, axis: int) -> tuple[Array, Array]:
    """Both tensors, with dimensions of 1 added to the smaller one, so that its first one stands at `axis` of the larger.

    -1 stands for the last dimensions, as in NumPy.
    """
    if x.ndim < y.ndim:
        return _placed(x, y.ndim, axis), y
    return x, _placed(y, x.ndim, axis)


def _placed(small: Array, rank: int, axis: int) -> Array:
    if small.ndim == rank or axis in (-1, rank - small.ndim):
        return small
    while small.ndim > 1 and small.ndim + axis > rank and small.shape[-1] == 1:
        small = small.reshape(small.shape[:-1])  # Fluid leaves out trailing ones
    return small.reshape(*small.shape, *(1,) * (rank - axis - small.ndim))


def _divided(x: Array, y: Array) -> Array:
    # C++ divides integers towards zero.
    return x / y if jnp.issubdtype(x.dtype, jnp.floating) else jax.lax.div(*jnp.broadcast_arrays(x, y))


def _powered(x: Array, y: Array) -> Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.power(x, y)
    # As Fluid does it for integers: in floating point, cut off.
    return jnp.power(x.astype(jnp.float64), y.astype(jnp.float64)).astype(x.dtype)


def _remainder(x: Array, y: Array) -> Array:
    # Of integers C++'s, with the sign of x; of floats Fluid gives it the sign of y.
    return jnp.mod(x, y) if jnp.issubdtype(x.dtype, jnp.floating) else jax.lax.rem(*jnp.broadcast_arrays(x, y))


def _elementwise(name: str, function: Callable[[Array, Array], Array], *, differentiable: bool = True) -> None:
    @folds
    def run(x: Array, y: Array, *, axis: int = -1) -> Array:
        return function(*aligned(jnp.asarray(x), jnp.asarray(y), axis))

    op("X Y -> Out", f"elementwise_{name}", differentiable=differentiable)(run)


_elementwise("add", jnp.add)
_elementwise("sub", jnp.subtract)
_elementwise("mul", jnp.multiply)
_elementwise("div", _divided)
# Where both are equal Fluid gives the gradient to Y alone.
_elementwise("max", lambda x, y: jnp.where(x > y, x, y))
_elementwise("min", lambda x, y: jnp.where(x < y, x, y))
_elementwise("pow", _powered)
_elementwise("mod", _remainder, differentiable=False)
_elementwise("floordiv", lambda x, y: jnp.trunc(_divided(x, y)).astype(x.dtype), differentiable=False)


@op("X Y -> Out")
def mul(x: Array, y: Array, *, x_num_col_dims: int = 1, y_num_col_dims: int = 1) -> Array:
    """Matrix product of two arrays, each made a matrix first by joining its dimensions."""
    a = x.reshape(math.prod(x.shape[:x_num_col_dims]), math.prod(x.shape[x_num_col_dims:]))
    b = y.reshape(math.prod(y.shape[:y_num_col_dims]), math.prod(y.shape[y_num_col_dims:]))
    return jnp.matmul(a, b).reshape(*x.shape[:x_num_col_dims], *y.shape[y_num_col_dims:])


@op("X Y -> Out")
def matmul(
    x: Array,
    y: Array,
    *,
    transpose_X: bool = False,
    transpose_Y: bool = False,
    alpha: float = 1.0,
    head_number: int = 1,
    fused_reshape_Out: Sequence[int] = (),
    fused_transpose_Out: Sequence[int] = (),
) -> Array:
    """Matrix product over the last two dimensions; a vector is a row on the left, a column on the right."""
    if head_number != 1 or fused_reshape_Out or fused_transpose_Out:
        raise ValueError("matmul was fused with others for one kind of processor; save the program before that pass")
    vectors = []
    if x.ndim == 1:
        vectors += [] if transpose_X else [-2]
        x = x.reshape(-1, 1) if transpose_X else x.reshape(1, -1)
    elif transpose_X:
        x = jnp.swapaxes(x, -1, -2)
    if y.ndim == 1:
        vectors += [] if transpose_Y else [-1]
        y = y.reshape(1, -1) if transpose_Y else y.reshape(-1, 1)
    elif transpose_Y:
        y = jnp.swapaxes(y, -1, -2)
    out = jnp.matmul(x, y)
    out = jnp.squeeze(out, tuple(vectors))
    out = out.reshape(1) if out.ndim == 0 else out
    return out if alpha == 1.0 else out * jnp.asarray(alpha, out.dtype)


@op("X Y -> Out")
def bmm(x: Array, y: Array) -> Array:
    """Matrix products, one for each of a batch."""
    if x.ndim != 3 or y.ndim != 3:
        raise ValueError(f"bmm needs tensors of three dimensions, not {x.shape} and {y.shape}")
    return jnp.matmul(x, y)


@op("Input X Y -> Out")
def addmm(input: Array, x: Array, y: Array, *, Alpha: float = 1.0, Beta: float = 1.0) -> Array:
    """`Beta * input + Alpha * x @ y`."""
    return (Beta * input + Alpha * jnp.matmul(x, y)).astype(input.dtype)


@op("X Y -> Out")
def dot(x: Array, y: Array) -> Array:
    """Scalar products over the last dimension, which stays as one of 1."""
    return jnp.sum(x * y, -1, keepdims=True)


@op("X Y -> Out")
def dist(x: Array, y: Array, *, p: float = 2.0) -> Array:
    """The p-norm of the difference, shape [1]."""
    apart = jnp.abs(x - y)
    if p == 0:
        found = jnp.sum((apart != 0).astype(x.dtype))
    elif math.isinf(p):
        found = jnp.max(apart) if p > 0 else jnp.min(apart)
    else:
        found = jnp.power(jnp.sum(jnp.power(apart, p)), 1.0 / p)
    return found.reshape(1)


@op("X Y -> Out")
def cross(x: Array, y: Array, *, dim: int = 9) -> Array:
    """Vector products along a dimension of 3; 9 stands for the first such."""
    if dim == 9:
        dim = next((i for i, n in enumerate(x.shape) if n == 3), -1)
    if x.shape[dim] != 3:
        raise ValueError(f"cross needs a dimension of 3, found {x.shape}")
    return jnp.cross(x, y, axis=dim)


@op("X Y -> Out")
def kron(x: Array, y: Array) -> Array:
    """The Kronecker product."""
    return jnp.kron(x, y)


@op("X* -> Out")
@folds
def sum_(xs: list[Array]) -> Array:
    """The sum of arrays of one shape."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


@op("X ScaleTensor? -> Out")
@folds
def scale(
    x: Array, factor: Array | None, *, scale: float = 1.0, bias: float = 0.0, bias_after_scale: bool = True
) -> Array:
    """`scale * x + bias`, or `scale * (x + bias)`."""
    s = jnp.asarray(scale, x.dtype) if factor is None else factor.astype(x.dtype).reshape(())
    b = jnp.asarray(bias, x.dtype)
    return x * s + b if bias_after_scale else (x + b) * s


@op("X -> Out")
@folds
def increment(x: Array, *, step: float = 1.0) -> Array:
    """A number more."""
    return x + jnp.asarray(step, x.dtype)
