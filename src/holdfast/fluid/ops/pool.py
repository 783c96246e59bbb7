"""Pooling: the greatest or the mean of every window, or of a given number of parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from holdfast.fluid.ops.windows import Pads, is_channel_last, resolve_padding, spatial
from holdfast.fluid.registry import op


def _output_sizes(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], pads: Pads, ceil: bool
) -> list[int]:
    rooms = [n + sum(p) - k for n, k, p in zip(sizes, kernel, pads, strict=True)]
    if any(room < 0 for room in rooms):
        raise ValueError(f"pooling windows of {list(kernel)} do not fit into {list(sizes)} with padding {pads}")
    return [(room + (s - 1 if ceil else 0)) // s + 1 for room, s in zip(rooms, strides, strict=True)]


def _lowest(dtype: Any) -> Any:
    kind = jnp.issubdtype(dtype, jnp.floating)
    return np.asarray(-np.inf if kind else np.iinfo(dtype).min, dtype)[()]


def _spread(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A line of values as an array that broadcasts along one of `rank` axes."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def pool(
    x: Array,
    *,
    pooling_type: str,
    ksize: Sequence[int],
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    padding_algorithm: str = "EXPLICIT",
    global_pooling: bool = False,
    adaptive: bool = False,
    exclusive: bool = True,
    ceil_mode: bool = False,
    data_format: str = "NCHW",
) -> Array:
    """The greatest (`"max"`) or the mean (`"avg"`) of every window of images or volumes.

    `exclusive` leaves the padding out of the mean; `adaptive` makes `ksize` parts of each dimension.
    """
    sizes = spatial(x.shape, data_format)
    first = 1 if is_channel_last(data_format) else 2
    if adaptive:
        return _adaptive(x, ksize, pooling_type, first)
    if global_pooling:
        ksize, paddings, padding_algorithm = sizes, [0] * len(sizes), "EXPLICIT"
    strides, paddings = strides or [1] * len(sizes), paddings or [0] * len(sizes)
    pads = resolve_padding(padding_algorithm, paddings, sizes, ksize, strides)
    counts = _output_sizes(sizes, ksize, strides, pads, ceil_mode)
    # Windows that begin inside and end outside are filled up.
    reach = [(c - 1) * s + k for c, s, k in zip(counts, strides, ksize, strict=True)]
    full = [(before, max(r - n - before, 0)) for r, n, (before, _) in zip(reach, sizes, pads, strict=True)]
    window, step, padding = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
    for i, (k, s, p) in enumerate(zip(ksize, strides, full, strict=True)):
        window[first + i], step[first + i], padding[first + i] = k, s, p
    if pooling_type == "max":
        largest: Array = lax.reduce_window(x, _lowest(x.dtype), lax.max, window, step, padding)
        return largest
    total: Array = lax.reduce_window(x, np.zeros((), x.dtype)[()], lax.add, window, step, padding)
    if not exclusive:
        return total / math.prod(ksize)
    for i, (count, n, k, s, (before, _)) in enumerate(zip(counts, sizes, ksize, strides, pads, strict=True)):
        begin = np.arange(count) * s - before
        inside = np.minimum(begin + k, n) - np.maximum(begin, 0)
        total = total / _spread(inside.astype(x.dtype), first + i, x.ndim)
    return total


def _parts(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `count` parts of a line begins and ends; they may overlap by one."""
    number = np.arange(count)
    return number * size // count, -(-(number + 1) * size // count)


def _adaptive(x: Array, counts: Sequence[int], pooling_type: str, first: int) -> Array:
    if pooling_type == "max":
        return _adaptive_max(x, counts, first)[0]
    for axis, count in enumerate(counts, first):
        begin, end = _parts(x.shape[axis], count)
        taken, inside = _taken(x, axis, begin, end)
        weights = (inside / inside.sum(1, keepdims=True)).astype(x.dtype)
        x = (taken * weights.reshape(*inside.shape, *(1,) * (taken.ndim - axis - 2))).sum(axis + 1)
    return x


def _taken(x: Array, axis: int, begin: np.ndarray, end: np.ndarray) -> tuple[Array, np.ndarray]:
    """Every stretch of an axis, as two axes (stretch, place in it); and which places are inside their stretch."""
    places = begin[:, None] + np.arange((end - begin).max())
    return jnp.take(x, np.clip(places, 0, x.shape[axis] - 1), axis), places < end[:, None]


def _adaptive_max(x: Array, counts: Sequence[int], first: int) -> tuple[Array, Array]:
    sizes = x.shape[first : first + len(counts)]
    stretches = [_parts(n, count) for n, count in zip(sizes, counts, strict=True)]
    return _max_with_index(x, stretches, first)


def _max_with_index(x: Array, stretches: list[tuple[np.ndarray, np.ndarray]], first: int) -> tuple[Array, Array]:
    """The greatest of each window, and its place in the plane or volume, counted through."""
    rank, sizes = len(stretches), x.shape[first : first + len(stretches)]
    inside = np.ones((1,) * (2 * rank), bool)
    place = np.zeros((1,) * (2 * rank), np.int64)
    for i, (begin, end) in enumerate(stretches):
        begin, end = np.asarray(begin), np.asarray(end)
        x, inner = _taken(x, first + 2 * i, begin, end)
        shape = [1] * (2 * rank)
        shape[2 * i : 2 * i + 2] = inner.shape
        along = np.clip(begin[:, None] + np.arange(inner.shape[1]), 0, sizes[i] - 1)
        inside = inside & (inner & (begin[:, None] + np.arange(inner.shape[1]) >= 0)).reshape(shape)
        place = place * sizes[i] + along.reshape(shape)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]  # windows first, then places in them
    windows = [inside.shape[i] for i in order[:rank]]
    x = jnp.where(
        inside.reshape(*(1,) * first, *inside.shape, *(1,) * (x.ndim - first - 2 * rank)), x, _lowest(x.dtype)
    )
    x = x.transpose(*range(first), *(first + i for i in order)).reshape(*x.shape[:first], *windows, -1)
    flat = np.broadcast_to(place, inside.shape).transpose(order).reshape(*windows, -1)
    chosen = jnp.argmax(x, -1, keepdims=True)
    index = jnp.take_along_axis(jnp.broadcast_to(flat, x.shape), chosen, -1)[..., 0]
    return jnp.take_along_axis(x, chosen, -1)[..., 0], index.astype(jnp.int32)


for _type in ("pool2d", "pool3d"):
    op("X -> Out", _type)(pool)


def max_pool_with_index(
    x: Array,
    *,
    ksize: Sequence[int],
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    global_pooling: bool = False,
    adaptive: bool = False,
) -> tuple[Array, Array]:
    """The greatest of every window, and where in its plane or volume it stands, counted row by row: int32."""
    if adaptive:
        return _adaptive_max(x, ksize, 2)
    sizes = list(x.shape[2:])
    strides, paddings = strides or [1] * len(sizes), paddings or [0] * len(sizes)
    if global_pooling:
        ksize, paddings = sizes, [0] * len(sizes)
    counts = _output_sizes(sizes, ksize, strides, [(p, p) for p in paddings], ceil=False)
    stretches = []
    for count, n, k, s, p in zip(counts, sizes, ksize, strides, paddings, strict=True):
        begin = np.arange(count) * s - p
        stretches.append((begin, np.minimum(begin + k, n)))
    return _max_with_index(x, stretches, 2)


for _type in ("max_pool2d_with_index", "max_pool3d_with_index"):
    op("X -> Out Mask", _type)(max_pool_with_index)


@op("X -> Out")
def maxout(x: Array, *, groups: int, axis: int = 1) -> Array:
    """The greatest of every `groups` channels that follow each other."""
    axis %= x.ndim
    shape = x.shape
    return x.reshape(*shape[:axis], shape[axis] // groups, groups, *shape[axis + 1 :]).max(axis + 1)
