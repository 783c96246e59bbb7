"""Shapes and dtypes of what operators give, through `jax.eval_shape`, and the check that an operator is well formed."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from holdfast.fluid import registry
from holdfast.fluid.core import VarType, to_numpy, to_vartype

if TYPE_CHECKING:
    from holdfast.fluid.framework import Operator, Variable

# An unknown dimension is tried with these sizes: where the results differ, the dimension is unknown there too. Both have
# so many divisors that a reshape which fits any batch fits them.
_SIZES = (5040, 7560)
FORWARD = "forward_uid"  # attribute of a gradient operator: the uid of its forward operator
STRUCTURAL = frozenset({"conditional_block", "feed", "fetch"})  # carried out by lowering.py or the executor


def is_gradient(op: Operator) -> bool:
    """Whether the operator is the gradient of another one."""
    return FORWARD in op.attrs


def check_operator(op: Operator) -> None:
    """Refuse an operator with unknown or missing slots, attributes or variables.

    Raises:
        NotImplementedError: there is no operator of the type.
        ValueError: every problem, one a line.
    """
    if op.type in STRUCTURAL or is_gradient(op):
        return
    definition = registry.find(op.type)
    problems = []
    for side, slots, given in (
        ("input", definition.inputs, op.inputs),
        ("output", definition.outputs, op.outputs),
    ):
        known = {slot.name: slot for slot in slots}
        problems += [
            f"it has no {side} slot {name!r} (it has {', '.join(known)})" for name in given if name not in known
        ]
        for slot in slots:
            names = given.get(slot.name, [])
            if not slot.many and len(names) > 1:
                problems.append(f"{side} slot {slot.name!r} takes one variable, not {len(names)}")
            if not names and side == "input" and not (slot.many or slot.optional):
                problems.append(f"input slot {slot.name!r} is missing")
    problems += [f"variable {n!r} is in no block around it" for n in op.input_arg_names if op.block.find(n) is None]
    for name, default in definition.attrs.items():
        if default is inspect.Parameter.empty and name not in op.attrs:
            problems.append(f"attribute {name!r} is missing")
    unknown = [n for n in op.attrs if n not in definition.attrs and n not in registry.IGNORED_ATTRS]
    problems += [f"it has no attribute {n!r}" for n in unknown if not (n == "seed" and definition.random)]
    if problems:
        raise ValueError("\n  ".join([f"operator {op.type}: {len(problems)} problem(s):", *problems]))


def infer(op: Operator) -> None:
    """Fill in the shapes and dtypes of an operator's outputs; nothing happens if those of its inputs are not known.

    Raises:
        ValueError: the shapes do not fit; the message names the variables.
    """
    if op.type in STRUCTURAL or is_gradient(op):
        return
    definition = registry.find(op.type)
    inputs: list[Any] = []
    for slot in definition.inputs:
        variables = [op.block.find(name) for name in op.inputs.get(slot.name, [])]
        known = [_known(v) for v in variables]
        if any(k is None for k in known):
            return
        inputs.append(tuple(known) if slot.many else known[0] if known else None)
    attrs = tuple(sorted((k, _frozen(v)) for k, v in registry.arguments(definition, op.attrs).items()))
    try:
        results = _evaluate(op.type, tuple(inputs), attrs)
    except registry.ValueDependentShape:
        return  # the layer has said what is known
    except Exception as error:
        shown = ", ".join(f"{n} {_text(op.block.find(n))}" for n in op.input_arg_names)
        raise registry.OperatorError(f"operator {op.type} does not fit its inputs ({shown}): {error}") from error
    for slot, result in zip(definition.outputs, results, strict=True):
        found = result if slot.many else [result]
        for name, each in zip(op.outputs.get(slot.name, []), found, strict=False):
            variable = op.block.find(name)
            if variable is not None and each is not None:
                shape, dtype = each
                variable.dtype = to_vartype(dtype)
                if not variable.persistable or variable.shape is None:
                    variable.shape = shape


def _known(variable: Variable | None) -> tuple[tuple[int, ...], VarType] | None:
    if variable is None or variable.shape is None or variable.dtype is None:
        return None
    return variable.shape, variable.dtype


def _text(variable: Variable | None) -> str:
    if variable is None or variable.shape is None:
        return "of unknown shape"
    return f"{variable.dtype.name.lower() if variable.dtype is not None else '?'}{list(variable.shape)}"


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple) and len(value) == 4 and value[0] == "array":
        return np.frombuffer(value[3], value[1]).reshape(value[2])
    return [_thawed(v) for v in value] if isinstance(value, tuple) else value


@functools.lru_cache(maxsize=4096)
def _evaluate(type: str, inputs: tuple[Any, ...], attrs: tuple[tuple[str, Any], ...]) -> list[Any]:
    """For each output slot (shape, dtype), a list of them, or None."""
    definition = registry.find(type)
    keywords = {name: _thawed(value) for name, value in attrs}
    each = [jax.tree.leaves(i, is_leaf=_is_known) for i in inputs if i is not None]
    open_ended = any(n < 0 for group in each for shape, _ in group for n in shape)
    outcomes = []
    for size in _SIZES if open_ended else _SIZES[:1]:
        arguments = [_abstract(i, size) for i in inputs]
        with jax.enable_x64(True):
            outcomes.append(
                jax.eval_shape(
                    lambda *arrays: registry.call(definition, list(arrays), keywords, jax.random.key(0)), *arguments
                )
            )
    first, last = outcomes[0], outcomes[-1]
    return [_merged(a, b) for a, b in zip(first, last, strict=True)]


def _is_known(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], VarType)


def _abstract(known: Any, size: int) -> Any:
    if known is None:
        return None
    if not _is_known(known):
        return [_abstract(k, size) for k in known]
    shape, dtype = known
    return jax.ShapeDtypeStruct(tuple(size if n < 0 else n for n in shape), to_numpy(dtype))


def _merged(a: Any, b: Any) -> Any:
    if a is None:
        return None
    if isinstance(a, list | tuple):
        return [_merged(x, y) for x, y in zip(a, b, strict=True)]
    return tuple(n if n == m else -1 for n, m in zip(a.shape, b.shape, strict=True)), a.dtype
