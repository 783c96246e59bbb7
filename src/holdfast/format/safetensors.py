"""Safetensors headers: build, parse, validate. Pure; a file's values never pass through here.

Source: the format's README (https://github.com/huggingface/safetensors), and docs/format.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from holdfast.dtypes import ITEMSIZE
from holdfast.errors import FormatError
from holdfast.format import json

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 64
ALIGNMENT = 4096  # of the data's beginning: direct I/O needs it
MAX_EXTENT_BYTES = 2**63 - 1

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A tensor of a header; `data_offsets` count from the beginning of the data."""

    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


_encoder = msgspec.json.Encoder()
# As `format.json.decode` does it, but in two steps: one key of the object has values of another type than all others.
_decoder: msgspec.json.Decoder[dict[str, Tensor]] = msgspec.json.Decoder(dict[str, Tensor])
_raw_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_metadata_decoder: msgspec.json.Decoder[dict[str, str]] = msgspec.json.Decoder(dict[str, str])


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The bytes before the data, padded to a multiple of 4,096.

    Args:
        tensors: (name, dtype, shape, bytes) in the order of their position.

    Raises:
        FormatError: the header would be larger than the format allows.
    """
    # Tools of the Hugging Face family refuse a file whose metadata names no framework; "pt" is what all of them take.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, nbytes in tensors:
        header[name] = Tensor(dtype, shape, (end, end + nbytes))
        end += nbytes
    text = _encoder.encode(header)
    size = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT - 8
    if size > MAX_HEADER_BYTES:
        raise FormatError(f"a safetensors header of {size:,} bytes is over the format's limit of {MAX_HEADER_BYTES:,}")
    return size.to_bytes(8, "little") + text.ljust(size)


def is_too_large(shape: Iterable[int], itemsize: int) -> bool:
    """Whether no array of this shape can exist, even an empty one: NumPy multiplies the dimensions that are not 0."""
    return math.prod(n or 1 for n in shape) * itemsize > MAX_EXTENT_BYTES


def header_size(prefix: bytes, file_size: int, path: str) -> int:
    """Bytes before the data, from the first 8 bytes of a file.

    Raises:
        FormatError: no safetensors file begins like this.
    """
    length = int.from_bytes(prefix, "little")
    if len(prefix) != 8 or length > MAX_HEADER_BYTES or 8 + length > file_size:
        raise FormatError(f"{path} is not a safetensors file: it begins with a header length of {length:,} bytes")
    return 8 + length


def parse_header(header: bytes, file_size: int, path: str) -> dict[str, Tensor]:
    """The tensors of a header, in the order of their position, checked against every rule of the container.

    Args:
        header: the JSON, without the 8 bytes before it.
        file_size: of the whole file.
        path: for messages.

    Raises:
        FormatError: it breaks a rule; the message names the tensor.
    """
    text = header.rstrip(b" ")
    if not text.startswith(b"{"):
        raise FormatError(f"{path}: its header is not a JSON object")
    try:
        raw = _raw_decoder.decode(text)
        metadata = _metadata_decoder.decode(raw.pop("__metadata__")) if "__metadata__" in raw else None
        tensors = _decoder.decode(_encoder.encode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: {error}") from error
    if _encoder.encode(tensors if metadata is None else {"__metadata__": metadata, **tensors}) != text:
        json.parse(text, path)  # another writer's way to put it, or a key that stands twice
    end = 0
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].data_offsets))
    for name, tensor in tensors.items():
        start, stop = tensor.data_offsets
        if len(tensor.shape) > MAX_DIMENSIONS:  # before their product is taken: it grows with every one
            raise FormatError(f"{path}: tensor {name[:100]!r} has {len(tensor.shape)} dimensions")
        itemsize = ITEMSIZE.get(tensor.dtype)
        if itemsize is None:
            raise FormatError(f"{path}: tensor {name[:100]!r} has the unknown dtype {tensor.dtype[:40]!r}")
        if start != end or stop - start != math.prod(tensor.shape) * itemsize:
            raise FormatError(
                f"{path}: tensor {name[:100]!r} at {start}..{stop} overlaps, leaves a hole or does not fit its shape"
            )
        if start == stop and is_too_large(tensor.shape, itemsize):
            raise FormatError(f"{path}: tensor {name[:100]!r} has a shape that no array can have")
        end = stop
    if end != file_size - 8 - len(header):
        raise FormatError(f"{path}: the data has {file_size - 8 - len(header):,} bytes, the header describes {end:,}")
    return tensors
