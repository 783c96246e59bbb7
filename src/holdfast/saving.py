"""save_params, save_persistables, save_vars, save_checkpoint: scan → select → plan → write → commit → retention."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from holdfast._version import __version__
from holdfast.adapters.state import Item, Scan, fetched
from holdfast.adapters.tree import scan
from holdfast.engine import catalog, commit, retention
from holdfast.engine.arguments import whole_number
from holdfast.engine.pause import collection_paused
from holdfast.engine.plan import FilePlan, plan_files
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.writer import Written, write_files
from holdfast.errors import ForeignFolderError, FormatError, UnsupportedVariableError
from holdfast.format import layout, values
from holdfast.format.digests import hexdigest
from holdfast.format.manifest import VERSION, Chunk, Content, Entry, File, Manifest, from_bytes, to_bytes
from holdfast.storage import AnyPath, Location, resolve
from holdfast.variables import Predicate, Variable, is_checkpoint_variable, is_parameter, select

log = logging.getLogger(__name__)

_ENTRY_BYTES = 256  # about what a variable takes in the manifest; only for the guess of the space needed


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
    found = scan(state, whole_is_model=True)
    _save_alone(path, "params", _selected(found, predicate=is_parameter), progress)


def save_persistables(state: Any, path: AnyPath, *, progress: ProgressOption = None) -> None:
    """Save every array of a state that lives across iterations; like `save_params` in everything else.

    Values and random generators are not variables: `save_checkpoint` saves those too.
    """
    found = scan(state)
    _save_alone(path, "variables", _selected(found), progress)


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
    found = scan(state)
    _save_alone(path, "variables", _selected(found, predicate=predicate, vars=vars), progress)


def save_checkpoint(
    state: Any,
    checkpoint_dir: AnyPath,
    *,
    trainer_id: int = 0,
    trainer_args: Any = None,
    max_num_checkpoints: int | None = 3,
    step: int | None = None,
    metrics: Mapping[str, float] | None = None,
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
    return commit_checkpoint(
        state, resolve(checkpoint_dir), trainer_id=trainer_id, trainer_args=trainer_args, rules=rules, step=step,
        metrics=metrics, progress=progress,
    )  # fmt: skip


def commit_checkpoint(
    state: Any,
    run: Location,
    *,
    trainer_id: int,
    trainer_args: Any,
    rules: retention.Rules,
    step: int | None,
    metrics: Mapping[str, float] | None,
    progress: ProgressOption,
) -> int:
    """`save_checkpoint` with every rule of retention."""
    if trainer_id != 0:
        raise ValueError(
            f"trainer_id={trainer_id!r}: only trainer 0 can save; checkpoints of several trainers are not supported yet"
        )
    if step is not None:
        step = whole_number("step", step)
    numbers = _checked_metrics(metrics)
    found = scan(state)
    items = _selected(found, predicate=is_checkpoint_variable, allow_none=True)
    try:
        trainer = values.trainer_to_bytes(trainer_id, values.encode(trainer_args), found.encoded())
    except values.UnsupportedValueError as error:
        raise UnsupportedVariableError({f"trainer_args{error.where}": str(error)}) from error

    start = time.monotonic()
    with commit.storage_errors(f"cannot write in {run}"):
        if layout.serial_of(run.name) is not None:
            raise ForeignFolderError(f"{run} has the name of a checkpoint; name the run folder otherwise")
        if catalog.is_checkpoint(run):
            raise ForeignFolderError(
                f"{run} is a checkpoint itself; save into the folder that it is in, or into another"
            )
        commit.make_folders(run)
        if not any(catalog.complete(run)):
            commit.sync_above(run)
        commit.sweep(run)
        serial = commit.next_serial(run)
    save = _Save("checkpoint", items, {layout.trainer_file(trainer_id): trainer}, step=step, metrics=numbers)
    with commit.attempt(run, str(serial), save.needed_bytes) as attempt:
        save.write(attempt, progress)
        serial = attempt.commit_serial(serial, save.manifest)
    log.info(
        "saved %s: %d bytes in %.3f s", run / layout.checkpoint_folder(serial), save.nbytes, time.monotonic() - start
    )
    try:
        retention.prune(run, rules)
    except OSError as error:  # the new checkpoint is there, and that is what the caller has to know
        log.warning("could not look for checkpoints to delete in %s (%s); the next save will try again", run, error)
    return serial


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


def _save_alone(path: AnyPath, content: Content, items: list[Item], progress: ProgressOption) -> None:
    target = resolve(path)
    save = _Save(content, items, {})
    start = time.monotonic()

    def fill(attempt: commit.Attempt) -> bytes:
        save.write(attempt, progress)
        return save.manifest(None)

    replace_folder(target, save.needed_bytes, fill)
    log.info("saved %s: %d bytes in %.3f s", target, save.nbytes, time.monotonic() - start)


def replace_folder(
    target: Location, needed_bytes: int, fill: Callable[[commit.Attempt], bytes], *, check_space: bool = True
) -> None:
    """Make a folder that stands alone: at every instant there is the old one or the new one.

    Args:
        target: its place.
        needed_bytes: about how much will be written.
        fill: writes the files into an attempt, and returns the manifest's bytes.
        check_space: whether to refuse at once if there is less space.

    Raises:
        ForeignFolderError: the folder is not Holdfast's own; what it holds is untouched.
    """
    with commit.storage_errors(f"cannot write {target}"):
        store = target.store
        if store.stat(target.path) is None and (previous := catalog.previous_of(target)) is not None:
            store.rename(previous.path, target.path)  # with what somebody has laid beside it
        foreign_files(target)  # now, so that nothing is written in vain
        commit.make_folders(target.parent)
        if store.stat(target.path) is None:
            commit.sync_above(target.parent)
        commit.sweep(target.parent, target.name)
    with commit.attempt(target.parent, target.name, needed_bytes, in_advance=check_space) as attempt:
        manifest = fill(attempt)
        with commit.storage_errors(f"cannot take over what lies beside {target}"):
            for name in foreign_files(target):  # as it is after the time that writing took
                copy_file(target / name, attempt.folder / name)
        attempt.commit_alone(target, manifest)


def foreign_files(target: Location) -> list[str]:
    """Names of the files in a folder that is to be replaced which are not Holdfast's, and are to be kept.

    Raises:
        ForeignFolderError: the folder as a whole is not Holdfast's own, or holds what cannot be carried over.
    """
    store = target.store
    if layout.serial_of(target.name) is not None:
        raise ForeignFolderError(
            f"{target} has the name of a checkpoint of a run; choose another for a folder of its own"
        )
    entry = store.stat(target.path)
    if entry is None:
        return []
    if entry.kind != "folder":
        raise ForeignFolderError(f"{target} is a file; choose a folder of its own for the save, or remove it")
    entries = {e.name: e for e in store.list(target.path)}
    if not entries:
        return []
    if layout.MANIFEST not in entries:
        raise ForeignFolderError(
            f"{target} is not empty and holds no save of Holdfast; it is never replaced. Choose another folder"
        )
    ours = {layout.MANIFEST}
    try:
        manifest = from_bytes(catalog.read_small(target / layout.MANIFEST), str(target / layout.MANIFEST))
        ours |= {file.name for file in manifest.files}
    except FormatError as error:
        raise ForeignFolderError(
            f"{target} holds a manifest.json that is not a sound one of Holdfast ({error}); remove it yourself"
        ) from error
    if manifest.content == "checkpoint":
        raise ForeignFolderError(
            f"{target} is a checkpoint of a run; save_params never replaces one. Choose another folder"
        )
    foreign = [e for e in entries.values() if e.name not in ours]
    if stuck := [e.name for e in foreign if e.kind != "file" or layout.is_listable(e.name)]:
        raise ForeignFolderError(
            f"{target} holds {', '.join(sorted(stuck))} beside the save; they are not Holdfast's own, and cannot be kept. Move them"
        )
    return [e.name for e in foreign]


def copy_file(source: Location, target: Location) -> None:
    """Give a file a second name, or copy and sync it where that is not possible."""
    if source.store != target.store or not source.store.link(source.path, target.path):
        reader = source.store.open(source.path)
        try:
            writer = target.store.create(target.path, reader.size)
            try:
                for at in range(0, reader.size, 8 << 20):
                    with reader.view(at, min(8 << 20, reader.size - at)) as view:
                        writer.write_at(view, at)
                    reader.forget(at, min(8 << 20, reader.size - at))
                writer.sync()
            finally:
                writer.close()
        finally:
            reader.close()


class _Save:
    """One save on its way: what to write, and then what was written."""

    def __init__(
        self,
        content: Content,
        items: Sequence[Item],
        small: dict[str, bytes],
        *,
        step: int | None = None,
        metrics: dict[str, float] | None = None,
    ) -> None:
        self._content, self._items, self._step, self._metrics = content, items, step, metrics or {}
        variables = [item.variable for item in items]
        self._plans: list[FilePlan] = plan_files(variables)
        self._small = {**small, **_index(self._plans, variables)}
        self._written = Written([], [])
        self._attempt_id = ""
        sizes = [plan.size for plan in self._plans] + [len(data) for data in self._small.values()]
        self.nbytes = sum(sizes)
        self.needed_bytes = self.nbytes + _ENTRY_BYTES * len(items)

    def write(self, attempt: commit.Attempt, progress: ProgressOption) -> None:
        """Write every file but the manifest."""
        self._attempt_id = attempt.id
        with metered("save", sum(plan.size for plan in self._plans), progress) as meter:
            self._written = write_files(attempt.folder, self._plans, [i.array for i in self._items], meter)
        for name, data in self._small.items():
            with commit.storage_errors(f"cannot write {attempt.folder / name}"):
                commit.write_small(attempt.folder / name, data)

    @collection_paused()
    def manifest(self, serial: int | None) -> bytes:
        """The bytes of the manifest, once the files are written."""
        entries = []
        chunks = self._written.chunks
        for plan in self._plans:
            for i in plan.members:
                v = self._items[i].variable
                file, start, end, blocks = chunks[i]
                chunk = Chunk(file, (start, end), blocks)
                entries.append(Entry(v.name, v.kind, v.trainable, v.dtype, v.shape, (chunk,)))  # type: ignore[arg-type]
        small = [File(name, len(data), hexdigest(data)) for name, data in self._small.items()]
        return to_bytes(
            Manifest(
                format="holdfast",
                version=VERSION,
                content=self._content,
                serial=serial,
                step=self._step,
                created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                writer=f"holdfast {__version__}",
                attempt=self._attempt_id,
                world_size=1,
                metrics=self._metrics,
                files=(*self._written.files, *small),
                variables=tuple(entries),
            )
        )


def _index(plans: Sequence[FilePlan], variables: Sequence[Variable]) -> dict[str, bytes]:
    """The index that Hugging Face tools want beside more than one parameter file."""
    model = [plan for plan in plans if layout.is_parameter_file(plan.name)]
    if len(model) < 2:
        return {}
    total = sum(variables[i].nbytes for plan in model for i in plan.members)
    weight_map = {variables[i].name: plan.name for plan in model for i in plan.members}
    return {layout.INDEX: msgspec.json.encode({"metadata": {"total_size": total}, "weight_map": weight_map})}
