"""Attempts, commits and sweeping: what a dead writer left goes, what a live one has stays."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import DiskFullError, ForeignFolderError, LocalStore, MemoryStore, StorageError
from holdfast.engine import commit
from holdfast.engine.commit import Attempt
from holdfast.storage import Location
from support import WrappedStore, read_file, write_file

ID = "0123456789abcdef"


@pytest.fixture(params=["local", "memory", "memory-no-exchange"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty folder."""
    if request.param == "local":
        return LocalStore().at(tmp_path)
    store = MemoryStore(exchange=request.param == "memory")
    store.make_folder("/p")
    return store.at("/p")


def names(location: Location) -> list[str]:
    return sorted(entry.name for entry in location.store.list(location.path))


def begun(parent: Location, label: str) -> Attempt:
    attempt = Attempt(parent, label)
    attempt.begin()
    return attempt


def filled(parent: Location, label: str = "0") -> Attempt:
    attempt = begun(parent, label)
    write_file(attempt.folder / "model.safetensors", b"data")
    return attempt


def manifest(serial: int) -> bytes:
    return str(serial).encode()


def test_attempt_is_hidden_and_locked(parent: Location) -> None:
    attempt = filled(parent, "41")

    assert names(parent) == [f".attempt-41-{attempt.id}"]
    assert parent.store.claim(attempt.folder.path) is None
    attempt.discard()
    assert names(parent) == []


def test_commit_gives_the_folder_its_name(parent: Location) -> None:
    attempt = filled(parent)

    assert attempt.commit_serial(5, manifest) == 5

    assert names(parent) == ["checkpoint_5"]
    assert read_file(parent / "checkpoint_5" / "manifest.json") == b"5"
    claim = parent.store.claim((parent / "checkpoint_5").path)
    assert claim is not None
    claim.release()


def test_discard_after_the_commit_removes_nothing(parent: Location) -> None:
    attempt = filled(parent)
    attempt.commit_serial(0, manifest)

    attempt.discard()
    attempt.discard()

    assert names(parent / "checkpoint_0") == ["manifest.json", "model.safetensors"]


def test_serial_that_somebody_took_is_passed_over(parent: Location) -> None:
    for name in ("checkpoint_5", "checkpoint_8"):
        parent.store.make_folder((parent / name).path)
        write_file(parent / name / "manifest.json", b"other")

    assert filled(parent).commit_serial(5, manifest) == 9

    assert read_file(parent / "checkpoint_9" / "manifest.json") == b"9"
    assert read_file(parent / "checkpoint_5" / "manifest.json") == b"other"


def test_file_that_has_the_name_is_passed_over(parent: Location) -> None:
    write_file(parent / "checkpoint_0", b"a file")

    assert filled(parent).commit_serial(0, manifest) == 1
    assert read_file(parent / "checkpoint_0") == b"a file"


def test_commit_alone_makes_and_then_replaces(parent: Location) -> None:
    filled(parent, "model").commit_alone(parent / "model", b"1")
    second = begun(parent, "model")
    write_file(second.folder / "new", b"")

    second.commit_alone(parent / "model", b"2")

    assert names(parent) == ["model"]
    assert names(parent / "model") == ["manifest.json", "new"]
    assert read_file(parent / "model" / "manifest.json") == b"2"


def test_context_leaves_nothing_of_an_attempt_that_fails(parent: Location) -> None:
    def interrupted(attempt: Attempt) -> None:
        write_file(attempt.folder / "file", b"")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), commit.attempt(parent, "3", 0) as attempt:
        interrupted(attempt)

    assert names(parent) == []


def test_sweep_removes_what_dead_writers_and_interrupted_deletions_left(parent: Location) -> None:
    for name in (f".attempt-1-{ID}", f".trash-2-{ID}"):
        parent.store.make_folder((parent / name).path)
        parent.store.make_folder((parent / name / "deep").path)
        write_file(parent / name / "deep" / "file", b"")

    commit.sweep(parent)

    assert names(parent) == []


def test_sweep_leaves_live_and_foreign_things_alone(parent: Location) -> None:
    live = filled(parent, "7")
    foreign = [
        ".attempt-x",
        ".trash-1",
        f".trash-model-{ID}",
        f".attempt-²-{ID}",
        f".previous-4-{ID}",
        ".git",
        f".attempt--{ID}",
        f"trash-1-{ID}",
    ]
    for name in foreign:
        parent.store.make_folder((parent / name).path)
    write_file(parent / f".trash-3-{ID}", b"a file")

    commit.sweep(parent)

    assert names(parent) == sorted([*foreign, live.folder.name, f".trash-3-{ID}"])
    live.discard()


def test_sweep_for_a_folder_that_stands_alone_looks_at_its_own_things_only(parent: Location) -> None:
    for name in (f".attempt-a-{ID}", f".attempt-b-{ID}", f".previous-a-{ID}", f".previous-b-{ID}", f".trash-1-{ID}"):
        parent.store.make_folder((parent / name).path)

    commit.sweep(parent, "a")
    assert names(parent) == sorted([f".attempt-b-{ID}", f".previous-a-{ID}", f".previous-b-{ID}", f".trash-1-{ID}"])

    parent.store.make_folder((parent / "a").path)
    commit.sweep(parent, "a")
    assert names(parent) == sorted(["a", f".attempt-b-{ID}", f".previous-b-{ID}", f".trash-1-{ID}"])


def test_sweep_logs_what_it_cannot_remove(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / f".trash-1-{ID}").mkdir()
    (tmp_path / f".trash-2-{ID}").mkdir()
    store = WrappedStore()

    def refusing(path: str) -> None:
        if "trash-1" in path:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        os.rmdir(path)

    store.instead["remove_folder"] = refusing
    with caplog.at_level(logging.WARNING):
        commit.sweep(store.at(tmp_path))

    assert [p.name for p in tmp_path.iterdir()] == [f".trash-1-{ID}"]
    assert "the next save will try again" in caplog.text


def without_locks(path: str) -> Any:
    raise OSError(errno.ENOTSUP, "Operation not supported", path)


def test_attempts_live_for_a_day_where_there_are_no_locks(tmp_path: Path) -> None:
    store = WrappedStore(claim=without_locks)
    for name, age in ((f".attempt-1-{ID}", 0), (f".attempt-2-{ID}", commit.STALE_SECONDS + 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)

    commit.sweep(store.at(tmp_path))

    assert [p.name for p in tmp_path.iterdir()] == [f".attempt-1-{ID}"]


def test_everything_works_where_there_are_no_locks(tmp_path: Path) -> None:
    run = WrappedStore(claim=without_locks).at(tmp_path)
    state = {"w": np.ones(3)}
    for _ in range(5):
        holdfast.save_checkpoint(state, run)

    assert holdfast.serials(run) == [2, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_2", "checkpoint_3", "checkpoint_4"]


def test_failed_attempt_is_removed_where_there_are_no_locks(tmp_path: Path) -> None:
    parent = WrappedStore(claim=without_locks).at(tmp_path)

    with pytest.raises(KeyboardInterrupt), commit.attempt(parent, "3", 0):
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_locks_that_fail_otherwise_are_an_error(tmp_path: Path) -> None:
    def broken(path: str) -> Any:
        raise OSError(errno.EIO, "Input/output error", path)

    parent = WrappedStore(claim=broken).at(tmp_path)

    with pytest.raises(StorageError, match="cannot write in .*Input/output error"), commit.attempt(parent, "1", 0):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_attempt_that_somebody_sweeps_at_once_is_made_again(tmp_path: Path) -> None:
    store = WrappedStore()
    stolen: list[str] = []

    def claim(path: str) -> Any:
        if len(stolen) < 3:
            stolen.append(path)
            os.rmdir(path)
        return store.inner.claim(path)

    store.instead["claim"] = claim
    attempt = begun(store.at(tmp_path), "1")

    assert len(stolen) == 3
    assert [p.name for p in tmp_path.iterdir()] == [attempt.folder.name]
    attempt.discard()


def test_attempt_that_is_swept_for_ever_is_an_error(tmp_path: Path) -> None:
    store = WrappedStore(claim=lambda path: os.rmdir(path))

    with pytest.raises(StorageError, match="another process removes each as soon as it is made"):
        begun(store.at(tmp_path), "1")


def test_discard_that_fails_is_logged_and_hides_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refusing(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    parent = WrappedStore(remove_folder=refusing).at(tmp_path)

    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt), commit.attempt(parent, "1", 0):
        raise KeyboardInterrupt

    assert "could not remove" in caplog.text
    commit.sweep(LocalStore().at(tmp_path))
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys
from holdfast import LocalStore
from holdfast.engine.commit import Attempt
attempt = Attempt(LocalStore().at(sys.argv[1]), "0")
attempt.begin()
print(attempt.folder.name, flush=True)
sys.stdin.read()
"""


def test_attempt_of_another_process_stays_until_the_process_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        serial = holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path)
        assert (tmp_path / name).is_dir()
        process.kill()
        process.wait()

    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path)

    assert serial == 1  # 0 is the other's
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_1", "checkpoint_2"]


def test_readers_sweep_nothing(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path)
    (tmp_path / f".trash-1-{ID}").mkdir()
    (tmp_path / f".attempt-1-{ID}").mkdir()

    holdfast.load_checkpoint({"w": np.zeros(1)}, tmp_path)
    holdfast.serials(tmp_path)
    holdfast.verify(tmp_path)

    assert len(list(tmp_path.iterdir())) == 3


def test_make_folders_syncs_every_folder_that_holds_a_new_one(tmp_path: Path) -> None:
    store = WrappedStore()

    commit.make_folders(store.at(tmp_path / "a" / "b"))

    changes = [(name, Path(path).name) for name, path in store.calls if name in ("make_folder", "sync_folder")]
    assert changes == [("make_folder", "a"), ("sync_folder", tmp_path.name), ("make_folder", "b"), ("sync_folder", "a")]
    store.calls.clear()
    commit.make_folders(store.at(tmp_path / "a" / "b"))
    assert not [name for name, _ in store.calls if name != "stat"]


def test_make_folders_takes_one_that_somebody_makes_at_the_same_time(tmp_path: Path) -> None:
    def late(path: str) -> None:
        os.mkdir(path)
        raise FileExistsError(errno.EEXIST, "File exists", path)

    commit.make_folders(WrappedStore(make_folder=late).at(tmp_path / "a"))

    assert (tmp_path / "a").is_dir()


def test_make_folders_refuses_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ForeignFolderError, match="file is not a folder"):
        commit.make_folders(LocalStore().at(tmp_path / "file"))
    with pytest.raises(ForeignFolderError, match="file is not a folder"):
        commit.make_folders(LocalStore().at(tmp_path / "file" / "below"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_says_what_was_needed_and_free(tmp_path: Path, number: int) -> None:
    store = WrappedStore(free_bytes=lambda _: 777)
    cause = OSError(number, "full")

    words = "5,000 bytes are needed, 777 are free; nothing was replaced"

    with pytest.raises(DiskFullError, match=words) as caught, commit.disk_full(store.at(tmp_path), 5000):
        raise StorageError.of(cause, "cannot write") from cause

    assert (caught.value.needed_bytes, caught.value.free_bytes) == (5000, 777)
    assert caught.value.__cause__ is cause


def test_other_errors_are_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write") as caught, commit.disk_full(LocalStore().at(tmp_path), 5000):
        raise StorageError.of(OSError(errno.EIO, "broken"), "cannot write")

    assert not isinstance(caught.value, DiskFullError)


def test_unknown_free_space_stops_nobody(tmp_path: Path) -> None:
    where = WrappedStore(free_bytes=lambda _: None).at(tmp_path)

    commit.check_space(where, 1 << 60)
    with pytest.raises(DiskFullError, match="an unknown number of are free"), commit.disk_full(where, 5):
        raise StorageError.of(OSError(errno.ENOSPC, "full"), "cannot write")


def test_used_serials_count_whatever_has_a_name(parent: Location) -> None:
    for name in (
        "checkpoint_3",
        f".attempt-9-{ID}",
        f".trash-5-{ID}",
        "checkpoint_010",
        "backup_70",
        f".attempt-x-{ID}",
        f".attempt-²-{ID}",
    ):
        parent.store.make_folder((parent / name).path)
    write_file(parent / "checkpoint_4", b"")

    assert sorted(commit.used_serials(parent)) == [-1, 3, 4, 5, 9]
    assert commit.used_serials(parent / "none") == [-1]


def test_retire_renames_before_it_deletes(tmp_path: Path) -> None:
    store = WrappedStore()
    (tmp_path / "checkpoint_3").mkdir()
    (tmp_path / "checkpoint_3" / "file").write_bytes(b"")

    commit.retire(store.at(tmp_path) / "checkpoint_3", 3)

    changing = [name for name, _ in store.calls if name in ("rename", "sync_folder", "remove", "remove_folder")]
    assert changing == ["rename", "sync_folder", "remove", "remove_folder"]
    assert list(tmp_path.iterdir()) == []


def test_attempt_that_was_never_begun_leaves_nothing_to_discard(parent: Location) -> None:
    Attempt(parent, "1").discard()

    assert names(parent) == []


def test_sweep_of_what_cannot_be_listed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refusing(path: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with caplog.at_level(logging.WARNING):
        commit.sweep(WrappedStore(list=refusing).at(tmp_path))

    assert "could not look for what dead writers left" in caplog.text


def test_attempt_ids_are_16_digits_and_never_the_same() -> None:
    ids = {commit.new_attempt_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids)
