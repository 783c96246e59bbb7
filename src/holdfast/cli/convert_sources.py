"""What `holdfast convert` reads: any file or folder of others, or a Holdfast checkpoint, as one thing: `Content`."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import holdfast
from holdfast.cli.exits import UsageError
from holdfast.cli.targets import Target, target
from holdfast.engine.progress import Callback, Meter
from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.format.values import Tagged
from holdfast.interop import (
    checkpoint_tree,
    dcp,
    distcp,
    fluid_folder,
    huggingface,
    npz,
    orbax,
    pdparams,
    pir,
    program_wire,
    source,
    torch_files,
)
from holdfast.interop.arrays import from_arrays, to_arrays
from holdfast.interop.expected import Expected, Value
from holdfast.interop.fluid_names import MODEL, not_parameters
from holdfast.interop.foreign import Held, collect
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.optimizers import Optimizer
from holdfast.interop.plain import references, renamed
from holdfast.interop.recognise import Kind, combined_files, recognise

_PAIR = (".pdparams", ".pdopt")
TABLES = "__lookup_table__/"
"""How the names of lookup-table shards begin, among the other variables."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the source itself does not say.

    Attributes:
        program: file with the program whose variables a combined file holds.
        names: file with their names, one a line; or with those of the parameters of PyTorch's optimizers.
        persistable: patterns of names that are no parameters.
        bfloat16: names of arrays that a pickle or a file of NumPy holds as bare 16 bits and that are bfloat16; `*` for all.
        part: the key below which everything is taken, with names as if it were all; None for the whole.
    """

    program: str | None = None
    names: str | None = None
    persistable: Sequence[str] = ()
    bfloat16: Sequence[str] = ()
    part: str | None = None

    def listed(self) -> list[str] | None:
        """The names in the file `names`.

        Raises:
            UsageError: it cannot be read.
        """
        if self.names is None:
            return None
        try:
            with open(self.names, encoding="utf-8") as lines:
                return [name for line in lines if (name := line.rstrip("\r\n"))]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the names in {self.names}: {error}") from error


@dataclass(frozen=True, slots=True)
class Content:
    """What a source holds.

    Attributes:
        kind: of the source: `holdfast`, or what `interop.recognise` says.
        path: the source.
        serial: which checkpoint of it.
        variables: the values.
        others: names of those that are no parameters.
        trainers: arguments of each trainer; None if the source is no checkpoint.
        left_out: what cannot be carried over, for people.
        values: plain values beside the variables, by name; of Holdfast's own all that a state held, and second names of variables.
        optimizers: of PyTorch; their variables and values are among the others, under numbers.
        frozen: names of parameters that were not trained.
        notes: what people should know besides.
    """

    kind: str
    path: str
    serial: int | None
    variables: dict[str, Value]
    others: set[str]
    trainers: dict[int, Any] | None = None
    left_out: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    optimizers: list[Optimizer] = field(default_factory=list)
    frozen: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def read(text: str, serial: int | None, hints: Hints, progress: Callback | None = None) -> Content:
    """The content of a source, whatever it is. `progress` is told how much of it has been read.

    Raises:
        UsageError: it is not recognised, or something is needed that was not given.
        HoldfastError: it cannot be read.
    """
    chosen = target(text)
    if serial is not None and chosen.serial not in (None, serial):
        raise UsageError(f"{text} says serial {chosen.serial}, --serial says {serial}")
    chosen = replace(chosen, serial=serial if chosen.serial is None else chosen.serial)
    if _is_holdfast(chosen):
        return _holdfast(chosen)
    kind: Kind | None = None
    if chosen.kind != "nothing":
        kind = recognise(chosen.path)
    elif any(os.path.isfile(chosen.path + ending) for ending in _PAIR):  # Paddle's own way to name the pair of files
        kind = "pdparams"
    else:
        raise CheckpointNotFoundError(f"{chosen.path} does not exist")
    if kind is None:
        raise UsageError(f"{chosen.path} is not recognised; docs/cli.md lists what convert reads")
    if chosen.serial is not None and kind not in ("fluid-checkpoints", "orbax-steps"):
        raise UsageError(f"{chosen.path} has no serials")
    with _told(progress, chosen.path):
        found = _other(kind, chosen, hints)
    named = {name for name in found.variables if any(fnmatch.fnmatchcase(name, p) for p in hints.persistable)}
    return replace(found, others=found.others | named)


@contextlib.contextmanager
def _told(progress: Callback | None, path: str) -> Iterator[None]:
    """Tell `progress` of what is read below a path."""
    if progress is None:
        yield
        return
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    with source.watched(Meter("load", sum(map(_size, paths)), progress).add):
        yield


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _is_holdfast(chosen: Target) -> bool:
    return chosen.kind == "checkpoint" or (chosen.kind == "run" and bool(holdfast.serials(chosen.path)))


def _holdfast(chosen: Target) -> Content:
    with holdfast.open(chosen.path, serial=chosen.serial) as checkpoint:
        arrays = checkpoint.read()
        others = {name for name, variable in checkpoint.variables.items() if variable.kind != "parameter"}
        whole = checkpoint.manifest.content == "checkpoint"
        trainer_args, values = checkpoint.trainer()
        values |= {name: Tagged("$variable", first) for name, first in checkpoint.manifest.aliases.items()}
    variables = from_arrays(arrays)
    trainers = {0: trainer_args} if whole else None
    return Content(
        "holdfast", chosen.path, checkpoint.serial, variables, others & set(variables), trainers, values=values
    )


def _other(kind: Kind, chosen: Target, hints: Hints) -> Content:
    path = chosen.path
    match kind:
        case "fluid-checkpoints" | "fluid-checkpoint":
            alone = kind == "fluid-checkpoint"
            found = checkpoint_tree.read_folder(path) if alone else checkpoint_tree.read(path, chosen.serial)
            tables = {TABLES + name: value for name, value in found.lookup_tables.items()}
            others = not_parameters(found.variables) | set(tables)
            return Content(kind, path, found.serial, found.variables | tables, others, dict(found.trainers))
        case "pdparams":
            return _pickled(path, hints)
        case "paddle-distributed":
            return _named(kind, path, plain(distcp.read(path)))
        case "program" | "pir-program":
            raise UsageError(
                f"{path} is a program, without values. Give the files of its variables, and it as --program"
            )
        case "fluid-variables":
            return _named(kind, path, fluid_folder.read_variables(path))
        case "fluid-tensor":
            folder, name = os.path.split(os.path.abspath(path))
            return _named(kind, path, fluid_folder.read_variables(folder, [name], expected={}))
        case "fluid-model" | "fluid-combined":
            return _with_program(kind, path, hints)
        case "torch":
            return _held(kind, path, torch_files.read(path))
        case "dcp":
            return _held(kind, path, dcp.read(path))
        case "safetensors":
            return _held(kind, path, huggingface.read_file(path))
        case "huggingface":
            return _held(kind, path, (huggingface.read_folder if os.path.isdir(path) else huggingface.read_index)(path))
        case "npz" | "npy":
            return _held(kind, path, _of_numpy(kind, path, hints))
        case "orbax":
            return _held(kind, path, orbax.read(path))
        case "orbax-steps":
            step, found_step = orbax.read_step(path, chosen.serial)
            return replace(_held(kind, path, found_step), serial=step)


def _held(kind: Kind, path: str, held: Held) -> Content:
    notes = [*held.notes]
    if kind in ("torch", "safetensors") and (of := huggingface.shard_of(path)):
        notes.append(
            f"{os.path.basename(path)} is one of {of} files of a model: its folder, or the index in it, is all of it"
        )
    return Content(
        kind,
        path,
        None,
        plain(held.arrays),
        set(held.others),
        None,
        held.left_out,
        held.values,
        held.optimizers,
        notes=notes,
    )


def _of_numpy(kind: Kind, path: str, hints: Hints) -> Held:
    read = npz.read if kind == "npz" else npz.read_npy
    try:
        return read(path, bfloat16="all" if "*" in hints.bfloat16 else hints.bfloat16)
    except FormatError:
        raise
    except ValueError as error:  # it has no such names
        raise UsageError(str(error)) from error


def plain(arrays: dict[str, np.ndarray]) -> dict[str, Value]:
    """Arrays as values without LoD."""
    return {name: LoDTensor(array) for name, array in arrays.items()}


def _named(kind: Kind, path: str, variables: dict[str, Value]) -> Content:
    return Content(kind, path, None, variables, not_parameters(variables))


def _pickled(path: str, hints: Hints) -> Content:
    """One pickle, or Paddle's pair of them by what their names begin with."""
    files = [path] if os.path.isfile(path) else [path + ending for ending in _PAIR]
    variables: dict[str, Value] = {}
    values: dict[str, Any] = {}
    others: set[str] = set()
    left_out: list[str] = []
    for file in files:
        if not os.path.isfile(file):
            continue
        found = pdparams.read(file, bfloat16="all" if "*" in hints.bfloat16 else ())
        marked = [name for name in hints.bfloat16 if name in found.arrays]
        if marked:
            found = pdparams.read(file, bfloat16=marked)
        tables = [
            name for name in found.values if name.endswith(f".{pdparams.STRUCTURED_NAMES}")
        ]  # of a part of the file
        held = collect({n: value for n, value in found.values.items() if n not in tables}, os.path.getsize(file), file)
        twice = {*found.arrays, *held.values} & {*variables, *values}
        twice -= {n for n in values.keys() & held.values.keys() if values[n] == held.values[n]}
        if twice:
            raise UsageError(f"{files[0]} and {file} both hold {', '.join(sorted(twice))}; convert them one by one")
        variables |= plain(found.arrays)
        if file.endswith(".pdopt"):
            others |= found.arrays.keys()
        values |= held.values
        left_out += held.left_out
        if tables or any(name != variable for name, variable in found.structured_names.items()):
            left_out.append(f"the names of variables in {os.path.basename(file)}")
    return Content("pdparams", path, None, variables, others | not_parameters(variables), None, left_out, values)


def _with_program(kind: Kind, path: str, hints: Hints) -> Content:
    """A combined file, or a folder with a program: the program or a list says which variables there are."""
    folder, file = (path, None) if os.path.isdir(path) else os.path.split(os.path.abspath(path))
    if file is None and kind == "fluid-combined":
        found = combined_files(folder)
        if len(found) != 1:
            raise UsageError(f"{path} holds {len(found)} combined files ({', '.join(found)}); name one of them")
        file = found[0]
    expected, marked = _expected(folder, file, hints)
    if file is None and expected is not None and not all(os.path.isfile(os.path.join(folder, n)) for n in expected):
        found = combined_files(folder)
        file = found[0] if len(found) == 1 else None
    if file is not None and expected is None:
        raise UsageError(
            f"{os.path.join(folder, file)} is a combined file, which has no names in it; give --program (__model__, .pdmodel "
            "or .json of the program that saved it) or --names (a file with all names, one a line)"
        )
    variables = fluid_folder.read_variables(folder, None, filename=file, expected=expected)
    return Content(kind, path, None, variables, not_parameters(variables) | marked)


def _expected(folder: str, file: str | None, hints: Hints) -> tuple[dict[str, Expected] | None, set[str]]:
    """What is expected, and the names of it that are known to be no parameters."""
    if (listed := hints.listed()) is not None:
        return {name: Expected() for name in listed}, set()
    stem = None if file is None else os.path.join(folder, os.path.splitext(file)[0])
    beside = [os.path.join(folder, MODEL)] + ([] if stem is None else [stem + ".pdmodel", stem + ".json"])
    program = hints.program or next((name for name in beside if os.path.isfile(name)), None)
    if program is None:
        return None, set()
    kind = recognise(program)
    if kind == "pir-program":
        return pir.parameters(program), set()
    desc = program_wire.read_file(program)
    marks = {var.name: var.is_parameter for block in desc.blocks for var in block.vars}
    expected = desc.persistables()
    # Paddle 2 and later mark parameters; if nothing is marked, names must do.
    return expected, {n for n in expected if not marks[n]} if any(marks.values()) else set()


def part_of(content: Content, part: str) -> Content:
    """What stands below a key of the source, with names as if it were all.

    Raises:
        UsageError: there is no variable.
    """
    prefix = f"{part}."
    variables = {n.removeprefix(prefix): value for n, value in content.variables.items() if n.startswith(prefix)}
    others = {name.removeprefix(prefix) for name in content.others if name.startswith(prefix)}
    values: dict[str, Any] = {}
    left_out = [*content.left_out]
    for name, value in _below(content.values, part):
        short, outside = name.removeprefix(prefix), [r for r in references(value) if not r.startswith(prefix)]
        if not outside:
            values[short] = renamed(value, lambda name: name.removeprefix(prefix))
        elif (
            isinstance(value, Tagged) and value.value in content.variables
        ):  # the second name of what is not in the part
            variables[short] = content.variables[value.value]
            others |= {short} if value.value in content.others else set()
        else:
            left_out.append(f"value {name}: it refers to the variable {outside[0]!r}, which is outside of {part}")
    roots = dict.fromkeys(name.partition(".")[0] for name in (*content.variables, *content.values))
    if not variables:
        raise UsageError(f"{content.path} has no part {part!r} with variables in it; it has {', '.join([*roots][:50])}")
    beside = [name for name in (*content.variables, *content.values) if not name.startswith(prefix)]
    rest = dict.fromkeys(name.partition(".")[0] for name in beside)
    left_out += [f"part {name}" for name in rest if name != part]
    return replace(content, variables=variables, others=others, left_out=left_out, values=values, optimizers=[])


def _below(values: dict[str, Any], part: str) -> Iterator[tuple[str, Any]]:
    """The values below a key, also those in one value that has the key itself, such as an optimizer's settings."""
    for name, value in values.items():
        if name == part and isinstance(value, dict):
            yield from ((f"{part}.{key}", item) for key, item in value.items())
        elif name.startswith(f"{part}."):
            yield name, value


def arrays_of(content: Content) -> tuple[dict[str, np.ndarray], set[str]]:
    """All values as arrays, and the names of those that are parameters."""
    arrays = to_arrays(content.variables)
    return arrays, set(content.variables) - content.others
