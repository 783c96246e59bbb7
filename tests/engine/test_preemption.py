"""Signals that are noted: who is called, who comes first, and what happens once nobody listens any more."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import CheckpointManager, LocalStore
from holdfast.engine.preemption import Preemption

SIGNAL = signal.SIGUSR1


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """The handler that was there before, and what it saw; afterwards all is as it was."""
    calls: list[int] = []
    before = [(number, signal.getsignal(number)) for number in (SIGNAL, signal.SIGUSR2, signal.SIGINT)]
    signal.signal(SIGNAL, lambda number, _: calls.append(number))
    yield calls
    for number, handler in before:
        signal.signal(number, handler)


def state_of(*watchers: Preemption) -> list[bool]:
    return [watcher.has_come for watcher in watchers]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_watchers_may_be_released_in_any_order(order: tuple[int, int], seen: list[int]) -> None:
    original = signal.getsignal(SIGNAL)
    watchers = [Preemption(), Preemption()]
    for watcher in watchers:
        watcher.watch(SIGNAL)
    os.kill(os.getpid(), SIGNAL)
    assert state_of(*watchers) == [True, True]
    assert seen == [SIGNAL]

    first, second = watchers[order[0]], watchers[order[1]]
    first.release()
    first.has_come = second.has_come = False
    os.kill(os.getpid(), SIGNAL)
    assert state_of(first, second) == [False, True], "only one of them listens"
    second.release()
    os.kill(os.getpid(), SIGNAL)

    assert seen == [SIGNAL] * 3
    assert state_of(first) == [False]
    if order == (1, 0):
        assert signal.getsignal(SIGNAL) is original


def ends_by_signal(prepare: str) -> None:
    """In a child: after `prepare` the signal does what it does by default, which is to end the process."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            exec(prepare, {**globals(), "SIGNAL": signal.SIGUSR2})
            os.kill(os.getpid(), signal.SIGUSR2)
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGUSR2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "prepare",
    [
        "a, b = Preemption(), Preemption(); a.watch(SIGNAL); b.watch(SIGNAL); a.release(); b.release()",
        "a, b = Preemption(), Preemption(); a.watch(SIGNAL); b.watch(SIGNAL); b.release(); a.release()",
        "a, b = Preemption(), Preemption(); a.watch(SIGNAL); b.watch(SIGNAL); a.watch(SIGNAL); a.release(); b.release()",
        "a = Preemption(); a.watch(SIGNAL); a.abandon()",
        "a = Preemption(); a.watch(SIGNAL); t = threading.Thread(target=a.release); t.start(); t.join()",
        "m = CheckpointManager('never'); m.save_on_signal(SIGNAL); del m; gc.collect()",
    ],
)
def test_signal_ends_the_process_again_once_nobody_listens(prepare: str) -> None:
    ends_by_signal(prepare)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_released_watcher_does_not_end_a_process_in_which_another_one_listens() -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(SIGNAL, signal.SIG_DFL)
            a, b = Preemption(), Preemption()
            a.watch(SIGNAL)
            b.watch(SIGNAL)
            a.release()
            os.kill(os.getpid(), SIGNAL)
            status = 0 if (a.has_come, b.has_come) == (False, True) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_two_that_watch_twice_do_not_call_each_other_for_ever(seen: list[int]) -> None:
    a, b = Preemption(), Preemption()
    for watcher in (a, b, a, b):
        watcher.watch(SIGNAL)

    os.kill(os.getpid(), SIGNAL)

    assert state_of(a, b) == [True, True]


def test_second_ctrl_c_interrupts_and_the_first_does_not() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = Preemption()
    watcher.watch(signal.SIGINT, signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR2)

    os.kill(os.getpid(), signal.SIGINT)

    assert watcher.is_pending
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    watcher.release()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_that_watches_listens_itself(seen: list[int]) -> None:
    """A program that puts itself into the background by forking, after its manager was made."""
    watcher = Preemption()
    watcher.watch(SIGNAL)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.kill(os.getpid(), SIGNAL)
            before = watcher.has_come
            watcher.watch(SIGNAL)
            os.kill(os.getpid(), SIGNAL)
            status = 0 if (before, watcher.has_come) == (False, True) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    watcher.release()


def test_release_in_another_thread_is_no_error(seen: list[int]) -> None:
    watcher = Preemption()
    watcher.watch(SIGNAL)
    thread = threading.Thread(target=watcher.release)
    thread.start()
    thread.join()

    os.kill(os.getpid(), SIGNAL)

    assert not watcher.has_come
    assert seen == [SIGNAL]


def test_manager_lives_and_listens_until_its_save_is_over(tmp_path: Path) -> None:
    class Slow(LocalStore):
        def rename(self, source: str, target: str) -> None:
            assert go.wait(30)
            super().rename(source, target)

    go = threading.Event()
    manager = CheckpointManager(Slow().at(tmp_path))
    manager.save_on_signal(SIGNAL)
    preemption, gone = manager._preemption, weakref.ref(manager)
    handle = manager.save({"n": 1}, 1, wait=False)
    del manager
    gc.collect()

    os.kill(os.getpid(), SIGNAL)

    assert preemption.has_come
    go.set()
    assert handle.result(30) == 0
    preemption.has_come = False
    gc.collect()
    assert gone() is None
    os.kill(os.getpid(), SIGNAL)
    assert not preemption.has_come
