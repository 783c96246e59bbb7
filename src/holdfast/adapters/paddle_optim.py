"""Paddle optimizers: accumulators by slot and name of parameter, such as `optimizer.moment1.fc.weight`.

Paddle calls them `linear_0.w_0_moment1_0`, after numbers that depend on what the process has made before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import paddle

from holdfast.adapters import paddle_tensors
from holdfast.adapters.frameworks import Framework
from holdfast.adapters.objects import tags
from holdfast.adapters.parameter_names import Known, known_parameters, short_names
from holdfast.adapters.state import Arrays, Mark, Rename, Value
from holdfast.format.values import Tagged, UnsupportedValueError, encode

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_MASTER = "master_weight"


def frameworks() -> list[Framework]:
    """The adapter that this belongs to, for the tensors in objects' states."""
    return [importlib.import_module("holdfast.adapters.paddle")]


def add_optimizer(scanner: Scanner, optimizer: Any, name: str, mark: Mark) -> None:
    """Tell the scanner what an optimizer holds."""
    if isinstance(optimizer, paddle.optimizer.LBFGS):
        scanner.refuse(name, "L-BFGS of Paddle keeps its state by position, which no checkpoint holds")
        return
    groups = optimizer._param_groups or []
    parameters = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    known = known_parameters(scanner, [(f"{name}.parameters.{i}", p) for i, p in enumerate(parameters)])
    if known is not None:
        _Optimizer(scanner, optimizer, name, mark, known).add()


class _Optimizer:
    def __init__(self, scanner: Scanner, optimizer: Any, name: str, mark: Mark, known: list[Known]) -> None:
        self._scanner, self._optimizer, self._name = scanner, optimizer, name
        self._mark = mark if mark.fixed else Mark("persistable", True)
        self._short = short_names(known)
        self._parameters = {one.full: one.parameter for one in known}
        self._in_place: set[tuple[str, str]] = set()

    def add(self) -> None:
        state: dict[str, Any] = {}
        for full in self._parameters:
            if slots := self._slots(full):
                state[full] = {slot: self._add_slot(full, slot, tensor) for slot, tensor in slots.items()}
        tree = {"learning_rate": self._rate(), "parameters": list(self._parameters), "state": state}
        try:
            encode(tree)
        except UnsupportedValueError as error:
            self._scanner.refuse(self._name + error.where, f"in an optimizer: {error}")
            return
        value = Value(
            self._name,
            tree,
            self._put,
            self._problem,
            is_object=True,
            identity=id(self._optimizer),
            replaces=True,
            localize=self._localize,
        )
        self._scanner.add(value)

    def _slots(self, full: str) -> dict[str, Any]:
        """What the optimizer has for a parameter now."""
        name = self._parameters[full].name
        found = {slot: held[name] for slot, held in self._optimizer._accumulators.items() if name in held}
        if name in self._optimizer._master_weights:
            found[_MASTER] = self._optimizer._master_weights[name]
        return found

    def _variable(self, full: str, slot: str) -> str:
        return f"{self._name}.{slot}.{self._short[full]}"

    def _add_slot(self, full: str, slot: str, tensor: Any) -> Tagged:
        where = self._variable(full, slot)
        self._scanner.add_leaf(where, paddle_tensors.describe(tensor), self._mark, self._name)
        self._in_place.add((full, slot))
        return Tagged("$variable", where)

    def _rate(self) -> Any:
        rate = self._optimizer._learning_rate
        return rate.state_dict() if isinstance(rate, paddle.optimizer.lr.LRScheduler) else float(rate)

    def _localize(self, content: Any, renamed: Rename) -> tuple[Any, dict[str, str]]:
        if _shape_problem(content):
            return content, {}
        moved: dict[str, str] = {}
        state: dict[str, Any] = {}
        for full, slots in content["state"].items():
            state[renamed(full)] = slots
            if renamed(full) in self._short:
                moved |= {ref.value: self._variable(renamed(full), slot) for slot, ref in slots.items()}
        return content | {"state": state, "parameters": [renamed(full) for full in content["parameters"]]}, moved

    def _problem(self, content: Any) -> str | None:
        if reason := _shape_problem(content):
            return reason
        held = set(content["parameters"])
        if absent := [full for full in self._parameters if full not in held]:
            return f"the checkpoint's optimizer knows nothing of {', '.join(absent[:10])}"
        if over := [full for full in content["parameters"] if full not in self._parameters]:
            return f"the checkpoint's optimizer has {', '.join(over[:10])} too, the target's has not"
        is_scheduled = isinstance(self._optimizer._learning_rate, paddle.optimizer.lr.LRScheduler)
        if isinstance(content["learning_rate"], dict) != is_scheduled:
            return "the learning rate is that of a scheduler on one side only"
        return None

    def _put(self, content: Any, arrays: Arrays) -> None:
        if isinstance(content["learning_rate"], dict):
            self._optimizer._learning_rate.set_state_dict(dict(content["learning_rate"]))
        else:
            self._optimizer.set_lr(content["learning_rate"])
        for full, parameter in self._parameters.items():
            slots = content["state"].get(full, {})
            for slot in [slot for slot in self._slots(full) if slot not in slots]:
                held = self._optimizer._master_weights if slot == _MASTER else self._optimizer._accumulators[slot]
                del held[parameter.name]
            if not slots:
                self._optimizer._already_create_accumulator.discard(parameter.name)
                continue
            late = {slot: ref for slot, ref in slots.items() if (full, slot) not in self._in_place}
            if late:
                self._fill_new(full, parameter, late, arrays)

    def _fill_new(self, full: str, parameter: Any, late: dict[str, Tagged], arrays: Arrays) -> None:
        """Let the optimizer make what it has not made yet, and give it its values."""
        block = paddle.static.default_main_program().global_block()
        self._optimizer._create_accumulators(block, [parameter])
        made = self._slots(full)
        for slot, ref in late.items():
            if slot not in made:
                raise ValueError(f"{self._name}: {type(self._optimizer).__name__} has no {slot!r} for {full!r}")
            made[slot].set_value(paddle_tensors.from_array(arrays[ref.value]))


def _shape_problem(content: Any) -> str | None:
    """Why this is not what an optimizer was saved as."""
    wrong = "the checkpoint has something else there, the target an optimizer"
    if not isinstance(content, dict) or set(content) != {"learning_rate", "parameters", "state"}:
        return wrong
    if not isinstance(content["learning_rate"], dict | float) or "$variable" in tags(content["learning_rate"]):
        return wrong
    names, state = content["parameters"], content["state"]
    if not isinstance(names, list) or not all(type(name) is str for name in names) or not isinstance(state, dict):
        return wrong
    for full, slots in state.items():
        if type(full) is not str or not isinstance(slots, dict):
            return wrong
        if not all(isinstance(ref, Tagged) and ref.tag == "$variable" for ref in slots.values()):
            return wrong
    return None
