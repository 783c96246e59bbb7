"""The checkpoints of Fluid 0.14 and 0.15: `checkpoint_N/{__model__,trainer_K,__lookup_table__}`, `__model__/_SUCCESS` last.

Looking creates nothing, entries of other programs do not matter, and a checkpoint without `_SUCCESS` does not count. Writing
makes a checkpoint beside the tree and renames it to its place, so that there is never a half of one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from holdfast.errors import CheckpointNotFoundError, ForeignFolderError, FormatError, UnsupportedVariableError
from holdfast.interop import files, fluid_folder
from holdfast.interop.expected import Expectations, Value
from holdfast.interop.fluid_names import MODEL, SUCCESS, name_problems
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.source import read_all
from holdfast.interop.tensor import Dialect

_SERIAL = re.compile(r"checkpoint_(0|[1-9][0-9]{0,17})")
_TRAINER = re.compile(r"trainer_(0|[1-9][0-9]{0,8})")
_TABLES = ("__lookup_table__", "__lockup_table__")  # the second is 0.15's misspelling
_MAX_TEXT = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class FluidCheckpoint:
    """A checkpoint of a tree.

    Attributes:
        serial: its number.
        variables: the values by name.
        trainers: id of each trainer → its arguments, which are text in Fluid: `{0: {"epoch_id": "1", "step_id": "10"}}`.
        lookup_tables: shards of lookup tables by the names of their files.
    """

    serial: int
    variables: dict[str, Value]
    trainers: dict[int, dict[str, str]] = field(default_factory=dict)
    lookup_tables: dict[str, Value] = field(default_factory=dict)


def serials(checkpoint_dir: str | os.PathLike[str]) -> list[int]:
    """The serials of the complete checkpoints of a tree, ascending; empty if there are none. Creates nothing.

    Raises:
        StorageError: the folder cannot be listed.
    """
    root = os.fspath(checkpoint_dir)
    return [n for n in _used(root) if os.path.isfile(os.path.join(_folder(root, n), MODEL, SUCCESS))]


def _used(root: str) -> list[int]:
    if not os.path.isdir(root):
        return []
    with files.storage_errors(f"cannot list {root}"):
        found = [int(match[1]) for name in os.listdir(root) if (match := _SERIAL.fullmatch(name))]
    return sorted(n for n in found if os.path.isdir(_folder(root, n)))


def _folder(root: str, serial: int) -> str:
    return os.path.join(root, f"checkpoint_{serial}")


def is_tree(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has checkpoints of this kind, complete or not."""
    root = os.fspath(path)
    return any(is_checkpoint(_folder(root, n)) for n in _used(root))


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a checkpoint of such a tree itself: its `__model__` is a folder."""
    return os.path.isdir(os.path.join(path, MODEL))


def read(
    checkpoint_dir: str | os.PathLike[str],
    serial: int | None = None,
    *,
    names: Iterable[str] | None = None,
    expected: Expectations | None = None,
) -> FluidCheckpoint:
    """A checkpoint of a tree, whole.

    Args:
        checkpoint_dir: the tree.
        serial: which; None for the newest complete one.
        names: which variables; see `fluid_folder.read_variables`.
        expected: what they must be; see there.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint, or none of this serial; the message says what is there.
        MismatchError: variables are missing or not as expected.
        FormatError: files are cut off, padded or malformed.
        StorageError: the system refused to read.
    """
    root = os.fspath(checkpoint_dir)
    complete = serials(root)
    if not complete or (serial is not None and serial not in complete):
        used = _used(root)
        there = f"complete are {complete}, incomplete {sorted(set(used) - set(complete))}" if used else "it has none"
        what = "no complete checkpoint" if serial is None else f"no complete checkpoint of serial {serial}"
        raise CheckpointNotFoundError(f"{what} of Fluid in {root}: {there}")
    chosen = complete[-1] if serial is None else serial
    return read_folder(_folder(root, chosen), chosen, names=names, expected=expected)


def read_folder(
    folder: str | os.PathLike[str],
    serial: int = 0,
    *,
    names: Iterable[str] | None = None,
    expected: Expectations | None = None,
) -> FluidCheckpoint:
    """A checkpoint by its own folder, whatever that is called; like `read`."""
    where = os.fspath(folder)
    if not os.path.isfile(os.path.join(where, MODEL, SUCCESS)):
        raise CheckpointNotFoundError(f"{where} is no complete checkpoint of Fluid: it has no {MODEL}/{SUCCESS}")
    variables = fluid_folder.read_variables(os.path.join(where, MODEL), names, expected=expected)
    tables: dict[str, Value] = {}
    for name in _TABLES:
        if os.path.isdir(place := os.path.join(where, name)) and fluid_folder.variable_names(place):
            tables |= fluid_folder.read_variables(place)
    return FluidCheckpoint(serial, variables, _trainers(where), tables)


def _trainers(folder: str) -> dict[int, dict[str, str]]:
    with files.storage_errors(f"cannot list {folder}"):
        ids = sorted(int(match[1]) for name in os.listdir(folder) if (match := _TRAINER.fullmatch(name)))
        names = {k: sorted(os.listdir(os.path.join(folder, f"trainer_{k}"))) for k in ids}
    made: dict[int, dict[str, str]] = {}
    for trainer, held in names.items():
        arguments = {}
        for name in held:
            if name == SUCCESS or name.startswith(files.TEMPORARY):
                continue
            path = os.path.join(folder, f"trainer_{trainer}", name)
            try:
                arguments[name] = read_all(path, _MAX_TEXT).decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise FormatError(f"{path} is no text") from error
        made[trainer] = arguments
    return made


def write(
    checkpoint_dir: str | os.PathLike[str],
    variables: Mapping[str, Value | np.ndarray],
    *,
    trainers: Mapping[int, Mapping[str, object]] | None = None,
    lookup_tables: Mapping[str, Value] | None = None,
    serial: int | None = None,
    dialect: Dialect = "fluid",
) -> int:
    """Write a checkpoint as Fluid 0.14 does, whole or not at all, and return its serial. Older ones are not deleted.

    Args:
        checkpoint_dir: the tree; it is made if need be.
        variables: by name; arrays stand for LoDTensors without LoD.
        trainers: arguments of each trainer by its id; they are written as text, `str(value)`.
        lookup_tables: shards by file name.
        serial: None for the next after all that are there, complete or not.
        dialect: see `fluid_folder.write_variables`.

    Raises:
        UnsupportedVariableError: a name or value cannot be written; nothing was written, and all are listed.
        ForeignFolderError: there is something under this serial.
        ValueError: there is nothing to write, or the serial is negative.
        StorageError, DiskFullError: the system refused; nothing was written.
    """
    root = os.path.abspath(os.fspath(checkpoint_dir))
    if serial is not None and serial < 0:
        raise ValueError(f"serial={serial}: serials begin at 0")
    values: dict[str, Value] = {n: LoDTensor(v) if isinstance(v, np.ndarray) else v for n, v in variables.items()}
    if not values:
        raise ValueError("there is nothing to write: no variables are given")
    fluid_folder.check_writable(values, dialect)
    fluid_folder.check_writable(lookup_tables or {}, dialect)
    arguments = trainers if trainers is not None else {0: {}}
    for held in arguments.values():
        flat = {name: "it is the name of a file" for name in held if "/" in name}
        if bad := name_problems(held) | flat:
            raise UnsupportedVariableError({f"trainer argument {name!r}": reason for name, reason in bad.items()})
    if os.path.lexists(root) and not os.path.isdir(root):
        raise ForeignFolderError(f"{root} is no folder; choose another path")
    number = max([-1, *_used(root)]) + 1 if serial is None else serial
    # Not in the tree: Fluid 0.14 cannot list a tree that holds an entry of another form, as a crash would leave one.
    with files.new_folder(_folder(root, number), beside=os.path.dirname(root)) as temporary:
        for trainer, held in sorted(arguments.items()):
            place = os.path.join(temporary, f"trainer_{trainer}")
            os.mkdir(place)
            for name, value in held.items():
                files.put(os.path.join(place, name), [str(value).encode()])
            _succeed(place)
        os.mkdir(os.path.join(temporary, MODEL))
        fluid_folder.fill(os.path.join(temporary, MODEL), values)
        if lookup_tables:
            os.mkdir(os.path.join(temporary, _TABLES[0]))
            fluid_folder.fill(os.path.join(temporary, _TABLES[0]), lookup_tables)
        _succeed(os.path.join(temporary, MODEL))
    return number


def _succeed(folder: str) -> None:
    files.put(os.path.join(folder, SUCCESS), [time.ctime().encode()])
