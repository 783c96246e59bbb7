"""A folder of `paddle.distributed.save_state_dict`: `*.metadata` says where each piece of an array is, `*.distcp` hold the pieces.

Both are pickles, read without unpickling (`pickles.py`); of the classes of Paddle in the metadata only the fields are taken.
Pieces of flattened arrays, as some sharded optimizers save them, are refused.

Source: the files of paddlepaddle 3.3.1 under tests/fixtures; Paddle's flex_checkpoint/dcp/metadata.py.
"""

from __future__ import annotations

import math
import os
from typing import Any

import ml_dtypes
import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.interop import files, pickles
from holdfast.interop.pickle_parts import Record
from holdfast.interop.source import read_all

MAX_METADATA_BYTES = 1 << 30
MAX_BYTES = 1 << 40
_MODULES = ("paddle.distributed.flex_checkpoint.dcp.metadata", "paddle.distributed.checkpoint.metadata")
_CLASSES = frozenset(f"{m}.{c}" for m in _MODULES for c in ("Metadata", "LocalTensorMetadata", "LocalTensorIndex"))

Offset = tuple[int, ...]


def is_distributed(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like one of these."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return any(n.endswith(".metadata") for n in names) and any(n.endswith(".distcp") for n in names)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a folder, put together from their pieces.

    Raises:
        CheckpointNotFoundError: there is no such folder, or not exactly one metadata file.
        FormatError: a file is cut off or malformed, or the pieces do not make up the arrays exactly.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    if not os.path.isdir(where):
        raise CheckpointNotFoundError(f"{where} is no folder")
    with files.storage_errors(f"cannot list {where}"):
        records = sorted(name for name in os.listdir(where) if name.endswith(".metadata"))
    if len(records) != 1:
        raise CheckpointNotFoundError(
            f"{where} holds {len(records)} .metadata files; one is needed. A folder of one save has one"
        )
    source = os.path.join(where, records[0])
    held = pickles.read(read_all(source, MAX_METADATA_BYTES), source, records=_CLASSES)
    try:
        return _assembled(held, where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{source} is not as this version knows such files: {error!r}") from error


def _assembled(metadata: Record, where: str) -> dict[str, np.ndarray]:
    places: dict[tuple[str, Offset], str] = {
        (index.fields["tensor_key"], _whole(index.fields["global_offset"])): name
        for index, name in metadata.fields["storage_metadata"].items()
    }
    pieces: dict[str, dict[str, Any]] = {}
    for name in sorted(set(places.values())):
        if name != os.path.basename(name) or not name.endswith(".distcp"):
            raise FormatError(f"{where}: {name!r} is no name of a data file")
        file = os.path.join(where, name)
        content = pickles.read(read_all(file, MAX_BYTES), file)
        if type(content) is not dict:
            raise FormatError(f"{file} holds no dict")
        pieces[name] = content
    made = {}
    for key, chunks in metadata.fields["state_dict_metadata"].items():
        made[key] = _array(key, [chunk.fields for chunk in chunks], places, pieces, where)
    return made


def _array(
    key: str, chunks: list[dict[str, Any]], places: dict[tuple[str, Offset], str], pieces: dict[str, Any], where: str
) -> np.ndarray:
    if any(chunk.get("is_flattened") for chunk in chunks):
        raise FormatError(
            f"{where}: {key!r} is saved in flattened pieces, which are not read; load it with Paddle and save it with paddle.save"
        )
    parts: list[tuple[Offset, np.ndarray]] = []
    for chunk in chunks:
        offset, shape = _whole(chunk["global_offset"]), _whole(chunk["local_shape"])
        part = pieces[places[key, offset]].get(key)
        if type(part) is tuple and len(part) == 2:
            part = part[1]
        if type(part) is not np.ndarray or part.shape != shape or len(offset) != len(shape):
            raise FormatError(f"{where}: the piece of {key!r} at {offset} is not there as {shape}")
        if chunk.get("dtype") == "bfloat16" and part.dtype == np.uint16:
            part = part.view(ml_dtypes.bfloat16)
        parts.append((offset, part))
    if not parts:
        raise FormatError(f"{where}: {key!r} has no piece")
    # Older versions do not write the whole shape: it is what the pieces reach.
    reach = tuple(max(o[axis] + p.shape[axis] for o, p in parts) for axis in range(parts[0][1].ndim))
    shape = _whole(chunks[0].get("global_shape") or reach)
    if math.prod(shape) != sum(part.size for _, part in parts) or shape != reach:
        raise FormatError(f"{where}: the pieces of {key!r} do not make up {shape}")
    if len(parts) == 1:
        return parts[0][1]
    made = np.empty(shape, parts[0][1].dtype)
    filled = np.zeros(shape, np.bool_)
    for offset, part in parts:
        box = tuple(slice(o, o + n) for o, n in zip(offset, part.shape, strict=True))
        if part.dtype != made.dtype or filled[box].any():
            raise FormatError(f"{where}: the pieces of {key!r} overlap, or have several dtypes")
        made[box], filled[box] = part, True
    return made


def _whole(value: Any) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or any(type(n) is not int or n < 0 for n in value):
        raise TypeError(f"{value!r} is no shape")
    return tuple(value)
