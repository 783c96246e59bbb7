"""ProgramDesc as bytes: the schema of `__model__`, `model.pb` and `.pdmodel`, read and written.

Strict and bounded: wrong wire types, fields that are there twice, missing required ones, numbers out of range and absurd
sizes are errors. What Fluid wrote is written again byte for byte. A small reader and not the protobuf package, because that
would be one more dependency with generated code to keep in step, and it gives neither the bounds nor the same bytes again.

Source: Fluid's framework.proto.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from holdfast.errors import FormatError
from holdfast.interop import wire
from holdfast.interop.program_desc import (
    Attr,
    BlockDesc,
    CompatibleInfo,
    LoDTensorDesc,
    Message,
    OpCompatibleMap,
    OpCompatiblePair,
    OpDesc,
    OpVar,
    ProgramDesc,
    ReaderDesc,
    TensorDesc,
    TupleDesc,
    VarDesc,
    VarType,
    Version,
)
from holdfast.interop.source import read_all

MAX_BYTES = 256 << 20
MAX_MESSAGES = 4_000_000
"""No file of more is read: a message takes up to 40 times its bytes in memory. A network of 100 layers has some 10,000."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: str | type[Message]
    repeated: bool = False
    required: bool = False


def _one(name: str, kind: str | type[Message]) -> _Field:
    return _Field(name, kind)


def _must(name: str, kind: str | type[Message]) -> _Field:
    return _Field(name, kind, required=True)


def _many(name: str, kind: str | type[Message]) -> _Field:
    return _Field(name, kind, repeated=True)


_SCHEMA: dict[type[Message], dict[int, _Field]] = {
    Version: {1: _one("version", "int64")},
    CompatibleInfo: {1: _must("version", "string"), 2: _must("type", "int32")},
    OpCompatiblePair: {1: _must("op_name", "string"), 2: _must("compatible_info", CompatibleInfo)},
    OpCompatibleMap: {1: _many("pair", OpCompatiblePair), 2: _one("default_required_version", "string")},
    TensorDesc: {1: _must("data_type", "int32"), 2: _many("dims", "int64")},
    LoDTensorDesc: {1: _must("tensor", TensorDesc), 2: _one("lod_level", "int32")},
    ReaderDesc: {1: _many("lod_tensor", LoDTensorDesc)},
    TupleDesc: {1: _many("element_type", "int32")},
    VarType: {
        1: _must("type", "int32"),
        2: _one("selected_rows", TensorDesc),
        3: _one("lod_tensor", LoDTensorDesc),
        4: _one("tensor_array", LoDTensorDesc),
        5: _one("reader", ReaderDesc),
        7: _one("tuple", TupleDesc),
    },
    VarDesc: {
        1: _must("name", "string"),
        2: _must("type", VarType),
        3: _one("persistable", "bool"),
        4: _one("need_check_feed", "bool"),
        5: _one("is_parameter", "bool"),
        6: _one("stop_gradient", "bool"),
    },
    OpVar: {1: _must("parameter", "string"), 2: _many("arguments", "string")},
    Attr: {
        1: _must("name", "string"),
        2: _must("type", "int32"),
        3: _one("i", "int32"),
        4: _one("f", "float"),
        5: _one("s", "string"),
        6: _many("ints", "int32"),
        7: _many("floats", "float"),
        8: _many("strings", "string"),
        10: _one("b", "bool"),
        11: _many("bools", "bool"),
        12: _one("block_idx", "int32"),
        13: _one("l", "int64"),
        14: _many("blocks_idx", "int32"),
        15: _many("longs", "int64"),
    },
    OpDesc: {
        1: _many("inputs", OpVar),
        2: _many("outputs", OpVar),
        3: _must("type", "string"),
        4: _many("attrs", Attr),
        5: _one("is_target", "bool"),
    },
    BlockDesc: {
        1: _must("idx", "int32"),
        2: _must("parent_idx", "int32"),
        3: _many("vars", VarDesc),
        4: _many("ops", OpDesc),
        5: _one("forward_block_idx", "int32"),
    },
    ProgramDesc: {
        1: _many("blocks", BlockDesc),
        3: _one("op_compatible_map", OpCompatibleMap),
        4: _one("version", Version),
    },
}
_WIRE = {"int32": wire.VARINT, "int64": wire.VARINT, "bool": wire.VARINT, "float": wire.FIXED32, "string": wire.BYTES}
_RANGE = {"int32": (-(1 << 31), 1 << 31), "int64": (-(1 << 63), 1 << 63), "bool": (0, 2)}


class _Reader:
    def __init__(self, where: str) -> None:
        self._where, self._messages = where, 0

    def message(self, cls: type[Message], data: bytes) -> Any:
        self._messages += 1
        if self._messages > MAX_MESSAGES:
            raise FormatError(f"{self._where}: more than {MAX_MESSAGES:,} parts; no program has so many")
        where = f"{self._where}: {cls.__name__}"
        schema, made, unknown = _SCHEMA[cls], dict[str, Any](), bytearray()
        for number, kind, raw, start, end in wire.fields(data, where):
            field = schema.get(number)
            if field is None:
                unknown += data[start:end]
                continue
            wanted = _WIRE[field.kind] if isinstance(field.kind, str) else wire.BYTES
            if kind != wanted:
                raise FormatError(f"{where}: field {field.name!r} has wire type {kind}, expected {wanted}")
            value = self._value(field, raw, where)
            if field.repeated:
                made.setdefault(field.name, []).append(value)
            elif field.name in made:
                raise FormatError(f"{where}: field {field.name!r} is there twice")
            else:
                made[field.name] = value
        if absent := [field.name for field in schema.values() if field.required and field.name not in made]:
            raise FormatError(f"{where}: the required field {absent[0]!r} is missing")
        return cls(**made, unknown=bytes(unknown))

    def _value(self, field: _Field, raw: int | bytes, where: str) -> Any:
        if not isinstance(field.kind, str):
            assert isinstance(raw, bytes)
            return self.message(field.kind, raw)
        if isinstance(raw, bytes):
            # Not every string of Fluid's is UTF-8; such bytes are kept.
            return raw.decode("utf-8", "surrogateescape") if field.kind == "string" else wire.get_float(raw)
        value = wire.signed(raw)
        low, high = _RANGE[field.kind]
        if not low <= value < high:
            raise FormatError(f"{where}: field {field.name!r} is {value}, which is no {field.kind}")
        return bool(value) if field.kind == "bool" else value


def _written(message: Message) -> bytes:
    made = bytearray()
    for number, field in sorted(_SCHEMA[type(message)].items()):
        held = getattr(message, field.name)
        for value in held if field.repeated else () if held is None else (held,):
            made += wire.put_field(number, *_content(field.kind, value))
    return bytes(made) + message.unknown


def _content(kind: str | type[Message], value: Any) -> tuple[int, bytes | int]:
    if not isinstance(kind, str):
        return wire.BYTES, _written(value)
    if kind == "string":
        return wire.BYTES, value.encode("utf-8", "surrogateescape")
    return (wire.FIXED32, wire.put_float(value)) if kind == "float" else (wire.VARINT, int(value))


def from_bytes(data: bytes, name: str = "program") -> ProgramDesc:
    """The program in these bytes; `name` is for messages.

    Raises:
        FormatError: they are no ProgramDesc, or cut off.
    """
    program: ProgramDesc = _Reader(name).message(ProgramDesc, data)
    if not program.blocks:
        raise FormatError(f"{name} is no program: it has no block")
    return program


def to_bytes(program: ProgramDesc) -> bytes:
    """The bytes of a program, as Fluid's own protobuf writes them."""
    return _written(program)


def read_file(path: str | os.PathLike[str]) -> ProgramDesc:
    """The program in a file, such as `__model__` or `m.pdmodel`.

    Raises:
        FormatError: it is no ProgramDesc, or cut off.
        StorageError: the system refused to read.
    """
    return from_bytes(read_all(path, MAX_BYTES), os.fspath(path))
