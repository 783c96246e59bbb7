"""Checks of arguments that several public calls take."""

from __future__ import annotations

import operator
import reprlib


def whole_number(name: str, value: object) -> int:
    """An argument as an int; NumPy's integers are taken too.

    Raises:
        ValueError: it is no whole number from 0 to 2**63 - 1.
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise ValueError(f"{name} must be a whole number from 0 to 2**63 - 1, not {reprlib.repr(value)}")
    return number
