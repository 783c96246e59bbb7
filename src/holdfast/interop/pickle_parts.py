"""What the machine for pickles builds, and the tree of plain values that comes of it. Pure; nothing in it is executed.

The tree is bounded: a pickle can refer to its parts again and again, and so say in a few bytes what would fill any memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import FormatError

_MAX_DEPTH = 64
_MAX_KEY = 1 << 31  # an int as a key; greater ones could be chosen to collide in a dict
_MAX_OBJECT_KEY = 1 << 63  # PyTorch before 1.6 counted parameters by their addresses; so few collide in less than 2**64
_TEXT = 64  # characters that strings may have in all, per byte of the file


class CutOffError(FormatError):
    """The bytes end before the pickle does."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What the caller allowed by name: an instance of a class, what a function gave, or the thing itself. No behaviour.

    Attributes:
        kind: the name; without the module, unless objects of any class are read.
        fields: those of an instance.
        arguments: what it is made of, where that is no fields.
    """

    kind: str
    fields: dict[str, Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Global:
    """A class, a function or a constant, by name only."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Dict:
    """A dict while it is filled."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Array:
    """An array of NumPy, once its state has come."""

    made: np.ndarray | None = None


@dataclass(slots=True, eq=False)
class DType:
    """A dtype of NumPy."""

    name: str
    order: str = "|"

    @property
    def numpy(self) -> np.dtype:
        """The dtype itself."""
        return np.dtype(("<" if self.order == "|" else self.order) + self.name)


@dataclass(slots=True, eq=False)
class Instance:
    """What becomes a Record."""

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Dict | tuple[Any, ...] | None = None
    items: list[Any] = field(default_factory=list)  # of one that is a list or a dict too


STORED = "a storage"
"""The `kind` of the Record for what a pickle says is kept outside of it; its arguments say where."""


class Finished:
    """Makes what a pickle held of what the machine built: a tree of at most as many nodes as it has bytes."""

    def __init__(
        self, bad: Callable[[str], NoReturn], size: int, names: Callable[[Global], str | None], objects: bool
    ) -> None:
        """See the class.

        Args:
            bad: raises the error for a problem.
            size: of the pickle, in bytes.
            names: the `kind` of the Record for a Global; None if it is none.
            objects: whether keys may be all that can be keys.
        """
        self._bad, self._left, self._text = bad, size, _TEXT * size
        self._names, self._objects = names, objects

    def of(self, value: Any, depth: int = 0) -> Any:
        """The value of a part."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            self._bad("its parts refer to each other without end")
        kind = type(value)
        if kind in (int, float, bool) or value is None:
            return value
        if kind in (str, bytes):
            self._text -= len(value)
            if self._text < 0:
                self._bad("its strings are referred to without end")
            return value
        if kind is Array and value.made is not None:
            return value.made
        if kind in (list, tuple):
            return kind(self.of(item, depth + 1) for item in value)
        if kind is Dict:
            return self._dict(value, depth)
        if kind is Instance:
            state = value.state or ()
            fields = self._dict(state, depth) if type(state) is Dict else {}
            parts = (value.arguments, () if type(state) is Dict else state, tuple(value.items))
            return Record(value.kind, fields, sum((self.of(part, depth + 1) for part in parts if part), ()))
        if kind is Global and (name := self._names(value)) is not None:
            return Record(name, {})
        return self._bad("it holds a part of an array, or a class, instead of a value")

    def _dict(self, value: Dict, depth: int) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for raw, item in value.pairs:
            key = self.of(raw, depth + 1)
            if not (is_key(key) or type(key) is Record or (self._objects and _is_key(key))):
                self._bad(f"a dict has a key of type {type(key).__name__}")
            if key in made:
                self._bad(f"a dict has the key {str(key)[:100]!r} twice")
            made[key] = self.of(item, depth + 1)
        return made


def is_key(key: Any) -> bool:
    """Whether this is a key of a dict of plain values."""
    return type(key) is str or (type(key) is int and abs(key) < _MAX_KEY)


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(map(_is_key, key))
    return key is None or type(key) in (str, bytes, bool, float) or (type(key) is int and abs(key) < _MAX_OBJECT_KEY)
