"""load_inference_model: a model of Holdfast's or of Fluid's, from a folder or from memory, into the scope: all of it or nothing."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import holdfast
from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.fluid.checks import some
from holdfast.fluid.framework import Program
from holdfast.fluid.io import held, in_memory, program_fluid, program_json
from holdfast.fluid.io.failures import ModelFolderError, enforced
from holdfast.fluid.io.model_files import ModelFiles, is_program
from holdfast.fluid.io.program_json import ProgramRecord
from holdfast.fluid.io.selecting import is_persistable, select
from holdfast.fluid.io.sources import OfHoldfast, opened
from holdfast.fluid.io.variables import read
from holdfast.fluid.scope import Scope, ScopeVariable, global_scope
from holdfast.format import layout
from holdfast.interop import program_wire
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.source import read_all


class ScopeConflictError(RuntimeError):
    """A model for prediction would overwrite variables of the scope that are something else.

    Attributes:
        names: of those variables.
    """

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"loading {path} into this scope would overwrite {len(names)} variable(s) that have other values, as those of a "
            f"model in training: {some(names)}; nothing was changed. Load it into a scope of its own, "
            "`with fluid.scope_guard(fluid.Scope()):`, and run it there too; or say overwrite=True"
        )


def load_inference_model(
    dirname: str | os.PathLike[str] | None,
    executor: Any,
    model_filename: str | bytes | None = None,
    params_filename: str | bytes | None = None,
    pserver_endpoints: Any = None,
    *,
    overwrite: bool = False,
) -> list[Any]:
    """Load a model for prediction into the scope: all of it matches, or nothing is changed. Nothing in it is executed.

    Args:
        dirname: the folder, of Holdfast's or Fluid's. None: the two that follow are bytes and no names, the program's and those
            of Fluid's combined file of parameters.
        executor: loaded values go to its place.
        model_filename: the program's file; None for `__model__`.
        params_filename: as it was saved; a model of Holdfast knows it.
        pserver_endpoints: None; parameter servers are not supported.
        overwrite: whether variables of the scope that have other values, as those of a model in training, are overwritten.
            Those that this folder gave, and that nothing has changed since, may always be.

    Returns:
        `[program, names to feed, variables to fetch]`. The program's persistables are parameters.

    Raises:
        CheckpointNotFoundError: there is no model; a ValueError too if the folder does not exist.
        FormatError, VersionError, CorruptCheckpointError: it is damaged, or has operators or attributes that are not known here.
        MismatchError: parameters are missing, or have another dtype or shape than the program says; all are listed.
        ScopeConflictError: see `overwrite`.
        StorageError: the system refused to read.

    All of them are `fluid.core.EnforceNotMet`, which is what programs of Fluid catch.
    """
    if pserver_endpoints:
        raise NotImplementedError("pserver_endpoints: parameter servers are not planned")
    with enforced():
        program, values, source = (
            _of_bytes(model_filename, params_filename)
            if dirname is None
            else _of_folder(ModelFiles(os.fspath(dirname), _name(model_filename), _name(params_filename)))
        )
    scope = global_scope()
    # What has this very value already stays as it is.
    changing = {n: v for n, v in values.items() if not _is_there(scope, n, v.array)}
    if not overwrite:
        _check_scope(scope, changing, source)
    held.put(scope, changing, source, held.device_of(executor))
    for name in changing:
        variable = scope.find_var(name)
        assert variable is not None
        _given[variable] = weakref.ref(variable.held)
    block = program.global_block()
    return [program, list(program.feed_names), [block.vars[name] for name in program.fetch_names]]


_Loaded = tuple[Program, dict[str, LoDTensor], str]  # the last says where from


def _name(given: str | bytes | None) -> str | None:
    if isinstance(given, bytes):
        raise TypeError("a file name was expected, not bytes; those go with dirname=None")
    return given


def _of_bytes(model: str | bytes | None, params: str | bytes | None) -> _Loaded:
    if not isinstance(model, bytes) or not isinstance(params, bytes | None):
        raise ValueError(  # noqa: TRY004 - as Fluid does
            "with dirname=None model_filename= must be the bytes of the program and params_filename= those of its parameters"
        )
    program = Program.parse_from_string(model)
    weights = select(program, is_persistable)
    if weights and params is None:
        raise ValueError("with dirname=None params_filename= must be the bytes of the parameters")
    return program, in_memory.read(params or b"", weights), in_memory.NAME


def _of_folder(names: ModelFiles) -> _Loaded:
    data, source = _program_bytes(names), os.path.abspath(names.dirname)
    if data.lstrip()[:1] == b"{":
        record = program_json.from_bytes(data, names.program)
        program = program_json.program_of(record, names.program)
        return program, _read_ours(names, record, program), source
    program = program_fluid.program_of(program_wire.from_bytes(data, names.program), names.program)
    weights = select(program, is_persistable)
    if not weights:
        return program, {}, source
    with opened(names.dirname, names.params) as parameters:
        return program, read(parameters, weights), source


def _program_bytes(names: ModelFiles) -> bytes:
    if not os.path.isdir(names.dirname):
        raise ModelFolderError(f"no program {names.model!r} in {names.dirname}: the folder does not exist")
    if not os.path.isfile(names.program):
        there = sorted(os.listdir(names.dirname))
        programs = [n for n in there if is_program(os.path.join(names.dirname, n))]
        hint = f"; perhaps model_filename={programs[0]!r}" if programs else ""
        raise CheckpointNotFoundError(
            f"no program {names.model!r} in {names.dirname}: it holds {', '.join(there[:10]) or 'nothing'}{hint}"
        )
    return read_all(names.program, program_json.MAX_BYTES)


def _read_ours(names: ModelFiles, record: ProgramRecord, program: Program) -> dict[str, LoDTensor]:
    if record.params is None or (names.params is not None and names.params != record.params):
        raise ValueError(
            f"params_filename={names.params!r}: {names.program} was saved with {record.params or None!r}; leave it out"
        )
    if record.params in (".", "..") or os.path.basename(record.params) != record.params:
        raise FormatError(f"{names.program}: its parameters would lie outside of the folder, in {record.params!r}")
    weights = select(program, is_persistable)
    if not weights:
        return {}
    where = os.path.join(names.dirname, record.params) if record.params else names.dirname
    if not os.path.isfile(os.path.join(where, layout.MANIFEST)):
        raise CheckpointNotFoundError(
            f"no parameters in {where}: the model was saved with program_only=True, or is incomplete"
        )
    with holdfast.open(where) as checkpoint:
        return read(OfHoldfast(checkpoint), weights)


# What a load gave to a variable: as long as it is still that, no work is lost by loading the model anew.
_given: weakref.WeakKeyDictionary[ScopeVariable, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def _is_there(scope: Scope, name: str, array: np.ndarray) -> bool:
    variable = scope.find_var(name)
    if variable is None or variable.held is None:
        return False
    now = np.asarray(variable.held)
    return now.dtype == array.dtype and now.shape == array.shape and now.tobytes() == array.tobytes()


def _check_scope(scope: Scope, names: Iterable[str], source: str) -> None:
    conflicts = []
    for name in names:
        variable = scope.find_var(name)
        if variable is None or variable.held is None:
            continue
        if variable.first is not None and variable.first() is variable.held:
            continue  # as a startup program left it
        given = _given.get(variable)
        if given is None or given() is not variable.held or variable.loaded_from != source:
            conflicts.append(name)
    if conflicts:
        raise ScopeConflictError(source, conflicts)
