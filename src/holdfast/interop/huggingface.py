"""Folders as the Hugging Face libraries save them: which of the files are the model, and whether index and files fit.

A model is one file, or several and an index with `weight_map`: name of a tensor → file. Files are safetensors, or of `torch.save`
(`pytorch_model.bin`), which transformers wrote until 2023 and diffusers and PEFT still can. Needs no library.

Source: `save_pretrained` and `_get_resolved_checkpoint_files` of transformers 5.23.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError, UnsupportedVariableError
from holdfast.format import json
from holdfast.interop import files, safetensors_files, torch_files
from holdfast.interop.foreign import Held
from holdfast.interop.safetensors_files import ENDING
from holdfast.interop.source import read_all

BIN = ".bin"
_INDEX = re.compile(r"(?P<stem>.+)(?P<ending>\.safetensors|\.bin)\.index(?P<variant>\.[\w-]+)?\.json")
_WEIGHTS = re.compile(r"(?:.*_)?(?:pytorch_model|adapter_model)(?:\.[\w-]+)?(?:-\d{5}-of-\d{5})?\.bin")
_SHARD = re.compile(r".*-\d{5}-of-(\d{5})(?:\.safetensors|\.bin)")
_MAX_INDEX_BYTES = 1 << 30
_SHOWN = 50


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds such files."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return any(name.endswith(ENDING) or is_index(name) or _WEIGHTS.fullmatch(name) for name in names)


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the name of an index."""
    return _INDEX.fullmatch(os.path.basename(path)) is not None


def shard_of(path: str | os.PathLike[str]) -> int | None:
    """Of how many files a model consists of which this is one, by the file's name; None if it does not say so."""
    match = _SHARD.fullmatch(os.path.basename(path))
    return int(match[1]) if match and int(match[1]) > 1 else None


def read_file(path: str | os.PathLike[str]) -> Held:
    """All tensors of a safetensors file; the header is checked against every rule of the format. Metadata are left out, by name.

    Raises:
        FormatError: the file is cut off, padded or malformed.
        UnsupportedVariableError: tensors are of dtypes that NumPy and ml_dtypes do not have.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    arrays = safetensors_files.tensors(where)
    return Held(arrays, set(), [f"metadata {name}" for name in safetensors_files.described(where)[1]])


def read_folder(path: str | os.PathLike[str]) -> Held:
    """All tensors of a folder: those of its index's files, or of its only file. Other files are left out, by name.

    Where there are safetensors and files of `torch.save` of the same model, the former are read, as Hugging Face's libraries do
    it: they are checked in more ways.

    Raises:
        CheckpointNotFoundError: it is not clear which files are the model.
        FormatError: files are cut off or malformed; index and files do not fit: all of it at once.
        UnsupportedVariableError: tensors have no form as arrays.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    with files.storage_errors(f"cannot list {where}"):
        names = sorted(os.listdir(where))
    chosen, passed_over = _chosen(where, names)
    if is_index(chosen):
        held = read_index(os.path.join(where, chosen))
        used = {chosen, *_weight_map(os.path.join(where, chosen)).values()}
    else:
        held, used = _read_one(os.path.join(where, chosen)), {chosen}
    left_out = [*held.left_out]
    for name in names:
        if name not in used and os.path.isfile(os.path.join(where, name)):
            because = f": {chosen} is read, as safetensors come first where a folder has both" * (name in passed_over)
            left_out.append(f"file {name}{because}")
    return Held(held.arrays, held.others, left_out, held.values, held.optimizers, held.notes)


def read_index(path: str | os.PathLike[str]) -> Held:
    """All tensors that an index lists; it and its files have to list the same.

    Raises:
        FormatError, UnsupportedVariableError, StorageError: as `read_folder`.
    """
    where = os.fspath(path)
    table = _weight_map(where)
    return _bins(where, table) if _ending(where) == BIN else _safetensors(where, table)


def _chosen(where: str, names: list[str]) -> tuple[str, set[str]]:
    """The index or file to read, and the files of the same model in the other form."""
    safe = _models(where, names, [name for name in names if name.endswith(ENDING)], ENDING)
    bins = _models(where, names, [name for name in names if _WEIGHTS.fullmatch(name)], BIN)
    found = [*safe, *bins]
    if len(safe or bins) != 1 or (safe and bins and {_stem(name) for name in bins} != {_stem(safe[0])}):
        if found and all(shard_of(name) for name in safe or bins):
            raise CheckpointNotFoundError(
                f"{where} holds {' and '.join(found)}: parts of a model, without the index that lists them "
                f"(…{_ending(found[0])}.index.json). Copy it too, or name one of the files"
            )
        raise CheckpointNotFoundError(
            f"{where} holds {' and '.join(found) or 'no such file'}: it is not clear which of them is the model. Name one of them: "
            f"{os.path.join(where, (found or ['FILE'])[0])}"
        )
    if not safe:
        return bins[0], set()
    also = {*bins, *(name for name in names if _WEIGHTS.fullmatch(name))}
    return safe[0], also


def _models(where: str, names: list[str], data: list[str], ending: str) -> list[str]:
    """What can be read in a folder: its indices, or its files if it has none; both if a file is no part of an index of its name."""
    indices = [name for name in names if is_index(name) and _ending(name) == ending]
    alone = [
        name
        for name in data
        for index in indices
        if name == _stem(index, plain=False) + ending and name not in _weight_map(os.path.join(where, index)).values()
    ]
    return [*alone, *indices] if indices else data


def _ending(path: str) -> str:
    match = _INDEX.fullmatch(os.path.basename(path))
    return match["ending"] if match else os.path.splitext(path)[1]


def _stem(name: str, *, plain: bool = True) -> str:
    """What the name of an index or a file begins with; `pytorch_model` is what `model` was called before safetensors."""
    match = _INDEX.fullmatch(name)
    stem = match["stem"] + (match["variant"] or "") if match else os.path.splitext(name)[0]
    return re.sub(r"\Apytorch_model", "model", stem) if plain else stem


def _read_one(path: str) -> Held:
    return read_file(path) if path.endswith(ENDING) else torch_files.read(path)


def _weight_map(path: str) -> dict[str, str]:
    content = json.parse(read_all(path, _MAX_INDEX_BYTES), path)
    table: Any = content.get("weight_map") if type(content) is dict else None
    if type(table) is not dict or not all(type(file) is str for file in table.values()):
        raise FormatError(f"{path} has no weight_map: a table of tensors and their files")
    ending = _ending(path)
    outside = sorted({f for f in table.values() if not f.endswith(ending) or f != os.path.basename(f) or "\0" in f})
    if outside:
        more = f" and {len(outside) - _SHOWN} more" if len(outside) > _SHOWN else ""
        raise FormatError(
            f"{path} names {', '.join(repr(file[:100]) for file in outside[:_SHOWN])}{more}: only {ending} files beside it can be "
            "meant, and nothing else was opened"
        )
    return table


def _safetensors(index: str, table: dict[str, str]) -> Held:
    folder = os.path.dirname(index)
    problems: list[str] = []
    left_out: list[str] = []
    holds: dict[str, list[str]] = {}
    for file in _there(index, table, problems):
        try:
            holds[file], metadata = safetensors_files.described(os.path.join(folder, file))
            left_out += [f"metadata {name} of {file}" for name in metadata]
        except (FormatError, UnsupportedVariableError) as error:
            problems.append(str(error))
    _check(index, table, holds, problems)
    arrays: dict[str, np.ndarray] = {}
    for file in holds:
        arrays |= safetensors_files.tensors(os.path.join(folder, file))
    return Held({name: arrays[name] for name in table}, set(), left_out)


def _bins(index: str, table: dict[str, str]) -> Held:
    folder = os.path.dirname(index)
    problems: list[str] = []
    parts: dict[str, Held] = {}
    for file in _there(index, table, problems):
        try:
            parts[file] = torch_files.read(os.path.join(folder, file))
        except (FormatError, UnsupportedVariableError) as error:
            problems.append(str(error))
    _check(index, table, {file: [*part.arrays] for file, part in parts.items()}, problems)
    left_out = [
        f"{what} of {file}"
        for file, part in parts.items()
        for what in [*part.left_out, *(f"value {v}" for v in part.values)]
    ]
    return Held({name: parts[file].arrays[name] for name, file in table.items()}, set(), left_out)


def _there(index: str, table: dict[str, str], problems: list[str]) -> list[str]:
    """The files of an index that are there."""
    counts = Counter(table.values())
    there = {file: os.path.isfile(os.path.join(os.path.dirname(index), file)) for file in sorted(counts)}
    problems += [
        f"{file} is not there, with {counts[file]:,} of the tensors" for file, found in there.items() if not found
    ]
    return [file for file, found in there.items() if found]


def _check(index: str, table: dict[str, str], holds: dict[str, list[str]], problems: list[str]) -> None:
    """Raise FormatError if there are problems, or index and files do not list the same."""
    held = {file: set(names) for file, names in holds.items()}
    problems += [
        f"{file} does not hold {name!r}" for name, file in table.items() if file in held and name not in held[file]
    ]
    for file, names in holds.items():
        for name in names:
            if name not in table:
                problems.append(f"{file} holds {name!r}, which the index does not list")
            elif table[name] != file:
                problems.append(f"{file} holds {name!r} too, which the index says is in {table[name]}")
    if problems:
        count = len(problems)
        shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        more = f"\n  and {count - _SHOWN:,} more" if count > _SHOWN else ""
        raise FormatError(
            f"{index} and its files do not fit together, in {count:,} place{'s' * (count != 1)}:{shown}{more}\n"
            "They may be of two saves, or a copy is not complete: copy the whole folder again from where it was saved"
        )
