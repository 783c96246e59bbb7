"""Learning rates that Fluid builds from blocks with conditions, as one operator each.

Each also reads the persistable that it writes: so this counts as a change of it in every run, and not as its initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.registry import op


@op("Step Rate -> RateOut", differentiable=False)
def piecewise_rate(step: Array, rate: Array, *, boundaries: Sequence[float], values: Sequence[float]) -> Array:
    """The value whose number is that of the boundaries which the step has reached."""
    passed = jnp.sum(step >= jnp.asarray(boundaries, step.dtype), dtype=jnp.int32)
    return jnp.asarray(values, rate.dtype)[passed].reshape(1)


@op("Step Then Rate -> RateOut", differentiable=False)
def warmup_rate(step: Array, then: Array, rate: Array, *, steps: float, start: float, end: float) -> Array:
    """On a line from one rate to another, and what follows after that."""
    line = start + (end - start) * (step / steps)
    return jnp.where(step < steps, line.astype(rate.dtype), then.astype(rate.dtype))


@op("Steps Decay -> DecayOut", differentiable=False)
def limited_decay(steps: Array, decay: Array, *, most: float) -> Array:
    """The decay of an average that has seen few steps: `(steps + 1) / (steps + 10)`, until that exceeds the limit."""
    steps = steps.astype(decay.dtype)
    return jnp.minimum((steps + 1) / (steps + 10), jnp.asarray(most, decay.dtype)).reshape(1)
