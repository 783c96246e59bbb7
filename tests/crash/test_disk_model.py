"""The disk model and the recorder themselves: what they must lose, and what they must not let through."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from .disk import ROOT, Disk, Entries, Resize, Sync, Torn, Tree, Write, crash_states
from .recorder import Escaped, Recorder, RecordingOs, read_folder

FILE = Entries(ROOT, (("a", 1),), born="file")


def disk_after(*log: object) -> Disk:
    disk = Disk(Tree())
    for operation in log:
        disk.run(operation)  # type: ignore[arg-type]
    return disk


def found(*log: object) -> list[dict[str, bytes | None]]:
    return [state.snapshot for state in crash_states(Tree(), log, seed=0, first=len(log))]  # type: ignore[arg-type]


def test_sync_of_a_file_saves_its_data_and_not_its_name():
    states = found(FILE, Write(1, 0, b"data"), Sync(1))

    assert {} in states
    assert {"a": b"data"} in states
    assert {"a": b""} not in states


def test_sync_of_a_folder_saves_names_and_not_what_they_lead_to():
    states = found(FILE, Write(1, 0, b"data"), Sync(ROOT))

    assert {} not in states
    assert {"a": b""} in states
    assert {"a": b"data"} in states


def test_sync_of_a_folder_does_not_save_its_own_name():
    states = found(Entries(ROOT, (("d", 1),), born="folder"), Entries(1, (("a", 2),), born="file"), Sync(1))

    assert {} in states


def test_both_syncs_leave_nothing_to_lose():
    assert found(FILE, Write(1, 0, b"data"), Sync(1), Sync(ROOT)) == [{"a": b"data"}]


def test_each_of_two_writes_is_lost_on_its_own():
    states = found(FILE, Sync(ROOT), Write(1, 0, b"one"), Write(1, 3, b"two"))

    for content in (b"", b"one", b"\0\0\0two", b"onetwo"):
        assert {"a": content} in states


def test_rename_and_exchange_happen_as_a_whole():
    exchange = Entries(ROOT, (("a", 2), ("b", 1)))
    states = found(FILE, Entries(ROOT, (("b", 2),), born="file"), Write(1, 0, b"1"), Sync(1), Sync(ROOT), exchange)

    assert sorted(map(str, states)) == sorted(map(str, [{"a": b"1", "b": b""}, {"a": b"", "b": b"1"}]))


def test_last_write_is_torn_at_sectors_and_elsewhere():
    states = found(FILE, Sync(ROOT), Write(1, 0, b"x" * 2048))

    for kept in (512, 1000, 1024, 2047):
        assert {"a": b"x" * kept} in states
        assert {"a": b"x" * kept + bytes(2048 - kept)} in states
        assert {"a": b"x" * kept + b"\xa5" * (2048 - kept)} in states


def test_write_into_the_middle_keeps_what_stands_after_it():
    tree = Tree({ROOT: {"a": 1}}, {1: b"0123456789"})
    tree.apply(Write(1, 2, b"abcd"), Torn(1, "missing"))

    assert tree.snapshot() == {"a": b"01a3456789"}


def test_sizes_change_by_truncation_and_reservation():
    tree = Tree({ROOT: {"a": 1}}, {1: b"0123456789"})
    tree.apply(Resize(1, 4, grow_only=True))
    assert tree.files[1] == b"0123456789"
    tree.apply(Resize(1, 4))
    assert tree.files[1] == b"0123"
    tree.apply(Resize(1, 6, grow_only=True))
    assert tree.files[1] == b"0123\0\0"


def test_fates_are_the_same_for_the_same_seed():
    disk = disk_after(FILE, Write(1, 0, b"data"), Write(1, 4, b"more"))

    assert list(disk.fates(random.Random(7), 5, 9)) == list(disk.fates(random.Random(7), 5, 9))


def test_recorder_logs_what_happened(tmp_path: Path):
    (tmp_path / "old").write_bytes(b"old")
    recorder = Recorder(tmp_path)
    osx = RecordingOs(recorder)

    osx.mkdir(f"{tmp_path}/d")
    fd = osx.open(f"{tmp_path}/d/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    osx.posix_fallocate(fd, 0, 100)
    assert osx.pwrite(fd, memoryview(b"x" * 50), 0) == 50
    assert osx.pwritev(fd, [b"y" * 3, b"z" * 4], 50) == 7
    osx.ftruncate(fd, 57)
    osx.fsync(fd)
    osx.close(fd)
    osx.link(f"{tmp_path}/d/f", f"{tmp_path}/d/g")
    osx.unlink(f"{tmp_path}/d/f")
    osx.rename(f"{tmp_path}/d", f"{tmp_path}/e")
    osx.mkdir(f"{tmp_path}/empty")
    osx.rmdir(f"{tmp_path}/empty")

    recorder.check()
    states = [state.snapshot for state in crash_states(recorder.start, recorder.log, seed=1, first=len(recorder.log))]
    assert states[0] == {"old": b"old", "e": None, "e/g": b"x" * 50 + b"yyyzzzz"}
    assert {"old": b"old"} in states


def test_recorder_notices_a_change_behind_its_back(tmp_path: Path):
    recorder = Recorder(tmp_path)
    (tmp_path / "a").write_bytes(b"")

    with pytest.raises(AssertionError, match="does not explain"):
        recorder.check()


@pytest.mark.parametrize(
    "change",
    [
        lambda osx, root: osx.truncate(f"{root}/old", 0),
        lambda osx, root: osx.removedirs(f"{root}/d"),
        lambda osx, root: osx.open(f"{root}/old", os.O_WRONLY | os.O_TRUNC),
        lambda osx, root: osx.open(f"{root}/old", os.O_WRONLY | os.O_CREAT),
        lambda osx, root: osx.rename(f"{root}/old", f"{root}/d/old"),
        lambda osx, root: osx.mkdir(f"{root}/../elsewhere"),
    ],
)
def test_recorder_refuses_what_the_model_does_not_know(tmp_path: Path, change):
    root = tmp_path / "disk"
    (root / "d").mkdir(parents=True)
    (root / "old").write_bytes(b"old")
    recorder = Recorder(root)

    with pytest.raises(Escaped):
        change(RecordingOs(recorder), root)
    with pytest.raises(AssertionError, match="does not know"):
        recorder.check()  # also where the caller swallowed the error


def test_recorder_reads_a_folder_as_the_model_writes_it(tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"f")
    os.link(tmp_path / "d" / "f", tmp_path / "g")

    assert Recorder(tmp_path).start.snapshot() == read_folder(tmp_path) == {"d": None, "d/f": b"f", "g": b"f"}
