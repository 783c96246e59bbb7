"""Protobuf's wire format: fields in, fields out. Knows no message; `program_desc.py` has the schema.

Strict where a writer has no choice (lengths, varints of at most 64 bits in their shortest form), so that whatever is read
is written again as the same bytes.

Source: the protobuf encoding documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from holdfast.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}


def signed(value: int) -> int:
    """A varint as a signed integer of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def put_varint(value: int) -> bytes:
    """A varint; negative numbers take ten bytes."""
    value &= (1 << 64) - 1
    if value < 0x80:
        return bytes((value,))
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def put_field(number: int, kind: int, content: bytes | int) -> bytes:
    """A field with its tag; `content` is a varint's value, or bytes."""
    tag = put_varint(number << 3 | kind)
    if isinstance(content, int):
        return tag + put_varint(content)
    return tag + put_varint(len(content)) + content if kind == BYTES else tag + content


def put_float(value: float) -> bytes:
    """A float of 32 bits."""
    return struct.pack("<f", value)


def get_float(data: bytes) -> float:
    """A float of 32 bits."""
    value: float = struct.unpack("<f", data)[0]
    return value


def varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """A varint at a place, and the place behind it."""
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            if byte == 0 and shift:
                raise FormatError(f"{where}: a number at byte {at} is not in its shortest form")
            return value, position + 1
        shift += 7
    raise FormatError(f"{where}: the number at byte {at} is cut off or has more than 64 bits")


def fields(data: bytes, where: str) -> Iterator[tuple[int, int, int | bytes, int, int]]:
    """The fields of a message: number, wire type, value (an int for varints, else bytes), and where it begins and ends."""
    at = 0
    while at < len(data):
        start = at
        tag, at = varint(data, at, where)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise FormatError(f"{where}: byte {start} begins no field: {number} is no field number")
        value: int | bytes
        if kind == VARINT:
            value, at = varint(data, at, where)
        else:
            if kind == BYTES:
                length, at = varint(data, at, where)
            elif kind in _WIDTH:
                length = _WIDTH[kind]
            else:
                raise FormatError(f"{where}: field {number} at byte {start} has wire type {kind}, which no field has")
            if length > len(data) - at:
                raise FormatError(
                    f"{where}: field {number} is cut off: it takes bytes {at} to {at + length} of {len(data)}"
                )
            value = data[at : at + length]
            at += length
        yield number, kind, value, start, at
