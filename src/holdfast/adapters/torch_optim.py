"""PyTorch optimizers: state by name of parameter and slot, such as `optimizer.exp_avg.fc.weight`, never by position.

`torch.optim` itself counts parameters, so two layers of one shape that are declared in another order swap their moments in
silence. The names come from the modules in the same state. One value for each optimizer has the rest: what every group sets
for which parameters, and what is no tensor.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.adapters import torch_tensors
from holdfast.adapters.objects import References, tags
from holdfast.adapters.parameter_names import Known, known_parameters, localized, short_names
from holdfast.adapters.state import Arrays, Beside, Leaf, Mark, Rename, Value
from holdfast.adapters.torch_objects import note_groups
from holdfast.adapters.torch_settings import essence, fit_problem, give, kind_problem, kinds_of, settings_of
from holdfast.format.values import Tagged, UnsupportedValueError, encode
from holdfast.variables import Variable

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner


def add_optimizer(scanner: Scanner, optimizer: torch.optim.Optimizer, name: str, mark: Mark) -> None:
    """Tell the scanner what an optimizer holds."""
    holder = _holder(optimizer)
    if isinstance(holder, str):
        scanner.refuse(name, holder)
        return
    places = [
        (f"{name}.param_groups.{number}.params.{place}", parameter)
        for number, group in enumerate(optimizer.param_groups)
        for place, parameter in enumerate(group["params"])
    ]
    if (known := known_parameters(scanner, places)) is not None:
        _Optimizer(scanner, optimizer, holder, name, mark, known).add()


def _holder(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer | str:
    """The optimizer that has the state; the reason if not all of it can be seen."""
    zero = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    if zero is not None and isinstance(optimizer, zero.ZeroRedundancyOptimizer):
        if optimizer.world_size > 1:
            return "its state is spread over several processes, which is not supported yet"
        return optimizer.optim
    kind = type(optimizer).__name__
    if not _says_itself_what_it_saves(optimizer):
        if (inner := _hidden_in(optimizer)) is not None:
            return f"a {kind} keeps a {type(inner).__name__} whose state it does not save; put that one into the state instead"
        return optimizer
    found = optimizer.state_dict()
    if hidden := sorted(map(str, set(found) - {"state", "param_groups"})):
        return f"a {kind} saves {', '.join(hidden)} in a way of its own, which no checkpoint can hold"
    if len(found["state"]) != len(optimizer.state):
        return (
            f"a {kind} keeps its state in a way of its own; put the optimizer that it works with into the state instead"
        )
    return optimizer


def _says_itself_what_it_saves(optimizer: torch.optim.Optimizer) -> bool:
    if type(optimizer).state_dict is not torch.optim.Optimizer.state_dict:
        return True
    return bool(optimizer._optimizer_state_dict_pre_hooks or optimizer._optimizer_state_dict_post_hooks)


def _hidden_in(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer | None:
    """An optimizer that this one works with, and whose state is not its own."""
    attributes = list(vars(optimizer).values())
    attributes += [part for held in attributes if isinstance(held, list | tuple) for part in held]
    inner = (held for held in attributes if isinstance(held, torch.optim.Optimizer))
    return next((one for one in inner if one.state is not optimizer.state), None)


class _Optimizer:
    def __init__(
        self,
        scanner: Scanner,
        optimizer: torch.optim.Optimizer,
        holder: torch.optim.Optimizer,
        name: str,
        mark: Mark,
        known: list[Known],
    ) -> None:
        self._scanner, self._optimizer, self._holder, self._name = scanner, optimizer, holder, name
        self._mark = mark if mark.fixed else Mark("persistable", True)
        self._full = {id(one.parameter): one.full for one in known}
        self._short = short_names(known)
        self._parameters = {one.full: one.parameter for one in known}
        self._in_place: set[tuple[str, str]] = set()
        self._references: dict[tuple[str, str], References] = {}

    def add(self) -> None:
        state = {}
        for parameter, slots in self._holder.state.items():
            full = self._full.get(id(parameter))
            if full is None:
                self._scanner.refuse(
                    f"{self._name}.state", f"it holds something for {str(parameter)[:60]!r}, no parameter of its groups"
                )
                return
            state[full] = {slot: self._add_slot(full, slot, value) for slot, value in slots.items()}
        groups = [self._group(group) for group in self._optimizer.param_groups]
        tree = {"kinds": kinds_of(self._holder), "param_groups": groups, "state": state}
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
                beside=self._beside,
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

    def _group(self, group: dict[str, Any]) -> dict[str, Any]:
        """What a group sets, and for which parameters."""
        return settings_of(group) | {"params": [self._full[id(parameter)] for parameter in group["params"]]}

    def _localize(self, content: Any, renamed: Rename) -> tuple[Any, dict[str, str]]:
        if _shape_problem(content):
            return content, {}
        saved = [full for group in content["param_groups"] for full in group["params"]]
        ours = localized(saved, renamed, self._parameters, self._scanner.found.aliases)
        groups = [group | {"params": [ours[full] for full in group["params"]]} for group in content["param_groups"]]
        present = [
            [self._full[id(parameter)] for parameter in group["params"]] for group in self._optimizer.param_groups
        ]
        note_groups(self._scanner, self._optimizer, present, [group["params"] for group in groups])
        moved: dict[str, str] = {}
        state: dict[str, Any] = {}
        for full, slots in content["state"].items():
            local = ours.get(full, full)
            state[local] = slots
            if local in self._short:
                moved |= {v.value: self._variable(local, slot) for slot, v in slots.items() if isinstance(v, Tagged)}
        return content | {"param_groups": groups, "state": state}, moved

    def _beside(self, content: Any) -> dict[str, Beside]:
        found: dict[str, Beside] = {}
        for full, slots in content["state"].items():
            leaf = torch_tensors.describe(self._parameters[full])
            if isinstance(leaf, Leaf):
                parameter = Beside(Variable(full, "parameter", True, leaf.dtype, leaf.shape))
                found |= {value.value: parameter for value in slots.values() if isinstance(value, Tagged)}
        return found

    def _problem(self, content: Any) -> str | None:
        if reason := _shape_problem(content):
            return reason
        settings = _settings_by_parameter(content)
        if absent := [full for full in self._parameters if full not in settings]:
            return f"the checkpoint's optimizer knows nothing of {', '.join(absent[:10])}"
        if over := [full for full in {**settings, **content["state"]} if full not in self._parameters]:
            return f"the checkpoint's optimizer has {', '.join(over[:10])} too, the target's has not"
        is_renamed = "kinds" in content and not {*content["kinds"]} & {*kinds_of(self._holder)}
        if reason := kind_problem(getattr(self._optimizer, "defaults", {}), settings.values(), is_renamed=is_renamed):
            return reason
        for number, group in enumerate(self._optimizer.param_groups):
            names = [self._full[id(parameter)] for parameter in group["params"]]
            for full in names:
                if repr(essence(settings[full])) != repr(essence(settings[names[0]])):
                    return (
                        f"{names[0]} and {full} are in one group of the target ({number}), but the checkpoint sets "
                        "different things for them"
                    )
            if names and (reason := fit_problem(group, settings[names[0]])):
                return reason
        if isinstance(self._optimizer, torch.optim.LBFGS) and list(settings) != list(self._parameters):
            return "L-BFGS keeps all parameters in one vector, and the checkpoint has them in another order"
        return None

    def _put(self, content: Any, arrays: Arrays) -> None:
        settings = _settings_by_parameter(content)
        for group in self._optimizer.param_groups:
            if group["params"]:
                give(group, settings[self._full[id(group["params"][0])]])
            on_device = bool(group.get("fused") or group.get("capturable"))
            for parameter in group["params"]:
                full = self._full[id(parameter)]
                self._put_slots(full, parameter, content["state"].get(full), arrays, on_device)
        holder = self._holder
        if type(holder).load_state_dict is torch.optim.Optimizer.load_state_dict:
            # As that does: settings and forms of the state that its version of PyTorch has, and the one that saved had not.
            holder.__setstate__({"state": holder.state, "param_groups": holder.param_groups})

    def _put_slots(
        self, full: str, parameter: torch.Tensor, slots: dict[str, Any] | None, arrays: Arrays, on_device: bool
    ) -> None:
        if slots is None:
            self._holder.state.pop(parameter, None)
            return
        refs = [value.value for value in slots.values() if isinstance(value, Tagged)]
        if refs and not any(ref in arrays for ref in refs):
            return  # all that belongs to the parameter is left alone
        state = self._holder.state[parameter]
        for slot in [slot for slot in state if slot not in slots]:
            del state[slot]
        for slot, value in slots.items():
            if not isinstance(value, Tagged):
                references = self._references.get((full, slot)) or References(self._scanner, "", self._mark, [])
                from holdfast.adapters import torch as framework  # it imports this module

                state[slot] = references.resolved(value, arrays, framework, state.get(slot))
            elif (full, slot) not in self._in_place:
                state[slot] = _new_slot(slot, arrays[value.value], parameter, on_device)


def _new_slot(slot: str, array: np.ndarray, parameter: torch.Tensor, on_device: bool) -> torch.Tensor:
    """State that the target's optimizer has not made yet: beside its parameter, but a step is counted on the host."""
    if slot == "step":
        return torch_tensors.from_array(array, device=parameter.device if on_device else None)
    local = torch_tensors.local_part(parameter)
    made = torch_tensors.from_array(array, local, parameter.device)
    if local is parameter or array.shape != tuple(parameter.shape):
        return made
    spread: Any = parameter  # a DTensor: what is computed with it has to be one too
    return type(spread).from_local(made, spread.device_mesh, spread.placements, run_check=False)


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
    if not isinstance(content, dict) or set(content) - {"kinds"} != {"param_groups", "state"}:
        return wrong
    groups, state, kinds = content["param_groups"], content["state"], content.get("kinds", [])
    if not isinstance(kinds, list) or not all(type(kind) is str for kind in kinds):
        return wrong
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
