"""`holdfast convert`: files of others into Holdfast's format, and back."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import holdfast
from holdfast import dtypes
from holdfast.adapters.numpy import dtype_problem
from holdfast.cli import convert_training
from holdfast.cli.convert_sources import TABLES, Content, Hints, arrays_of, part_of, read
from holdfast.cli.exits import DONE, UsageError
from holdfast.cli.output import Output
from holdfast.cli.texts import count, size, tidy
from holdfast.engine.progress import Callback
from holdfast.errors import ForeignFolderError, UnsupportedVariableError
from holdfast.format.values import Tagged
from holdfast.interop import checkpoint_tree, fluid_folder, npz, pdparams, torch_files
from holdfast.interop.tensor import Dialect

To = Literal["holdfast", "fluid", "fluid-combined", "fluid-checkpoint", "pdparams", "pt", "npz"]
TARGETS = ("holdfast", "fluid", "fluid-combined", "fluid-checkpoint", "pdparams", "pt", "npz")


def convert(
    source: str, destination: str, to: str | None, serial: int | None, hints: Hints, dialect: Dialect, out: Output
) -> int:
    """Convert; what the source is, its content says."""
    if to is not None and to not in TARGETS:
        raise UsageError(f"--to {to}: it must be one of {', '.join(TARGETS)}")
    with out.progress(f"read {source}") as progress:
        content = read(source, serial, hints, progress)
    if not content.variables:
        raise UsageError(f"{source} holds no variables" + "".join(f"\nleft out: {what}" for what in content.left_out))
    if hints.part is not None:
        content = part_of(content, hints.part)
    chosen = to or ("fluid" if content.kind == "holdfast" else "holdfast")
    if chosen == "holdfast" and content.kind == "holdfast":
        raise UsageError(
            f"{source} is Holdfast's already; copy its folder, or say --to with one of {', '.join(TARGETS[1:])}"
        )
    if content.kind in ("torch", "dcp") and chosen in ("holdfast", "pt"):
        content = convert_training.with_names(content, hints.listed())
    elif hints.names is not None and content.kind not in ("fluid-combined", "fluid-model"):
        raise UsageError(f"--names has no meaning for {source} ({content.kind}) and --to {chosen}")
    left_out = [*content.left_out]
    with out.progress(f"write {tidy(os.path.abspath(destination))}") as progress:
        made = _write(content, destination, chosen, dialect, left_out, progress)
    _report(content, destination, chosen, made, left_out, out)
    return DONE


@dataclass(frozen=True, slots=True)
class _Made:
    """What was written: the serial if there is one, and the names of the values."""

    serial: int | None = None
    values: Collection[str] = ()


def _write(
    content: Content, destination: str, to: str, dialect: Dialect, left_out: list[str], progress: Callback | None
) -> _Made:
    trainers = content.trainers
    if to == "holdfast":
        return _Made(_to_holdfast(content, destination, left_out, progress), content.values)
    values = _fitting(content, to, left_out)
    if to != "fluid-checkpoint" and trainers is not None:
        left_out += [f"arguments of trainer {k}" for k, arguments in trainers.items() if arguments]
    if to == "fluid-checkpoint":
        tables = {n.removeprefix(TABLES): v for n, v in content.variables.items() if n.startswith(TABLES)}
        rest = {n: v for n, v in content.variables.items() if not n.startswith(TABLES)}
        arguments = {k: _texts(k, held, left_out) for k, held in (trainers or {0: None}).items()}
        return _Made(
            checkpoint_tree.write(destination, rest, trainers=arguments, lookup_tables=tables, dialect=dialect)
        )
    if to == "fluid":
        fluid_folder.write_variables(destination, content.variables, dialect=dialect)
    elif to == "fluid-combined":
        _refuse_existing(destination)
        folder, name = os.path.split(os.path.abspath(destination))
        fluid_folder.write_variables(folder, content.variables, filename=name, dialect=dialect)
    elif to == "pdparams":
        _to_pickles(content, values, destination, dialect)
    else:
        _refuse_existing(destination)
        arrays = arrays_of(content)[0]
        if to == "pt":
            torch_files.write(destination, arrays, values)
        else:
            npz.write(destination, arrays)
    return _Made(None, values)


def _fitting(content: Content, to: str, left_out: list[str]) -> dict[str, Any]:
    """The values that have a place in a file of others; the rest is left out, and why."""
    names = arrays_of(content)[0].keys()
    kept: dict[str, Any] = {}
    for name, value in content.values.items():
        if to != "pt" and isinstance(value, Tagged) and value.tag == "$variable":
            left_out.append(f"name {name}: a second one of {value.value!r}")
        elif to not in ("pt", "pdparams"):
            left_out.append(f"value {name}")
        elif reason := torch_files.value_problem(value, names) if to == "pt" else pdparams.value_problem(value):
            left_out.append(f"value {name}: {reason}")
        else:
            kept[name] = value
    return kept


def _to_holdfast(content: Content, destination: str, left_out: list[str], progress: Callback | None) -> int | None:
    reasons = {
        name: f"{dtype_problem(value.array.dtype)}; save it as one of these where it was made"
        for name, value in content.variables.items()
        if dtypes.from_numpy(value.array.dtype) is None
    }
    if reasons:
        raise UnsupportedVariableError(
            reasons, f"{content.path} holds what no checkpoint can hold; nothing was written"
        )
    if convert_training.is_training(content):
        state = convert_training.state_of(content)
        # A serial is there only if the source has numbered steps.
        return holdfast.save_checkpoint(
            state, destination, step=content.serial, max_num_checkpoints=None, progress=progress
        )
    arrays, parameters = arrays_of(content)
    state = {name: holdfast.parameters(array) if name in parameters else array for name, array in arrays.items()}
    if content.trainers is not None:
        left_out += [f"arguments of trainer {k}" for k in content.trainers if k]
        arguments = content.trainers.get(0)
        return holdfast.save_checkpoint(
            state, destination, trainer_args=arguments, max_num_checkpoints=None, progress=progress
        )
    save = holdfast.save_params if parameters == arrays.keys() else holdfast.save_persistables
    save(state, destination, progress=progress)
    return None


def _texts(trainer: int, arguments: Any, left_out: list[str]) -> dict[str, str]:
    """A trainer's arguments as Fluid keeps them: text under names."""
    if arguments is None:
        return {}
    if isinstance(arguments, dict) and all(isinstance(name, str) for name in arguments):
        return {name: str(value) for name, value in arguments.items()}
    left_out.append(f"arguments of trainer {trainer}: Fluid's are texts under names")
    return {}


def _to_pickles(content: Content, values: dict[str, Any], destination: str, dialect: Dialect) -> None:
    """Parameters into DST.pdparams, the others and values into DST.pdopt, as Paddle keeps them."""
    stem = destination.removesuffix(".pdparams")
    arrays, parameters = arrays_of(content)
    files = {".pdopt": [n for n in arrays if n not in parameters], ".pdparams": [n for n in arrays if n in parameters]}
    written = [ending for ending, names in files.items() if names or (ending == ".pdopt" and values)]
    for ending in written:
        _refuse_existing(stem + ending)
    if reasons := pdparams.problems(arrays, dialect):  # before the first of the two is there
        raise UnsupportedVariableError(reasons)
    for ending in written:
        held = {name: arrays[name] for name in files[ending]}
        pdparams.write(stem + ending, held, values=values if ending == ".pdopt" else {}, dialect=dialect)


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise ForeignFolderError(f"{path} exists; it is never overwritten. Choose another path or remove it")


def _report(content: Content, destination: str, to: str, made: _Made, left_out: list[str], out: Output) -> None:
    listed = [
        {
            "name": name,
            "kind": "persistable" if name in content.others else "parameter",
            "dtype": dtypes.from_numpy(value.array.dtype) or str(value.array.dtype),
            "shape": list(value.array.shape),
            "bytes": value.array.nbytes,
        }
        for name, value in content.variables.items()
    ]
    total = sum(value.array.nbytes for value in content.variables.values())
    path = os.path.abspath(destination)
    # Second names of variables are values in the format; to people they are none.
    values = [name for name in made.values if not isinstance(content.values[name], Tagged)]
    out.document(
        {
            "source": os.path.abspath(content.path),
            "source_kind": content.kind,
            "source_serial": content.serial,
            "path": path,
            "kind": to,
            "serial": made.serial,
            "variables": listed,
            "bytes": total,
            "values": values,
            "left_out": left_out,
            "notes": content.notes,
        }
    )
    parameters = len(listed) - len(content.others)
    where, there = _place(os.path.abspath(content.path), content.serial), _place(path, made.serial)
    held = f"{count(len(listed), 'variable')}, {count(parameters, 'parameter')} among them, {size(total)}"
    if values:
        held += f"; {count(len(values), 'value')}"
    out.line(f"converted {where} ({content.kind}) to {there} ({to}): {held}")
    for what in left_out:
        out.line(f"left out: {what}")
    for note in content.notes:
        out.line(f"note: {note}")


def _place(path: str, serial: int | None) -> str:
    return tidy(path) if serial is None else f"{tidy(path)}@{serial}"
