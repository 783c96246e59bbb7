"""Paddle's learning rate schedulers: all that they remember, and whether it is what one of their kind remembers.

`set_state_dict` of Paddle complains half-way, when other parts of the state have their new values already.
"""

from __future__ import annotations

from typing import Any

import paddle

_INNER = "LinearWarmup_LR"
_CYCLE = ("T_cur", "T_i")  # where in its cycle one with warm restarts is: its own state_dict() says only the epoch


def state_of(scheduler: Any) -> dict[str, Any]:
    """What a scheduler remembers."""
    state = dict(scheduler.state_dict())
    if _has_cycle(scheduler):
        state |= {name: getattr(scheduler, name) for name in _CYCLE}
    if _INNER in state and (inner := _inner(scheduler)) is not None:
        state[_INNER] = state_of(inner)
    return state


def problem(scheduler: Any, state: dict[str, Any]) -> str | None:
    """Why a loaded state is not of such a scheduler; None if it is, or if only the scheduler itself can tell."""
    rates = paddle.optimizer.lr
    if type(scheduler).set_state_dict not in (rates.LRScheduler.set_state_dict, rates.LinearWarmup.set_state_dict):
        return None
    scheduler.state_keys()  # sets `keys`, as Paddle's own methods begin
    kind, inner = type(scheduler).__name__, _inner(scheduler)
    needed = [*scheduler.keys, *([_INNER] if inner is not None else [])]
    if lacking := [name for name in needed if name not in state]:
        return (
            f"the checkpoint's scheduler is of another kind: it has no {', '.join(lacking[:10])}, which a {kind} needs"
        )
    known = {*needed, *(_CYCLE if _has_cycle(scheduler) else ())}
    if over := [str(name)[:60] for name in state if name not in known]:
        return f"the checkpoint's scheduler is of another kind: it has {', '.join(over[:10])}, which a {kind} has not"
    if inner is None:
        return None
    held = state[_INNER]
    return problem(inner, held) if isinstance(held, dict) else f"the checkpoint has no scheduler inside of its {kind}"


def give(scheduler: Any, state: dict[str, Any]) -> None:
    """Give a scheduler what it, or another of its kind, remembered."""
    scheduler.set_state_dict(_plain(scheduler, state))
    while True:
        if _has_cycle(scheduler):
            vars(scheduler).update({name: state[name] for name in _CYCLE if name in state})
        inner = _inner(scheduler)
        if inner is None or _INNER not in state:
            return
        scheduler, state = inner, state[_INNER]


def _plain(scheduler: Any, state: dict[str, Any]) -> dict[str, Any]:
    """What Paddle itself knows of a state: it warns of anything else."""
    made = {name: held for name, held in state.items() if name not in _CYCLE or not _has_cycle(scheduler)}
    inner = _inner(scheduler)
    if inner is not None and _INNER in made:
        made[_INNER] = _plain(inner, made[_INNER])
    return made


def _inner(scheduler: Any) -> Any:
    """The scheduler that takes over after a warmup; None if there is none."""
    held = scheduler.learning_rate if isinstance(scheduler, paddle.optimizer.lr.LinearWarmup) else None
    return held if isinstance(held, paddle.optimizer.lr.LRScheduler) else None


def _has_cycle(scheduler: Any) -> bool:
    return isinstance(scheduler, paddle.optimizer.lr.CosineAnnealingWarmRestarts)
