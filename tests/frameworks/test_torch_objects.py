"""PyTorch's schedulers and scalers: a state of a checkpoint that is not theirs is refused before anything changes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, optim = torch.nn, torch.optim
rates = optim.lr_scheduler

Make = Callable[[Any], Any]


def made(groups: str, make: Make) -> dict[str, Any]:
    """A state with two layers, each with a learning rate of its own; `groups` is their order in the optimizer."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    lr = {"a": 1.0, "b": 0.1}
    optimizer = optim.SGD([{"params": model[key].parameters(), "lr": lr[key]} for key in groups])
    return {"scheduler": make(optimizer), "model": model, "optimizer": optimizer}


def step(state: dict[str, Any]) -> None:
    state["optimizer"].step()
    state["scheduler"].step()


def untouched(state: dict[str, Any], run: Any, words: str) -> None:
    weight, held = state["model"]["a"].weight.tolist(), repr(state["scheduler"].state_dict())

    with pytest.raises(MismatchError, match=words) as caught:
        holdfast.load_checkpoint(state, run)

    assert len(caught.value.problems) == 1
    assert (state["model"]["a"].weight.tolist(), repr(state["scheduler"].state_dict())) == (weight, held)


class Prepared:
    """A scheduler as Accelerate wraps it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.optimizers = scheduler, [scheduler.optimizer]
        self.step, self.state_dict, self.load_state_dict = (
            scheduler.step, scheduler.state_dict, scheduler.load_state_dict,
        )  # fmt: skip


MADE: dict[str, Make] = {
    "wrapped": lambda optimizer: Prepared(rates.LambdaLR(optimizer, lambda epoch: 0.9**epoch)),
    "LambdaLR": lambda optimizer: rates.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "CosineAnnealingLR": lambda optimizer: rates.CosineAnnealingLR(optimizer, 10),
    "SequentialLR": lambda optimizer: rates.SequentialLR(
        optimizer, [rates.ConstantLR(optimizer), rates.ExponentialLR(optimizer, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_scheduler_whose_groups_stand_in_another_order_is_refused(kind: str) -> None:
    run = MemoryStore().at("run")
    state = made("ab", MADE[kind])
    step(state)
    holdfast.save_checkpoint(state, run)
    other = made("ba", MADE[kind])

    untouched(other, run, "'scheduler': it counts the optimizer's groups by position")
    holdfast.load_checkpoint(other, run, skip=["scheduler"])
    assert [group["lr"] for group in other["optimizer"].param_groups] == [
        group["lr"] for group in reversed(state["optimizer"].param_groups)
    ]


def test_scheduler_of_another_kind_is_refused() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(made("ab", lambda optimizer: rates.StepLR(optimizer, 3)), run)

    words = "the checkpoint's scheduler is of another kind: it has gamma, step_size, and not T_max, eta_min; skip it"
    untouched(made("ab", MADE["CosineAnnealingLR"]), run, words)


def test_scheduler_made_of_others_is_refused_where_these_are() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(made("ab", MADE["SequentialLR"]), run)

    def longer(optimizer: Any) -> Any:
        parts = [rates.ConstantLR(optimizer), rates.ExponentialLR(optimizer, 0.9), rates.ExponentialLR(optimizer, 0.5)]
        return rates.SequentialLR(optimizer, parts, [2, 4])

    def others(optimizer: Any) -> Any:
        return rates.SequentialLR(optimizer, [rates.ConstantLR(optimizer), rates.StepLR(optimizer, 1)], [2])

    untouched(made("ab", longer), run, "the checkpoint's scheduler is not made of 3 others")
    holdfast.save_checkpoint(made("ab", lambda optimizer: rates.CosineAnnealingLR(optimizer, 10)), run)
    untouched(made("ab", others), run, "is not made of 2 others, as the target's is|of another kind")


def test_scheduler_of_an_older_version_of_pytorch_is_loaded() -> None:
    run = MemoryStore().at("run")
    saved = made("ab", lambda optimizer: rates.StepLR(optimizer, 3))
    vars(saved["scheduler"])["verbose"] = False
    del vars(saved["scheduler"])["_is_initial"]
    holdfast.save_checkpoint(saved, run)
    target = made("ab", lambda optimizer: rates.StepLR(optimizer, 3))

    holdfast.load_checkpoint(target, run)

    assert target["scheduler"].last_epoch == saved["scheduler"].last_epoch


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dict_in_an_object_keeps_its_type() -> None:
    run = MemoryStore().at("run")
    make: Make = lambda optimizer: rates.MultiStepLR(optimizer, [2, 2, 4])  # noqa: E731
    state, target = made("ab", make), made("ab", make)
    state["scheduler"].milestones = Counter({1: 1, 3: 2})
    holdfast.save_checkpoint(state, run)

    holdfast.load_checkpoint(target, run)

    assert type(target["scheduler"].milestones) is Counter
    assert target["scheduler"].milestones == Counter({1: 1, 3: 2})
    target["scheduler"].step(3)  # asks a Counter for its elements
    assert target["scheduler"].get_last_lr() == pytest.approx([1e-3, 1e-4])


class Parts:
    """An object with a state of its own."""

    def __init__(self, *parts: Any) -> None:
        self.parts: Any = list(parts)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts = state["parts"]


def test_arrays_that_an_object_has_not_yet_are_like_those_that_it_has() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"p": Parts(torch.ones(2), torch.ones(3), torch.ones(4))}, run)
    average, mixed, empty = Parts(torch.zeros(2)), Parts(torch.zeros(2), np.zeros(3, np.float32)), Parts()

    for target in (average, mixed, empty):
        holdfast.load_checkpoint({"p": target}, run)

    assert [type(part) for part in average.parts] == [torch.Tensor] * 3
    assert [type(part) for part in mixed.parts] == [torch.Tensor, np.ndarray, np.ndarray]
    assert [type(part) for part in empty.parts] == [np.ndarray] * 3


def test_dict_within_lists_of_an_object_keeps_its_type() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"p": Parts(OrderedDict(a=1, b=torch.ones(2)), {"c": 3}, OrderedDict(d=4))}, run)
    target = Parts(OrderedDict(z=0), OrderedDict())

    holdfast.load_checkpoint({"p": target}, run)

    assert [type(part) for part in target.parts] == [OrderedDict, OrderedDict, dict]
    assert list(target.parts[0]) == ["a", "b"]
    assert target.parts[0]["b"].tolist() == [1, 1]


def test_scaler_that_was_not_enabled_is_refused_for_one_that_is() -> None:
    run = MemoryStore().at("run")
    model = nn.Linear(2, 2)
    holdfast.save_checkpoint({"model": nn.Linear(2, 2), "scaler": torch.amp.GradScaler("cpu", enabled=False)}, run)
    weight = model.weight.tolist()

    with pytest.raises(MismatchError, match="'scaler': the checkpoint's scaler was not enabled, the target's is; skip"):
        holdfast.load_checkpoint({"model": model, "scaler": torch.amp.GradScaler("cpu")}, run)

    assert model.weight.tolist() == weight
    holdfast.load_checkpoint({"model": model, "scaler": torch.amp.GradScaler("cpu", enabled=False)}, run)


def test_state_that_is_no_scaler_s_is_refused() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(made("ab", lambda optimizer: rates.StepLR(optimizer, 3)), run)

    with pytest.raises(MismatchError, match="has another object there, without scale, growth_factor"):
        holdfast.load_checkpoint({"scheduler": torch.amp.GradScaler("cpu")}, run, strict="subset")


def test_state_dict_as_a_target_is_said_to_be_a_copy() -> None:
    def parts() -> tuple[Any, Any, Any]:
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)

    def dicts(model: Any, optimizer: Any, schedule: Any) -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "opt": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": 1,
        }

    run = MemoryStore().at("run")
    holdfast.save_checkpoint(dicts(*parts()), run)
    target = dicts(*parts())

    with pytest.warns(
        RuntimeWarning, match="'opt', 'schedule': a dict such as the state_dict.* put the object itself"
    ) as caught:
        holdfast.load_checkpoint(target, run)

    assert [warning.filename for warning in caught] == [__file__]
    holdfast.load_vars(target, run)  # tensors are the object's own
