"""Normalisation: of batches, layers, groups, instances, rows and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from holdfast.fluid.ops.windows import is_channel_last
from holdfast.fluid.registry import op

_BatchNorm = tuple[Array, Array, Array, Array, Array]


def _along_channels(values: Array, x: Array, channel: int) -> Array:
    return values.reshape([-1 if axis == channel else 1 for axis in range(x.ndim)])


@op("X Scale Bias Mean Variance MomentumTensor? -> Y MeanOut VarianceOut SavedMean SavedVariance")
def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    momentum_tensor: Array | None,
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    is_test: bool = False,
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
    fuse_with_relu: bool = False,
) -> _BatchNorm:
    """Every channel with mean 0 and variance 1 over the batch, scaled and moved.

    The variance is that of the batch itself, divided by its size, in the moving one as well. The momentum is the share of the
    old value. Both moving statistics stay as they are, and are used, if `is_test` or `use_global_stats`.

    Returns:
        What is normalised, the moving mean and variance, the mean that was used, and 1 / the standard deviation that was.
    """
    channel = x.ndim - 1 if is_channel_last(data_layout) and x.ndim > 2 else 1
    axes = [axis for axis in range(x.ndim) if axis != channel]
    count = math.prod(x.shape[axis] for axis in axes)
    values = x.astype(scale.dtype)
    new_mean, new_variance = mean, variance
    if (is_test and not trainable_statistics) or use_global_stats:
        used_mean, used_variance = mean, variance
    elif count == 1:
        # Nothing to take a variance of: Fluid hands the input on.
        return x, mean, variance, jnp.zeros_like(mean), jnp.zeros_like(variance)
    else:
        used_mean = values.mean(axes)
        used_variance = jnp.square(values - _along_channels(used_mean, x, channel)).mean(axes)
        share = momentum if momentum_tensor is None else momentum_tensor.reshape(()).astype(mean.dtype)
        new_mean = lax.stop_gradient(mean * share + used_mean * (1 - share))
        new_variance = lax.stop_gradient(variance * share + used_variance * (1 - share))
    inverse = lax.rsqrt(used_variance + epsilon)
    centered = values - _along_channels(used_mean, x, channel)
    y = centered * _along_channels(scale * inverse, x, channel) + _along_channels(bias, x, channel)
    y = jnp.maximum(y, 0) if fuse_with_relu else y
    return y.astype(x.dtype), new_mean, new_variance, used_mean, inverse


@op("X Scale Bias Mean Variance MomentumTensor? -> Y MeanOut VarianceOut SavedMean SavedVariance")
def inplace_abn(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    momentum_tensor: Array | None,
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
    is_test: bool = False,
    use_global_stats: bool = False,
    trainable_statistics: bool = False,
    activation: str = "",
    alpha: float = 0.1,
) -> _BatchNorm:
    """`batch_norm` with an activation: `"identity"`, `"leaky_relu"` or `"elu"`, whose slope or height is `alpha`."""
    y, *rest = batch_norm(
        x, scale, bias, mean, variance, momentum_tensor,
        momentum=momentum, epsilon=epsilon, data_layout=data_layout, is_test=is_test, use_global_stats=use_global_stats,
        trainable_statistics=trainable_statistics,
    )  # fmt: skip
    if activation == "leaky_relu":
        y = jnp.where(y > 0, y, alpha * y)
    elif activation == "elu":
        y = jnp.where(y > 0, y, alpha * jnp.expm1(jnp.where(y > 0, 0, y)))
    elif activation not in ("", "identity"):
        raise ValueError(f"activation is identity, leaky_relu or elu, not {activation!r}")
    return y, *rest  # type: ignore[return-value]


def _standardised(x: Array, axes: Sequence[int], epsilon: float) -> tuple[Array, Array, Array]:
    """What has mean 0 and variance 1 over some axes; the mean and the variance that it had, with axes of size 1."""
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + epsilon), mean, variance


@op("X Scale? Bias? -> Y Mean Variance")
def layer_norm(
    x: Array, scale: Array | None, bias: Array | None, *, begin_norm_axis: int = 1, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Every sample with mean 0 and variance 1 over the dimensions from `begin_norm_axis` on, scaled and moved."""
    y, mean, variance = _standardised(x, range(begin_norm_axis, x.ndim), epsilon)
    if scale is not None:
        y = y * scale.reshape(x.shape[begin_norm_axis:])
    if bias is not None:
        y = y + bias.reshape(x.shape[begin_norm_axis:])
    rows = math.prod(x.shape[:begin_norm_axis])
    return y, mean.reshape(rows), variance.reshape(rows)


@op("X Scale? Bias? -> Y Mean Variance")
def group_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    groups: int,
    epsilon: float = 1e-5,
    data_layout: str = "NCHW",
) -> tuple[Array, Array, Array]:
    """Every group of channels of a sample with mean 0 and variance 1, scaled and moved."""
    channel = x.ndim - 1 if is_channel_last(data_layout) else 1
    if x.shape[channel] % groups:
        raise ValueError(f"{x.shape[channel]} channels do not make {groups} groups")
    split = x.reshape(*x.shape[:channel], groups, x.shape[channel] // groups, *x.shape[channel + 1 :])
    y, mean, variance = _standardised(split, [a for a in range(1, split.ndim) if a != channel], epsilon)
    y = y.reshape(x.shape)
    if scale is not None:
        y = y * _along_channels(scale, x, channel)
    if bias is not None:
        y = y + _along_channels(bias, x, channel)
    return y, mean.reshape(x.shape[0], groups), variance.reshape(x.shape[0], groups)


@op("X Scale? Bias? -> Y SavedMean SavedVariance")
def instance_norm(
    x: Array, scale: Array | None, bias: Array | None, *, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Every channel of a sample with mean 0 and variance 1, scaled and moved; the last result is 1 / the deviation."""
    y, mean, variance = _standardised(x, range(2, x.ndim), epsilon)
    if scale is not None:
        y = y * _along_channels(scale, x, 1)
    if bias is not None:
        y = y + _along_channels(bias, x, 1)
    return y, mean.reshape(-1), lax.rsqrt(variance + epsilon).reshape(-1)


@op("Weight U V -> Out")
def spectral_norm(
    weight: Array, u: Array, v: Array, *, dim: int = 0, power_iters: int = 1, eps: float = 1e-12
) -> Array:
    """A weight divided by its greatest singular value, as power iteration from `u` and `v` finds it.

    The vectors count as constants for the gradient, and their variables keep their values.
    """
    matrix = jnp.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)
    fixed = lax.stop_gradient(matrix)
    u, v = lax.stop_gradient(u.reshape(-1)), lax.stop_gradient(v.reshape(-1))
    for _ in range(power_iters):
        v = fixed.T @ u
        v = v / (jnp.linalg.norm(v) + eps)
        u = fixed @ v
        u = u / (jnp.linalg.norm(u) + eps)
    return weight / (u @ (matrix @ v))


@op("X -> Out MidOut")
def lrn(
    x: Array, *, n: int = 5, k: float = 1.0, alpha: float = 1e-4, beta: float = 0.75, data_format: str = "NCHW"
) -> tuple[Array, Array]:
    """Every value divided by what its `n` neighbours among the channels are together."""
    channel = x.ndim - 1 if is_channel_last(data_format) else 1
    if n % 2 == 0:
        raise ValueError(f"lrn: n must be odd, not {n}")
    window = [n if axis == channel else 1 for axis in range(x.ndim)]
    padding = [(n // 2, n // 2) if axis == channel else (0, 0) for axis in range(x.ndim)]
    total = lax.reduce_window(jnp.square(x), np.zeros((), x.dtype)[()], lax.add, window, [1] * x.ndim, padding)
    middle = k + alpha * total
    return x * middle**-beta, middle


@op("X -> Norm Out")
def norm(x: Array, *, axis: int = -1, epsilon: float = 1e-10) -> tuple[Array, Array]:
    """The length along an axis, and what has length one: `x / sqrt(sum(x * x) + epsilon)`."""
    length = jnp.sqrt(jnp.square(x).sum(axis, keepdims=True) + epsilon)
    return length, x / length


@op("X Y -> Out XNorm YNorm")
def cos_sim(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The cosine of the angle between rows, with the lengths of both; `y` may have one row for all."""
    x, y = x.reshape(x.shape[0], -1), y.reshape(y.shape[0], -1)
    x_norm, y_norm = (jnp.sqrt(jnp.square(a).sum(1, keepdims=True)) for a in (x, y))
    return (x * y).sum(1, keepdims=True) / (x_norm * y_norm), x_norm, y_norm


@op("X Scale Bias -> Out")
def affine_channel(x: Array, scale: Array, bias: Array, *, data_layout: str = "NCHW") -> Array:
    """Every channel scaled and moved."""
    channel = x.ndim - 1 if is_channel_last(data_layout) else 1
    return x * _along_channels(scale, x, channel) + _along_channels(bias, x, channel)


@op("X Alpha -> Out")
def prelu(x: Array, alpha: Array, *, mode: str) -> Array:
    """Values below zero times `alpha`: one for `"all"`, one for each `"channel"`, or one for each `"element"`."""
    if mode == "all":
        slope = alpha.reshape(())
    elif mode == "channel":
        slope = _along_channels(alpha.reshape(-1), x, 1)
    elif mode == "element":
        slope = alpha.reshape(1, *x.shape[1:])
    else:
        raise ValueError(f"mode is all, channel or element, not {mode!r}")
    return jnp.where(x > 0, x, slope * x)
