"""Recorder: stands where `os` stands in the local store, does every call for real, and logs those that change the disk.

It decides what belongs to the log, and refuses what it does not know: a call outside the lists below fails the test,
because a change that escapes the log escapes the proof. `Recorder.check` is the second net: the tree rebuilt from the
log must equal the real folder, byte for byte.

Calls that change something are made one at a time, so the log is an order in which they may have happened. A sync is
logged and not done: here the disk model stands for the disk, and a thousand real syncs would decide how long it takes.

A `Fault` makes one call (or all from one on) fail, at the place where the kernel would have failed it.
"""

from __future__ import annotations

import errno
import fcntl
import os as real
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from .disk import ROOT, Disk, Entries, Note, Operation, Resize, Snapshot, Sync, Tree, Write

# Calls that change no file and no folder; constants (upper case) and exceptions pass as well.
READING = frozenset(
    {"stat", "lstat", "fstat", "scandir", "statvfs", "preadv", "pread", "path", "fsdecode", "fsencode", "strerror"}
    | {"fspath", "sep", "stat_result", "PathLike", "DirEntry", "getpid"}
)
ASKING = frozenset({"stat", "fstat", "scandir", "preadv", "statvfs"})  # of these, the ones that can fail
EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h


class Escaped(AssertionError):
    """A call that the recorder does not know: the model would miss what it does."""


@dataclass
class Fault:
    """What goes wrong at one recorded call.

    Attributes:
        index: Position of the call, from 0, among those of the kinds in `calls`.
        error: errno to raise; None: the call is cut short (`pwrite` writes half of its bytes).
        lasting: Every later call of these kinds fails as well, as on a disk that is full or gone.
        calls: The kinds of calls; None: all.
        action: Instead of an error: called before the call, which then goes on.
        raised: The errors raised so far.
        struck: The calls that were hit.
    """

    index: int
    error: int | None = None
    lasting: bool = False
    calls: frozenset[str] | None = None
    action: Callable[[], object] | None = None
    raised: list[OSError] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    _met: int = 0

    def strike(self, call: str, path: object) -> bool:
        """Raise the error or do the action, if this call is to be hit; True if it is to be cut short."""
        if self.calls is not None and call not in self.calls:
            return False
        met, self._met = self._met, self._met + 1
        if met < self.index or (met > self.index and not self.lasting):
            return False
        self.struck.append(call)
        if self.action is not None:
            self.action()
            return False
        if self.error is None:
            return True
        error = OSError(self.error, real.strerror(self.error), str(path))
        self.raised.append(error)
        raise error


class Recorder:
    """A log of what happened below a folder, and the `os` that writes it.

    Args:
        root: An existing folder. What it holds at the start counts as durable, unless `before` says how it came about.
        before: A start tree and a log that explain the folder's content, and the inodes its names have in them.
    """

    def __init__(self, root: Path, *, before: tuple[Tree, Sequence[Operation]] | None = None) -> None:
        self.root = real.path.realpath(root)
        self.log: list[Operation] = []
        self.calls: list[str] = []
        self.escaped: list[str] = []
        self.fault: Fault | None = None
        self._lock = threading.RLock()
        self._inodes: dict[int, int] = {}  # st_ino of the real file -> inode of the model
        if before is None:
            self.start = Tree()
            self._scan(self.root, ROOT)
            self._tree = self.start.copy()
        else:
            self.start, log = before
            self.log = list(log)
            self._tree = self.start.copy()
            for operation in log:
                self._grow(operation)
            self._match(self.root, ROOT)
        self._next = 1 + max(*self._tree.files, *self._tree.folders, ROOT)

    # --- the log -----------------------------------------------------------------------------------------------

    def note(self, about: object) -> None:
        """Say what has been reported by now."""
        with self._lock:
            self.log.append(Note(about))

    def check(self) -> None:
        """Fail if anything happened below the folder that is not in the log."""
        assert not self.escaped, f"calls the recorder does not know: {self.escaped}"
        assert self._tree.snapshot() == read_folder(Path(self.root)), "the log does not explain the folder"

    @contextmanager
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
        """Take the place of `os` and `renameat2` in the local store."""
        from holdfast.storage import local

        exchange = local.renameat2
        with monkeypatch.context() as patch:
            patch.setattr(local, "os", RecordingOs(self))
            patch.setattr(local, "renameat2", lambda *args: self._renameat2(exchange, *args))
            yield self

    def _grow(self, operation: Operation) -> None:
        if isinstance(operation, Entries | Write | Resize):
            self._tree.born(operation)
            self._tree.apply(operation)

    def _record(self, operation: Operation) -> None:
        self.log.append(operation)
        self._grow(operation)

    def _scan(self, path: str, inode: int) -> None:
        for entry in sorted(real.scandir(path), key=lambda entry: entry.name):
            number = entry.stat(follow_symlinks=False).st_ino
            child = self._inodes.get(number)
            if child is None:
                child = self._inodes[number] = len(self._inodes) + 1
                if entry.is_dir(follow_symlinks=False):
                    self.start.folders[child] = {}
                    self._scan(entry.path, child)
                else:
                    self.start.files[child] = Path(entry.path).read_bytes()
            self.start.folders[inode][entry.name] = child
        self._inodes[real.stat(path).st_ino] = inode

    def _match(self, path: str, inode: int) -> None:
        self._inodes[real.stat(path).st_ino] = inode
        for name, child in self._tree.folders[inode].items():
            below = real.path.join(path, name)
            self._inodes[real.stat(below).st_ino] = child
            if child in self._tree.folders:
                self._match(below, child)

    # --- names and numbers -------------------------------------------------------------------------------------

    def _place(self, path: Any, dir_fd: int | None) -> tuple[int, str]:
        """The model's inode of the folder that holds the name, and the name."""
        text = real.fsdecode(path)
        if dir_fd is not None:
            text = real.path.join(real.readlink(f"/proc/self/fd/{dir_fd}"), text)
        folder, name = real.path.split(text.rstrip("/"))
        folder = real.path.realpath(folder)
        if folder != self.root and not folder.startswith(self.root + "/"):
            self._refuse(f"a change outside of the recorded folder: {text}")
        inode = ROOT
        for part in Path(folder).relative_to(self.root).parts:
            inode = self._tree.folders[inode][part]
        return inode, name

    def _of(self, fd: int) -> int:
        return self._inodes[real.fstat(fd).st_ino]

    def _above(self, fd: int) -> bool:
        return self.root.startswith(real.readlink(f"/proc/self/fd/{fd}").rstrip("/") + "/")

    def _refuse(self, why: str) -> NoReturn:
        self.escaped.append(why)
        raise Escaped(why)

    def _step(self, call: str, path: object = "") -> bool:
        """Count a call; raise its fault; True if it is to be cut short."""
        self.calls.append(call)
        return self.fault is not None and self.fault.strike(call, path)

    def _born(self, place: tuple[int, str], number: int, kind: Literal["file", "folder"]) -> None:
        inode, self._next = self._next, self._next + 1
        self._inodes[number] = inode
        self._record(Entries(place[0], ((place[1], inode),), born=kind))

    def _renames(self, source: tuple[int, str], target: tuple[int, str], *, exchange: bool = False) -> None:
        names = self._tree.folders[source[0]]
        gone = names[target[1]] if exchange else None
        self._record(Entries(source[0], ((source[1], gone), (target[1], names[source[1]]))))

    def _two_places(
        self, source: Any, target: Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> tuple[tuple[int, str], tuple[int, str]]:
        one, other = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        if one[0] != other[0]:
            self._refuse(f"a rename from folder to folder is not atomic on every disk: {source} -> {target}")
        return one, other

    def _renameat2(self, call: Callable[..., Any], source: Any, target: Any, flags: int) -> Any:
        with self._lock:
            places = self._two_places(source, target)
            self._step("renameat2", source)
            result = call(source, target, flags)
            self._renames(*places, exchange=bool(flags & EXCHANGE))
            return result


class RecordingOs:
    """What the local store sees as `os`. Each method is the call of its name: done, then logged."""

    def __init__(self, recorder: Recorder) -> None:
        self._to = recorder

    def __getattr__(self, name: str) -> Any:
        if name not in READING and not name.isupper():
            self._to._refuse(f"os.{name}")
        return self._counted(name) if name in ASKING else getattr(real, name)

    def _counted(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._to._lock:
                self._to._step(name, args[0])
            return getattr(real, name)(*args, **options)

        return call

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._to._lock:
            if flags & real.O_TRUNC or (flags & real.O_CREAT and not flags & real.O_EXCL):
                self._to._refuse(f"a file opened so that an older one could be overwritten: {path}")
            place = self._to._place(path, dir_fd) if flags & real.O_CREAT else None
            self._to._step("create" if place else "open", path)
            fd = real.open(path, flags, mode, dir_fd=dir_fd)
            if place:
                self._to._born(place, real.fstat(fd).st_ino, "file")
            return fd

    def close(self, fd: int) -> None:
        with self._to._lock:
            real.close(fd)  # on Linux the descriptor is gone even if close() fails
            self._to._step("close", fd)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        with self._to._lock:
            place = self._to._place(path, dir_fd)
            self._to._step("mkdir", path)
            real.mkdir(path, mode, dir_fd=dir_fd)
            self._to._born(place, real.stat(path, dir_fd=dir_fd).st_ino, "folder")

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self._written(fd, [data], offset, "pwrite")

    def pwritev(self, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        if flags:
            self._to._refuse(f"os.pwritev with flags {flags}")
        return self._written(fd, buffers, offset, "pwritev")

    def _written(self, fd: int, buffers: Sequence[Any], offset: int, call: str) -> int:
        with self._to._lock:
            short = self._to._step(call, fd)
            data = b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers)
            if short and len(data) > 1:
                done = real.pwrite(self._plain(fd), data[: len(data) // 2], offset)
            elif call == "pwrite":
                done = real.pwrite(fd, buffers[0], offset)
            else:
                done = real.pwritev(fd, buffers, offset)
            self._to._record(Write(self._to._of(fd), offset, data[:done]))
            return done

    def _plain(self, fd: int) -> int:
        """The descriptor without O_DIRECT, which would refuse the odd lengths of a write cut short."""
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~real.O_DIRECT)
        return fd

    def ftruncate(self, fd: int, length: int) -> None:
        with self._to._lock:
            self._to._step("ftruncate", fd)
            real.ftruncate(fd, length)
            self._to._record(Resize(self._to._of(fd), length))

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        with self._to._lock:
            self._to._step("posix_fallocate", fd)
            real.posix_fallocate(fd, offset, length)
            self._to._record(Resize(self._to._of(fd), offset + length, grow_only=True))

    def fsync(self, fd: int) -> None:
        with self._to._lock:
            self._to._step("fsync", fd)
            if self._to._above(fd):
                return  # the folder that stands for the disk is there, whatever happens
            self._to._record(Sync(self._to._of(fd)))

    def fdatasync(self, fd: int) -> None:
        """As strong as fsync here: it too makes the size durable, and times are no part of the model."""
        with self._to._lock:
            self._to._step("fdatasync", fd)
            assert stat.S_ISREG(real.fstat(fd).st_mode), "fdatasync of a folder"
            self._to._record(Sync(self._to._of(fd)))

    def rename(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        with self._to._lock:
            places = self._to._two_places(src, dst, src_dir_fd, dst_dir_fd)
            self._to._step("rename", src)
            real.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._to._renames(*places)

    replace = rename

    def link(
        self,
        src: Any,
        dst: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        with self._to._lock:
            folder, name = self._to._place(dst, dst_dir_fd)
            self._to._step("link", dst)
            real.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            number = real.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False).st_ino
            self._to._record(Entries(folder, ((name, self._to._inodes[number]),)))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        with self._to._lock:
            folder, name = self._to._place(path, dir_fd)
            self._to._step("unlink", path)
            real.unlink(path, dir_fd=dir_fd)
            self._to._record(Entries(folder, ((name, None),)))

    remove = unlink

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        with self._to._lock:
            folder, name = self._to._place(path, dir_fd)
            self._to._step("rmdir", path)
            real.rmdir(path, dir_fd=dir_fd)
            self._to._record(Entries(folder, ((name, None),)))


class UnsyncedOs:
    """The real `os`, but a sync returns at once: for folders that no crash is going to hit."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def fsync(self, fd: int) -> None:
        real.fstat(fd)

    fdatasync = fsync


def without_exchange(*_: object) -> None:
    """A `renameat2` as of a kernel or a file system that cannot exchange."""
    raise OSError(errno.EINVAL, real.strerror(errno.EINVAL))


def read_folder(root: Path) -> Snapshot:
    """What lies below a real folder, in the form of the model."""
    found: Snapshot = {}
    for path in root.rglob("*"):
        found[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    return found


def write_folder(root: Path, snapshot: Snapshot) -> None:
    """Make a real folder hold a state of the model."""
    for path in sorted(snapshot):  # a folder sorts before what it holds
        content = snapshot[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def volatile(start: Tree, log: Sequence[Operation]) -> Snapshot:
    """What the machine shows when it lives on after the last operation of the log."""
    disk = Disk(start)
    for operation in log:
        disk.run(operation)
    return disk.after_crash(["kept"] * len(disk.pending))
