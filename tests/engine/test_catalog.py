"""Which checkpoints there are: complete ones only, and a message that says what is there instead."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CheckpointNotFoundError, FormatError, LocalStore, StorageError
from holdfast.engine import catalog
from support import WrappedStore, flip_bit, tree_of

STATE = {"w": np.arange(5.0), "note": "x"}  # of serial 0; no two share a file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Serials 0, 1 and 2."""
    for n in range(3):
        holdfast.save_checkpoint({**STATE, "w": STATE["w"] + n}, tmp_path / "run")
    return tmp_path / "run"


def serials(run: Path) -> list[int]:
    return [found.serial for found in catalog.complete(LocalStore().at(run))]


def unlink(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def extend(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


DAMAGE = [unlink, truncate, extend, make_folder, make_pipe, make_link]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["manifest.json", "state-00001-of-00001.safetensors", "trainer_0.json"])
def test_incomplete_checkpoint_is_never_listed(run: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(run / "checkpoint_2" / name)

    assert serials(run) == [1, 0]
    assert holdfast.latest_serial(run) == 1
    assert catalog.locate(LocalStore().at(run))[1] == 1


def test_manifest_with_a_wrong_digest_is_never_listed(run: Path) -> None:
    flip_bit(run / "checkpoint_2" / "manifest.json")

    assert serials(run) == [1, 0]


def test_foreign_files_in_a_checkpoint_do_not_matter(run: Path) -> None:
    (run / "checkpoint_2" / "config.json").write_text("{}")
    (run / "checkpoint_2" / "logs").mkdir()

    assert serials(run) == [2, 1, 0]


def test_a_run_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    assert serials(tmp_path / "none") == []
    assert serials(tmp_path / "file") == []


def test_what_cannot_be_read_now_is_no_missing_checkpoint(run: Path) -> None:
    store = WrappedStore()
    real_open = store.inner.open

    def refusing(path: str) -> object:
        if "checkpoint_2" in path:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(path)

    store.instead["open"] = refusing

    with pytest.raises(StorageError, match="cannot read .*checkpoint_2/manifest.json: Permission denied"):
        list(catalog.complete(store.at(run)))
    with pytest.raises(StorageError):
        holdfast.latest_serial(store.at(run))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("trainer_0.json", unlink, "trainer_0.json is missing"),
        ("trainer_0.json", make_folder, "trainer_0.json is not a regular file"),
        ("trainer_0.json", make_link, "trainer_0.json is not a regular file"),
        ("state-00001-of-00001.safetensors", truncate, "has 4,135 bytes instead of 4,136"),
        ("manifest.json", unlink, "no manifest.json in .*checkpoint_2: no save was ever completed there"),
    ],
)
def test_incomplete_checkpoint_is_explained(run: Path, name: str, damage: Callable[[Path], None], words: str) -> None:
    damage(run / "checkpoint_2" / name)

    with pytest.raises(CheckpointNotFoundError, match=words):
        holdfast.open(run, serial=2)


@pytest.mark.parametrize("damage", [make_folder, make_pipe, make_link])
def test_manifest_that_is_no_file_is_explained(run: Path, damage: Callable[[Path], None]) -> None:
    damage(run / "checkpoint_2" / "manifest.json")

    with pytest.raises(FormatError, match="manifest.json is not a regular file"):
        holdfast.open(run, serial=2)


def test_absurdly_large_manifest_is_refused_unread(run: Path) -> None:
    os.truncate(run / "checkpoint_2" / "manifest.json", catalog.MAX_JSON_BYTES + 1)

    with pytest.raises(FormatError, match="no such file of a checkpoint is that large"):
        holdfast.open(run, serial=2)
    assert serials(run) == [1, 0]


def test_missing_serial_says_which_there_are(run: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint_7 in .*: the complete ones are 2, 1, 0"):
        holdfast.open(run, serial=7)


def test_long_lists_of_serials_are_cut(tmp_path: Path) -> None:
    for _ in range(12):
        holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path, max_num_checkpoints=None)

    with pytest.raises(CheckpointNotFoundError, match="11, 10, 9, 8, 7, 6, 5, 4, 3, 2, …"):
        holdfast.open(tmp_path, serial=70)


def test_place_without_anything_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "checkpoint_4").mkdir(parents=True)

    with pytest.raises(CheckpointNotFoundError, match="none does not exist"):
        holdfast.open(tmp_path / "none")
    with pytest.raises(CheckpointNotFoundError, match="nothing was saved there yet"):
        holdfast.open(tmp_path / "empty")
    with pytest.raises(CheckpointNotFoundError, match="checkpoint_4 cannot be used: no manifest.json in"):
        holdfast.open(tmp_path / "bad")


def test_locate_takes_runs_checkpoints_and_folders_that_stand_alone(run: Path, tmp_path: Path) -> None:
    holdfast.save_params(STATE, tmp_path / "alone")
    at = LocalStore().at

    assert catalog.locate(at(run))[1] == 2
    assert catalog.locate(at(run), 1)[0].name == "checkpoint_1"
    assert catalog.locate(at(run / "checkpoint_1")) == (at(run / "checkpoint_1"), 1)
    assert catalog.locate(at(tmp_path / "alone")) == (at(tmp_path / "alone"), None)


def test_previous_folder_stands_in_for_one_that_a_crash_took_away(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(2)}, tmp_path / "model")
    # The state between the two renames of docs/format.md, 6.2, with rubbish beside it.
    (tmp_path / "model").rename(tmp_path / ".previous-model-0123456789abcdef")
    (tmp_path / ".previous-model-ffffffffffffffff").mkdir()
    (tmp_path / ".previous-other-0123456789abcdef").mkdir()
    target = {"w": np.zeros(2)}

    holdfast.load_params(target, tmp_path / "model")

    assert target["w"].tolist() == [1, 1]
    with pytest.raises(CheckpointNotFoundError):
        holdfast.load_params(target, tmp_path / "other")


def test_previous_folder_is_ignored_once_the_name_exists(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(2)}, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".previous-model-0123456789abcdef")
    holdfast.save_params({"w": np.full(2, 7.0)}, tmp_path / "model")
    target = {"w": np.zeros(2)}

    holdfast.load_params(target, tmp_path / "model")

    assert target["w"].tolist() == [7, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("runs/bret", "runs/bret does not exist; did you mean {}/runs/bert?"),
        ("run/bert", "run/bert does not exist; did you mean {}/runs/bert?"),
        ("runs/bert@3", "runs/bert@3 does not exist; {}/runs/bert does, and serial=3 is said beside it"),
        ("run/gpt", "run/gpt does not exist"),
        ("runs/other", "runs/other does not exist"),
    ],
)
def test_absent_path_is_compared_with_what_is_there(path: str, said: str, tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path / "runs" / "bert")

    with pytest.raises(CheckpointNotFoundError, match=re.escape(said.format(tmp_path)) + "$"):
        holdfast.open(tmp_path / path)


def test_absent_run_is_said_before_its_serial(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path / "bert")

    with pytest.raises(CheckpointNotFoundError, match=r"bret does not exist; did you mean .*/bert\?$"):
        holdfast.open(tmp_path / "bret", serial=0)


def test_runs_below_a_folder_without_checkpoints_are_named(tmp_path: Path) -> None:
    for name in ("bert", "gpt"):
        holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path / name)
    holdfast.save_params({"w": np.zeros(1)}, tmp_path / "model")
    (tmp_path / "logs").mkdir()

    with pytest.raises(CheckpointNotFoundError, match="nothing was saved there yet, but in its bert, gpt, model$"):
        holdfast.open(tmp_path)


def test_many_runs_below_a_folder_are_cut(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"run_{number:02}" / "checkpoint_0").mkdir(parents=True)

    with pytest.raises(CheckpointNotFoundError, match="but in its run_00, .*run_09, …$"):
        holdfast.open(tmp_path)


def test_pinned_is_known(run: Path) -> None:
    holdfast.pin(run, 1)

    assert {f.serial: f.pinned for f in catalog.complete(LocalStore().at(run))} == {2: False, 1: True, 0: False}


def test_checkpoint_that_vanishes_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="gone does not exist"):
        catalog.read_manifest(LocalStore().at(tmp_path / "gone"))


def test_folder_that_stands_alone_is_no_checkpoint_of_a_run_under_any_name(run: Path) -> None:
    holdfast.save_params({"w": np.ones(1)}, run / "model")
    (run / "model").rename(run / "checkpoint_5")

    assert serials(run) == [2, 1, 0]
    assert holdfast.load_checkpoint({"w": np.zeros(5), "note": ""}, run).serial == 2


@pytest.mark.parametrize("serial", [-1, "07", "1x"])
def test_foreign_folders_are_not_reached_by_odd_serials(run: Path, serial: Any) -> None:
    shutil.copytree(run / "checkpoint_2", run / f"checkpoint_{serial}")
    before = tree_of(run)

    for call in (holdfast.open, holdfast.verify):
        with pytest.raises((CheckpointNotFoundError, ValueError), match=str(serial)):
            call(run, serial=serial)
    for change in (holdfast.pin, holdfast.unpin):
        with pytest.raises((CheckpointNotFoundError, ValueError), match=str(serial)):
            change(run, serial)

    assert tree_of(run) == before
