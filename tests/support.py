"""What several tests need: states as bytes, folders as values, damage, and stores that count or refuse."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.adapters.state import Marked
from holdfast.storage import LocalStore, Location, Reader, Store


def contents(state: Any) -> Any:
    """A state as values that can be compared: every byte of every array, every plain value, every generator."""
    if isinstance(state, Marked):
        return contents(state.tree)
    if isinstance(state, np.ndarray):
        return ("array", state.dtype.str, state.dtype.name, state.shape, state.tobytes())
    if isinstance(state, dict):
        return ("dict", {key: contents(value) for key, value in state.items()})
    if isinstance(state, list | tuple):
        return (type(state).__name__, [contents(value) for value in state])
    if isinstance(state, np.random.Generator):
        return contents(copy.deepcopy(state.bit_generator.state))
    if isinstance(state, np.random.RandomState):
        return contents(state.get_state(legacy=False))
    if isinstance(state, random.Random):
        return contents(state.getstate())
    if hasattr(state, "state_dict"):
        return ("object", contents(state.state_dict()))
    return (type(state).__name__, repr(state))


def tree_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: kind, mode, links, size, time of change and contents, by path. Access times are not in it."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        name = str(path.relative_to(folder))
        found[name] = (
            info.st_mode,
            info.st_ino,
            info.st_nlink,
            info.st_size,
            info.st_mtime_ns,
            info.st_ctime_ns,
            content,
        )
    return found


def flip_bit(path: Path, at: int = -1) -> None:
    """Change one bit of a file, in place."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def join(location: Location, *names: str) -> Location:
    """A location below another."""
    for name in names:
        location = location / name
    return location


def read_file(location: Location) -> bytes:
    """All bytes of a file in any store."""
    reader = location.store.open(location.path)
    try:
        return bytes(reader.view(0, reader.size))
    finally:
        reader.close()


def write_file(location: Location, data: bytes) -> None:
    """A file in any store, replaced if it exists."""
    if location.store.stat(location.path) is not None:
        location.store.remove(location.path)
    writer = location.store.create(location.path, len(data))
    try:
        writer.write_at(memoryview(data), 0)
        writer.truncate(len(data))
    finally:
        writer.close()


class _CountingReader:
    """A reader that notes which ranges it was asked for."""

    def __init__(self, reader: Reader, asked: list[tuple[str, int, int]], path: str) -> None:
        self._reader, self._asked, self._path = reader, asked, path
        self.size = reader.size

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        self._asked.append((self._path, offset, sum(b.nbytes for b in buffers)))
        return self._reader.read_into(buffers, offset)

    def read_direct(self, buffer: memoryview, offset: int) -> int:
        self._asked.append((self._path, offset, len(buffer)))
        return self._reader.read_direct(buffer, offset)

    def is_cached(self, offset: int, length: int) -> bool:
        return self._reader.is_cached(offset, length)

    def view(self, offset: int, length: int) -> memoryview:
        self._asked.append((self._path, offset, length))
        return self._reader.view(offset, length)

    def forget(self, offset: int, length: int) -> None:
        self._reader.forget(offset, length)

    def close(self) -> None:
        self._reader.close()


class WrappedStore:
    """A store in front of another; single operations can be replaced, and reads are counted.

    Attributes:
        asked: (path, offset, bytes) of every read.
        calls: (operation, path) of every call.
    """

    def __init__(self, store: Store | None = None, **instead: Callable[..., Any]) -> None:
        self.inner: Any = store or LocalStore()
        self.instead = instead
        self.asked: list[tuple[str, int, int]] = []
        self.calls: list[tuple[str, str]] = []

    def at(self, path: str | os.PathLike[str]) -> Location:
        return Location(self, os.path.realpath(path))  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        operation = self.instead.get(name) or getattr(self.inner, name)

        def call(path: str, *args: Any, **options: Any) -> Any:
            self.calls.append((name, path))
            return operation(path, *args, **options)

        return call

    def open(self, path: str) -> Reader:
        self.calls.append(("open", path))
        return _CountingReader((self.instead.get("open") or self.inner.open)(path), self.asked, path)

    @property
    def asked_bytes(self) -> int:
        return sum(length for _, _, length in self.asked)


def leaves(state: Any) -> Iterator[np.ndarray]:
    """The arrays of a nested state."""
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, Marked):
        yield from leaves(state.tree)
    elif isinstance(state, dict):
        for value in state.values():
            yield from leaves(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from leaves(value)
