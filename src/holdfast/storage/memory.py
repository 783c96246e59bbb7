"""MemoryStore: the Store protocol in dictionaries. The protocol's reference model, and a fast place for tests."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from typing import NoReturn

from holdfast.storage.base import Buffer, Claim, Entry, Location, Reader, Store, Writer


class _File:
    def __init__(self) -> None:
        self.data = bytearray()


class _Folder(dict[str, "_File | _Folder"]):
    def __init__(self) -> None:
        super().__init__()
        self.claimed = False


def _fail(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


class _MemoryWriter:
    direct = False

    def __init__(self, file: _File, lock: threading.RLock) -> None:
        self._file, self._lock = file, lock

    def write_at(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            data = self._file.data
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(buffer)] = buffer

    def truncate(self, size: int) -> None:
        with self._lock:
            data = self._file.data
            if size < len(data):
                self._file.data = data[:size]  # a new object: views of the old one may be out
            else:
                data.extend(bytes(size - len(data)))

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class _MemoryReader:
    def __init__(self, file: _File) -> None:
        self._data = memoryview(bytes(file.data))
        self.size = len(self._data)

    def read_into(self, buffers: Sequence[Buffer], offset: int) -> int:
        total = 0
        for buffer in buffers:
            part = self._data[offset + total : offset + total + buffer.nbytes]
            if part:
                memoryview(buffer).cast("B")[: len(part)] = part
            total += len(part)
        return total

    def read_direct(self, buffer: memoryview, offset: int) -> int:
        return self.read_into([buffer], offset)

    def is_cached(self, offset: int, length: int) -> bool:
        return True

    def view(self, offset: int, length: int) -> memoryview:
        return self._data[offset : offset + length]

    def forget(self, offset: int, length: int) -> None:
        pass

    def close(self) -> None:
        pass


class _MemoryClaim:
    def __init__(self, folder: _Folder) -> None:
        self._folder: _Folder | None = folder

    def release(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.claimed = False


class MemoryStore:
    """Folders and files in memory, with the semantics of a file system; safe for threads.

    Args:
        exchange: whether folders can be exchanged; False imitates network file systems.
        capacity_bytes: size of all files beyond which writes fail as on a full disk; None for no limit.
    """

    def __init__(self, *, exchange: bool = True, capacity_bytes: int | None = None) -> None:
        self._root = _Folder()
        self._lock = threading.RLock()
        self._exchange = exchange
        self._capacity = capacity_bytes

    def at(self, path: str) -> Location:
        """The location of a path in this store."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        return Location(self, "/" + "/".join(parts))

    def _find(self, path: str) -> _File | _Folder:
        node: _File | _Folder = self._root
        for part in path.strip("/").split("/"):
            if part:
                if not isinstance(node, _Folder):
                    _fail(errno.ENOTDIR, path)
                if part not in node:
                    _fail(errno.ENOENT, path)
                node = node[part]
        return node

    def _folder(self, path: str) -> _Folder:
        node = self._find(path)
        return node if isinstance(node, _Folder) else _fail(errno.ENOTDIR, path)

    def _parent(self, path: str) -> tuple[_Folder, str]:
        parent, _, name = path.rstrip("/").rpartition("/")
        return self._folder(parent), name

    def list(self, path: str) -> list[Entry]:
        with self._lock:
            return [_entry(name, node) for name, node in self._folder(path).items()]

    def stat(self, path: str) -> Entry | None:
        with self._lock:
            try:
                return _entry(path.rpartition("/")[2], self._find(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def make_folder(self, path: str) -> None:
        self._add(path, _Folder())

    def _add(self, path: str, node: _File | _Folder) -> None:
        with self._lock:
            parent, name = self._parent(path)
            if name in parent:
                _fail(errno.EEXIST, path)
            parent[name] = node

    def create(self, path: str, size: int, *, direct: bool = False) -> Writer:
        with self._lock:
            if self._capacity is not None and _size(self._root) + size > self._capacity:
                _fail(errno.ENOSPC, path)
            file = _File()
            self._add(path, file)
            return _MemoryWriter(file, self._lock)

    def open(self, path: str) -> Reader:
        with self._lock:
            file = self._find(path)
            return _MemoryReader(file) if isinstance(file, _File) else _fail(errno.EINVAL, path)

    def sync_folder(self, path: str) -> None:
        with self._lock:
            self._folder(path)

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            (old, name), (new, new_name) = self._parent(source), self._parent(target)
            if name not in old:
                _fail(errno.ENOENT, source)
            there = new.get(new_name)
            if isinstance(there, _File) and isinstance(old[name], _Folder):
                _fail(errno.ENOTDIR, target)
            if there:
                _fail(errno.ENOTEMPTY, target)
            new[new_name] = old.pop(name)

    def exchange(self, a: str, b: str) -> bool:
        with self._lock:
            (one, name), (two, other) = self._parent(a), self._parent(b)
            if name not in one or other not in two:
                _fail(errno.ENOENT, a)
            if self._exchange:
                one[name], two[other] = two[other], one[name]
            return self._exchange

    def link(self, source: str, target: str) -> bool:
        with self._lock:
            self._add(target, self._find(source))
            return True

    def remove(self, path: str) -> None:
        with self._lock:
            parent, name = self._parent(path)
            if not isinstance(parent.get(name), _File):
                _fail(errno.EISDIR if name in parent else errno.ENOENT, path)
            del parent[name]

    def remove_folder(self, path: str) -> None:
        with self._lock:
            parent, name = self._parent(path)
            if self._folder(path):
                _fail(errno.ENOTEMPTY, path)
            del parent[name]

    def claim(self, path: str) -> Claim | None:
        with self._lock:
            try:
                folder = self._folder(path)
            except OSError:
                return None
            if folder.claimed:
                return None
            folder.claimed = True
            return _MemoryClaim(folder)

    def free_bytes(self, path: str) -> int | None:
        with self._lock:
            return None if self._capacity is None else max(0, self._capacity - _size(self._root))


def _entry(name: str, node: _File | _Folder) -> Entry:
    return Entry(name, "file", len(node.data)) if isinstance(node, _File) else Entry(name, "folder", 0)


def _size(root: _Folder) -> int:
    """Bytes of all files; one with several names counts once."""
    files: dict[int, int] = {}
    pending: list[_File | _Folder] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, _File):
            files[id(node)] = len(node.data)
        else:
            pending += node.values()
    return sum(files.values())


_STORE: type[Store] = MemoryStore
