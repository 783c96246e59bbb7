"""Safetensors files, and folders of such with an index, as the Hugging Face libraries save them. Needs no library.

Source: the safetensors format's README; `save_pretrained` of transformers 5.23, which writes `model.safetensors`, or
`model-00001-of-00002.safetensors` … and `model.safetensors.index.json` with `weight_map`: name of a tensor → file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.format import json
from holdfast.format.safetensors import Tensor, header_size, parse_header
from holdfast.interop import files
from holdfast.interop.foreign import Held
from holdfast.interop.source import Source, opened, read_all

ENDING = ".safetensors"
INDEX = ".safetensors.index.json"
_MAX_INDEX_BYTES = 1 << 30


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds such files."""
    try:
        return any(name.endswith((ENDING, INDEX)) for name in os.listdir(path))
    except OSError:
        return False


def read_file(path: str | os.PathLike[str]) -> Held:
    """All tensors of a file; the header is checked against every rule of the format.

    Raises:
        FormatError: the file is cut off, padded or malformed, or has a dtype that NumPy and ml_dtypes do not.
        StorageError: the system refused to read.
    """
    return Held(_tensors(os.fspath(path), None))


def read_folder(path: str | os.PathLike[str]) -> Held:
    """All tensors of a folder: those that its index lists, or those of its only file. Other files are left out, by name.

    Raises:
        CheckpointNotFoundError: there are several indices, or several files without one.
        FormatError: a file is cut off or malformed; the index lists what is not there, or leaves the folder. All of it at once.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    with files.storage_errors(f"cannot list {where}"):
        names = sorted(os.listdir(where))
    indices = [name for name in names if name.endswith(INDEX)]
    data = [name for name in names if name.endswith(ENDING)]
    if len(indices or data) != 1:
        raise CheckpointNotFoundError(
            f"{where} holds {' and '.join(indices or data) or 'no such file'}; name one file of it"
        )
    if indices:
        table = _weight_map(os.path.join(where, indices[0]))
        held, used = _indexed(where, indices[0], table), {*indices, *table.values()}
    else:
        held, used = read_file(os.path.join(where, data[0])), set(data)
    rest = [name for name in names if name not in used and os.path.isfile(os.path.join(where, name))]
    return Held(held.arrays, set(), [*held.left_out, *(f"file {name}" for name in rest)])


def _weight_map(path: str) -> dict[str, str]:
    content = json.parse(read_all(path, _MAX_INDEX_BYTES), path)
    table: Any = content.get("weight_map") if type(content) is dict else None
    if type(table) is not dict or not all(type(file) is str for file in table.values()):
        raise FormatError(f"{path} has no weight_map: a table of tensors and their files")
    outside = {
        file for file in table.values() if not file.endswith(ENDING) or file != os.path.basename(file) or "\0" in file
    }
    if outside:
        raise FormatError(
            f"{path} names {', '.join(map(repr, sorted(outside)))}: only {ENDING} files beside it can be meant"
        )
    return table


def _indexed(where: str, index: str, table: dict[str, str]) -> Held:
    arrays: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    problems: list[str] = []
    wanted: dict[str, set[str]] = {}
    for name, file in table.items():
        wanted.setdefault(file, set()).add(name)
    headers: dict[str, list[str]] = {}
    for file, listed in sorted(wanted.items()):
        if not os.path.isfile(os.path.join(where, file)):
            problems.append(f"{file} is not there, with {len(listed)} of its tensors")
            continue
        with opened(os.path.join(where, file)) as source:
            headers[file] = list(_header(source))
        problems += [f"{file} does not hold {name!r}" for name in sorted(listed.difference(headers[file]))]
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:50])
        raise FormatError(f"{os.path.join(where, index)} lists what is not there ({len(problems)} places):\n{shown}")
    for file, held in headers.items():
        arrays |= _tensors(os.path.join(where, file), wanted[file])
        left_out += [
            f"tensor {name} of {file}, which the index does not list" for name in held if name not in wanted[file]
        ]
    return Held({name: arrays[name] for name in table}, set(), left_out)


def _header(source: Source) -> dict[str, Tensor]:
    """The tensors of a file, in the order of their place; the next byte is the first of their elements."""
    start = header_size(source.take(min(8, source.size), "the length of the header"), source.size, source.name)
    return parse_header(source.take(start - 8, "the header"), source.size, source.name)


def _tensors(path: str, names: set[str] | None) -> dict[str, np.ndarray]:
    """Those of a file with these names; None for all."""
    made: dict[str, np.ndarray] = {}
    with opened(path) as source:
        for name, tensor in _header(source).items():
            if names is None or name in names:
                made[name] = source.array(dtypes.to_numpy(tensor.dtype), tensor.shape, f"tensor {name[:100]!r}")
            else:
                source.skip(tensor.data_offsets[1] - tensor.data_offsets[0], f"tensor {name[:100]!r}")
    return made
