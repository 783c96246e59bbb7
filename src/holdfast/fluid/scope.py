"""Scope: the values of persistable variables, by name. An Executor reads them, and puts back what a program changed."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from holdfast.fluid.core import Place, to_vartype


class LoDTensor:
    """A tensor as programs of the era handle it: `set`, `shape()`, `numpy.array(tensor)`.

    Levels of detail (sequences of different lengths) are kept, and saved to Fluid's files; no operator uses them yet.
    """

    def __init__(self, value: Any = None, lod: Sequence[Sequence[int]] = ()) -> None:
        self._value = value
        self._lod = [list(level) for level in lod]

    def value(self) -> Any:
        """The JAX or NumPy array itself; None if nothing was set."""
        return self._value

    def _put(self, value: Any) -> None:
        self._value = value

    def set(self, array: Any, place: Place | None = None) -> None:
        """Take over a copy of an array.

        Args:
            array: anything that `numpy.array` takes.
            place: where to; None leaves that to the next run.
        """
        copied = np.array(array)
        to_vartype(copied.dtype)  # a dtype that no variable can have is refused here
        if place is None:
            self._put(copied)
            return
        with jax.enable_x64(True):
            self._put(jax.device_put(copied, place.device()))

    def shape(self) -> list[int]:
        """The shape; empty if nothing was set."""
        value = self.value()
        return [] if value is None else list(value.shape)

    def lod(self) -> list[list[int]]:
        """Offsets of the sequences, a list a level."""
        return [list(level) for level in self._lod]

    def set_lod(self, lod: Sequence[Sequence[int]]) -> None:
        """Set the offsets of the sequences."""
        self._lod = [list(level) for level in lod]

    def recursive_sequence_lengths(self) -> list[list[int]]:
        """Lengths of the sequences, a list a level."""
        return [[b - a for a, b in itertools.pairwise(level)] for level in self._lod]

    def set_recursive_sequence_lengths(self, lengths: Sequence[Sequence[int]]) -> None:
        """Set the lengths of the sequences, a list a level."""
        self._lod = [[0, *np.cumsum(level).tolist()] for level in lengths]

    def has_valid_recursive_sequence_lengths(self) -> bool:
        """Whether the innermost level covers the rows of the tensor."""
        shape = self.shape()
        return not self._lod or (bool(shape) and self._lod[-1][-1] == shape[0])

    def _is_initialized(self) -> bool:
        return self.value() is not None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.value()
        if value is None:
            raise ValueError("the tensor holds nothing yet: run the startup program, or set() it")
        # Always a copy: a later run may give the buffer to another value.
        return np.array(value, dtype=dtype)

    def __len__(self) -> int:
        return int(self.shape()[0])

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self)[index]

    def __repr__(self) -> str:
        return f"<LoDTensor {self.shape()} lod={self._lod}>"


Tensor = LoDTensor


class ScopeVariable(LoDTensor):
    """A variable of a scope; also its own tensor.

    Attributes:
        name: its name.
        held: the array, or None before a program or `set()` gives one.
        loaded_from: where a load took the value from; None if no load did. Running a startup program over it is refused.
        first: the array that a startup program gave it; as long as that is held, nothing was learnt that a load could lose.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.held: Any = None
        self.loaded_from: str | None = None
        self.first: weakref.ref[Any] | None = None

    def value(self) -> Any:
        """The array itself; None if it has no value."""
        return self.held

    def _put(self, value: Any) -> None:
        self.held = value

    def get_tensor(self) -> LoDTensor:
        """The variable's tensor: reading it copies, `set()` replaces the value."""
        return self


class Scope:
    """Values by name, and scopes inside it.

    Attributes:
        loads: counts the loads into it, so that an Executor looks again at what was loaded.
    """

    def __init__(self, parent: Scope | None = None) -> None:
        self._vars: dict[str, ScopeVariable] = {}
        self._parent = parent
        self._kids: list[Scope] = []
        self.loads = 0

    def var(self, name: str) -> ScopeVariable:
        """The variable of this name in this scope; it is made if need be."""
        found = self._vars.get(name)
        if found is None:
            found = self._vars[name] = ScopeVariable(name)
        return found

    def find_var(self, name: str) -> ScopeVariable | None:
        """The variable of this name here or in a scope around; None if there is none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._vars:
                return scope._vars[name]
            scope = scope._parent
        return None

    def new_scope(self) -> Scope:
        """A scope inside this one."""
        kid = Scope(self)
        self._kids.append(kid)
        return kid

    def drop_kids(self) -> None:
        """Forget the scopes inside."""
        self._kids.clear()

    def local_var_names(self) -> list[str]:
        """Names of this scope's own variables."""
        return list(self._vars)

    def erase(self, names: Sequence[str]) -> None:
        """Forget variables of this scope."""
        for name in names:
            if (found := self._vars.pop(name, None)) is not None:
                found.held = None

    def forget_loads(self, names: Sequence[str] | None = None) -> None:
        """Treat loaded variables as any other, so that a startup program may overwrite them.

        Args:
            names: only these; None for all.
        """
        for name, variable in self._vars.items():
            if names is None or name in names:
                variable.loaded_from = None
        self.loads += 1


_global = Scope()


def global_scope() -> Scope:
    """The scope that programs run in if no other is given."""
    return _global


@contextlib.contextmanager
def scope_guard(scope: Scope) -> Iterator[None]:
    """Let programs inside the block run in this scope."""
    global _global
    if not isinstance(scope, Scope):
        raise TypeError(f"scope_guard needs a fluid.Scope, not {scope!r}")
    old, _global = _global, scope
    try:
        yield
    finally:
        _global = old
