"""What the peers get wrong most, in every framework: prefixes, tied weights, layers declared in another order (fault E10)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError
from holdfast.adapters.tree import scan
from spec.independent import read_checkpoint, read_folder


class Kit(NamedTuple):
    """A model of two layers of one shape, a and b, whose weights may be one; and its optimizer, in some framework."""

    model: Callable[..., Any]
    optimizer: Callable[[Any], Any]
    train: Callable[[Any, Any], None]
    weight: Callable[[Any, str], np.ndarray]
    moment: Callable[[Any, Any, str], np.ndarray]
    kernel: str


def torch_kit() -> Kit:
    torch = importlib.import_module("torch")

    class Twins(torch.nn.Module):
        def __init__(self, order: str = "ab", *, tied: bool = False, seed: int = 0) -> None:
            super().__init__()
            torch.manual_seed(seed)
            for name in order:
                setattr(self, name, torch.nn.Linear(3, 3))
            if tied:
                getattr(self, order[1]).weight = getattr(self, order[0]).weight

        def forward(self, x: Any) -> Any:
            return self.b(torch.tanh(self.a(x)))

    def train(model: Any, optimizer: Any) -> None:
        for _ in range(2):
            optimizer.zero_grad()
            (model(torch.linspace(-1, 1, 6).reshape(2, 3)) ** 2).sum().backward()
            optimizer.step()

    return Kit(
        Twins,
        lambda model: torch.optim.AdamW(model.parameters(), lr=0.05),
        train,
        lambda model, name: getattr(model, name).weight.detach().numpy().copy(),
        lambda model, optimizer, name: optimizer.state[getattr(model, name).weight]["exp_avg"].numpy().copy(),
        "weight",
    )


def nnx_kit() -> Kit:
    jnp, nnx, optax = map(importlib.import_module, ("jax.numpy", "flax.nnx", "optax"))

    class Twins(nnx.Module):
        def __init__(self, order: str = "ab", *, tied: bool = False, seed: int = 0) -> None:
            rngs = nnx.Rngs(seed)
            for name in order:
                setattr(self, name, nnx.Linear(3, 3, rngs=rngs))
            if tied:
                getattr(self, order[1]).kernel = getattr(self, order[0]).kernel

        def __call__(self, x: Any) -> Any:
            return self.b(jnp.tanh(self.a(x)))

    def train(model: Any, optimizer: Any) -> None:
        inputs = jnp.linspace(-1, 1, 6).reshape(2, 3)
        for _ in range(2):
            optimizer.update(model, nnx.grad(lambda model: (model(inputs) ** 2).sum())(model))

    def moment(_: Any, optimizer: Any, name: str) -> np.ndarray:
        return np.asarray(optimizer.opt_state[0].mu[name]["kernel"].get_value())

    return Kit(
        Twins,
        lambda model: nnx.Optimizer(model, optax.adamw(0.05), wrt=nnx.Param),
        train,
        lambda model, name: np.asarray(getattr(model, name).kernel.get_value()),
        moment,
        "kernel",
    )


def paddle_kit() -> Kit:
    paddle = importlib.import_module("paddle")

    class Twins(paddle.nn.Layer):
        def __init__(self, order: str = "ab", *, tied: bool = False, seed: int = 0) -> None:
            super().__init__()
            paddle.seed(seed)
            for name in order:
                setattr(self, name, paddle.nn.Linear(3, 3))
            if tied:
                getattr(self, order[1]).weight = getattr(self, order[0]).weight

        def forward(self, x: Any) -> Any:
            return self.b(paddle.tanh(self.a(x)))

    def train(model: Any, optimizer: Any) -> None:
        for _ in range(2):
            (model(paddle.linspace(-1, 1, 6).reshape([2, 3])) ** 2).sum().backward()
            optimizer.step()
            optimizer.clear_grad()

    def moment(model: Any, optimizer: Any, name: str) -> np.ndarray:
        found: np.ndarray = optimizer._accumulators["moment1"][getattr(model, name).weight.name].numpy()
        return found

    return Kit(
        Twins,
        lambda model: paddle.optimizer.AdamW(0.05, parameters=model.parameters()),
        train,
        lambda model, name: getattr(model, name).weight.numpy(),
        moment,
        "weight",
    )


KITS = {"torch": torch_kit, "nnx": nnx_kit, "paddle": paddle_kit}
NEEDED = {"torch": "torch", "nnx": "flax.nnx", "paddle": "paddle"}


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    pytest.importorskip(NEEDED[request.param], reason=f"{request.param} is not installed")
    if request.param == "nnx":
        pytest.importorskip("optax", reason="optax is not installed")
    return KITS[request.param]()


# Fault E10, and the order of layers


def test_e10_moments_follow_their_layer_in_another_order(kit: Kit) -> None:
    run = MemoryStore().at("run")
    model = kit.model()
    optimizer = kit.optimizer(model)
    kit.train(model, optimizer)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other = kit.model("ba", seed=1)
    target = kit.optimizer(other)

    holdfast.load_checkpoint({"optimizer": target, "model": other}, run)

    assert not np.array_equal(kit.moment(model, optimizer, "a"), kit.moment(model, optimizer, "b"))
    for name in "ab":
        assert np.array_equal(kit.weight(other, name), kit.weight(model, name))
        assert np.array_equal(kit.moment(other, target, name), kit.moment(model, optimizer, name))
    kit.train(model, optimizer)
    kit.train(other, target)
    assert all(np.array_equal(kit.weight(other, name), kit.weight(model, name)) for name in "ab")


def test_e10_is_what_torch_itself_does() -> None:
    """The fault that the others prove absent: a test that could not see it would prove nothing."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    kit = torch_kit()
    model, other = kit.model(), kit.model("ba", seed=1)
    optimizer, target = kit.optimizer(model), kit.optimizer(other)
    kit.train(model, optimizer)

    other.load_state_dict(model.state_dict())
    target.load_state_dict(optimizer.state_dict())

    assert np.array_equal(kit.moment(other, target, "a"), kit.moment(model, optimizer, "b"))
    assert not np.array_equal(kit.moment(other, target, "a"), kit.moment(model, optimizer, "a"))


def test_layer_order_does_not_matter_to_a_params_folder(kit: Kit, tmp_path: Path) -> None:
    model, other = kit.model(), kit.model("ba", seed=1)

    holdfast.save_params(model, tmp_path / "params")
    holdfast.load_params(other, tmp_path / "params")

    assert all(np.array_equal(kit.weight(other, name), kit.weight(model, name)) for name in "ab")


# Tied weights


@pytest.mark.parametrize("save", ["params", "checkpoint", "export", "persistables"])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_tied_weight_is_saved_once_and_loads_tied_or_untied(kit: Kit, tmp_path: Path, save: str, order: str) -> None:
    saved = kit.model(order, tied=True)
    folder = tmp_path / save
    if save == "params":
        holdfast.save_params(saved, folder)
    elif save == "persistables":
        holdfast.save_persistables(saved, folder)
    else:
        holdfast.save_checkpoint(saved, tmp_path / "run")
        if save == "export":
            holdfast.export(tmp_path / "run", folder)
        else:
            folder = tmp_path / "run"

    with holdfast.open(folder) as checkpoint:
        assert [name for name in checkpoint if name.endswith(kit.kernel)] == [
            f"{min(order) if kit.kernel == 'kernel' else order[0]}.{kit.kernel}"
        ]
    for target in (kit.model("ab", tied=True, seed=1), kit.model("ba", tied=True, seed=1), kit.model(seed=1)):
        holdfast.load_params(target, folder)
        assert np.array_equal(kit.weight(target, "a"), kit.weight(saved, "a"))
        assert np.array_equal(kit.weight(target, "b"), kit.weight(saved, "a"))


def test_tied_weight_is_noted_as_the_specification_says(kit: Kit, tmp_path: Path) -> None:
    holdfast.save_params(kit.model(tied=True), tmp_path / "tied")
    holdfast.save_params(kit.model(), tmp_path / "untied")

    tied = read_checkpoint(read_folder(tmp_path / "tied"), writer=True)
    untied = read_checkpoint(read_folder(tmp_path / "untied"), writer=True)

    assert tied.manifest["aliases"] == {f"b.{kit.kernel}": f"a.{kit.kernel}"}
    assert tied.manifest["version"] == [1, 0]
    assert "aliases" not in untied.manifest


def test_untied_weights_load_into_a_tie_only_if_they_are_equal(kit: Kit, tmp_path: Path) -> None:
    holdfast.save_params(kit.model(), tmp_path / "params")
    target = kit.model(tied=True, seed=1)
    before = kit.weight(target, "a")

    with pytest.raises(
        MismatchError, match=rf"'b\.{kit.kernel}' is the same array as 'a\.{kit.kernel}', but the"
    ) as caught:
        holdfast.load_params(target, tmp_path / "params")

    assert len(caught.value.problems) == 1
    assert np.array_equal(kit.weight(target, "a"), before)
    equal = kit.model(seed=2)
    first, second = f"a.{kit.kernel}", f"b.{kit.kernel}"
    holdfast.load_params(equal, tmp_path / "params", skip=["*.bias", second])
    moved = {first: second, second: "old"}
    holdfast.load_params(equal, tmp_path / "params", rename=moved, skip=["*.bias", first, "old"])
    assert np.array_equal(kit.weight(equal, "a"), kit.weight(equal, "b"))
    holdfast.save_params(equal, tmp_path / "params")
    holdfast.load_params(target, tmp_path / "params")
    assert np.array_equal(kit.weight(target, "a"), kit.weight(equal, "a"))


@pytest.mark.parametrize("equal", [True, False])
def test_tied_weight_loads_from_a_file_of_others_if_its_values_agree(equal: bool, tmp_path: Path) -> None:
    """Files of others have no digests, so the values themselves are compared."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    kit = torch_kit()
    model, target = kit.model(), kit.model(tied=True, seed=1)
    if equal:
        with torch.no_grad():
            model.b.weight.copy_(model.a.weight)
    safetensors.save_file(model.state_dict(), tmp_path / "others.safetensors")
    before = kit.weight(target, "a")

    if equal:
        holdfast.load_params(target, tmp_path / "others.safetensors")
    else:
        with pytest.raises(
            MismatchError, match=r"'b\.weight' is the same array as 'a\.weight', but the checkpoint has two"
        ):
            holdfast.load_params(target, tmp_path / "others.safetensors")

    assert np.array_equal(kit.weight(target, "b"), kit.weight(model, "a") if equal else before)


def test_tied_weight_in_another_order_keeps_its_moments(kit: Kit) -> None:
    run = MemoryStore().at("run")
    model = kit.model("ab", tied=True)
    optimizer = kit.optimizer(model)
    kit.train(model, optimizer)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other = kit.model("ba", tied=True, seed=1)
    target = kit.optimizer(other)

    holdfast.load_checkpoint({"model": other, "optimizer": target}, run)

    kit.train(model, optimizer)
    kit.train(other, target)
    assert np.array_equal(kit.weight(other, "a"), kit.weight(model, "a"))
    assert np.array_equal(kit.weight(other, "b"), kit.weight(other, "a"))


def test_chosen_second_name_is_found(kit: Kit, tmp_path: Path) -> None:
    saved, target = kit.model(tied=True), kit.model(seed=1)
    holdfast.save_params(saved, tmp_path / "params")
    before = kit.weight(target, "a")

    holdfast.load_vars(target, tmp_path / "params", vars=[f"b.{kit.kernel}"])

    assert np.array_equal(kit.weight(target, "b"), kit.weight(saved, "a"))
    assert np.array_equal(kit.weight(target, "a"), before)


def test_one_model_at_two_places_is_saved_once(kit: Kit) -> None:
    model = kit.model()
    run = MemoryStore().at("run")

    holdfast.save_checkpoint({"student": model, "teacher": model}, run)
    found = scan({"student": model, "teacher": model})
    student, teacher = kit.model(seed=1), kit.model(seed=2)
    holdfast.load_checkpoint({"student": student, "teacher": teacher}, run)

    assert all(item.variable.name.startswith("student.") for item in found.items)
    assert len(found.aliases) == len(found.items) == 4
    for name in "ab":
        assert np.array_equal(kit.weight(student, name), kit.weight(model, name))
        assert np.array_equal(kit.weight(teacher, name), kit.weight(model, name))


# Prefixes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrapped", ["saved", "loaded"])
def test_prefix_of_wrappers_is_on_neither_side(wrapped: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    checkpoint_wrapper = importlib.import_module("torch.distributed.algorithms._checkpoint.checkpoint_wrapper")
    kit = torch_kit()

    def wrap(model: Any) -> Any:
        model.a = checkpoint_wrapper.checkpoint_wrapper(torch.compile(model.a, backend="eager"))
        model.b = torch.compile(checkpoint_wrapper.checkpoint_wrapper(model.b), backend="eager")
        return torch.nn.DataParallel(torch.compile(model, backend="eager"))

    bare, other = kit.model(), kit.model(seed=1)
    saved, target = (wrap(bare), other) if wrapped == "saved" else (bare, wrap(other))
    optimizer, second = kit.optimizer(saved), kit.optimizer(target)
    kit.train(saved, optimizer)
    holdfast.save_checkpoint({"model": saved, "optimizer": optimizer}, tmp_path)

    holdfast.load_checkpoint({"model": target, "optimizer": second}, tmp_path)

    with holdfast.open(tmp_path) as checkpoint:
        assert {"model.a.weight", "model.b.bias", "optimizer.exp_avg.a.weight"} <= set(checkpoint)
        assert not any("module" in name or "_orig_mod" in name or "wrapped" in name for name in checkpoint)
    kit.train(saved, optimizer)
    kit.train(target, second)
    ours, theirs = (list(model.state_dict().values()) for model in (saved, target))
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_prefix_of_paddle_data_parallel_is_on_neither_side(tmp_path: Path) -> None:
    paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed")
    kit = paddle_kit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of there being one card
        saved = paddle.DataParallel(kit.model())
    other = kit.model(seed=1)

    holdfast.save_params(saved, tmp_path / "params")
    holdfast.load_params(other, tmp_path / "params")

    assert all(np.array_equal(kit.weight(other, name), kit.weight(saved._layers, name)) for name in "ab")
