"""The checkpoints of Fluid 0.14."""

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
from holdfast.interop import checkpoint_tree, files
from holdfast.interop.expected import Expected
from interop.truth import FLUID, arrays, meta, same, values
from support import tree_of

CASE = FLUID / "checkpoint_layout"
TREE = CASE / "model"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(TREE, tmp_path / "tree")
    return tmp_path / "tree"


def test_the_newest_complete_one_is_read_as_fluid_held_it() -> None:
    found = checkpoint_tree.read(TREE)

    assert found.serial == meta(CASE)["latest_serial"] == 1
    truth = values(CASE)
    assert sorted(found.variables) == sorted(truth)
    assert all(same(found.variables[name].array, truth[name]) for name in truth)
    assert found.trainers == {0: {"epoch_id": "1", "step_id": "10"}, 1: {"epoch_id": "1", "step_id": "11"}}
    for name, entry in meta(CASE)["lookup_table"].items():
        assert same(found.lookup_tables[name].array, arrays(CASE)[entry["npz"]])


def test_an_older_one_by_its_serial() -> None:
    found = checkpoint_tree.read(TREE, 0)

    truth = {name: arrays(CASE)[key] for name, key in meta(CASE)["checkpoint_0"].items()}
    assert all(same(found.variables[name].array, truth[name]) for name in truth)
    assert found.trainers == {0: {"epoch_id": "0", "step_id": "0"}}
    assert found.lookup_tables == {}


def test_incomplete_ones_do_not_count_and_are_named() -> None:
    assert checkpoint_tree.serials(TREE) == [0, 1]
    with pytest.raises(CheckpointNotFoundError, match=r"serial 2 .* complete are \[0, 1\], incomplete \[2\]"):
        checkpoint_tree.read(TREE, 2)
    with pytest.raises(CheckpointNotFoundError, match="it has none"):
        checkpoint_tree.read(CASE)
    with pytest.raises(CheckpointNotFoundError, match="_SUCCESS"):
        checkpoint_tree.read_folder(TREE / "checkpoint_2")


def test_foreign_entries_do_not_matter_and_looking_creates_nothing(tree: Path) -> None:
    for name in (
        "backup_7",
        "checkpoint_x",
        "checkpoint_07",
        "checkpoint_8_old",
        "a_b_c",
        "checkpoint_-1",
        ".attempt-1",
    ):
        (tree / name / "__model__").mkdir(parents=True)
        (tree / name / "__model__" / "_SUCCESS").touch()
    (tree / "checkpoint_9").write_text("a file")
    (tree / "checkpoint_1" / "trainer_x").mkdir()
    (tree / "checkpoint_1" / "notes").mkdir()
    before = tree_of(tree)

    assert checkpoint_tree.serials(tree) == [0, 1]
    assert checkpoint_tree.read(tree).serial == 1
    assert sorted(checkpoint_tree.read(tree).trainers) == [0, 1]
    assert checkpoint_tree.serials(tree / "absent") == []
    assert not (tree / "absent").exists()
    assert tree_of(tree) == before


def test_serials_are_numbers_and_not_texts(tree: Path) -> None:
    shutil.copytree(tree / "checkpoint_0", tree / "checkpoint_10")

    assert checkpoint_tree.serials(tree) == [0, 1, 10]
    assert checkpoint_tree.read(tree).serial == 10


def test_misspelled_tables_are_read_too(tree: Path) -> None:
    (tree / "checkpoint_1" / "__lookup_table__").rename(tree / "checkpoint_1" / "__lockup_table__")

    assert sorted(checkpoint_tree.read(tree).lookup_tables) == ["table_pserver_0", "table_pserver_1"]


def test_expectations_and_damage(tree: Path) -> None:
    expected = {"fc_0.w_0": Expected(shape=(1, 1)), "fc_7.w_0": Expected()}

    with pytest.raises(MismatchError) as caught:
        checkpoint_tree.read(tree, expected=expected)
    assert [p.kind for p in caught.value.problems] == ["shape", "missing"]
    (tree / "checkpoint_1" / "trainer_0" / "epoch_id").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="epoch_id is no text"):
        checkpoint_tree.read(tree)
    (tree / "checkpoint_1" / "__lookup_table__" / "table_pserver_1").write_bytes(b"abc")
    with pytest.raises(FormatError, match="table_pserver_1"):
        checkpoint_tree.read(tree)


def test_write_makes_the_tree_that_fluid_made(tmp_path: Path) -> None:
    found = checkpoint_tree.read(TREE)

    serial = checkpoint_tree.write(
        tmp_path / "new", found.variables, trainers=found.trainers, lookup_tables=found.lookup_tables
    )

    assert serial == 0
    made, original = tmp_path / "new" / "checkpoint_0", TREE / "checkpoint_1"
    names = sorted(p.relative_to(original) for p in original.rglob("*"))
    assert sorted(p.relative_to(made) for p in made.rglob("*")) == names
    for name in names:
        if (original / name).is_file() and name.name != "_SUCCESS":
            assert (made / name).read_bytes() == (original / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["new"]


def test_the_next_serial_is_above_all_that_are_there(tree: Path) -> None:
    one = {"a": np.zeros(1, np.float32)}

    assert checkpoint_tree.write(tree, one) == 3, "2 is not complete, but there"
    assert checkpoint_tree.write(tree, one, serial=7) == 7
    assert checkpoint_tree.serials(tree) == [0, 1, 3, 7]
    assert checkpoint_tree.read(tree, 7).trainers == {0: {}}
    for taken in (1, 2):
        with pytest.raises(ForeignFolderError):
            checkpoint_tree.write(tree, one, serial=taken)


def test_write_refuses_before_anything_is_written(tmp_path: Path) -> None:
    one = {"a": np.zeros(1, np.float32)}

    for problem in (
        lambda: checkpoint_tree.write(tmp_path / "t", {"../a": one["a"]}),
        lambda: checkpoint_tree.write(tmp_path / "t", one, trainers={0: {"../x": 1}}),
        lambda: checkpoint_tree.write(tmp_path / "t", one, trainers={0: {"a/x": 1}}),
        lambda: checkpoint_tree.write(tmp_path / "t", one, trainers={0: {"_SUCCESS": 1}}),
    ):
        with pytest.raises(UnsupportedVariableError):
            problem()
    for problem in (
        lambda: checkpoint_tree.write(tmp_path / "t", {}),
        lambda: checkpoint_tree.write(tmp_path / "t", one, serial=-1),
    ):
        with pytest.raises(ValueError, match=r"nothing to write|begin at 0"):
            problem()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ForeignFolderError):
        checkpoint_tree.write(tmp_path / "file", one)


def test_success_is_written_last_and_a_failed_write_leaves_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree_of(tree)
    order: list[str] = []
    real = files.put

    def put(path: str, pieces: object) -> int:
        order.append(os.path.join(*path.split("/")[-2:]))
        return real(path, pieces)

    monkeypatch.setattr(files, "put", put)
    values = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    checkpoint_tree.write(tree, values, trainers={0: {"epoch_id": 3}})
    assert order == ["trainer_0/epoch_id", "trainer_0/_SUCCESS", "__model__/a", "__model__/b", "__model__/_SUCCESS"]
    shutil.rmtree(tree / "checkpoint_3")

    for stop in range(5):
        order.clear()

        def failing(path: str, pieces: object, stop: int = stop) -> int:
            if len(order) == stop:
                raise OSError(28, "No space left on device")
            return put(path, pieces)

        monkeypatch.setattr(files, "put", failing)
        with pytest.raises(OSError, match="No space"):
            checkpoint_tree.write(tree, values, trainers={0: {"epoch_id": 3}})
        assert sorted(tree_of(tree)) == sorted(before)
        assert os.listdir(tree.parent) == ["tree"]
