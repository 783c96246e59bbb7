"""Asynchronous saves under attack: what is done to the arrays, the threads, the memory and the signals of a save in flight."""

from __future__ import annotations

import errno
import gc
import linecache
import mmap
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CheckpointManager, LocalStore, StorageError
from holdfast.engine import crew, pages, plan, snapshot
from support import contents


class Gate(LocalStore):
    """A local file system that makes no file before it is opened: it holds a save in flight."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.error: OSError | None = None

    def create(self, path: str, size: int, *, direct: bool = False) -> Any:
        assert self.opened.wait(60)
        if self.error is not None:
            raise self.error
        return super().create(path, size, direct=direct)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast")]


def zeros(state: dict[str, Any]) -> dict[str, Any]:
    return {name: np.zeros_like(np.asarray(value)) for name, value in state.items()}


# What is done to the arrays after the call


def resize(array: np.ndarray) -> None:
    array.resize((3,), refcheck=False)


def grow(array: np.ndarray) -> None:
    array.resize((3_000_000,), refcheck=False)


def reshape(array: np.ndarray) -> None:
    array.shape = (1000, 300)


def retype(array: np.ndarray) -> None:
    array.dtype = np.uint8  # type: ignore[misc]


def scramble(array: np.ndarray) -> None:
    array[...] = array[::-1].copy()


@pytest.mark.parametrize("mode", ["copy", "stream"])
@pytest.mark.parametrize(
    ("change", "size"),
    [(change, size) for change in (resize, grow, retype, scramble) for size in (3_000, 300_000)] + [(reshape, 300_000)],
)
def test_array_may_become_another_one_after_the_call(
    change: Callable[[np.ndarray], None], mode: Any, size: int, gate: Gate, tmp_path: Path
) -> None:
    state = {"a": np.ones(7), "w": np.arange(float(size)), "z": np.full(9, 2, np.int8)}
    expected = contents(state)
    target = zeros(state)
    manager = CheckpointManager(gate.at(tmp_path))
    if mode == "stream":
        gate.opened.set()

    handle = manager.save(state, 1, wait=False, snapshot=mode)
    change(state["w"])
    gate.opened.set()
    handle.result(60)

    manager.restore(target)
    assert contents(target) == expected


def test_array_may_be_resized_without_force(gate: Gate, tmp_path: Path) -> None:
    """NumPy refuses to resize what somebody else refers to: a save in flight must not be one who does."""
    manager = CheckpointManager(gate.at(tmp_path))
    array = np.arange(100_000.0)
    state = {"w": array}
    handle = manager.save(state, 1, wait=False)
    del state

    array.resize((10,))

    gate.opened.set()
    assert handle.result(60) == 0


def test_arrays_of_the_state_are_let_go_while_the_copy_is_written(gate: Gate, tmp_path: Path) -> None:
    """A loop that makes new arrays at each step would else have its old ones beside their copy."""
    manager = CheckpointManager(gate.at(tmp_path))
    array = np.arange(100_000.0)
    gone = weakref.ref(array)
    handle = manager.save({"w": array}, 1, wait=False)

    del array

    assert gone() is None
    gate.opened.set()
    assert handle.result(60) == 0


def test_views_that_overlap_and_arrays_that_are_read_only_are_those_of_the_call(gate: Gate, tmp_path: Path) -> None:
    base = np.arange(40_000.0)
    fixed = base.view()
    fixed.flags.writeable = False
    state = {"a": base[:30_000], "b": base[10_000:], "t": base.reshape(200, 200).T, "r": base[::-3], "fixed": fixed}
    state["windows"] = np.lib.stride_tricks.as_strided(base, (100, 50), (8, 8))
    expected = {name: contents(np.ascontiguousarray(value)) for name, value in state.items()}
    manager = CheckpointManager(gate.at(tmp_path))

    handle = manager.save(state, 1, wait=False)
    base[...] = -1
    gate.opened.set()
    handle.result(60)

    with holdfast.open(tmp_path) as checkpoint:
        assert {name: contents(np.ascontiguousarray(checkpoint[name][...])) for name in state} == expected


def test_file_of_a_memory_map_may_be_truncated_after_the_call(gate: Gate, tmp_path: Path) -> None:
    """To touch a page beyond the end of its file kills a process."""
    path = tmp_path / "mapped"
    path.write_bytes(np.arange(100_000.0).tobytes())
    mapped = np.memmap(path, np.float64, "r+")
    manager = CheckpointManager(gate.at(tmp_path / "run"))

    handle = manager.save({"m": mapped, "view": mapped[5000:70_000]}, 1, wait=False)
    os.truncate(path, 0)
    gate.opened.set()
    handle.result(60)

    target = {"m": np.zeros(100_000), "view": np.zeros(65_000)}
    manager.restore(target)
    assert np.array_equal(target["m"], np.arange(100_000.0))
    assert np.array_equal(target["view"], target["m"][5000:70_000])


class Counter:
    """An object whose parts are changed in place after the call, down to the last list."""

    def __init__(self) -> None:
        self.inner = {"n": 1, "seen": [[1], {"deep": [2, 3]}], "w": np.ones(3), "f": 0.5}

    def state_dict(self) -> dict[str, Any]:
        return self.inner  # its own, not a copy

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self.inner = values


def test_values_arguments_and_metrics_are_those_of_the_call(gate: Gate, tmp_path: Path) -> None:
    counter, arguments, metrics = Counter(), {"epoch": [1, {"k": [2]}]}, {"loss": 0.25}
    rng, old = np.random.default_rng(3), random.Random(4)
    state = {"c": counter, "rng": rng, "old": old, "legacy": np.random.RandomState(5), "deep": [{"n": [1]}]}
    expected = contents(state)
    manager = CheckpointManager(gate.at(tmp_path), best=("loss", "min"))

    handle = manager.save(state, 1, wait=False, metrics=metrics, trainer_args=arguments)
    counter.inner["n"] += 1
    counter.inner["seen"][1]["deep"].append(9)  # type: ignore[index]
    counter.inner["w"] *= 0  # type: ignore[operator]
    arguments["epoch"][1]["k"].append(7)  # type: ignore[index]
    metrics["loss"] = 9.0
    state["deep"][0]["n"].clear()  # type: ignore[index]
    state["legacy"].random(3)  # type: ignore[attr-defined]
    rng.random(5), old.random()
    gate.opened.set()
    handle.result(60)

    report = manager.restore(state)
    assert contents(state) == expected
    assert report.trainer_args == {"epoch": [1, {"k": [2]}]}
    assert manager.checkpoints()[0].manifest.metrics == {"loss": 0.25}


def test_very_many_variables_are_those_of_the_call(tmp_path: Path) -> None:
    state = {f"v{i:05}": np.full(i % 3, i, np.int32) for i in range(30_000)} | {"large": np.ones(3_000_000)}
    expected = contents(state)
    target = zeros(state)

    with CheckpointManager(tmp_path) as manager:
        manager.save(state, 1, wait=False)
        for array in state.values():
            array += 1

    manager.restore(target)
    assert contents(target) == expected


# Calls that come at the same time, or from within another


def test_saves_from_several_threads_do_not_mix(tmp_path: Path) -> None:
    """They would all copy into the same memory."""
    manager = CheckpointManager(tmp_path, max_to_keep=None)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for k in range(8):
                state = {"w": np.full(400_000, number * 100 + k, np.int32), "n": number * 100 + k}
                handle = manager.save(state, number * 100 + k, wait=k % 4 == 3)
                state["w"][...] = -1
                if k % 2:
                    assert handle.result(60) is not None
                else:
                    manager.wait_until_finished()
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    manager.close()

    assert failures == []
    found = manager.checkpoints()
    assert sorted(f.manifest.step for f in found) == [n * 100 + k for n in range(4) for k in range(8)]
    for f in found:
        target = {"w": np.zeros(400_000, np.int32), "n": 0}
        holdfast.load_checkpoint(target, tmp_path, serial=f.serial)
        assert (target["w"] == f.manifest.step).all(), f.manifest.step
        assert target["n"] == f.manifest.step


@pytest.mark.parametrize("call", ["save", "prepare", "close"])
def test_call_from_within_a_save_is_an_error_and_no_hang(call: str, tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)

    class Meddling:
        def state_dict(self) -> dict[str, Any]:
            {"save": lambda: manager.save({}, 2), "prepare": lambda: manager.prepare({}), "close": manager.close}[
                call
            ]()
            return {}

        def load_state_dict(self, _: dict[str, Any]) -> None: ...

    with pytest.raises(RuntimeError, match=rf"{call}\(\) was called from within save\(\)"):
        manager.save({"m": Meddling()}, 1, wait=False)
    assert manager.save({"n": 1}, 3, wait=False).result(60) == 0


def test_signal_handler_that_saves_during_a_save_is_told_of_the_other_way(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    before = signal.signal(signal.SIGUSR1, lambda *_: manager.save({"n": 2}, 2))
    try:
        with pytest.raises(
            RuntimeError, match=r"save\(\) was called from within save\(\).*leave signals to save_on_signal"
        ):
            manager.save({"w": np.ones(100)}, 1, progress=lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.listdir(tmp_path) == []
    assert manager.save({"n": 1}, 3).result() == 0


def test_two_managers_in_one_folder_save_side_by_side(tmp_path: Path) -> None:
    managers = [CheckpointManager(tmp_path, max_to_keep=2) for _ in range(2)]
    handles = []
    for step in range(6):
        for number, manager in enumerate(managers):
            handles.append(manager.save({"w": np.full(100_000, step * 10 + number)}, step * 10 + number, wait=False))
    for manager in managers:
        manager.close()

    assert sorted(handle.serial for handle in handles) == list(range(12))  # type: ignore[type-var]
    assert len(managers[0].serials()) == 2
    target = {"w": np.zeros(100_000, int)}
    assert managers[0].restore(target).step == target["w"][0]
    for serial in managers[0].serials():
        holdfast.verify(tmp_path, serial=serial)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_two_handles_each_tell_of_their_own(gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.at(tmp_path))
    gate.opened.set()
    first = manager.save({"n": 1}, 1, wait=False)
    first.result(60)
    gate.error = OSError(errno.EIO, "Input/output error")
    second = manager.save({"n": 2}, 2, wait=False)
    with pytest.raises(StorageError):
        second.result(60)
    gate.error = None
    third = manager.save({"n": 3}, 3, wait=False)

    assert (first.result(60), third.result(60)) == (0, 1)
    with pytest.raises(StorageError):
        second.result(60)
    assert [handle.committed() for handle in (first, second, third)] == [True, False, True]


def test_handle_that_nobody_keeps_changes_nothing(gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.at(tmp_path))
    manager.save({"w": np.ones(100_000)}, 1, wait=False)
    gc.collect()
    gate.opened.set()
    manager.wait_until_finished()
    assert manager.all_steps() == [1]

    gate.error = OSError(errno.EIO, "Input/output error")
    manager.save({"n": 2}, 2, wait=False)
    gc.collect()
    with pytest.raises(StorageError):
        manager.wait_until_finished()


# Memory and threads


@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_failed_save_leaves_no_memory_threads_or_files_although_its_error_is_kept(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(LocalStore):
        def create(self, path: str, size: int, *, direct: bool = False) -> Any:
            writer = super().create(path, size, direct=False)

            def fail(*_: Any) -> None:
                raise OSError(errno.EIO, "Input/output error", path)

            writer.write_at = fail  # type: ignore[method-assign]
            return writer

    arenas: list[weakref.ref[Any]] = []
    real = pages.allocate

    def allocate(nbytes: int, *device: Any) -> np.ndarray:
        made = real(nbytes, *device)
        if nbytes > 10_000_000:  # no staging buffer, which stays for the next save
            arenas.append(weakref.ref(made.base))  # type: ignore[arg-type]
        return made

    monkeypatch.setattr(pages, "allocate", allocate)
    manager = CheckpointManager(Broken().at(tmp_path))
    array = np.ones(2_000_000)
    of_array = weakref.ref(array)
    descriptors = len(os.listdir("/proc/self/fd"))
    errors = []
    for step in range(5):
        try:
            manager.save({"w": array}, step, wait=False, snapshot=mode).result(60)
        except StorageError as error:
            errors.append(error)
    manager.close()
    del array

    assert len(errors) == 5
    assert threads() == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert of_array() is None
    assert [arena() is None for arena in arenas] == [True] * (mode == "copy")


def test_error_that_is_asked_for_often_does_not_grow(gate: Gate, tmp_path: Path) -> None:
    gate.error = OSError(errno.EIO, "Input/output error")
    gate.opened.set()
    handle = CheckpointManager(gate.at(tmp_path)).save({"n": 1}, 1, wait=False)
    lengths = []
    for _ in range(20):
        try:
            handle.result(60)
        except StorageError as error:
            trace, length = error.__traceback__, 0
            while trace is not None:
                trace, length = trace.tb_next, length + 1
            lengths.append(length)

    assert lengths[0] == lengths[-1]


def test_memory_that_cannot_grow_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save({"w": np.ones(100)}, 1, wait=False).result(60)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        for call in (manager.prepare, lambda state: manager.save(state, 2, wait=False)):
            with pytest.raises(MemoryError, match=r'8,00\d,\d{3} bytes.*snapshot="stream"'):
                call({"w": np.ones(1_000_000)})

    assert manager.save({"w": np.ones(1_000_000)}, 3, wait=False).result(60) == 1


def test_crew_does_not_return_before_its_threads_whatever_a_signal_handler_raises() -> None:
    """A handler that calls sys.exit is the most common one; a file must not be closed while a thread writes to it."""
    go, over = threading.Event(), []
    made = crew.Crew()

    def work() -> None:
        go.wait(30)
        over.append(True)

    def leave(*_: Any) -> None:
        go.set()
        sys.exit(3)

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        made.start(work, "work")
        threading.Timer(0.1, signal.raise_signal, [signal.SIGUSR1]).start()
        with pytest.raises(SystemExit):
            made.wait()
        assert over == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_thread_that_comes_late_does_not_work_after_the_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in `start`, and a machine so busy that the thread has not run at all when `wait` looks for it."""
    worked: list[bool] = []
    real = threading.Thread._bootstrap  # type: ignore[attr-defined]

    def late(self: threading.Thread) -> None:
        time.sleep(0.4)
        real(self)

    made = crew.Crew()
    monkeypatch.setattr(threading.Thread, "_bootstrap", late)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            made.start(lambda: worked.append(True), "late")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    monkeypatch.undo()
    made.wait()
    had_worked = list(worked)
    time.sleep(0.6)

    assert worked == had_worked


# Interrupts


class Interrupter:
    """Raises KeyboardInterrupt in the main thread at the n-th line of Holdfast that it runs.

    But not at the end of a `with` that lets a lock go. That is a line for a tracer; signals are looked for after calls and jumps
    only, and there is none between the end of the block and the release.
    """

    def __init__(self, at: int) -> None:
        self.lines, self.at = 0, at
        self._withs: set[tuple[FrameType, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if "/holdfast/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
                place = (frame, frame.f_lineno)
                if place in self._withs:
                    return self
                self._withs.add(place)
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self


# It comes in a generator's end too, and where a tracer can but a signal cannot: in a `with` that then leaves its file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_interrupt_at_any_line_leaves_a_manager_that_saves_and_nothing_of_the_save(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old checkpoints hold, no thread stays, and what is committed all the same is whole and of its own call."""
    monkeypatch.setattr(plan, "UNCUT_BYTES", 0)
    monkeypatch.setattr(snapshot, "PIECE_BYTES", 8 << 20)
    live = {"w": np.zeros(30_000), "v": np.zeros(1000), "n": 0}

    def at(step: int) -> dict[str, Any]:
        live["w"][...], live["v"][...], live["n"] = step, step, step  # type: ignore[index]
        return live

    def interrupted(number: int) -> int:
        """Lines that the save ran, if it was not interrupted."""
        interrupter = Interrupter(number)
        sys.settrace(interrupter)
        try:
            manager.save(at(3 * number), 3 * number, wait=False, snapshot=mode)
        except KeyboardInterrupt:
            return 0
        finally:
            sys.settrace(None)
            gc.enable()  # a line that does so may have been the one
            at(-1)
        return interrupter.lines

    manager = CheckpointManager(tmp_path, max_to_keep=3)
    manager.save(at(1), 1, wait=False)
    lines = interrupted(10**9)
    assert lines > 300
    manager.wait_until_finished()
    stride = max(1, lines // 150)
    for number in range(1, lines + 1, stride):
        interrupted(number)
        handle = manager.save(at(3 * number + 1), 3 * number + 1, wait=False, snapshot=mode)
        at(-1)
        handle.result(60)
        for found in manager.checkpoints():
            target = {"w": np.zeros(30_000), "v": np.zeros(1000), "n": 0}
            holdfast.load_checkpoint(target, tmp_path, serial=found.serial)
            step = found.manifest.step
            assert ((target["w"] == step).all(), (target["v"] == step).all(), target["n"]) == (True, True, step), number
        assert manager.latest_step() == 3 * number + 1
        assert threads() == [], number
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
    gc.collect()  # here, where such warnings are ignored, and not in a test to come


@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_interrupt_while_the_thread_starts_does_not_lose_sight_of_it(
    mode: Any, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Thread.start` waits for the thread to run, and there a Ctrl-C comes through: the thread writes all the same."""
    manager = CheckpointManager(gate.at(tmp_path))
    if mode == "stream":
        gate.opened.set()
    real = threading.Thread.start
    monkeypatch.setattr(snapshot, "COPY_THREADS", 1)

    def start(self: threading.Thread) -> None:
        real(self)
        if self.name.startswith("holdfast: the save"):
            raise KeyboardInterrupt

    state = {"w": np.full(500_000, 1.0)}
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            manager.save(state, 1, wait=False, snapshot=mode)
    state["w"][...] = 2
    threading.Timer(0.2, gate.opened.set).start()

    assert manager.save(state, 2, wait=False, snapshot=mode).result(60) == 1  # it has waited for the first
    target = {"w": np.zeros(500_000)}
    for serial, value in ((0, 1.0), (1, 2.0)):
        holdfast.load_checkpoint(target, tmp_path, serial=serial)
        assert (target["w"] == value).all()
