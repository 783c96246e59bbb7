"""A writer of pickles of protocol 2: arrays, dicts, lists, tuples, strings and numbers, under names that every NumPy knows.

Python's own pickles of arrays name `numpy._core`, which the NumPy of Fluid's time does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from holdfast.interop.pickle_parts import is_key
from holdfast.interop.pickles import DTYPES


class UnwritableError(TypeError):
    """A value that no such pickle can hold."""


def written(value: Any) -> Iterator[bytes]:
    """The pieces of a pickle of protocol 2 that every Python and NumPy since Fluid's reads.

    Raises:
        UnwritableError: the value holds something else than arrays of numbers, dicts, lists, tuples, str, int, float, bool, None.
    """
    yield b"\x80\x02"
    yield from _put_value(value)
    yield b"."


def _put_value(value: Any) -> Iterator[bytes]:
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            size = (value.bit_length() + 8) // 8
            if size > 16:
                raise UnwritableError(f"an integer of {value.bit_length():,} bits is too large for such a file")
            yield b"\x8a" + bytes((size,)) + value.to_bytes(size, "little", signed=True)
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            yield _put_text(value)
        case np.ndarray():
            yield from _put_array(value)
        case Mapping():
            yield b"}("
            for key, item in value.items():
                if not is_key(key):
                    raise UnwritableError(f"a dict has the key {str(key)[:100]}, and keys are texts and small integers")
                yield from _put_value(key)
                yield from _put_value(item)
            yield b"u"
        case list():
            yield b"]("
            for item in value:
                yield from _put_value(item)
            yield b"e"
        case tuple():
            yield b"("
            for item in value:
                yield from _put_value(item)
            yield b"t"
        case _:
            raise UnwritableError(f"a {type(value).__name__} has no place in such a file")


def _put_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) >= 1 << 32:
        raise UnwritableError(f"{len(data):,} bytes of text: protocol 2 of pickle holds at most 4 GiB in one piece")
    return b"X" + struct.pack("<I", len(data)) + data


def _put_array(array: np.ndarray) -> Iterator[bytes]:
    kind = array.dtype.str[1:]
    if kind not in DTYPES:
        raise UnwritableError(f"an array of {array.dtype} has no place in such a file")
    yield b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + _put_bytes(b"b") + b"tR("
    yield b"K\x01"
    yield from _put_value(array.shape)
    yield b"cnumpy\ndtype\n" + _put_text(kind) + b"\x89\x88\x87R("
    order = "|" if array.dtype.itemsize == 1 else "<"
    yield b"K\x03" + _put_text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    yield _put_bytes(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    yield b"tb"


def _put_bytes(data: bytes) -> bytes:
    # Protocol 2 has no bytes: Python 3 writes them as text that is encoded again. Python 2 understands that too.
    return b"c_codecs\nencode\n" + _put_text(data.decode("latin-1")) + _put_text("latin1") + b"\x86R"
