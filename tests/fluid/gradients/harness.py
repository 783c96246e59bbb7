"""Gradients of operators against finite differences, in float64, through a program as users build one.

To cover operators, write a module `samples_<topic>.py` here with a list `SAMPLES`, and `test_gradients_<topic>.py` that gives
each to `check_gradient` (see those of `nn`). `test_coverage.py` finds every such list and fails for a differentiable operator
that is in none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from hypothesis import given, settings, strategies as st

import holdfast.fluid as fluid
from holdfast.fluid import registry
from holdfast.fluid.core import VarType, is_floating

Array = np.ndarray[Any, Any]
Maker = Callable[[np.random.Generator], Array]


@dataclass(frozen=True)
class Sample:
    """An operator with inputs that its gradient can be tried on.

    Attributes:
        type: of the operator.
        inputs: a maker of an array by slot, a list of them for a slot that holds many. Float64 ones are differentiated.
        attrs: of the operator; a random operator needs a seed here, so that it draws the same every time.
        outputs: slots whose gradients are given at random; None for all that are float.
        count: number of variables in an output slot that holds many.
        constant: input slots that no gradient is wanted of, although they are float.
        name: tells samples of one type apart in the tests' names.
    """

    type: str
    inputs: Mapping[str, Maker | Sequence[Maker]]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    count: int = 2
    constant: tuple[str, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        return f"{self.type}-{self.name}" if self.name else self.type


def normal(*shape: int) -> Maker:
    """Standard normal numbers."""
    return lambda rng: rng.standard_normal(shape)


def uniform(low: float, high: float, *shape: int) -> Maker:
    """Uniform in [low, high)."""
    return lambda rng: rng.uniform(low, high, shape)


def distinct(*shape: int) -> Maker:
    """Numbers of both signs, each at least 0.1 from any other and 0.05 from zero: no kink or tie is within a difference."""

    def make(rng: np.random.Generator) -> Array:
        size = int(np.prod(shape))
        values = (np.arange(size) - size // 2 + 0.5) * 0.1
        return rng.permutation(values).reshape(shape)

    return make


def ints(high: int, *shape: int, dtype: str = "int64") -> Maker:
    """Integers in [0, high)."""
    return lambda rng: rng.integers(0, high, shape).astype(dtype)


def probabilities(*shape: int) -> Maker:
    """Positive numbers that add up to one along the last dimension, none near zero."""

    def make(rng: np.random.Generator) -> Array:
        values = rng.uniform(0.2, 1.0, shape)
        return values / values.sum(-1, keepdims=True)

    return make


def fixed(*values: Any, dtype: str = "float64") -> Maker:
    """Always this array, given as nested lists."""
    return lambda rng: np.array(*values, dtype=dtype)


class _Built:
    """A sample as a program: inputs that are fed, targets with given gradients, and the gradients of the inputs."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.makers = {
            f"{slot}_{number}": make
            for slot, makers in sample.inputs.items()
            for number, make in enumerate(makers if isinstance(makers, Sequence) else [makers])
        }
        self.main, startup = fluid.Program(), fluid.Program()
        with fluid.program_guard(self.main, startup), fluid.unique_name.guard():
            block = self.main.global_block()
            inputs: dict[str, list[Any]] = {slot: [] for slot in sample.inputs}
            self.wanted = []
            for name, array in self.draw(np.random.default_rng(0)).items():
                slot = name.rpartition("_")[0]
                inputs[slot].append(
                    block.create_var(name=name, shape=array.shape, dtype=array.dtype, is_data=True, stop_gradient=False)
                )
                if array.dtype == np.float64 and slot not in sample.constant:
                    self.wanted.append(inputs[slot][-1])
            assert self.wanted, f"{sample}: no float64 input to differentiate"
            self.targets = self._targets(block, inputs)
            self.seeds = [
                block.create_var(name=f"{v.name}_seed", shape=v.shape, dtype="float64", is_data=True)
                for v in self.targets
            ]
            self.gradients = fluid.gradients(self.targets, self.wanted, self.seeds)
        self._executor, self._scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
        self._executor.run(startup, scope=self._scope)

    def _targets(self, block: Any, inputs: Mapping[str, Any]) -> list[Any]:
        sample = self.sample
        outputs = {
            slot.name: [block.create_var(name=f"{slot.name}_out{k}") for k in range(sample.count if slot.many else 1)]
            for slot in registry.find(sample.type).outputs
        }
        block.append_op(sample.type, inputs, outputs, dict(sample.attrs))
        chosen = sample.outputs or tuple(outputs)
        found = [v for slot, variables in outputs.items() for v in variables if slot in chosen and v.dtype is not None]
        found = [v for v in found if is_floating(v.dtype) and 0 not in v.shape]
        assert found, f"{sample}: no output to differentiate"
        wrong = [v for v in found if v.dtype != VarType.FP64]
        assert not wrong, f"{sample}: not float64: {wrong}"
        return found

    def draw(self, rng: np.random.Generator) -> dict[str, Array]:
        return {name: make(rng) for name, make in self.makers.items()}

    def run(self, feed: Mapping[str, Array]) -> tuple[list[Array], dict[str, Array]]:
        """Values of the targets; gradients by the name of the input, of those that the targets depend on."""
        found = {v.name: g for v, g in zip(self.wanted, self.gradients, strict=True) if g is not None}
        values = self._executor.run(
            self.main, feed=feed, fetch_list=[*self.targets, *found.values()], scope=self._scope
        )
        return values[: len(self.targets)], dict(zip(found, values[len(self.targets) :], strict=True))


def check_gradient(sample: Sample, *, examples: int = 3, step: float = 1e-5, tolerance: float = 1e-6) -> None:
    """Assert that the gradient of every float input is the one that differences along random directions show.

    Args:
        sample: the operator with its inputs.
        examples: how many draws of inputs, gradients of the outputs and directions.
        step: length of a difference.
        tolerance: absolute, and relative to the size of what is summed up.
    """
    built = _Built(sample)
    optimized = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs a few times only

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(seed=st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        seeds = {v.name: rng.standard_normal(v.shape) for v in built.seeds}
        inputs = built.draw(rng)
        _, gradients = built.run({**inputs, **seeds})
        for name in (v.name for v in built.wanted):
            direction = rng.standard_normal(inputs[name].shape)
            above, _ = built.run({**inputs, **seeds, name: inputs[name] + step * direction})
            below, _ = built.run({**inputs, **seeds, name: inputs[name] - step * direction})
            differences = zip(above, below, seeds.values(), strict=True)
            expected = sum(float(((a - b) * weight).sum()) for a, b, weight in differences) / (2 * step)
            terms = gradients.get(name, np.zeros_like(direction)) * direction
            assert terms.shape == direction.shape, f"{sample}: shape of the gradient of {name}"
            assert abs(terms.sum() - expected) <= tolerance * (1 + np.abs(terms).sum()), (
                f"{sample}: along a direction of {name} the gradient says {terms.sum()}, differences say {expected}"
            )

    try:
        check()
    finally:
        jax.config.update("jax_disable_most_optimizations", optimized)
