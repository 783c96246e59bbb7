"""PyTorch optimizers and what belongs to them: each goes on bit for bit, by names and never by positions."""

from __future__ import annotations

from typing import Any

import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, optim = torch.nn, torch.optim

OPTIMIZERS = sorted(
    name
    for name, kind in vars(optim).items()
    if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
)


class Twins(nn.Module):
    """Two layers of one shape, declared in either order."""

    def __init__(self, order: str = "ab", bias: bool = True) -> None:
        super().__init__()
        for name in order:
            setattr(self, name, nn.Linear(3, 3, bias=bias))

    def forward(self, x: Any) -> Any:
        return self.b(torch.tanh(self.a(x)))


def made(name: str, seed: int, order: str = "ab") -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model = nn.Embedding(5, 3, sparse=True) if name == "SparseAdam" else Twins(order, bias=name != "Muon")
    return model, getattr(optim, name)(model.parameters(), lr=0.05)


def train(model: Any, optimizer: Any, steps: int) -> None:
    inputs = torch.tensor([0, 3]) if isinstance(model, nn.Embedding) else torch.linspace(-1, 1, 6).reshape(2, 3)
    for _ in range(steps):

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (model(inputs) ** 2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)


def weights(model: Any) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("used", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(name: str, used: int) -> None:
    run = MemoryStore().at("run")
    model, optimizer = made(name, 0)
    train(model, optimizer, 3)
    holdfast.save_checkpoint({"optimizer": optimizer, "model": model}, run)
    train(model, optimizer, 3)
    other, target = made(name, 1)
    train(other, target, used)

    holdfast.load_checkpoint({"optimizer": target, "model": other}, run)
    train(other, target, 3)

    assert weights(other) == weights(model)


def test_state_follows_the_name_when_layers_are_declared_in_another_order() -> None:
    """Fault E10: torch.optim counts parameters, and swaps the moments of two layers of one shape in silence."""
    run = MemoryStore().at("run")
    model, optimizer = made("AdamW", 0)
    train(model, optimizer, 3)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other, target = made("AdamW", 1, order="ba")

    holdfast.load_checkpoint({"model": other, "optimizer": target}, run)

    assert not torch.equal(optimizer.state[model.a.weight]["exp_avg"], optimizer.state[model.b.weight]["exp_avg"])
    for layer in "ab":
        saved, loaded = optimizer.state[getattr(model, layer).weight], target.state[getattr(other, layer).weight]
        assert torch.equal(saved["exp_avg"], loaded["exp_avg"])
        assert torch.equal(saved["exp_avg_sq"], loaded["exp_avg_sq"])
    train(model, optimizer, 3)
    train(other, target, 3)
    assert weights(other) == weights(model)


def test_variables_are_named_by_slot_and_parameter() -> None:
    run = MemoryStore().at("run")
    model, optimizer = made("Adam", 0)
    train(model, optimizer, 1)

    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)

    with holdfast.open(run) as checkpoint:
        held = checkpoint.variables
    assert {"optimizer.exp_avg.a.weight", "optimizer.exp_avg_sq.b.bias", "optimizer.step.a.weight"} <= set(held)
    assert {held[name].kind for name in held if name.startswith("optimizer")} == {"persistable"}


def test_state_that_exists_is_loaded_into_the_same_memory() -> None:
    run = MemoryStore().at("run")
    model, optimizer = made("Adam", 0)
    train(model, optimizer, 2)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    kept = optimizer.state[model.a.weight]["exp_avg"]
    before, place = kept.clone(), kept.data_ptr()
    train(model, optimizer, 2)

    holdfast.load_checkpoint({"model": model, "optimizer": optimizer}, run)

    assert optimizer.state[model.a.weight]["exp_avg"] is kept
    assert kept.data_ptr() == place
    assert torch.equal(kept, before)


def test_optimizer_that_had_no_state_yet_has_none_again() -> None:
    run = MemoryStore().at("run")
    model, optimizer = made("Adam", 0)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    train(model, optimizer, 2)

    holdfast.load_checkpoint({"model": model, "optimizer": optimizer}, run)

    assert not optimizer.state


def grouped(seed: int, *, turned: bool = False) -> tuple[Any, Any]:
    model = made("Adam", seed)[0]
    groups = [
        {"params": [model.a.weight, model.a.bias], "lr": 0.1, "weight_decay": 0.5},
        {"params": [model.b.weight, model.b.bias], "lr": 0.01 * (seed + 1)},
    ]
    return model, optim.AdamW(groups[::-1] if turned else groups)


def test_groups_are_matched_by_their_parameters_not_by_their_order() -> None:
    run = MemoryStore().at("run")
    model, optimizer = grouped(0)
    optimizer.param_groups[0]["initial_lr"] = 0.7
    train(model, optimizer, 2)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other, target = grouped(1, turned=True)

    holdfast.load_checkpoint({"model": other, "optimizer": target}, run)

    assert [group["lr"] for group in target.param_groups] == [0.01, 0.1]
    assert [group["weight_decay"] for group in target.param_groups] == [0.01, 0.5]
    assert target.param_groups[1]["initial_lr"] == 0.7
    train(model, optimizer, 2)
    train(other, target, 2)
    assert weights(other) == weights(model)


def test_group_that_was_two_with_different_settings_is_a_mismatch() -> None:
    run = MemoryStore().at("run")
    model, optimizer = grouped(0)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    target = optim.AdamW(model.parameters(), lr=3.0)

    with pytest.raises(MismatchError, match="are in one group of the target"):
        holdfast.load_checkpoint({"model": model, "optimizer": target}, run)

    assert target.param_groups[0]["lr"] == 3.0


def test_optimizer_of_other_parameters_is_a_mismatch() -> None:
    run = MemoryStore().at("run")
    model = Twins()
    some = optim.SGD(model.a.parameters(), lr=0.1)
    holdfast.save_checkpoint({"model": model, "optimizer": some}, run)

    with pytest.raises(MismatchError, match=r"optimizer knows nothing of model\.b\.weight, model\.b\.bias"):
        holdfast.load_checkpoint({"model": model, "optimizer": optim.SGD(model.parameters(), lr=0.1)}, run)
    holdfast.save_checkpoint({"model": model, "optimizer": optim.SGD(model.parameters(), lr=0.1)}, run)
    with pytest.raises(MismatchError, match=r"optimizer has model\.a\.weight, model\.a\.bias too"):
        holdfast.load_checkpoint({"model": model, "optimizer": optim.SGD(model.b.parameters(), lr=0.1)}, run)


def test_renaming_a_layer_renames_its_moments() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    run = MemoryStore().at("run")
    model, optimizer = made("Adam", 0)
    train(model, optimizer, 2)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other = Renamed()
    target = optim.Adam(other.parameters())

    holdfast.load_checkpoint({"model": other, "optimizer": target}, run, rename={"model.a.": "model.first."})

    assert torch.equal(target.state[other.first.weight]["exp_avg"], optimizer.state[model.a.weight]["exp_avg"])
    assert torch.equal(target.state[other.b.weight]["exp_avg"], optimizer.state[model.b.weight]["exp_avg"])


def test_parameters_of_two_modules_have_their_full_names() -> None:
    run = MemoryStore().at("run")
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1, momentum=0.9)
    (one(torch.ones(1, 2)) + two(torch.ones(1, 2))).sum().backward()
    optimizer.step()

    holdfast.save_checkpoint({"one": one, "two": two, "o": optimizer}, run)

    with holdfast.open(run) as checkpoint:
        assert {"o.momentum_buffer.one.weight", "o.momentum_buffer.two.weight"} <= set(checkpoint)


def test_optimizer_whose_model_is_not_in_the_state_is_refused() -> None:
    optimizer = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.1)

    with pytest.raises(UnsupportedVariableError, match="put the module that has it into the state") as caught:
        holdfast.save_checkpoint({"optimizer": optimizer}, MemoryStore().at("run"))

    assert set(caught.value.reasons) == {"optimizer.param_groups.0.params.0", "optimizer.param_groups.0.params.1"}


def test_learning_rate_that_is_a_tensor_stays_one() -> None:
    run = MemoryStore().at("run")
    model = nn.Linear(2, 2)
    rate = torch.tensor(0.25)
    holdfast.save_checkpoint({"m": model, "o": optim.Adam(model.parameters(), lr=torch.tensor(0.5))}, run)

    optimizer = optim.Adam(model.parameters(), lr=rate)
    holdfast.load_checkpoint({"m": model, "o": optimizer}, run)

    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 0.5
    plain = optim.Adam(model.parameters(), lr=1.0)
    holdfast.load_checkpoint({"m": model, "o": plain}, run)
    assert plain.param_groups[0]["lr"] == 0.5


def test_vector_of_all_parameters_is_refused_in_another_order() -> None:
    run = MemoryStore().at("run")
    model, optimizer = made("LBFGS", 0)
    train(model, optimizer, 1)
    holdfast.save_checkpoint({"model": model, "optimizer": optimizer}, run)
    other, target = made("LBFGS", 1, order="ba")

    with pytest.raises(MismatchError, match="L-BFGS keeps all parameters in one vector"):
        holdfast.load_checkpoint({"model": other, "optimizer": target}, run)


@pytest.mark.parametrize(
    "content", [3, {}, {"param_groups": 1, "state": {}}, {"param_groups": [{"params": [1]}], "state": {}},
                {"param_groups": [], "state": {"a": 1}}, {"param_groups": [{}], "state": {}}],
)  # fmt: skip
def test_value_that_is_no_optimizer_changes_none(content: Any) -> None:
    from holdfast.adapters.tree import scan

    model = nn.Linear(2, 2)
    values = {value.name: value for value in scan({"m": model, "o": optim.SGD(model.parameters(), lr=0.1)}).values}

    local, moved = values["o"].localize(content, lambda name: name)  # type: ignore[misc]

    assert values["o"].problem(local)
    assert moved == {}


# Schedulers and the like

SCHEDULERS = {
    "StepLR": lambda s, o: s.StepLR(o, 2),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=50),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o), s.ExponentialLR(o, 0.9)], [2]),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o), s.ExponentialLR(o, 0.9)]),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 9),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 3]),
    "SWALR": lambda s, o: optim.swa_utils.SWALR(o, 0.01),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in", "ignore:.*deprecated.*:UserWarning")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on(name: str) -> None:
    def start() -> dict[str, Any]:
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {"scheduler": SCHEDULERS[name](optim.lr_scheduler, optimizer), "model": model, "optimizer": optimizer}

    def rates(state: dict[str, Any], steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            state["optimizer"].step()
            state["scheduler"].step(*([1.0] if name == "ReduceLROnPlateau" else []))
            found.append(state["optimizer"].param_groups[0]["lr"])
        return found

    run = MemoryStore().at("run")
    state, other = start(), start()
    rates(state, 3)
    holdfast.save_checkpoint(state, run)

    holdfast.load_checkpoint(other, run)

    assert rates(other, 5) == rates(state, 5)


def test_scaler_goes_on() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"s": torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=7)}, run)
    scaler = torch.amp.GradScaler("cpu")

    holdfast.load_checkpoint({"s": scaler}, run)

    assert scaler.get_scale() == 4.0
    assert scaler.get_growth_interval() == 7


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_data_loader_goes_on_in_the_same_order() -> None:
    data = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loader(seed: int) -> Any:
        return data.StatefulDataLoader(
            range(20), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(seed)
        )

    run = MemoryStore().at("run")
    saved, target = loader(1), loader(2)
    batches = iter(saved)
    for _ in range(3):
        next(batches)
    holdfast.save_checkpoint({"data": saved}, run)

    holdfast.load_checkpoint({"data": target}, run)

    assert [batch.tolist() for batch in target] == [batch.tolist() for batch in batches]
