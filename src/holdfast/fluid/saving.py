"""fluid.save and fluid.load, load_program_state and set_program_state: all persistables of a program at one path."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import holdfast
from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.fluid.checks import HazardWarning, some
from holdfast.fluid.framework import Program
from holdfast.fluid.io import held
from holdfast.fluid.io.failures import enforced
from holdfast.fluid.io.held import gather, state_of
from holdfast.fluid.io.selecting import is_parameter, is_persistable, program_of, select
from holdfast.fluid.io.sources import check, opened
from holdfast.fluid.io.variables import (
    FileFormat,
    is_fluid_format,
    positional_warning,
    read,
    warn,
    without_absent_random_state,
)
from holdfast.fluid.scope import global_scope
from holdfast.interop import files, pdparams
from holdfast.interop.lodtensor import LoDTensor


def save(program: Program, model_path: str | os.PathLike[str], *, file_format: FileFormat = "holdfast") -> None:
    """Save every persistable of a program out of the scope.

    Args:
        program: a Program or CompiledProgram.
        model_path: becomes a folder, as with `fluid.io.save_persistables`; with `file_format="fluid"` the files
            `model_path.pdparams` and `model_path.pdopt`, and in `model_path.pdmodel` the program, for other tools.
        file_format: `"fluid"` for files that Fluid 1.6 and later reads.

    Raises:
        UnsavableError: variables have no value, or another dtype or shape than the program says; all are named.
        ValueError: the program has no persistables, or the path has no last part.
        UnsupportedVariableError, ForeignFolderError, StorageError, DiskFullError: see `fluid.io.save_vars`.

    Warns:
        HazardWarning: variables hold NaN, or there is no `.pdmodel` as the program has no form in Fluid's files.
    """
    where = os.fspath(model_path)
    if not os.path.basename(where):
        raise ValueError(f"model_path={where!r} must end with a name, not with a slash")
    variables = select(program_of(program), is_persistable)
    if not variables:
        raise ValueError("the program has no persistables, so there is nothing to save")
    fluid = is_fluid_format(file_format)
    found = gather(variables, global_scope())
    held.warn_of_nan(held.with_nan(found), "fluid.save", stacklevel=2)
    if not fluid:
        with enforced():
            holdfast.save_persistables(state_of(found), where)
        return
    parts = {
        ".pdparams": {n: h.array for n, h in found.items() if is_parameter(h.variable)},
        ".pdopt": {n: h.array for n, h in found.items() if not is_parameter(h.variable)},
    }
    if reasons := {n: "this dtype is unknown to Fluid 1.8" for n, h in found.items() if h.array.dtype.kind in "Vc"}:
        raise UnsupportedVariableError(reasons)
    with enforced():
        for end, arrays in parts.items():
            pdparams.write(where + end, arrays)
        _save_program(program_of(program), where + ".pdmodel")


def _save_program(program: Program, path: str) -> None:
    try:
        data = program.desc.serialize_to_string()
    except FormatError as error:
        # Nothing that Fluid loads needs this file. One that is there is another program's.
        with files.storage_errors(f"cannot remove {path}"), contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        warn("fluid.save", [f"there is no {path}: {error}"], stacklevel=4)
    else:
        files.write_file(path, [data])


def load(
    program: Program, model_path: str | os.PathLike[str], executor: Any = None, var_list: Iterable[Any] | None = None
) -> None:
    """Load every persistable of a program into the scope: all of them match, or nothing is changed.

    Args:
        program: a Program or CompiledProgram.
        model_path: what `save` wrote, or any save of `fluid.io`, or of Fluid's: `.pdparams` and `.pdopt` (with an ending or
            without), a folder of variables, a combined file.
        executor: loaded values go to its place; None for the CPU.
        var_list: variables to load; None for all persistables. A combined file holds exactly these.

    Raises:
        As `fluid.io.load_vars`.
    """
    variables = select(program_of(program), None, var_list)
    with enforced(), opened(_without_ending(model_path)) as source:
        wanted, warning = without_absent_random_state(source, variables)
        values = read(source, wanted)
        path = source.path
    held.put(global_scope(), values, path, held.device_of(executor))
    texts = [warning] if warning else []
    if generated := held.positional(v.name for v in wanted):
        texts.append(positional_warning(generated))
    warn("fluid.load", texts, stacklevel=3)


def _without_ending(model_path: str | os.PathLike[str]) -> str:
    """As in Fluid, one of a save's files stands for all of them."""
    path = os.fspath(model_path)
    prefix, end = os.path.splitext(path)
    return prefix if end in (".pdparams", ".pdopt", ".pdmodel") and os.path.isfile(prefix + ".pdparams") else path


def load_program_state(
    model_path: str | os.PathLike[str], var_list: Iterable[Any] | None = None
) -> dict[str, np.ndarray]:
    """Every variable at a path, without a program: arrays by name, for `set_program_state`.

    Args:
        model_path: as for `load`.
        var_list: variables to read; None for all that are there. A combined file needs exactly its own.

    Raises:
        As `fluid.io.load_vars`.
    """
    with enforced(), opened(_without_ending(model_path)) as source:
        values = source.read_all() if var_list is None else source.read(list(var_list))
    return {name: value.array for name, value in values.items()}


def set_program_state(program: Program, state_dict: Mapping[str, Any]) -> None:
    """Give arrays to the persistables of a program that have their names: all of them match, or nothing is changed.

    Args:
        program: a Program or CompiledProgram; its startup program has been run.
        state_dict: arrays by name.

    Raises:
        MismatchError: arrays have another dtype or shape than the program says; all are listed.

    Warns:
        HazardWarning: the program has no variables of some names.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    wanted = [v for v in select(program_of(program), is_persistable) if v.name in arrays]
    source = "a state of the program"
    with enforced():
        check(source, wanted, {n: (a.dtype, a.shape) for n, a in arrays.items()})
    if unused := sorted(arrays.keys() - {v.name for v in wanted}):
        warnings.warn(
            f"set_program_state: the program has no variables of these names: {some(unused)}",
            HazardWarning,
            stacklevel=2,
        )
    # Copies: what the caller does to its arrays later is not the scope's.
    values = {v.name: LoDTensor(arrays[v.name].copy()) for v in wanted}
    held.put(global_scope(), values, source, held.device_of(None))
