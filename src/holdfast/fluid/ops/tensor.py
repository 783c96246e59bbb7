"""Operators that make tensors, copy them, or change their dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from holdfast.fluid.core import VarType, to_numpy
from holdfast.fluid.ops.known import SMALL, folds, known, shape_from
from holdfast.fluid.registry import op


def _filled(shape: Sequence[int], value: Any, dtype: int) -> Any:
    kind = to_numpy(dtype)
    if isinstance(value, str):
        # A float attribute of Fluid's has 32 bits; its text holds integers, and float64, as they are.
        value = int(float(value)) if kind.kind in "iu" and not value.lstrip("+-").isdigit() else kind.type(value)
    return (np if math.prod(shape) <= SMALL else jnp).full(tuple(shape), value, kind)


@op("ValueTensor? ShapeTensor? ShapeTensorList* -> Out", differentiable=False)
def fill_constant(
    value_tensor: Array | None,
    shape_tensor: Any,
    shape_parts: list[Any],
    *,
    dtype: int,
    shape: Sequence[int] = (),
    value: float = 0.0,
    str_value: str = "",
    force_cpu: bool = False,
) -> Any:
    """A tensor of one value."""
    shape = shape_from(shape, shape_tensor, shape_parts, "the shape of fill_constant")
    if value_tensor is not None:
        return jnp.broadcast_to(value_tensor.reshape(()).astype(to_numpy(dtype)), shape)
    return _filled(shape, str_value or value, dtype)


@op("X -> Out", differentiable=False)
def fill_any_like(x: Array, *, value: float = 0.0, dtype: int | None = None) -> Array:
    """A tensor of one value and another's shape."""
    return jnp.full(x.shape, value, x.dtype if dtype is None or dtype < 0 else to_numpy(dtype))


@op("X -> Out", differentiable=False)
def fill_zeros_like(x: Array) -> Array:
    """Zeros of another's shape and dtype."""
    return jnp.zeros(x.shape, x.dtype)


def like_batch(shape: Sequence[int], x: Array, input_dim_idx: int, output_dim_idx: int) -> tuple[int, ...]:
    """A shape with one dimension of a tensor's."""
    sizes = list(shape)
    sizes[output_dim_idx] = x.shape[input_dim_idx]
    return tuple(sizes)


@op("Input -> Out", differentiable=False)
def fill_constant_batch_size_like(
    x: Array,
    *,
    shape: Sequence[int],
    dtype: int = VarType.FP32,
    value: float = 0.0,
    str_value: str = "",
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    force_cpu: bool = False,
) -> Any:
    """A tensor of one value, one dimension as another tensor has it."""
    return _filled(like_batch(shape, x, input_dim_idx, output_dim_idx), str_value or value, dtype)


@op(" -> Out", differentiable=False)
def assign_value(
    *,
    shape: Sequence[int],
    dtype: int,
    bool_values: Sequence[bool] = (),
    fp32_values: Sequence[float] = (),
    int32_values: Sequence[int] = (),
    int64_values: Sequence[int] = (),
) -> Any:
    """A tensor that stands in the program itself."""
    values = {
        VarType.BOOL: bool_values,
        VarType.FP32: fp32_values,
        VarType.INT32: int32_values,
        VarType.INT64: int64_values,
    }.get(VarType(dtype), fp32_values)
    return np.array(values, to_numpy(dtype)).reshape(tuple(shape))


@op("X -> Out")
def assign(x: Array) -> Array:
    """The tensor itself."""
    return x


@op("X -> Out")
@folds
def cast(x: Array, *, out_dtype: int, in_dtype: int = -1) -> Array:
    """Another dtype; floats are cut off to integers, as C++ does it."""
    return x.astype(to_numpy(out_dtype))


@op("Input -> Out", differentiable=False)
def shape(x: Array) -> np.ndarray:
    """The shape, int32; known when the program is compiled."""
    return np.array(x.shape, np.int32)


@op("Input -> Out", differentiable=False)
def size(x: Array) -> np.ndarray:
    """The number of elements, int64 [1]."""
    return np.array([math.prod(x.shape)], np.int64)


@op("Start End Step -> Out", differentiable=False)
def range_(start: Any, end: Any, step: Any) -> np.ndarray:
    """Numbers from start to end (not included)."""
    first, last, by = (known(v, "the range").ravel()[0] for v in (start, end, step))
    return np.arange(first, last, by, dtype=start.dtype)


@op("Start Stop Num -> Out", differentiable=False)
def linspace(start: Array, stop: Array, num: Any) -> Array:
    """So many numbers from start to stop, both included."""
    count = int(known(num, "the number of linspace").ravel()[0])
    return jnp.linspace(start.reshape(()), stop.reshape(()), count, dtype=start.dtype)


@op(" -> Out", differentiable=False)
def eye(*, num_rows: int, num_columns: int = -1, dtype: int = VarType.FP32) -> Array:
    """Ones on the diagonal."""
    return jnp.eye(num_rows, None if num_columns < 0 else num_columns, dtype=to_numpy(dtype))


@op("Diagonal -> Out", differentiable=False)
def diag(x: Array) -> Array:
    """A matrix with this diagonal."""
    return jnp.diag(x)


@op("Input -> Out")
def diag_embed(x: Array, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    """Matrices with these diagonals, in two new dimensions."""
    count = x.shape[-1] + abs(offset)
    rows = jnp.arange(x.shape[-1]) + max(-offset, 0)
    out = jnp.zeros((*x.shape[:-1], count, count), x.dtype).at[..., rows, rows + offset].set(x)
    return jnp.moveaxis(out, (-2, -1), (dim1, dim2))


@op("X -> Out")
def tril_triu(x: Array, *, diagonal: int = 0, lower: bool = True) -> Array:
    """Zeros above a diagonal, or below it."""
    return jnp.tril(x, diagonal) if lower else jnp.triu(x, diagonal)


@op("X* -> Out*")
def meshgrid(xs: list[Array]) -> list[Array]:
    """Coordinates of a grid."""
    return list(jnp.meshgrid(*xs, indexing="ij"))


@op("X -> Out", differentiable=False)
def shard_index(x: Array, *, index_num: int, nshards: int, shard_id: int, ignore_value: int = -1) -> Array:
    """Places within one of the parts that an index is cut into."""
    per_shard = -(-index_num // nshards)
    return jnp.where(x // per_shard == shard_id, x % per_shard, jnp.asarray(ignore_value, x.dtype))
