"""Functions of each element. Where Fluid's gradient at a kink is not JAX's, the function is written so that it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.registry import find, op


def _unary(name: str, function: Callable[[Array], Array]) -> None:
    op("X -> Out", name)(lambda x: function(x))


def _rounded(x: Array) -> Array:
    # Halves away from zero, as C++ does.
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


_unary("relu", jax.nn.relu)
_unary("sigmoid", jax.nn.sigmoid)
_unary("logsigmoid", jax.nn.log_sigmoid)
_unary("tanh", jnp.tanh)
_unary("tanh_shrink", lambda x: x - jnp.tanh(x))
_unary("softplus", jax.nn.softplus)
_unary("softsign", jax.nn.soft_sign)
_unary("exp", jnp.exp)
_unary("log", jnp.log)
_unary("log1p", jnp.log1p)
_unary("sqrt", jnp.sqrt)
_unary("rsqrt", jax.lax.rsqrt)
_unary("square", jnp.square)
_unary("reciprocal", lambda x: 1 / x)
_unary("abs", jnp.abs)
_unary("sign", jnp.sign)
_unary("ceil", jnp.ceil)
_unary("floor", jnp.floor)
_unary("round", _rounded)
_unary("sin", jnp.sin)
_unary("cos", jnp.cos)
_unary("asin", jnp.arcsin)
_unary("acos", jnp.arccos)
_unary("atan", jnp.arctan)
_unary("erf", jax.scipy.special.erf)


@op("X -> Out")
def relu6(x: Array, *, threshold: float = 6.0) -> Array:
    """Cut off at zero and at a threshold."""
    return clip(x, None, None, min=0.0, max=threshold)


@op("X -> Out")
def leaky_relu(x: Array, *, alpha: float = 0.02) -> Array:
    """`alpha * x` below zero."""
    return jnp.where(x > 0, x, alpha * x)


@op("X -> Out")
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """An exponential below zero."""
    return jax.nn.elu(x, alpha)


@op("X -> Out")
def selu(x: Array, *, scale: float = 1.0507009873554805, alpha: float = 1.6732632423543772) -> Array:
    """A scaled `elu`."""
    return scale * jax.nn.elu(x, alpha)


@op("X -> Out")
def gelu(x: Array, *, approximate: bool = False) -> Array:
    """Times the normal distribution function, or tanh's approximation of it."""
    return jax.nn.gelu(x, approximate)


@op("X -> Out")
def brelu(x: Array, *, t_min: float = 0.0, t_max: float = 24.0) -> Array:
    """Cut off at both sides."""
    return clip(x, None, None, min=t_min, max=t_max)


@op("X -> Out")
def soft_relu(x: Array, *, threshold: float = 40.0) -> Array:
    """`log(1 + exp(x))` of what is cut off at both sides."""
    return jax.nn.softplus(clip(x, None, None, min=-threshold, max=threshold))


@op("X -> Out")
def thresholded_relu(x: Array, *, threshold: float = 1.0) -> Array:
    """Zero up to a threshold."""
    return jnp.where(x > threshold, x, 0)


@op("X -> Out")
def hard_shrink(x: Array, *, threshold: float = 0.5) -> Array:
    """Zero in the middle."""
    return jnp.where(jnp.abs(x) > threshold, x, 0)


@op("X -> Out")
def softshrink(x: Array, **attrs: Any) -> Array:
    """Zero in the middle, and nearer to zero elsewhere."""
    width = attrs.get("lambda", 0.5)
    return jnp.where(x > width, x - width, jnp.where(x < -width, x + width, 0))


find("softshrink").attrs["lambda"] = 0.5  # a word of Python, so no parameter can have the name


@op("X -> Out")
def hard_sigmoid(x: Array, *, slope: float = 0.2, offset: float = 0.5) -> Array:
    """A line, cut off at 0 and 1."""
    return clip(slope * x + offset, None, None, min=0.0, max=1.0)


@op("X -> Out")
def hard_swish(x: Array, *, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0) -> Array:
    """Times a line that is cut off."""
    return x * clip(x + offset, None, None, min=0.0, max=threshold) / scale


@op("X -> Out")
def swish(x: Array, *, beta: float = 1.0) -> Array:
    """Times a sigmoid."""
    return x * jax.nn.sigmoid(beta * x)


@op("X -> Out")
def mish(x: Array, *, threshold: float = 20.0) -> Array:
    """Times the tanh of `softplus`, which is a line above the threshold."""
    smooth = jnp.where(x > threshold, x, jnp.where(x < -threshold, jnp.exp(x), jax.nn.softplus(x)))
    return x * jnp.tanh(smooth)


@op("X -> Out")
def stanh(x: Array, *, scale_a: float = 0.67, scale_b: float = 1.7159) -> Array:
    """A scaled tanh."""
    return scale_b * jnp.tanh(scale_a * x)


@op("X FactorTensor? -> Out")
def pow_(x: Array, exponent: Array | None, *, factor: float = 1.0) -> Array:
    """To a power."""
    power = jnp.asarray(factor, x.dtype) if exponent is None else exponent.astype(x.dtype).reshape(())
    return jnp.power(x, power)


@op("X Min? Max? -> Out")
def clip(x: Array, lowest: Array | None, highest: Array | None, *, min: float = 0.0, max: float = 0.0) -> Array:
    """Cut off at both sides; no gradient from the edges on."""
    low = jnp.asarray(min, x.dtype) if lowest is None else lowest.astype(x.dtype).reshape(())
    high = jnp.asarray(max, x.dtype) if highest is None else highest.astype(x.dtype).reshape(())
    return jnp.where(x > low, jnp.where(x < high, x, high), low)


@op("X -> Out", differentiable=False)
def clip_by_norm(x: Array, *, max_norm: float) -> Array:
    """Scaled down to a norm, if it is larger."""
    norm = jnp.sqrt(jnp.sum(jnp.square(x)))
    return jnp.where(norm > max_norm, x * (max_norm / jnp.maximum(norm, max_norm)), x)


@op("X -> Out")
def softmax(x: Array, *, axis: int = -1, data_format: str = "AnyLayout", is_test: bool = False) -> Array:
    """Exponentials that add up to one along an axis."""
    return jax.nn.softmax(x, axis)


@op("X -> Out")
def cumsum(x: Array, *, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> Array:
    """Sums of all elements up to each, along an axis."""
    out = jnp.cumsum(jnp.flip(x, axis) if reverse else x, axis, dtype=x.dtype)
    if exclusive:
        width = [(0, 0)] * x.ndim
        width[axis] = (1, 0)
        out = jax.lax.slice_in_dim(jnp.pad(out, width), 0, x.shape[axis], axis=axis % x.ndim)
    return jnp.flip(out, axis) if reverse else out
