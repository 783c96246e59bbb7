"""Random operators; `key` comes from the lowering, which says what it depends on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.core import to_numpy
from holdfast.fluid.registry import op


@op(" -> Out", differentiable=False)
def init_random_state(*, key: Array) -> Array:
    """The beginning of a program's random numbers: int64 (2,), the two words of a key."""
    return jax.random.key_data(key).astype(jnp.int64)


@op(" -> Out", differentiable=False)
def uniform_random(*, shape: list[int], dtype: int, min: float = -1.0, max: float = 1.0, key: Array) -> Array:
    """Uniform in [min, max)."""
    return jax.random.uniform(key, tuple(shape), to_numpy(dtype), min, max)
