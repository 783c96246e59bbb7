"""CheckpointManager: when to save, what to keep, and which checkpoint to restore."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast import runs
from holdfast.engine import catalog, retention
from holdfast.engine.arguments import whole_number
from holdfast.engine.catalog import Found
from holdfast.engine.commit import storage_errors
from holdfast.engine.match import Cast, Rename, Strict
from holdfast.engine.progress import ProgressOption
from holdfast.engine.report import LoadReport
from holdfast.errors import (
    CastError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    RestoreError,
    StorageError,
    VersionError,
)
from holdfast.format import layout
from holdfast.loading import Verify, load_checkpoint
from holdfast.saving import commit_checkpoint
from holdfast.storage import AnyPath, resolve

log = logging.getLogger(__name__)
_RELISTINGS = 20


@dataclass(frozen=True, slots=True)
class SaveHandle:
    """What became of a `CheckpointManager.save`.

    Attributes:
        step: the step it was called with.
        serial: of the new checkpoint; None if none was saved.
        reason: why none was saved; empty if one was.
    """

    step: int
    serial: int | None
    reason: str = ""

    def committed(self) -> bool:
        """Whether a new checkpoint is complete and durable."""
        return self.serial is not None

    def result(self) -> int | None:
        """The serial of the new checkpoint; None if this step was not to be saved."""
        return self.serial


class CheckpointManager:
    """Saves every so many steps, keeps what its rules ask for, and restores the newest checkpoint that verifies.

    A checkpoint is kept if *any* rule asks for it: among the newest `max_to_keep`, at a step of `keep_period`, among the best, or
    pinned. Only complete checkpoints count, and nothing is deleted before a newer one is committed.

    Args:
        checkpoint_dir: the run folder; the first save makes it.
        max_to_keep: how many of the newest stay; None keeps all.
        keep_period: every checkpoint whose step is a multiple of this stays.
        best: such as `("loss", "min")`: the checkpoints with the best value of this metric stay; those that lack it do not compete.
        keep_best: how many of those.
        save_interval_steps: `save` does nothing at steps that are not a multiple of this.

    Example:
        >>> import numpy as np, holdfast
        >>> state = {"w": np.zeros(2)}
        >>> manager = holdfast.CheckpointManager("runs/c", max_to_keep=2, save_interval_steps=10)
        >>> [manager.save(state, step).serial for step in (0, 5, 10)]
        [0, None, 1]
        >>> manager.restore(state).step
        10
    """

    def __init__(
        self,
        checkpoint_dir: AnyPath,
        *,
        max_to_keep: int | None = 3,
        keep_period: int | None = None,
        best: tuple[str, Literal["min", "max"]] | None = None,
        keep_best: int = 1,
        save_interval_steps: int = 1,
    ) -> None:
        if type(save_interval_steps) is not int or save_interval_steps < 1:
            raise ValueError(f"save_interval_steps must be a whole number from 1, not {save_interval_steps!r}")
        self._run = resolve(checkpoint_dir)
        self._rules = retention.Rules(max_to_keep, keep_period, best, keep_best)
        self._interval = save_interval_steps

    @property
    def checkpoint_dir(self) -> str:
        """The run folder."""
        return str(self._run)

    def save(
        self,
        state: Any,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        trainer_args: Any = None,
        force: bool = False,
        progress: ProgressOption = None,
    ) -> SaveHandle:
        """Save if the step is one to be saved; the checkpoint is durable when this returns.

        A step may be saved more than once, as happens after a resume from before it: each save gets a serial of its own,
        and the newest counts.

        Args:
            state: as for `save_checkpoint`.
            step: the training step, from 0.
            metrics: finite numbers by name; `best` looks at them.
            trainer_args: see `save_checkpoint`.
            force: save whatever the interval says, such as at the end of training.
            progress: see `save_params`.

        Raises:
            As `save_checkpoint`.
        """
        step = whole_number("step", step)
        if not force and step % self._interval:
            return SaveHandle(
                step,
                None,
                f"step {step} is not a multiple of save_interval_steps={self._interval}; force=True saves it",
            )
        serial = commit_checkpoint(
            state, self._run, trainer_id=0, trainer_args=trainer_args, rules=self._rules, step=step, metrics=metrics,
            progress=progress,
        )  # fmt: skip
        return SaveHandle(step, serial)

    def restore(
        self,
        state: Any,
        *,
        step: int | None = None,
        serial: int | None = None,
        strict: Strict = "exact",
        rename: Rename = None,
        skip: Collection[str] = (),
        cast: Cast = "forbid",
        verify: Verify = True,
        progress: ProgressOption = None,
    ) -> LoadReport:
        """Load the newest checkpoint that is whole; if it turns out to be damaged, the next older one, and so on.

        Each one that is passed over is logged as a warning. A mismatch with the state is raised at once: older
        checkpoints would not fit better.

        Args:
            state: as for `load_checkpoint`.
            step: the newest checkpoint of this step, and no other.
            serial: this checkpoint, and no other.
            strict, rename, skip, cast, verify, progress: see `load_params`.

        Raises:
            CheckpointNotFoundError: nothing was ever saved here, so training may begin at step 0. With `step` or `serial`:
                there is no such checkpoint.
            RestoreError: there are checkpoints, and none of them can be used, or the newest is damaged and an older one does not
                fit. Do not begin at step 0.
            MismatchError, CastError: it does not fit the state, which is untouched.
        """
        if step is not None and serial is not None:
            raise ValueError("give step= or serial=, not both")
        if verify is True and strict == "superset":
            # What only the damaged one holds would stay as it was overwritten, if an older one is loaded after it.
            verify = "before"
        failures: list[tuple[int, Exception]] = []
        candidates = self._candidates(step, serial)
        while candidates:
            candidate = candidates.pop(0)
            try:
                return load_checkpoint(
                    state, self._run, serial=candidate, strict=strict, rename=rename, skip=skip, cast=cast, verify=verify,
                    progress=progress,
                )  # fmt: skip
            except VersionError:
                raise  # it is sound: a newer Holdfast reads it
            except (CorruptCheckpointError, FormatError, CheckpointNotFoundError, StorageError) as error:
                if serial is not None or step is not None:
                    raise
                if self._run.store.stat((self._run / layout.checkpoint_folder(candidate)).path) is None:
                    # A rotation took it away meanwhile, so there is a newer one.
                    candidates = candidates or self._candidates(None, None)
                    continue
                if isinstance(error, StorageError) and error.errno != errno.EIO:
                    raise  # such as too many open files: that is no damage, and the checkpoint may be sound
                log.warning("checkpoint_%d cannot be restored, trying an older one: %s", candidate, error)
                failures.append((candidate, error))
            except (MismatchError, CastError) as error:
                if not failures:
                    raise  # the state is untouched
                failures.append((candidate, error))
                break
        listed = "\n".join(f"  checkpoint_{number}: {error}" for number, error in failures)
        raise RestoreError(
            f"none of the {len(failures)} checkpoints in {self._run} can be restored, and the state may be overwritten in "
            f"part; do not train on from it:\n{listed}",
            failures,
        ) from failures[-1][1]

    def _candidates(self, step: int | None, serial: int | None) -> list[int]:
        """Serials to try, the newest first; never empty."""
        with storage_errors(f"cannot list {self._run}"):
            if serial is not None:
                return [serial]
            if step is not None:
                found = self.checkpoints()
                of_step = [f.serial for f in reversed(found) if f.manifest.step == step]
                if not of_step:
                    known = ", ".join(str(f.manifest.step) for f in found) or "none"
                    raise CheckpointNotFoundError(
                        f"no complete checkpoint of step {step} in {self._run}; steps there: {known}"
                    )
                return of_step[:1]
            # Whatever is named like a checkpoint and is not empty: an unreadable one must not look like "nothing saved".
            for _ in range(_RELISTINGS):
                named = [number for number, is_folder in catalog.candidates(self._run) if is_folder]
                started = {number: self._is_started(number) for number in named}
                if any(started.values()):
                    return [number for number, is_started in started.items() if is_started]
                if None not in started.values():
                    raise CheckpointNotFoundError(f"no checkpoint in {self._run}: nothing was saved there yet")
            raise StorageError(f"the checkpoints in {self._run} are rotated out faster than they can be opened")

    def _is_started(self, serial: int) -> bool | None:
        """Whether a checkpoint's folder holds anything; None if it is gone."""
        try:
            return bool(self._run.store.list((self._run / layout.checkpoint_folder(serial)).path))
        except FileNotFoundError:
            return None

    def checkpoints(self) -> list[Found]:
        """The complete checkpoints with their manifests, ascending."""
        return runs.checkpoints(self._run)

    def serials(self) -> list[int]:
        """The serials of the complete checkpoints, ascending."""
        return runs.serials(self._run)

    def latest_serial(self) -> int | None:
        """The serial of the newest complete checkpoint; None if there is none."""
        return runs.latest_serial(self._run)

    def all_steps(self) -> list[int]:
        """The steps of the complete checkpoints, in the order in which they were saved."""
        return [found.manifest.step for found in self.checkpoints() if found.manifest.step is not None]

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        newest = next(catalog.complete(self._run), None)
        return None if newest is None else newest.manifest.step

    def best_serial(self) -> int | None:
        """The serial of the complete checkpoint with the best metric; None if none has it.

        Raises:
            ValueError: the manager was made without `best`.
        """
        if self._rules.best is None:
            raise ValueError('which is best? make the manager with best=("loss", "min")')
        return next(iter(retention.ranked(self.checkpoints(), self._rules.best)), None)

    def pin(self, serial: int) -> None:
        """Keep a checkpoint whatever the rules say."""
        runs.pin(self._run, serial)

    def unpin(self, serial: int) -> None:
        """Let the rules decide again."""
        runs.unpin(self._run, serial)
