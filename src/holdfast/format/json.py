"""JSON as the format allows it: no key twice, no NaN, no number that float64 cannot hold, no bottomless nesting. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec

from holdfast.errors import FormatError

T = TypeVar("T")
MAX_DEPTH = 64


def decode(data: bytes, decoder: msgspec.json.Decoder[T], encode: Callable[[T], bytes], what: str) -> T:
    """`data` as the decoder's type; refuses what docs/format.md, section 2, has refused.

    msgspec takes the last of two equal keys without a word. What encodes again to the same bytes has none; all else,
    that is what another program wrote, goes through the slower `parse` as well.

    Raises:
        FormatError: the JSON is malformed or does not fit the type; the message names the field.
    """
    try:
        decoded = decoder.decode(data)
        same = encode(decoded) == data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise FormatError(f"{what}: {error}") from error
    if not same:
        check_depth(parse(data, what), what)
    return decoded


def check_depth(value: Any, what: str) -> None:
    """Refuse what nests deeper than `MAX_DEPTH` levels, and integers that no float64 can hold.

    Raises:
        FormatError: it does.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if any(type(item) is int and item.bit_length() > 1023 for item in level):
            raise FormatError(f"{what}: an integer is out of range")
        if not level:
            return
    raise FormatError(f"{what}: nests deeper than {MAX_DEPTH} levels")


def parse(data: bytes, what: str) -> Any:
    """`data` as Python objects; integers of any size stay integers.

    Raises:
        FormatError: the JSON is malformed, holds a key twice or a number that is not finite, or nests too deep.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FormatError(f"{what}: the key {twice[:100]!r} stands twice in one object")
        return made

    def constant(text: str) -> NoReturn:
        raise FormatError(f"{what}: {text} is not JSON")

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise FormatError(f"{what}: the number {text[:40]} is out of range")
        return value

    try:
        return json.loads(data.decode(), object_pairs_hook=pairs, parse_constant=constant, parse_float=number)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise FormatError(f"{what}: {str(error) or type(error).__name__}") from error
