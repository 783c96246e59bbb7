"""save_inference_model and load_inference_model: a pruned program with its parameters, ours or Fluid's.

A model is a folder: the program as JSON (`__model__`, or as it was named), `model.stablehlo`, and the parameters as the core saves
them. The folder takes its place as a whole, so that no program ever meets the parameters of another save.
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import holdfast
from holdfast.errors import CheckpointNotFoundError, ForeignFolderError, FormatError, UnsupportedVariableError
from holdfast.fluid import core
from holdfast.fluid.checks import some
from holdfast.fluid.cloning import prune
from holdfast.fluid.framework import Program, Variable
from holdfast.fluid.io import held, program_fluid, program_json, stablehlo
from holdfast.fluid.io.held import gather, tensors_of
from holdfast.fluid.io.program_json import FORMAT, ProgramRecord, StableHLO
from holdfast.fluid.io.selecting import is_persistable, program_of, select
from holdfast.fluid.io.sources import OfHoldfast, expectations
from holdfast.fluid.io.variables import FileFormat, is_fluid_format, read
from holdfast.fluid.lowering import analyse
from holdfast.fluid.scope import Scope, ScopeVariable, global_scope
from holdfast.format import layout
from holdfast.interop import files, fluid_folder, fluid_names, program_wire
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.source import read_all

_STABLEHLO = "model.stablehlo"


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


def save_inference_model(
    dirname: str | os.PathLike[str],
    feeded_var_names: str | Sequence[str],
    target_vars: Variable | Sequence[Any],
    executor: Any,
    main_program: Any = None,
    model_filename: str | None = None,
    params_filename: str | None = None,
    export_for_deployment: bool = True,
    program_only: bool = False,
    *,
    file_format: FileFormat = "holdfast",
) -> list[str]:
    """Save what predicting needs: the program that computes the targets, and its parameters. The program is not changed.

    Args:
        dirname: becomes a folder with the program, `model.stablehlo` and the parameters; at every instant it is the old model
            or the new one. What else lies in it stays.
        feeded_var_names: names of the variables that will be fed: exactly those that the targets need.
        target_vars: what will be fetched; the names stay.
        executor: not used; Fluid's signature has it.
        main_program: a Program or CompiledProgram; None for the default one. Training operators are left out.
        model_filename: name of the program's file; None for `__model__`.
        params_filename: a folder in `dirname` for the parameters, so that several models can lie in one folder; with
            `file_format="fluid"` the name of a combined file.
        export_for_deployment: False, the whole program for further training, is not supported.
        program_only: leave out the parameters.
        file_format: `"fluid"` writes `__model__` and LoDTensor files as Fluid 1.8 reads them, without StableHLO.

    Returns:
        The names of the targets.

    Raises:
        ValueError: feeds are unknown, missing or not needed, or targets are not computed; all are named.
        UnsavableError: parameters have no value, or another dtype or shape than the program says.
        ForeignFolderError: the folder holds something else.
        NotImplementedError: `export_for_deployment` is False.
        StorageError, DiskFullError: the system refused; what was there is still there.

    Warns:
        HazardWarning: parameters hold NaN.
    """
    fluid = is_fluid_format(file_format)
    if not export_for_deployment:
        raise NotImplementedError(
            "export_for_deployment=False (the whole program, for further training) is not supported: save_checkpoint or "
            "save_persistables, and the code that builds the program, resume a training"
        )
    feeds = [feeded_var_names] if isinstance(feeded_var_names, str) else list(feeded_var_names)
    targets = [target_vars] if isinstance(target_vars, Variable) else list(target_vars)
    fetches = [t.name if isinstance(t, Variable) else str(t) for t in targets]
    pruned = _pruned(program_of(main_program), feeds, fetches)
    weights = select(pruned, is_persistable)
    found = {} if program_only else gather(weights, global_scope())
    held.warn_of_nan(held.with_nan(found), "save_inference_model", stacklevel=2)
    names = _Names(os.fspath(dirname), model_filename, params_filename)
    if fluid:
        _save_fluid(names, pruned, feeds, fetches, tensors_of(found), program_only)
        return fetches
    export = _export(pruned, weights, feeds, fetches, names)
    record = ProgramRecord(feeds, fetches, names.params or "", export[0], program_json.blocks_of(pruned))
    # All are parameters here, whatever they were in training: in one file, as plain safetensors readers want it.
    state = {name: holdfast.parameters(h.array) for name, h in found.items()}
    _save(names, program_json.to_bytes(record), export[1], state, keep_params=program_only)
    return fetches


class _Names:
    """Where the parts of a model are."""

    def __init__(self, dirname: str, model_filename: str | None, params_filename: str | None) -> None:
        if not dirname:
            raise ValueError("dirname must name a folder")
        self.dirname = dirname
        # As in Fluid only the last part of a path counts.
        self.model = os.path.basename(model_filename or "") or fluid_names.MODEL
        self.params = os.path.basename(params_filename or "") or None
        self.stablehlo = _STABLEHLO if self.model == fluid_names.MODEL else f"{self.model}.stablehlo"
        taken = [self.model, self.stablehlo, *([self.params] if self.params else [])]
        reserved = [n for n in taken if n == layout.MANIFEST or layout.is_listable(n) or n in (".", "..")]
        if reserved or len(set(taken)) < len(taken):
            raise ValueError(
                f"model_filename={model_filename!r} and params_filename={params_filename!r} cannot be used"
            )

    @property
    def program(self) -> str:
        return os.path.join(self.dirname, self.model)


def _pruned(program: Program, feeds: Sequence[str], fetches: Sequence[str]) -> Program:
    known = program.global_block().vars
    problems = [f"feed {n!r} is unknown: the program has no such variable" for n in feeds if n not in known]
    problems += [f"target {n!r} is unknown: the program has no such variable" for n in fetches if n not in known]
    if not fetches:
        problems.append("there is no target")
    _raise_problems(problems)
    made = prune(program.clone(for_test=True), list(fetches), feeds)
    variables = made.global_block().vars
    read = [n for n in analyse(made, fetches).reads if n not in variables or not variables[n].persistable]
    missing = [n for n in read if n not in feeds]
    problems += [f"feed {n!r} is missing: the targets need it" for n in missing if known[n].is_data]
    problems += [
        f"{n!r} is not computed by the program for prediction, which has no training operators"
        for n in missing
        if not known[n].is_data
    ]
    problems += [f"feed {n!r} is not needed: the targets do not depend on it" for n in feeds if n not in set(read)]
    _raise_problems(problems)
    for name in feeds:
        variables[name].is_data = variables[name].stop_gradient = True
    return made


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("\n  ".join(["the model cannot be saved; nothing was written:", *problems]))


def _export(
    pruned: Program, weights: Sequence[Variable], feeds: Sequence[str], fetches: Sequence[str], names: _Names
) -> tuple[StableHLO, bytes | None]:
    shapes = {
        v.name: np.broadcast_to(np.zeros((), core.to_numpy(v.dtype)), v.shape)
        for v in weights
        if v.shape is not None and all(n >= 0 for n in v.shape)
    }
    if len(shapes) < len(weights):
        return StableHLO(None, "the shapes of some persistables are not known"), None
    try:
        data = stablehlo.exported(pruned, shapes, feeds, fetches)
    except stablehlo.NotExportableError as error:
        return StableHLO(None, str(error)), None
    return StableHLO(names.stablehlo, weights=sorted(shapes), feeds=sorted(feeds)), data


def _save(names: _Names, program: bytes, export: bytes | None, state: dict[str, Any], *, keep_params: bool) -> None:
    target = os.path.abspath(names.dirname)
    kept = _others(target, names, keep_params)
    with files.new_folder(target, replace=True) as temporary:
        if state:
            holdfast.save_params(state, os.path.join(temporary, names.params) if names.params else temporary)
        files.put(os.path.join(temporary, names.model), [program])
        if export is not None:
            files.put(os.path.join(temporary, names.stablehlo), [export])
        with files.storage_errors(f"cannot keep what lies in {target}"):
            for name in kept:
                _copy(os.path.join(target, name), os.path.join(temporary, name))


def _others(target: str, names: _Names, keep_params: bool) -> list[str]:
    """What lies in the folder and is not of this model.

    Raises:
        ForeignFolderError: it is a checkpoint, or holds no model and no parameters of Holdfast, but something.
    """
    if not os.path.lexists(target):
        return []
    if not os.path.isdir(target) or os.path.islink(target):
        raise ForeignFolderError(f"{target} is no folder; it is never replaced. Choose another path")
    with files.storage_errors(f"cannot list {target}"):
        there = sorted(os.listdir(target))
    ours = {names.model, names.stablehlo}
    if not keep_params:
        ours |= {names.params} if names.params else {n for n in there if n == layout.MANIFEST or layout.is_listable(n)}
    if there and not any(is_program(os.path.join(target, n)) for n in there) and layout.MANIFEST not in there:
        raise ForeignFolderError(
            f"{target} is not empty and holds no model of Holdfast; it is never replaced. Choose another folder"
        )
    if layout.MANIFEST in there and b'"content":"checkpoint"' in _head(os.path.join(target, layout.MANIFEST)):
        raise ForeignFolderError(f"{target} is a checkpoint of a run; it is never replaced. Choose another folder")
    return [n for n in there if n not in ours]


def _head(path: str) -> bytes:
    with files.storage_errors(f"cannot read {path}"), open(path, "rb") as file:
        return file.read(400).replace(b" ", b"")


def is_program(path: str) -> bool:
    """Whether a file is a program as JSON."""
    return os.path.isfile(path) and f'"{FORMAT}"'.encode() in _head(path)[:80]


def _copy(source: str, target: str) -> None:
    """Give a file a second name, or copy it where that is not possible; folders with what is in them."""
    if os.path.isdir(source) and not os.path.islink(source):
        os.mkdir(target)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name))
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _save_fluid(
    names: _Names,
    pruned: Program,
    feeds: Sequence[str],
    fetches: Sequence[str],
    tensors: dict[str, LoDTensor],
    program_only: bool,
) -> None:
    model = program_wire.to_bytes(program_fluid.desc_of(pruned, feeds, fetches))
    if tensors and names.params is None and names.model == fluid_names.MODEL:
        fluid_folder.write_variables(names.dirname, tensors, model=model, replace=True)
        return
    # Several files that belong together, as Fluid itself leaves them; the program last, as without it there is no model.
    if tensors and names.params is None:
        fluid_folder.write_variables(names.dirname, tensors, replace=True)
    elif tensors:
        fluid_folder.write_variables(names.dirname, tensors, filename=names.params)
    elif not program_only and names.params is not None:
        raise UnsupportedVariableError({names.params: "the program has no parameters to put into this file"})
    with files.storage_errors(f"cannot write {names.program}"):
        os.makedirs(names.dirname, exist_ok=True)
    files.write_file(names.program, [model])


def load_inference_model(
    dirname: str | os.PathLike[str],
    executor: Any,
    model_filename: str | None = None,
    params_filename: str | None = None,
    pserver_endpoints: Any = None,
    *,
    overwrite: bool = False,
) -> list[Any]:
    """Load a model for prediction into the scope: all of it matches, or nothing is changed. Nothing in it is executed.

    Args:
        dirname: the folder, of Holdfast's or Fluid's.
        executor: loaded values go to its place.
        model_filename: the program's file; None for `__model__`.
        params_filename: as it was saved; a model of Holdfast knows it.
        pserver_endpoints: None; parameter servers are not supported.
        overwrite: whether variables of the scope that have other values, as those of a model in training, are overwritten.
            Those that this folder gave, and that nothing has changed since, may always be.

    Returns:
        `[program, names to feed, variables to fetch]`. The program's persistables are parameters.

    Raises:
        CheckpointNotFoundError: there is no model.
        FormatError, VersionError, CorruptCheckpointError: it is damaged, or has operators or attributes that are not known here.
        MismatchError: parameters are missing, or have another dtype or shape than the program says; all are listed.
        ScopeConflictError: see `overwrite`.
        StorageError: the system refused to read.
    """
    if pserver_endpoints:
        raise NotImplementedError("pserver_endpoints: parameter servers are not planned")
    names = _Names(os.fspath(dirname), model_filename, params_filename)
    data = _program_bytes(names)
    if data.lstrip()[:1] == b"{":
        record = program_json.from_bytes(data, names.program)
        program = program_json.program_of(record, names.program)
        feeds, fetches = record.feeds, record.fetches
        values = _read_ours(names, record, program)
    else:
        desc = program_wire.from_bytes(data, names.program)
        program = program_fluid.program_of(desc, names.program)
        feeds, fetches = desc.feeds(), desc.fetches()
        weights = select(program, is_persistable)
        read_now = fluid_folder.read_variables(
            names.dirname, [v.name for v in weights], filename=names.params, expected=expectations(weights)
        )
        values = {n: v for n, v in read_now.items() if isinstance(v, LoDTensor)}
    scope, source = global_scope(), os.path.abspath(names.dirname)
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
    return [program, list(feeds), [block.vars[name] for name in fetches]]


def _program_bytes(names: _Names) -> bytes:
    if not os.path.isfile(names.program):
        there = sorted(os.listdir(names.dirname)) if os.path.isdir(names.dirname) else None
        found = "the folder does not exist" if there is None else f"it holds {', '.join(there[:10]) or 'nothing'}"
        programs = [n for n in there or [] if is_program(os.path.join(names.dirname, n))]
        hint = f"; perhaps model_filename={programs[0]!r}" if programs else ""
        raise CheckpointNotFoundError(f"no program {names.model!r} in {names.dirname}: {found}{hint}")
    return read_all(names.program, program_json.MAX_BYTES)


def _read_ours(names: _Names, record: ProgramRecord, program: Program) -> dict[str, LoDTensor]:
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


def get_inference_program(target_vars: Any, main_program: Any = None) -> Program:
    """The part of a program that computes some variables for prediction, as a copy."""
    targets = target_vars if isinstance(target_vars, list | tuple) else [target_vars]
    return prune(
        program_of(main_program).clone(for_test=True), [t.name if isinstance(t, Variable) else t for t in targets]
    )
