"""PyTorch modules on the meta device: they get memory with a load, and stay what they were to whoever holds them."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

import holdfast
from holdfast import MemoryStore, UnsupportedVariableError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn


def folder(model: Any) -> Any:
    """Where the parameters of a module were saved."""
    run = MemoryStore().at("model")
    holdfast.save_params(model, run)
    return run


def empty(make: Any) -> Any:
    with torch.device("meta"):
        return make()


def linear() -> Any:
    return nn.Linear(3, 2)


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_load_under_the_meta_device_gives_memory_all_the_same() -> None:
    """Whoever makes the model in that context may load in it too: the values must not be lost."""
    saved = linear()
    run = folder(saved)

    with torch.device("meta"):
        target = linear()
        holdfast.load_params(target, run)

    assert same(target, saved)


def test_hooks_stay_with_their_parameters() -> None:
    target, called = empty(linear), []
    target.weight.register_hook(lambda _: called.append("gradient"))
    target.bias.register_post_accumulate_grad_hook(lambda _: called.append("accumulated"))

    holdfast.load_params(target, folder(linear()))
    target(torch.ones(1, 3)).sum().backward()

    assert sorted(called) == ["accumulated", "gradient"]


def test_attributes_and_types_stay_with_their_parameters() -> None:
    class Named(nn.Parameter):
        """A type of the user's own."""

    target = empty(linear)
    target.weight = Named(torch.empty(2, 3, device="meta"), requires_grad=False)
    target.weight.role = "kernel"
    weight = target.weight

    holdfast.load_params(target, folder(saved := linear()))

    assert target.weight is weight
    assert type(weight) is Named
    assert (weight.role, weight.requires_grad) == ("kernel", False)
    assert torch.equal(weight, saved.weight)


def test_parameter_that_something_else_refers_to_is_refused_before_anything_changes() -> None:
    target, run = empty(linear), folder(linear())
    held = weakref.ref(target.bias)

    words = r"it is unchanged:\s+'bias': is on the meta device, and something else refers to it"
    with pytest.raises(UnsupportedVariableError, match=words):
        holdfast.load_params(target, run)

    assert held() is target.bias
    assert target.weight.is_meta
    output = target(torch.empty(1, 3, device="meta")).sum()
    views = [target.weight.view(6), target.weight.view(6)]
    with pytest.raises(UnsupportedVariableError, match="'weight': .* call to_empty"):
        holdfast.load_params(target, run)
    assert output.is_meta
    assert len(views) == 2


def test_module_that_was_run_without_memory_can_be_trained_after_the_load() -> None:
    target, saved = empty(linear), linear()
    target(torch.empty(1, 3, device="meta")).sum().backward()
    target.zero_grad()

    holdfast.load_params(target, folder(saved))
    for model in (target, saved):
        model(torch.ones(1, 3)).sum().backward()

    assert torch.equal(target.weight.grad, saved.weight.grad)


def test_casts_and_strides_are_those_of_the_target() -> None:
    saved = nn.Conv2d(2, 3, 2)
    target = empty(lambda: nn.Conv2d(2, 3, 2).to(torch.bfloat16, memory_format=torch.channels_last))

    holdfast.load_params(target, folder(saved), cast="allow")

    assert torch.equal(target.weight, saved.weight.bfloat16())
    assert target.weight.is_contiguous(memory_format=torch.channels_last)
