"""Safetensors files of others: the tensors of one. Needs no library.

Source: the safetensors format's README, and its `Dtype` enumeration.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np

from holdfast import dtypes
from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.format.safetensors import Tensor, header_size, parse_header
from holdfast.interop.source import Source, opened

ENDING = ".safetensors"
_UNHELD = {"F4", "F6_E2M3", "F6_E3M2", "F8_E4M3B11FNUZ", "F8_E3M4", "C128", "F128"}
"""Dtypes of the format, or announced for it, that NumPy and ml_dtypes have no array of, or that are smaller than a byte."""
_PLAIN_METADATA = "format"  # says which library wrote the file


def tensors(path: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The tensors of a file that have these names; None for all.

    Raises:
        FormatError: the file is cut off, padded or malformed.
        UnsupportedVariableError: tensors are of dtypes without a form here; all of them are named.
        StorageError: the system refused to read.
    """
    made: dict[str, np.ndarray] = {}
    with opened(path) as source:
        for name, tensor in _header(source)[0].items():
            if names is None or name in names:
                made[name] = source.array(dtypes.to_numpy(tensor.dtype), tensor.shape, f"tensor {name[:100]!r}")
            else:
                source.skip(tensor.data_offsets[1] - tensor.data_offsets[0], f"tensor {name[:100]!r}")
    return made


def described(path: str) -> tuple[list[str], list[str]]:
    """The names of a file's tensors, and those of its metadata but for the one that every file has.

    Raises:
        FormatError, UnsupportedVariableError, StorageError: as `tensors`.
    """
    with opened(path) as source:
        held, metadata = _header(source)
    return list(held), [name for name in metadata if name != _PLAIN_METADATA]


def _header(source: Source) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, in the order of their place, and its metadata; the next byte is the first of their elements."""
    start = header_size(source.take(min(8, source.size), "the length of the header"), source.size, source.name)
    text = source.take(start - 8, "the header")
    try:
        held = parse_header(text, source.size, source.name)
    except FormatError:
        if reasons := _unheld(text):
            raise UnsupportedVariableError(
                reasons, f"{os.fspath(source.name)} holds what no checkpoint can hold"
            ) from None
        raise
    return held, msgspec.json.decode(_parts(text).get("__metadata__", b"{}"))


def _parts(text: bytes) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])


def _unheld(text: bytes) -> dict[str, str]:
    """Tensors that are of no dtype of ours, by name, in a header that is refused."""
    reasons = {}
    try:
        for name, part in _parts(text).items():
            described = {} if name == "__metadata__" else msgspec.json.decode(part)
            if isinstance(described, dict) and described.get("dtype") in _UNHELD:
                reasons[name] = f"has dtype {described['dtype']}, which NumPy has no form for: store its bytes as U8"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError):
        return {}
    return reasons
