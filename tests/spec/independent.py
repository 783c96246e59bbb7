"""An independent reader and writer of the Holdfast format, made from docs/format.md alone.

Nothing here imports Holdfast. Only the standard library, xxhash, numpy and ml_dtypes are used: where this module and
the library disagree, one of them (or the specification) is wrong. It works on whole files in memory (`Files`, a
mapping of file name to bytes), so the hostile corpus can be made from it without a disk. Numbers such as "2.3.2" in
messages are the sections and rules of docs/format.md.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spec.typed import DTYPES, TAGS, compact, decode, digest, encode, is_shape, parse_json, require

Array = npt.NDArray[Any]
Files = dict[str, bytes]

BLOCK = 8_388_608
MAX_HEADER = 100_000_000
LEVELS = 64

_DIGITS = re.compile(r"[0-9a-f]{32}\Z")
_PREFIX = b'{"digest":"xxh3-128:'
_SHARD = re.compile(r"(model|state)-([0-9]{5,})-of-([0-9]{5,})\.safetensors\Z")
_TRAINER = re.compile(r"trainer_(0|[1-9][0-9]*)\.json\Z")


# --- safetensors (section 3) ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header; `start` and `end` count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_safetensors(data: bytes) -> tuple[int, dict[str, Tensor]]:
    """Header size (8 + N) and the tensors of a data file, every rule of section 3 checked."""
    require(len(data) >= 8, "3", "no header length")
    (length,) = struct.unpack_from("<Q", data)
    require(length <= MAX_HEADER and 8 + length <= len(data), "3", f"header length {length}")
    header = parse_json(data[8 : 8 + length])
    require(isinstance(header, dict), "3", "the header is no object")
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            # Ignored (3.3), but it must be what safetensors demands: "What that format demands holds here too".
            require(isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values()), "3", "__metadata__")
            continue
        require(isinstance(entry, dict), "3", f"{name}: no object")
        require({"dtype", "shape", "data_offsets"} <= entry.keys(), "3", f"{name}: a field is missing")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        require(isinstance(dtype, str) and dtype in DTYPES, "3", f"{name}: dtype {dtype!r}")
        require(is_shape(shape), "3", f"{name}: shape")
        require(is_shape(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1], "3", f"{name}: data_offsets")
        require(offsets[1] - offsets[0] == math.prod(shape) * DTYPES[dtype].itemsize, "3", f"{name}: wrong length")
        tensors[name] = Tensor(name, dtype, tuple(shape), 8 + length + offsets[0], 8 + length + offsets[1])
    position = 8 + length
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        require(tensor.start == position, "3", f"{tensor.name}: hole or overlap at byte {position}")
        position = tensor.end
    require(position == len(data), "3", f"data ends at {position}, the file at {len(data)}")
    return 8 + length, tensors


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpecVariable:
    """A variable as the manifest declares it, with its values."""

    name: str
    kind: str
    trainable: bool
    array: Array = field(compare=False)

    @property
    def dtype(self) -> str:
        """The name of section 3."""
        return TAGS[self.array.dtype]


@dataclass(frozen=True)
class SpecCheckpoint:
    """Everything that a checkpoint folder says."""

    manifest: dict[str, Any]
    variables: dict[str, SpecVariable]
    trainers: dict[int, dict[str, Any]]


def read_folder(folder: str | Path) -> Files:
    """The regular files of a folder; nothing else, and nothing behind a symbolic link (rule 1.2)."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file() and not path.is_symlink()}


def read_manifest(data: bytes) -> dict[str, Any]:
    """The manifest of section 2, its own digest and the type of every field checked."""
    require(data[:20] == _PREFIX, "2", "the file does not begin as it must")
    stated = data[20:52].decode("ascii", "replace")
    require(_DIGITS.match(stated) is not None and data[52:54] == b'",', "2", "no digest")
    require(stated == digest(data[52:]), "2", "the digest is wrong")
    manifest = parse_json(data, LEVELS)
    require(isinstance(manifest, dict), "2", "no object")
    _fields(manifest, "manifest", _MANIFEST_FIELDS)
    require(manifest["format"] == "holdfast", "2", "format")
    require(len(manifest["version"]) == 2, "2", "version")
    require(manifest["version"][0] == 1, "2.2", "greater major version")
    require(manifest["content"] in ("checkpoint", "params", "variables"), "2", "content")
    require(manifest["world_size"] >= 1, "2", "world_size")
    for key, value in manifest["metrics"].items():
        require(type(value) in (int, float), "2", f"metric {key}")
    _check_aliases(manifest)
    return manifest


def _check_aliases(manifest: Mapping[str, Any]) -> None:
    aliases = manifest.get("aliases", {})
    require(isinstance(aliases, dict), "2", "aliases")
    names = {v["name"] for v in manifest["variables"] if isinstance(v, dict) and _is_string(v.get("name"))}
    for second, first in aliases.items():
        require(_is_name(second) and second != "__metadata__", "2.4", f"second name {second!r}")
        require(second not in names, "2.4", f"second name {second!r} is a variable")
        require(_is_string(first) and first in names, "2.4", f"second name {second!r} of no variable")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: str) -> bool:
    try:
        return 1 <= len(value.encode()) <= 4096 and "\0" not in value
    except UnicodeEncodeError:  # half a surrogate pair is JSON, and no UTF-8
        return False


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGITS.match(value) is not None


_MANIFEST_FIELDS: dict[str, Callable[[Any], bool]] = {
    "digest": _is_string,
    "format": _is_string,
    "version": is_shape,
    "content": _is_string,
    "serial": lambda value: value is None or _is_count(value),
    "step": lambda value: value is None or _is_count(value),
    "created": _is_string,
    "writer": _is_string,
    "attempt": _is_string,
    "world_size": _is_count,
    "metrics": lambda value: isinstance(value, dict),
    "files": lambda value: isinstance(value, list),
    "variables": lambda value: isinstance(value, list),
}
_FILE_FIELDS: dict[str, Callable[[Any], bool]] = {"name": _is_string, "size": _is_count, "digest": _is_digest}
_DATA_FILE_FIELDS: dict[str, Callable[[Any], bool]] = {"header_size": _is_count, "header_digest": _is_digest}
_VARIABLE_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and _is_name(value),
    "kind": lambda value: value in ("parameter", "persistable"),
    "trainable": lambda value: isinstance(value, bool),
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "shape": lambda value: is_shape(value) and len(value) <= 64,
    "chunks": lambda value: isinstance(value, list) and len(value) >= 1,
}
_CHUNK_FIELDS: dict[str, Callable[[Any], bool]] = {
    "file": _is_count,
    "range": lambda value: is_shape(value) and len(value) == 2 and value[0] <= value[1],
    "blocks": lambda value: isinstance(value, list) and all(map(_is_digest, value)),
}


def _fields(value: Any, where: str, fields: Mapping[str, Callable[[Any], bool]]) -> None:
    require(isinstance(value, dict), "2", f"{where}: no object")
    for name, accepts in fields.items():
        require(name in value, "2.1", f"{where}: field {name!r} is missing")
        require(accepts(value[name]), "2", f"{where}: field {name!r} is {str(value[name])[:60]!r}")


@dataclass(frozen=True)
class _Chunk:
    """One chunk of the manifest with what it inherits from its variable."""

    label: str  # its name in the safetensors header (2.3.4)
    dtype: str
    kind: str
    trainable: bool
    file: int
    start: int
    end: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    blocks: tuple[str, ...]


def _read_chunks(variable: Mapping[str, Any]) -> list[_Chunk]:
    name, shape, chunks = variable["name"], tuple(variable["shape"]), []
    for chunk in variable["chunks"]:
        _fields(chunk, name, _CHUNK_FIELDS)
        require(("offset" in chunk) == ("shape" in chunk), "2.3", f"{name}: offset and shape: both or neither")
        offset, box, label = (0,) * len(shape), shape, name
        if "offset" in chunk:
            require(is_shape(chunk["offset"]) and is_shape(chunk["shape"]), "2.3", f"{name}: box")
            offset, box = tuple(chunk["offset"]), tuple(chunk["shape"])
            require(len(offset) == len(box) == len(shape), "2.3", f"{name}: box of other rank")
            require(box != shape, "2.3", f"{name}: the whole variable as a box")
            require(
                all(at + size <= whole for at, size, whole in zip(offset, box, shape, strict=True)),
                "2.3",
                f"{name}: box outside of the variable",
            )
            label = f"{name}@{','.join(map(str, offset))}"
        start, end = chunk["range"]
        require(end - start == math.prod(box) * DTYPES[variable["dtype"]].itemsize, "2.3.1", f"{name}: range")
        require(len(chunk["blocks"]) == -(-(end - start) // BLOCK), "2.3.3", f"{name}: number of blocks")
        kind, trainable = variable["kind"], variable["trainable"]
        blocks = tuple(chunk["blocks"])
        chunks.append(_Chunk(label, variable["dtype"], kind, trainable, chunk["file"], start, end, offset, box, blocks))
    covered = sum(math.prod(chunk.shape) for chunk in chunks)
    require(covered == math.prod(shape), "2.3", f"{name}: boxes do not cover it")
    if len(chunks) > 1:
        # Clear rather than quick: as many boxes as elements were counted, so none may be met twice.
        met = np.zeros(shape, bool)
        for chunk in chunks:
            box = tuple(slice(at, at + size) for at, size in zip(chunk.offset, chunk.shape, strict=True))
            require(not met[box].any(), "2.3", f"{name}: boxes overlap")
            met[box] = True
    return chunks


def _check_names(names: Sequence[str]) -> None:
    require(len(set(names)) == len(names), "2.1", "a file is listed twice")
    for name in names:
        known = name in ("model.safetensors", "model.safetensors.index.json")
        require(known or bool(_SHARD.match(name) or _TRAINER.match(name)), "2.1", f"file name {name[:60]!r}")


def _check_file(entry: Mapping[str, Any], data: bytes, chunks: Sequence[_Chunk]) -> None:
    name = entry["name"]
    require(len(data) == entry["size"], "1.2", f"{name}: {len(data)} bytes, {entry['size']} listed")
    if name.endswith(".json"):
        require(digest(data) == entry["digest"], "2.1", f"{name}: digest")
        require(not chunks, "2.3", f"{name}: a chunk in a JSON file")
        return
    _fields(entry, name, _DATA_FILE_FIELDS)
    header_size, tensors = parse_safetensors(data)
    require(header_size == entry["header_size"], "2.1", f"{name}: header_size")
    require(digest(data[:header_size]) == entry["header_digest"], "2.1", f"{name}: header_digest")
    position, digests = header_size, [entry["header_digest"]]
    for chunk in sorted(chunks, key=lambda chunk: (chunk.start, chunk.end)):
        require(chunk.start == position, "2.3.2", f"{name}: hole or overlap at {position}")
        position = chunk.end
        tensor = Tensor(chunk.label, chunk.dtype, chunk.shape, chunk.start, chunk.end)
        require(tensors.pop(chunk.label, None) == tensor, "3.4", f"{chunk.label}: header and manifest differ")
        for number, stated in enumerate(chunk.blocks):
            start = chunk.start + number * BLOCK
            block = data[start : min(start + BLOCK, chunk.end)]
            require(digest(block) == stated, "2.3", f"{chunk.label}: digest of block {number}")
        digests += chunk.blocks
    require(position == entry["size"], "2.3.2", f"{name}: chunks end at {position}")
    require(not tensors, "3.4", f"{name}: not in the manifest: {sorted(tensors)}")
    require(digest(*map(bytes.fromhex, digests)) == entry["digest"], "2.1", f"{name}: digest")
    for chunk in chunks:
        require(name.startswith("model" if chunk.kind == "parameter" else "state-"), "2.2", f"{chunk.label} in {name}")
    if name.startswith("model"):
        require(len({chunk.trainable for chunk in chunks}) <= 1, "2.2", f"{name}: frozen beside trainable")


def _check_index(index: Any, manifest: Mapping[str, Any]) -> None:
    names = [entry["name"] for entry in manifest["files"]]
    total, weight_map = 0, {}
    for variable in manifest["variables"]:
        for chunk in variable["chunks"]:
            if names[chunk["file"]].startswith("model"):
                total += chunk["range"][1] - chunk["range"][0]
                label = variable["name"]
                if "offset" in chunk:
                    label += "@" + ",".join(map(str, chunk["offset"]))
                weight_map[label] = names[chunk["file"]]
    require(index == {"metadata": {"total_size": total}, "weight_map": weight_map}, "4", "the index is wrong")


def _read_trainer(data: bytes, number: int) -> dict[str, Any]:
    trainer = parse_json(data)
    require(isinstance(trainer, dict), "5", "no object")
    for name in ("format", "version", "trainer_id", "trainer_args", "values"):
        require(name in trainer, "5", f"field {name!r} is missing")
    version, trainer_id = trainer["version"], trainer["trainer_id"]
    require(trainer["format"] == "holdfast-trainer", "5", "format")
    require(is_shape(version) and len(version) == 2 and version[0] == 1, "7", "version")
    require(type(trainer_id) is int and trainer_id == number, "5", "trainer_id")
    require(isinstance(trainer["values"], dict), "5", "values")
    trainer["trainer_args"] = decode(trainer["trainer_args"])
    trainer["values"] = {name: decode(value) for name, value in trainer["values"].items()}
    return dict(trainer)


def check_writer(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """The rules that only a writer has to keep: a reader accepts a file that breaks them.

    Raises:
        SpecError: a rule is broken; the message begins with its number.
    """
    created = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    require(created.fullmatch(manifest["created"]) is not None, "2", "created")
    require(re.fullmatch(r"[0-9a-f]{16}", manifest["attempt"]) is not None, "2", "attempt")
    names = [entry["name"] for entry in manifest["files"]]
    shards: dict[str, list[tuple[int, int]]] = {"model": [], "state": []}
    for name in names:
        if match := _SHARD.match(name):
            shards[match[1]].append((int(match[2]), int(match[3])))
    for numbers in shards.values():
        expected = [(number, len(numbers)) for number in range(1, len(numbers) + 1)]
        require(sorted(numbers) == expected, "1", f"the shards are numbered {sorted(numbers)}")
    require(not (shards["model"] and "model.safetensors" in names), "1", "model.safetensors beside shards")
    require(bool(shards["model"]) == ("model.safetensors.index.json" in names), "4", "index and shards")
    order = [min((chunk["file"], *chunk["range"]) for chunk in v["chunks"]) for v in manifest["variables"]]
    require(order == sorted(order), "2", "variables are not ordered by file and position")
    for variable in manifest["variables"]:
        for chunk in variable["chunks"]:
            itemsize = DTYPES[variable["dtype"]].itemsize
            require(chunk["range"][0] % itemsize == 0, "3.2", f"{variable['name']}: not aligned")
    for entry in manifest["files"]:
        if not entry["name"].endswith(".safetensors"):
            continue
        require(entry["header_size"] % 4096 == 0, "3.1", f"{entry['name']}: header of {entry['header_size']} bytes")
        header = parse_json(files[entry["name"]][8 : entry["header_size"]])
        require(header.get("__metadata__") == {"format": "pt"}, "3.3", f"{entry['name']}: __metadata__")
    if "model.safetensors.index.json" in names:
        _check_index(parse_json(files["model.safetensors.index.json"]), manifest)
    trainers = sorted(int(match[1]) for name in names if (match := _TRAINER.match(name)))
    expected = list(range(manifest["world_size"])) if manifest["content"] == "checkpoint" else []
    require(trainers == expected, "5", f"trainers {trainers}")
    if "aliases" in manifest:
        require(manifest["content"] != "checkpoint" and manifest["aliases"], "2", "aliases that should be left out")
    require(set(files) - {"pinned"} == {"manifest.json", *names}, "1", "a file that is not listed")


def read_checkpoint(files: Mapping[str, bytes], *, writer: bool = False) -> SpecCheckpoint:
    """Every variable and value of a checkpoint, with every rule of docs/format.md checked.

    Args:
        files: name to bytes of all regular files of the folder.
        writer: Check the rules that only a writer has to keep as well.

    Raises:
        SpecError: A rule is broken; the message begins with its number.
    """
    require("manifest.json" in files, "1.2", "no manifest.json")
    manifest = read_manifest(files["manifest.json"])
    for entry in manifest["files"]:
        _fields(entry, "files", _FILE_FIELDS)
    names = [entry["name"] for entry in manifest["files"]]
    _check_names(names)
    by_file: list[list[_Chunk]] = [[] for _ in names]
    chunks: dict[str, list[_Chunk]] = {}
    for variable in manifest["variables"]:
        _fields(variable, "variables", _VARIABLE_FIELDS)
        name = variable["name"]
        require(name not in chunks and name != "__metadata__", "2.2", f"variable name {name!r}")
        chunks[name] = _read_chunks(variable)
        for chunk in chunks[name]:
            require(chunk.file < len(names), "2.3", f"{name}: file {chunk.file}")
            by_file[chunk.file].append(chunk)
    for entry, members in zip(manifest["files"], by_file, strict=True):
        require(entry["name"] in files, "1.2", f"{entry['name']} is missing")
        _check_file(entry, files[entry["name"]], members)
    if writer:
        check_writer(manifest, files)
    trainers = {}
    for name in names:
        if match := _TRAINER.match(name):
            trainers[int(match[1])] = _read_trainer(files[name], int(match[1]))
    variables = {}
    for variable in manifest["variables"]:
        array = np.zeros(variable["shape"], DTYPES[variable["dtype"]])
        for chunk in chunks[variable["name"]]:
            data = files[names[chunk.file]][chunk.start : chunk.end]
            box = tuple(slice(at, at + size) for at, size in zip(chunk.offset, chunk.shape, strict=True))
            array[box] = np.frombuffer(data, array.dtype).reshape(chunk.shape)
        variables[variable["name"]] = SpecVariable(variable["name"], variable["kind"], variable["trainable"], array)
    return SpecCheckpoint(manifest, variables, trainers)


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A variable, or (with `offset` and `shape`) a box of it, to stand in a file."""

    name: str
    offset: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


def seal(body: bytes) -> bytes:
    """manifest.json from its body, which begins with the two bytes `\",`."""
    return _PREFIX + digest(body).encode() + body


def seal_manifest(manifest: Mapping[str, Any], dumps: Callable[[object], str] = compact) -> bytes:
    """manifest.json of these fields with the right digest; a field `digest` among them is left out."""
    text = dumps({key: value for key, value in manifest.items() if key != "digest"})
    # The object's own brace is replaced: '{"format":…}' becomes '",' + '"format":…}'.
    return seal(b'",' + text[text.index("{") + 1 :].encode("utf-8", "surrogatepass"))


def _header(entries: Mapping[str, Any], dumps: Callable[[object], str], align: int) -> bytes:
    text = dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % align)
    return struct.pack("<Q", len(text)) + text


def data_file(
    pieces: Sequence[tuple[str, str, tuple[int, ...], bytes]],
    *,
    dumps: Callable[[object], str] = compact,
    align: int = 4096,
) -> bytes:
    """A safetensors file of (label, dtype, shape, bytes), in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for label, dtype, shape, data in pieces:
        entries[label] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
    return _header(entries, dumps, align) + b"".join(data for *_, data in pieces)


def _cut(array: Array, piece: Piece) -> tuple[tuple[int, ...], bytes]:
    if piece.offset is None or piece.shape is None:
        return array.shape, np.ascontiguousarray(array).tobytes()
    box = tuple(slice(at, at + size) for at, size in zip(piece.offset, piece.shape, strict=True))
    return piece.shape, np.ascontiguousarray(array[box]).tobytes()


def _blocks(data: bytes | memoryview) -> list[str]:
    return [digest(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]


def build_checkpoint(
    variables: Sequence[SpecVariable],
    placement: Mapping[str, Sequence[Piece | str]],
    *,
    trainers: Sequence[tuple[Any, Mapping[str, Any]]] = ((None, {}),),
    dumps: Callable[[object], str] = compact,
    align: int = 4096,
    **fields: Any,
) -> Files:
    """All files of a checkpoint, in memory.

    Args:
        variables: What to save.
        placement: File name to its pieces in their order; a string is the whole variable.
        trainers: (trainer_args, values) of each trainer.
        dumps: How JSON is written.
        align: The headers are padded to a multiple of it.
        fields: Fields of the manifest that replace the usual ones, or are added.
    """
    arrays = {variable.name: variable for variable in variables}
    files: Files = {}
    entries: list[dict[str, Any]] = []
    chunks: dict[str, list[dict[str, Any]]] = {}
    for number, (name, members) in enumerate(placement.items()):
        parts = []
        for member in members:
            piece = Piece(member) if isinstance(member, str) else member
            shape, data = _cut(arrays[piece.name].array, piece)
            label = piece.name if piece.offset is None else f"{piece.name}@{','.join(map(str, piece.offset))}"
            parts.append((piece, label, shape, data))
        files[name] = data_file(
            [(label, arrays[piece.name].dtype, shape, data) for piece, label, shape, data in parts],
            dumps=dumps,
            align=align,
        )
        position = header_size = 8 + int.from_bytes(files[name][:8], "little")
        for piece, _, shape, data in parts:
            chunk: dict[str, Any] = {"file": number, "range": [position, position + len(data)]}
            if piece.offset is not None:
                chunk |= {"offset": list(piece.offset), "shape": list(shape)}
            chunks.setdefault(piece.name, []).append(chunk | {"blocks": _blocks(data)})
            position += len(data)
        entries.append({"name": name, "size": len(files[name]), "digest": "", "header_size": header_size})
    shards = [name for name in placement if name.startswith("model-")]
    if shards:
        weight_map, total = {}, 0
        for name in shards:
            header_size, tensors = parse_safetensors(files[name])
            weight_map |= dict.fromkeys(tensors, name)
            total += len(files[name]) - header_size
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        files["model.safetensors.index.json"] = dumps(index).encode()
    for trainer_id, (args, values) in enumerate(trainers):
        trainer = {
            "format": "holdfast-trainer",
            "version": [1, 0],
            "trainer_id": trainer_id,
            "trainer_args": encode(args),
            "values": {name: encode(value) for name, value in values.items()},
        }
        files[f"trainer_{trainer_id}.json"] = dumps(trainer).encode()
    entries += [{"name": name, "size": 0, "digest": ""} for name in files if name not in placement]
    ordered = [variable for variable in variables if variable.name in chunks]
    ordered.sort(key=lambda v: min((chunk["file"], *chunk["range"]) for chunk in chunks[v.name]))
    manifest = {
        "format": "holdfast",
        "version": [1, 0],
        "content": "checkpoint",
        "serial": 0,
        "step": None,
        "created": "2026-01-02T03:04:05Z",
        "writer": "independent 1",
        "attempt": "0123456789abcdef",
        "world_size": len(trainers),
        "metrics": {},
        "files": entries,
        "variables": [
            {
                "name": v.name,
                "kind": v.kind,
                "trainable": v.trainable,
                "dtype": v.dtype,
                "shape": list(v.array.shape),
                "chunks": chunks[v.name],
            }
            for v in ordered
        ],
        **fields,
    }
    return reseal(files, manifest, dumps=dumps)


def reseal(files: Files, manifest: dict[str, Any], *, dumps: Callable[[object], str] = compact) -> Files:
    """The files with a manifest in which every size and digest is right again for their bytes; ranges stay.

    What cannot be computed (a range outside of the file, a field of a wrong type) stays as it is: that is what the
    hostile corpus wants.
    """
    for number, entry in enumerate(manifest["files"]):
        data = files.get(entry["name"])
        if data is None:
            continue
        entry["size"] = len(data)
        if entry["name"].endswith(".json"):
            entry["digest"] = digest(data)
            continue
        entry["header_size"] = header_size = 8 + int.from_bytes(data[:8], "little")
        entry["header_digest"] = digest(data[:header_size])
        chunks = [c for v in manifest["variables"] for c in v["chunks"] if c["file"] == number]
        for chunk in chunks:
            chunk["blocks"] = _blocks(memoryview(data)[chunk["range"][0] : chunk["range"][1]])
        entry["digest"] = file_digest(entry["header_digest"], chunks)
    return files | {"manifest.json": seal_manifest(manifest, dumps)}


def file_digest(header_digest: str, chunks: Sequence[Mapping[str, Any]]) -> str:
    """The digest of a data file (2.1) from its header's and its chunks'."""
    ordered = sorted(chunks, key=lambda chunk: tuple(chunk["range"]))
    return digest(bytes.fromhex(header_digest), *(bytes.fromhex(block) for c in ordered for block in c["blocks"]))


def write_folder(files: Mapping[str, bytes], folder: str | Path) -> Path:
    """Make the folder with these files (no commit protocol: nobody else is there)."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
