"""Version 1 of the format: Holdfast still writes these very bytes, and still reads them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from golden import make
from spec.independent import read_checkpoint, read_folder
from spec.states import flat, little

GOLDEN = {
    str(path.relative_to(make.FOLDER)): path.read_bytes() for path in sorted(make.FOLDER.rglob("*")) if path.is_file()
}


def test_the_golden_files_are_there() -> None:
    assert sorted(GOLDEN) == sorted([
        *(f"params/{name}" for name in ("manifest.json", "model.safetensors")),
        *(f"run/checkpoint_0/{name}" for name in (
            "manifest.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
            "model.safetensors.index.json", "state-00001-of-00001.safetensors", "trainer_0.json",
        )),
    ])  # fmt: skip
    assert sum(map(len, GOLDEN.values())) < 100 << 10


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    return make.files()


@pytest.mark.parametrize("name", GOLDEN)
def test_this_holdfast_writes_the_golden_bytes(name: str, written: dict[str, bytes]) -> None:
    assert written[name] == GOLDEN[name]


def test_this_holdfast_writes_no_other_files(written: dict[str, bytes]) -> None:
    assert written.keys() == GOLDEN.keys()


def blank(tree: Any) -> Any:
    """A state of the same structure that holds nothing of it."""
    if isinstance(tree, np.ndarray):
        return np.full_like(tree, 0 if tree.dtype.kind == "b" else 1)
    if isinstance(tree, list) and any(isinstance(child, np.ndarray) for child in tree):
        return [blank(child) for child in tree]
    if isinstance(tree, np.random.Generator):
        return np.random.Generator(np.random.PCG64(1))
    if isinstance(tree, random.Random):
        return random.Random(1)
    if hasattr(tree, "tree"):
        return holdfast.parameters(blank(tree.tree), trainable=tree.trainable)
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {key: blank(child) for key, child in tree.items()}
    return None


def test_golden_checkpoint_is_loaded_exactly() -> None:
    state = blank(make.state())

    report = holdfast.load_checkpoint(state, make.FOLDER / "run")

    expected = make.state()
    found = flat(state)
    for name, array in flat(expected).items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name
    for name in ("epoch", "rate", "history", "lookup"):
        assert repr(state[name]) == repr(expected[name])
    assert state["lookup"].keys() == expected["lookup"].keys()
    assert type(state["precise"]) is np.float32
    assert state["precise"] == np.float32(0.1)
    assert state["generator"].bit_generator.state == expected["generator"].bit_generator.state
    assert state["python"].getstate() == expected["python"].getstate()
    assert (report.serial, report.step, report.metrics) == (0, 20, {"loss": 0.5, "n": 3})
    assert repr(report.trainer_args) == repr(make.TRAINER_ARGS)


def test_golden_checkpoint_is_described_exactly() -> None:
    with holdfast.open(make.FOLDER / "run") as checkpoint:
        described = checkpoint.variables
        manifest = checkpoint.manifest

    assert (manifest.created, manifest.writer, manifest.attempt) == (make.CREATED, make.WRITER, make.ATTEMPT)
    for name, array in flat(make.state()).items():
        kind = "parameter" if name.startswith(("model.", "frozen.")) else "persistable"
        assert (described[name].kind, described[name].shape) == (kind, array.shape)
    assert described["model.F8_E8M0"].dtype == "F8_E8M0"
    assert described["model.F32"].trainable
    assert not described["frozen.w"].trainable


def test_golden_params_are_loaded_exactly() -> None:
    state = {"fc": {"w": np.zeros((4, 6), np.float32), "b": np.zeros(6, make.DTYPES["BF16"])}}

    holdfast.load_params(state, make.FOLDER / "params")

    assert state["fc"]["w"].tobytes() == make.array("F32", (4, 6)).tobytes()
    assert state["fc"]["b"].tobytes() == make.array("BF16", (6,)).tobytes()


@pytest.mark.parametrize("folder", ["run/checkpoint_0", "params"])
def test_golden_files_verify(folder: str) -> None:
    assert holdfast.verify(make.FOLDER / folder).files == len(list((make.FOLDER / folder).iterdir())) - 1


@pytest.mark.parametrize("folder", ["run/checkpoint_0", "params"])
def test_golden_files_are_as_specified(folder: str) -> None:
    found = read_checkpoint(read_folder(make.FOLDER / folder), writer=True)

    if folder == "params":
        assert set(found.variables) == {"fc.w", "fc.b"}
    else:
        for name, array in flat(make.state()).items():
            assert found.variables[name].array.tobytes() == little(array), name


def test_golden_files_are_read_from_a_folder_without_permission_to_write(tmp_path: Path) -> None:
    for name, data in GOLDEN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert holdfast.serials(tmp_path / "run") == [0]
        holdfast.load_checkpoint(blank(make.state()), tmp_path / "run")
        holdfast.verify(tmp_path / "params")
    finally:
        for folder in folders:
            folder.chmod(0o755)
