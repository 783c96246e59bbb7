"""What a file or folder of another library holds, and the names of nested parts. Knows no library and no format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.format.values import UnsupportedValueError, encode
from holdfast.interop import optimizers
from holdfast.interop.optimizers import Optimizer

_MAX_DEPTH = 64
_TEXT = 64  # characters that names may have in all, per byte of the file
_GROUPS = re.compile(r"(?P<before>(?:.*?\.)?)param_groups(?:\.|\Z)", re.DOTALL)
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of an array that has no form here, and why: nothing is read where there is one."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """In place of what is neither an array nor a plain value, and what it is."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What was found.

    Attributes:
        arrays: by name; some may share memory.
        others: names of those that are no parameters.
        left_out: what is neither an array nor a plain value, for people.
        values: the largest parts without any array, by name: None, bool, int, float, str, and lists, tuples and dicts of them.
        optimizers: those of PyTorch; their arrays and values are among the others too, under numbers.
        notes: what people should know besides.
    """

    arrays: dict[str, np.ndarray]
    others: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    optimizers: list[Optimizer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(
    tree: Any, most: int, where: str, *, array_of: Callable[[Any], np.ndarray | Refused | None] | None = None
) -> Held:
    """Names for the arrays and values of nested dicts, lists and tuples: the keys on the way, joined with `.`.

    Args:
        tree: what was made of a file.
        most: of leaves and containers: a few bytes can make parts that refer to each other without end.
        where: the file, for messages.
        array_of: a leaf as an array, or as what cannot be held; None if it is neither. Left out: arrays of NumPy are arrays.

    Raises:
        FormatError: two parts get the same name, or there are too many.
        UnsupportedVariableError: arrays cannot be held; all of them.
    """
    found = _Collector(most, where, array_of or (lambda leaf: leaf if isinstance(leaf, np.ndarray | Refused) else None))
    if not found.walk(tree):
        found.values = {str(key): item for key, item in tree.items()} if isinstance(tree, Mapping) else {"value": tree}
    if found.refused:
        raise UnsupportedVariableError(found.refused, f"{where} holds what no checkpoint can hold")
    return found.held()


class _Collector:
    # Names are put together only for what is kept: below a long key there may be a million small things.
    def __init__(self, most: int, where: str, array_of: Callable[[Any], np.ndarray | Refused | None]) -> None:
        self._left, self._where, self._array_of = most, where, array_of
        self._text = _TEXT * most + (1 << 24)
        self._way: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.values: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self._left_out: list[str] = []
        self._optimizers: list[Optimizer] = []

    def walk(self, node: Any) -> bool:
        """Collect what is below a node; False if that is a value as a whole, which the caller then adds."""
        self._left -= 1
        if self._left < 0 or len(self._way) > _MAX_DEPTH:
            raise FormatError(f"{self._where}: its parts refer to each other without end")
        array = self._array_of(node)
        if array is not None:
            name = self._new(self._name() or "tensor")
            if isinstance(array, Refused):
                self.refused[name] = array.reason
            else:
                self.arrays[name] = array
            return True
        inside: list[tuple[Any, Any]] = []
        if isinstance(node, Mapping):
            inside = list(node.items())
        elif isinstance(node, list | tuple):
            inside = list(enumerate(node))
        live = []
        for key, item in inside:
            self._way.append(key)
            live.append(self.walk(item))
            self._way.pop()
        if (optimizer := optimizers.found(node)) is not None:
            self._optimizers.append(replace(optimizer, name=self._name()))
        if not any(live):
            return False
        for (key, item), holds in zip(inside, live, strict=True):
            if not holds:
                self.values[self._new(self._name(key))] = item
        return True

    def _name(self, *last: Any) -> str:
        return ".".join(map(str, (*self._way, *last)))

    def _new(self, name: str) -> str:
        self._text -= len(name)
        if self._text < 0:
            raise FormatError(f"{self._where}: its names are longer than all that it holds")
        if name in self.arrays or name in self.refused or name in self.values:
            raise FormatError(f"{self._where}: two parts have the name {name[:200]!r}")
        return name

    def held(self) -> Held:
        """What was found, once everything was walked."""
        values = {}
        for name, value in self.values.items():
            self._way = [name]
            if (plain := self._plain(value)) is not _NOTHING:
                values[name] = plain
        return Held(self.arrays, of_optimizers(self.arrays, values), self._left_out, values, self._optimizers)

    def _plain(self, node: Any) -> Any:
        """A value as typed JSON can hold it, without what it cannot hold; `_NOTHING` if nothing is left."""
        if isinstance(node, Mapping):
            made = {}
            for key, item in node.items():
                self._way.append(key)
                if isinstance(_checked(key), LeftOut):
                    self._leave_out("its key is no text or number")
                elif (plain := self._plain(item)) is not _NOTHING:
                    made[key] = plain
                self._way.pop()
            return made if made or not node else _NOTHING
        if type(node) is list or type(node) is tuple:
            before, parts = len(self._left_out), []
            for number, item in enumerate(node):
                self._way.append(number)
                parts.append(self._plain(item))
                self._way.pop()
            if len(self._left_out) == before:
                return type(node)(parts)
            inner = self._left_out[before].removeprefix("value ").rpartition("because of ")[2]
            del self._left_out[before:]  # a list without one of its parts would be another list
            self._left_out.append(f"value {self._name()}, because of {inner}")
            return _NOTHING
        checked = _checked(node)
        if isinstance(checked, LeftOut):
            self._leave_out(checked.reason)
            return _NOTHING
        return checked

    def _leave_out(self, reason: str) -> None:
        what = f"value {self._name()}: {reason}"
        self._text -= len(what)
        if self._text < 0:
            raise FormatError(f"{self._where}: its names are longer than all that it holds")
        self._left_out.append(what)


def _checked(leaf: Any) -> Any:
    """A leaf or a key, if typed JSON can hold it."""
    if isinstance(leaf, LeftOut):
        return leaf
    try:
        encode(leaf)
    except UnsupportedValueError:
        return LeftOut(f"{type(leaf).__qualname__} is no plain value")
    return leaf


def of_optimizers(names: Iterable[str], values: Iterable[str]) -> set[str]:
    """Those of the names that belong to an optimizer of PyTorch: its dict has `state` and `param_groups`, and nothing else does."""
    arrays = list(names)
    found = {match["before"] for name in (*arrays, *values) if (match := _GROUPS.match(name))}
    if not found:
        return set()
    beginning = tuple(before + part for before in found for part in ("state.", "param_groups."))
    return {name for name in arrays if name.startswith(beginning)}
