"""Fluid's folders of variables: one file per variable, or one combined file; with or without the program in `__model__`.

A variable's name is the path of its file, so names with `/` lie in sub-folders. Nothing outside of the folder is read or
written. Everything is checked, and every problem listed, before a value is returned; a folder is written whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from holdfast.errors import (
    CheckpointNotFoundError,
    ForeignFolderError,
    FormatError,
    MismatchError,
    Problem,
    StorageError,
    UnsupportedVariableError,
)
from holdfast.interop import combined, files, lodtensor, program_wire, selected_rows
from holdfast.interop.expected import AnyRecord, Expectations, Expected, Value, problems_of
from holdfast.interop.fluid_names import MODEL, RESERVED, name_problems, relative_path
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.selected_rows import SelectedRows
from holdfast.interop.source import Source, opened
from holdfast.interop.tensor import Dialect


def read_variables(
    folder: str | os.PathLike[str],
    names: Iterable[str] | None = None,
    *,
    filename: str | None = None,
    expected: Expectations | None = None,
) -> dict[str, Value]:
    """Variables of a folder that `save_params`, `save_persistables`, `save_vars` or `save_inference_model` wrote.

    Args:
        folder: the folder.
        names: which; None for those of `expected`, else those of the program in `__model__`, else all that are there.
        filename: the combined file in the folder, if there is one; `names` must then be all of it.
        expected: dtype, shape and kind of the variables, checked where given; None for what `__model__` says.

    Returns:
        Values by name, in the order of the names; arrays are new and writable.

    Raises:
        CheckpointNotFoundError: there is no such folder or combined file, or nothing in it.
        MismatchError: variables are missing or not as expected; all are listed.
        FormatError: files are cut off, padded or malformed; all are listed.
        ValueError: a combined file without names.
        StorageError: the system refused to read.
    """
    where = os.fspath(folder)
    if not os.path.isdir(where):
        raise CheckpointNotFoundError(f"{where} is no folder" if os.path.exists(where) else f"{where} does not exist")
    model = os.path.join(where, MODEL)
    if expected is None and os.path.isfile(model):
        expected = program_wire.read_file(model).persistables()
    wanted = list(names) if names is not None else sorted(expected) if expected is not None else None
    if filename is not None:
        return dict(_combined(where, filename, wanted, expected))
    if wanted is None:
        wanted = variable_names(where)
        if not wanted:
            raise CheckpointNotFoundError(f"{where} holds no variables")
    return _read_each(where, wanted, expected)


def _combined(
    where: str, filename: str, wanted: list[str] | None, expected: Expectations | None
) -> dict[str, LoDTensor]:
    relative = relative_path(filename)
    if relative is None:
        raise ValueError(f"filename={filename!r} leads out of the folder")
    path = os.path.join(where, relative)
    if not os.path.exists(path):
        raise CheckpointNotFoundError(f"{path} does not exist")
    if wanted is None:
        raise ValueError(f"{path} has no names in it; give names=, or expected= of the program that saved it")
    return combined.read(path, wanted, expected=expected)


def _read_each(where: str, wanted: list[str], expected: Expectations | None) -> dict[str, Value]:
    problems: list[Problem] = []
    damage: list[str] = []
    kinds: dict[str, type[Value]] = {}
    for name in wanted:
        relative = relative_path(name)
        if relative is None or not os.path.isfile(os.path.join(where, relative)):
            problems.append(Problem("missing", name, f"{name!r} is missing: there is no such file in the folder"))
            continue
        want = expected.get(name) if expected is not None else None
        try:
            record = read_record(os.path.join(where, relative), want)
        except FormatError as error:
            damage.append(str(error))
            continue
        problems += problems_of(name, want or _ANYTHING, record)
        kinds[name] = SelectedRows if isinstance(record, selected_rows.Record) else LoDTensor
    if damage:
        raise FormatError("\n".join([*damage, *(p.message for p in problems)]))
    if problems:
        raise MismatchError(where, problems, _hints(where, wanted, problems))
    made: dict[str, Value] = {}
    for name in wanted:
        path = os.path.join(where, relative_path(name) or name)
        made[name] = selected_rows.read_file(path) if kinds[name] is SelectedRows else lodtensor.read_file(path)
    return made


_ANYTHING = Expected(kind=None)


def _hints(where: str, wanted: list[str], problems: list[Problem]) -> list[str]:
    if not any(p.kind == "missing" for p in problems):
        return []
    asked = {relative_path(name) for name in wanted}
    others = [name for name in variable_names(where) if name not in asked]
    shown = ", ".join(map(repr, others[:10])) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
    return [f"The folder also holds {shown}"] if others else []


def read_record(path: str, expected: Expected | None = None) -> AnyRecord:
    """What the one record of a file says about itself; the file's length is checked, its elements are not read.

    Raises:
        FormatError: the file is cut off, too long or malformed.
    """
    with opened(path) as source:
        if expected is not None and expected.kind == "selected_rows":
            return _whole(source, selected_rows.read_header(source))
        try:
            record = lodtensor.read_header(source)
        except FormatError:
            if expected is not None and expected.kind == "lod_tensor":
                raise
            return _as_rows(source)
        return _whole(source, record)


def _as_rows(source: Source) -> AnyRecord:
    """A file that is no LoDTensor may be SelectedRows: nothing in it says which."""
    source.rewind()
    try:
        return _whole(source, selected_rows.read_header(source))
    except FormatError:
        source.rewind()
        return lodtensor.read_header(source)  # this is what is wrong with it, as most files are LoDTensors


def _whole(source: Source, record: AnyRecord) -> AnyRecord:
    source.skip(record.tensor.nbytes, "the data")
    if source.left and isinstance(record, lodtensor.Record):
        try:
            more = sum(1 for _ in lodtensor.headers(source))
        except FormatError:
            more = 0
            source.rewind()
            source.skip(_end_of(source), "the record")
        if more:
            raise FormatError(
                f"{source.name} holds {more + 1} variables: it is a combined file. Give filename= and names="
            )
    source.end()
    return record


def _end_of(source: Source) -> int:
    """Where the first record ends; for the message about what follows it."""
    record = lodtensor.read_header(source)
    end = source.at + record.tensor.nbytes
    source.rewind()
    return end


def variable_names(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the files of a folder that may be variables, sorted: all but `__model__`, `_SUCCESS` and our temporary ones."""
    return sorted(walk(folder))


def walk(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The same names one by one, not sorted."""
    root = os.fspath(folder)
    with files.storage_errors(f"cannot list {root}"):
        for place, folders, names in os.walk(root, onerror=_raise):
            folders[:] = [f for f in folders if not f.startswith(files.TEMPORARY)]
            inside = os.path.relpath(place, root)
            prefix = "" if inside == "." else inside.replace(os.sep, "/") + "/"
            for name in names:
                if prefix + name not in RESERVED and not name.startswith(files.TEMPORARY):
                    yield prefix + name


def _raise(error: OSError) -> None:
    raise error


def write_variables(
    folder: str | os.PathLike[str],
    variables: Mapping[str, Value | np.ndarray],
    *,
    filename: str | None = None,
    model: bytes | None = None,
    replace: bool = False,
    dialect: Dialect = "fluid",
) -> int:
    """Write variables as Fluid does, whole or not at all, and return the bytes written.

    Args:
        folder: the folder; those above it are made.
        variables: by name; arrays stand for LoDTensors without LoD.
        filename: None for a file per variable: the folder must be new or empty, unless `replace` is given. Else the name of one
            combined file, which is put into the folder beside what is there.
        model: bytes of a ProgramDesc, written as `__model__`.
        replace: whether a folder is replaced as a whole, if it holds nothing but what Fluid writes.
        dialect: `"paddle"` also takes what only Paddle 2 and later read: bfloat16, complex, scalars.

    Raises:
        UnsupportedVariableError: a name would leave the folder or meet another, or the format cannot hold a value; nothing was
            written, and all are listed.
        ForeignFolderError: the folder holds something; it is untouched.
        ValueError: there is nothing to write.
        StorageError, DiskFullError: the system refused; what was there is untouched.
    """
    where = os.fspath(folder)
    values = {n: LoDTensor(v) if isinstance(v, np.ndarray) else v for n, v in variables.items()}
    if not values and model is None:
        raise ValueError("there is nothing to write: no variables are given")
    check_writable(values, dialect, combined=filename is not None)
    if filename is not None:
        return _write_combined(where, values, filename, model, dialect)
    if replace:
        _check_replaceable(where)
    with files.new_folder(where, replace=replace) as temporary:
        return fill(temporary, values, model)


def check_writable(values: Mapping[str, Value], dialect: Dialect, *, combined: bool = False) -> None:
    """Raise UnsupportedVariableError, with every reason, unless the values can be written under their names."""
    reasons = {} if combined else name_problems(values)
    for name, value in values.items():
        if isinstance(value, LoDTensor):
            reason = lodtensor.problem(value, dialect)
        else:
            reason = "a combined file holds no SelectedRows" if combined else selected_rows.problem(value, dialect)
        if reason:
            reasons.setdefault(name, reason)
    if reasons:
        raise UnsupportedVariableError(reasons)


def fill(folder: str, values: Mapping[str, Value], model: bytes | None = None) -> int:
    """Write values that were checked into a new folder; returns the bytes."""
    size = 0 if model is None else files.put(os.path.join(folder, MODEL), [model])
    for name, value in values.items():
        path = os.path.join(folder, relative_path(name) or name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size += files.put(path, pieces(value))
    return size


def pieces(value: Value) -> Iterator[files.Piece]:
    """The bytes of a value that was checked."""
    return lodtensor.encoded(value) if isinstance(value, LoDTensor) else selected_rows.encoded(value)


def _write_combined(
    where: str, values: Mapping[str, Value], filename: str, model: bytes | None, dialect: Dialect
) -> int:
    if bad := name_problems([filename]):
        raise UnsupportedVariableError({f"filename={filename!r}": reason for reason in bad.values()})
    tensors = {name: value for name, value in values.items() if isinstance(value, LoDTensor)}
    size = combined.write(os.path.join(where, filename), tensors, dialect=dialect)
    if model is not None:
        size += files.write_file(os.path.join(where, MODEL), [model])
    return size


def _check_replaceable(where: str) -> None:
    """Refuse to replace a folder that holds anything but what Fluid writes."""
    if not os.path.lexists(where):
        return
    if not os.path.isdir(where) or os.path.islink(where):
        raise ForeignFolderError(f"{where} is no folder; it is never replaced. Choose another path")
    for name in variable_names(where):
        try:
            with opened(os.path.join(where, name)) as source:
                _first_record(source)
        except (FormatError, StorageError) as error:
            raise ForeignFolderError(
                f"{where} holds {name!r}, which is not a file of Fluid's; the folder is not replaced. Choose another, or move it"
            ) from error


def _first_record(source: Source) -> AnyRecord:
    try:
        return lodtensor.read_header(source)
    except FormatError:
        return _as_rows(source)
