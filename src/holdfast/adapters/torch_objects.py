"""PyTorch's learning rate schedulers and gradient scalers: which states of a checkpoint fit them.

Their own `load_state_dict()` does not say so, or too late: a scheduler takes the state of one of another kind, and rates by the
position of groups that stand in another order now; a scaler raises when all else has been loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from holdfast.adapters.objects import has_state

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

Fit = Callable[[dict[Any, Any]], str | None]
_NEW = "skip it to begin with a new one"
_SCHEDULERS = "_schedulers"  # what a scheduler made of others saves these as


def scaler_fit(scaler: torch.amp.GradScaler) -> Fit:
    """Why a loaded state is not one for this scaler, as a function."""

    def problem(content: dict[Any, Any]) -> str | None:
        held = scaler.state_dict()  # not sooner: a save needs none of this, and it waits for the device
        if held and not content:
            return f"the checkpoint's scaler was not enabled, the target's is; {_NEW}"
        absent = [key for key in held if key not in content]
        return f"the checkpoint has another object there, without {', '.join(absent)}; {_NEW}" if absent else None

    return problem


def is_scheduler(node: Any) -> bool:
    """Whether this is an object that changes what the groups of an optimizer set."""
    return has_state(node) and isinstance(getattr(_unwrapped(node), "optimizer", None), torch.optim.Optimizer)


def _unwrapped(scheduler: Any) -> Any:
    return getattr(scheduler, "scheduler", scheduler)  # as Accelerate has it


def note_groups(
    scanner: Scanner, optimizer: torch.optim.Optimizer, ours: list[list[str]], saved: list[list[str]]
) -> None:
    """Remember whether the groups of an optimizer, given as names of parameters, are those of the checkpoint."""
    scanner.known["regrouped", id(optimizer.param_groups)] = list(map(set, ours)) != list(map(set, saved))


def scheduler_fit(scanner: Scanner, scheduler: Any) -> Fit:
    """Why a loaded state is not one for this scheduler, as a function; to be called when the optimizer's has been looked at."""
    inner = _unwrapped(scheduler)

    def problem(content: dict[Any, Any]) -> str | None:
        if scanner.known.get(("regrouped", id(inner.optimizer.param_groups))):
            return (
                "it counts the optimizer's groups by position, and the checkpoint has others, or has them in another order; "
                f"make them as they were, or {_NEW}"
            )
        is_ours = isinstance(inner, torch.optim.lr_scheduler.LRScheduler)
        return _kind_problem(scheduler.state_dict(), content) if is_ours else None

    return problem


def _kind_problem(held: dict[Any, Any], content: dict[Any, Any]) -> str | None:
    unknown, absent = _settings(content) - _settings(held), _settings(held) - _settings(content)
    if unknown and absent:
        return (
            f"the checkpoint's scheduler is of another kind: it has {', '.join(sorted(unknown))}, and not "
            f"{', '.join(sorted(absent))}; {_NEW}"
        )
    ours, saved = held.get(_SCHEDULERS, []), content.get(_SCHEDULERS, [])
    if not isinstance(ours, list):
        return None
    if not isinstance(saved, list) or len(saved) != len(ours) or not all(isinstance(inner, dict) for inner in saved):
        return f"the checkpoint's scheduler is not made of {len(ours)} others, as the target's is; {_NEW}"
    return next(filter(None, map(_kind_problem, ours, saved)), None)


def _settings(state: dict[Any, Any]) -> set[str]:
    """What every version of PyTorch has for a kind of scheduler."""
    return {str(key) for key in state if not str(key).startswith("_") and key != "verbose"}
