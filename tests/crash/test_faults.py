"""Faults at every call: the system refuses one, or is interrupted, and the older checkpoints never notice.

Each fault is tried at each recorded call in turn, until a save runs to its end without meeting it. After each stands a
save without a fault, so whatever the faulty one left locked, half-written or unclosed shows at once.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import holdfast
from holdfast.storage import LocalStore

from .promise import HIDDEN, TALLY, ParamsNote, RunNote, check_listed, check_loaded, in_memory, state_of
from .recorder import Fault, Recorder, read_folder, write_folder
from .scenario import Check, Scenario, check_the_model, check_the_run, judge

T = TypeVar("T")
WRITES = frozenset({"pwrite", "pwritev"})
GROWS = WRITES | {"mkdir", "create", "posix_fallocate", "link"}
FILLS = GROWS | {"fsync", "ftruncate", "close", "rename"}  # delayed allocation, network quota, a longer folder
FAULTS: dict[str, Callable[[int], Fault]] = {
    "ENOSPC": lambda index: Fault(index, errno.ENOSPC, calls=FILLS),
    "EIO": lambda index: Fault(index, errno.EIO),
    "EACCES": lambda index: Fault(index, errno.EACCES),
    "EINTR": lambda index: Fault(index, errno.EINTR),
    "a short write": lambda index: Fault(index, calls=WRITES),
    "short writes from then on": lambda index: Fault(index, lasting=True, calls=WRITES),
    "a full disk from then on": lambda index: Fault(index, errno.ENOSPC, lasting=True, calls=GROWS),
    "a dead disk from then on": lambda index: Fault(index, errno.EIO, lasting=True),
}
every_fault = pytest.mark.parametrize("name", FAULTS)


def each_fault(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[Fault]:
    """The fault at the first recorded call, at the second …, up to the first that no call meets.

    The disk is each time as it was at the start.
    """
    start = read_folder(scenario.root)
    for index in itertools.count():
        fault = FAULTS[name](index)
        shutil.rmtree(scenario.root)
        scenario.root.mkdir()
        write_folder(scenario.root, start)
        scenario.recorder = Recorder(scenario.root)
        with scenario.recorder.installed(monkeypatch):
            yield fault
        scenario.recorder.check()
        if not fault.struck:
            assert index > 5, "a save has more calls than that"
            return
        TALLY.add("faults injected", name, 1)


def outcome(scenario: Scenario, fault: Fault, call: Callable[[], T]) -> T | None:
    """What the call returns while the fault is on; None if it raised the right error."""
    with nothing_left_behind():
        scenario.recorder.fault = fault
        result = None
        try:
            with scenario.small_buffers(8192):
                result = call()
        except holdfast.StorageError as error:
            check_error(error, fault)
        finally:
            scenario.recorder.fault = None
        for raised in fault.raised:  # their frames hold what was open then, such as a mapped file
            raised.__traceback__ = None
    return result


def check_error(error: holdfast.StorageError, fault: Fault) -> None:
    """The error is due, is of the right class, and has the system's error as its cause."""
    assert fault.raised, f"an error without a fault: {error!r}"
    assert any(error.__cause__ is raised for raised in fault.raised), f"{error!r} hides its cause"
    assert error.errno == fault.error
    assert isinstance(error, holdfast.DiskFullError) == (fault.error == errno.ENOSPC)
    assert fault.error != errno.EINTR or fault.struck[0] not in WRITES, "an interrupted write is to be repeated"


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """No thread and no descriptor outlives what is done inside."""
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    alive = set(threading.enumerate()) - threads
    assert not alive, f"still running: {alive}"
    assert open_descriptors() == descriptors


def open_descriptors() -> dict[str, str]:
    """Every descriptor of this process, and what it leads to."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def hidden_in(folder: Path) -> list[str]:
    """What saves left behind in a folder."""
    return [name for name in os.listdir(folder) if name.startswith(HIDDEN)] if folder.exists() else []


@every_fault
def test_fault_at_every_call_of_a_save_that_rotates(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, name: str):
    before = scenario.given(1, 2)
    for fault in each_fault(scenario, monkeypatch, name):
        serial = outcome(scenario, fault, lambda: scenario.save(3, keep=2))

        note = before.saving(3, retires=(0,))
        if serial is not None:
            assert serial == 2
            note = note.done()
        listed = check_listed(LocalStore().at(scenario.run), note)
        if fault.raised:
            check_power_cut(scenario, note, check_the_run)
        with nothing_left_behind():
            assert scenario.save(4, keep=2) == max(listed) + 1
        assert holdfast.serials(scenario.run) == [max(listed), max(listed) + 1]
        assert not hidden_in(scenario.run)


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "a full disk from then on", "a dead disk from then on"])
def test_fault_at_every_call_of_an_asynchronous_save(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, name: str):
    before = scenario.given(1, 2)
    for fault in each_fault(scenario, monkeypatch, name):
        serial = outcome(scenario, fault, lambda: scenario.save_beside(3, keep=2))

        note = before.saving(3, retires=(0,))
        if serial is not None:
            assert serial == 2
            note = note.done()
        listed = check_listed(LocalStore().at(scenario.run), note)
        with nothing_left_behind():
            assert scenario.save_beside(4, keep=2) == max(listed) + 1
        assert not hidden_in(scenario.run)


def check_power_cut(scenario: Scenario, note: RunNote | ParamsNote, check: Check) -> None:
    """The power fails right after a call that met a fault.

    If that call returned, it has not taken a sync that failed for one that was done; if it raised, its cleaning up has
    not destroyed what an unsynced rename may bring back.
    """
    scenario.recorder.note(note)
    for state in scenario.states(first=len(scenario.recorder.log), subsets=0, singles=2):
        judge(state, check, in_memory(state.snapshot, exchange=scenario.exchange))


@every_fault
def test_fault_at_every_call_of_a_first_save(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, name: str):
    for fault in each_fault(scenario, monkeypatch, name):
        serial = outcome(scenario, fault, lambda: scenario.save(1))

        note = RunNote(saved={0: 1}, required=frozenset() if serial is None else frozenset({0}))
        listed = check_listed(LocalStore().at(scenario.run), note)
        assert scenario.save(2) == max(listed, default=-1) + 1
        assert not hidden_in(scenario.run)


@every_fault
@pytest.mark.parametrize("exchange", [True, False])
def test_fault_at_every_call_of_save_params(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, exchange: bool
):
    scenario: Scenario = request.getfixturevalue("scenario" if exchange else "plain_scenario")
    scenario.given_model(1)
    model = LocalStore().at(scenario.model)
    for fault in each_fault(scenario, monkeypatch, name):
        returned = outcome(scenario, fault, lambda: [holdfast.save_params(state_of(2), scenario.model)])

        note = ParamsNote(frozenset({2} if returned else {1, 2}))
        check_loaded(model, note)
        if fault.raised:
            check_power_cut(scenario, note, check_the_model)
        holdfast.save_params(state_of(3), scenario.model)
        check_loaded(model, ParamsNote(frozenset({3})))
        assert not hidden_in(scenario.model.parent)


# --- interrupts --------------------------------------------------------------------------------------------------


def test_interrupt_in_any_progress_call_leaves_the_older_checkpoints_and_nothing_else(scenario: Scenario):
    note = scenario.given(1, 2)
    with nothing_left_behind():
        number = interrupted_saves(scenario, note)

    assert number > 3
    assert holdfast.serials(scenario.run) == [1, 2]


def interrupted_saves(scenario: Scenario, note: RunNote) -> int:
    """How many progress calls a save makes; each of them was once where it was interrupted."""
    for number in itertools.count():
        calls = itertools.count()

        def interrupt(_: object, calls: Iterator[int] = calls, number: int = number) -> None:
            if next(calls) == number:
                raise KeyboardInterrupt

        try:
            holdfast.save_checkpoint(state_of(3), scenario.run, max_num_checkpoints=2, progress=interrupt)
        except KeyboardInterrupt:
            check_listed(LocalStore().at(scenario.run), note)
            assert not hidden_in(scenario.run)
            TALLY.add("interrupts", "in a progress call", 1)
        else:
            return number
    raise AssertionError


def each_signal(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, call: Callable[[], T]) -> Iterator[T | None]:
    """What the call returns with a SIGINT while a system call is under way, in whichever thread; None if interrupted.

    The main thread is interrupted wherever it is at that moment.
    """
    main = threading.main_thread().ident
    assert main is not None
    monkeypatch.setitem(FAULTS, "SIGINT", lambda i: Fault(i, action=lambda: signal.pthread_kill(main, signal.SIGINT)))
    threads = len(os.listdir("/proc/self/task"))
    for fault in each_fault(scenario, monkeypatch, "SIGINT"):
        scenario.recorder.fault = fault
        result = None
        with scenario.small_buffers(8192):
            with contextlib.suppress(KeyboardInterrupt):
                result = call()
            # Not join(): up to Python 3.12 one that is interrupted takes a thread that still runs for one that ended.
            deadline = time.monotonic() + 30
            while len(os.listdir("/proc/self/task")) > threads:
                assert time.monotonic() < deadline, "a thread is still running"
                time.sleep(0.001)
        scenario.recorder.fault = None
        yield result


def test_signal_at_every_call_of_a_save_leaves_the_older_checkpoints(scenario: Scenario, monkeypatch):
    before = scenario.given(1, 2).saving(3, retires=(0,))
    for serial in each_signal(scenario, monkeypatch, lambda: scenario.save(3, keep=2)):
        note = before if serial is None else before.done()
        listed = check_listed(LocalStore().at(scenario.run), note)
        check_power_cut(scenario, note, check_the_run)
        assert scenario.save(4, keep=2) == max(listed) + 1
        assert not hidden_in(scenario.run)


@pytest.mark.parametrize("exchange", [True, False])
def test_signal_at_every_call_of_save_params_leaves_the_old_or_the_new(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, exchange: bool
):
    scenario: Scenario = request.getfixturevalue("scenario" if exchange else "plain_scenario")
    scenario.given_model(1)
    for returned in each_signal(scenario, monkeypatch, lambda: [holdfast.save_params(state_of(2), scenario.model)]):
        note = ParamsNote(frozenset({2} if returned else {1, 2}))
        check_loaded(LocalStore().at(scenario.model), note)
        check_power_cut(scenario, note, check_the_model)
        holdfast.save_params(state_of(3), scenario.model)
        assert not hidden_in(scenario.model.parent)


CHILD = """
import signal, sys
import numpy as np
import holdfast

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has jobs in the background ignore it

folder = sys.argv[1]
state = {"w": np.ones((512, 1024), np.float32)}
holdfast.save_checkpoint(state, folder)

def wait_for_the_signal(progress):
    print("saving", flush=True)
    sys.stdin.readline()

try:
    holdfast.save_checkpoint(state, folder, progress=wait_for_the_signal)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_in_a_real_process_leaves_the_older_checkpoint_and_no_attempt(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)

    assert output.splitlines() == ["interrupted"]
    assert process.returncode == 0
    assert os.listdir(tmp_path / "run") == ["checkpoint_0"]
    holdfast.verify(tmp_path / "run")
