"""Saves beside training: what is saved is the state at the call, errors reach the caller, and nothing hangs or is left behind."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CheckpointManager, CheckpointNotFoundError, DiskFullError, MemoryStore, StorageError
from holdfast.engine import background, snapshot
from support import WrappedStore, contents, leaves


def state(fill: int) -> dict[str, Any]:
    """Arrays of every layout, a counter and a generator; all of it says which step it is."""
    rng = np.random.default_rng(fill)
    return {
        "model": holdfast.parameters(
            {"w": rng.random((300, 1000), np.float32), "t": rng.random((40, 90)).T, "b": np.full(5, fill, ">i4")}
        ),
        "frozen": holdfast.parameters({"e": np.arange(70_000.0)}, trainable=False),
        "slots": [np.full(n, fill, np.int16) for n in range(40)] + [np.full((60, 50), fill)[::2, ::-3]],
        "count": fill,
        "history": list(range(fill % 7)),
        "rng": rng,
    }


class Gate:
    """A store whose files cannot be made before it is opened: holds a save in flight."""

    def __init__(self) -> None:
        self.store = WrappedStore(create=self._create)
        self._open = threading.Event()
        self.error: OSError | None = None

    def _create(self, path: str, size: int, **options: Any) -> Any:
        assert self._open.wait(60)
        if self.error is not None:
            raise self.error
        return self.store.inner.create(path, size, **options)

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._open.clear()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


def restored(manager: CheckpointManager, **options: Any) -> Any:
    target = state(0)
    manager.restore(target, **options)
    return contents(target)


def hidden(run: Path) -> list[str]:
    return [name for name in os.listdir(run) if name.startswith(".")]


# What is saved


@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_state_of_the_call_is_saved_whatever_the_loop_does_next(mode: Any, tmp_path: Path) -> None:
    """Every array is overwritten as soon as the call returns, 100 times, while two threads keep the machine busy."""
    stop = threading.Event()
    rng = random.Random(3)

    def load() -> None:
        noise = np.random.default_rng().random((300, 300))
        while not stop.is_set():
            noise @ noise

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with CheckpointManager(tmp_path, max_to_keep=2) as manager:
            live = state(0)
            for step in range(100):
                fresh = state(step)
                for array, values in zip(leaves(live), leaves(fresh), strict=True):
                    array[...] = values
                live |= {"count": step, "history": fresh["history"], "rng": fresh["rng"]}
                handle = manager.save(live, step, wait=False, snapshot=mode)
                for array in leaves(live):
                    array[...] = 99
                live["count"] = -1
                live["history"].append(-1)
                live["rng"].random(7)
                if rng.random() < 0.3:
                    time.sleep(0.001)
                assert handle.result(60) == step
                assert restored(manager, step=step) == contents(state(step))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_handle_says_how_far_the_save_is(gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.store.at(tmp_path))

    handle = manager.save(state(3), 3, wait=False)

    assert (handle.step, handle.serial, handle.reason, handle.committed(), handle.done()) == (3, None, "", False, False)
    assert repr(handle) == "<SaveHandle step=3, in flight>"
    with pytest.raises(TimeoutError, match=r"the save of step 3 is not done after 0\.01 s; it goes on"):
        handle.result(0.01)
    with pytest.raises(TimeoutError, match="the save of step 3"):
        manager.wait_until_finished(0.01)
    gate.open()
    assert handle.result(60) == 0
    assert (handle.serial, handle.committed(), handle.done()) == (0, True, True)
    assert repr(handle) == "<SaveHandle step=3, serial=0>"
    manager.wait_until_finished()
    assert restored(manager) == contents(state(3))


def test_steps_between_need_no_wait(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, save_interval_steps=2)

    handle = manager.save(state(1), 1, wait=False)

    assert (handle.done(), handle.result(0)) == (True, None)
    assert repr(handle).startswith("<SaveHandle step=1, not saved: step 1 is not a multiple")


def test_progress_is_refused_beside_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="progress= needs wait=True"):
        CheckpointManager(tmp_path).save(state(1), 1, wait=False, progress=lambda _: None)
    with pytest.raises(ValueError, match='snapshot must be "copy" or "stream"'):
        CheckpointManager(tmp_path).save(state(1), 1, wait=False, snapshot="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='when_busy must be "wait" or "refuse"'):
        CheckpointManager(tmp_path, when_busy="skip")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_no_code_of_the_caller_runs_in_the_thread_that_writes(gate: Gate, tmp_path: Path) -> None:
    called: list[str] = []

    class Object:
        def state_dict(self) -> dict[str, Any]:
            called.append(threading.current_thread().name)
            return {"w": np.ones(3), "n": 1}

        def load_state_dict(self, _: dict[str, Any]) -> None: ...

    manager = CheckpointManager(gate.store.at(tmp_path))
    handle = manager.save({"object": Object()}, 1, wait=False)
    before = list(called)
    gate.open()
    handle.result(60)

    assert called == before
    assert set(called) == {threading.current_thread().name}


def test_arrays_are_let_go_once_they_are_written(tmp_path: Path) -> None:
    import weakref

    manager = CheckpointManager(tmp_path)
    array = np.ones(1000)
    handle = manager.save({"w": array}, 1, wait=False)
    handle.result(60)
    gone = weakref.ref(array)
    del array

    assert gone() is None


# One at a time


def test_second_save_waits_for_the_first(gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.store.at(tmp_path))
    first = manager.save(state(1), 1, wait=False)
    threading.Timer(0.05, gate.open).start()

    second = manager.save(state(2), 2, wait=False)

    assert first.done()
    assert (first.result(), second.result(60)) == (0, 1)


def test_second_save_is_refused_if_that_is_wanted(gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = CheckpointManager(gate.store.at(tmp_path), when_busy="refuse")
    first = manager.save(state(1), 1, wait=False)

    second = manager.save(state(2), 2, wait=False)

    assert (second.done(), second.committed(), second.result()) == (True, False, None)
    assert second.reason == "the save of step 1 is still being written; force=True waits for it"
    assert "step 2 is not saved" in caplog.text
    threading.Timer(0.05, gate.open).start()
    third = manager.save(state(3), 3, wait=False, force=True)
    assert (first.result(60), third.result(60)) == (0, 1)
    assert manager.all_steps() == [1, 3]


def test_save_that_waits_and_restore_wait_for_the_one_in_flight(gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.store.at(tmp_path), when_busy="refuse")
    manager.save(state(1), 1, wait=False)
    threading.Timer(0.05, gate.open).start()
    assert manager.save(state(2), 2).result() == 1

    gate.shut()
    manager.save(state(3), 3, wait=False)
    threading.Timer(0.05, gate.open).start()
    assert restored(manager) == contents(state(3))
    assert manager.all_steps() == [1, 2, 3]


def test_memory_is_used_again_and_given_back(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.prepare(state(1))
    arena = manager._pool._arena
    assert arena is not None
    for step in range(3):
        manager.save(state(step), step, wait=False).result(60)
    assert manager._pool._arena is arena

    manager.save({"w": np.zeros(1_000_000)}, 4, wait=False).result(60)
    assert manager._pool._arena is not arena
    manager.close()
    assert manager._pool.nbytes == 0
    manager.save(state(5), 5, wait=False).result(60)
    assert restored(manager) == contents(state(5))


def test_rotation_and_best_hold_beside_training(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path, max_to_keep=2, best=("loss", "min")) as manager:
        for step in range(6):
            manager.save(state(step), step, metrics={"loss": 0.0 if step == 1 else 1.0}, wait=False)

    assert manager.all_steps() == [1, 4, 5]
    assert hidden(tmp_path) == []


# Errors


def test_error_is_raised_by_the_handle_and_then_no_more(gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    manager = CheckpointManager(gate.store.at(tmp_path))
    gate.open()
    manager.save(state(1), 1).result()
    gate.error = OSError(errno.ENOSPC, "No space left on device")
    handle = manager.save(state(2), 2, wait=False)

    for _ in range(2):
        with pytest.raises(DiskFullError, match="no space in"):
            handle.result(60)
    assert (handle.committed(), handle.done()) == (False, True)
    assert repr(handle) == "<SaveHandle step=2, failed>"
    assert "the save of step 2 failed: DiskFullError: no space" in caplog.text
    gate.error = None
    assert manager.save(state(3), 3).result() == 1
    assert manager.all_steps() == [1, 3]
    assert hidden(tmp_path) == []


CALLS: dict[str, Callable[[CheckpointManager], Any]] = {
    "save": lambda m: m.save(state(9), 9),
    "save(wait=False)": lambda m: m.save(state(9), 9, wait=False),
    "save at a step between": lambda m: m.save(state(9), 10),
    "restore": lambda m: m.restore(state(0)),
    "prepare": lambda m: m.prepare(state(0)),
    "wait_until_finished": lambda m: m.wait_until_finished(),
    "close": lambda m: m.close(),
    "with": lambda m: m.__exit__(None, None, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_error_is_raised_by_the_next_call_once(name: str, gate: Gate, tmp_path: Path) -> None:
    manager = CheckpointManager(gate.store.at(tmp_path), save_interval_steps=3)
    gate.open()
    manager.save(state(1), 0)
    gate.error = OSError(errno.EIO, "Input/output error")
    handle = manager.save(state(2), 3, wait=False)
    while not handle.done():
        time.sleep(0.001)
    gate.error = None

    with pytest.raises(StorageError, match="cannot create .*: Input/output error"):
        CALLS[name](manager)

    CALLS[name](manager)
    assert 3 not in manager.all_steps()


def test_error_of_the_loop_is_not_hidden_by_that_of_the_save(gate: Gate, tmp_path: Path) -> None:
    gate.error = OSError(errno.EIO, "Input/output error")

    def train() -> None:
        with CheckpointManager(gate.store.at(tmp_path)) as manager:
            manager.save(state(2), 3, wait=False)
            gate.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()


def test_error_before_the_copy_is_raised_by_the_call(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run")

    with pytest.raises(holdfast.UnsupportedVariableError):
        manager.save({"bad": {1}}, 1, wait=False)

    manager.wait_until_finished()
    assert os.listdir(tmp_path) == []


def test_foreign_folder_is_an_error_of_the_handle(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "checkpoint_7")

    with pytest.raises(holdfast.ForeignFolderError):
        manager.save(state(1), 1, wait=False).result(60)


@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_thread_that_cannot_start_leaves_nothing(mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = CheckpointManager(tmp_path)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(background.threading, "Thread", refuse)
        if mode == "copy":
            patch.setattr(snapshot, "COPY_THREADS", 0)
        else:
            patch.setattr("holdfast.manager.Background", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            manager.save(state(1), 1, wait=False, snapshot=mode)

    assert os.listdir(tmp_path) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("holdfast")]
    assert manager.save(state(2), 2, wait=False).result(60) == 0


def test_writer_thread_that_dies_is_an_error_and_no_hang(tmp_path: Path) -> None:
    class Broken:
        direct = False

        def write_at(self, *_: Any) -> None:
            raise RuntimeError("it is broken")

        def truncate(self, *_: Any) -> None: ...

        def sync(self) -> None: ...

        def close(self) -> None: ...

    store = WrappedStore(create=lambda *_, **__: Broken())
    manager = CheckpointManager(store.at(tmp_path))

    handle = manager.save(state(1), 1, wait=False)

    with pytest.raises(StorageError, match="RuntimeError: it is broken"):
        handle.result(60)
    assert os.listdir(tmp_path) == []


def test_restore_while_nothing_was_ever_saved_is_as_before(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        CheckpointManager(tmp_path).restore(state(0))


# Signals


def test_signal_asks_for_a_save_whatever_the_interval(tmp_path: Path) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        manager = CheckpointManager(tmp_path, save_interval_steps=1000)
        manager.save_on_signal(signal.SIGUSR1)
        manager.save_on_signal(signal.SIGUSR1)
        assert not manager.preempted
        assert not manager.save(state(1), 1, wait=False).committed()

        os.kill(os.getpid(), signal.SIGUSR1)

        assert manager.preempted
        assert seen == [signal.SIGUSR1]
        assert manager.save(state(2), 2, wait=False).result(60) == 0
        assert manager.save(state(3), 3, wait=False).result(60) is None, "it was acted on"
        assert manager.preempted
        manager.close()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * 2
        assert manager.save(state(4), 4).result() is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signal_is_not_forgotten_if_the_save_fails(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path, save_interval_steps=1000) as manager:
        manager.save_on_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(holdfast.UnsupportedVariableError):
            manager.save({"bad": {1}}, 1)

        assert manager.save(state(2), 2).result() == 0


def test_signals_are_the_main_threads_business(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def ask() -> None:
        try:
            CheckpointManager(tmp_path).save_on_signal(signal.SIGUSR1)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert len(errors) == 1


def test_memory_stores_take_asynchronous_saves_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    manager = CheckpointManager(MemoryStore().at("run"))
    for step in range(3):
        manager.save(state(step), step, wait=False)
    manager.wait_until_finished()

    assert restored(manager, step=1) == contents(state(1))
    assert "files linked" in caplog.text


def test_state_without_arrays_is_saved_too(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    live: dict[str, Any] = {"epoch": 1, "w": np.zeros(0)}
    handle = manager.save(live, 1, wait=False)
    live["epoch"] = 2
    handle.result(60)

    assert manager.restore(live).step == 1
    assert live["epoch"] == 1
