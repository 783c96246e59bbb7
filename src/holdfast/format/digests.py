"""XXH3-128 as the format uses it: of whole byte strings, of blocks, and of a file by its parts. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

BLOCK_BYTES = 8 << 20
"""Every chunk has one digest for each begun 8 MiB, so a reader can verify a part without reading the whole."""

hexdigest = xxhash.xxh3_128_hexdigest
"""XXH3-128 of one byte string, as 32 lowercase hexadecimal digits."""

Hasher = xxhash.xxh3_128
hasher = Hasher
"""A hash object with `update` and `hexdigest`, for bytes that come in pieces."""


def block_count(nbytes: int) -> int:
    """How many block digests a chunk of `nbytes` has."""
    return -(-nbytes // BLOCK_BYTES)


def file_digest(header_digest: str, blocks: Iterable[str]) -> str:
    """The digest of a data file from those of its header and of its blocks in the order of their position.

    Empty if one of them is none: it equals no digest then.
    """
    try:
        return hexdigest(bytes.fromhex(header_digest + "".join(blocks)))
    except ValueError:
        return ""  # what is no hexadecimal number is the digest of nothing
