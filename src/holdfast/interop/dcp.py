"""A folder of `torch.distributed.checkpoint` (DCP): `.metadata` says where each piece of a tensor is, `*.distcp` hold the pieces.

DCP itself unpickles `.metadata` without any restriction, so it is not asked: this file is read without unpickling
(`pickles.py`), and the pieces, each of which is a file of `torch.save`, as such files are (`torch_files.py`).

Source: torch/distributed/checkpoint/metadata.py, filesystem.py and planner_helpers.py of PyTorch 2.13.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.format.geometry import Box, boxes_problem
from holdfast.interop import pickles, torch_files
from holdfast.interop.foreign import Held, LeftOut, Refused, collect
from holdfast.interop.pickle_parts import Record
from holdfast.interop.source import of_bytes, opened, read_all

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
Offset = tuple[int, ...]


def is_dcp(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like one of these, finished or not."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return METADATA in names or any(_DATA.fullmatch(name) for name in names)


def read(path: str | os.PathLike[str]) -> Held:
    """All tensors of a folder, put together from the pieces of all ranks, and plain values; objects are left out, by name.

    Raises:
        CheckpointNotFoundError: there is no `.metadata`: that save never finished.
        FormatError: a file is cut off or malformed, or the pieces do not make up the tensors exactly.
        UnsupportedVariableError: a tensor has no form as an array.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    source = os.path.join(where, METADATA)
    if not os.path.isfile(source):
        raise CheckpointNotFoundError(f"no {METADATA} in {where}: that save was never completed")
    held = pickles.read(read_all(source, _MAX_METADATA_BYTES), source, records=_KNOWN)
    try:
        tensors, values, places = _listed(held)
        paths = _paths(held.fields.get("planner_data"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{source} is not as this version knows such files: {error!r}") from error
    pieces = _Pieces(where, places)
    leaves = pieces.tensors(tensors) | {name: pieces.value(name) for name in values}
    made = collect(_tree(leaves, paths, source), 4 * len(leaves) + pieces.size, where)
    made.notes.extend(pieces.notes)
    return made


Path = tuple[str | int, ...]


def _paths(held: Any) -> dict[str, Path]:
    """Where each name stands in what was saved, if DCP made names of nested keys."""
    if type(held) is not dict:
        return {}
    for path in held.values():
        if type(path) is not tuple or not path or not all(type(key) in (str, int) for key in path):
            raise ValueError(f"{str(path)[:100]} is no path of keys")
    return held


def _tree(leaves: dict[str, Any], paths: dict[str, Path], where: str) -> dict[str, Any]:
    """What was saved: dicts for texts on the way, lists for numbers."""
    tree: dict[str | int, Any] = {}
    for name, leaf in leaves.items():
        *way, last = paths.get(name, (name,))
        node = tree
        for key in way:
            node = node.setdefault(key, {})
            if type(node) is not dict:
                raise FormatError(f"{where}: {name!r} is said to stand in what is no dict")
        if last in node:
            raise FormatError(f"{where}: two parts are said to stand at {name!r}")
        node[last] = leaf
    return {str(key): _lists(item) for key, item in tree.items()}


def _lists(node: Any) -> Any:
    if type(node) is not dict:
        return node
    made = {key: _lists(item) for key, item in node.items()}
    return list(made.values()) if made and list(made) == list(range(len(made))) else made


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


Places = dict[tuple[str, Offset | None], _Place]


def _listed(metadata: Record) -> tuple[dict[str, _Tensor], list[str], Places]:
    tensors: dict[str, _Tensor] = {}
    values: list[str] = []
    for name, record in metadata.fields["state_dict_metadata"].items():
        if type(name) is not str:
            raise ValueError(f"{str(name)[:100]!r} is no name")
        if record.kind == "BytesStorageMetadata":
            values.append(name)
        else:
            tensors[name] = _Tensor(record.fields)
    places: Places = {}
    for index, info in metadata.fields["storage_data"].items():
        fqn, offset = index.fields["fqn"], index.fields.get("offset")
        places[fqn, None if offset is None or fqn not in tensors else _size(offset)] = _Place(info.fields)
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
        self.size = total
        self.notes: list[str] = []

    def tensors(self, tensors: dict[str, _Tensor]) -> dict[str, np.ndarray | Refused]:
        """All tensors, as arrays where they have such a form."""
        return {name: self._whole(name, tensor) for name, tensor in tensors.items()}

    def value(self, name: str) -> Any:
        """What stands in the checkpoint under a name, and is no tensor."""
        place = self.places.get((name, None))
        if place is None:
            return LeftOut("the metadata do not say where it is")
        return self._read(place, f"the value {name!r}")

    def _whole(self, name: str, tensor: _Tensor) -> np.ndarray | Refused:
        if math.prod(tensor.shape) == 0:
            part = self._piece(name, tensor.boxes[0]) if tensor.boxes else Refused("has no piece")  # for its dtype
            return part if isinstance(part, Refused) else part.reshape(tensor.shape)
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
            if isinstance(part, Refused):
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

    def _piece(self, name: str, box: Box) -> np.ndarray | Refused:
        what = f"the piece of {name!r} at {box.offset}"
        found = self._read(self._place(name, box), what)
        if not isinstance(found, np.ndarray | Refused) or (isinstance(found, np.ndarray) and found.shape != box.shape):
            raise FormatError(f"{self.where}: {what} is not {box.shape}")
        return found

    def _read(self, place: _Place, what: str) -> Any:
        file = os.path.join(self.where, place.name)
        with opened(file) as source:
            source.skip(place.offset, "what stands before")
            data = source.take(place.length, what)
        return torch_files.tree_of(of_bytes(data, f"{file}, {what}"), self.notes)
