"""A program as one pure JAX function: operators in order over a dict of arrays, gradients by the VJP of each operator.

Random numbers: an operator with a seed of its own draws the same in every run; one that fills a persistable (an
initializer) draws from the program's seed and its place; every other draws from `@RANDOM_STATE@`, which each run moves on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from holdfast.fluid import registry
from holdfast.fluid.core import EnforceNotMet
from holdfast.fluid.framework import RANDOM_STATE, Block, Operator, Program, uses_random_state
from holdfast.fluid.infer import FORWARD, is_gradient
from holdfast.fluid.variable import EMPTY, GRAD_SUFFIX

Env = dict[str, Any]
Group = dict[str, list[Any]]  # arrays by slot
Position = tuple[str, int]  # slot and number in it


class FetchError(EnforceNotMet, ValueError):
    """A fetch list names what the program does not have, or does not compute."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a program reads and writes.

    Attributes:
        reads: names that must have a value before it runs, in order of first use.
        writes: names of persistables that it gives a value.
        fills: whether it reads nothing that was there before: a startup program, which gives first values. (One that trains may
            also write without reading, such as a rate that it computes; that is what it does in every run.)
        draws: whether it moves the random state on.
        chance: whether it needs fresh chance, as an initializer without a seed does.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    fills: bool
    draws: bool
    chance: bool


def analyse(program: Program, fetches: Sequence[str]) -> Analysis:
    """Find what a program reads and writes."""
    block = program.global_block()
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    draws = chance = False
    for op in program.all_ops():
        if not registry.exists(op.type) or not registry.find(op.type).random or op.attrs.get("seed"):
            continue
        if uses_random_state(op):
            draws = True
        elif not op.attrs.get("is_test") and not program.random_seed:
            chance = True
    for op in block.ops:
        for name in op.input_arg_names:
            if name not in writes and name != EMPTY:
                reads.setdefault(name)
        for name in op.output_arg_names:
            if name != EMPTY:
                writes.setdefault(name)
    for name in fetches:
        if name not in writes:
            reads.setdefault(name)
    kept = [n for n in writes if (v := block.find(n)) is not None and v.persistable]
    if draws:
        reads.setdefault(RANDOM_STATE)
        if RANDOM_STATE not in kept:
            kept.append(RANDOM_STATE)
    return Analysis(tuple(reads), tuple(kept), not reads, draws, chance)


def lower(program: Program, fetches: Sequence[str], analysis: Analysis) -> Callable[[Env, Any], tuple[list[Any], Env]]:
    """The program as a function of (values by name, key) to (fetched values, written persistables by name).

    The key is chance from outside; it counts only if `analysis.chance`.
    """

    def function(values: Env, key: Any) -> tuple[list[Any], Env]:
        env = dict(values)
        run = _Run(program, key, env)
        run.block(program.global_block(), env)
        missing = [name for name in fetches if name not in env]
        if missing:
            raise FetchError(f"fetch_list names what the program does not compute: {', '.join(missing)}")
        return [env[name] for name in fetches], {name: env[name] for name in analysis.writes}

    return function


class _Run:
    """One tracing of a program."""

    def __init__(self, program: Program, key: Any, env: Env) -> None:
        self._chance = jax.random.key(program.random_seed) if program.random_seed else key
        self._stream = None
        if any(uses_random_state(op) for op in program.all_ops()):
            state = jax.random.wrap_key_data(env[RANDOM_STATE].astype(jnp.uint32))
            state, self._stream = jax.random.split(state)
            env[RANDOM_STATE] = jax.random.key_data(state).astype(jnp.int64)
        self._drawn = 0
        self._gradients: dict[int, list[Operator]] = defaultdict(list)
        for op in program.all_ops():
            if is_gradient(op):
                self._gradients[op.attrs[FORWARD]].append(op)
        self._pullbacks: dict[int, Callable[[Group], dict[Position, Any]]] = {}

    def block(self, block: Block, env: Env) -> None:
        """Run every operator of a block on `env`."""
        for op in block.ops:
            try:
                if is_gradient(op):
                    self._gradient(op, env)
                else:
                    self._forward(op, env)
            except registry.OperatorError:
                raise  # of a block inside
            except Exception as error:
                shapes = ", ".join(
                    f"{n} {list(env[n].shape)}" for n in op.input_arg_names if hasattr(env.get(n), "shape")
                )
                raise registry.OperatorError(
                    f"operator {op.type}({shapes}) -> {', '.join(op.output_arg_names)}: {error}"
                ) from error

    def _key(self, op: Operator) -> Any:
        if not registry.exists(op.type) or not registry.find(op.type).random:
            return None
        self._drawn += 1
        if seed := op.attrs.get("seed"):
            return jax.random.key(seed)
        if op.attrs.get("is_test"):
            return jax.random.key(0)
        source: Any = self._stream if uses_random_state(op) else self._chance
        return jax.random.fold_in(source, self._drawn)

    def _forward(self, op: Operator, env: Env) -> None:
        function = self._function(op)
        inputs = {slot: [env[n] for n in names] for slot, names in op.inputs.items()}
        wanted = sorted(
            {
                (slot.removesuffix(GRAD_SUFFIX), number)
                for grad in self._gradients.get(op.uid, ())
                for slot, names in grad.outputs.items()
                for number, name in enumerate(names)
                if name != EMPTY
            }
        )
        outputs = self._with_pullback(op, function, inputs, wanted) if wanted else function(inputs)
        for slot, names in op.outputs.items():
            for name, value in zip(names, outputs.get(slot, []), strict=False):
                if value is not None and name != EMPTY:
                    env[name] = value

    def _with_pullback(
        self, op: Operator, function: Callable[[Group], Group], inputs: Group, wanted: list[Position]
    ) -> Group:
        """Run an operator, and keep the function that takes gradients of its outputs to those of its inputs."""
        given = {
            slot.removesuffix(GRAD_SUFFIX)
            for grad in self._gradients[op.uid]
            for slot in grad.inputs
            if slot.endswith(GRAD_SUFFIX)
        }

        def differentiable(values: list[Any]) -> tuple[Group, Group]:
            filled = {slot: list(arrays) for slot, arrays in inputs.items()}
            for (slot, number), value in zip(wanted, values, strict=True):
                filled[slot][number] = value
            outputs = function(filled)
            return {slot: outputs[slot] for slot in given}, outputs

        primal = [inputs[slot][number] for slot, number in wanted]
        through, pullback, outputs = jax.vjp(differentiable, primal, has_aux=True)

        def pull(cotangents: Group) -> dict[Position, Any]:
            full = {
                slot: [
                    _cotangent(c, out)
                    for c, out in zip(_padded(cotangents.get(slot, []), len(outs)), outs, strict=True)
                ]
                for slot, outs in through.items()
            }
            return dict(zip(wanted, pullback(full)[0], strict=True))

        self._pullbacks[op.uid] = pull
        return outputs

    def _gradient(self, op: Operator, env: Env) -> None:
        pull = self._pullbacks.get(op.attrs[FORWARD])
        if pull is None:
            raise ValueError(f"the forward operator of {op.type} is not in this program; clone or prune it as a whole")
        cotangents = {
            slot.removesuffix(GRAD_SUFFIX): [None if n == EMPTY else env[n] for n in names]
            for slot, names in op.inputs.items()
            if slot.endswith(GRAD_SUFFIX)
        }
        found = pull(cotangents)
        for slot, names in op.outputs.items():
            for number, name in enumerate(names):
                if name != EMPTY:
                    env[name] = found[slot.removesuffix(GRAD_SUFFIX), number]

    def _function(self, op: Operator) -> Callable[[Group], Group]:
        if op.type == "conditional_block":
            return self._conditional(op)
        definition, key = registry.find(op.type), self._key(op)

        def function(inputs: Group) -> Group:
            arguments: list[Any] = []
            for slot in definition.inputs:
                held = inputs.get(slot.name, [])
                arguments.append(held if slot.many else held[0] if held else None)
            results = registry.call(definition, arguments, op.attrs, key)
            return {
                slot.name: list(r) if slot.many else [r] for slot, r in zip(definition.outputs, results, strict=True)
            }

        return function

    def _conditional(self, op: Operator) -> Callable[[Group], Group]:
        """Run a block if a condition holds; else its outputs keep their values, zero if they had none."""
        block = op.block.program.block(op.attrs["sub_block"])
        names, outs = op.inputs.get("Input", []), op.outputs["Out"]

        def inner(arrays: list[Any]) -> list[Any]:
            env = dict(zip(names, arrays, strict=True))
            self.block(block, env)
            return [env[name] for name in outs]

        def function(inputs: Group) -> Group:
            arrays = inputs.get("Input", [])
            shapes = jax.eval_shape(inner, arrays)
            before = dict(zip(names, arrays, strict=True))
            old = [before[n] if n in before else jnp.zeros(s.shape, s.dtype) for n, s in zip(outs, shapes, strict=True)]
            chosen = inputs["Cond"][0].reshape(-1)[0].astype(bool)
            return {"Out": jax.lax.cond(chosen, inner, lambda _: old, arrays)}

        return function


def _padded(values: list[Any], length: int) -> list[Any]:
    return [*values, *[None] * (length - len(values))]


def _cotangent(cotangent: Any, output: Any) -> Any:
    if output is None:
        return None
    if not jnp.issubdtype(output.dtype, jnp.inexact):
        return jnp.zeros(output.shape, jax.dtypes.float0)
    if cotangent is None:
        return jnp.zeros(output.shape, output.dtype)
    return cotangent.astype(output.dtype).reshape(output.shape)
