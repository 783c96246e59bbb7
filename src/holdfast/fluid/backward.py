"""append_backward: gradient operators for every forward operator on the way to a loss, with Fluid's names.

A gradient operator `<type>_grad` names its forward operator by uid; the lowering applies that one's VJP, so nothing has to be
written for an operator's gradient, and its forward part is computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from holdfast.fluid import registry
from holdfast.fluid.core import is_floating
from holdfast.fluid.framework import Block, Operator, OpRole, Parameter, Program, Variable, grad_var_name
from holdfast.fluid.infer import FORWARD, STRUCTURAL
from holdfast.fluid.variable import EMPTY

Callback = Callable[..., None]


def append_backward(
    loss: Variable,
    parameter_list: Iterable[Any] | None = None,
    no_grad_set: Collection[Any] | None = None,
    callbacks: Sequence[Callback] | None = None,
    checkpoints: Any = None,
) -> list[tuple[Parameter, Variable]]:
    """Add the operators that compute the gradient of a loss.

    Args:
        loss: float, of one element.
        parameter_list: parameters or their names; None for all that are trainable.
        no_grad_set: variables or names that gradients stop at.
        callbacks: called as `callback(block=…, context=…)` after each gradient operator.
        checkpoints: accepted as Fluid has it; XLA decides what it computes again.

    Returns:
        Parameters with the variables of their gradients, in the order of the program's parameters; those that the loss does
        not depend on are left out.

    Raises:
        ValueError: the loss has more than one element.
    """
    if not isinstance(loss, Variable):
        raise TypeError(f"the loss must be a variable of a program, not {loss!r}")
    if loss.shape is not None and any(n != 1 for n in loss.shape):
        raise ValueError(
            f"the loss must have one element, but {loss.name} has the shape {list(loss.shape)}; "
            "fluid.layers.mean() makes one of it"
        )
    program = loss.block.program
    stops = _names(no_grad_set)
    with program.op_role_guard(OpRole.Backward):
        block = program.global_block()
        seed = _gradient_variable(block, loss)
        with program.op_role_guard(OpRole.Backward | OpRole.Loss):
            block.append_op(
                "fill_constant",
                outputs={"Out": [seed]},
                attrs={"shape": [1], "value": 1.0, "dtype": int(loss.dtype)},
            )
        _Backward(program, stops, callbacks).run({loss.name: seed.name})
    if parameter_list is None:
        parameters = [p for p in program.all_parameters() if p.trainable]
    else:
        parameters = [_parameter(block, p) for p in parameter_list]
    pairs = []
    for parameter in parameters:
        gradient = block.vars.get(grad_var_name(parameter.name))
        if gradient is not None and parameter.name not in stops:
            pairs.append((parameter, gradient))
    return pairs


def gradients(
    targets: Any, inputs: Any, target_gradients: Any = None, no_grad_set: Collection[Any] | None = None
) -> list[Variable | None]:
    """Add the operators that compute the gradients of targets with respect to inputs.

    Args:
        targets: a variable or several, whose gradients add up.
        inputs: a variable or several.
        target_gradients: a variable for each target that its gradient begins with; None for ones.
        no_grad_set: variables or names that gradients stop at.

    Returns:
        For each input the variable of its gradient; None if no target depends on it.
    """
    targets, inputs = _list(targets), _list(inputs)
    given = _list(target_gradients) if target_gradients is not None else [None] * len(targets)
    if len(given) != len(targets):
        raise ValueError(f"{len(targets)} targets need as many target_gradients, not {len(given)}")
    program = targets[0].block.program
    block = program.global_block()
    stopped = [v for v in inputs if v.stop_gradient]
    for variable in stopped:
        variable.stop_gradient = False
    with program.op_role_guard(OpRole.Backward):
        start = {}
        for target, gradient in zip(targets, given, strict=True):
            seed = gradient
            if seed is None:
                seed = _gradient_variable(block, target)
                block.append_op("fill_any_like", inputs={"X": [target]}, outputs={"Out": [seed]}, attrs={"value": 1.0})
            start[target.name] = seed.name
        _Backward(program, _names(no_grad_set), None).run(start)
    for variable in stopped:
        variable.stop_gradient = True
    return [block.vars.get(grad_var_name(v.name)) for v in inputs]


calc_gradient = gradients


class _Backward:
    """One pass from the targets back to the leaves."""

    def __init__(self, program: Program, stops: set[str], callbacks: Sequence[Callback] | None) -> None:
        self._block = program.global_block()
        self._stops = stops
        self._callbacks = callbacks or ()
        # Of each variable: where its gradient is given, as (names of a slot of a gradient operator, number in them).
        self._given: dict[str, list[tuple[list[str], int]]] = defaultdict(list)

    def run(self, start: dict[str, str]) -> None:
        forward = [op for op in self._block.ops if op.role & ~OpRole.Loss == OpRole.Forward]
        needing = self._needing(forward)
        for name, seed in start.items():
            self._given[name].append(([seed], 0))
        for op in reversed(forward):
            self._add(op, needing)
        for name in [n for n, given in self._given.items() if given]:
            self._finish(name)

    def _needing(self, ops: list[Operator]) -> set[str]:
        """Names of the variables that gradients are wanted of."""
        made = {name for op in ops for name in op.output_arg_names}
        needing = {v.name for v in self._block.vars.values() if v.name not in made and self._takes_gradient(v)}
        for op in ops:
            if _is_differentiable(op) and needing & set(op.input_arg_names):
                needing |= {n for n in op.output_arg_names if (v := self._block.find(n)) and self._takes_gradient(v)}
        return needing

    def _takes_gradient(self, variable: Variable) -> bool:
        return (
            not variable.stop_gradient
            and variable.name not in self._stops
            and variable.dtype is not None
            and is_floating(variable.dtype)
            and (variable.is_data or not variable.persistable or isinstance(variable, Parameter))
        )

    def _add(self, op: Operator, needing: set[str]) -> None:
        if not _is_differentiable(op) or not any(self._given.get(name) for name in op.output_arg_names):
            return
        wanted = any(name in needing for name in op.input_arg_names)
        inputs: dict[str, list[str]] = {**op.inputs, **op.outputs}
        for slot, names in op.outputs.items():
            found = [self._finish(name) for name in names]
            if any(name != EMPTY for name in found):
                inputs[f"{slot}@GRAD"] = found
        if not wanted:
            return
        outputs: dict[str, list[str]] = {}
        for slot, names in op.inputs.items():
            if any(name in needing for name in names):
                outputs[f"{slot}@GRAD"] = [grad_var_name(n) if n in needing else EMPTY for n in names]
        gradient = self._block.append_op(f"{op.type}_grad", inputs, outputs, {FORWARD: op.uid})
        for slot, names in op.inputs.items():
            for number, name in enumerate(names):
                if name in needing:
                    _gradient_variable(self._block, self._block._var_recursive(name))
                    self._given[name].append((gradient.outputs[f"{slot}@GRAD"], number))
        for callback in self._callbacks:
            callback(block=self._block, context={"__current_op_desc__": gradient})

    def _finish(self, name: str) -> str:
        """The name of a variable's whole gradient: all that was given so far, added up."""
        given = self._given.pop(name, [])
        if not given:
            return EMPTY
        whole = grad_var_name(name)
        if len(given) == 1:
            names, number = given[0]
            return names[number]
        variable = self._block._var_recursive(name)
        parts = []
        for count, (names, number) in enumerate(given):
            if names[number] == whole:
                names[number] = f"{whole}@RENAME@block0@{count}"
                _gradient_variable(self._block, variable, names[number])
            parts.append(names[number])
        self._block.append_op("sum", inputs={"X": parts}, outputs={"Out": [whole]})
        return whole


def _is_differentiable(op: Operator) -> bool:
    return op.type == "conditional_block" or (
        op.type not in STRUCTURAL and registry.exists(op.type) and registry.find(op.type).differentiable
    )


def _gradient_variable(block: Block, variable: Variable, name: str | None = None) -> Variable:
    name = name or grad_var_name(variable.name)
    return block.create_var(name=name, shape=variable.shape, dtype=variable.dtype, persistable=False)


def _parameter(block: Block, given: Any) -> Parameter:
    variable = block._var_recursive(given if isinstance(given, str) else given.name)
    if not isinstance(variable, Parameter):
        raise ValueError(f"parameter_list names {variable.name}, which is no parameter")  # noqa: TRY004 - a wrong name
    return variable


def _names(given: Collection[Any] | None) -> set[str]:
    return {v.name if isinstance(v, Variable) else str(v) for v in given or ()}


def _list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]
