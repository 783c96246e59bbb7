"""Promise 1 with real kills: a process that does nothing but save gets SIGKILL at random instants, many times in a row.

What the enumeration proves of every instant in a model, this shows of some instants in a kernel: threads, locks, direct
I/O and the page cache are the real ones. The instants are drawn over somewhat more than a save takes, so nearly all hit
a save; when exactly they hit decides nothing about whether the test passes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import holdfast

from . import sigkill_child
from .promise import HIDDEN, TALLY

KILLS = {"synchronous": 120, "asynchronous": 60}


class Lives:
    """The child process, and what its lives have reported.

    Attributes:
        steps: serial -> step of everything that a life reported as committed.
        last: the newest serial reported.
        saving: the step of the newest save begun.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, sigkill_child.__file__, str(folder), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # no threads in the process that forks
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.steps: dict[int, int] = {}
        self.saving = -1

    @property
    def last(self) -> int:
        return max(self.steps, default=-1)

    def live_for(self, seconds: float) -> list[str]:
        """What one life said: it is killed this long after its first save began."""
        self._input.write("\n")
        self._input.flush()
        life, lines = 0, []
        for line in self._output:
            word, *numbers = line.split()
            lines.append(word)
            if word == "born":
                life = os.pidfd_open(int(numbers[0]))  # a number could be given to another process
            elif word == "saving":
                self.saving = int(numbers[0])
                if lines.count("saving") == 1:
                    assert life
                    time.sleep(seconds)
                    signal.pidfd_send_signal(life, signal.SIGKILL)
            elif word == "committed":
                self.steps[int(numbers[0])] = int(numbers[1])
            elif word == "dead":
                os.close(life)
                return lines
        raise AssertionError(f"the child ended: {self._process.wait()}")

    def close(self) -> None:
        self._input.close()
        self._output.close()
        assert self._process.wait(timeout=30) == 0


@pytest.fixture(params=KILLS)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def lives(tmp_path: Path, mode: str) -> Iterator[Lives]:
    child = Lives(tmp_path / "run", mode)
    yield child
    child.close()


def test_a_process_killed_at_random_instants_loses_nothing_that_it_had_reported(
    tmp_path: Path, lives: Lives, mode: str
):
    kills, run = KILLS[mode], tmp_path / "run"
    rng = random.Random(41)
    one_save = seconds_of_a_save(tmp_path / "other")
    in_a_save = 0

    for _ in range(kills):
        lines = lives.live_for(rng.uniform(0, 1.5 * one_save))
        assert "resumed" in lines, "a life could not resume"
        in_a_save += bool(hidden_in(run))
        check(run, lives)

    assert in_a_save >= kills // 10, "the kills did not hit saves: this test proves nothing"
    TALLY.add("kills survived", f"SIGKILL, {mode}, {in_a_save} in the middle of a save", kills)
    holdfast.save_checkpoint(sigkill_child.state_of(0), run)
    assert not hidden_in(run)


def hidden_in(run: Path) -> list[str]:
    """What saves left behind."""
    return [name for name in os.listdir(run) if name.startswith(HIDDEN)] if run.exists() else []


def seconds_of_a_save(folder: Path) -> float:
    for _ in range(3):
        start = time.perf_counter()
        holdfast.save_checkpoint(sigkill_child.state_of(0), folder, max_num_checkpoints=2)
    return time.perf_counter() - start


def check(run: Path, lives: Lives) -> None:
    """What was reported is there; nothing is there that was not saved; all of it loads."""
    listed = holdfast.serials(run)
    unreported = [serial for serial in listed if serial > lives.last]
    assert len(unreported) <= 1, "a life saves one checkpoint at a time"
    steps = {**lives.steps, **dict.fromkeys(unreported, lives.saving)}
    if lives.steps:
        assert lives.last in listed
        older = [serial for serial in lives.steps if serial < lives.last]
        assert unreported or not older or max(older) in listed, "the second newest was retired without a newer one"
    assert set(listed) <= set(steps)

    for serial in listed:
        check_content(run, serial, steps[serial])
    if listed:
        check_content(run, None, steps[listed[-1]])
    lives.steps = {serial: steps[serial] for serial in listed}  # what the next life may count on: it has seen them


def check_content(run: Path, serial: int | None, step: int) -> None:
    holdfast.verify(run, serial=serial)
    target = sigkill_child.state_of(-2)
    report = holdfast.load_checkpoint(target, run, serial=serial)

    assert report.trainer_args == {"step": step}
    wanted = sigkill_child.state_of(step)
    for part, name in (("model", "w"), ("model", "b"), ("frozen", "e"), ("optimizer", "m")):
        found = getattr(target[part], "tree", target[part])[name]
        assert np.array_equal(found, getattr(wanted[part], "tree", wanted[part])[name]), f"{part}.{name} of {serial}"
    assert target["optimizer"]["step"] == step
