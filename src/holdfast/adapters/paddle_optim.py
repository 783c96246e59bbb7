"""Paddle optimizers: accumulators by slot and name of parameter, such as `optimizer.moment1.fc.weight`.

Paddle calls them `linear_0.w_0_moment1_0`, after numbers that depend on what the process has made before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import paddle

from holdfast.adapters import paddle_schedulers, paddle_tensors
from holdfast.adapters.frameworks import Framework
from holdfast.adapters.objects import tags
from holdfast.adapters.parameter_names import Known, known_parameters, localized, short_names
from holdfast.adapters.state import Arrays, Beside, Mark, Rename, Value
from holdfast.format.values import Tagged, UnsupportedValueError, encode
from holdfast.variables import Variable

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
    if inner := [key for key, held in vars(optimizer).items() if isinstance(held, paddle.optimizer.Optimizer)]:
        kind = type(optimizer).__name__
        scanner.refuse(name, f"a {kind} keeps a part of its state apart (its {inner[0]}), which no checkpoint can hold")
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
        self._forms: dict[str, dict[str, Variable]] = {}

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
            beside=self._beside,
        )
        self._scanner.add(value)

    def _slots(self, full: str) -> dict[str, Any]:
        """What the optimizer has for a parameter now."""
        names = self._names(self._parameters[full])
        found = {
            slot: held[name] for slot, held in self._optimizer._accumulators.items() for name in names if name in held
        }
        if names[0] in self._optimizer._master_weights:
            found[_MASTER] = self._optimizer._master_weights[names[0]]
        return found

    def _names(self, parameter: Any) -> list[str]:
        """What a parameter is called in the accumulators: those of one with a master weight go by the name of that."""
        master = self._optimizer._master_weights.get(parameter.name)
        return [parameter.name] if master is None else [parameter.name, master.name]

    def _variable(self, full: str, slot: str) -> str:
        return f"{self._name}.{slot}.{self._short[full]}"

    def _add_slot(self, full: str, slot: str, tensor: Any) -> Tagged:
        where = self._variable(full, slot)
        self._scanner.add_leaf(where, paddle_tensors.describe(tensor), self._mark, self._name)
        self._in_place.add((full, slot))
        return Tagged("$variable", where)

    def _rate(self) -> Any:
        rate = self._optimizer._learning_rate
        return paddle_schedulers.state_of(rate) if isinstance(rate, paddle.optimizer.lr.LRScheduler) else float(rate)

    def _localize(self, content: Any, renamed: Rename) -> tuple[Any, dict[str, str]]:
        if _shape_problem(content):
            return content, {}
        ours = localized(content["parameters"], renamed, self._parameters, self._scanner.found.aliases)
        moved: dict[str, str] = {}
        state: dict[str, Any] = {}
        for full, slots in content["state"].items():
            local = ours.get(full, full)
            state[local] = slots
            if local in self._short:
                moved |= {ref.value: self._variable(local, slot) for slot, ref in slots.items()}
        return content | {"state": state, "parameters": list(ours.values())}, moved

    def _beside(self, content: Any) -> dict[str, Beside]:
        found = {}
        for full, slots in content["state"].items():
            tensor = self._parameters[full]
            parameter = _variable_of(full, tensor)
            would = self._would_make(full) if any((full, slot) not in self._in_place for slot in slots) else {}
            for slot, ref in slots.items():
                found[ref.value] = Beside(parameter, would.get(slot))
        return found

    def _would_make(self, full: str) -> dict[str, Variable]:
        """What the optimizer is going to have for a parameter: tried out, and what it had not made before is taken back."""
        if full not in self._forms:
            parameter, before = self._parameters[full], self._slots(full)
            is_new = parameter.name not in self._optimizer._already_create_accumulator
            self._create(parameter)
            self._forms[full] = made = {slot: _variable_of(slot, tensor) for slot, tensor in self._slots(full).items()}
            self._drop(parameter, set(made) - set(before))
            if is_new:
                self._optimizer._already_create_accumulator.discard(parameter.name)
        return self._forms[full]

    def _create(self, parameter: Any) -> None:
        block = paddle.static.default_main_program().global_block()
        self._optimizer._create_accumulators(block, [parameter])

    def _drop(self, parameter: Any, slots: Iterable[str]) -> None:
        names = self._names(parameter)
        for slot in slots:
            held = self._optimizer._master_weights if slot == _MASTER else self._optimizer._accumulators[slot]
            for name in names:
                held.pop(name, None)

    def _problem(self, content: Any) -> str | None:
        if reason := _shape_problem(content):
            return reason
        held = set(content["parameters"])
        if absent := [full for full in self._parameters if full not in held]:
            return f"the checkpoint's optimizer knows nothing of {', '.join(absent[:10])}"
        if over := [full for full in {**dict.fromkeys(held), **content["state"]} if full not in self._parameters]:
            return f"the checkpoint's optimizer has {', '.join(over[:10])} too, the target's has not"
        rate = self._optimizer._learning_rate
        is_scheduled = isinstance(rate, paddle.optimizer.lr.LRScheduler)
        if isinstance(content["learning_rate"], dict) != is_scheduled:
            return "the learning rate is that of a scheduler on one side only"
        if is_scheduled and (reason := paddle_schedulers.problem(rate, content["learning_rate"])):
            return reason
        for full, slots in content["state"].items():
            late = {slot for slot in slots if (full, slot) not in self._in_place}
            if late and (unknown := sorted(late - set(self._would_make(full)))):
                return (
                    f"the checkpoint's optimizer is of another kind: it has {', '.join(unknown)} for {full}, which a "
                    f"{type(self._optimizer).__name__} has not; skip it and its arrays to begin with a new one"
                )
        return None

    def _put(self, content: Any, arrays: Arrays) -> None:
        if isinstance(content["learning_rate"], dict):
            paddle_schedulers.give(self._optimizer._learning_rate, content["learning_rate"])
        else:
            self._optimizer.set_lr(content["learning_rate"])
        for full, parameter in self._parameters.items():
            slots = content["state"].get(full, {})
            if slots and not any(ref.value in arrays for ref in slots.values()):
                continue  # all that belongs to the parameter is left alone
            present = self._slots(full)
            if slots and _MASTER in present and _MASTER not in slots:
                # It has to stay, since the moments go by its name; saved without one, the parameter itself is as precise.
                present.pop(_MASTER).set_value(parameter.astype("float32"))
            self._drop(parameter, [slot for slot in present if slot not in slots])
            if not slots:
                self._optimizer._already_create_accumulator.discard(parameter.name)
                continue
            late = {slot: ref for slot, ref in slots.items() if (full, slot) not in self._in_place}
            if late:
                self._fill_new(full, parameter, late, arrays)

    def _fill_new(self, full: str, parameter: Any, late: dict[str, Tagged], arrays: Arrays) -> None:
        """Let the optimizer make what it has not made yet, and give it its values."""
        self._create(parameter)
        made = self._slots(full)
        for slot, ref in late.items():
            made[slot].set_value(paddle_tensors.from_array(arrays[ref.value]))


def _variable_of(name: str, tensor: Any) -> Variable:
    return Variable(name, "parameter", True, paddle_tensors.name_of(tensor.dtype) or "", tuple(tensor.shape))


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
