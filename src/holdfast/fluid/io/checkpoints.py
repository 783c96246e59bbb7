"""save_checkpoint, load_checkpoint and what belongs to them: Fluid's calls on the core's runs, and on Fluid's own trees."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import holdfast
from holdfast.engine import catalog
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    Problem,
    RestoreError,
    VersionError,
)
from holdfast.fluid.checks import some
from holdfast.fluid.framework import Program, Variable
from holdfast.fluid.io import held
from holdfast.fluid.io.failures import enforced
from holdfast.fluid.io.held import gather, state_of, tensors_of
from holdfast.fluid.io.selecting import is_checkpoint_variable, program_of, select
from holdfast.fluid.io.sources import OfFolder, OfHoldfast, Source
from holdfast.fluid.io.variables import (
    FileFormat,
    is_fluid_format,
    load_vars,
    positional_warning,
    read,
    save_vars,
    warn,
    without_absent_random_state,
)
from holdfast.fluid.scope import global_scope
from holdfast.format import layout
from holdfast.interop import checkpoint_tree, fluid_names
from holdfast.interop.files import storage_errors
from holdfast.storage import resolve

log = logging.getLogger(__name__)

USES = (
    "@POSITIONAL@"  # a value of the checkpoint: for each variable whose name is a position, what operators do with it
)
_NAN = "variables_with_nan"  # a metric of checkpoints that have such


def save_checkpoint(
    executor: Any,
    checkpoint_dir: str | os.PathLike[str] | None,
    trainer_id: int = 0,
    trainer_args: Any = None,
    main_program: Any = None,
    max_num_checkpoints: int | None = 3,
    *,
    file_format: FileFormat = "holdfast",
) -> int:
    """Save all that resuming a program needs under a new serial, and return that: durable and whole, or not there at all.

    Saved are all persistables but gradients, whatever their names, the state of random numbers among them.

    Args:
        executor: not used; Fluid's signature has it.
        checkpoint_dir: the run folder; it is made if need be. It may be a tree of Fluid's: its serials are counted on.
        trainer_id: 0: several trainers are not supported yet.
        trainer_args: any JSON, such as `{"epoch_id": 2, "step_id": 20}`; given back with its types.
        main_program: a Program or CompiledProgram; None for the default one.
        max_num_checkpoints: how many of the newest complete checkpoints stay, from 1; None keeps all. Older ones are deleted
            after the new one is committed.
        file_format: `"fluid"` writes the tree of Fluid 0.14, in which arguments are text and random numbers start anew.

    Raises:
        UnsavableError: variables have no value, or another dtype or shape than the program says; all are named.
        UnsupportedVariableError: the arguments are no JSON, or the format cannot hold a value.
        ValueError: another argument is not valid. Nothing was written then.
        StorageError, DiskFullError: the system refused; older checkpoints are untouched.

    Warns:
        HazardWarning: variables hold NaN. The newest checkpoint without is pinned, so that no later one deletes it.
    """
    if trainer_id != 0:
        raise ValueError(
            f"trainer_id={trainer_id!r}: only trainer 0 can save; checkpoints of several trainers are not supported yet"
        )
    run, program = _run_folder(checkpoint_dir), program_of(main_program)
    with enforced():
        if not is_fluid_format(file_format):
            return commit(run, program, trainer_args, max_num_checkpoints, {}, stacklevel=3)
        found = _gathered(program, lod=True)
        held.warn_of_nan(held.with_nan(found), "save_checkpoint", stacklevel=2)
        return _save_tree(run, tensors_of(found), trainer_args, max_num_checkpoints)


def commit(
    run: str, program: Program, trainer_args: Any, keep: int | None, extra: Mapping[str, Any], *, stacklevel: int
) -> int:
    """`save_checkpoint` in Holdfast's format, with more values beside the variables."""
    found = _gathered(program)
    state = {**state_of(found), **extra}
    if uses := _uses(program, [h.variable for h in found.values()]):
        state[USES] = uses
    metrics = {}
    if bad := held.with_nan(found):
        _pin_the_last_sound(run)
        held.warn_of_nan(bad, "save_checkpoint", stacklevel=stacklevel)
        metrics[_NAN] = float(len(bad))
    return holdfast.save_checkpoint(state, run, trainer_args=trainer_args, max_num_checkpoints=keep, metrics=metrics)


def _gathered(program: Program, *, lod: bool = False) -> dict[str, held.Held]:
    variables = select(program, is_checkpoint_variable)
    if not variables:
        raise ValueError("save_checkpoint: the program has no persistables, so there is nothing to save")
    return gather(variables, global_scope(), lod=lod)


def _run_folder(checkpoint_dir: str | os.PathLike[str] | None) -> str:
    if checkpoint_dir is None:
        raise ValueError("'checkpoint_dir' should not be None")
    return os.fspath(checkpoint_dir)


def _pin_the_last_sound(run: str) -> None:
    """A run that has diverged goes on saving; rotation must not take what was saved before it did."""
    serial = holdfast.latest_serial(run)
    if serial is not None:
        with holdfast.open(run, serial=serial) as newest:
            if _NAN in newest.metrics:
                return
        holdfast.pin(run, serial)


def _save_tree(run: str, tensors: Mapping[str, Any], trainer_args: Any, keep: int | None) -> int:
    if trainer_args is not None and not isinstance(trainer_args, Mapping):
        raise ValueError(f"in Fluid's tree trainer_args must be a dict, not {trainer_args!r}")
    if keep is not None and (type(keep) is not int or keep < 1):
        raise ValueError(f"max_num_checkpoints must be a whole number from 1, or None, not {keep!r}")
    serial = checkpoint_tree.write(run, tensors, trainers={0: trainer_args or {}})
    for old in [] if keep is None else checkpoint_tree.serials(run)[:-keep]:
        _remove_from_tree(run, old)
    return serial


def _remove_from_tree(run: str, serial: int) -> None:
    folder = os.path.join(run, layout.checkpoint_folder(serial))
    with storage_errors(f"cannot remove {folder}"):
        # The mark first: what is half removed must not look complete. A hidden name would break Fluid's own listing.
        os.unlink(os.path.join(folder, fluid_names.MODEL, fluid_names.SUCCESS))
        shutil.rmtree(folder)


def load_checkpoint(
    executor: Any, checkpoint_dir: str | os.PathLike[str] | None, serial: int | None = None, main_program: Any = None
) -> None:
    """Load a checkpoint into the scope: every variable matches the program, or nothing is changed.

    Args:
        executor: loaded values go to its place.
        checkpoint_dir: the run folder, of Holdfast's checkpoints or Fluid's or both.
        serial: which; None for the newest complete one.
        main_program: a Program or CompiledProgram; None for the default one.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint of this serial; the message says what there is.
        MismatchError: variables are missing, or have another dtype or shape than the program says; or a variable whose
            name is only a position (`_generated_var_0`) is another one than that which was saved. All are listed.
        CorruptCheckpointError, FormatError: a file is damaged.
        ValueError: `serial` is no whole number from 0.

    Warns:
        HazardWarning: the checkpoint is of Fluid's, without the state of random numbers.
    """
    with enforced():
        restore(executor, _run_folder(checkpoint_dir), serial, program_of(main_program), stacklevel=3)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was loaded: its serial, the arguments of trainer 0, and the values that were saved beside the variables."""

    serial: int
    trainer_args: Any
    values: Mapping[str, Any]


def restore(executor: Any, run: str, serial: int | None, program: Program, *, stacklevel: int) -> Restored:
    """`load_checkpoint`, with what it found."""
    variables = select(program, is_checkpoint_variable)
    with _opened(run, serial) as (source, number):
        wanted, warning = without_absent_random_state(source, variables)
        texts = [warning] if warning else []
        arguments, values_beside = _trainer_of(source, run, number)
        uses = values_beside.get(USES)
        if isinstance(uses, dict):
            _check_uses(source.path, uses, _uses(program, variables))
        elif generated := held.positional(v.name for v in wanted):
            texts.append(positional_warning(generated))
        values = read(source, wanted)
        path = source.path
    held.put(global_scope(), values, path, held.device_of(executor))
    warn("load_checkpoint", texts, stacklevel=stacklevel + 1)
    return Restored(number, arguments, values_beside)


def restore_newest(executor: Any, run: str, program: Program) -> Restored | None:
    """Load the newest checkpoint that is whole; if it turns out to be damaged, the next older one, and so on.

    Returns:
        What was loaded; None if nothing was ever saved.

    Raises:
        RestoreError: there are checkpoints, and none of them can be used: training must not begin anew in silence.
        MismatchError: the newest does not fit the program.
    """
    failures: list[tuple[int, Exception]] = []
    for serial, is_folder in catalog.candidates(resolve(run)):
        folder = os.path.join(run, layout.checkpoint_folder(serial))
        if not is_folder or _was_never_committed(folder):
            continue
        try:
            return restore(executor, run, serial, program, stacklevel=4)
        except VersionError:
            raise  # it is sound: a newer release reads it
        except (CorruptCheckpointError, FormatError, CheckpointNotFoundError) as error:
            log.warning("checkpoint_%d cannot be restored, trying an older one: %s", serial, error)
            failures.append((serial, error))
        except MismatchError as error:
            if not failures:
                raise
            failures.append((serial, error))
            break
    if not failures:
        return None
    listed = "\n".join(f"  checkpoint_{number}: {error}" for number, error in failures)
    raise RestoreError(
        f"none of the checkpoints in {run} can be restored; nothing was loaded. Remove them if the run is to begin anew:\n{listed}",
        failures,
    ) from failures[-1][1]


def _was_never_committed(folder: str) -> bool:
    """Whether a folder is empty, or one that Fluid had not finished when it ended."""
    if not os.listdir(folder):
        return True
    in_tree = checkpoint_tree.is_checkpoint(folder)
    return in_tree and not os.path.isfile(os.path.join(folder, fluid_names.MODEL, fluid_names.SUCCESS))


@contextlib.contextmanager
def _opened(run: str, serial: int | None) -> Iterator[tuple[Source, int]]:
    if serial is not None and (type(serial) is not int or serial < 0):
        raise ValueError(f"'serial' must be a whole number from 0, or None for the newest, not {serial!r}")
    number = get_latest_checkpoint_serial(run) if serial is None else serial
    if number in checkpoint_tree.serials(run):
        yield OfFolder(os.path.join(run, layout.checkpoint_folder(number), fluid_names.MODEL)), number
        return
    with holdfast.open(run, serial=serial) as checkpoint:
        if checkpoint.serial is None:
            raise CheckpointNotFoundError(
                f"{run} holds variables only, no checkpoint to resume from; load_persistables reads it"
            )
        yield OfHoldfast(checkpoint), checkpoint.serial


def _trainer_of(source: Source, run: str, serial: int, trainer_id: int = 0) -> tuple[Any, dict[str, Any]]:
    """Arguments of a trainer, and its values."""
    if isinstance(source, OfHoldfast):
        return source.trainer(trainer_id)
    folder = os.path.join(run, layout.checkpoint_folder(serial))
    return checkpoint_tree.read_folder(folder, names=[]).trainers.get(trainer_id), {}


def get_latest_checkpoint_serial(checkpoint_dir: str | os.PathLike[str] | None) -> int:
    """The serial of the newest complete checkpoint, of Holdfast's or of Fluid's; -1 if there is none. Creates nothing."""
    if not checkpoint_dir:
        return -1
    run = os.fspath(checkpoint_dir)
    newest = holdfast.latest_serial(run)
    return max([-1 if newest is None else newest, *checkpoint_tree.serials(run)])


def load_trainer_args(
    checkpoint_dir: str | os.PathLike[str] | None, serial: int | None, trainer_id: int, trainer_args: Sequence[str]
) -> list[Any]:
    """Values of a trainer's arguments by their names, in this order: with their types; text if Fluid wrote them.

    Args:
        checkpoint_dir: the run folder.
        serial: which checkpoint; None for the newest complete one.
        trainer_id: whose.
        trainer_args: the names.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint of this serial.
        ValueError: the checkpoint has no such trainer, or no arguments of these names; all are named.
    """
    run = _run_folder(checkpoint_dir)
    with enforced(), _opened(run, serial) as (source, number):
        held_args, _ = _trainer_of(source, run, number, trainer_id)
    named = held_args if isinstance(held_args, Mapping) else {}
    if absent := [name for name in trainer_args if name not in named]:
        raise ValueError(
            f"checkpoint_{number} in {run} has no argument {', '.join(map(repr, absent))} of trainer {trainer_id}; it has "
            f"{', '.join(map(repr, named)) if named else 'none'}"
        )
    return [named[name] for name in trainer_args]


def clean_checkpoint(checkpoint_dir: str | os.PathLike[str] | None, delete_dir: bool = False) -> None:
    """Delete every complete checkpoint of a run, Holdfast's and Fluid's; nothing else is touched.

    Args:
        checkpoint_dir: the run folder; nothing happens if it does not exist.
        delete_dir: whether to remove the folder too, if it is empty then.

    Raises:
        StorageError: the system refused; what was deleted before stays deleted.
    """
    run = _run_folder(checkpoint_dir)
    for serial in checkpoint_tree.serials(run):
        _remove_from_tree(run, serial)
    holdfast.clean_checkpoint(run, delete_dir=delete_dir)


def save_persist_vars_without_grad(
    executor: Any, dirname: str | os.PathLike[str], program: Any, *, file_format: FileFormat = "holdfast"
) -> None:
    """Save the checkpoint variables of a program into `dirname/__model__`; like `save_vars` in everything else."""
    where = os.path.join(dirname, fluid_names.MODEL)
    save_vars(executor, where, program, predicate=is_checkpoint_variable, file_format=file_format)


def load_persist_vars_without_grad(
    executor: Any, dirname: str | os.PathLike[str], program: Any, has_model_dir: bool = False
) -> None:
    """Load the checkpoint variables of a program from a folder, or with `has_model_dir` from its `__model__`."""
    where = os.path.join(dirname, fluid_names.MODEL) if has_model_dir else dirname
    load_vars(executor, where, program, vars=select(program_of(program), is_checkpoint_variable))


def _uses(program: Program, variables: Sequence[Variable]) -> dict[str, list[str]]:
    """What is done with every variable whose name is only a position: operators and slots, in their order."""
    names = set(held.positional(v.name for v in variables))
    uses: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for op in program.all_ops() if names else ():
        for side, slots in (("reads", op.inputs), ("writes", op.outputs)):
            for slot, held_names in slots.items():
                for name in names.intersection(held_names):
                    uses[name].append(f"{op.type} {side} {slot}")
    return uses


def _check_uses(path: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    problems = [
        Problem(
            "kind",
            name,
            f"{name!r}: its name is only a position, and this is another variable: the saved one is used by "
            f"{some(saved[name]) or 'nothing'}; the program's by {some(now[name]) or 'nothing'}",
        )
        for name in now
        if name in saved and saved[name] != now[name]
    ]
    if problems:
        raise MismatchError(path, problems, ["Give such variables names of their own: create_global_var(name=)"])
