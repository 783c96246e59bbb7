"""save_vars, save_params, save_persistables and their loads: Fluid's calls on the core's files, or on Fluid's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

import holdfast
from holdfast.errors import MismatchError
from holdfast.fluid.checks import HazardWarning, some, warn_of_updates
from holdfast.fluid.framework import RANDOM_STATE, Parameter, Program, Variable
from holdfast.fluid.io import held
from holdfast.fluid.io.failures import enforced
from holdfast.fluid.io.held import gather, state_of, tensors_of
from holdfast.fluid.io.in_memory import bytes_of
from holdfast.fluid.io.selecting import Predicate, is_parameter, is_persistable, program_of, select
from holdfast.fluid.io.sources import OfCombined, OfHoldfast, Source, opened, place_of
from holdfast.fluid.scope import global_scope
from holdfast.interop import combined, fluid_folder
from holdfast.interop.lodtensor import LoDTensor

FileFormat = Literal["holdfast", "fluid"]


def save_vars(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    vars: Iterable[Any] | None = None,
    predicate: Predicate | None = None,
    filename: str | None = None,
    *,
    file_format: FileFormat = "holdfast",
) -> bytes | None:
    """Save chosen variables of a program out of the scope: durable when this returns, and whole at every instant.

    Args:
        executor: not used for its programs; Fluid's signature has it.
        dirname: becomes a folder as `holdfast.save_vars` makes it. A save that is there is replaced as a whole. None, without
            a `filename`: nothing is written, and the bytes of Fluid's combined file are returned.
        main_program: a Program or CompiledProgram; None for the default one.
        vars: variables or names; not together with `predicate`.
        predicate: chooses among the persistables. Without both, all persistables are saved.
        filename: the save becomes `dirname/filename`, so that several can lie in one folder.
        file_format: `"fluid"` writes Fluid's own files: one for each variable, or a combined one if `filename` is given.

    Returns:
        None, or the bytes if `dirname` is None.

    Raises:
        UnsavableError: variables have no value, or another dtype or shape than the program says; all are named.
        UnsupportedVariableError: the format cannot hold a value or a name.
        ForeignFolderError: the folder holds what is not a save of this kind.
        ValueError: nothing is chosen, or `vars` names temporaries or what is not there.
        StorageError, DiskFullError: the system refused; what was there is still there.

    All but the ValueError are `fluid.core.EnforceNotMet`, which is what programs of Fluid catch; so it is with loads.

    Warns:
        HazardWarning: variables hold NaN, or nothing is written as `dirname` is None.

    Example:
        >>> import holdfast.fluid as fluid
        >>> main, startup = fluid.Program(), fluid.Program()
        >>> with fluid.program_guard(main, startup), fluid.unique_name.guard():
        ...     y = fluid.layers.fc(fluid.layers.data("x", [2]), 3)
        >>> exe = fluid.Executor(fluid.CPUPlace())
        >>> with fluid.scope_guard(fluid.Scope()):
        ...     _ = exe.run(startup)
        ...     fluid.io.save_vars(exe, "chosen", main, predicate=lambda v: v.name.endswith(".w_0"))
        >>> sorted(fluid.io.saved_names("chosen"))
        ['fc_0.w_0']
    """
    program = program_of(main_program)
    return _save("save_vars", dirname, program, select(program, predicate, vars), filename, file_format)


def save_params(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    filename: str | None = None,
    *,
    file_format: FileFormat = "holdfast",
) -> bytes | None:
    """Save the parameters of a program, for prediction; like `save_vars` in everything else."""
    program = program_of(main_program)
    return _save("save_params", dirname, program, select(program, is_parameter), filename, file_format)


def save_persistables(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    filename: str | None = None,
    *,
    file_format: FileFormat = "holdfast",
) -> bytes | None:
    """Save every persistable of a program, accumulators and counters too; like `save_vars` in everything else."""
    program = program_of(main_program)
    return _save("save_persistables", dirname, program, select(program, is_persistable), filename, file_format)


def _save(
    call: str,
    dirname: str | os.PathLike[str] | None,
    program: Program,
    variables: Sequence[Variable],
    filename: str | None,
    file_format: FileFormat,
) -> bytes | None:
    if not variables:
        raise ValueError(
            f"{call}: there is nothing to save: of the program's persistables ("
            f"{some(v.name for v in select(program)) or 'none'}) none is chosen"
        )
    in_memory = dirname is None and filename is None
    fluid = is_fluid_format(file_format) or in_memory
    path = "" if in_memory else place_of(dirname, filename)
    found = gather(variables, global_scope(), lod=fluid)
    held.warn_of_nan(held.with_nan(found), call, stacklevel=3)
    with enforced():
        if in_memory:
            warn(call, ["dirname is None: nothing is written, and the bytes are what the call returns"], stacklevel=4)
            return bytes_of(tensors_of(found))
        if not fluid:
            (holdfast.save_params if call == "save_params" else holdfast.save_persistables)(state_of(found), path)
        elif filename is None:
            fluid_folder.write_variables(path, tensors_of(found), replace=True)
        else:
            fluid_folder.write_variables(os.fspath(dirname or "") or ".", tensors_of(found), filename=filename)
    return None


def is_fluid_format(file_format: str) -> bool:
    """Whether Fluid's own files are asked for.

    Raises:
        ValueError: it is no name of a format.
    """
    if file_format not in ("holdfast", "fluid"):
        raise ValueError(f'file_format={file_format!r}: expected "holdfast" or "fluid"')
    return file_format == "fluid"


def load_vars(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    vars: Iterable[Any] | None = None,
    predicate: Predicate | None = None,
    filename: str | None = None,
) -> None:
    """Load chosen variables into the scope: all of them match the program, or nothing is changed.

    Args:
        executor: loaded values go to its place.
        dirname: a folder of Holdfast, or one that Fluid wrote: files of variables, a tree of checkpoints, `.pdparams` (with or
            without the ending). It is recognised by itself.
        main_program: a Program or CompiledProgram; None for the default one.
        vars: variables or names; not together with `predicate`.
        predicate: chooses among the persistables. Without both, all persistables are loaded.
        filename: what in the folder: a save of Holdfast, a `.safetensors` file, or a combined file of Fluid, which holds
            exactly the chosen variables.

    Raises:
        MismatchError: variables are missing, or have another dtype or shape than the program says; all are listed.
        CheckpointNotFoundError: there is nothing to load.
        CorruptCheckpointError, FormatError: a file is damaged.
        ValueError: `predicate` chooses nothing though the folder holds variables of the program.
        StorageError: the system refused to read.

    Warns:
        HazardWarning: parameters keep their values because neither the predicate chose them nor are they there.
    """
    program = program_of(main_program)
    _load("load_vars", executor, dirname, program, select(program, predicate, vars), filename, predicate is not None)


def load_params(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    filename: str | None = None,
) -> None:
    """Load the parameters of a program, for prediction; like `load_vars` in everything else.

    Warns:
        HazardWarning: the program holds operators that change parameters, so that predicting with it would change them.
    """
    program = program_of(main_program)
    _load("load_params", executor, dirname, program, select(program, is_parameter), filename)
    warn_of_updates(program, "load_params")


def load_persistables(
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    main_program: Any = None,
    filename: str | None = None,
) -> None:
    """Load every persistable of a program, accumulators and counters too; like `load_vars` in everything else."""
    program = program_of(main_program)
    _load("load_persistables", executor, dirname, program, select(program, is_persistable), filename)


def _load(
    call: str,
    executor: Any,
    dirname: str | os.PathLike[str] | None,
    program: Program,
    variables: list[Variable],
    filename: str | None,
    by_predicate: bool = False,
) -> None:
    with enforced(), opened(dirname, filename) as source:
        if not variables:
            _warn_or_refuse_nothing(call, program, source, by_predicate)
            return
        wanted, warning = without_absent_random_state(source, variables)
        values = read(source, wanted)
        path, names, parameters = source.path, source.names, source.parameters
    held.put(global_scope(), values, path, held.device_of(executor))
    chosen = {v.name for v in variables}
    texts = [warning] if warning else []
    if by_predicate and names is not None:
        kept = sorted({v.name for v in select(program, is_parameter)} - chosen - names)
        if kept:
            texts.append(f"these parameters are not in {path} and keep their values: {some(kept)}")
    elif call in ("load_params", "load_persistables") and (left := sorted(parameters - chosen)):
        texts.append(f"{path} also holds parameters that the program does not have: {some(left)}")
    if generated := held.positional(v.name for v in wanted):
        texts.append(positional_warning(generated))
    warn(call, texts, stacklevel=4)


def read(source: Source, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
    """The values of variables; an error says what the folder is for, if it lacks all but parameters."""
    try:
        return source.read(wanted)
    except MismatchError as error:
        missing = set(error.named("missing"))
        if missing and missing == {v.name for v in wanted if not isinstance(v, Parameter)}:
            raise MismatchError(
                error.source,
                error.problems,
                [*error.hints, "It holds the parameters only, as save_params leaves them: load_params loads those"],
            ) from error
        raise


def without_absent_random_state(source: Source, variables: list[Variable]) -> tuple[list[Variable], str]:
    """The variables without the state of random numbers, if the source has none, and then a warning that says so."""
    if all(v.name != RANDOM_STATE for v in variables):
        return variables, ""
    if isinstance(source, OfCombined):
        absent = len(combined.records(source.path)) == len(variables) - 1
    else:
        absent = source.names is not None and RANDOM_STATE not in source.names
    if not absent:
        return variables, ""
    text = (
        f"{source.path} has no state of random numbers ({RANDOM_STATE}), as files of Fluid never have: dropout and the like "
        "go on with other numbers than the run that was saved"
    )
    return [v for v in variables if v.name != RANDOM_STATE], text


def positional_warning(names: Sequence[str]) -> str:
    """The warning that names are only positions."""
    return (
        f"the names {some(names)} say only in which order the variables were created: a program that creates others before "
        "them finds the values of those. Give them names of their own, as create_global_var(name=) does"
    )


def warn(call: str, texts: Sequence[str], stacklevel: int) -> None:
    """Warn of hazards at the caller's line."""
    for text in texts:
        warnings.warn(f"{call}: {text}", HazardWarning, stacklevel=stacklevel)


def _warn_or_refuse_nothing(call: str, program: Program, source: Source, by_predicate: bool) -> None:
    """Nothing is chosen: an error if that is surely a slip, else a warning."""
    there = sorted({v.name for v in select(program)} & (source.names or frozenset()))
    if by_predicate and there and isinstance(source, OfHoldfast):
        raise ValueError(
            f"{call}: the predicate chose none of the program's persistables, though {source.path} holds {some(there)}. If it "
            "asks whether a file of the variable's name exists: Holdfast's folders have no file for each variable. Use "
            f"predicate=lambda v: v.name in fluid.io.saved_names({source.path!r}), or save with file_format='fluid'"
        )
    warn(call, [f"nothing was loaded from {source.path}: none of the program's variables is chosen"], stacklevel=5)


def get_parameter_value(para: Variable, executor: Any) -> np.ndarray:
    """The value of a parameter in the scope, as a copy.

    Raises:
        AssertionError: it is no parameter, as in Fluid.
        UnsavableError: it has no value, or another dtype or shape than the program says.
    """
    if not is_parameter(para):
        raise AssertionError(f"{para.name} is no parameter")
    return gather([para], global_scope())[para.name].array.copy()


def get_parameter_value_by_name(name: str, executor: Any, program: Program | None = None) -> np.ndarray:
    """The value of the parameter of this name; like `get_parameter_value` in everything else.

    Raises:
        ValueError: the program has no variable of this name.
    """
    return get_parameter_value(program_of(program).global_block().var(name), executor)
