"""What PyTorch optimizers set, and what of a checkpoint's fits the target's: nothing is given to it that it could not use."""

from __future__ import annotations

from typing import Any

import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, optim = torch.nn, torch.optim


class Twins(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.b(torch.tanh(self.a(x)))


def train(model: Any, optimizer: Any, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.linspace(-1, 1, 6, dtype=next(model.parameters()).dtype).reshape(2, 3)
        (model(inputs) ** 2).sum().backward()
        optimizer.step()


def weights(model: Any) -> list[Any]:
    return [parameter.tolist() for parameter in model.parameters()]


def made(kind: str, **settings: Any) -> tuple[Any, Any]:
    model = Twins()
    return model, getattr(optim, kind)(model.parameters(), **{"lr": 0.05, **settings})


def saved(model: Any, optimizer: Any) -> Any:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"m": model, "o": optimizer}, run)
    return run


def untouched(model: Any, optimizer: Any, run: Any, words: str, **options: Any) -> None:
    """A load is refused with these words, for one reason, and changes nothing."""
    before = weights(model), repr(optimizer.state_dict())

    with pytest.raises(MismatchError, match=words) as caught:
        holdfast.load_checkpoint({"m": model, "o": optimizer}, run, **options)

    assert len(caught.value.problems) == 1
    assert (weights(model), repr(optimizer.state_dict())) == before


# Kinds of optimizers


@pytest.mark.parametrize(
    ("first", "second"), [("SGD", "AdamW"), ("AdamW", "SGD"), ("RMSprop", "Adam"), ("Adam", "Adagrad"), ("SGD", "ASGD")]
)
@pytest.mark.parametrize("used", [0, 2], ids=["fresh", "used"])
def test_optimizer_of_another_kind_is_a_mismatch(first: str, second: str, used: int) -> None:
    model, optimizer = made(first)
    train(model, optimizer)
    other, target = made(second)
    train(other, target, used)

    untouched(other, target, saved(model, optimizer), "'o': the checkpoint's optimizer is of another kind: it sets")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("Adamax", "Adam", "it does not set amsgrad"),
        ("Adam", "Adamax", "it sets amsgrad"),
        ("Adamax", "NAdam", "it does not set .*momentum_decay"),
        ("Adam", "RAdam", "it sets amsgrad"),
    ],
)
def test_optimizer_that_sets_some_of_what_another_kind_does_is_a_mismatch(first: str, second: str, words: str) -> None:
    model, optimizer = made(first)
    train(model, optimizer)
    other, target = made(second)

    untouched(other, target, saved(model, optimizer), f"'o': the checkpoint's optimizer is of another kind: {words}")


def test_optimizer_that_is_called_otherwise_and_sets_the_same_is_taken() -> None:
    class Mine(optim.Optimizer):  # type: ignore[misc]
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.1})

    model = Twins()
    run = saved(model, Mine(model.parameters()))
    target = Mine(model.parameters())
    target.__class__ = type("Renamed", (optim.Optimizer,), {})
    target.param_groups[0]["lr"] = 0.7

    holdfast.load_checkpoint({"m": model, "o": target}, run)

    assert target.param_groups[0]["lr"] == 0.1


def test_optimizer_whose_settings_are_of_another_version_is_taken() -> None:
    model, optimizer = made("AdamW")
    train(model, optimizer)
    del optimizer.param_groups[0]["decoupled_weight_decay"]
    run = saved(model, optimizer)
    other, target = made("AdamW")

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    assert target.param_groups[0]["decoupled_weight_decay"] is True


def test_adamw_stays_one_when_it_is_loaded_from_adam() -> None:
    """As with its own load_state_dict(): that its weight decay is decoupled is what it is, not what it was given."""
    model, optimizer = made("Adam")
    train(model, optimizer)
    run = saved(model, optimizer)
    other, target = made("AdamW")
    theirs = optim.AdamW(Twins().parameters())
    theirs.load_state_dict(optimizer.state_dict())

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    assert target.param_groups[0]["decoupled_weight_decay"] is True
    assert theirs.param_groups[0]["decoupled_weight_decay"] is True


class Lookahead(optim.SGD):
    """An optimizer with state that `Optimizer` knows nothing of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slow = [torch.zeros(3)]

    def state_dict(self) -> Any:
        return {**super().state_dict(), "slow": self.slow}


class Proxy(optim.Optimizer):
    """An optimizer that hands all on to another one, and shows only a part of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def state_dict(self) -> Any:
        return self.inner.state_dict()


def test_optimizer_that_hides_state_is_refused() -> None:
    model, inner = made("Adam")
    train(model, inner)
    hiding = Lookahead(model.parameters(), lr=0.1)

    with pytest.raises(UnsupportedVariableError, match="'o': a Lookahead saves slow in a way of its own"):
        scan({"m": model, "o": hiding})
    with pytest.raises(UnsupportedVariableError, match="'o': a Proxy keeps its state in a way of its own"):
        scan({"m": model, "o": Proxy(inner)})


def test_optimizer_that_works_with_another_is_refused_unless_their_state_is_one() -> None:
    class Sharpness(optim.Optimizer):  # type: ignore[misc]
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"rho": 0.05})
            self.inner = [optim.SGD(self.param_groups, lr=0.1, momentum=0.9)]

    model = Twins()
    outer = Sharpness(model.parameters())

    with pytest.raises(UnsupportedVariableError, match="'o': a Sharpness keeps a SGD whose state it does not save"):
        scan({"m": model, "o": outer})

    outer.inner[0].state = outer.state
    scan({"m": model, "o": outer})


def test_optimizer_whose_hook_adds_to_its_state_is_refused() -> None:
    model, optimizer = made("SGD")
    optimizer.register_state_dict_post_hook(lambda _, found: found.update(seen=3))

    with pytest.raises(UnsupportedVariableError, match="'o': a SGD saves seen in a way of its own"):
        scan({"m": model, "o": optimizer})


def test_optimizer_at_two_places_is_refused() -> None:
    model, optimizer = made("Adam")
    state = {"m": model, "first": optimizer, "second": optimizer}
    assert {value.name for value in scan(state).values} == {"first", "second"}
    train(model, optimizer)

    with pytest.raises(UnsupportedVariableError, match="'second': is the same object as 'first'") as caught:
        holdfast.save_checkpoint(state, MemoryStore().at("run"))

    assert set(caught.value.reasons) == {"second"}


# Settings


@pytest.mark.parametrize("flag", ["foreach", "fused", "capturable", "differentiable"])
def test_way_of_computing_stays_that_of_the_target(flag: str) -> None:
    """A run that was on a GPU with capturable=True goes on without one, and a fused one where nothing is fused."""
    model, optimizer = made("AdamW")
    train(model, optimizer)
    optimizer.param_groups[0][flag] = True
    other, target = made("AdamW", **({flag: False} if flag != "capturable" else {}))
    before = target.param_groups[0][flag]

    holdfast.load_checkpoint({"m": other, "o": target}, saved(model, optimizer))

    assert target.param_groups[0][flag] == before
    optimizer.param_groups[0][flag] = before
    train(model, optimizer)
    train(other, target)
    assert weights(other) == weights(model)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_learning_rate_may_be_a_tensor_of_any_type(dtype: str, shape: tuple[int, ...]) -> None:
    def rate(value: float) -> Any:
        return torch.full(shape, value, dtype=getattr(torch, dtype))

    run = saved(*made("AdamW", lr=rate(0.25), foreach=False))
    other, target = made("AdamW", lr=(ours := rate(0.5)), foreach=False)
    holdfast.load_checkpoint({"m": other, "o": target}, run)
    assert target.param_groups[0]["lr"] is ours
    assert ours == rate(0.25)

    other, target = made("AdamW", lr=0.5)
    holdfast.load_checkpoint({"m": other, "o": target}, run)
    assert type(target.param_groups[0]["lr"]) is float
    assert target.param_groups[0]["lr"] == 0.25

    other, target = made("AdamW", lr=(ours := rate(0.5)), foreach=False)
    holdfast.load_checkpoint({"m": other, "o": target}, saved(*made("AdamW", lr=0.125)))
    assert ours == rate(0.125)


def test_tensors_within_a_setting_come_back() -> None:
    def betas(first: float) -> Any:
        return torch.tensor(first), torch.tensor(0.5)

    run = saved(*made("Adam", betas=betas(0.25), foreach=False))
    other, target = made("Adam", betas=(ours := betas(0.75)), foreach=False)

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    assert [beta.item() for beta in target.param_groups[0]["betas"]] == [0.25, 0.5]
    assert target.param_groups[0]["betas"][0] is ours[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({"lr": torch.zeros(3)}, {"lr": 0.5}, r"its lr has the shape \(3,\) in the checkpoint, and is a number"),
        ({"lr": torch.zeros(3)}, {"lr": torch.zeros(2)}, r"its lr has the shape \(3,\) in the checkpoint, \(2,\) in"),
        ({"lr": "fast"}, {"lr": torch.zeros(())}, "its lr is 'fast' in the checkpoint, and a tensor in the target"),
        ({"betas": (1, 2, 3)}, {"betas": (1, 2)}, "its betas has 3 parts in the checkpoint, 2 in the target"),
    ],
)
def test_setting_that_does_not_fit_changes_nothing(ours: Any, theirs: Any, words: str) -> None:
    model, optimizer = made("Adam")
    optimizer.param_groups[0].update(ours)
    other, target = made("Adam")
    target.param_groups[0].update(theirs)

    untouched(other, target, saved(model, optimizer), words)


# Groups, and parameters that are trained later


def test_group_that_was_added_later_comes_back() -> None:
    def start() -> tuple[Any, Any]:
        model = Twins()
        optimizer = optim.AdamW(model.b.parameters(), lr=0.1)
        train(model, optimizer)
        optimizer.add_param_group({"params": model.a.parameters(), "lr": 0.3})
        return model, optimizer

    model, optimizer = start()
    train(model, optimizer)
    run = saved(model, optimizer)
    train(model, optimizer)
    other, target = start()

    holdfast.load_checkpoint({"m": other, "o": target}, run)
    train(other, target)

    assert weights(other) == weights(model)
    assert [group["lr"] for group in target.param_groups] == [0.1, 0.3]


def test_group_that_is_not_there_yet_is_one_reason_and_no_more() -> None:
    model = Twins()
    one, both = optim.AdamW(model.a.parameters()), optim.AdamW(model.parameters())
    train(model, one)
    run = saved(model, one)

    untouched(model, both, run, "the checkpoint's optimizer knows nothing of m.b.weight, m.b.bias")
    train(model, both)
    untouched(model, one, saved(model, both), "the checkpoint's optimizer has m.b.weight, m.b.bias too")


@pytest.mark.parametrize("frozen", ["when saved", "when loaded"])
def test_parameters_that_are_frozen_and_unfrozen_go_on(frozen: str) -> None:
    model, optimizer = made("AdamW")
    model.a.requires_grad_(frozen == "when loaded")
    train(model, optimizer)
    run = saved(model, optimizer)
    other, target = made("AdamW")
    other.a.requires_grad_(frozen == "when saved")
    train(other, target)

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    for one in (model, other):
        one.requires_grad_(True)
    train(model, optimizer)
    train(other, target)
    assert weights(other) == weights(model)


# Casts, and what is skipped


def test_moments_are_cast_with_their_parameters() -> None:
    """A fresh optimizer of bfloat16 weights makes bfloat16 moments: float32 ones beside them stop its first step."""
    model, optimizer = made("AdamW")
    train(model, optimizer)
    run = saved(model, optimizer)
    other = Twins().bfloat16()
    target = optim.AdamW(other.parameters())

    with pytest.raises(MismatchError, match="'o.exp_avg.a.weight': the checkpoint has F32 .* the target expects BF16"):
        holdfast.load_checkpoint({"m": other, "o": target}, run)
    holdfast.load_checkpoint({"m": other, "o": target}, run, cast="allow")

    state = target.state[other.a.weight]
    assert {slot: str(tensor.dtype) for slot, tensor in state.items()} == {
        "step": "torch.float32", "exp_avg": "torch.bfloat16", "exp_avg_sq": "torch.bfloat16"}  # fmt: skip
    assert torch.equal(state["exp_avg"], optimizer.state[model.a.weight]["exp_avg"].bfloat16())
    train(other, target)


def test_moments_that_are_kept_in_another_type_stay_so() -> None:
    """What is float32 beside bfloat16 weights, as master copies are, is no cast."""
    model = Twins().bfloat16()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        optimizer.state[parameter]["master"] = parameter.detach().float() + 1e-5
    other = Twins().bfloat16()
    target = optim.SGD(other.parameters(), lr=0.1)

    holdfast.load_checkpoint({"m": other, "o": target}, saved(model, optimizer))

    assert torch.equal(target.state[other.a.weight]["master"], optimizer.state[model.a.weight]["master"])
    assert target.state[other.a.weight]["master"].dtype == torch.float32


def test_new_head_begins_anew_if_all_of_it_is_skipped() -> None:
    model, optimizer = made("AdamW")
    train(model, optimizer)
    run = saved(model, optimizer)
    other = Twins()
    other.b = nn.Linear(3, 5)
    target = optim.AdamW(other.parameters())

    with pytest.raises(MismatchError, match=r"'o.exp_avg.b.weight': the checkpoint has F32 \(3, 3\), .* \(5, 3\)"):
        holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["m.b.*"])
    holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["m.b.*", "o.*.b.*"])

    assert set(target.state) == set(other.a.parameters())
    train(other, target)


def test_slot_that_is_skipped_and_not_there_is_refused_by_name() -> None:
    model, optimizer = made("AdamW")
    train(model, optimizer)
    run = saved(model, optimizer)
    other, target = made("AdamW")

    untouched(other, target, run, "'o.exp_avg.a.weight': skip= leaves it alone", skip=["o.exp_avg.a.weight"])
    train(other, target)
    before = target.state[other.a.weight]["exp_avg"].clone()
    holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["o.exp_avg.a.weight"])

    assert torch.equal(target.state[other.a.weight]["exp_avg"], before)
    assert torch.equal(target.state[other.a.bias]["exp_avg"], optimizer.state[model.a.bias]["exp_avg"])
