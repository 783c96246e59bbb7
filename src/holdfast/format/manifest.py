"""Manifest model: JSON text in, Manifest out, and back (docs/format.md, section 2). Pure: no I/O, no arrays, no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from holdfast.dtypes import ITEMSIZE
from holdfast.errors import FormatError, VersionError
from holdfast.format import json, layout
from holdfast.format.digests import BLOCK_BYTES, block_count, hexdigest
from holdfast.format.geometry import Box, boxes_problem
from holdfast.format.safetensors import MAX_DIMENSIONS, is_too_large
from holdfast.variables import Variable

VERSION = (1, 0)
MAX_NAME_BYTES = 4096

MANIFEST_PREFIX = b'{"digest":"xxh3-128:'
HEAD_BYTES = len(MANIFEST_PREFIX) + 32

M = TypeVar("M", bound="Manifest")
Content = Literal["checkpoint", "params", "variables"]
# The limit is that of file offsets; products of such sizes are Python integers and cannot wrap.
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Digest = Annotated[str, msgspec.Meta(min_length=32, max_length=32)]
# gc=False: 100,000 of these are made at once, none is ever part of a cycle, and tracking them doubles the time to decode.


class File(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One file of a checkpoint. Data files have a header, JSON files have none."""

    name: str
    size: Size
    digest: Digest
    header_size: Size | None = None
    header_digest: Digest | None = None


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The bytes of a box of a variable; `offset` and `shape` are None if the box is the whole variable."""

    file: Size
    range: tuple[Size, Size]
    blocks: tuple[Digest, ...]
    offset: tuple[Size, ...] | None = None
    shape: tuple[Size, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the chunk."""
        return self.range[1] - self.range[0]

    def box(self, shape: tuple[int, ...]) -> Box:
        """The box within a variable of the global `shape`."""
        if self.offset is None or self.shape is None:
            return Box((0,) * len(shape), shape)
        return Box(self.offset, self.shape)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One variable of a checkpoint and where its bytes are."""

    name: str
    kind: Literal["parameter", "persistable"]
    trainable: bool
    dtype: str
    shape: tuple[Size, ...]
    chunks: tuple[Chunk, ...]

    @property
    def variable(self) -> Variable:
        """The entry without its bytes."""
        return Variable(self.name, self.kind, self.trainable, self.dtype, self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole value."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


class UnreadEntry(msgspec.Struct, frozen=True, gc=False, rename={"raw": "chunks"}):
    """An `Entry` whose chunks are decoded when asked for: what opening one variable of 100,000 makes of the others."""

    name: str
    kind: Literal["parameter", "persistable"]
    trainable: bool
    dtype: str
    shape: tuple[Size, ...]
    raw: msgspec.Raw

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Where its bytes are; decoded at each call.

        Raises:
            FormatError: they are malformed.
        """
        return json.decode(bytes(self.raw), _chunks_decoder, _encoder.encode, f"variable {self.name[:100]!r}")

    @property
    def variable(self) -> Variable:
        """The variable without its bytes."""
        return Variable(self.name, self.kind, self.trainable, self.dtype, self.shape)


def whole(entry: Entry | UnreadEntry) -> Entry:
    """The entry with its chunks decoded.

    Raises:
        FormatError: they are malformed.
    """
    if isinstance(entry, Entry):
        return entry
    return Entry(entry.name, entry.kind, entry.trainable, entry.dtype, entry.shape, entry.chunks)


class Manifest(msgspec.Struct, frozen=True):
    """The commit record of a checkpoint."""

    format: Literal["holdfast"]
    version: tuple[Size, Size]
    content: Content
    serial: Size | None
    step: Size | None
    created: str
    writer: str
    attempt: str
    world_size: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    metrics: dict[str, float]
    files: tuple[File, ...]
    variables: tuple[Entry, ...]
    aliases: dict[str, str] = {}
    """Second names → the variables that are called so too; only in a folder that stands alone."""

    @property
    def nbytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(f.size for f in self.files)


class Outline(Manifest, frozen=True):
    """A manifest whose variables' chunks are not decoded; `variables` holds an `UnreadEntry` for each."""

    variables: tuple[UnreadEntry, ...]  # type: ignore[assignment]


class _Stored(Manifest, frozen=True, kw_only=True):
    digest: str


class _StoredOutline(Outline, frozen=True, kw_only=True):
    digest: str


class _Version(msgspec.Struct):
    format: Any = None
    version: Any = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Stored)
_outline_decoder = msgspec.json.Decoder(_StoredOutline)
_chunks_decoder = msgspec.json.Decoder(tuple[Chunk, ...])
_version_decoder = msgspec.json.Decoder(_Version)


def to_bytes(manifest: Manifest) -> bytes:
    """The contents of `manifest.json`."""
    parts = {name: getattr(manifest, name) for name in Manifest.__struct_fields__}
    if not manifest.aliases:
        del parts["aliases"]
    body = b'",' + _encoder.encode(parts)[1:]
    return MANIFEST_PREFIX + hexdigest(body).encode() + body


def from_bytes(data: bytes, path: str) -> Manifest:
    """The manifest in the bytes of a `manifest.json`, with its digest and its fields checked, but not its variables: see `check`.

    Args:
        data: the whole file.
        path: for messages.

    Raises:
        FormatError: the bytes are not a valid manifest, or not those that were written.
        VersionError: a newer major version wrote them.
    """
    return _from_bytes(data, path, _decoder)


def outline_from_bytes(data: bytes, path: str) -> Outline:
    """Like `from_bytes`, in half the time: the chunks of the variables stay undecoded."""
    return _from_bytes(data, path, _outline_decoder)


def _from_bytes(data: bytes, path: str, decoder: msgspec.json.Decoder[M]) -> M:
    if not data.startswith(MANIFEST_PREFIX) or data[HEAD_BYTES : HEAD_BYTES + 2] != b'",':
        raise FormatError(f"{path} does not begin like a Holdfast manifest; it is another program's file or damaged")
    body = memoryview(data)[HEAD_BYTES:]
    if hexdigest(body).encode() != data[len(MANIFEST_PREFIX) : HEAD_BYTES]:
        raise FormatError(
            f"{path} is damaged: its own digest does not match; use another checkpoint or a copy of this one"
        )
    try:
        stored = json.decode(data, decoder, to_bytes, path)
    except FormatError:
        _check_version(data, path)  # that may be why
        raise
    if stored.version[0] != VERSION[0]:
        _check_version(data, path)
    _check_files(stored, path)
    return stored


def _check_version(data: bytes, path: str) -> None:
    """Refuse a version that is not ours, before its fields are judged by ours."""
    try:
        found = _version_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if found.format != "holdfast":
        raise FormatError(f"{path}: format is {str(found.format)[:40]!r}, expected 'holdfast'")
    major = found.version[0] if isinstance(found.version, list) and found.version else None
    if type(major) is int and major > VERSION[0]:
        raise VersionError(
            f"{path} has format version {major}, this Holdfast reads up to {VERSION[0]}: upgrade holdfast"
        )
    if major != VERSION[0]:
        raise FormatError(f"{path}: there is no format version {str(major)[:40]}")


def _check_files(manifest: Manifest, path: str) -> None:
    names = set()
    for file in manifest.files:
        if not layout.is_listable(file.name):
            raise FormatError(f"{path} lists a file {file.name[:100]!r}: not a name of the format")
        if file.name in names:
            raise FormatError(f"{path} lists the file {file.name!r} twice")
        names.add(file.name)
        has_header = file.header_size is not None and file.header_digest is not None
        if file.name.endswith(".safetensors") != has_header:
            raise FormatError(
                f"{path}: {file.name!r} must have header_size and header_digest if it is a data file, only then"
            )
        if has_header and not 8 <= file.header_size <= file.size:  # type: ignore[operator]
            raise FormatError(f"{path}: header_size of {file.name!r} is outside of the file")


def check_entry(manifest: Manifest, entry: Entry, path: str) -> None:
    """Check that one variable is well-formed and that its chunks lie where they may.

    Raises:
        FormatError: it is not; the message names the variable.
    """
    name, shape = entry.name, entry.shape

    def problem(text: str) -> FormatError:
        return FormatError(f"{path}: variable {name[:100]!r}: {text}")

    itemsize = ITEMSIZE.get(entry.dtype)
    if itemsize is None:
        raise problem(f"unknown dtype {entry.dtype[:40]!r}")
    if reason := name_problem(name):
        raise problem(reason)
    if len(shape) > MAX_DIMENSIONS:
        raise problem(f"{len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    if is_too_large(shape, itemsize):
        raise problem("a shape that no array can have")
    if not entry.chunks:
        raise problem("it has no chunk")
    parameter = entry.kind == "parameter"
    for chunk in entry.chunks:
        if chunk.file >= len(manifest.files) or manifest.files[chunk.file].header_size is None:
            raise problem(f"file {chunk.file} is not a data file of this checkpoint")
        file = manifest.files[chunk.file]
        start, end = chunk.range
        if not file.header_size <= start <= end <= file.size:  # type: ignore[operator]
            raise problem(f"range {start}..{end} is outside of the data of {file.name} (up to {file.size})")
        if layout.is_parameter_file(file.name) != parameter:
            raise problem(f"a {entry.kind} must not stand in {file.name}")
        if (chunk.offset is None) != (chunk.shape is None):
            raise problem("a chunk must have both offset and shape or neither")
        if chunk.shape is not None and len(chunk.shape) != len(shape):
            raise problem(f"a chunk has {len(chunk.shape)} dimensions, the variable has {len(shape)}")
        if end - start != math.prod(shape if chunk.shape is None else chunk.shape) * itemsize:
            raise problem(f"range {start}..{end} does not fit shape and dtype")
        if len(chunk.blocks) != block_count(end - start):
            raise problem(f"{len(chunk.blocks)} block digests for {end - start} bytes")
    if (len(entry.chunks) > 1 or entry.chunks[0].offset is not None) and (
        reason := boxes_problem(shape, [chunk.box(shape) for chunk in entry.chunks])
    ):
        raise problem(reason)


def _is_plain_and_sound(
    entry: Entry, data_files: dict[int, tuple[int, int, bool]], sizes: dict[tuple[str, tuple[int, ...]], int]
) -> bool:
    """Whether `check_entry` would pass a variable in one chunk, at a third of the time; False leaves the verdict to it.

    `sizes` remembers what an array of a dtype and shape takes: among 100,000 variables few are different.
    """
    name, shape, chunks = entry.name, entry.shape, entry.chunks
    if len(chunks) != 1 or len(shape) > MAX_DIMENSIONS:
        return False
    (chunk,) = chunks
    nbytes = sizes.get((entry.dtype, shape))
    if nbytes is None:
        itemsize = ITEMSIZE.get(entry.dtype, -1)
        nbytes = math.prod(shape) * itemsize
        if nbytes == 0 and is_too_large(shape, itemsize):
            nbytes = -1
        sizes[entry.dtype, shape] = nbytes
    start, end = chunk.range
    header_size, size, parameters = data_files.get(chunk.file, (1, 0, False))
    return (
        header_size <= start <= end <= size
        and end - start == nbytes
        and chunk.offset is None
        and chunk.shape is None
        and len(chunk.blocks) == -(-nbytes // BLOCK_BYTES)
        and parameters == (entry.kind == "parameter")
        and name.isascii()
        and 0 < len(name) <= MAX_NAME_BYTES
        and "\0" not in name
        and name != "__metadata__"
    )


def name_problem(name: str) -> str | None:
    """Why no variable can have this name; None if one can."""
    if not name or name == "__metadata__" or "\0" in name:
        return "names must not be empty, hold NUL or be __metadata__"
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        return "the name is not valid Unicode"
    return f"the name has {size} bytes; at most {MAX_NAME_BYTES} are allowed" if size > MAX_NAME_BYTES else None


E = TypeVar("E", Entry, UnreadEntry)


def by_name(variables: Sequence[E], path: str) -> dict[str, E]:
    """The variables by name.

    Raises:
        FormatError: two have the same name.
    """
    found = {entry.name: entry for entry in variables}
    if len(found) != len(variables):
        seen: set[str] = set()
        twice = next(e.name for e in variables if e.name in seen or seen.add(e.name))  # type: ignore[func-returns-value]
        raise FormatError(f"{path} lists the variable {twice[:100]!r} twice")
    return found


def _check_aliases(aliases: Mapping[str, str], held: Mapping[str, Entry], path: str) -> None:
    for alias, first in aliases.items():
        reason = name_problem(alias)
        if alias in held:
            reason = "it is a variable of its own"
        elif first not in held:
            reason = f"there is no variable {first[:100]!r}"
        if reason:
            raise FormatError(f"{path}: {alias[:100]!r} cannot be a second name: {reason}")


def placed(manifest: Manifest) -> list[list[tuple[int, int, Entry, Chunk]]]:
    """For every file, its chunks as (start, end, variable, chunk), in the order of their position."""
    files: list[list[tuple[int, int, Entry, Chunk]]] = [[] for _ in manifest.files]
    for entry in manifest.variables:
        for chunk in entry.chunks:
            files[chunk.file].append((*chunk.range, entry, chunk))
    for chunks in files:
        chunks.sort(key=lambda c: c[:2])
    return files


def check(manifest: Manifest, path: str) -> None:
    """Check everything that can be checked without reading a data file.

    Raises:
        FormatError: a variable is malformed or listed twice, chunks overlap or leave holes, kinds share a file; a second name
            is of no variable, or is one's own.
    """
    _check_aliases(manifest.aliases, by_name(manifest.variables, path), path)
    data_files = {
        i: (f.header_size, f.size, layout.is_parameter_file(f.name))
        for i, f in enumerate(manifest.files)
        if f.header_size is not None
    }
    sizes: dict[tuple[str, tuple[int, ...]], int] = {}
    for entry in manifest.variables:
        if not _is_plain_and_sound(entry, data_files, sizes):
            check_entry(manifest, entry, path)
    for file, chunks in zip(manifest.files, placed(manifest), strict=True):
        if file.header_size is None:
            continue
        end = file.header_size
        for start, stop, entry, _ in chunks:
            if start != end:
                what = "overlaps another variable" if start < end else f"leaves a hole of {start - end} bytes before it"
                raise FormatError(f"{path}: variable {entry.name!r} {what} in {file.name}")
            end = stop
        if end != file.size:
            raise FormatError(f"{path}: {file.name} has {file.size - end} bytes that belong to no variable")
        if layout.is_parameter_file(file.name) and len({entry.trainable for _, _, entry, _ in chunks}) > 1:
            raise FormatError(f"{path}: {file.name} mixes trainable and frozen parameters")
