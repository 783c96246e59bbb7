"""Modules and optimizers that are wrapped for many devices, in one process: what they hold is found, and goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import MemoryStore, UnsupportedVariableError
from holdfast.adapters.tree import scan

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn, optim = torch.nn, torch.optim
pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.filterwarnings("ignore")]


class Net(nn.Module):
    """Two layers, and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x: Any) -> Any:
        self.count += 1
        return self.b(torch.tanh(self.a(x)))


INPUTS = torch.linspace(-1, 1, 6).reshape(2, 3)
NAMES = {f"{layer}.{kind}" for layer in "ab" for kind in ("weight", "bias")}


def train(model: Any, optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model(INPUTS) ** 2).sum().backward()
        optimizer.step()


def weights(model: Any) -> list[Any]:
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach().tolist() for p in model.parameters()]


def adam(model: Any) -> Any:
    return optim.AdamW(model.parameters(), lr=0.1)


def bare(model: Any) -> Any:
    return model


def whole(model: Any) -> Any:
    """FSDP2 around all of it."""
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model)


def by_layer(model: Any) -> Any:
    """FSDP2 around every layer and all of it, compiled."""
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.a)
    fully_shard(model.b)
    return torch.compile(fully_shard(model), backend="eager")


def flat(model: Any) -> Any:
    """FSDP1 around every layer and all of it."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    def wrap(module: Any) -> Any:
        return FullyShardedDataParallel(module, use_orig_params=True, device_id=torch.device("cpu"))

    model.a, model.b = wrap(model.a), wrap(torch.compile(model.b, backend="eager"))
    return wrap(model)


def by_columns(model: Any) -> Any:
    """Tensor parallelism."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    return parallelize_module(model, init_device_mesh("cpu", (1,)), {"a": ColwiseParallel(), "b": RowwiseParallel()})


WRAPS = {"fsdp2": whole, "fsdp2 by layer": by_layer, "fsdp1": flat, "tensor parallel": by_columns,
         "ddp": lambda model: nn.parallel.DistributedDataParallel(model)}  # fmt: skip


@pytest.mark.parametrize("used", [0, 1], ids=["fresh", "used"])
@pytest.mark.parametrize("target", ["wrapped", "bare"])
@pytest.mark.parametrize("name", WRAPS)
def test_wrapped_training_goes_on(name: str, target: str, used: int) -> None:
    run = MemoryStore().at("run")
    model = WRAPS[name](Net())
    optimizer = adam(model)
    train(model, optimizer, 2)
    holdfast.save_checkpoint({"m": model, "o": optimizer}, run)
    train(model, optimizer, 2)
    other = (WRAPS[name] if target == "wrapped" else bare)(Net())
    second = adam(other)
    train(other, second, used)

    holdfast.load_checkpoint({"m": other, "o": second}, run)
    train(other, second, 2)

    assert weights(other) == weights(model)
    with holdfast.open(run) as checkpoint:
        moments = {f"o.{slot}.{key}" for slot in ("step", "exp_avg", "exp_avg_sq") for key in NAMES}
        assert set(checkpoint) == {f"m.{key}" for key in NAMES} | {"m.count"} | moments


def test_fully_sharded_weights_are_saved_as_they_are_kept_not_as_they_are_computed_with() -> None:
    """After a forward pass the weights that stand in the module are copies in bfloat16, which nobody keeps."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    run = MemoryStore().at("run")
    model, other = fully_shard(Net(), mp_policy=MixedPrecisionPolicy(torch.bfloat16)), Net()
    optimizer = adam(model)
    with torch.no_grad():
        model(INPUTS)
    assert model.a.weight.dtype == torch.bfloat16

    holdfast.save_checkpoint({"m": model, "o": optimizer}, run)
    holdfast.load_checkpoint({"m": other, "o": adam(other)}, run)
    assert weights(other) == weights(model)

    with torch.no_grad():
        model(INPUTS)
    third, folder = Net(), MemoryStore().at("model")
    holdfast.save_params(third, folder)
    holdfast.load_params(model, folder)
    assert weights(model) == weights(third)


def test_fully_sharded_module_without_memory_gets_it_with_the_load() -> None:
    from torch.distributed.fsdp import fully_shard

    run = MemoryStore().at("run")
    saved = Net()
    holdfast.save_params(saved, run)
    with torch.device("meta"):
        target = Net()
    fully_shard(target.a)
    fully_shard(target)
    optimizer, plain = adam(target), adam(saved)

    holdfast.load_params(target, run)

    assert not target.a.weight.is_meta
    train(target, optimizer, 2)
    train(saved, plain, 2)
    assert weights(target) == weights(saved)


# Optimizers around optimizers


def zero(model: Any) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(model.parameters(), optimizer_class=optim.AdamW, lr=0.1)


@pytest.mark.parametrize(("first", "second"), [(zero, zero), (zero, adam), (adam, zero)])
def test_zero_redundancy_optimizer_has_the_state_of_the_one_inside(first: Callable, second: Callable) -> None:
    run = MemoryStore().at("run")
    model, other = Net(), Net()
    optimizer, target = first(model), second(other)
    train(model, optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.05
    holdfast.save_checkpoint({"m": model, "o": optimizer}, run)
    train(model, optimizer, 2)

    holdfast.load_checkpoint({"m": other, "o": target}, run)
    train(other, target, 2)

    assert weights(other) == weights(model)
    assert target.param_groups[0]["lr"] == 0.05


def test_optimizer_that_averages_now_and_then_is_refused_for_what_it_hides() -> None:
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer

    model = Net()
    optimizer = PostLocalSGDOptimizer(adam(model), PeriodicModelAverager(2))

    with pytest.raises(UnsupportedVariableError, match="'o': a PostLocalSGDOptimizer saves step in a way of its own"):
        scan({"m": model, "o": optimizer})


def test_flattened_parameters_are_refused_by_name() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(Net(), device_id=torch.device("cpu"))

    with pytest.raises(UnsupportedVariableError, match="'m': an FSDP module whose parameters are flattened"):
        scan({"m": model, "o": adam(model)})
