"""The adapter for other benchmarks does what their interface asks, through the public calls."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ADAPTER = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "holdfast_core.py"


@pytest.fixture
def adapters(monkeypatch) -> types.ModuleType:
    """The module, loaded where a package `adapters` has the base class."""
    package = types.ModuleType("adapters")
    package.Adapter = type("Adapter", (), {})
    monkeypatch.setitem(sys.modules, "adapters", package)
    spec = importlib.util.spec_from_file_location("holdfast_core", ADAPTER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["Holdfast", "HoldfastUnverified"])
def test_what_is_saved_comes_back_in_every_way(adapters, name, tmp_path):
    adapter, path = getattr(adapters, name)(), str(tmp_path / "checkpoint")
    state = {f"layer.{i}": np.full((3, 5), i, np.float32) for i in range(4)}
    target = {name: np.zeros_like(array) for name, array in state.items()}

    adapter.save({name: array * 0 for name, array in state.items()}, path)
    adapter.save(state, path)  # over an earlier one, as the interface says
    adapter.load_into(path, target)

    for loaded in (target, adapter.load(path)):
        assert {name: array.tolist() for name, array in loaded.items()} == {n: a.tolist() for n, a in state.items()}
    assert np.array_equal(adapter.load_one(path, "layer.2"), state["layer.2"])
    assert [(name, tuple(shape)) for name, shape in adapter.names(path)] == [(n, a.shape) for n, a in state.items()]


def test_one_of_them_verifies_and_the_other_does_not(adapters, tmp_path):
    path, state = tmp_path / "checkpoint", {"a": np.arange(8.0)}
    adapters.Holdfast().save(state, path)
    (file,) = path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    adapters.HoldfastUnverified().load(path)
    with pytest.raises(adapters.Holdfast().lib.CorruptCheckpointError):
        adapters.Holdfast().load(path)
