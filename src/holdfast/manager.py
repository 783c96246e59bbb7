"""CheckpointManager: when to save, what to keep, and what goes on beside training."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Literal, get_args

from holdfast import restoring, runs
from holdfast.engine import catalog, retention
from holdfast.engine.arguments import whole_number
from holdfast.engine.background import Background
from holdfast.engine.catalog import Found
from holdfast.engine.commit import storage_errors
from holdfast.engine.exclusive import Exclusive
from holdfast.engine.handle import SaveHandle
from holdfast.engine.links import Unchanged, checked_unchanged
from holdfast.engine.match import Cast, Rename, Strict
from holdfast.engine.preemption import Preemption
from holdfast.engine.progress import ProgressOption
from holdfast.engine.report import LoadReport
from holdfast.engine.snapshot import Pool
from holdfast.loading import Verify
from holdfast.saving import CheckpointSave
from holdfast.storage import AnyPath, resolve
from holdfast.storage.watched import WatchedStore

log = logging.getLogger(__name__)

WhenBusy = Literal["wait", "refuse"]
SnapshotMode = Literal["copy", "stream"]


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
        when_busy: what a `save(wait=False)` does while another one is in flight: `"wait"` for it, or `"refuse"` to save, with the
            reason in its handle. There is never more than one.
        unchanged: see `save_checkpoint`.

    Calls from several threads wait for each other. `close`, leaving it as a context manager, and the end of the program wait for a
    save in flight.

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
        when_busy: WhenBusy = "wait",
        unchanged: Unchanged = "link",
    ) -> None:
        if type(save_interval_steps) is not int or save_interval_steps < 1:
            raise ValueError(f"save_interval_steps must be a whole number from 1, not {save_interval_steps!r}")
        if when_busy not in get_args(WhenBusy):
            raise ValueError(f'when_busy must be "wait" or "refuse", not {when_busy!r}')
        self._when_busy, self._unchanged = when_busy, checked_unchanged(unchanged)
        self._run = resolve(checkpoint_dir)
        self._rules = retention.Rules(max_to_keep, keep_period, best, keep_best)
        self._interval = save_interval_steps
        self._store = WatchedStore(self._run.store)
        self._pool = Pool()
        self._pending: Background | None = None  # the newest that was begun, over or not
        self._exclusive = Exclusive()
        self._preemption = Preemption()
        weakref.finalize(self, self._preemption.abandon).atexit = False  # nobody is left who could save
        self._damaged: set[int] = set()  # serials that turned out so: no file of theirs is linked
        self._has_begun = False  # this process has saved or restored
        self._knows_best = best is None  # metrics that lack it were complained of

    def __repr__(self) -> str:
        return f"CheckpointManager({self.checkpoint_dir!r})"

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
        wait: bool = True,
        snapshot: SnapshotMode = "copy",
        progress: ProgressOption = None,
    ) -> SaveHandle:
        """Save if the step is one to be saved: durable when this returns, or with `wait=False` soon after.

        What is saved is the state at the call, whatever the program does next. A step may be saved more than once, as happens
        after a resume from before it: each save gets a serial of its own, and the newest counts. After a signal of
        `save_on_signal` the next call saves, whatever the interval says.

        Args:
            state: as for `save_checkpoint`.
            step: the training step, from 0.
            metrics: finite numbers by name; `best` looks at them.
            trainer_args: see `save_checkpoint`.
            force: save whatever the interval says, such as at the end of training, and wait for a save in flight.
            wait: False returns as soon as the state is copied, and writes the copy in another thread.
            snapshot: with `wait=False`, `"copy"` holds the caller for a copy of the state in memory, which is kept for the next
                save; `"stream"` takes no more memory than a save with `wait=True`, and holds the caller until almost all is
                written.
            progress: see `save_params`; with `wait=True` only.

        Raises:
            As `save_checkpoint`. With `wait=False`, errors of writing are raised by `SaveHandle.result`, or else by the next call
            of `save`, `restore`, `wait_until_finished` or `close`, which does nothing else then.
        """
        step = whole_number("step", step)
        if snapshot not in get_args(SnapshotMode):
            raise ValueError(f'snapshot must be "copy" or "stream", not {snapshot!r}')
        if not wait and progress:
            raise ValueError("progress= needs wait=True: no code of yours runs in the thread that writes")
        with self._exclusive.call("save"):
            return self._save_if_due(state, step, metrics, trainer_args, force, wait, snapshot, progress)

    def _save_if_due(
        self,
        state: Any,
        step: int,
        metrics: Mapping[str, float] | None,
        trainer_args: Any,
        force: bool,
        wait: bool,
        snapshot: SnapshotMode,
        progress: ProgressOption,
    ) -> SaveHandle:
        if self._pending is not None and self._pending.is_over():
            self._pending.raise_once()
        urgent = force or self._preemption.is_pending
        if not urgent and step % self._interval:
            return SaveHandle(
                step,
                None,
                f"step {step} is not a multiple of save_interval_steps={self._interval}; force=True saves it",
            )
        if not wait and not urgent and self._when_busy == "refuse" and (pending := self._in_flight()) is not None:
            reason = f"{pending.name} is still being written"
            log.warning("step %d is not saved: %s", step, reason)
            return SaveHandle(step, None, f"{reason}; force=True waits for it")
        self.wait_until_finished()
        self._warn(step, metrics)
        was_pending, self._preemption.is_pending = self._preemption.is_pending, False
        try:
            return self._save(self._checkpoint(state, step, metrics, trainer_args), step, wait, snapshot, progress)
        except BaseException:
            self._preemption.is_pending |= was_pending
            raise

    def _warn(self, step: int, metrics: Mapping[str, float] | None) -> None:
        """Say, once, what is hardly meant: a run that begins anew among the checkpoints of another, a metric that `best` lacks."""
        if not self._has_begun:
            with storage_errors(f"cannot list {self._run}"):
                newest = next(catalog.complete(self._run, []), None)
            if newest is not None and newest.manifest.step is not None and newest.manifest.step >= step:
                log.warning(
                    "step %d is saved in %s, which has step %d, and nothing was restored: new checkpoints will push out those of "
                    "the earlier run. restore() goes on from there; another folder keeps both",
                    step,
                    self._run,
                    newest.manifest.step,
                )
        self._has_begun = True
        if not self._knows_best and metrics and self._rules.best is not None and self._rules.best[0] not in metrics:
            self._knows_best = True
            log.warning(
                "metrics has no %r, which best= compares, but %s: this checkpoint does not compete",
                self._rules.best[0],
                ", ".join(map(repr, metrics)),
            )

    def _checkpoint(
        self, state: Any, step: int | None, metrics: Mapping[str, float] | None = None, trainer_args: Any = None
    ) -> CheckpointSave:
        return CheckpointSave(
            state, self._store.at(self._run), trainer_args=trainer_args, rules=self._rules, step=step, metrics=metrics,
            unchanged=self._unchanged, distrusted=self._damaged,
        )  # fmt: skip

    def _save(
        self, save: CheckpointSave, step: int, wait: bool, snapshot: SnapshotMode, progress: ProgressOption
    ) -> SaveHandle:
        if wait:
            return SaveHandle(step, save.run(progress))
        if snapshot == "copy":
            save.snapshot(self._pool)
            return self._in_background(save, save.write, step)
        try:
            save.start()
            return self._in_background(save, save.finish, step)
        except BaseException:
            if self._in_flight() is None:  # an interrupt may come after it has begun
                save.discard()
            raise

    def _in_background(self, save: CheckpointSave, work: Callable[[], int], step: int) -> SaveHandle:
        after = functools.partial(self._prune, save)
        pending = Background(work, after, f"the save of step {step}", self._store.under_way)
        previous = self._pending
        try:
            self._pending = pending  # before it begins: it must not be lost sight of, whatever comes
            pending.start()
        except BaseException:
            if pending.withdraw():
                self._pending = previous
            raise
        return SaveHandle(step, pending=pending)

    def _prune(self, save: CheckpointSave) -> None:
        """A method, so that the manager lives, and notes signals, until the save is over."""
        save.prune()

    def prepare(self, state: Any) -> None:
        """Make the memory that `save(wait=False)` of such a state will copy into, in other threads.

        The first save then holds the program no longer than the next ones: memory that was never used takes several times as
        long to fill. `close` gives it back.

        Args:
            state: as for `save`; arrays of the same sizes are enough.

        Raises:
            As `save`.
        """
        with self._exclusive.call("prepare"):
            self.wait_until_finished()
            self._checkpoint(state, None).prepare(self._pool)

    def wait_until_finished(self, timeout: float | None = None) -> None:
        """Return once no save is in flight.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: one is still in flight after `timeout`; it goes on. The message says what it waits for.
            As `save_checkpoint`: the save failed, and nobody was told yet.
        """
        pending = self._pending
        if pending is not None and not pending.is_elsewhere():
            if not pending.wait(timeout):
                raise pending.late(timeout)
            pending.raise_once()

    def _in_flight(self) -> Background | None:
        pending = self._pending
        return None if pending is None or pending.is_over() or pending.is_elsewhere() else pending

    def save_on_signal(self, *signals: int) -> None:
        """Let signals such as `signal.SIGTERM` ask for a save: the next `save` then saves whatever the interval says.

        The signal no longer ends the process: the training loop does, once it has saved and has seen `preempted`. Handlers that
        were there before are called too, that of Ctrl-C from the second one on. `close` puts them back, and so does the end of
        the manager's life. Call this in the main thread.

        Example:
            >>> import signal, holdfast
            >>> manager = holdfast.CheckpointManager("runs/p", save_interval_steps=1000)
            >>> manager.save_on_signal(signal.SIGTERM)
            >>> for step in range(3):
            ...     stop = manager.preempted  # before the save: what comes after it is acted on at the next step
            ...     handle = manager.save({"step": step}, step, force=stop, wait=False)  # the last step is saved
            ...     if stop:
            ...         break
            >>> manager.close()
        """
        self._preemption.watch(*signals)

    @property
    def preempted(self) -> bool:
        """Whether a signal of `save_on_signal` has come. Ask before a save, and end after it."""
        return self._preemption.has_come

    def close(self, timeout: float | None = None) -> None:
        """Wait for a save in flight, give its memory back to the system, and put signal handlers back.

        Args:
            timeout: seconds to wait; None waits as long as it takes. The end of the program waits all the same.

        Raises:
            As `wait_until_finished`; the rest is done.
        """
        with self._exclusive.call("close", timeout):
            try:
                self.wait_until_finished(timeout)
            finally:
                self._pool.clear()
                self._preemption.release()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise  # else the error that is on its way says more; this one was logged when it happened

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

        A save in flight is waited for. Each one that is passed over is logged as a warning. A mismatch with the state is raised
        at once: older checkpoints would not fit better.

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
            ForeignFolderError: the path can be no run folder: it is a file, or a checkpoint itself.
        """
        if step is not None and serial is not None:
            raise ValueError("give step= or serial=, not both")
        self.wait_until_finished()
        report = restoring.restore(
            state, self._run, step=step, serial=serial, strict=strict, rename=rename, skip=skip, cast=cast, verify=verify,
            progress=progress, damaged=self._damaged,
        )  # fmt: skip
        self._has_begun = True
        return report

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
