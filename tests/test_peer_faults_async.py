"""Faults that were seen in the asynchronous and threaded saves of other libraries, named after their number in the list of them.

E3 a full disk in a worker thread is a success · E8 a full disk that everybody waits for · E9 a hung storage that nobody names ·
E10 optimizer state given to another layer of the same shape · E11 metadata before data, stale metadata, lost errors
"""

# ruff: noqa: N802  the names of the faults are part of the tests' names

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import holdfast
from disks import Untold, ext4, tmpfs
from holdfast import CheckpointManager, DiskFullError, LocalStore
from holdfast.engine import background, plan
from support import contents

MIB = 1 << 20


def state(fill: float, mebibytes: float = 2) -> dict[str, Any]:
    return {
        "model": holdfast.parameters([np.full(int(mebibytes * MIB / 16), fill) for _ in range(2)]),
        "step": int(fill),
    }


def same(manager: CheckpointManager, fill: float, **options: Any) -> bool:
    target = state(-1)
    manager.restore(target, **options)
    return bool(contents(target) == contents(state(fill)))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast")]


@pytest.fixture(params=[tmpfs, ext4])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A real file system with space for a checkpoint of 2 MiB, and none for another of 12."""
    with request.param(tmp_path / "disk", 12) as folder:
        yield folder


# E3


def synchronous(manager: CheckpointManager) -> Any:
    return manager.save(state(2, 12), 2)


def result(manager: CheckpointManager) -> Any:
    return manager.save(state(2, 12), 2, wait=False).result(60)


def next_call(manager: CheckpointManager) -> Any:
    handle = manager.save(state(2, 12), 2, wait=False)
    while not handle.done():
        handle._pending.wait(60)  # type: ignore[union-attr]
    assert not handle.committed()
    return manager.save(state(3), 3)


def streamed(manager: CheckpointManager) -> Any:
    return manager.save(state(2, 12), 2, wait=False, snapshot="stream").result(60)


@pytest.mark.parametrize("told", [synchronous, result, next_call, streamed])
@pytest.mark.parametrize("direct", [True, False])
def test_E3_full_disk_is_an_error_and_leaves_the_older_checkpoint(
    small_disk: Path, direct: bool, told: Callable[[CheckpointManager], Any], caplog: pytest.LogCaptureFixture
) -> None:
    manager = CheckpointManager(Untold(direct=direct).at(small_disk / "run"))
    manager.save(state(1), 1)

    with pytest.raises(
        DiskFullError, match=r"no space in .*run: 12,\d{3},\d{3} bytes are needed, \S+ .*are free"
    ) as caught:
        told(manager)

    assert caught.value.errno == errno.ENOSPC
    root = caught.value
    while root.__cause__ is not None:
        root = root.__cause__  # type: ignore[assignment]
    where = [frame.name for frame in traceback.extract_tb(root.__traceback__)]
    assert ("_work" in where) == (not direct), "without direct I/O it is a writer thread that meets the end"
    assert os.listdir(small_disk / "run") == ["checkpoint_0"]
    assert manager.all_steps() == [1]
    assert same(manager, 1)
    assert threads() == []
    assert manager.save(state(3), 3).result() == 1, "the space is free again"
    assert same(manager, 3)


LIMITED = """
import os, resource, sys
import numpy as np
import holdfast

class Buffered(holdfast.LocalStore):
    def create(self, path, size, *, direct=False):
        return super().create(path, size)

run = holdfast.Location(holdfast.LocalStore() if sys.argv[2] == "direct" else Buffered(), sys.argv[1])
manager = holdfast.CheckpointManager(run)
manager.save({"w": np.ones(1000)}, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
handle = manager.save({"w": np.ones(1_000_000)}, 2, wait=False)
try:
    handle.result(60)
except holdfast.StorageError as error:
    print(error.errno, handle.committed(), error)
print(os.listdir(sys.argv[1]))
holdfast.verify(sys.argv[1])
"""


@pytest.mark.parametrize("io", ["direct", "buffered"])
def test_E3_limit_of_a_files_size_is_an_error(io: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), io], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    told, left = done.stdout.splitlines()
    assert re.match(rf"{errno.EFBIG} False cannot \w+ .*/state-00001-of-00001.safetensors: File too large", told)
    assert left == "['checkpoint_0']"
    assert "the save of step 2 failed: StorageError: cannot" in done.stderr


# E8, as far as there is one process


def test_E8_full_disk_is_reported_at_once_and_everybody_who_waits_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of 40 files meets the end: not much more is begun, and no one of four waiting threads waits on."""
    monkeypatch.setattr(plan, "UNCUT_BYTES", 0)
    monkeypatch.setattr(plan, "MIN_CUT_BYTES", 1 << 10)
    made: list[str] = []

    class Counting(Untold):
        def create(self, path: str, size: int, *, direct: bool = False) -> Any:
            made.append(path)
            return super().create(path, size, direct=direct)

    told: list[BaseException] = []

    def wait(waiting: Callable[[], Any]) -> None:
        try:
            waiting()
        except BaseException as error:
            told.append(error)

    with tmpfs(tmp_path / "disk", 1) as disk:
        manager = CheckpointManager(Counting(direct=False).at(disk / "run"))
        handle = manager.save({f"w{i}": np.full(80_000, float(i)) for i in range(40)}, 1, wait=False)
        waiting = [threading.Thread(target=wait, args=(lambda: handle.result(60),)) for _ in range(4)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join(60)

        assert [type(error) for error in told] == [DiskFullError] * 4
        assert all("bytes are needed" in str(error) for error in told)
        assert isinstance(told[0].__cause__, OSError)
        assert len(made) < 20
        assert threads() == []
        with pytest.raises(DiskFullError):
            manager.save(
                {f"w{i}": np.full(80_000, float(i)) for i in range(40)}, 1, wait=False, snapshot="stream"
            ).result(60)
        assert os.listdir(disk / "run") == []


# E9

OPERATIONS = [
    "list", "make_folder", "claim", "create", "write_at", "sync", "close", "sync_folder", "rename", "remove",
]  # fmt: skip
VERBS = {
    "list": "listing", "make_folder": "making", "claim": "locking", "create": "creating", "write_at": "writing",
    "sync": "syncing", "close": "closing", "sync_folder": "syncing", "rename": "renaming", "remove": "removing",
}  # fmt: skip


class Hanging(LocalStore):
    """A local file system of which one operation does not return before it is released, as when a server is gone."""

    def __init__(self, operation: str) -> None:
        self._operation, self.released, self.reached = operation, threading.Event(), threading.Event()
        self.armed = False

    def hang(self) -> None:
        if self.armed:
            self.reached.set()
            assert self.released.wait(60)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name != self._operation:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.hang()
            return found(*args, **options)

        return call

    def create(self, path: str, size: int, *, direct: bool = False) -> Any:
        writer = super().create(path, size, direct=direct)
        if self._operation in ("write_at", "sync", "close"):
            real = getattr(writer, self._operation)

            def call(*args: Any) -> Any:
                self.hang()
                return real(*args)

            setattr(writer, self._operation, call)
        return writer


@pytest.mark.parametrize("operation", OPERATIONS)
def test_E9_wait_that_ends_says_which_save_and_what_hangs(operation: str, tmp_path: Path) -> None:
    store = Hanging(operation)
    manager = CheckpointManager(store.at(tmp_path), max_to_keep=1, when_busy="refuse")
    manager.save(state(1), 1)
    store.armed = True

    handle = manager.save(state(2), 2, wait=False)
    try:
        assert store.reached.wait(60)
        expected = rf"the save of step 2 is not done after 0\.01 s; it goes on: .*{VERBS[operation]} {tmp_path}\S* for \d+\.\d s"
        with pytest.raises(TimeoutError, match=expected):
            handle.result(timeout=0.01)
        with pytest.raises(TimeoutError, match=expected):
            manager.wait_until_finished(0.01)
        with pytest.raises(TimeoutError, match=expected):
            manager.close(0.01)
        refused = manager.save(state(3), 3, wait=False)  # the loop goes on, since that was its choice
        assert (refused.committed(), refused.done()) == (False, True)
        assert refused.reason.startswith("the save of step 2 is still being written")
    finally:
        store.released.set()
    assert handle.result(60) == 1
    assert same(manager, 2)


def test_E9_wait_without_a_limit_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "HANGING_SECONDS", 0.05)
    store = Hanging("sync")
    manager = CheckpointManager(store.at(tmp_path))
    store.armed = True
    manager.save(state(1), 1, wait=False)

    class Release(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for the save of step 1" in record.getMessage():
                store.released.set()

    listener = Release()
    logging.getLogger("holdfast").addHandler(listener)
    try:
        manager.save(state(2), 2)
    finally:
        logging.getLogger("holdfast").removeHandler(listener)
        store.released.set()

    assert re.search(
        rf"waiting for the save of step 1 for \d s: .*syncing {tmp_path}/\.attempt-0-\w+/\S+ for", caplog.text
    )
    assert manager.all_steps() == [1, 2]


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import holdfast

class Hanging(holdfast.LocalStore):
    def sync_folder(self, path):
        waiting.wait(30)
        print("hangs", flush=True)
        while True:
            time.sleep(1)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has jobs in the background ignore it
waiting = threading.Event()
manager = holdfast.CheckpointManager(holdfast.Location(Hanging(), sys.argv[1]))
try:
    manager.save({"w": np.ones(10)}, 1, wait=False)
    waiting.set()
    manager.wait_until_finished()
except KeyboardInterrupt:
    try:
        manager.wait_until_finished(0.1)
    except TimeoutError as error:
        print(error, flush=True)
        os._exit(7)
"""


def test_E9_wait_can_be_interrupted_and_the_program_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(2)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 7
    assert re.match(rf"the save of step 1 is not done after 0\.1 s; it goes on: syncing {tmp_path.parent} for", out)


# E10


def trained(names: list[str]) -> dict[str, Any]:
    """Layers of one shape, their Adam moments and a count each; every value says whose it is."""

    def of(kind: int) -> dict[str, Any]:
        return {name: {"w": np.full((3, 5), kind * 1000 + ord(name[0]), np.float32)} for name in names}

    return {
        "model": holdfast.parameters(of(1)),
        "optimizer": {"exp_avg": of(2), "exp_avg_sq": of(3), "step": {name: ord(name[0]) for name in names}},
    }


def zeroed(tree: Any) -> Any:
    for key, value in (tree.tree if not isinstance(tree, dict) else tree).items():
        if isinstance(value, np.ndarray):
            value[...] = 0
        elif isinstance(value, int):
            tree[key] = 0
        else:
            zeroed(value)
    return tree


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("names", [["b", "a", "c"], ["c", "b", "a"]])
def test_E10_moments_stay_with_their_layer_whatever_the_order(names: list[str], wait: bool, tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(trained(["a", "b", "c"]), 1, wait=wait)
    target = zeroed(trained(names))

    manager.restore(target)

    assert contents(target) == contents(trained(names))


class Net:
    """Layers in the order of their making, as in any framework, with a state by name."""

    def __init__(self, names: list[str]) -> None:
        self.layers = trained(names)["model"].tree

    def state_dict(self) -> dict[str, Any]:
        return {f"{name}.w": layer["w"] for name, layer in self.layers.items()}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        for name, layer in self.layers.items():
            layer["w"] = values[f"{name}.w"]


def test_E10_objects_with_states_by_name_too(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"net": Net(["a", "b", "c"])}, tmp_path)
    net = Net(["c", "a", "b"])
    zeroed(net.layers)

    holdfast.load_checkpoint({"net": net}, tmp_path)

    assert contents(net.layers) == contents(Net(["c", "a", "b"]).layers)


@pytest.mark.parametrize("wait", [True, False])
def test_E10_values_that_change_places_are_not_linked_under_the_old_name(
    wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files are in the older checkpoint, byte for byte but for the name in the header."""
    monkeypatch.setattr(plan, "UNCUT_BYTES", 0)
    monkeypatch.setattr(plan, "MIN_CUT_BYTES", 16)
    names = ["a", "b", "c"]
    moments = trained(names)["optimizer"]["exp_avg"]
    manager = CheckpointManager(tmp_path)
    manager.save({"m": moments}, 1)
    moments["a"]["w"], moments["b"]["w"] = moments["b"]["w"], moments["a"]["w"]

    manager.save({"m": moments}, 2, wait=wait)
    manager.wait_until_finished()

    found: dict[str, np.ndarray] = {}
    for file in (tmp_path / "checkpoint_1").glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
    assert {name: chr(int(array[0, 0]) - 2000) for name, array in found.items()} == {
        "m.a.w": "b", "m.b.w": "a", "m.c.w": "c",
    }  # fmt: skip


# E11


class Ordered(LocalStore):
    """Says what was done, in which order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def create(self, path: str, size: int, *, direct: bool = False) -> Any:
        self.events.append(("create", path))
        writer, events = super().create(path, size, direct=direct), self.events

        class Writing:
            def __getattr__(self, name: str) -> Any:
                if name in ("write_at", "truncate", "sync"):
                    events.append((name, path))
                return getattr(writer, name)

        return Writing()

    def rename(self, source: str, target: str) -> None:
        self.events.append(("rename", source))
        super().rename(source, target)


@pytest.mark.parametrize("snapshot", ["copy", "stream"])
@pytest.mark.parametrize("files", ["one", "many"])
def test_E11_no_metadata_before_the_data_are_synced(
    files: str, snapshot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if files == "many":
        monkeypatch.setattr(plan, "UNCUT_BYTES", 0)
        monkeypatch.setattr(plan, "MIN_CUT_BYTES", 16)
    store = Ordered()

    with CheckpointManager(store.at(tmp_path)) as manager:
        manager.save({f"w{i}": np.full(1000, float(i)) for i in range(30)}, 1, wait=False, snapshot=snapshot)

    manifest = store.events.index(
        ("create", next(path for what, path in store.events if path.endswith("manifest.json")))
    )
    before, after = store.events[:manifest], store.events[manifest:]
    data = {path for what, path in before if what == "create"}
    assert len([path for path in data if path.endswith(".safetensors")]) == (30 if files == "many" else 1)
    assert {path for what, path in before if what == "sync"} == data, "all of it is on the disk"
    assert {path for what, path in after if what != "rename"} == {store.events[manifest][1]}, "and nothing comes later"
    assert after[-1][0] == "rename"


def test_E11_second_save_to_the_same_path_leaves_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.saving.plan_files", lambda variables: plan.plan_files(variables, 4000))
    path = tmp_path / "model"
    holdfast.save_params({f"w{i}": np.full(500, float(i)) for i in range(5)}, path)
    (path / "config.json").write_text("{}")
    assert len(list(path.glob("model-*-of-00005.safetensors"))) == 5
    assert (path / "model.safetensors.index.json").exists()

    holdfast.save_params({"v": np.ones(3)}, path)

    assert sorted(os.listdir(path)) == ["config.json", "manifest.json", "model.safetensors"]
    manifest = json.loads(
        (path / "manifest.json").read_bytes().partition(b"\n")[2] or (path / "manifest.json").read_bytes()
    )
    assert "w0" not in json.dumps(manifest)
    assert os.listdir(tmp_path) == ["model"]
    assert list(safetensors.numpy.load_file(path / "model.safetensors")) == ["v"]
    with pytest.raises(holdfast.MismatchError, match="w0"):
        holdfast.load_params({"w0": np.zeros(500)}, path)


def test_E11_second_save_of_a_step_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, max_to_keep=1)
    manager.save({"a": np.ones(5), "only in the first": 1}, 7, metrics={"loss": 1.0}, trainer_args={"epoch": 1})
    manager.save({"b": np.ones(5)}, 7, wait=False)
    manager.wait_until_finished()

    assert os.listdir(tmp_path) == ["checkpoint_1"]
    with holdfast.open(tmp_path) as checkpoint:
        assert list(checkpoint) == ["b"]
    (found,) = manager.checkpoints()
    assert (found.manifest.step, found.manifest.metrics) == (7, {})
    assert manager.restore({"b": np.zeros(5)}).trainer_args is None


class Failing(LocalStore):
    """The disk fails in one operation of the data's way."""

    def __init__(self, operation: str) -> None:
        self.operation = ""
        self.later = operation

    def _fail(self, operation: str) -> None:
        if self.operation == operation:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def create(self, path: str, size: int, *, direct: bool = False) -> Any:
        self._fail("create manifest" if path.endswith("manifest.json") else "create")
        writer, store = super().create(path, size, direct=direct), self

        class Writing:
            def __getattr__(self, name: str) -> Any:
                def call(*args: Any) -> Any:
                    store._fail(name)
                    return getattr(writer, name)(*args)

                return call if name in ("write_at", "sync", "truncate") else getattr(writer, name)

        return Writing()

    def rename(self, source: str, target: str) -> None:
        self._fail("rename")
        super().rename(source, target)

    def make_folder(self, path: str) -> None:
        self._fail("make_folder")
        super().make_folder(path)


@pytest.mark.parametrize("operation", ["make_folder", "create", "write_at", "sync", "create manifest", "rename"])
@pytest.mark.parametrize("asked", ["result", "save", "restore", "wait_until_finished", "close", "log"])
def test_E11_errors_of_the_background_always_reach_the_caller(
    operation: str, asked: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing(operation)
    manager = CheckpointManager(store.at(tmp_path))
    manager.save(state(1), 1)
    store.operation = operation

    handle = manager.save(state(2), 2, wait=False)
    handle._pending.wait(60)  # type: ignore[union-attr]
    store.operation = ""

    calls: dict[str, Callable[[], Any]] = {
        "result": lambda: handle.result(60),
        "save": lambda: manager.save(state(3), 3, wait=False),
        "restore": lambda: manager.restore(state(0)),
        "wait_until_finished": manager.wait_until_finished,
        "close": manager.close,
    }
    assert re.search("the save of step 2 failed: StorageError: .*Input/output error", caplog.text)
    if asked != "log":
        with pytest.raises(holdfast.StorageError, match="Input/output error") as caught:
            calls[asked]()
        assert caught.value.errno == errno.EIO
    assert not handle.committed()
    assert manager.all_steps() == [1]
    assert os.listdir(tmp_path) == ["checkpoint_0"]
    manager._pending = None
    assert same(manager, 1)
