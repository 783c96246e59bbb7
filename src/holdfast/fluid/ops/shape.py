"""Operators that rearrange a tensor: the same elements in another shape, a part of them, or several tensors in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.ops.known import folds, known, shape_from
from holdfast.fluid.registry import ValueDependentShape, op


def _xshape(x: Array) -> Array:
    # Fluid keeps the shape for the gradient in a tensor of no elements; other programs find it by name.
    return jnp.zeros((0, *x.shape), x.dtype)


def reshaped(x: Array, shape: Sequence[int]) -> Array:
    """In a new shape: 0 stands for the dimension in its place, -1 (once) for what is left."""
    sizes = [x.shape[i] if n == 0 and i < x.ndim else n for i, n in enumerate(shape)]
    if sizes.count(-1) > 1:
        raise ValueError(f"reshape to {list(shape)}: -1 may stand once")
    if -1 in sizes:
        rest = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = math.prod(x.shape) // rest if rest else 0
    if math.prod(sizes) != math.prod(x.shape):
        raise ValueError(f"reshape: {list(x.shape)} has other elements than {list(shape)} can hold")
    return x.reshape(sizes)


@op("X Shape? ShapeTensor* -> Out XShape")
@folds
def reshape2(x: Array, shape_tensor: Any, parts: list[Any], *, shape: Sequence[int] = ()) -> tuple[Array, Array]:
    """See `reshaped`; a shape tensor that is known when the program is compiled comes before the attribute."""
    try:
        sizes = shape_from(shape, shape_tensor, parts, "the shape of reshape")
    except ValueDependentShape:
        if not shape or list(shape).count(-1) > 1:
            raise
        sizes = list(shape)
    return reshaped(x, sizes), _xshape(x)


@op("X -> Out XShape")
@folds
def squeeze2(x: Array, *, axes: Sequence[int] = ()) -> tuple[Array, Array]:
    """Without dimensions of 1: these axes, or all such."""
    dims = [a % x.ndim for a in axes] or range(x.ndim)
    out = jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))
    return out.reshape(1) if out.ndim == 0 else out, _xshape(x)


@op("X AxesTensor? AxesTensorList* -> Out XShape")
@folds
def unsqueeze2(x: Array, axes_tensor: Any, axes_parts: list[Any], *, axes: Sequence[int] = ()) -> tuple[Array, Array]:
    """With dimensions of 1 at these axes, one after the other."""
    out = x
    for axis in shape_from(axes, axes_tensor, axes_parts, "the axis of unsqueeze"):
        out = jnp.expand_dims(out, axis)
    return out, _xshape(x)


@op("X -> Out XShape")
def flatten2(x: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """A matrix: dimensions before the axis joined, and those from it on."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), _xshape(x)


@op("X -> Out XShape")
def transpose2(x: Array, *, axis: Sequence[int], data_format: str = "AnyLayout") -> tuple[Array, Array]:
    """Dimensions in another order."""
    return jnp.transpose(x, tuple(axis)), _xshape(x)


@op("X* AxisTensor? -> Out")
@folds
def concat(xs: list[Array], axis_tensor: Any, *, axis: int = 0) -> Array:
    """One after the other along an axis."""
    if axis_tensor is not None:
        axis = int(known(axis_tensor, "the axis of concat").ravel()[0])
    return jnp.concatenate(xs, axis)


@op("X* -> Y")
@folds
def stack(xs: list[Array], *, axis: int = 0) -> Array:
    """Side by side in a new dimension."""
    return jnp.stack(xs, axis)


@op("X -> Y*")
@folds
def unstack(x: Array, *, axis: int = 0, num: int = 0) -> list[Array]:
    """A tensor for each place of a dimension, without it."""
    return [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


@op("X AxisTensor? SectionsTensorList* -> Out*")
@folds
def split(
    x: Array, axis_tensor: Any, section_parts: list[Any], *, axis: int = 0, num: int = 0, sections: Sequence[int] = ()
) -> list[Array]:
    """Parts along an axis: so many equal ones, or these sizes, of which one may be -1."""
    if axis_tensor is not None:
        axis = int(known(axis_tensor, "the axis of split").ravel()[0])
    if num:
        return list(jnp.split(x, num, axis))
    sizes = shape_from(sections, None, section_parts, "the sections of split")
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(n for n in sizes if n != -1)
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"split: sections {list(sections)} do not add up to {x.shape[axis]}")
    stops = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [jax.lax.slice_in_dim(x, b - n, b, axis=axis) for b, n in zip(stops, sizes, strict=True)]


def _sliced(
    x: Array,
    axes: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    strides: Sequence[int],
    drop: Sequence[int],
) -> Array:
    index = [slice(None)] * x.ndim
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        size = x.shape[axis]
        if stride < 0:
            # An end before the first element: a Python slice says None.
            stop = end + size if end < 0 else end
            index[axis] = slice(start, None if stop < 0 else stop, stride)
        else:
            index[axis] = slice(start, end, stride)
    out = x[tuple(index)]
    if drop:
        out = out.reshape([n for i, n in enumerate(out.shape) if i not in drop] or [1])
    return out


@op("Input StartsTensor? EndsTensor? StartsTensorList* EndsTensorList* -> Out")
@folds
def slice_(
    x: Array,
    starts_tensor: Any,
    ends_tensor: Any,
    starts_parts: list[Any],
    ends_parts: list[Any],
    *,
    axes: Sequence[int],
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
    infer_flags: Sequence[int] = (),
    decrease_axis: Sequence[int] = (),
) -> Array:
    """A part of a tensor, by start and end on some axes; the axes that are decreased are left out."""
    first = shape_from(starts, starts_tensor, starts_parts, "the start of slice")
    last = shape_from(ends, ends_tensor, ends_parts, "the end of slice")
    return _sliced(x, axes, first, last, [1] * len(axes), decrease_axis)


@op("Input StartsTensor? EndsTensor? StridesTensor? StartsTensorList* EndsTensorList* StridesTensorList* -> Out")
@folds
def strided_slice(
    x: Array,
    starts_tensor: Any,
    ends_tensor: Any,
    strides_tensor: Any,
    starts_parts: list[Any],
    ends_parts: list[Any],
    strides_parts: list[Any],
    *,
    axes: Sequence[int],
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
    strides: Sequence[int] = (),
    infer_flags: Sequence[int] = (),
    decrease_axis: Sequence[int] = (),
) -> Array:
    """A part of a tensor, by start, end and step on some axes."""
    first = shape_from(starts, starts_tensor, starts_parts, "the start of strided_slice")
    last = shape_from(ends, ends_tensor, ends_parts, "the end of strided_slice")
    by = shape_from(strides, strides_tensor, strides_parts, "the step of strided_slice")
    return _sliced(x, axes, first, last, by, decrease_axis)


@op("X ExpandTimes? expand_times_tensor* -> Out")
@folds
def expand(x: Array, times_tensor: Any, times_parts: list[Any], *, expand_times: Sequence[int] = ()) -> Array:
    """Repeated so many times along each dimension."""
    times = shape_from(expand_times, times_tensor, times_parts, "expand_times")
    if len(times) != x.ndim:
        raise ValueError(f"expand: expand_times {times} needs a number for each dimension of {list(x.shape)}")
    return jnp.tile(x, times)


@op("X target_tensor -> Out")
def expand_as(x: Array, target: Array) -> Array:
    """Repeated until it has another's shape."""
    if x.ndim != target.ndim or any(t % n for n, t in zip(x.shape, target.shape, strict=True)):
        raise ValueError(f"expand_as: {list(x.shape)} cannot be repeated to {list(target.shape)}")
    return jnp.tile(x, [t // n for n, t in zip(x.shape, target.shape, strict=True)])


@op("X -> Out")
def reverse(x: Array, *, axis: Sequence[int] | int) -> Array:
    """Back to front along these axes."""
    return jnp.flip(x, axis if isinstance(axis, int) else tuple(axis))


@op("X -> Out")
def flip(x: Array, *, dims: Sequence[int]) -> Array:
    """Back to front along these dimensions."""
    return jnp.flip(x, tuple(dims))


@op("X -> Out")
def roll(x: Array, *, shifts: Sequence[int], dims: Sequence[int] = ()) -> Array:
    """Moved along these dimensions, around the edge; of the whole tensor as one row if there are none."""
    return jnp.roll(x, tuple(shifts), tuple(dims)) if dims else jnp.roll(x, shifts[0])


@op("X -> Out")
def pad(x: Array, *, paddings: Sequence[int], pad_value: float = 0.0) -> Array:
    """With a value before and after each dimension: so many, two numbers a dimension."""
    widths = list(zip(paddings[::2], paddings[1::2], strict=True))
    return jnp.pad(x, widths, constant_values=jnp.asarray(pad_value, x.dtype))


@op("X Paddings? -> Out")
def pad2d(
    x: Array,
    paddings_tensor: Any,
    *,
    paddings: Sequence[int] = (0, 0, 0, 0),
    mode: str = "constant",
    pad_value: float = 0.0,
    data_format: str = "NCHW",
) -> Array:
    """Images with an edge (top, bottom, left, right): of a value, mirrored, or of the outermost pixel."""
    top, bottom, left, right = shape_from(paddings, paddings_tensor, [], "the paddings of pad2d")
    inner = [(top, bottom), (left, right)]
    widths = [(0, 0), *inner, (0, 0)] if data_format == "NHWC" else [(0, 0), (0, 0), *inner]
    if mode == "constant":
        return jnp.pad(x, widths, constant_values=jnp.asarray(pad_value, x.dtype))
    return jnp.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")


@op("X Y -> Out")
def pad_constant_like(x: Array, y: Array, *, pad_value: float = 0.0) -> Array:
    """The second tensor, filled up with a value to the shape of the first."""
    widths = [(0, n - m) for n, m in zip(x.shape, y.shape, strict=True)]
    return jnp.pad(y, widths, constant_values=jnp.asarray(pad_value, y.dtype))


def _cropped(x: Array, sizes: Sequence[int], offsets: Sequence[int]) -> Array:
    starts = list(offsets) or [0] * x.ndim
    ends = [n if size == -1 else start + size for n, size, start in zip(x.shape, sizes, starts, strict=True)]
    if any(end > n for end, n in zip(ends, x.shape, strict=True)):
        raise ValueError(f"crop: {list(sizes)} from {starts} on is not inside {list(x.shape)}")
    return jax.lax.slice(x, starts, ends)


@op("X Y? Offsets? -> Out")
def crop(
    x: Array, y: Array | None, offsets_tensor: Any, *, offsets: Sequence[int] = (), shape: Sequence[int] = ()
) -> Array:
    """A block of a shape, or of another tensor's, from these offsets on."""
    sizes = shape if y is None else y.shape
    return _cropped(x, sizes, shape_from(offsets, offsets_tensor, [], "the offsets of crop"))


@op("X Shape? Offsets? ShapeTensor* OffsetsTensor* -> Out")
def crop_tensor(
    x: Array,
    shape_tensor: Any,
    offsets_tensor: Any,
    shape_parts: list[Any],
    offsets_parts: list[Any],
    *,
    offsets: Sequence[int] = (),
    shape: Sequence[int] = (),
) -> Array:
    """A block of a shape from these offsets on; -1: all that is left."""
    sizes = shape_from(shape, shape_tensor, shape_parts, "the shape of crop_tensor")
    return _cropped(x, sizes, shape_from(offsets, offsets_tensor, offsets_parts, "the offsets of crop_tensor"))
