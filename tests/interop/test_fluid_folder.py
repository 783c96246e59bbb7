"""Folders of variables."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import (
    CheckpointNotFoundError,
    ForeignFolderError,
    FormatError,
    MismatchError,
    UnsupportedVariableError,
)
from holdfast.interop import files
from holdfast.interop.expected import Expected
from holdfast.interop.fluid_folder import read_variables, variable_names, write_variables
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.selected_rows import SelectedRows
from interop.truth import FLUID, arrays, meta, same, tensor_files, values
from support import tree_of

ADAM = FLUID / "save_persistables_adam_bn_decay"


def folders() -> list[tuple[Path, Path]]:
    """(case, folder) of every folder with a file per variable."""
    found = []
    for case in sorted({case for case, _, path in tensor_files()}):
        tree = case / "model" / "checkpoint_1" / "__model__"
        found.append((case, tree if tree.is_dir() else case / "model"))
    return [*found, (FLUID / "selected_rows", FLUID / "selected_rows" / "model")]


@pytest.mark.parametrize(("case", "model"), folders(), ids=[case.name for case, _ in folders()])
def test_every_folder_is_read_and_written_again_byte_for_byte(case: Path, model: Path, tmp_path: Path) -> None:
    names = [n for n, e in meta(case)["vars"].items() if e.get("file")]

    found = read_variables(model, names)

    for name in names:
        entry = meta(case)["vars"][name]
        assert same(found[name].array, arrays(case)[entry["npz"]]), name
    on_disk = {n: found[next(m for m in names if os.path.normpath(m) == n)] for n in variable_names(model)}
    write_variables(tmp_path / "made", on_disk)
    assert variable_names(tmp_path / "made") == variable_names(model)
    for name in variable_names(model):
        assert (tmp_path / "made" / name).read_bytes() == (model / name).read_bytes(), name


def test_without_names_the_program_decides_or_else_what_is_there(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(FLUID / "save_inference_model" / "model", model)
    (model / "readme.txt").write_text("of somebody else")

    found = read_variables(model)

    assert sorted(found) == sorted(meta(FLUID / "save_inference_model")["vars"])
    (model / "__model__").unlink()
    with pytest.raises(FormatError, match=r"readme\.txt"):
        read_variables(model)
    (model / "readme.txt").unlink()
    (model / "_SUCCESS").write_text("Mon Jun 25")
    assert sorted(read_variables(model)) == sorted(found)


def test_the_program_beside_the_files_is_what_they_must_be(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(FLUID / "save_inference_model" / "model", model)
    shutil.copy(model / "fc_0.b_0", model / "fc_0.w_0")
    (model / "conv2d_0.w_0").unlink()

    with pytest.raises(MismatchError) as caught:
        read_variables(model)
    assert {(p.kind, p.name) for p in caught.value.problems} == {("shape", "fc_0.w_0"), ("missing", "conv2d_0.w_0")}


def test_every_missing_and_different_variable_is_listed_with_what_is_there() -> None:
    expected = {
        "fc_0.w_0": Expected(np.dtype("f8"), (16, 13)),
        "fc_9.w_0": Expected(),
        "fc_0.b_0": Expected(np.dtype("f4"), (-1,)),
        "../save_params/model/fc_0.b_0": Expected(),
    }

    with pytest.raises(MismatchError, match="The folder also holds 'fc_1.b_0'") as caught:
        read_variables(FLUID / "save_params" / "model", expected=expected)
    assert [(p.kind, p.name) for p in caught.value.problems] == [
        ("missing", "../save_params/model/fc_0.b_0"), ("dtype", "fc_0.w_0"), ("shape", "fc_0.w_0"), ("missing", "fc_9.w_0"),
    ]  # fmt: skip


def test_every_damaged_file_is_listed(tmp_path: Path) -> None:
    shutil.copytree(FLUID / "save_params" / "model", tmp_path / "m")
    for name, change in {"fc_0.w_0": -1, "fc_1.w_0": 10, "fc_2.b_0": 1}.items():
        data = (tmp_path / "m" / name).read_bytes()
        (tmp_path / "m" / name).write_bytes(data[:change] if change < 1 or change == 10 else data + b"\0")

    with pytest.raises(FormatError) as caught:
        read_variables(tmp_path / "m")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for name, line in zip(["fc_0.w_0", "fc_1.w_0", "fc_2.b_0"], lines, strict=True):
        assert name in line
    assert "cut off" in lines[0]
    assert "expected 64 bytes, found 65" in lines[2] or "is longer than its content" in lines[2]


def test_both_kinds_of_records_are_told_apart(tmp_path: Path) -> None:
    table = FLUID / "selected_rows" / "model"
    shutil.copytree(FLUID / "lod" / "model", tmp_path / "m")
    shutil.copy(table / "table", tmp_path / "m" / "table")

    found = read_variables(tmp_path / "m")

    assert {n: type(v) for n, v in found.items()} == {
        "seq0": LoDTensor, "seq1": LoDTensor, "seq2": LoDTensor, "table": SelectedRows,
    }  # fmt: skip
    assert read_variables(table, expected={"table": Expected(np.dtype("f4"), (10, 3), "selected_rows")})
    with pytest.raises(FormatError):
        read_variables(table, expected={"table": Expected(kind="lod_tensor")})
    with pytest.raises(FormatError):
        read_variables(tmp_path / "m", expected={"seq2": Expected(kind="selected_rows")})


def test_a_combined_file_in_the_place_of_a_variable_is_named_so() -> None:
    with pytest.raises(FormatError, match=r"all\.params holds 6 variables: it is a combined file"):
        read_variables(FLUID / "save_params_combined" / "model")


def test_combined_files_in_a_folder() -> None:
    case = FLUID / "save_params_combined"

    found = read_variables(case / "model", meta(case)["vars"], filename="all.params")

    for name, truth in values(case).items():
        assert same(found[name].array, truth)
    with pytest.raises(ValueError, match="has no names in it"):
        read_variables(case / "model", filename="all.params")
    with pytest.raises(ValueError, match="leads out of the folder"):
        read_variables(case / "model", ["a"], filename="../expected.json")
    with pytest.raises(CheckpointNotFoundError, match="absent does not exist"):
        read_variables(case / "model", ["a"], filename="absent")


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()

    for name, reason in {"file": "is no folder", "absent": "does not exist", "empty": "holds no variables"}.items():
        with pytest.raises(CheckpointNotFoundError, match=reason):
            read_variables(tmp_path / name)


def test_write_makes_what_fluid_would_make(tmp_path: Path) -> None:
    model = FLUID / "save_inference_model" / "model"

    size = write_variables(tmp_path / "a" / "b", read_variables(model), model=(model / "__model__").read_bytes())

    assert {p.name: p.read_bytes() for p in (tmp_path / "a" / "b").iterdir()} == {
        p.name: p.read_bytes() for p in model.iterdir()
    }
    assert size == sum(p.stat().st_size for p in model.iterdir())
    assert os.listdir(tmp_path / "a") == ["b"]


def test_write_of_a_combined_file_leaves_what_stands_beside_it(tmp_path: Path) -> None:
    model = FLUID / "save_inference_model_combined" / "model"
    (tmp_path / "notes.txt").write_text("kept")
    names = meta(FLUID / "save_inference_model_combined")["vars"]

    found = read_variables(model, names, filename="weights.bin")
    write_variables(tmp_path, found, filename="sub/weights.bin", model=(model / "model.pb").read_bytes())

    assert (tmp_path / "sub" / "weights.bin").read_bytes() == (model / "weights.bin").read_bytes()
    assert (tmp_path / "__model__").read_bytes() == (model / "model.pb").read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_write_refuses_every_bad_name_and_value_before_anything_is_written(tmp_path: Path) -> None:
    good = np.zeros(2, np.float32)
    bad = {
        "../out": good,
        "/abs": good,
        "__model__": good,
        "u": np.zeros(1, np.uint32),
        "s": np.array(1.0),
        "a/b": good,
        "a": good,
    }

    with pytest.raises(UnsupportedVariableError) as caught:
        write_variables(tmp_path / "m", bad | {"fine": good})
    assert sorted(caught.value.reasons) == ["../out", "/abs", "__model__", "a/b", "s", "u"]
    with pytest.raises(UnsupportedVariableError, match="no SelectedRows"):
        write_variables(tmp_path / "m", {"t": SelectedRows(np.zeros(1, np.int64), 1, np.zeros((1, 1)))}, filename="all")
    for filename in ("../x", "/x", "__model__", "_SUCCESS", "a/../b", ""):
        with pytest.raises(UnsupportedVariableError, match="filename="):
            write_variables(tmp_path / "m", {"a": good}, filename=filename)
    with pytest.raises(ValueError, match="nothing to write"):
        write_variables(tmp_path / "m", {})
    assert list(tmp_path.iterdir()) == []


def test_write_never_replaces_unless_asked_and_then_only_what_fluid_writes(tmp_path: Path) -> None:
    target = tmp_path / "m"
    write_variables(target, {"old": np.zeros(2, np.float32)}, model=b"x")
    before = tree_of(target)

    with pytest.raises(ForeignFolderError, match="never overwritten"):
        write_variables(target, {"new": np.ones(2, np.float32)})
    assert tree_of(target) == before
    write_variables(target, {"sub/new": np.ones(2, np.float32)}, replace=True)
    assert variable_names(target) == ["sub/new"]
    assert not (target / "__model__").exists(), "nothing of the old save stays"
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(ForeignFolderError, match=r"thesis\.txt"):
        write_variables(target, {"x": np.ones(2, np.float32)}, replace=True)
    (tmp_path / "file").write_text("mine")
    for replace in (False, True):
        with pytest.raises(ForeignFolderError):
            write_variables(tmp_path / "file", {"x": np.ones(2, np.float32)}, replace=replace)
    assert sorted(os.listdir(tmp_path)) == ["file", "m"]


@pytest.mark.parametrize("step", ["put", "_sync_folder", "_take_place"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_write_that_fails_at_any_step_leaves_what_was_there(
    step: str, replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m"
    if replace:
        write_variables(target, {"old": np.zeros(2, np.float32)})
    before = tree_of(tmp_path)

    real, calls = getattr(files, step), []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2 or step == "_take_place":
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(files, step, failing)
    with pytest.raises(OSError, match="No space"):
        write_variables(target, {"a/b": np.zeros(2, np.float32), "c": np.zeros(2, np.float32)}, replace=replace)
    assert sorted(tree_of(tmp_path)) == sorted(before)
    if replace:
        assert list(read_variables(target)) == ["old"]


def test_replacing_works_where_folders_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.LocalStore, "exchange", lambda self, a, b: False)
    write_variables(tmp_path / "m", {"old": np.zeros(2, np.float32)})

    write_variables(tmp_path / "m", {"new": np.zeros(2, np.float32)}, replace=True)

    assert list(read_variables(tmp_path / "m")) == ["new"]
    assert os.listdir(tmp_path) == ["m"]


def test_what_was_being_written_is_not_taken_for_a_variable(tmp_path: Path) -> None:
    write_variables(tmp_path / "m", {"a": np.zeros(2, np.float32)})
    (tmp_path / "m" / ".holdfast-1234").write_bytes(b"half")

    assert list(read_variables(tmp_path / "m")) == ["a"]


def test_adam_case_is_complete() -> None:
    assert len(read_variables(ADAM / "model")) == 38
