"""Deletions that go on beside the program: nothing waits for them but what has to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import holdfast
from holdfast.engine import removal
from holdfast.errors import DiskFullError
from holdfast.storage import Location
from holdfast.storage.local import LocalStore


class SlowStore(LocalStore):
    """A disk that takes its time to free space: no data file is gone before `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.free: int | None = None

    def remove(self, path: str) -> None:
        if path.endswith(".safetensors"):
            assert self.go.wait(30)
        super().remove(path)

    def free_bytes(self, path: str) -> int | None:
        return super().free_bytes(path) if self.free is None or self.go.is_set() else self.free


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowStore]:
    monkeypatch.setattr(removal, "AT_ONCE_BYTES", -1)
    store = SlowStore()
    yield store
    store.go.set()
    removal.wait()


def state(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full(1000, value, np.float32)}


def two_saves(run: Location) -> None:
    for value in (0, 1):
        holdfast.save_checkpoint(state(value), run, max_num_checkpoints=1)


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_a_save_returns_while_the_old_checkpoint_is_being_deleted(store: SlowStore, tmp_path: Path) -> None:
    two_saves(store.at(tmp_path))
    assert holdfast.serials(tmp_path) == [1]
    assert len(hidden(tmp_path)) == 1
    store.go.set()
    removal.wait()
    assert hidden(tmp_path) == []


def test_the_next_save_leaves_alone_what_is_being_deleted(store: SlowStore, tmp_path: Path) -> None:
    run = store.at(tmp_path)
    two_saves(run)
    assert holdfast.save_checkpoint(state(2), run, max_num_checkpoints=1) == 2  # it would wait for `go` in its sweep
    assert len(hidden(tmp_path)) == 2
    store.go.set()
    removal.wait()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_2"]


def test_a_save_that_needs_the_space_waits_for_it(store: SlowStore, tmp_path: Path) -> None:
    run = store.at(tmp_path)
    two_saves(run)
    store.free = 10
    threading.Timer(0.2, store.go.set).start()
    assert holdfast.save_checkpoint(state(2), run, max_num_checkpoints=1) == 2
    assert store.go.is_set()


def test_a_disk_that_is_full_all_the_same_is_an_error(store: SlowStore, tmp_path: Path) -> None:
    run = store.at(tmp_path)
    two_saves(run)
    store.go.set()
    removal.wait()
    store.go.clear()
    store.free = 10
    with pytest.raises(DiskFullError, match="10 are free"):
        holdfast.save_checkpoint(state(2), run)


def test_prune_and_clean_return_when_all_is_deleted(store: SlowStore, tmp_path: Path) -> None:
    for value in range(3):
        holdfast.save_checkpoint(state(value), store.at(tmp_path), max_num_checkpoints=None)
    threading.Timer(0.2, store.go.set).start()
    assert holdfast.prune(store.at(tmp_path), keep=1) == [0, 1]
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_2"]
    store.go.clear()
    threading.Timer(0.2, store.go.set).start()
    assert holdfast.clean_checkpoint(store.at(tmp_path), delete_dir=True) == [2]
    assert not tmp_path.exists()


def test_a_folder_that_is_replaced_is_deleted_beside_the_program_too(store: SlowStore, tmp_path: Path) -> None:
    for value in (0, 1):
        holdfast.save_params(state(value), store.at(tmp_path / "model"))
    assert holdfast.load_params(state(7), tmp_path / "model").nbytes == 4000
    assert len(hidden(tmp_path)) == 1
    store.go.set()
    removal.wait()
    assert os.listdir(tmp_path) == ["model"]


def test_small_folders_are_deleted_before_the_save_returns(tmp_path: Path) -> None:
    two_saves(LocalStore().at(tmp_path))
    assert os.listdir(tmp_path) == ["checkpoint_1"]


def test_a_system_without_another_thread_deletes_in_this_one(
    monkeypatch: pytest.MonkeyPatch, store: SlowStore, tmp_path: Path
) -> None:
    store.go.set()
    two_saves(store.at(tmp_path))
    removal.wait()

    def refuse(self: threading.Thread) -> None:
        if self.name == "holdfast-delete":
            raise RuntimeError("can't start new thread")
        start(self)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    holdfast.save_checkpoint(state(2), store.at(tmp_path), max_num_checkpoints=1)
    assert os.listdir(tmp_path) == ["checkpoint_2"]


class Refusing(SlowStore):
    """A disk that deletes nothing."""

    def remove(self, path: str) -> None:
        raise PermissionError(13, "not allowed", path)


@pytest.mark.usefixtures("store")
def test_a_deletion_that_fails_is_logged_and_tried_again_by_the_next_save(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two_saves(Refusing().at(tmp_path))
    removal.wait()
    assert "the next save will try again" in caplog.text
    assert len(hidden(tmp_path)) == 1
    holdfast.save_checkpoint(state(2), tmp_path, max_num_checkpoints=1)
    removal.wait()
    assert os.listdir(tmp_path) == ["checkpoint_2"]


AT_THE_END = """
import os, sys, time
import numpy as np, holdfast
from holdfast.engine import removal
from holdfast.storage.local import LocalStore

removal.AT_ONCE_BYTES = -1

class Slow(LocalStore):
    def remove(self, path):
        time.sleep(0.3)
        super().remove(path)

run = Slow().at(sys.argv[1])
for value in (0, 1):
    holdfast.save_checkpoint({"w": np.full(9, value)}, run, max_num_checkpoints=1)
child = os.fork()
if not child:
    removal.wait()  # not for ever: it is the parent's
    os._exit(0 if not removal.is_going(run) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_program_ends_when_its_deletions_have_and_its_children_do_not_care(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AT_THE_END, str(tmp_path)], timeout=60, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["checkpoint_1"]
