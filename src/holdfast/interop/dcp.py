"""A folder of `torch.distributed.checkpoint` (DCP): `.metadata` says where each piece of a tensor is, `*.distcp` hold the pieces.

DCP itself unpickles `.metadata` without any restriction, so it is not asked: this file is read without unpickling
(`pickles.py`), and the pieces by PyTorch's restricted unpickler (`torch_files.py`).

Source: torch/distributed/checkpoint/metadata.py, filesystem.py and planner_helpers.py of PyTorch 2.13.
"""

from __future__ import annotations

import io
import math
import os
import re
from typing import Any

import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError, UnsupportedVariableError
from holdfast.format.geometry import Box, boxes_problem
from holdfast.interop import pickles, torch_files
from holdfast.interop.foreign import Held, of_optimizers
from holdfast.interop.pickles import Record
from holdfast.interop.source import opened, read_all

METADATA = ".metadata"
_MAX_METADATA_BYTES = 1 << 30
_DATA = re.compile(r"__[0-9]+_[0-9]+\.distcp")
_CLASSES = (
    "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
    "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
)  # fmt: skip
_DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
    "float64", "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn_x2", "quint8", "qint8", "qint32",
)  # fmt: skip
_KNOWN = frozenset(
    [
        *(f"torch.distributed.checkpoint.metadata.{name}" for name in _CLASSES),
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "torch.Size",
        "torch.serialization._get_layout",
        *(f"torch.{name}" for name in _DTYPES),
        *(f"pathlib{part}.{kind}Path" for part in ("", "._local") for kind in ("Posix", "Windows", "PurePosix")),
    ]
)
_GROUPS = re.compile(r"(.*?\.)?param_groups(?=\.)", re.DOTALL)

Offset = tuple[int, ...]


def is_dcp(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like one of these, finished or not."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return METADATA in names or any(_DATA.fullmatch(name) for name in names)


def read(path: str | os.PathLike[str]) -> Held:
    """All tensors of a folder, put together from the pieces of all ranks. Values that are no tensors are left out, by name.

    Raises:
        CheckpointNotFoundError: there is no `.metadata`: that save never finished.
        FormatError: a file is cut off or malformed, or the pieces do not make up the tensors exactly.
        UnsupportedVariableError: a tensor has no form as an array.
        MissingExtraError: PyTorch is not installed, or too old to be safe.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    source = os.path.join(where, METADATA)
    if not os.path.isfile(source):
        raise CheckpointNotFoundError(f"no {METADATA} in {where}: that save was never completed")
    held = pickles.read(read_all(source, _MAX_METADATA_BYTES), source, records=_KNOWN)
    try:
        tensors, values, places = _listed(held)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{source} is not as this version knows such files: {error!r}") from error
    arrays = _Pieces(where, places).arrays(tensors)
    shown = dict.fromkeys(match[0] if (match := _GROUPS.match(name)) else name for name in values)
    return Held(arrays, of_optimizers(arrays, values), [f"value {name}" for name in shown])


class _Tensor:
    """What the metadata says of a tensor: its shape, and its pieces as boxes of it."""

    __slots__ = ("boxes", "shape")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.shape = _size(fields["size"])
        self.boxes = [Box(_size(c.fields["offsets"]), _size(c.fields["sizes"])) for c in fields["chunks"]]
        if any(len(part) != len(self.shape) for box in self.boxes for part in box):
            raise ValueError(f"pieces of other dimensions than {self.shape}")


class _Place:
    """Where a piece stands."""

    __slots__ = ("length", "name", "offset")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.name, self.offset, self.length = fields["relative_path"], fields["offset"], fields["length"]
        if type(self.name) is not str or self.name != os.path.basename(self.name) or not self.name.endswith(".distcp"):
            raise ValueError(f"{self.name!r} is no name of a data file")
        if not all(type(n) is int and n >= 0 for n in (self.offset, self.length)):
            raise ValueError(f"{self.offset!r}, {self.length!r} is no place in a file")
        if fields.get("transform_descriptors"):
            raise ValueError(f"{self.name} is compressed or encrypted: {fields['transform_descriptors']}")


Places = dict[tuple[str, Offset], _Place]


def _listed(metadata: Record) -> tuple[dict[str, _Tensor], list[str], Places]:
    tensors: dict[str, _Tensor] = {}
    values: list[str] = []
    for name, record in metadata.fields["state_dict_metadata"].items():
        if record.kind == "BytesStorageMetadata":
            values.append(name)
        else:
            tensors[name] = _Tensor(record.fields)
    places: Places = {}
    for index, info in metadata.fields["storage_data"].items():
        if index.fields["fqn"] in tensors:
            places[index.fields["fqn"], _size(index.fields["offset"])] = _Place(info.fields)
    return tensors, values, places


def _size(value: Record | None) -> tuple[int, ...]:
    """A `torch.Size`."""
    if value is None or value.kind != "Size" or len(value.arguments) > 1:
        raise TypeError(f"{value!r} is no size")
    numbers = value.arguments[0] if value.arguments else ()
    if type(numbers) not in (tuple, list) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError(f"{numbers!r} is no size")
    return tuple(numbers)


class _Pieces:
    """The data files, checked to be there and as long as the metadata says."""

    def __init__(self, where: str, places: Places) -> None:
        self.where, self.places = where, places
        self.torch = torch_files.library(where)
        total = 0
        problems = []
        for name in sorted({place.name for place in places.values()}):
            file = os.path.join(where, name)
            if not os.path.isfile(file):
                problems.append(f"{name} is not there")
                continue
            with opened(file) as source:
                total += source.size
                end = max(place.offset + place.length for place in places.values() if place.name == name)
                if end > source.size:
                    problems.append(f"{name} has {source.size:,} bytes, its pieces reach to {end:,}")
        if problems:
            raise FormatError(f"{where} is not whole: {'; '.join(problems)}")
        if sum(place.length for place in places.values()) > total:
            raise FormatError(f"{where}: its pieces overlap: together they are longer than its files")
        self.convert = torch_files.Arrays(self.torch, total)

    def arrays(self, tensors: dict[str, _Tensor]) -> dict[str, np.ndarray]:
        """All of them.

        Raises:
            UnsupportedVariableError: some have no such form.
        """
        made: dict[str, np.ndarray] = {}
        reasons: dict[str, str] = {}
        for name, tensor in tensors.items():
            whole = self._whole(name, tensor)
            if isinstance(whole, str):
                reasons[name] = whole
            else:
                made[name] = whole
        if reasons:
            raise UnsupportedVariableError(reasons)
        return made

    def _whole(self, name: str, tensor: _Tensor) -> np.ndarray | str:
        if math.prod(tensor.shape) == 0:
            part = self._piece(name, tensor.boxes[0]) if tensor.boxes else "has no piece"  # for its dtype
            return part if isinstance(part, str) else part.reshape(tensor.shape)
        boxes = [box for box in tensor.boxes if box.size]
        if problem := boxes_problem(tensor.shape, boxes):
            raise FormatError(f"{self.where}: the pieces of {name!r} do not make up {tensor.shape}: {problem}")
        for box in boxes:  # before the memory for all of them is taken
            if box.size > self._place(name, box).length:
                raise FormatError(f"{self.where}: the piece of {name!r} at {box.offset} is shorter than {box.shape}")
        if len(boxes) == 1:
            return self._piece(name, boxes[0])
        whole: np.ndarray | None = None
        for box in boxes:
            part = self._piece(name, box)
            if isinstance(part, str):
                return part
            if whole is None:
                whole = np.empty(tensor.shape, part.dtype)
            if part.dtype != whole.dtype:
                raise FormatError(f"{self.where}: the pieces of {name!r} have several dtypes")
            whole[box.index] = part
        assert whole is not None
        return whole

    def _place(self, name: str, box: Box) -> _Place:
        place = self.places.get((name, box.offset))
        if place is None:
            raise FormatError(f"{self.where}: the metadata does not say where the piece of {name!r} at {box.offset} is")
        return place

    def _piece(self, name: str, box: Box) -> np.ndarray | str:
        place = self._place(name, box)
        file = os.path.join(self.where, place.name)
        with opened(file) as source:
            source.skip(place.offset, "what stands before")
            data = source.take(place.length, f"a piece of {name!r}")
        found = self.convert.array_of(
            torch_files.load(io.BytesIO(data), f"{file}, the piece of {name!r} at {box.offset}")
        )
        if found is None or (not isinstance(found, str) and found.shape != box.shape):
            raise FormatError(f"{file}: the piece of {name!r} at {box.offset} is not {box.shape}")
        return found
