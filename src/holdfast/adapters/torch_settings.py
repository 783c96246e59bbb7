"""What the groups of a PyTorch optimizer set: as values of a state, and back.

How a step is computed (`foreach`, `fused`, `capturable`, `differentiable`) is the program's own choice, which goes with where its
tensors are: it stays as it is in the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from holdfast.adapters import torch_tensors

_OURS = ("params", "param_names")
_WAYS = ("foreach", "fused", "capturable", "differentiable")
_SCHEDULED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")

Settings = Mapping[str, Any]


def settings_of(group: Settings) -> dict[str, Any]:
    """What a group sets, as plain values; a learning rate may be a tensor."""
    return {key: _plain(value) for key, value in group.items() if key not in _OURS}


def _plain(value: Any) -> Any:
    if type(value) is tuple or type(value) is list:
        return type(value)(map(_plain, value))
    if not isinstance(value, torch.Tensor):
        return value
    leaf = torch_tensors.describe(value)
    if isinstance(leaf, str):
        return value
    return leaf.array if leaf.access is None else leaf.access.fetch()


def essence(settings: Settings) -> dict[str, Any]:
    """The settings that a load gives back."""
    return {key: value for key, value in settings.items() if key not in _WAYS}


def kinds_of(optimizer: torch.optim.Optimizer) -> list[str]:
    """What kinds of optimizer this one is, by the names of its types: AdamW is an Adam too."""
    mro = type(optimizer).__mro__
    return [kind.__name__ for kind in mro[: mro.index(torch.optim.Optimizer)]]


def kind_problem(defaults: Settings, all_settings: Iterable[Settings], *, is_renamed: bool) -> str | None:
    """Why saved settings are those of another kind of optimizer; None if they need not be.

    Some that are not known, or some that are absent, are those of another version; both together are not. Of an optimizer that
    goes by another name neither is one: Adamax sets some of what Adam does, and what it sets is no good there.

    Args:
        defaults: of the target's optimizer.
        all_settings: of the groups in the checkpoint.
        is_renamed: whether the checkpoint's optimizer is known to have been of types of other names.
    """
    for settings in all_settings:
        unknown = sorted(map(str, set(settings) - set(defaults) - {*_WAYS, *_SCHEDULED}))
        absent = sorted(set(defaults) - set(settings) - set(_WAYS))
        if (unknown and absent) or (is_renamed and (unknown or absent)):
            parts = [f"sets {', '.join(unknown)}"] if unknown else []
            parts += [f"not {', '.join(absent)}" if unknown else f"does not set {', '.join(absent)}"] if absent else []
            return (
                f"the checkpoint's optimizer is of another kind: it {', and '.join(parts)}; skip it and its arrays to begin "
                "with a new one"
            )
    return None


def fit_problem(group: Settings, settings: Settings) -> str | None:
    """Why saved settings cannot be given to a group of the target; None if they can."""
    for key, value in essence(settings).items():
        present = group.get(key)
        if reason := _fit_problem(present, value):
            return f"its {key} {reason}"
    return None


def _fit_problem(present: Any, value: Any) -> str | None:
    if isinstance(present, torch.Tensor):
        if not isinstance(value, int | float | np.ndarray):
            return f"is {value!r:.60} in the checkpoint, and a tensor in the target"
        shape = np.shape(value)
        if shape != () and shape != tuple(present.shape):
            return f"has the shape {shape} in the checkpoint, {tuple(present.shape)} in the target"
    elif isinstance(present, int | float) and isinstance(value, np.ndarray) and value.size != 1:
        return f"has the shape {value.shape} in the checkpoint, and is a number in the target"
    elif isinstance(present, tuple | list) and isinstance(value, tuple | list):
        if len(present) != len(value):
            return f"has {len(value)} parts in the checkpoint, {len(present)} in the target"
        return next(filter(None, map(_fit_problem, present, value)), None)
    return None


def give(group: dict[str, Any], settings: Settings) -> None:
    """Give a group of the target saved settings that `fit_problem` has found good; a tensor stays the same one."""
    for key, value in settings.items():
        if key not in _WAYS or key not in group:
            group[key] = _given(group.get(key), value)


def _given(present: Any, value: Any) -> Any:
    if isinstance(present, torch.Tensor):
        made = torch_tensors.from_array(value.copy()) if isinstance(value, np.ndarray) else torch.tensor(value)
        with torch.no_grad():
            present.copy_(made)
        return present
    if type(value) is tuple or type(value) is list:
        parts = present if isinstance(present, tuple | list) else [None] * len(value)
        return type(value)(map(_given, parts, value))
    if not isinstance(value, np.ndarray):
        return value
    return (
        value.item()
        if isinstance(present, int | float) or (present is None and value.size == 1)
        else torch_tensors.from_array(value.copy())
    )
