"""save_inference_model: a pruned program with its parameters, in Holdfast's form or Fluid's; or the whole program.

A model is a folder: the program as JSON (`__model__`, or as it was named), `model.stablehlo`, and the parameters as the core saves
them. The folder takes its place as a whole, so that no program ever meets the parameters of another save.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import holdfast
from holdfast.errors import ForeignFolderError, UnsupportedVariableError
from holdfast.fluid import core
from holdfast.fluid.cloning import prune
from holdfast.fluid.framework import Program, Variable
from holdfast.fluid.io import held, program_fluid, program_json, stablehlo
from holdfast.fluid.io.failures import enforced
from holdfast.fluid.io.held import Held, gather, state_of, tensors_of
from holdfast.fluid.io.model_files import ModelFiles, head, is_program
from holdfast.fluid.io.program_json import ProgramRecord, StableHLO
from holdfast.fluid.io.selecting import is_persistable, program_of, select
from holdfast.fluid.io.variables import FileFormat, is_fluid_format, warn
from holdfast.fluid.lowering import analyse
from holdfast.fluid.scope import global_scope
from holdfast.format import layout
from holdfast.interop import files, fluid_folder, fluid_names, program_wire
from holdfast.interop.lodtensor import LoDTensor


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
        export_for_deployment: False saves the whole program, to train further: as Fluid's own bytes in `__model__.main_program`,
            which `Program.parse_from_string` reads, beside all its persistables, which `load_persistables` reads. Feeds and
            targets are not looked at then.
        program_only: leave out the parameters.
        file_format: `"fluid"` writes `__model__` and LoDTensor files as Fluid 1.8 reads them, without StableHLO.

    Returns:
        The names of the targets.

    Raises:
        ValueError: feeds are unknown, missing or not needed, or targets are not computed; all are named.
        UnsavableError: parameters have no value, or another dtype or shape than the program says.
        ForeignFolderError: the folder holds something else.
        FormatError: operators of the whole program have no form in Fluid's files; all are listed.
        StorageError, DiskFullError: the system refused; what was there is still there.

    Warns:
        HazardWarning: parameters hold NaN, or an `auc` operator has counted already.
    """
    fluid = is_fluid_format(file_format)
    feeds = [feeded_var_names] if isinstance(feeded_var_names, str) else list(feeded_var_names)
    targets = [target_vars] if isinstance(target_vars, Variable) else list(target_vars)
    fetches = [t.name if isinstance(t, Variable) else str(t) for t in targets]
    names = ModelFiles(os.fspath(dirname), model_filename, params_filename)
    with enforced():
        if not export_for_deployment:
            _save_whole(names, program_of(main_program), program_only=program_only, fluid=fluid)
            return fetches
        pruned = _pruned(program_of(main_program), feeds, fetches)
        weights = select(pruned, is_persistable)
        found = {} if program_only else gather(weights, global_scope())
        held.warn_of_nan(held.with_nan(found), "save_inference_model", stacklevel=2)
        _warn_of_counts(pruned, found)
        if fluid:
            model = program_wire.to_bytes(program_fluid.desc_of(pruned, feeds, fetches))
            _save_fluid(names, model, tensors_of(found), program_only)
            return fetches
        export = _export(pruned, weights, feeds, fetches, names)
        record = ProgramRecord(feeds, fetches, names.params or "", export[0], program_json.blocks_of(pruned))
        # All are parameters here, whatever they were in training: in one file, as plain safetensors readers want it.
        state = {name: holdfast.parameters(h.array) for name, h in found.items()}
        _save(names, program_json.to_bytes(record), export[1], state, holdfast.save_params, keep_params=program_only)
    return fetches


def _save_whole(names: ModelFiles, program: Program, *, program_only: bool, fluid: bool) -> None:
    names.model += ".main_program"
    data = program.desc.serialize_to_string()
    found = {} if program_only else gather(select(program, is_persistable), global_scope())
    held.warn_of_nan(held.with_nan(found), "save_inference_model", stacklevel=3)
    if fluid:
        _save_fluid(names, data, tensors_of(found), program_only)
    else:
        _save(names, data, None, state_of(found), holdfast.save_persistables, keep_params=program_only)


def _warn_of_counts(pruned: Program, found: Mapping[str, Held]) -> None:
    """An `auc` in a program for prediction goes on from what training has counted."""
    states = {n for op in pruned.all_ops() if op.type == "auc" for n in (*op.input("StatPos"), *op.input("StatNeg"))}
    if counted := sorted(n for n in states & found.keys() if found[n].array.any()):
        warn(
            "save_inference_model",
            [
                f"the counts of auc in {', '.join(counted)} are saved, and predictions go on from them; set them to zeros first"
            ],
            stacklevel=4,
        )


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
    pruned: Program, weights: Sequence[Variable], feeds: Sequence[str], fetches: Sequence[str], names: ModelFiles
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


def _save(
    names: ModelFiles,
    program: bytes,
    export: bytes | None,
    state: dict[str, Any],
    write: Callable[[dict[str, Any], str], Any],
    *,
    keep_params: bool,
) -> None:
    target = os.path.abspath(names.dirname)
    kept = _others(target, names, keep_params)
    with files.new_folder(target, replace=True) as temporary:
        if state:
            write(state, os.path.join(temporary, names.params) if names.params else temporary)
        files.put(os.path.join(temporary, names.model), [program])
        if export is not None:
            files.put(os.path.join(temporary, names.stablehlo), [export])
        with files.storage_errors(f"cannot keep what lies in {target}"):
            for name in kept:
                _copy(os.path.join(target, name), os.path.join(temporary, name))


def _others(target: str, names: ModelFiles, keep_params: bool) -> list[str]:
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
    if layout.MANIFEST in there and b'"content":"checkpoint"' in head(os.path.join(target, layout.MANIFEST)):
        raise ForeignFolderError(f"{target} is a checkpoint of a run; it is never replaced. Choose another folder")
    return [n for n in there if n not in ours]


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


def _save_fluid(names: ModelFiles, model: bytes, tensors: dict[str, LoDTensor], program_only: bool) -> None:
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


def get_inference_program(target_vars: Any, main_program: Any = None) -> Program:
    """The part of a program that computes some variables for prediction, as a copy."""
    targets = target_vars if isinstance(target_vars, list | tuple) else [target_vars]
    return prune(
        program_of(main_program).clone(for_test=True), [t.name if isinstance(t, Variable) else t for t in targets]
    )
