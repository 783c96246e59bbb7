"""What PyTorch saved JAX loads under the same names, and back, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy


class Block(torch.nn.Module):
    """Linear layers in a list, a norm with statistics, one weight in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
        self.norm = torch.nn.BatchNorm1d(4)
        self.small = torch.nn.Parameter(torch.randn(3, 5).to(torch.bfloat16))


def tree(fill: Any) -> dict[str, Any]:
    """The same names as a JAX program has them."""
    linear = lambda: {"weight": fill((4, 4), jnp.float32), "bias": fill(4, jnp.float32)}  # noqa: E731
    norm = {name: fill(4, jnp.float32) for name in ("weight", "bias", "running_mean", "running_var")}
    counted = {"num_batches_tracked": fill((), jnp.int32)}
    return {"layers": [linear(), linear()], "norm": norm | counted, "small": fill((3, 5), jnp.bfloat16)}


def test_model_goes_from_torch_to_jax_and_back_bit_for_bit(tmp_path: Path) -> None:
    first, last = Block(), Block()
    first.norm.running_mean += 3
    first.norm.num_batches_tracked += 7
    first.norm.num_batches_tracked = first.norm.num_batches_tracked.to(torch.int32)  # JAX has no int64 by default
    last.norm.num_batches_tracked = last.norm.num_batches_tracked.to(torch.int32)
    weights = tree(jnp.zeros)

    holdfast.save_params(first, tmp_path / "torch")
    report = holdfast.load_params(weights, tmp_path / "torch")
    holdfast.save_params(weights, tmp_path / "jax")
    holdfast.load_params(last, tmp_path / "jax")

    assert {variable.name for variable in report.loaded} == set(first.state_dict())
    assert np.asarray(weights["layers"][1]["weight"]).tobytes() == first.layers[1].weight.detach().numpy().tobytes()
    for name, tensor in first.state_dict().items():
        loaded = last.state_dict()[name]
        assert torch.equal(loaded.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name


def test_resuming_state_of_both_in_one_program(tmp_path: Path) -> None:
    state = {"torch": torch.nn.Linear(2, 2), "jax": (jnp.ones(2), jax.random.key(1)), "numpy": np.ones(2)}
    target = {"torch": torch.nn.Linear(2, 2), "jax": (jnp.zeros(2), jax.random.key(0)), "numpy": np.zeros(2)}

    holdfast.save_checkpoint(state, tmp_path)
    holdfast.load_checkpoint(target, tmp_path)

    assert torch.equal(target["torch"].weight, state["torch"].weight)
    assert target["jax"][0].tolist() == target["numpy"].tolist() == [1, 1]
    assert jax.random.normal(target["jax"][1]) == jax.random.normal(state["jax"][1])
