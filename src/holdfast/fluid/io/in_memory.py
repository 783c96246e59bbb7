"""Variables as the bytes of Fluid's combined file, in memory: what programs keep encrypted, or send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.errors import FormatError, MismatchError, Problem, UnsupportedVariableError
from holdfast.fluid.framework import Variable
from holdfast.fluid.io.sources import check
from holdfast.interop import lodtensor
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.source import of_bytes

NAME = "the given bytes"


def bytes_of(tensors: Mapping[str, LoDTensor]) -> bytes:
    """The bytes that `save_*` with a `filename` writes in Fluid's format.

    Raises:
        UnsupportedVariableError: the format cannot hold a value; all are named.
    """
    if reasons := {n: reason for n, value in tensors.items() if (reason := lodtensor.problem(value, "fluid"))}:
        raise UnsupportedVariableError(reasons)
    pieces: list[Any] = [piece for _, value in sorted(tensors.items()) for piece in lodtensor.encoded(value)]
    return b"".join(pieces)


def read(data: bytes, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
    """The values of variables, which must be all that are in the bytes: there are no names in them.

    Raises:
        MismatchError: their number, or a dtype or shape, is not the program's.
        FormatError: they are cut off or malformed.
    """
    if data[8:9] == b"{":
        raise FormatError(f"{NAME} are a safetensors file, not Fluid's; save with file_format='fluid' and a file name")
    source, found = of_bytes(data, NAME), list[LoDTensor]()
    while source.left:
        found.append(lodtensor.read(source))
    ordered = sorted(wanted, key=lambda v: v.name)
    if len(found) != len(ordered):
        message = f"there are {len(found)} variables in them, and the program has {len(ordered)}"
        raise MismatchError(NAME, [Problem("missing" if len(found) < len(ordered) else "unexpected", "", message)])
    values = {v.name: value for v, value in zip(ordered, found, strict=True)}
    check(NAME, ordered, {n: (v.array.dtype, v.array.shape) for n, v in values.items()})
    return values
