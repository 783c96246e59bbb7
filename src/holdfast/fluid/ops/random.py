"""Random operators; `key` comes from the lowering, which says what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.core import VarType, to_numpy
from holdfast.fluid.ops.known import shape_from
from holdfast.fluid.ops.tensor import like_batch
from holdfast.fluid.registry import op


@op(" -> Out", differentiable=False)
def init_random_state(*, key: Array) -> Array:
    """The beginning of a program's random numbers: int64 (2,), the two words of a key."""
    return jax.random.key_data(key).astype(jnp.int64)


@op("ShapeTensor? ShapeTensorList* -> Out", differentiable=False)
def uniform_random(
    shape_tensor: Any,
    shape_parts: list[Any],
    *,
    shape: Sequence[int] = (),
    dtype: int = VarType.FP32,
    min: float = -1.0,
    max: float = 1.0,
    diag_num: int = 0,
    diag_step: int = 0,
    diag_val: float = 1.0,
    key: Array,
) -> Array:
    """Uniform in [min, max); the first elements of a diagonal may have a value of their own."""
    sizes = shape_from(shape, shape_tensor, shape_parts, "the shape of uniform_random")
    out = jax.random.uniform(key, sizes, to_numpy(dtype), min, max)
    if diag_num:
        places = jnp.arange(diag_num) * (diag_step + 1)
        out = out.reshape(-1).at[places].set(diag_val).reshape(sizes)
    return out


@op("ShapeTensor? ShapeTensorList* -> Out", differentiable=False)
def gaussian_random(
    shape_tensor: Any,
    shape_parts: list[Any],
    *,
    shape: Sequence[int] = (),
    dtype: int = VarType.FP32,
    mean: float = 0.0,
    std: float = 1.0,
    key: Array,
) -> Array:
    """Normal of a mean and standard deviation."""
    sizes = shape_from(shape, shape_tensor, shape_parts, "the shape of gaussian_random")
    return mean + std * jax.random.normal(key, sizes, to_numpy(dtype))


@op(" -> Out", differentiable=False)
def truncated_gaussian_random(
    *, shape: Sequence[int], dtype: int = VarType.FP32, mean: float = 0.0, std: float = 1.0, key: Array
) -> Array:
    """Normal, drawn within two standard deviations of the mean."""
    return mean + std * jax.random.truncated_normal(key, -2.0, 2.0, tuple(shape), to_numpy(dtype))


@op("Input -> Out", differentiable=False)
def uniform_random_batch_size_like(
    x: Array,
    *,
    shape: Sequence[int],
    dtype: int = VarType.FP32,
    min: float = -1.0,
    max: float = 1.0,
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    diag_num: int = 0,
    diag_step: int = 0,
    diag_val: float = 1.0,
    key: Array,
) -> Array:
    """Uniform in [min, max), one dimension as another tensor has it."""
    return jax.random.uniform(key, like_batch(shape, x, input_dim_idx, output_dim_idx), to_numpy(dtype), min, max)


@op("Input -> Out", differentiable=False)
def gaussian_random_batch_size_like(
    x: Array,
    *,
    shape: Sequence[int],
    dtype: int = VarType.FP32,
    mean: float = 0.0,
    std: float = 1.0,
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    key: Array,
) -> Array:
    """Normal, one dimension as another tensor has it."""
    return mean + std * jax.random.normal(key, like_batch(shape, x, input_dim_idx, output_dim_idx), to_numpy(dtype))


@op("ShapeTensor? ShapeTensorList* -> Out", differentiable=False)
def randint(
    shape_tensor: Any,
    shape_parts: list[Any],
    *,
    shape: Sequence[int] = (),
    low: int = 0,
    high: int,
    dtype: int = VarType.INT64,
    key: Array,
) -> Array:
    """Whole numbers in [low, high)."""
    sizes = shape_from(shape, shape_tensor, shape_parts, "the shape of randint")
    return jax.random.randint(key, sizes, low, high, to_numpy(dtype))


@op(" -> Out", differentiable=False)
def randperm(*, n: int, dtype: int = VarType.INT64, key: Array) -> Array:
    """The numbers below n in some order."""
    return jax.random.permutation(key, n).astype(to_numpy(dtype))


@op("X -> Out", differentiable=False)
def sampling_id(x: Array, *, min: float = 0.0, max: float = 1.0, key: Array) -> Array:
    """For each row of probabilities the number of a class, drawn by them; int64."""
    at = jax.random.uniform(key, (x.shape[0], 1), x.dtype, min, max)
    return jnp.minimum(jnp.sum((jnp.cumsum(x, 1) <= at).astype(jnp.int64), 1), x.shape[1] - 1)


@op("X Seed -> Out SeedOut", differentiable=False)
def random_crop(x: Array, seed: Array, *, shape: Sequence[int], startup_seed: int = 0) -> tuple[Array, Array]:
    """A block of the last dimensions at a random place, another for each of the dimensions before; and the next seed."""
    inner = len(shape)
    outer = x.shape[: x.ndim - inner]
    rows = x.reshape(-1, *x.shape[x.ndim - inner :])
    draw, following = jax.random.split(jax.random.key(seed.reshape(-1)[0]))
    highest = jnp.array([n - m + 1 for n, m in zip(rows.shape[1:], shape, strict=True)])
    places = jax.random.randint(draw, (rows.shape[0], inner), 0, highest)
    blocks = jax.vmap(lambda row, place: jax.lax.dynamic_slice(row, list(place), shape))(rows, places)
    next_seed = jax.random.randint(following, seed.shape, 0, 2**31 - 1, jnp.int64)
    return blocks.reshape(*outer, *shape), next_seed.astype(seed.dtype)
