"""`.pdparams` and `.pdopt`, the pickles of `fluid.save`, `save_dygraph` and `paddle.save`: names → arrays, and plain values.

Read without unpickling (`pickles.py`). Two things such a file does not say: which of its uint16 arrays are bfloat16, and
which of its names are parameters.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ml_dtypes
import numpy as np

from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.interop import files, pickle_writing, pickles, tensor
from holdfast.interop.plain import NotPlainError, plain
from holdfast.interop.source import read_all
from holdfast.interop.tensor import Dialect

MAX_BYTES = 1 << 40  # an address space's worth: the memory that reading takes is a small multiple of the file
STRUCTURED_NAMES = "StructuredToParameterName@@"
_SLICED = "UnpackBigParamInfor@@"


@dataclass(frozen=True, slots=True, eq=False)
class PdParams:
    """What a file holds.

    Attributes:
        arrays: by name; names of nested parts are joined with `.`. Arrays are new and writable.
        structured_names: dygraph's table: name in the layer → name of the variable; empty if there is none.
        values: everything else by name, such as `LR_Scheduler`: str, int, float, bool, None, and lists, tuples and dicts of them.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    structured_names: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def read(path: str | os.PathLike[str], *, bfloat16: Collection[str] | Literal["all"] = ()) -> PdParams:
    """Read a file; nothing in it is executed.

    Args:
        path: the file.
        bfloat16: names of arrays that are bfloat16: Paddle stores such as uint16, without a mark. `"all"`: every uint16.

    Raises:
        FormatError: the file is cut off, padded or malformed, or holds anything but arrays and plain values.
        ValueError: a name of `bfloat16` is not there or is not uint16.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    held = pickles.read(read_all(where, MAX_BYTES), where)
    made = PdParams()
    if type(held) is dict:
        table = held.pop(STRUCTURED_NAMES, {})
        if type(table) is not dict or not all(type(name) is str for pair in table.items() for name in pair):
            raise FormatError(f"{where}: {STRUCTURED_NAMES} is no table of names")
        made.structured_names.update(table)
        _join_slices(held, where)
    _collect(held, "", made, where)
    _mark_bfloat16(made.arrays, bfloat16, where)
    return made


def _collect(value: Any, name: str, made: PdParams, where: str) -> None:
    """Sort a value into arrays and others; containers that hold arrays are entered."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is str and type(value[1]) is np.ndarray:
        name, value = name or value[0], value[1]  # Paddle's tensor with its variable's name
    name = name or ("" if type(value) is dict else "tensor")
    if type(value) is np.ndarray or (name and not _holds_array(value)):
        target: dict[str, Any] = made.arrays if type(value) is np.ndarray else made.values
        if name in made.arrays or name in made.values:
            raise FormatError(f"{where}: two parts have the name {name!r}")
        target[name] = value
        return
    items = value.items() if type(value) is dict else enumerate(value)
    for key, item in items:
        _collect(item, f"{name}.{key}" if name else str(key), made, where)


def _holds_array(value: Any) -> bool:
    if type(value) is np.ndarray:
        return True
    inner = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return any(_holds_array(item) for item in inner)


def _join_slices(held: dict[Any, Any], where: str) -> None:
    """Put together arrays of over 1 GiB, which Paddle 2 cuts up for protocols 2 and 3."""
    table = held.pop(_SLICED, {})
    try:
        for name, info in dict(table).items():
            parts = [held.pop(part) for part in info["slices"]]
            whole = np.concatenate([np.asarray(part).reshape(-1) for part in parts])
            held[name] = whole.reshape(tuple(info["OriginShape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: {_SLICED} does not fit the arrays: {error}") from error


def _mark_bfloat16(arrays: dict[str, np.ndarray], names: Collection[str] | Literal["all"], where: str) -> None:
    chosen = [n for n, a in arrays.items() if a.dtype == np.uint16] if names == "all" else sorted(set(names))
    if wrong := [n for n in chosen if n not in arrays or arrays[n].dtype != np.uint16]:
        raise ValueError(f"bfloat16= names what {where} does not hold as uint16: {', '.join(wrong)}")
    for name in chosen:
        arrays[name] = arrays[name].view(ml_dtypes.bfloat16)


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    structured_names: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    dialect: Dialect = "fluid",
) -> int:
    """Write a file that Fluid 1.8.5 and Paddle read, whole or not at all, and return its size.

    Args:
        path: the file; one that is there is replaced. The folders above it are made.
        arrays: by name.
        structured_names: dygraph's table, see `PdParams`.
        values: plain values beside the arrays; scalars of NumPy become numbers of Python.
        dialect: `"paddle"` also takes bfloat16 (as uint16, as Paddle stores it), complex and scalars.

    Raises:
        UnsupportedVariableError: the format cannot hold a value; nothing was written.
        ValueError: a name is given twice.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    values = values or {}
    if twice := sorted(arrays.keys() & values.keys()):
        raise ValueError(f"arrays and values both have {', '.join(twice)}")
    reasons = problems(arrays, dialect)
    reasons |= {n: reason for n, value in values.items() if (reason := value_problem(value))}
    if reasons:
        raise UnsupportedVariableError(reasons)
    held: dict[str, Any] = {name: plain(value) for name, value in values.items()}
    for name, array in arrays.items():
        held[name] = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
    if structured_names:
        held[STRUCTURED_NAMES] = dict(structured_names)
    where = os.fspath(path)
    with files.storage_errors(f"cannot write {where}"):
        os.makedirs(os.path.dirname(os.path.abspath(where)), exist_ok=True)
    return files.write_file(where, pickle_writing.written(held))


def problems(arrays: Mapping[str, np.ndarray], dialect: Dialect = "fluid") -> dict[str, str]:
    """Why arrays have no place in such a file, by name; empty if all have."""
    # Any uint16 is taken for the bits of a bfloat16, as Paddle stores it without a mark.
    bits = {name for name, array in arrays.items() if array.dtype == np.uint16 and dialect == "paddle"}
    reasons = {n: reason for n, array in arrays.items() if n not in bits and (reason := tensor.problem(array, dialect))}
    return reasons | {
        n: "a pickle of protocol 2 holds at most 4 GiB in one piece, and bytes of 128 and above count twice"
        for n, array in arrays.items()
        if array.nbytes >= 1 << 31 and n not in reasons
    }


def value_problem(value: Any) -> str | None:
    """Why a value has no place in such a file; None if it has."""
    try:
        for _ in pickle_writing.written(plain(value)):
            pass
    except (NotPlainError, pickle_writing.UnwritableError) as error:
        return str(error)
    return None
