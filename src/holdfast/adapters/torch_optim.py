"""PyTorch optimizers: state by name of parameter and slot, such as `optimizer.exp_avg.fc.weight`, never by position.

`torch.optim` itself counts parameters, so two layers of one shape that are declared in another order swap their moments in
silence. The names come from the modules in the same state. One value for each optimizer has the rest: what every group sets
for which parameters, and what is no tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.adapters import torch_tensors
from holdfast.adapters.objects import References, tags
from holdfast.adapters.parameter_names import Known, known_parameters, short_names
from holdfast.adapters.state import Arrays, Mark, Rename, Value
from holdfast.format.values import Tagged, UnsupportedValueError, encode

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_OURS = ("params", "param_names")


def add_optimizer(scanner: Scanner, optimizer: torch.optim.Optimizer, name: str, mark: Mark) -> None:
    """Tell the scanner what an optimizer holds."""
    places = [
        (f"{name}.param_groups.{number}.params.{place}", parameter)
        for number, group in enumerate(optimizer.param_groups)
        for place, parameter in enumerate(group["params"])
    ]
    if (known := known_parameters(scanner, places)) is not None:
        _Optimizer(scanner, optimizer, name, mark, known).add()


class _Optimizer:
    def __init__(
        self, scanner: Scanner, optimizer: torch.optim.Optimizer, name: str, mark: Mark, known: list[Known]
    ) -> None:
        self._scanner, self._optimizer, self._name = scanner, optimizer, name
        self._mark = mark if mark.fixed else Mark("persistable", True)
        self._full = {id(one.parameter): one.full for one in known}
        self._short = short_names(known)
        self._parameters = {one.full: one.parameter for one in known}
        self._in_place: set[tuple[str, str]] = set()
        self._references: dict[tuple[str, str], References] = {}

    def add(self) -> None:
        state = {}
        for parameter, slots in self._optimizer.state.items():
            full = self._full.get(id(parameter))
            if full is None:
                self._scanner.refuse(
                    f"{self._name}.state", f"it holds something for {str(parameter)[:60]!r}, no parameter of its groups"
                )
                return
            state[full] = {slot: self._add_slot(full, slot, value) for slot, value in slots.items()}
        tree = {"param_groups": [self._settings(group) for group in self._optimizer.param_groups], "state": state}
        try:
            encode(tree)
        except UnsupportedValueError as error:
            self._scanner.refuse(self._name + error.where, f"in an optimizer: {error}")
            return
        self._scanner.add(
            Value(
                self._name,
                tree,
                self._put,
                self._problem,
                is_object=True,
                identity=id(self._optimizer),
                replaces=True,
                localize=self._localize,
            )
        )

    def _variable(self, full: str, slot: str) -> str:
        return f"{self._name}.{slot}.{self._short[full]}"

    def _add_slot(self, full: str, slot: Any, value: Any) -> Any:
        where = self._variable(full, slot)
        if isinstance(value, torch.Tensor):
            self._scanner.add_leaf(where, torch_tensors.describe(value), self._mark, self._name)
            self._in_place.add((full, slot))
            return Tagged("$variable", where)
        from holdfast.adapters import torch as framework  # it imports this module

        made = self._references[full, slot] = References(self._scanner, self._name, self._mark, [framework])
        return made.made_of(value, where)

    def _settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """What a group sets, and for which parameters."""
        settings = {key: _plain(value) for key, value in group.items() if key not in _OURS}
        return settings | {"params": [self._full[id(parameter)] for parameter in group["params"]]}

    def _localize(self, content: Any, renamed: Rename) -> tuple[Any, dict[str, str]]:
        if _shape_problem(content):
            return content, {}
        moved: dict[str, str] = {}
        groups = [group | {"params": [renamed(full) for full in group["params"]]} for group in content["param_groups"]]
        state: dict[str, Any] = {}
        for full, slots in content["state"].items():
            state[renamed(full)] = slots
            if renamed(full) not in self._short:
                continue
            for slot, value in slots.items():
                if isinstance(value, Tagged):
                    moved[value.value] = self._variable(renamed(full), slot)
        return {"param_groups": groups, "state": state}, moved

    def _problem(self, content: Any) -> str | None:
        if reason := _shape_problem(content):
            return reason
        settings = _settings_by_parameter(content)
        if absent := [full for full in self._parameters if full not in settings]:
            return f"the checkpoint's optimizer knows nothing of {', '.join(absent[:10])}"
        if over := [full for full in settings if full not in self._parameters]:
            return f"the checkpoint's optimizer has {', '.join(over[:10])} too, the target's has not"
        for number, group in enumerate(self._optimizer.param_groups):
            names = [self._full[id(parameter)] for parameter in group["params"]]
            for full in names[1:]:
                if repr(settings[full]) != repr(settings[names[0]]):
                    return (
                        f"{names[0]} and {full} are in one group of the target ({number}), but the checkpoint sets "
                        "different things for them"
                    )
        if isinstance(self._optimizer, torch.optim.LBFGS) and list(settings) != list(self._parameters):
            return "L-BFGS keeps all parameters in one vector, and the checkpoint has them in another order"
        return None

    def _put(self, content: Any, arrays: Arrays) -> None:
        settings = _settings_by_parameter(content)
        for group in self._optimizer.param_groups:
            if not group["params"]:
                continue
            for key, value in settings[self._full[id(group["params"][0])]].items():
                present = group.get(key)
                if isinstance(present, torch.Tensor):
                    with torch.no_grad():
                        present.copy_(torch.as_tensor(value))
                else:
                    group[key] = value.item() if isinstance(value, np.ndarray) else value
        for full, parameter in self._parameters.items():
            slots = content["state"].get(full)
            if slots is None:
                self._optimizer.state.pop(parameter, None)
                continue
            state = self._optimizer.state[parameter]
            for slot in [slot for slot in state if slot not in slots]:
                del state[slot]
            for slot, value in slots.items():
                if not isinstance(value, Tagged):
                    references = self._references.get((full, slot)) or References(self._scanner, "", self._mark, [])
                    from holdfast.adapters import torch as framework  # it imports this module

                    state[slot] = references.resolved(value, arrays, framework)
                elif (full, slot) not in self._in_place:
                    state[slot] = _new_slot(slot, arrays[value.value], parameter)


def _new_slot(slot: str, array: np.ndarray, parameter: torch.Tensor) -> torch.Tensor:
    """State that the target's optimizer has not made yet: beside its parameter, but a step is counted on the host."""
    if slot == "step":
        return torch_tensors.from_array(array)
    return torch_tensors.from_array(array, parameter, parameter.device)


def _plain(value: Any) -> Any:
    """A setting; a learning rate may be a tensor."""
    if not isinstance(value, torch.Tensor):
        return value
    leaf = torch_tensors.describe(value)
    if isinstance(leaf, str):
        return value
    return leaf.array if leaf.access is None else leaf.access.fetch()


def _settings_by_parameter(content: Any) -> dict[str, dict[str, Any]]:
    return {
        full: {key: value for key, value in group.items() if key != "params"}
        for group in content["param_groups"]
        for full in group["params"]
    }


def _shape_problem(content: Any) -> str | None:
    """Why this is not what an optimizer was saved as."""
    if "$random" in tags(content):
        return "the checkpoint has the state of a random number generator in it, which no optimizer can hold"
    wrong = "the checkpoint has something else there, the target an optimizer"
    if not isinstance(content, dict) or set(content) != {"param_groups", "state"}:
        return wrong
    groups, state = content["param_groups"], content["state"]
    if not isinstance(groups, list) or not isinstance(state, dict):
        return wrong
    for group in groups:
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            return wrong
        if not all(type(key) is str for key in group) or not all(type(name) is str for name in group["params"]):
            return wrong
    if not all(type(full) is str and isinstance(slots, dict) for full, slots in state.items()):
        return wrong
    return None
