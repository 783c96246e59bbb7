"""The program that Paddle 3 writes beside `.pdiparams`, a JSON file: only the names, dtypes and shapes of its parameters.

Source: the files of paddlepaddle 3.3.1 under tests/fixtures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from holdfast.errors import FormatError
from holdfast.interop.expected import Expected
from holdfast.interop.source import read_all

MAX_BYTES = 256 << 20
_PARAMETER = "p"
_MAX_DEPTH = 32  # regions inside of operators: while loops and branches
_DTYPES = {
    "t_bool": np.bool_, "t_ui8": np.uint8, "t_i8": np.int8, "t_i16": np.int16, "t_i32": np.int32, "t_i64": np.int64,
    "t_f16": np.float16, "t_bf16": ml_dtypes.bfloat16, "t_f32": np.float32, "t_f64": np.float64, "t_c64": np.complex64,
    "t_c128": np.complex128,
}  # fmt: skip


def parameters(path: str | os.PathLike[str]) -> dict[str, Expected]:
    """The parameters of a program by name, sorted as they stand in `.pdiparams`.

    Raises:
        FormatError: the file is no program of Paddle 3.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    try:
        document = msgspec.json.decode(read_all(where, MAX_BYTES))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(f"{where} is no JSON: {error}") from error
    try:
        if document["base_code"]["magic"] != "pir":
            raise FormatError(f"{where} is JSON, but no program of Paddle 3")
        found = dict(sorted(_parameters(document["program"], 0)))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{where} is no program of Paddle 3 as this version knows it: {error!r}") from error
    return found


def _parameters(holder: dict[str, Any], depth: int) -> Iterator[tuple[str, Expected]]:
    if depth > _MAX_DEPTH:
        raise ValueError("its regions are nested too deep")
    for region in holder["regions"]:
        for block in region["blocks"]:
            for op in block["ops"]:
                if op["#"] == _PARAMETER:
                    yield _parameter(op)
                if op.get("regions"):
                    yield from _parameters(op, depth + 1)


def _parameter(op: dict[str, Any]) -> tuple[str, Expected]:
    name, held = op["A"][3], op["O"]["TT"]
    if type(name) is not str:
        raise TypeError("a parameter's name is no text")
    kind, shape = held["D"][0]["#"].rpartition(".")[2], held["D"][1]
    if not all(type(extent) is int for extent in shape):
        raise TypeError(f"the shape of {name!r} is not one of integers")
    dtype = _DTYPES.get(kind)
    return name, Expected(None if dtype is None else np.dtype(dtype), tuple(shape))
