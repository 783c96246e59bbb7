"""The adapters for other benchmarks do what their interface asks, through the public calls."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

ADAPTERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "holdfast_files.py"
FRAMEWORKS = {
    "": None,
    "Torch": ("torch", lambda torch: torch.from_numpy),
    "Jax": ("jax", lambda jax: jax.numpy.array),
    "Paddle": ("paddle", lambda paddle: paddle.to_tensor),
}


@pytest.fixture
def adapters(monkeypatch) -> types.ModuleType:
    """The module, loaded where a package `adapters` has the base class."""
    package = types.ModuleType("adapters")
    package.Adapter = type("Adapter", (), {})
    monkeypatch.setitem(sys.modules, "adapters", package)
    spec = importlib.util.spec_from_file_location("holdfast_files", ADAPTERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=list(FRAMEWORKS))
def framework(request) -> tuple:
    """Its part of a class's name, and its function that makes an array of NumPy's."""
    if FRAMEWORKS[request.param] is None:
        return request.param, lambda array: array
    module, maker = FRAMEWORKS[request.param]
    return request.param, maker(pytest.importorskip(module))


def values(state):
    """What is in a state, to compare."""
    return {name: np.asarray(array).tolist() for name, array in state.items()}


@pytest.mark.parametrize("kind", ["Params", "Run"])
def test_what_is_saved_comes_back_in_every_way(adapters, framework, kind, tmp_path):
    prefix, make = framework
    adapter, path = getattr(adapters, prefix + kind)(), str(tmp_path / "checkpoint")
    arrays = {f"layer.{i}": np.full((3, 5), i, np.float32) for i in range(4)} | {"step": np.array(7, np.float32)}
    target = {name: make(np.zeros_like(array)) for name, array in arrays.items()}

    adapter.save({name: make(np.zeros_like(array)) for name, array in arrays.items()}, path)
    adapter.save({name: make(array) for name, array in arrays.items()}, path)  # over an earlier one
    adapter.load_into(path, target)

    for loaded in (target, adapter.load(path)):
        assert values(loaded) == values(arrays)
        assert {type(array) for array in loaded.values()} == {type(make(np.zeros(1)))}
    assert np.array_equal(np.asarray(adapter.load_one(path, "layer.2")), arrays["layer.2"])
    assert dict(adapter.names(path)) == {name: array.shape for name, array in arrays.items()}


def test_one_of_them_verifies_and_the_other_does_not(adapters, tmp_path):
    path, state = tmp_path / "checkpoint", {"a": np.arange(8.0)}
    adapters.Params().save(state, path)
    (file,) = path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    adapters.ParamsUnverified().load(path)
    with pytest.raises(adapters.Params().lib.CorruptCheckpointError):
        adapters.Params().load(path)


def test_a_save_beside_training_has_the_state_at_the_call(adapters, framework, tmp_path):
    prefix, make = framework
    adapter = getattr(adapters, f"{prefix}Run")()
    arrays = {f"layer.{i}": np.full((256, 256), i, np.float32) for i in range(8)}
    state = {name: make(array.copy()) for name, array in arrays.items()}
    adapter.save(state, str(tmp_path / "first"))

    for number in range(2):
        path = str(tmp_path / f"background-{number}")
        handle = adapter.save_async(state, path)
        for name in state:
            state[name] += 1
        handle.wait()
        assert values(adapter.load(path)) == {name: (array + number).tolist() for name, array in arrays.items()}
    adapter.close()


def test_the_next_save_writes_what_has_changed(adapters, framework, tmp_path):
    prefix, make = framework
    adapter = getattr(adapters, f"{prefix}Run")()
    state = {f"layer.{i}": make(np.full((512, 1024), i, np.float32)) for i in range(12)}  # 24 MiB: it is cut
    first, second = str(tmp_path / "first"), str(tmp_path / "second")

    adapter.save(state, first)
    before = {path.stat().st_ino for path in tmp_path.rglob("*")}
    state["layer.3"] = state["layer.3"] + 1
    adapter.save_next(state, second, first)

    written = {p.stat().st_ino: p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()}
    assert sum(size for inode, size in written.items() if inode not in before) < 3 << 20
    assert values(adapter.load(second)) == values(state)
    assert float(np.asarray(adapter.load_one(first, "layer.3")).max()) == 3
    adapter.close()
