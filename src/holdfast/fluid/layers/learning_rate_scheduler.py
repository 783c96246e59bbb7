"""Learning rates that follow from the number of runs, counted in the persistable `@LR_DECAY_COUNTER@`.

The counter moves on at the beginning of every run of the program, whatever is fetched; all schedules of a program share it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

from holdfast.fluid import unique_name
from holdfast.fluid.framework import OpRole, Variable, default_main_program
from holdfast.fluid.layers.math import elementwise_max, elementwise_min
from holdfast.fluid.layers.ops import ceil, cos, exp, floor
from holdfast.fluid.layers.tensor import autoincreased_step_counter, cast, create_global_var, fill_constant

P = ParamSpec("P")


def _schedule(layer: Callable[P, Variable]) -> Callable[P, Variable]:
    """Give the operators of a schedule the role that keeps them out of programs for tests."""

    def run(*args: P.args, **kwargs: P.kwargs) -> Variable:
        with default_main_program().op_role_guard(OpRole.LRSched):
            return layer(*args, **kwargs)

    run.__name__, run.__qualname__, run.__doc__ = layer.__name__, layer.__qualname__, layer.__doc__
    return run


def _step(begin: int = 0) -> Any:  # a variable, whose operators math_op_patch.py adds
    """The number of this run as float32; the first is `begin`."""
    return cast(autoincreased_step_counter("@LR_DECAY_COUNTER@", begin), "float32")


def _skip_names(count: int) -> None:
    # Fluid builds these schedules from blocks, each with a variable of this key; persistables that come later are numbered on.
    for _ in range(count):
        unique_name.generate("_generated_var")


@_schedule
def noam_decay(d_model: Any, warmup_steps: Any, learning_rate: Any = 1.0) -> Variable:
    """`learning_rate * d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)`; the first step is 1.

    Args:
        d_model: the width of the model.
        warmup_steps: for how many steps the rate rises.
        learning_rate: a factor; a number or a variable.
    """
    step = _step(1)
    falling = step**-0.5
    rising = (warmup_steps**-1.5) * step
    rate: Variable = learning_rate * (d_model**-0.5) * elementwise_min(falling, rising)
    return rate


@_schedule
def exponential_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Variable:
    """`learning_rate * decay_rate ** (step / decay_steps)`.

    Args:
        learning_rate: the first rate; a number or a variable.
        decay_steps: after how many steps it has changed by the factor `decay_rate`.
        decay_rate: that factor.
        staircase: change it only then, at once.
    """
    rate: Variable = learning_rate * (decay_rate ** _part(decay_steps, staircase))
    return rate


@_schedule
def natural_exp_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Variable:
    """`learning_rate * exp(-decay_rate * step / decay_steps)`; for the arguments see `exponential_decay`."""
    rate: Variable = learning_rate * exp(-1 * decay_rate * _part(decay_steps, staircase))
    return rate


@_schedule
def inverse_time_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Variable:
    """`learning_rate / (1 + decay_rate * step / decay_steps)`; for the arguments see `exponential_decay`."""
    rate: Variable = learning_rate / (1 + decay_rate * _part(decay_steps, staircase))
    return rate


def _part(decay_steps: int, staircase: bool) -> Any:
    part = _step() / decay_steps
    return floor(part) if staircase else part


@_schedule
def polynomial_decay(
    learning_rate: Any, decay_steps: int, end_learning_rate: float = 0.0001, power: float = 1.0, cycle: bool = False
) -> Variable:
    """`(learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate`.

    Args:
        learning_rate: the first rate; a number or a variable.
        decay_steps: after how many steps the last rate is reached.
        end_learning_rate: the last rate.
        power: 1 for a line.
        cycle: afterwards go up again, and down over twice, three times … as many steps; False stays at the last rate.
    """
    step = _step()
    steps: Any = decay_steps
    if cycle:
        cycles: Any = ceil(step / decay_steps)
        _skip_names(1)
        cycles = elementwise_max(cycles, fill_constant(shape=[1], dtype="float32", value=1.0))
        steps = decay_steps * cycles
    else:
        step = elementwise_min(step, fill_constant(shape=[1], dtype="float32", value=float(decay_steps)))
    rate: Variable = (learning_rate - end_learning_rate) * ((1 - step / steps) ** power) + end_learning_rate
    return rate


@_schedule
def piecewise_decay(boundaries: Sequence[int], values: Sequence[float]) -> Variable:
    """The persistable `learning_rate`, which is `values[0]` before step `boundaries[0]`, and so on.

    Args:
        boundaries: numbers of steps, rising.
        values: one rate more than there are boundaries.

    Raises:
        ValueError: there are too many or too few values, or the boundaries do not rise.
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(f"{len(boundaries)} boundaries need {len(boundaries) + 1} values, not {len(values)}")
    if any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries must rise, not {list(boundaries)}")
    step = _step()
    rate = create_global_var([1], 0.0, "float32", persistable=True, name="learning_rate")
    _skip_names(len(values))
    _append("piecewise_rate", step, rate, boundaries=[float(b) for b in boundaries], values=[float(v) for v in values])
    return rate


@_schedule
def cosine_decay(learning_rate: Any, step_each_epoch: int, epochs: int) -> Variable:
    """`learning_rate * 0.5 * (cos(epoch * pi / epochs) + 1)`.

    Args:
        learning_rate: the first rate; a number or a variable.
        step_each_epoch: how many steps make an epoch.
        epochs: how many epochs the training has.
    """
    epoch: Any = floor(_step() / step_each_epoch)
    wave: Any = cos(epoch * math.pi / epochs)
    rate: Variable = learning_rate * 0.5 * (wave + 1)
    return rate


@_schedule
def linear_lr_warmup(learning_rate: Any, warmup_steps: int, start_lr: float, end_lr: float) -> Variable:
    """The persistable `learning_rate_warmup`: on a line from `start_lr` to `end_lr`, and afterwards another rate.

    Args:
        learning_rate: the rate after that; a number, or a variable such as another schedule gives.
        warmup_steps: how many steps the line has.
        start_lr, end_lr: its ends; the second is where step `warmup_steps` would be.
    """
    dtype = learning_rate.dtype if isinstance(learning_rate, Variable) else "float32"
    rate = create_global_var([1], 0.0, dtype, persistable=True, name="learning_rate_warmup")
    step = _step()
    _skip_names(2)
    if not isinstance(learning_rate, Variable):
        learning_rate = fill_constant(shape=[1], dtype=dtype, value=float(learning_rate))
    attrs = {"steps": float(warmup_steps), "start": float(start_lr), "end": float(end_lr)}
    _append("warmup_rate", step, rate, Then=learning_rate, **attrs)
    return rate


def _append(type: str, step: Variable, rate: Variable, Then: Variable | None = None, **attrs: Any) -> None:
    inputs = {"Step": step, "Rate": rate} | ({} if Then is None else {"Then": Then})
    default_main_program().global_block().append_op(type, inputs, {"RateOut": rate}, attrs)
