"""Dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from holdfast.fluid.registry import op


@op("X -> Out Mask")
def dropout(
    x: Array,
    *,
    dropout_prob: float = 0.5,
    dropout_implementation: str = "downgrade_in_infer",
    is_test: bool = False,
    fix_seed: bool = False,
    key: Array,
) -> tuple[Array, Array]:
    """Values are zero with a probability.

    `"downgrade_in_infer"` scales all values down in a program for tests, `"upscale_in_train"` those that stay up in training.
    """
    del fix_seed  # a seed, which the lowering makes the key of, fixes what is drawn
    if dropout_implementation not in ("downgrade_in_infer", "upscale_in_train"):
        raise ValueError(
            f"dropout_implementation is downgrade_in_infer or upscale_in_train, not {dropout_implementation!r}"
        )
    keep = 1.0 - dropout_prob
    upscale = dropout_implementation == "upscale_in_train"
    if is_test:
        return x if upscale else x * jnp.asarray(keep, x.dtype), jnp.ones(x.shape, jnp.uint8)
    stays = jax.random.bernoulli(key, keep, x.shape)
    factor = 1.0 / keep if upscale and keep > 0 else 1.0
    return jnp.where(stays, x * jnp.asarray(factor, x.dtype), jnp.zeros((), x.dtype)), stays.astype(jnp.uint8)
