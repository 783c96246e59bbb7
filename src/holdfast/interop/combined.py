"""Combined files, as `save_combine` and `.pdiparams` have them: LoDTensor records sorted by name, without any name.

So the names must come from elsewhere, and all that guards against a file of another program are the number of records,
their shapes and their dtypes: they are checked before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from holdfast.errors import MismatchError, Problem, ProblemKind, UnsupportedVariableError
from holdfast.interop import files, lodtensor
from holdfast.interop.expected import Expectations, problems_of
from holdfast.interop.lodtensor import LoDTensor, Record
from holdfast.interop.source import Source, opened
from holdfast.interop.tensor import Dialect


def records(path: str | os.PathLike[str]) -> list[Record]:
    """What each record of a file says about itself; no elements are read.

    Raises:
        FormatError: the file is cut off, too long or malformed.
        StorageError: the system refused to read.
    """
    with opened(path) as source:
        return list(lodtensor.headers(source))


def read(
    path: str | os.PathLike[str], names: Iterable[str], *, expected: Expectations | None = None
) -> dict[str, LoDTensor]:
    """The variables of a combined file.

    Args:
        path: the file.
        names: of all its variables; their order does not matter, as the file's is that of the sorted names.
        expected: dtype and shape of the variables, checked where given.

    Raises:
        MismatchError: the number of records is not that of the names, or a record is not as expected; all are listed.
        FormatError: the file is cut off, too long or malformed.
        ValueError: a name is given twice.
        StorageError: the system refused to read.
    """
    ordered = sorted(names)
    if len(set(ordered)) != len(ordered):
        raise ValueError(f"names are given twice: {', '.join(sorted({n for n in ordered if ordered.count(n) > 1}))}")
    with opened(path) as source:
        found = list(lodtensor.headers(source))
        _check(source, ordered, found, expected or {})
        source.rewind()
        return {name: lodtensor.read(source) for name in ordered}


def _check(source: Source, names: list[str], found: list[Record], expected: Expectations) -> None:
    pairs = zip(names, found, strict=False)
    problems = [p for name, record in pairs if name in expected for p in problems_of(name, expected[name], record)]
    if len(names) != len(found):
        kind: ProblemKind = "missing" if len(names) > len(found) else "unexpected"
        message = f"the file holds {len(found)} variables, {len(names)} names are given"
        first = f"; the first that does not fit: {problems[0].message}" if problems else ""
        raise MismatchError(source.name, [Problem(kind, "", message + first)], [_NO_NAMES])
    if problems:
        raise MismatchError(source.name, problems, [_NO_NAMES])


_NO_NAMES = "A combined file has no names: its variables are those of the program that saved it, sorted. Give exactly these names"


def write(path: str | os.PathLike[str], variables: Mapping[str, LoDTensor], *, dialect: Dialect = "fluid") -> int:
    """Write a combined file, whole or not at all, and return its size; a file that is there is replaced.

    Args:
        path: the file; the folders above it are made.
        variables: by name; the names decide the order, and are not in the file.
        dialect: `"paddle"` also takes what only Paddle 2 and later read: bfloat16, complex, scalars.

    Raises:
        UnsupportedVariableError: the format cannot hold a value; nothing was written.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    if reasons := {n: reason for n, value in variables.items() if (reason := lodtensor.problem(value, dialect))}:
        raise UnsupportedVariableError(reasons)
    where = os.fspath(path)
    with files.storage_errors(f"cannot write {where}"):
        os.makedirs(os.path.dirname(os.path.abspath(where)), exist_ok=True)
    return files.write_file(
        where, (piece for _, value in sorted(variables.items()) for piece in lodtensor.encoded(value))
    )
