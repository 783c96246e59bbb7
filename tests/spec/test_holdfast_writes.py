"""What Holdfast writes is what docs/format.md says: read back by the independent reader and by the official safetensors."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings, strategies as st

import holdfast
from holdfast import saving
from spec.independent import BLOCK, SpecCheckpoint, read_checkpoint, read_folder
from spec.states import every_dtype, every_kind_of_value, every_value, flat, little
from spec.typed import DTYPES, Random

# The official package knows the others too, but NumPy alone has no type for them.
OFFICIAL = {tag: dtype for tag, dtype in DTYPES.items() if not tag.startswith(("F8", "BF"))}


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down; NaN equals NaN, and -0.0 does not equal 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        # A NaN inside of JSON keeps no payload.
        return a.dtype == b.dtype and a.shape == b.shape and repr(a.tolist()) == repr(b.tolist())
    if isinstance(a, dict):
        return list(a) == list(b) and all(
            same(a[key], b[key]) and same(key, other) for key, other in zip(a, b, strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return bool(a == b)


def independent(folder: Path) -> SpecCheckpoint:
    """A checkpoint as the independent reader sees it, with every rule checked, those for writers too."""
    return read_checkpoint(read_folder(folder), writer=True)


def check_arrays(state: Any, found: SpecCheckpoint) -> None:
    """The variables are those of the state, bit for bit."""
    expected = flat(state)
    assert found.variables.keys() == expected.keys()
    for name, variable in found.variables.items():
        assert variable.array.shape == expected[name].shape, name
        assert variable.array.tobytes() == little(expected[name]), name
        assert DTYPES[variable.dtype] == expected[name].dtype.newbyteorder("<"), name


def check_official(folder: Path, found: SpecCheckpoint) -> None:
    """The official package reads every data file, and finds what the manifest says."""
    seen = {}
    for path in folder.glob("*.safetensors"):
        names = set()
        for name, tensor in safetensors.deserialize(path.read_bytes()):
            names.add(name)
            seen[name] = (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        with safetensors.safe_open(path, framework="numpy") as file:
            assert file.metadata() == {"format": "pt"}
            assert set(file.keys()) == names
            for name in names:
                if seen[name][0] in OFFICIAL:
                    array = file.get_tensor(name)
                    assert array.dtype == OFFICIAL[seen[name][0]]
                    assert array.tobytes() == seen[name][2]
    expected = {name: (v.dtype, v.array.shape, v.array.tobytes()) for name, v in found.variables.items()}
    assert seen == expected


def test_every_dtype_and_shape_is_written_as_specified(tmp_path: Path) -> None:
    state = every_dtype()

    holdfast.save_checkpoint(state, tmp_path, step=7, metrics={"loss": 0.5, "count": 3})

    found = independent(tmp_path / "checkpoint_0")
    check_arrays(state, found)
    check_official(tmp_path / "checkpoint_0", found)
    assert {v.dtype for v in found.variables.values()} == set(DTYPES)
    for name, variable in found.variables.items():
        kind = "parameter" if name.split(".")[0] in ("model", "frozen") else "persistable"
        assert variable.kind == kind
        assert variable.trainable or not name.startswith("model.")
        assert not (variable.trainable and name.startswith("frozen."))
    manifest = found.manifest
    assert (manifest["version"], manifest["content"], manifest["serial"], manifest["step"]) == (
        [1, 0],
        "checkpoint",
        0,
        7,
    )
    assert manifest["metrics"] == {"loss": 0.5, "count": 3}
    assert manifest["world_size"] == 1


def test_every_kind_of_value_is_written_as_specified(tmp_path: Path) -> None:
    state = every_kind_of_value()
    args = {"epoch_id": 2, "nested": ({"a": [1.5, None, "x"]}, np.arange(4, dtype="u4")), "huge": 10**4297}

    holdfast.save_checkpoint(state, tmp_path, trainer_args=args)

    trainer = independent(tmp_path / "checkpoint_0").trainers[0]
    assert same(trainer["trainer_args"], args)
    values = trainer["values"]
    assert values.keys() == state.keys()
    for name in state.keys() - {"python", "generator", "legacy"}:
        assert same(values[name], state[name]), name
    generator, legacy, python = values["generator"], values["legacy"], values["python"]
    assert isinstance(generator, Random)
    assert generator.type == "numpy.random.Generator"
    assert same(generator.state, state["generator"].bit_generator.state)
    assert legacy.type == "numpy.random.RandomState"
    assert same(legacy.state, state["legacy"].get_state(legacy=False))
    assert (python.type, python.state) == ("random.Random", random.Random(7).getstate())


@pytest.mark.parametrize("content", ["params", "variables"])
def test_folder_that_stands_alone_is_written_as_specified(content: str, tmp_path: Path) -> None:
    state = {"fc": {"w": every_value("F32", (4, 6)), "b": every_value("BF16", (6,))}, "epoch": 3}
    save = {"params": holdfast.save_params, "variables": holdfast.save_persistables}[content]

    save(state, tmp_path / "model")

    found = independent(tmp_path / "model")
    check_arrays({"fc": state["fc"]}, found)
    check_official(tmp_path / "model", found)
    assert (found.manifest["content"], found.manifest["serial"]) == (content, None)
    assert {v.kind for v in found.variables.values()} == {"parameter" if content == "params" else "persistable"}


def test_many_files_are_written_as_specified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "linkable_file_bytes", lambda _: 5_000)
    model = {f"layer{i}": every_value("F32", (10, 20 + i)) for i in range(12)}
    frozen = {f"layer{i}": every_value("F16", (50, 20)) for i in range(4)}
    state = {"model": holdfast.parameters(model), "frozen": holdfast.parameters(frozen, trainable=False)}
    state |= {"slots": {f"slot{i}": every_value("F64", (100, i)) for i in range(9)}}

    holdfast.save_checkpoint(state, tmp_path)

    folder = tmp_path / "checkpoint_0"
    found = independent(folder)
    check_arrays(state, found)
    check_official(folder, found)
    assert len(list(folder.glob("model-*"))) > 3
    assert len(list(folder.glob("state-*"))) > 3
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in safetensors.numpy.load_file(folder / file)


@pytest.mark.parametrize("extra", [-4, 0, 4, BLOCK + 12])
def test_blocks_of_long_variables_are_written_as_specified(extra: int, tmp_path: Path) -> None:
    long = np.random.default_rng(0).integers(0, 256, BLOCK + extra, np.uint8).view("<f4")
    state = {"a": np.arange(3.0), "long": long, "z": np.arange(5, dtype="u1")}

    holdfast.save_checkpoint(state, tmp_path)

    found = independent(tmp_path / "checkpoint_0")
    check_arrays(state, found)
    chunk = next(v["chunks"] for v in found.manifest["variables"] if v["name"] == "long")[0]
    assert len(chunk["blocks"]) == math.ceil((BLOCK + extra) / BLOCK)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
arrays = st.builds(every_value, st.sampled_from(sorted(DTYPES)), shapes)
marks = st.sampled_from([None, True, False])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names.filter(lambda name: name != "__metadata__"), st.tuples(arrays, marks), max_size=12))
def test_any_state_is_written_as_specified(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("run")
    marked = {
        name: array if mark is None else holdfast.parameters(array, trainable=mark)
        for name, (array, mark) in state.items()
    }

    holdfast.save_checkpoint(marked, folder)

    found = independent(folder / "checkpoint_0")
    check_arrays({name: array for name, (array, _) in state.items()}, found)
    check_official(folder / "checkpoint_0", found)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.tuples(st.integers()) | st.none()
values = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(values, st.dictionaries(names, values, max_size=4))
def test_any_value_is_written_as_specified(
    tmp_path_factory: pytest.TempPathFactory, args: Any, state: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")

    holdfast.save_checkpoint(state, folder, trainer_args=args)

    trainer = independent(folder / "checkpoint_0").trainers[0]
    assert same(trainer["trainer_args"], args)
    assert same(dict(sorted(trainer["values"].items())), dict(sorted(state.items())))


def test_integer_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(holdfast.UnsupportedVariableError, match="huge"):
        holdfast.save_checkpoint({"huge": 10**4298}, tmp_path)

    assert not list(tmp_path.iterdir())
