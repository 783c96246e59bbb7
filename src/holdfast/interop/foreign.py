"""What a file or folder of another library holds, and the names of nested parts. Knows no library and no format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.errors import FormatError, UnsupportedVariableError

_MAX_DEPTH = 64
_GROUPS = re.compile(r"(?P<before>(?:.*?\.)?)param_groups(?:\.|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What was found.

    Attributes:
        arrays: by name; some may share memory.
        others: names of those that are no parameters.
        left_out: what is no array, for people.
    """

    arrays: dict[str, np.ndarray]
    others: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """The leaves of a tree.

    Attributes:
        arrays: by name.
        values: names of the largest parts without any array.
    """

    arrays: dict[str, np.ndarray]
    values: list[str]


def flatten(tree: Any, array_of: Callable[[Any], np.ndarray | str | None], most: int, where: str) -> Flat:
    """Names for the arrays of nested dicts, lists and tuples: the keys on the way, joined with `.`.

    Args:
        tree: what a library made of a file.
        array_of: a leaf as an array; a text if it is one that cannot be held, and why; None if it is none.
        most: of leaves and containers: a few bytes can make parts that refer to each other without end.
        where: the file, for messages.

    Raises:
        FormatError: two parts get the same name, or there are too many.
        UnsupportedVariableError: what `array_of` said cannot be held; all of them.
    """
    flat, reasons, left = Flat({}, []), dict[str, str](), most

    def walk(node: Any, name: str, depth: int) -> bool:
        """Whether there is an array in it."""
        nonlocal left
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise FormatError(f"{where}: its parts refer to each other without end")
        found = array_of(node)
        if found is not None:
            name = name or "tensor"
            if name in flat.arrays or name in reasons:
                raise FormatError(f"{where}: two parts have the name {name!r}")
            if isinstance(found, str):
                reasons[name] = found
            else:
                flat.arrays[name] = found
            return True
        inside: Iterable[tuple[Any, Any]] = ()
        if isinstance(node, Mapping):
            inside = node.items()
        elif isinstance(node, list | tuple):
            inside = enumerate(node)
        before = len(flat.values)
        holds = False
        for key, item in inside:
            holds |= walk(item, f"{name}.{key}" if name else str(key), depth + 1)
        if not holds:
            del flat.values[before:]
            flat.values.append(name or "the whole")
        return holds

    walk(tree, "", 0)
    if reasons:
        raise UnsupportedVariableError(reasons)
    return flat


def of_optimizers(names: Iterable[str], values: Iterable[str]) -> set[str]:
    """Those of the names that belong to an optimizer of PyTorch: its dict has `state` and `param_groups`, and nothing else does."""
    arrays = list(names)
    found = {match["before"] for name in (*arrays, *values) if (match := _GROUPS.match(name))}
    if not found:
        return set()
    beginning = tuple(before + part for before in found for part in ("state.", "param_groups."))
    return {name for name in arrays if name.startswith(beginning)}
