"""Scenario: a temporary disk, a call that is recorded on it, and the proof over every crash in that call."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

import holdfast
from holdfast.engine import buffers
from holdfast.storage import LocalStore, Location, local

from .disk import CrashState, Entries, Operation, Snapshot, crash_states
from .promise import TALLY, ParamsNote, RunNote, Violation, check_params, check_run, in_memory, state_of
from .recorder import Recorder, UnsyncedOs, volatile, without_exchange, write_folder

RUN = "runs/digits"
MODEL = "models/digits"
Note = RunNote | ParamsNote | tuple[RunNote, ParamsNote]
Check = Callable[[Location, Any], None]


def check_the_run(root: Location, note: RunNote) -> None:
    """Promise 1 for the scenario's run folder."""
    check_run(root, RUN, note)


def check_the_model(root: Location, note: ParamsNote) -> None:
    """Promise 1 for the scenario's folder of parameters."""
    check_params(root, MODEL, note)


def check_both(root: Location, notes: tuple[RunNote, ParamsNote]) -> None:
    """Promise 1 for both folders."""
    check_run(root, RUN, notes[0])
    check_params(root, MODEL, notes[1])


class Scenario:
    """A disk on which everything so far is durable.

    Attributes:
        root: the folder that stands for the disk.
        recorder: of the call that is to be proven; set by `recording`.
    """

    recorder: Recorder

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, exchange: bool = True) -> None:
        self.root = folder / "disk"
        self.root.mkdir()
        self.run = self.root / RUN
        self.model = self.root / MODEL
        self.exchange = exchange
        self._spare = folder
        self._monkeypatch = monkeypatch
        self._others = itertools.count()
        monkeypatch.setattr(local, "os", UnsyncedOs())
        if not exchange:
            monkeypatch.setattr(local, "renameat2", without_exchange)

    def another(self, snapshot: Snapshot) -> Scenario:
        """Another disk of the same kind, which holds this."""
        folder = self._spare / f"{next(self._others)}"
        folder.mkdir()
        other = Scenario(folder, self._monkeypatch, exchange=self.exchange)
        write_folder(other.root, snapshot)
        return other

    def after_kills(self) -> Iterator[tuple[Scenario, Recorder]]:
        """This disk after a kill of the recorded call, once for each change of a folder that counts in the protocol.

        All that was done is visible, and some of it unsynced; the recorder knows of what, and goes on from there.
        """
        start, log = self.recorder.start, self.recorder.log
        counts = (*RUN.split("/"), *MODEL.split("/"), "checkpoint_", ".", "manifest")  # not each data file
        for end, operation in enumerate(log, 1):
            if not isinstance(operation, Entries) or not any(n.startswith(counts) for n, _ in operation.changes):
                continue
            other = self.another(volatile(start, log[:end]))
            yield other, Recorder(other.root, before=(start, log[:end]))

    def save(self, step: int, keep: int = 50) -> int:
        """Save a checkpoint; its serial."""
        args = {"step": step}
        return holdfast.save_checkpoint(state_of(step), self.run, trainer_args=args, max_num_checkpoints=keep)

    def save_beside(self, step: int, keep: int = 50, mode: Literal["copy", "stream"] = "copy") -> int:
        """Save a checkpoint beside a loop that changes the state at once; its serial."""
        manager = holdfast.CheckpointManager(self.run, max_to_keep=keep)
        state = state_of(step)
        handle = manager.save(state, step, trainer_args={"step": step}, wait=False, snapshot=mode)
        for part in ("model", "frozen"):
            for array in state[part].tree.values():
                array[...] = 77
        state["optimizer"]["m"][...] = 77
        state["rng"].random(5)
        serial = handle.result()
        assert serial is not None
        return serial

    def given(self, *steps: int) -> RunNote:
        """Durable checkpoints, one for each step, with the serials 0, 1, …"""
        serials = [self.save(step) for step in steps]
        return RunNote(saved=dict(zip(serials, steps, strict=True)), required=frozenset(serials))

    def given_model(self, step: int) -> ParamsNote:
        """Durable parameters."""
        holdfast.save_params(state_of(step), self.model)
        return ParamsNote(allowed=frozenset({step}))

    @contextmanager
    def recording(self, note: Note, recorder: Recorder | None = None) -> Iterator[Recorder]:
        """Record what is done inside, beginning with what is known at the start."""
        self.recorder = recorder or Recorder(self.root)
        with self.small_buffers(), self.recorder.installed(self._monkeypatch):
            self.recorder.note(note)
            yield self.recorder
        self.recorder.check()

    @contextmanager
    def small_buffers(self, size_bytes: int = 4096) -> Iterator[None]:
        """Staging buffers of a page or so: a small state is written in many pieces by several threads."""
        with self._monkeypatch.context() as patch:
            patch.setattr(buffers, "STAGING_BYTES", size_bytes)
            patch.setattr(buffers, "_free", {})
            yield

    def states(self, log: Sequence[Operation] | None = None, **bounds: int) -> Iterator[CrashState]:
        """Every state after a crash in the recorded call (or in another log from the same start)."""
        log = self.recorder.log if log is None else log
        for state in crash_states(self.recorder.start, log, seed=len(log), **bounds):
            if state.about is not None:
                yield state

    def prove(self, what: str, check: Check, *, on_disk_every: int = 50, **bounds: int) -> None:
        """Check every state in a memory store, and some in the local one as well."""
        count = 0
        for count, state in enumerate(self.states(**bounds), 1):
            judge(state, check, in_memory(state.snapshot, exchange=self.exchange))
            if count % on_disk_every == 0:
                folder = self._spare / "state"
                folder.mkdir()
                write_folder(folder, state.snapshot)
                judge(state, check, LocalStore().at(folder))
                shutil.rmtree(folder)
        assert count > 0
        TALLY.add("crash states checked", what, count)


def judge(state: CrashState, check: Check, root: Location) -> None:
    """Check one state; the violation tells the crash's story."""
    try:
        check(root, state.about)
    except Violation as violation:
        raise Violation(f"{violation}\n{state.story()}") from violation
