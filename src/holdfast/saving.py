"""save_params, save_persistables, save_vars, save_checkpoint: scan → select → plan → (snapshot) → write → commit → retention."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from holdfast.adapters.state import Item, Scan, fetched
from holdfast.adapters.ties import second_names
from holdfast.adapters.tree import scan
from holdfast.engine import catalog, commit, retention
from holdfast.engine.alone import replace_folder
from holdfast.engine.arguments import whole_number
from holdfast.engine.devices import devices_of
from holdfast.engine.links import Links, Unchanged, checked_unchanged, links_to
from holdfast.engine.plan import linkable_file_bytes, plan_files
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.record import Record
from holdfast.engine.snapshot import Held, Image, Pool
from holdfast.engine.writer import Pipeline, write_files
from holdfast.errors import StorageError, UnsupportedVariableError
from holdfast.format import layout, values
from holdfast.format.manifest import Content
from holdfast.storage import AnyPath, Location, resolve
from holdfast.variables import Predicate, Variable, is_checkpoint_variable, is_parameter, select

log = logging.getLogger(__name__)


def save_params(state: Any, path: AnyPath, *, progress: ProgressOption = None) -> None:
    """Save the parameters of a state, for prediction: durable when this returns, and whole at every instant.

    `path` becomes a folder with `model.safetensors` (or several such files and their index) and a manifest. If it holds an
    earlier save, that is replaced: at every instant the path has the old one or the new one, whole, also after a power
    cut. Files that somebody laid beside it, such as a config.json, stay.

    Args:
        state: nested dicts and lists of arrays. If a part is marked by `parameters()`, the arrays of such parts are
            saved; else all arrays are.
        path: the folder; those above it are made.
        progress: a callback that is given a `Progress`, or True for a bar on a terminal.

    Raises:
        UnsupportedVariableError: the state holds what no checkpoint can hold; nothing was written.
        ForeignFolderError: the folder is not Holdfast's own; nothing was written.
        ValueError: the state holds no parameters.
        StorageError, DiskFullError: the system refused an operation; what was at `path` is still there.

    Example:
        >>> import numpy as np, holdfast
        >>> holdfast.save_params({"fc": {"w": np.ones((2, 3), np.float32)}}, "model")
        >>> model = {"fc": {"w": np.zeros((2, 3), np.float32)}}
        >>> holdfast.load_params(model, "model").nbytes
        24
    """
    target = resolve(path)  # first: a path where the state belongs is a state too
    found = scan(state, whole_is_model=True)
    _save_alone(target, "params", _selected(found, predicate=is_parameter), progress)


def save_persistables(state: Any, path: AnyPath, *, progress: ProgressOption = None) -> None:
    """Save every array of a state that lives across iterations; like `save_params` in everything else.

    Values and random generators are not variables: `save_checkpoint` saves those too.
    """
    target = resolve(path)
    found = scan(state)
    _save_alone(target, "variables", _selected(found), progress)


def save_vars(
    state: Any,
    path: AnyPath,
    *,
    predicate: Predicate | None = None,
    vars: Iterable[str | Variable] | None = None,
    progress: ProgressOption = None,
) -> None:
    """Save chosen arrays of a state; like `save_params` in everything else.

    Args:
        state: nested dicts and lists of arrays.
        path: the folder.
        predicate: chooses the variables for which it is true, such as `holdfast.is_parameter`.
        vars: names of variables, or variables; not together with `predicate`.
        progress: see `save_params`.

    Raises:
        ValueError: nothing is chosen, `vars` names what is not there, or a temporary variable is chosen.
    """
    target = resolve(path)
    found = scan(state)
    _save_alone(target, "variables", _selected(found, predicate=predicate, vars=vars), progress)


def save_checkpoint(
    state: Any,
    checkpoint_dir: AnyPath,
    *,
    trainer_id: int = 0,
    trainer_args: Any = None,
    max_num_checkpoints: int | None = 3,
    step: int | None = None,
    metrics: Mapping[str, float] | None = None,
    unchanged: Unchanged = "link",
    progress: ProgressOption = None,
) -> int:
    """Save all that resuming needs under a new serial, and return the serial: durable, whole or not there at all.

    Args:
        state: nested dicts and lists of arrays, plain values, random generators, and objects with `state_dict()` and
            `load_state_dict()`. All but temporary variables are saved.
        checkpoint_dir: the run folder; it is made if need be.
        trainer_id: 0: several trainers are not supported yet.
        trainer_args: any JSON (tuples and non-finite numbers too), such as `{"epoch_id": 2, "step_id": 20}`.
        max_num_checkpoints: how many of the newest complete checkpoints stay; pinned ones stay besides. Older ones are deleted,
            after the new one is committed. None keeps all.
        step: the training step, for `holdfast ls` and for rules of `CheckpointManager`.
        metrics: finite numbers by name, such as `{"loss": 0.3}`.
        unchanged: what becomes of a file in which no variable has changed since the newest checkpoint: `"link"` gives that
            checkpoint's file a second name, `"verify"` does so after it has been read back and found sound, `"write"` writes
            it again. Deleting one checkpoint never harms another, but damage to a shared file harms all that share it.
        progress: see `save_params`.

    Raises:
        UnsupportedVariableError: the state or the arguments hold what no checkpoint can hold; nothing was written.
        ValueError: another argument is not valid; nothing was written.
        StorageError, DiskFullError: the system refused an operation; older checkpoints are untouched.

    Example:
        >>> import numpy as np, holdfast
        >>> state = {"w": np.zeros(3), "rng": np.random.default_rng(0)}
        >>> holdfast.save_checkpoint(state, "runs/a", trainer_args={"epoch_id": 2, "step_id": 20})
        0
    """
    rules = retention.Rules(newest=max_num_checkpoints)
    save = CheckpointSave(
        state, resolve(checkpoint_dir), trainer_id=trainer_id, trainer_args=trainer_args, rules=rules, step=step,
        metrics=metrics, unchanged=unchanged,
    )  # fmt: skip
    return save.run(progress)


class CheckpointSave:
    """A checkpoint that is to be saved: the whole state has been looked at and encoded, and nothing is written yet.

    `run` does all of it. To hold the caller for less, `snapshot` copies the arrays and another thread may `write` and `prune`; or
    `start` reads them, and another thread may `finish` and `prune`. No code of the caller's is called after `snapshot` or `start`.

    Args:
        state: as for `save_checkpoint`, and so are `trainer_id`, `trainer_args`, `step`, `metrics` and `unchanged`.
        run: the run folder.
        rules: which checkpoints stay.
        distrusted: serials of which no file is linked.

    Raises:
        UnsupportedVariableError, ValueError: as from `save_checkpoint`.
    """

    def __init__(
        self,
        state: Any,
        run: Location,
        *,
        trainer_id: int = 0,
        trainer_args: Any = None,
        rules: retention.Rules,
        step: int | None,
        metrics: Mapping[str, float] | None,
        unchanged: Unchanged = "link",
        distrusted: Collection[int] = (),
    ) -> None:
        if trainer_id != 0:
            raise ValueError(
                f"trainer_id={trainer_id!r}: only trainer 0 can save; checkpoints of several trainers are not supported yet"
            )
        if step is not None:
            step = whole_number("step", step)
        self._unchanged, self._distrusted = checked_unchanged(unchanged), distrusted
        numbers = _checked_metrics(metrics)
        found = scan(state)
        try:
            items = _selected(found, predicate=is_checkpoint_variable, allow_none=True)
        except UnsupportedVariableError as error:
            raise UnsupportedVariableError(error.reasons | found.absent()) from error
        try:
            trainer = values.trainer_to_bytes(trainer_id, values.encode(trainer_args), found.encoded())
        except values.UnsupportedValueError as error:
            raise UnsupportedVariableError({f"trainer_args{error.where}": str(error)}) from error
        variables = [item.variable for item in items]
        plans = plan_files(variables, linkable_file_bytes(variables))
        small = {layout.trainer_file(trainer_id): trainer}
        self._record = Record("checkpoint", variables, plans, small, step=step, metrics=numbers)
        self._run, self._rules = run, rules
        self._arrays = [item.source if item.remote else item.array for item in items]
        self._device = next(iter(devices_of(self._arrays)), None)
        self._held = Held.of(plans, [item.immutable for item in items])
        self._images: list[Image | None] | None = None
        self._end = contextlib.ExitStack()
        self._began = time.monotonic()

    def snapshot(self, pool: Pool) -> None:
        """Copy what may change: once this returns, the state may. The pool's memory is in use until `write` returns."""
        self._images = self._held.capture(self._arrays, pool.memory(self._held.nbytes, self._device))
        # The copies stand for the arrays from now on: those may be resized, and are not kept alive.
        for plan, image in zip(self._record.plans, self._images, strict=True):
            if image is not None:
                at = len(plan.header)
                for i in plan.members:
                    end = at + self._arrays[i].nbytes
                    self._arrays[i], at = image.memory[at:end], end

    def prepare(self, pool: Pool) -> None:
        """Begin to make the memory that `snapshot` will take."""
        pool.reserve(self._held.nbytes, self._device)

    def run(self, progress: ProgressOption = None) -> int:
        """Write and commit, then delete what the rules do not keep; returns the serial.

        Raises:
            As `save_checkpoint`; nothing of it remains then.
        """
        serial = self.write(progress)
        self.prune()
        return serial

    def write(self, progress: ProgressOption = None) -> int:
        """`run` without the deletions."""
        try:
            self.start(progress)
            return self.finish()
        finally:
            self.discard()
            self._arrays, self._images = [], None  # a handle may live on for long

    def start(self, progress: ProgressOption = None) -> None:
        """Begin to write; once this returns the arrays have been read. `finish` or `discard` must follow."""
        run = self._run
        with commit.storage_errors(f"cannot write in {run}"):
            newest = self._begin_run()
            self._serial = commit.next_serial(run)
            links = links_to(newest, self._unchanged)
            needed = self._needed_bytes(links)
        try:
            self._attempt = self._end.enter_context(commit.attempt(run, str(self._serial), needed))
            self._pipeline = Pipeline(
                self._attempt.folder, self._record.plans, self._arrays, images=self._images, links=links
            )
            self._end.callback(self._pipeline.abort)  # whatever comes, now or later; after `finish` it does nothing
            with metered("save", sum(plan.size for plan in self._record.plans), progress) as meter:
                self._pipeline.feed(meter)
            self._arrays = []  # they have been read: what they lie in is not kept alive
        except BaseException as error:
            self._end.__exit__(type(error), error, error.__traceback__)  # which may raise one that says more
            raise

    def finish(self) -> int:
        """Return the serial once the checkpoint is complete and durable. `prune` should follow."""
        run = self._run
        with self._end:
            written = self._pipeline.finish()
            self._record.write_small(self._attempt)
            serial = self._attempt.commit_serial(
                self._serial, lambda serial: self._record.manifest(written, self._attempt.id, serial)
            )
        log.info(
            "saved %s: %d bytes in %.3f s%s",
            run / layout.checkpoint_folder(serial), self._record.nbytes, time.monotonic() - self._began,
            f", {len(written.linked)} of {len(written.files)} files linked" if written.linked else "",
        )  # fmt: skip
        return serial

    def prune(self) -> None:
        """Delete what the rules do not keep."""
        try:
            retention.prune(self._run, self._rules)
        except OSError as error:  # the new checkpoint is there, and that is what the caller has to know
            log.warning(
                "could not look for checkpoints to delete in %s (%s); the next save will try again", self._run, error
            )

    def discard(self) -> None:
        """Remove what `start` has written, unless `finish` has made it a checkpoint."""
        self._end.close()

    def _begin_run(self) -> catalog.Found | None:
        """Make the run folder, and clear it of what the dead left; returns the newest checkpoint that can be trusted."""
        run = self._run
        catalog.check_run_folder(run)
        commit.make_folders(run)
        try:
            newest = next((found for found in catalog.complete(run) if found.serial not in self._distrusted), None)
        except StorageError as error:
            log.warning("nothing of an older checkpoint is linked: %s", error)
            newest = None
        if newest is None:
            commit.sync_above(run)
        commit.sweep(run)
        return newest

    def _needed_bytes(self, links: Links | None) -> int:
        """About what will be written; where that decides whether it fits, with a look at what can be linked."""
        needed = self._record.needed_bytes
        free = commit.free_bytes(self._run, needed)
        if links is None or free is None or free >= needed:
            return needed
        images = self._images or [None] * len(self._record.plans)
        return needed - sum(
            plan.size
            for plan, image in zip(self._record.plans, images, strict=True)
            if links.find(plan, self._arrays, image)
        )


def _checked_metrics(metrics: Mapping[str, float] | None) -> dict[str, float]:
    checked = {}
    for name, value in (metrics or {}).items():
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"metric {name!r} must be a number, not {value!r}") from error
        if type(name) is not str or not name or not name.isprintable():
            raise ValueError(f"names of metrics must be printable strings, not {name!r}")
        # A loss that has become NaN is worth a checkpoint all the same; it has no place in a ranking, nor in JSON.
        if number - number == 0.0:
            checked[name] = number
        else:
            log.warning("metric %r is %r: it is not recorded", name, number)
    return checked


def _selected(
    found: Scan,
    *,
    predicate: Predicate | None = None,
    vars: Iterable[str | Variable] | None = None,
    allow_none: bool = False,
) -> list[Item]:
    chosen = {v.name for v in select([i.variable for i in found.items], predicate=predicate, vars=vars)}
    if not chosen and not allow_none:
        raise ValueError(
            "there is nothing to save: the state holds no such variable. Its parameters are the parts marked by "
            "holdfast.parameters(), or all arrays if no part is marked"
        )
    return fetched(item for item in found.items if item.variable.name in chosen)


def _save_alone(target: Location, content: Content, items: list[Item], progress: ProgressOption) -> None:
    variables = [item.variable for item in items]
    record = Record(content, variables, plan_files(variables), aliases=second_names(items))
    start = time.monotonic()

    def fill(attempt: commit.Attempt) -> bytes:
        with metered("save", sum(plan.size for plan in record.plans), progress) as meter:
            written = write_files(attempt.folder, record.plans, [item.source for item in items], meter)
        record.write_small(attempt)
        return record.manifest(written, attempt.id, None)

    replace_folder(target, record.needed_bytes, fill)
    log.info("saved %s: %d bytes in %.3f s", target, record.nbytes, time.monotonic() - start)
