"""Saves where the system gives no more: memory, threads, file descriptors, space. They work, or fail clearly and leave nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import holdfast
from disks import AS_NOBODY, Untold, public_folder, tmpfs
from holdfast import CheckpointManager, DiskFullError

HEAD = """
import logging, os, resource, sys, threading, time
import numpy as np
import holdfast
from holdfast.engine import plan

logging.basicConfig(level=logging.ERROR)
run = sys.argv[1]
manager = holdfast.CheckpointManager(run, max_to_keep=None)

def state(count, floats, value):
    return {f"w{i}": np.full(floats, value, np.float32) for i in range(count)}

def attempt(what):
    try:
        print("ok", what())
    except Exception as error:
        print(type(error).__name__, error)

def threads():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("holdfast"))
"""


def run(program: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_memory_for_the_copy_is_refused_and_a_stream_still_works(tmp_path: Path) -> None:
    """A limit of the address space: the copy of 800 MB finds no place, the staging buffers do."""
    lines = run(
        """
        manager.save(state(1, 10, 0), 0, wait=False).result(60)
        large = state(1, 200_000_000, 1)
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (500 << 20), -1))
        attempt(lambda: manager.save(large, 1, wait=False))
        attempt(lambda: manager.prepare(large))
        attempt(lambda: manager.save(large, 2, wait=False, snapshot="stream").result(100))
        large["w0"] = large["w0"][:100]
        attempt(lambda: manager.save(large, 3, wait=False).result(60))
        print(threads())
        """,
        tmp_path,
    )

    told = r"MemoryError the system has no 800,\d{3},\d{3} bytes of memory for a copy \(Cannot allocate memory\); save with"
    assert re.match(told, lines[0])
    assert re.match(told, lines[1])
    assert lines[2:] == ["ok 1", "ok 2", "[]"]
    assert hidden(tmp_path) == []


def run_as_nobody(folder: Path, limit: int) -> list[str]:
    return run(
        f"""
        attempt(lambda: manager.save(state(5, 1_000_000, 1), 1, wait=False).result(60))
        threads_now = len(os.listdir("/proc/self/task"))
        resource.setrlimit(resource.RLIMIT_NPROC, (threads_now + {limit} - 1,) * 2)
        {AS_NOBODY}
        for mode in ("copy", "stream"):
            attempt(lambda: manager.save(state(5, 1_000_000, 2), 2, wait=False, snapshot=mode).result(60))
        attempt(lambda: manager.save(state(5, 1_000_000, 2), 2).result())
        manager.close()
        print(threads())
        """,
        folder,
    )


@pytest.mark.parametrize("limit", [1, 3, 5, 11])
def test_limit_of_threads_is_an_error_or_none_and_no_hang(limit: int) -> None:
    """With so many more threads than the program has, whichever thread it is that does not start."""
    with public_folder() as folder:
        os.chown(folder, 65534, 65534)
        lines = run_as_nobody(folder, limit)
        serials = holdfast.serials(folder)
        assert all(holdfast.verify(folder, serial=serial) for serial in serials)
        assert hidden(folder) == []

    assert lines[0] == "ok 0"
    assert len(lines) == 5
    for line in lines[1:4]:
        assert re.match(r"ok \d$|RuntimeError can't start new thread|StorageError .*can't start new thread", line), line
    assert lines[4] == "[]"
    assert len(serials) == sum(line.startswith("ok") for line in lines)
    if limit == 11:
        assert lines[1:4] == ["ok 1", "ok 2", "ok 3"]


@pytest.mark.parametrize("free", [0, 1, 4, 20, 140])
def test_limit_of_descriptors_is_an_error_or_none(free: int, tmp_path: Path) -> None:
    """A checkpoint of 300 files, with so many descriptors for it: the older one stays, and later saves work."""
    lines = run(
        f"""
        plan.UNCUT_BYTES, plan.MIN_CUT_BYTES = 0, 1 << 10
        manager.save(state(300, 1000, 1), 1, wait=False).result(60)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + {free}, limits[1]))
        before = len(os.listdir("/proc/self/fd")) if {free} else None
        for mode in ("copy", "stream"):
            attempt(lambda: manager.save(state(300, 1000, 2), 2, wait=False, snapshot=mode).result(60))
        if {free}:
            print(len(os.listdir("/proc/self/fd")) == before, threads())
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        attempt(lambda: manager.save(state(300, 1000, 3), 3, wait=False).result(60))
        """,
        tmp_path,
    )

    for line in lines[:2]:
        assert re.match(r"ok \d$|StorageError cannot .*: Too many open files", line), line
    if free:
        assert lines[2] == "True []"
    assert lines[-1].startswith("ok")
    target = {f"w{i}": np.zeros(1000, np.float32) for i in range(300)}
    for serial in holdfast.serials(tmp_path):
        step = holdfast.load_checkpoint(target, tmp_path, serial=serial).step
        assert {float(value) for array in target.values() for value in np.unique(array)} == {step}
    assert hidden(tmp_path) == []
    if free == 140:
        assert [line.split()[0] for line in lines[:2]] == ["ok", "ok"]


# Space


@pytest.mark.parametrize("wait", [True, False])
def test_disk_that_is_full_at_the_commit_leaves_the_older_one(wait: bool, tmp_path: Path) -> None:
    """The data fit, and then not one more page is left for the manifest."""
    with tmpfs(tmp_path / "disk", 8) as disk:
        filler = disk / "filler"

        class Filled(Untold):
            def create(self, path: str, size: int, *, direct: bool = False) -> object:
                if path.endswith("manifest.json") and self.armed:
                    with filler.open("wb", buffering=0) as file:
                        try:
                            while file.write(bytes(4096)):
                                pass
                        except OSError:
                            pass
                return super().create(path, size, direct=direct)

            armed = False

        store = Filled()
        manager = CheckpointManager(store.at(disk / "run"), max_to_keep=1)
        manager.save({"w": np.full(100_000, 1.0)}, 1)
        store.armed = True

        with pytest.raises(DiskFullError, match="no space in .*/run: .* bytes are needed, .* are free") as caught:
            manager.save({"w": np.full(100_000, 2.0)}, 2, wait=wait).result(60)

        assert caught.value.filename is None or "manifest" in caught.value.filename
        assert os.listdir(disk / "run") == ["checkpoint_0"]
        target = {"w": np.zeros(100_000)}
        assert manager.restore(target).step == 1
        assert (target["w"] == 1).all()
        filler.unlink()
        store.armed = False
        assert manager.save({"w": np.full(100_000, 3.0)}, 3, wait=wait).result(60) == 1


def test_disk_of_no_bytes_at_all_is_an_error_of_the_first_save(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", 1) as disk:
        try:
            with (disk / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            pass
        for store in (Untold(), holdfast.LocalStore()):
            manager = CheckpointManager(store.at(disk / "run"))
            with pytest.raises(DiskFullError, match="bytes are needed"):
                manager.save({"w": np.ones(10)}, 1, wait=False).result(60)
        assert not (disk / "run").exists() or os.listdir(disk / "run") == []
