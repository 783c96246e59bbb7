"""Images resized, sampled and rearranged."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from holdfast.fluid.ops.windows import is_channel_last
from holdfast.fluid.registry import op


def _steps(size: int, out: int, align_corners: bool) -> np.float32:
    """How far apart, in the input, what neighbours in the output show is; in float32, which decides where Fluid rounds."""
    if out <= 1:
        return np.float32(0)
    return np.float32(size - 1) / np.float32(out - 1) if align_corners else np.float32(size) / np.float32(out)


def _nearest(x: Array, axis: int, out: int, align_corners: bool) -> Array:
    steps = _steps(x.shape[axis], out, align_corners)
    places = steps * np.arange(out, dtype=np.float32) + np.float32(0.5 if align_corners else 0)
    return jnp.take(x, np.minimum(places.astype(np.int64), x.shape[axis] - 1), axis)


def _linear(x: Array, axis: int, out: int, align_corners: bool, align_mode: int) -> Array:
    size, number = x.shape[axis], np.arange(out, dtype=np.float32)
    steps = _steps(size, out, align_corners)
    if align_mode == 0 and not align_corners:
        places = np.maximum(steps * (number + np.float32(0.5)) - np.float32(0.5), 0)
    else:
        places = steps * number
    low = np.minimum(places.astype(np.int64), size - 1)
    share = (places - low).astype(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    between: Array = jnp.take(x, low, axis) * (1 - share) + jnp.take(x, np.minimum(low + 1, size - 1), axis) * share
    return between


def interpolate(
    x: Array,
    *,
    interp_method: str = "bilinear",
    out_d: int = -1,
    out_h: int = -1,
    out_w: int = -1,
    scale: float = 0.0,
    align_corners: bool = True,
    align_mode: int = 1,
    data_layout: str = "NCHW",
) -> Array:
    """Images or volumes of another size, by the nearest value or linearly in every dimension."""
    rank = x.ndim - 2
    first = 1 if is_channel_last(data_layout) else 2
    sizes = x.shape[first : first + rank]
    wanted = [int(n * scale) for n in sizes] if scale > 0 else [out_d, out_h, out_w][-rank:]
    if any(n < 1 for n in wanted):
        raise ValueError(f"{interp_method}: a size of {wanted} is not possible; give out_shape or scale")
    for axis, out in enumerate(wanted, first):
        if interp_method == "nearest":
            x = _nearest(x, axis, out, align_corners)
        else:
            x = _linear(x, axis, out, align_corners, align_mode)
    return x


for _type in ("nearest_interp", "bilinear_interp", "trilinear_interp"):
    op("X -> Out", _type)(interpolate)


@op("Theta -> Output")
def affine_grid(theta: Array, *, output_shape: Sequence[int]) -> Array:
    """Where each pixel of an output (N, C, H, W) is in the input, -1 to 1: (N, H, W, 2), for matrices (N, 2, 3)."""
    height, width = output_shape[2], output_shape[3]
    xs, ys = (jnp.linspace(-1, 1, n, dtype=theta.dtype) for n in (width, height))
    base = jnp.stack(jnp.broadcast_arrays(xs[None, :], ys[:, None], jnp.ones((), theta.dtype)), -1)
    return jnp.einsum("hwk,njk->nhwj", base, theta)


@op("X Grid -> Output")
def grid_sampler(x: Array, grid: Array) -> Array:
    """Values of images (N, C, H, W) at the places of a grid (N, H', W', 2) from -1 to 1, linear; zero outside."""
    height, width = x.shape[2], x.shape[3]
    across, down = (grid[..., 0] + 1) * 0.5 * (width - 1), (grid[..., 1] + 1) * 0.5 * (height - 1)
    left, top = jnp.floor(across), jnp.floor(down)
    image = jnp.moveaxis(x, 1, -1)
    batch = jnp.arange(x.shape[0])[:, None, None]
    total = jnp.zeros((*grid.shape[:3], x.shape[1]), x.dtype)
    for column, part in ((left, left + 1 - across), (left + 1, across - left)):
        for row, share in ((top, top + 1 - down), (top + 1, down - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            i = jnp.clip(row, 0, height - 1).astype(jnp.int32)
            j = jnp.clip(column, 0, width - 1).astype(jnp.int32)
            weight = jnp.where(inside, part * share, jnp.zeros((), x.dtype))
            total = total + image[batch, i, j] * weight[..., None]
    return jnp.moveaxis(total, -1, 1)


@op("X -> Out")
def pixel_shuffle(x: Array, *, upscale_factor: int) -> Array:
    """(N, C · r², H, W) as (N, C, H · r, W · r)."""
    n, c, h, w = x.shape
    r = upscale_factor
    return x.reshape(n, c // (r * r), r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


@op("X -> Out")
def space_to_depth(x: Array, *, blocksize: int) -> Array:
    """(N, C, H, W) as (N, C · b², H / b, W / b), in the order of Darknet's `reorg`, for which C must be a multiple of b²."""
    n, c, h, w = x.shape
    b = blocksize
    if c % (b * b) or h % b or w % b:
        raise ValueError(f"space_to_depth: {c} channels must be a multiple of {b * b}, {h} x {w} pixels of {b}")
    mixed = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    return mixed.reshape(n, c * b * b, h // b, w // b)


@op("X -> Out")
def shuffle_channel(x: Array, *, group: int) -> Array:
    """Channels dealt out: the first of every group, then the second of every group."""
    n, c, h, w = x.shape
    return x.reshape(n, group, c // group, h, w).swapaxes(1, 2).reshape(x.shape)


@op("X -> Out")
def temporal_shift(x: Array, *, seg_num: int, shift_ratio: float = 0.25) -> Array:
    """Part of the channels moved one step ahead in time, as many one step back; rows are (clip, time)."""
    c = x.shape[1]
    first, second = int(c * shift_ratio), int(c * 2 * shift_ratio)
    clips = x.reshape(-1, seg_num, *x.shape[1:])
    padded = jnp.pad(clips, [(0, 0), (1, 1), *[(0, 0)] * (x.ndim - 1)])
    earlier, later = padded[:, :-2, :first], padded[:, 2:, first:second]
    return jnp.concatenate([earlier, later, clips[:, :, second:]], 2).reshape(x.shape)


@op("X -> Out")
def add_position_encoding(x: Array, *, alpha: float, beta: float) -> Array:
    """`alpha * x` plus `beta` times sines and cosines of the position, for (batch, length, size)."""
    half = x.shape[2] // 2
    position = np.arange(x.shape[1])[:, None]
    angle = position / 10000.0 ** (np.arange(half) / (half - 1) if half > 1 else np.ones(half))
    waves = np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(x.dtype)
    return x * alpha + waves * beta
