"""Paddle optimizers and tensors in odd cases: what does not fit is refused before anything changes, and the rest goes on."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Paddle finds missing on this machine
    paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")
nn, optimizers = paddle.nn, paddle.optimizer

KINDS = sorted(
    name
    for name, kind in vars(optimizers).items()
    if isinstance(kind, type) and issubclass(kind, optimizers.Optimizer) and name not in ("Optimizer", "LBFGS")
)


class Twins(nn.Layer):
    """Two layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        paddle.seed(seed)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.b(paddle.tanh(self.a(x)))


def made(kind: str, seed: int = 0, **settings: Any) -> tuple[Any, Any]:
    model = Twins(seed)
    return model, getattr(optimizers, kind)(0.01, parameters=model.parameters(), **settings)


def train(model: Any, optimizer: Any, steps: int = 2) -> None:
    for _ in range(steps):
        (model(paddle.linspace(-1, 1, 6).reshape([2, 3])) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()


def weights(model: Any) -> list[Any]:
    return [parameter.numpy().tolist() for parameter in model.parameters()]


def saved(model: Any, optimizer: Any) -> Any:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"m": model, "o": optimizer}, run)
    return run


@pytest.mark.parametrize("used", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_goes_on_bit_for_bit(kind: str, used: int) -> None:
    model, optimizer = made(kind)
    train(model, optimizer)
    run = saved(model, optimizer)
    train(model, optimizer)
    other, target = made(kind, seed=1)
    train(other, target, used)

    holdfast.load_checkpoint({"m": other, "o": target}, run)
    train(other, target)

    assert weights(other) == weights(model)


@pytest.mark.parametrize(
    ("first", "second", "unknown"), [("Momentum", "Adam", "velocity"), ("Adam", "Momentum", "beta1_pow")]
)
@pytest.mark.parametrize("used", [0, 2], ids=["fresh", "used"])
def test_optimizer_of_another_kind_is_a_mismatch(first: str, second: str, unknown: str, used: int) -> None:
    model, optimizer = made(first)
    train(model, optimizer)
    run = saved(model, optimizer)
    other, target = made(second, seed=1)
    train(other, target, used)
    before = weights(other), {slot: sorted(held) for slot, held in target._accumulators.items() if held}

    with pytest.raises(
        MismatchError, match=f"'o': the checkpoint's optimizer is of another kind: it has {unknown}"
    ) as caught:
        holdfast.load_checkpoint({"m": other, "o": target}, run)

    assert len(caught.value.problems) == 1
    assert (weights(other), {slot: sorted(held) for slot, held in target._accumulators.items() if held}) == before
    train(other, target)


def test_optimizer_around_an_optimizer_is_refused_for_what_it_hides() -> None:
    model = Twins()
    look = paddle.incubate.LookAhead(optimizers.SGD(0.1, parameters=model.parameters()))
    train(model, look)

    with pytest.raises(
        UnsupportedVariableError, match="'o': a LookAhead keeps a part of its state apart .its inner_optim"
    ):
        scan({"m": model, "o": look})


def test_optimizer_at_two_places_is_refused() -> None:
    model, optimizer = made("Adam")
    train(model, optimizer)

    with pytest.raises(UnsupportedVariableError, match="'second': is the same object as 'first'"):
        scan({"m": model, "first": optimizer, "second": optimizer})


def test_new_head_begins_anew_if_all_of_it_is_skipped() -> None:
    model, optimizer = made("Adam")
    train(model, optimizer)
    run = saved(model, optimizer)
    other = Twins(1)
    other.b = nn.Linear(3, 5)
    target = optimizers.Adam(0.01, parameters=other.parameters())

    with pytest.raises(MismatchError, match=r"'o.moment1.b.weight': the checkpoint has F32 \(3, 2\), .* \(3, 5\)"):
        holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["m.b.*"])
    with pytest.raises(MismatchError, match=r"'o.moment1.a.weight': skip= leaves it alone"):
        holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["m.b.*", "o.*.b.*", "o.moment1.a.weight"])
    holdfast.load_checkpoint({"m": other, "o": target}, run, skip=["m.b.*", "o.*.b.*"])

    names = {parameter.name for parameter in other.a.parameters()}
    assert set(target._accumulators["moment1"]) == names
    train(other, target)


def test_moments_are_cast_to_what_the_optimizer_makes() -> None:
    model = Twins().to(dtype="float64")
    optimizer = optimizers.Adam(0.01, parameters=model.parameters())
    (model(paddle.ones([2, 3], "float64")) ** 2).sum().backward()
    optimizer.step()
    run = saved(model, optimizer)
    other, target = made("Adam", seed=1)

    with pytest.raises(MismatchError, match=r"'o.moment1.a.weight': the checkpoint has F64"):
        holdfast.load_checkpoint({"m": other, "o": target}, run)
    holdfast.load_checkpoint({"m": other, "o": target}, run, cast="allow")

    found = target._accumulators["moment1"][other.a.weight.name]
    expected = optimizer._accumulators["moment1"][model.a.weight.name].numpy().astype(np.float32)
    assert (found.numpy() == expected).all()
    train(other, target)


class Halves(nn.Layer):
    """Weights in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.w = self.create_parameter([3], dtype="bfloat16")
        self.v = self.create_parameter([2, 2], dtype="bfloat16")


def precise(value: float, *, multi_precision: bool = True) -> tuple[Any, Any]:
    """A model in bfloat16 and its optimizer after a step, all of whose state has one value; as if none had been if it is 0."""
    model = Halves()
    optimizer = optimizers.AdamW(0.01, parameters=model.parameters(), multi_precision=multi_precision)
    if value:
        # This machine's Paddle may not compute in bfloat16: what the step would make is made here.
        block = paddle.static.default_main_program().global_block()
        optimizer._create_accumulators(block, model.parameters())
        for held in (*optimizer._accumulators.values(), optimizer._master_weights):
            for number, tensor in enumerate(held.values()):
                tensor.set_value(paddle.full_like(tensor, value + number))
    return model, optimizer


def state_of(optimizer: Any) -> dict[str, Any]:
    held = {**optimizer._accumulators, "master": optimizer._master_weights}
    return {slot: [tensor.tolist() for tensor in tensors.values()] for slot, tensors in held.items() if tensors}


@pytest.mark.parametrize("used", [0.0, 7.0], ids=["fresh", "used"])
def test_moments_of_master_weights_are_saved_too(used: float) -> None:
    """Paddle keeps them under the names of the master weights, not of the parameters."""
    model, optimizer = precise(1.0)
    run = saved(model, optimizer)
    other, target = precise(used)

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    slots = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc", "master_weight")
    with holdfast.open(run) as checkpoint:
        names = {f"o.{slot}.{name}" for slot in slots for name in "wv"}
        assert set(checkpoint) == names | {"m.w", "m.v"}
    assert state_of(target) == state_of(optimizer)
    assert len(state_of(target)["moment1"]) == 2


@pytest.mark.parametrize("used", [0.0, 7.0], ids=["fresh", "used"])
def test_moments_without_master_weights_get_them_from_the_parameters(used: float) -> None:
    model, optimizer = precise(1.0, multi_precision=False)
    run = saved(model, optimizer)
    other, target = precise(used)

    holdfast.load_checkpoint({"m": other, "o": target}, run)

    found = state_of(target)
    assert found.pop("master") == [parameter.astype("float32").tolist() for parameter in (model.w, model.v)]
    assert found == state_of(optimizer)
    assert set(target._accumulators["moment1"]) == {master.name for master in target._master_weights.values()}


def test_master_weights_that_the_target_does_not_have_are_a_mismatch() -> None:
    run = saved(*precise(1.0))
    other, target = precise(0.0, multi_precision=False)

    with pytest.raises(
        MismatchError, match="'o': the checkpoint's optimizer is of another kind: it has master_weight for m.w"
    ):
        holdfast.load_checkpoint({"m": other, "o": target}, run)

    assert state_of(target) == {}


# Tensors


def test_gradients_of_what_was_overwritten_are_an_error() -> None:
    tensor = paddle.ones([3])
    tensor.stop_gradient = False
    product = (tensor * tensor).sum()
    state = {"x": tensor}
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)

    holdfast.load_checkpoint(state, run)

    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
        product.backward()


def test_tensor_without_elements_and_views_come_back() -> None:
    def state(fill: float) -> dict[str, Any]:
        flat = paddle.arange(6, dtype="float32") * fill
        return {"flat": flat, "matrix": flat.reshape([2, 3]), "empty": paddle.zeros([0, 3])}

    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state(1), run)
    target = state(0)

    holdfast.load_checkpoint(target, run)

    assert target["flat"].tolist() == [0, 1, 2, 3, 4, 5]
    assert target["matrix"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert target["empty"].shape == [0, 3]


def test_layer_of_a_static_program_is_refused_with_what_to_do() -> None:
    paddle.enable_static()
    try:
        with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
            layer = nn.Linear(3, 3)

            with pytest.raises(UnsupportedVariableError, match="put the program into the state instead"):
                scan({"layer": layer})
    finally:
        paddle.disable_static()
