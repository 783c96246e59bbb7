"""`paddle.compat`: what programs that ran under Python 2 and 3 used to tell text from bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

int_type = int
long_type = int


def to_text(obj: Any, encoding: str = "utf-8", inplace: bool = False) -> Any:
    """`obj` with all bytes in it decoded; lists, sets and dictionaries are gone through, others returned as they are.

    Args:
        obj: text, bytes, or a list, set or dictionary of them; None stays None.
        encoding: of the bytes.
        inplace: change the list, set or dictionary itself.
    """
    return _converted(obj, lambda value: value.decode(encoding) if isinstance(value, bytes) else value, inplace)


def to_bytes(obj: Any, encoding: str = "utf-8", inplace: bool = False) -> Any:
    """`obj` with all text in it encoded; see `to_text`."""
    return _converted(obj, lambda value: value.encode(encoding) if isinstance(value, str) else value, inplace)


def _converted(obj: Any, convert: Callable[[Any], Any], inplace: bool) -> Any:
    if isinstance(obj, list):
        items = [_converted(item, convert, inplace) for item in obj]
        if not inplace:
            return items
        obj[:] = items
        return obj
    if isinstance(obj, set):
        members = {convert(item) for item in obj}
        if not inplace:
            return members
        obj.clear()
        obj.update(members)
        return obj
    if isinstance(obj, dict):
        pairs = {convert(key): _converted(value, convert, inplace) for key, value in obj.items()}
        if not inplace:
            return pairs
        obj.clear()
        obj.update(pairs)
        return obj
    return convert(obj)


def round(x: float, d: int = 0) -> float:
    """`x` to `d` decimals, halves away from zero as in Python 2."""
    if x == 0.0 or not math.isfinite(x):
        return x
    scale = 10**d
    return math.copysign(math.floor(abs(x) * scale + 0.5) / scale, x)


def floor_division(x: float, y: float) -> float:
    """`x // y`."""
    return x // y


def get_exception_message(exc: BaseException) -> str:
    """The message of an exception."""
    return str(exc)
