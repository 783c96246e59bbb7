"""PyTorch tensors in a state: every type bit for bit and in place; what cannot be held is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CastError, MemoryStore, MismatchError, UnsupportedVariableError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64", "complex64", "bfloat16"]
SMALL = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]
TYPES = [getattr(torch, name) for name in (*INTEGERS, *FLOATS, *SMALL) if hasattr(torch, name)]


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


def bits(tensor: Any) -> bytes:
    """A tensor's bytes in row-major order."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def anything(dtype: Any, count: int = 24) -> Any:
    """A tensor with any bits."""
    made = np.random.default_rng(0).integers(0, 2 if dtype == torch.bool else 256, count * dtype.itemsize, np.uint8)
    return torch.from_numpy(made).view(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_comes_back_bit_for_bit_into_the_same_memory(dtype: Any) -> None:
    saved = {
        "flat": anything(dtype),
        "scalar": anything(dtype)[3],
        "empty": anything(dtype)[:0],
        "t": anything(dtype).reshape(2, 12).T,
    }
    blank = torch.zeros(24 * dtype.itemsize, dtype=torch.uint8).view(dtype)
    target = {"flat": blank.clone(), "scalar": blank[4].clone(), "empty": blank[:0], "t": blank.clone().reshape(12, 2)}
    places = {name: tensor.data_ptr() for name, tensor in target.items()}

    report = through(saved, target)

    assert {name: bits(tensor) for name, tensor in target.items()} == {name: bits(t) for name, t in saved.items()}
    assert {name: tensor.data_ptr() for name, tensor in target.items()} == places
    assert len(report.loaded) == 4


def test_strides_of_the_target_stay() -> None:
    memory = torch.zeros(4, 6)
    target = {"x": memory[::2, 1::2], "turned": torch.zeros(3, 2).T}

    through({"x": torch.arange(6.0).reshape(2, 3), "turned": torch.arange(6.0).reshape(2, 3)}, target)

    assert memory.sum() == 15
    assert target["turned"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not target["turned"].is_contiguous()


def test_expanded_tensor_is_saved_as_what_it_shows_and_refused_as_a_target() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"x": torch.ones(1).expand(4)}, run)
    target = {"x": torch.zeros(4)}

    holdfast.load_checkpoint(target, run)

    assert target["x"].tolist() == [1, 1, 1, 1]
    with pytest.raises(MismatchError, match="'x': the target's array overlaps itself; copy it first"):
        holdfast.load_checkpoint({"x": torch.zeros(1).expand(4)}, run)


def test_targets_that_overlap_are_refused() -> None:
    memory = torch.zeros(5)

    with pytest.raises(MismatchError, match="'b' shares memory with 'a', but the checkpoint has two values for them"):
        through({"a": torch.ones(4), "b": torch.arange(4.0)}, {"a": memory[:4], "b": memory[1:]})

    assert memory.tolist() == [0] * 5


def test_conjugated_view_is_saved_and_loaded_as_what_it_shows() -> None:
    target = {"x": torch.zeros(2, dtype=torch.complex64).conj()}

    through({"x": torch.tensor([1 + 2j, 3j], dtype=torch.complex64).conj()}, target)

    assert target["x"].tolist() == [1 - 2j, -3j]


def test_tensor_that_needs_gradients_is_saved_and_loaded() -> None:
    target = {"x": torch.zeros(2, requires_grad=True)}

    through({"x": torch.ones(2, requires_grad=True)}, target)

    assert target["x"].tolist() == [1, 1]
    assert target["x"].requires_grad


def test_one_tensor_at_two_places_is_stored_once(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    holdfast.save_checkpoint({"a": shared, "b": shared}, tmp_path)
    apart = {"a": torch.zeros(3), "b": torch.zeros(3)}
    together = torch.zeros(3)

    assert [v.name for v in holdfast.load_checkpoint(apart, tmp_path).loaded] == ["a", "b"]
    assert len(holdfast.load_checkpoint({"b": together, "a": together}, tmp_path).loaded) == 1
    assert apart["a"].tolist() == apart["b"].tolist() == together.tolist() == [0, 1, 2]
    with holdfast.open(tmp_path) as checkpoint:
        assert list(checkpoint) == ["a"]


def test_tensors_that_were_apart_load_into_one_only_if_they_are_equal() -> None:
    together = torch.zeros(3)

    through({"a": torch.ones(3), "b": torch.ones(3)}, {"a": together, "b": together})
    assert together.tolist() == [1, 1, 1]

    with pytest.raises(MismatchError, match="'b' is the same array as 'a', but the checkpoint has two values for them"):
        through({"a": torch.ones(3), "b": torch.zeros(3)}, {"a": together, "b": together})


def test_casts_follow_the_rules_of_the_core() -> None:
    state = {"x": torch.tensor([1.5, 70000.0])}

    with pytest.raises(MismatchError, match='cast="allow" converts it'):
        through(state, {"x": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(CastError, match="'x': 70000.0 does not fit"):
        through(state, {"x": torch.zeros(2, dtype=torch.float16)}, cast="allow")
    target = {"x": torch.zeros(2, dtype=torch.bfloat16)}
    through(state, target, cast="allow")
    assert target["x"].tolist() == [1.5, 70144.0]
    wide = {"x": torch.zeros(2, dtype=torch.float64)}
    through(state, wide, cast="widen")
    assert wide["x"].tolist() == [1.5, 70000.0]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_no_checkpoint_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    state = {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "double": torch.zeros(2, dtype=torch.complex128),
        "half": torch.zeros(2, dtype=torch.complex32),
        "nibbles": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "onednn": torch.ones(3, 3).to_mkldnn(),
        "zero": torch._efficientzerotensor((3,)),
        "fake": FakeTensorMode().from_tensor(torch.ones(2)),
        "fine": torch.zeros(2),
    }

    with pytest.raises(UnsupportedVariableError) as caught:
        holdfast.save_checkpoint(state, tmp_path / "run")

    assert set(caught.value.reasons) == set(state) - {"fine"}
    assert "sparse tensor (torch.sparse_coo)" in caught.value.reasons["sparse"]
    assert "quantized tensor" in caught.value.reasons["quantized"]
    assert "nested tensor" in caught.value.reasons["nested"]
    assert "oneDNN's own layout" in caught.value.reasons["onednn"]
    assert "without memory" in caught.value.reasons["zero"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("transform", [torch.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())])
def test_tensor_of_a_transformed_function_is_refused(transform: Any) -> None:
    reasons: list[Any] = []

    def inside(x: Any) -> Any:
        with pytest.raises(UnsupportedVariableError) as caught:
            holdfast.save_checkpoint({"x": x}, MemoryStore().at("run"))
        reasons.append(caught.value.reasons["x"])
        return x

    transform(inside)(torch.ones(2))

    assert "is part of a computation of torch.func" in reasons[0]


def test_buffer_and_weights_that_are_views_of_it_come_back() -> None:
    """What a state was saved from it can be loaded into: a flat buffer of gradients or of weights, and the views in it."""

    def state(fill: float) -> dict[str, Any]:
        flat = torch.arange(20.0) * fill
        model = torch.nn.Linear(4, 3)
        model.weight.data, model.bias.data = flat[2:14].view(3, 4), flat[14:17]
        return {"model": model, "flat": flat, "turned": model.weight.detach().t()}

    saved, target = state(1), state(0)
    places = [target["model"].weight.data_ptr(), target["flat"].data_ptr()]

    through(saved, target)

    assert torch.equal(target["flat"], saved["flat"])
    assert torch.equal(target["model"].weight, saved["model"].weight)
    assert [target["model"].weight.data_ptr(), target["flat"].data_ptr()] == places


@pytest.mark.parametrize("kind", ["tensor", "parameter", "buffer"])
def test_gradients_of_what_was_overwritten_are_an_error(kind: str) -> None:
    """PyTorch says so of every change in place: values that were computed from the old ones have wrong gradients."""
    module = torch.nn.BatchNorm1d(3)
    held = {"tensor": torch.ones(3), "parameter": module.weight, "buffer": module.running_var}[kind]
    other = torch.ones(3, requires_grad=True)
    product = (held * other).sum()
    state: Any = {"x": held} if kind == "tensor" else {"x": module}

    through(state, state)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_tensors_of_inference_mode_are_loaded() -> None:
    with torch.inference_mode():
        target = {"x": torch.zeros(2)}

    through({"x": torch.ones(2)}, target)

    assert target["x"].tolist() == [1, 1]


def test_generators_go_on_where_they_were() -> None:
    saved, target = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    torch.randn(3, generator=saved)

    through({"g": saved}, {"g": target})

    assert torch.equal(torch.randn(20, generator=saved), torch.randn(20, generator=target))


@pytest.mark.parametrize("content", ["", "AAAA", "not base64", 3, None])
def test_state_that_no_generator_can_have_changes_none(content: Any) -> None:
    from holdfast.adapters.tree import scan
    from holdfast.format.values import Tagged

    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    (value,) = scan({"g": generator}).values

    assert "does not fit" in value.problem(Tagged("$random", ["torch.Generator", ["cpu", content]]))
    assert value.problem(Tagged("$random", ["random.Random", []]))
    assert value.problem(Tagged("$random", ["torch.Generator", ["cuda", content]]))
    assert value.problem(3)
    assert torch.equal(generator.get_state(), before)


def test_global_generators_of_all_libraries_go_on_where_they_were() -> None:
    import random

    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"random": holdfast.global_random()}, run)
    drawn = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    report = holdfast.load_checkpoint({"random": holdfast.global_random()}, run)

    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == drawn
    assert {"random.python", "random.numpy", "random.torch"} <= set(report.values)
