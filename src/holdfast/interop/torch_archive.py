"""The containers of `torch.save`: a zip file since PyTorch 1.6, before that pickles one after the other. Knows no tensors.

Both hold one pickle with what was saved, and the elements of tensors as *storages* beside it, to which it refers by a key.

Source: torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch 2.13.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from holdfast.errors import FormatError
from holdfast.interop import pickles
from holdfast.interop.pickle_parts import STORED, CutOffError, Record
from holdfast.interop.source import Source

_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_HEAD = 24  # bytes in which it stands, after what every pickle begins with

ZIP = b"PK\x03\x04"
_FIRST = 1 << 26  # bytes of a legacy file that are looked at for its pickles; more if they are longer
_MAX_PICKLE_BYTES = 1 << 32


class Archive(Protocol):
    """What a file holds.

    Attributes:
        tree: what was saved, with a `Record` of kind `STORED` for every storage.
        swapped: whether elements are big-endian.
    """

    tree: Any
    swapped: bool

    def storage(self, key: str) -> np.ndarray:
        """The bytes of a storage, `(n,) uint8`, read anew at every call.

        Raises:
            FormatError: there is no such storage, or it is damaged.
        """
        ...


def is_legacy(head: bytes) -> bool:
    """Whether a file begins as those that `torch.save` wrote before PyTorch 1.6, or with `_use_new_zipfile_serialization=False`."""
    return head[:1] == b"\x80" and _MAGIC in head[:_HEAD]


def opened(source: Source, records: frozenset[str]) -> Archive:
    """The content of a file, but for the storages.

    Args:
        source: the file, at its beginning.
        records: see `pickles.read`.

    Raises:
        FormatError: it is cut off or malformed, or none of these.
    """
    head = source.take(min(_HEAD, source.size), "the file")
    if head[: len(ZIP)] == ZIP:
        return _Zip(source, records)
    if is_legacy(head):
        return _Legacy(source, records)
    raise FormatError(
        f"{source.name} is no file of torch.save: it begins with {head[:12]!r}, as neither a zip file nor an old one does"
    )


class _Zip:
    def __init__(self, source: Source, records: frozenset[str]) -> None:
        self._source = source
        try:
            with zipfile.ZipFile(source.file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise FormatError(f"{source.name} is cut off or malformed: {error}") from error
        self._members = self._checked(members)
        data = self._member("data.pkl").tobytes()
        self.tree = pickles.read(data, f"{source.name}, data.pkl", records=records, objects=True)
        self.swapped = "byteorder" in self._members and self._member("byteorder").tobytes() == b"big"

    def _checked(self, members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """The parts of the archive, by their names below its folder."""
        where = self._source.name
        folders = [m.filename.removesuffix("data.pkl") for m in members if m.filename.endswith("/data.pkl")]
        if len(folders) != 1:
            raise FormatError(
                f"{where} is no file of torch.save: it holds {len(folders)} parts called data.pkl, not one"
            )
        if any(m.filename.endswith("/constants.pkl") for m in members):
            raise FormatError(
                f"{where} is a TorchScript program: save torch.jit.load(…).state_dict(), and convert that"
            )
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                # A few kilobytes could become any amount of memory.
                raise FormatError(
                    f"{where} holds compressed parts ({member.filename[:100]}), which torch.save never writes. It was packed "
                    "anew by another program: unpack it, and pack it without compression (zip -0)"
                )
            if member.flag_bits & 1:
                raise FormatError(
                    f"{where} holds encrypted parts ({member.filename[:100]}), which torch.save never writes"
                )
        names = [m.filename.removeprefix(folders[0]) for m in members]
        if len(set(names)) != len(names):
            raise FormatError(f"{where} is malformed: it holds two parts with the name {_twice(names)!r}")
        if sum(m.file_size for m in members) > self._source.size:
            raise FormatError(f"{where} is malformed: its parts overlap, together they are longer than the file")
        return dict(zip(names, members, strict=True))

    def storage(self, key: str) -> np.ndarray:
        return self._member(f"data/{key}")

    def _member(self, name: str) -> np.ndarray:
        source, member = self._source, self._members.get(name)
        if member is None:
            raise FormatError(
                f"{source.name} is malformed: there is no {name[:100]} in it, to which its data.pkl refers"
            )
        what = f"{name[:100]} of the archive"
        source.go(member.header_offset)
        head = source.take(30, what)
        source.skip(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), what)
        if head[:4] != ZIP:
            source.bad(f"{what} does not begin where the archive says")
        made = source.array(np.dtype(np.uint8), (member.file_size,), what)
        # PyTorch can be told to compute none, and writes 0 then.
        if member.CRC and zlib.crc32(made) != member.CRC:  # type: ignore[arg-type]  # an array is bytes to it
            raise FormatError(f"{source.name} is damaged: the checksum of {name[:100]} is not that of its bytes")
        return made


class _Legacy:
    swapped = False  # the elements are little-endian whatever machine wrote them

    def __init__(self, source: Source, records: frozenset[str]) -> None:
        self._source = source
        self.tree, keys, at = self._looked_at(records)
        self._places = self._listed(keys, at)

    def _looked_at(self, records: frozenset[str]) -> tuple[Any, Any, int]:
        source, most = self._source, _FIRST
        while True:
            source.rewind()
            head = source.take(min(most, source.size), "the pickles")
            try:
                return self._pickles(head, records)
            except CutOffError:
                if len(head) == source.size or most > _MAX_PICKLE_BYTES:
                    raise
                most *= 8

    def _pickles(self, head: bytes, records: frozenset[str]) -> tuple[Any, Any, int]:
        """What was saved, the keys of the storages in their order, and where these begin."""
        where, at = self._source.name, 0
        found = []
        for part in ("the beginning", "the version", "the machine", "the content", "the keys"):
            value, length = pickles.read_first(head[at:], f"{where}, {part}", records=records, objects=True)
            found.append(value)
            at += length
        if found[1] != 1001:
            raise FormatError(f"{where} is of version {str(found[1])[:20]}; files of torch.save are of version 1001")
        return found[3], found[4], at

    def _listed(self, keys: Any, at: int) -> dict[str, tuple[int, int]]:
        """Where each storage begins, and how many bytes it has."""
        source = self._source
        sizes = _itemsizes(self.tree, source)
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise FormatError(f"{source.name} is malformed: its list of storages is none")
        places: dict[str, tuple[int, int]] = {}
        source.go(at)
        for key in keys:
            if key in places or key not in sizes:
                source.bad(f"it lists a storage {key[:100]!r} twice, or one that nothing refers to")
            count = source.integer("q", f"the length of storage {key[:100]!r}")
            length = max(count, 0) * sizes[key]
            places[key] = (source.at, length)
            source.skip(length, f"storage {key[:100]!r}")
        source.end()
        return places

    def storage(self, key: str) -> np.ndarray:
        source = self._source
        if key not in self._places:
            raise FormatError(
                f"{source.name} is malformed: it does not hold the storage {key[:100]!r}, to which it refers"
            )
        start, length = self._places[key]
        source.go(start)
        return source.array(np.dtype(np.uint8), (length,), f"storage {key[:100]!r}")


def _twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _itemsizes(tree: Any, source: Source) -> dict[str, int]:
    """Bytes per element of every storage that a tree refers to, by key."""
    found: dict[str, int] = {}
    for record in records_in(tree, STORED):
        kind, key = storage_kind(record, source.name)
        itemsize = ITEMSIZES.get(kind)
        if itemsize is None:
            raise FormatError(f"{source.name}: {kind[:100]} is no kind of storage that this version knows")
        if found.setdefault(key, itemsize) != itemsize:
            raise FormatError(f"{source.name}: the storage {key[:100]!r} is of two kinds")
    return found


def storage_kind(record: Record, where: str) -> tuple[str, str]:
    """The kind of a storage, such as `FloatStorage`, and its key.

    Raises:
        FormatError: it is none of PyTorch's references to storages: kind, key, device, number of elements.
    """
    parts = record.arguments
    if len(parts) >= 5 and parts[0] == "storage" and type(parts[1]) is Record and type(parts[2]) is str:
        return parts[1].kind.rpartition(".")[2], parts[2]
    raise FormatError(f"{where} refers to something outside of its pickle that is no storage: {str(parts)[:100]}")


def records_in(tree: Any, kind: str | None = None) -> Iterator[Record]:
    """Every Record in a tree; those of a kind if one is given."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list | tuple):
            pending += node
        elif type(node) is Record:
            if kind in (None, node.kind):
                yield node
            pending += (*node.fields.values(), *node.arguments)


ITEMSIZES = {
    "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "IntStorage": 4, "LongStorage": 8,
    "HalfStorage": 2, "BFloat16Storage": 2, "FloatStorage": 4, "DoubleStorage": 8, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
"""Bytes per element."""
