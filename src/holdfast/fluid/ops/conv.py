"""Convolutions and transposed convolutions in two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from holdfast.fluid.ops.windows import is_channel_last, resolve_padding, spatial
from holdfast.fluid.registry import op


def _layouts(rank: int, data_format: str) -> tuple[str, str, str]:
    """What lax calls the dimensions of input, filter and output; filters are output × input × window in every format."""
    dims = "DHW"[-rank:]
    image = f"N{dims}C" if is_channel_last(data_format) else f"NC{dims}"
    return image, f"OI{dims}", image


def _windows(
    rank: int,
    strides: Sequence[int] | None,
    paddings: Sequence[int] | None,
    dilations: Sequence[int] | None,
    padding_algorithm: str,
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Strides, paddings and dilations with what is meant where they are left out. SAME ignores dilations, as in Fluid."""
    spread = dilations if dilations and padding_algorithm != "SAME" else [1] * rank
    return strides or [1] * rank, paddings or [0] * rank, spread


def conv(
    x: Array,
    weight: Array,
    *,
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
    padding_algorithm: str = "EXPLICIT",
    data_format: str = "NCHW",
) -> Array:
    """Cross-correlation of images or volumes with a filter (output channels, input channels / groups, *window)."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    strides, paddings, dilations = _windows(rank, strides, paddings, dilations, padding_algorithm)
    return lax.conv_general_dilated(
        x,
        weight,
        list(strides),
        resolve_padding(padding_algorithm, paddings, spatial(x.shape, data_format), kernel, strides),
        rhs_dilation=list(dilations),
        dimension_numbers=_layouts(rank, data_format),
        feature_group_count=groups or 1,
    )


for _type in ("conv2d", "depthwise_conv2d", "conv3d"):
    op("Input Filter -> Output", _type)(conv)


def conv_transpose(
    x: Array,
    weight: Array,
    *,
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
    output_size: Sequence[int] = (),
    padding_algorithm: str = "EXPLICIT",
    data_format: str = "NCHW",
) -> Array:
    """The gradient of a convolution to its input, as a layer; the filter is (input channels, output / groups, *window)."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    groups = groups or 1
    strides, paddings, dilations = _windows(rank, strides, paddings, dilations, padding_algorithm)
    sizes = spatial(x.shape, data_format)
    pads = resolve_padding(padding_algorithm, paddings, sizes, kernel, strides)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    plain = [(n - 1) * s - sum(p) + r + 1 for n, s, p, r in zip(sizes, strides, pads, reach, strict=True)]
    extra = [0] * rank
    if output_size:
        extra = [wanted - size for wanted, size in zip(output_size, plain, strict=True)]
        if any(not 0 <= e < s for e, s in zip(extra, strides, strict=True)):
            raise ValueError(
                f"output_size {list(output_size)}: with these strides it must be from {plain} to "
                f"{[n + s - 1 for n, s in zip(plain, strides, strict=True)]}"
            )
    inputs, outputs = weight.shape[0], weight.shape[1]
    # lax wants output × input channels, group after group, and the window mirrored.
    turned = weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
    turned = jnp.flip(turned.reshape(groups * outputs, inputs // groups, *kernel), range(2, 2 + rank))
    return lax.conv_general_dilated(
        x,
        turned,
        [1] * rank,
        [(r - before, r - after + e) for r, (before, after), e in zip(reach, pads, extra, strict=True)],
        lhs_dilation=list(strides),
        rhs_dilation=list(dilations),
        dimension_numbers=_layouts(rank, data_format),
        feature_group_count=groups,
    )


for _type in ("conv2d_transpose", "depthwise_conv2d_transpose", "conv3d_transpose"):
    op("Input Filter -> Output", _type)(conv_transpose)


@op("X -> Y")
def unfold(
    x: Array, *, kernel_sizes: Sequence[int], strides: Sequence[int], paddings: Sequence[int], dilations: Sequence[int]
) -> Array:
    """Every window of an image as a column: (batch, channels · height · width of it, number of windows).

    `paddings` are top, left, bottom, right.
    """
    top, left, bottom, right = paddings
    patches = lax.conv_general_dilated_patches(
        x, list(kernel_sizes), list(strides), [(top, bottom), (left, right)], rhs_dilation=list(dilations)
    )
    return patches.reshape(*patches.shape[:2], math.prod(patches.shape[2:]))


@op("X Y Weight Bias? -> Out")
def bilinear_tensor_product(x: Array, y: Array, weight: Array, bias: Array | None) -> Array:
    """`x W_k y` for each of the matrices W_k."""
    out = jnp.einsum("bi,kij,bj->bk", x, weight, y, precision=jax.lax.Precision.HIGHEST)
    return out if bias is None else out + bias


@op("X Y -> Out")
def fsp(x: Array, y: Array) -> Array:
    """How the channels of two images go together: (batch, channels of x, channels of y), the mean over all places."""
    return jnp.einsum("bihw,bjhw->bij", x, y) / (x.shape[2] * x.shape[3])
