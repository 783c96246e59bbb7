"""Asynchronous saves in real processes: their ends, signals and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import holdfast

HEAD = """
import os, signal, sys, time
import numpy as np
import holdfast

run = sys.argv[1]
state = {"w": np.zeros((1500, 1000)), "step": -1}

def at(step):
    state["w"][...] = step
    state["step"] = step
    return state
"""


def start(program: str, run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(program), str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err


def saved(run: Path) -> int:
    """The step of the newest checkpoint, which holds what it held at the call; nothing else is left in the folder."""
    state = {"w": np.zeros((1500, 1000)), "step": -1}
    holdfast.load_checkpoint(state, run)
    assert (state["w"] == state["step"]).all()
    assert not [name for name in os.listdir(run) if name.startswith(".")]
    return int(state["step"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("del manager", 0),
        ("import gc; del manager; gc.collect(); sys.exit(0)", 0),
    ],
)
def test_program_that_ends_meanwhile_finishes_its_save(end: str, status: int, tmp_path: Path) -> None:
    program = f"""
    manager = holdfast.CheckpointManager(run)
    manager.save(at(1), 1)
    manager.save(at(2), 2, wait=False)
    at(3)
    {end}
    """
    code, _, err = finish(start(program, tmp_path))

    assert code == status, err
    assert saved(tmp_path) == 2
    assert ("ZeroDivisionError" in err) == (end == "1 / 0")


def test_program_that_ends_says_that_its_save_failed(tmp_path: Path) -> None:
    program = """
    class Full(holdfast.LocalStore):
        def create(self, path, size, *, direct=False):
            raise OSError(28, "No space left on device", path)

    manager = holdfast.CheckpointManager(holdfast.Location(Full(), run))
    manager.save(at(2), 2, wait=False)
    sys.exit(5)
    """
    code, _, err = finish(start(program, tmp_path))

    assert code == 5
    assert "the save of step 2 failed: DiskFullError: no space in" in err
    assert os.listdir(tmp_path) == []


def test_memory_that_is_being_prepared_does_not_hold_the_end(tmp_path: Path) -> None:
    program = """
    manager = holdfast.CheckpointManager(run)
    manager.prepare({"w": np.zeros((1 << 30,), np.uint8)})
    """
    code, _, err = finish(start(program, tmp_path))

    assert (code, err) == (0, "")


def test_sigterm_saves_the_last_step_and_the_loop_ends_by_itself(tmp_path: Path) -> None:
    program = """
    manager = holdfast.CheckpointManager(run, save_interval_steps=1_000_000)
    manager.save_on_signal(signal.SIGTERM)
    print("ready", flush=True)
    with manager:
        for step in range(1, 1_000_000):
            stop = manager.preempted  # before the save: what comes after it is acted on at the next step
            handle = manager.save(at(step), step, force=stop, wait=False)
            if stop:
                break
    print(handle.step, handle.result(), flush=True)
    """
    process = start(program, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)

    assert code == 0, err
    step, serial = map(int, out[0].split())
    assert saved(tmp_path) == step
    assert serial in (
        0,
        1,
    )  # 1: the signal came between the question and the save, which then had saved the step before


def test_sigterm_in_the_middle_of_a_save_lets_it_finish(tmp_path: Path) -> None:
    """The signal comes between any two instructions: also in the copy, also while a save in flight is waited for."""
    program = """
    manager = holdfast.CheckpointManager(run, max_to_keep=2)
    manager.save_on_signal(signal.SIGTERM)
    step = 0
    print("ready", flush=True)
    while not manager.preempted:
        step += 1
        manager.save(at(step), step, wait=False)
    manager.save(at(step + 1), step + 1, wait=False)
    manager.close()
    print(step + 1, flush=True)
    """
    for _ in range(3):
        process = start(program, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        code, out, err = finish(process)
        assert code == 0, err
        assert saved(tmp_path) == int(out[0])


def test_fork_in_the_middle_of_a_save_harms_neither(tmp_path: Path) -> None:
    program = """
    manager = holdfast.CheckpointManager(run)
    manager.save_on_signal(signal.SIGTERM)
    manager.save(at(1), 1, wait=False).result()
    handle = manager.save(at(2), 2, wait=False)
    at(3)
    child = os.fork()
    if child == 0:
        told = False
        try:
            if not handle.done():
                handle.result()
        except RuntimeError as error:
            told = "only process" in str(error)
        other = holdfast.CheckpointManager(run + "-child")
        other.save(at(7), 7, wait=False).result()
        manager.save(at(8), 8, wait=False).result()
        print("child", handle.done() or told, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)  # this process is none that saves when it is told to end
        time.sleep(30)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM, status
    assert not manager.preempted
    print("parent", handle.result(), flush=True)
    """
    code, out, err = finish(start(program, tmp_path / "run"))

    assert code == 0, err
    assert out == ["child True", "parent 1"]
    assert saved(tmp_path / "run-child") == 7
    steps = [found.manifest.step for found in holdfast.CheckpointManager(tmp_path / "run").checkpoints()]
    assert sorted(steps) == [1, 2, 8]
    for serial in holdfast.serials(tmp_path / "run"):
        holdfast.verify(tmp_path / "run", serial=serial)


def test_forked_child_does_not_pay_for_the_snapshots_memory(tmp_path: Path) -> None:
    """Its pages are not in the child, so the next copy in the parent writes into them without a fault for each."""
    program = """
    import resource
    manager = holdfast.CheckpointManager(run)
    manager.save(at(1), 1, wait=False).result()
    arena = manager._pool._arena
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arena[::4096] = 1
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(faults)
    """
    code, out, err = finish(start(program, tmp_path))

    assert code == 0, err
    assert int(out[0]) < 100  # of 2,930 pages of 4 KiB
