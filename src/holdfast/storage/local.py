"""LocalStore: a file system of this machine. Direct I/O, exchange of folders and locks are used where trying shows they work."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import stat
import sys
import threading
import weakref
from collections.abc import Sequence
from os import PathLike

from holdfast.storage.base import AnyPath, Buffer, Claim, Entry, Location, Reader, Store, Writer

_O_DIRECT = getattr(os, "O_DIRECT", 0)
_libc = ctypes.CDLL(None, use_errno=True)
_CACHESTAT = 451
_MADV_POPULATE_READ = 22  # Linux 5.14; Python has no name for it yet
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL}
_NO_LINKS = _CANNOT | {errno.EPERM, errno.EXDEV, errno.EMLINK}
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_MAX_BUFFERS = 1024  # IOV_MAX of Linux
_HAS_CACHESTAT = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
_ENDS_BYTES = 64 << 10


def renameat2(source: str, target: str, flags: int) -> None:
    """Linux's renameat2, which Python's library lacks; elsewhere OSError(ENOSYS)."""
    call = getattr(_libc, "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


def cached_pages(fd: int, offset: int, length: int) -> int | None:
    """How many pages of a range are in the page cache; None where the system does not tell.

    Linux's cachestat (6.5 and later). A read with RWF_NOWAIT tells too, but puts pages into the cache.
    """
    if not _HAS_CACHESTAT:
        return None
    counts = (ctypes.c_uint64 * 5)()
    if _libc.syscall(_CACHESTAT, fd, ctypes.byref(_Range(offset, length)), counts, 0) != 0:
        return None
    return counts[0]


def _sync(fd: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync leaves the data in the drive's cache
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def _rest(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    """What is left of the buffers once `count` bytes of them are filled."""
    left: list[Buffer] = []
    for buffer in buffers:
        if count >= buffer.nbytes:
            count -= buffer.nbytes
        else:
            left.append(memoryview(buffer).cast("B")[count:] if count else buffer)
            count = 0
    return left


def _retried(error: OSError) -> bool:
    return error.errno == errno.EINTR  # Python retries by itself (PEP 475), but not below every file system


class _LocalWriter:
    def __init__(self, fd: int, path: str, direct: bool) -> None:
        self._fd, self._path, self.direct = fd, path, direct
        self._lock = threading.Lock()

    def write_at(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            direct = self.direct
            try:
                written = os.pwrite(self._fd, buffer, offset)
            except OSError as error:
                if _retried(error):
                    continue
                if error.errno == errno.EINVAL and direct:
                    self._leave_direct()  # the file system took the flag and refuses the write
                    continue
                error.filename = error.filename or self._path
                raise
            if written == 0:
                raise OSError(errno.EIO, "wrote nothing", self._path)
            buffer, offset = buffer[written:], offset + written
            if direct and buffer and written % 4096:
                self._leave_direct()  # the rest is no longer aligned

    def _leave_direct(self) -> None:
        with self._lock:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~_O_DIRECT)
            self.direct = False

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        _sync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _LocalReader:
    def __init__(self, fd: int, path: str, size: int) -> None:
        self._fd, self._path, self.size = fd, path, size
        self._direct_fd: int | None = None
        self._map: mmap.mmap | None = None
        self._can_map = True
        self._lock = threading.Lock()
        self._open = [fd]
        weakref.finalize(self, _close_all, self._open).atexit = False  # nobody need close what is only read

    def read_into(self, buffers: Sequence[Buffer], offset: int) -> int:
        total, wanted = 0, sum(buffer.nbytes for buffer in buffers)
        pending: Sequence[Buffer] = buffers
        while total < wanted:
            try:
                count = os.preadv(self._fd, pending[:_MAX_BUFFERS], offset + total)
            except OSError as error:
                if _retried(error):
                    continue
                error.filename = error.filename or self._path
                raise
            if count == 0:
                break
            total += count
            if total < wanted:
                pending = _rest(pending, count)
        return total

    def read_direct(self, buffer: memoryview, offset: int) -> int:
        fd = self._direct()
        if fd < 0:
            return self.read_into([buffer], offset)
        try:
            count = os.preadv(fd, [buffer], offset)
        except OSError as error:
            if error.errno not in _CANNOT and not _retried(error):
                error.filename = error.filename or self._path
                raise
            return self.read_into([buffer], offset)
        if count < len(buffer) and offset + count < self.size:  # cut short, not at the end of the file
            return count + self.read_into([buffer[count:]], offset + count)
        return count

    def _direct(self) -> int:
        with self._lock:
            if self._direct_fd is None:
                self._direct_fd = -1
                try:
                    fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | _O_DIRECT) if _O_DIRECT else -1
                except OSError:
                    fd = -1
                if fd >= 0:
                    self._open.append(fd)
                    # The name may lead elsewhere by now, if a rotation came between.
                    if os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
                        self._direct_fd = fd
            return self._direct_fd

    def is_cached(self, offset: int, length: int) -> bool:
        # Both ends speak for the rest: to count 2,048 small pages takes 0.2 ms, a third of the time in which they are read.
        part = min(length, _ENDS_BYTES)
        for start in {offset, offset + length - part} if part else ():
            cached = cached_pages(self._fd, start, part)
            if cached is None:
                return True  # the system does not tell: the ordinary way is never wrong
            if cached < (start + part - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1:
                return False
        return True

    def view(self, offset: int, length: int) -> memoryview:
        if length == 0:
            return memoryview(b"")
        with self._lock:
            if self._map is None and self._can_map:
                if os.fstat(self._fd).st_size < self.size:
                    raise self._shorter()
                try:
                    self._map = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
                except OSError:  # ENODEV, EACCES and others: some file systems, FUSE's among them, have no mappings
                    self._can_map = False
            mapped = self._map
        if mapped is None:
            return self._copy(offset, length)
        # Faults all pages at once, which takes half the time, and turns a disk's error into an exception: touching an
        # unreadable page would kill the process.
        start = offset - offset % mmap.PAGESIZE
        try:
            mapped.madvise(_MADV_POPULATE_READ, start, offset + length - start)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.14
                raise OSError(errno.EIO, os.strerror(errno.EIO), self._path) from error
        except ValueError:
            pass  # no such advice on this system
        return memoryview(mapped)[offset : offset + length]

    def _copy(self, offset: int, length: int) -> memoryview:
        copy = memoryview(bytearray(length))
        if self.read_into([copy], offset) < length:
            raise self._shorter()
        return copy.toreadonly()

    def _shorter(self) -> OSError:
        return OSError(errno.EIO, "the file has become shorter", self._path)

    def forget(self, offset: int, length: int) -> None:
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._map is not None and offset + length > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, offset + length - start)

    def close(self) -> None:
        self._fd = self._direct_fd = -1
        self._map = None  # unmapped with the last view of it
        _close_all(self._open)


def _close_all(numbers: list[int]) -> None:
    while True:
        try:
            fd = numbers.pop()  # first, and at once: no number is closed twice
        except IndexError:
            return
        with contextlib.suppress(OSError):  # it was only read from
            os.close(fd)


class _LocalClaim:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = os.getpid()

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        # A child that was forked meanwhile has the descriptor too, so closing it here would leave the lock; and the child
        # must not give back what its parent holds.
        if os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):  # the lock is gone whatever close says
            os.close(fd)


def _kind(mode: int) -> str:
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


class LocalStore:
    """The file system of this machine. Two of them are the same store."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore)

    def __hash__(self) -> int:
        return hash(LocalStore)

    def list(self, path: str) -> list[Entry]:
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since
                found.append(_entry(entry.name, info))
        return found

    def stat(self, path: str) -> Entry | None:
        try:
            info = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _entry(path.rpartition("/")[2], info)

    def make_folder(self, path: str) -> None:
        os.mkdir(path)

    def create(self, path: str, size: int, *, direct: bool = False) -> Writer:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd, direct = _open_direct(path, flags) if direct and _O_DIRECT else (os.open(path, flags, 0o666), False)
        if direct:
            try:
                os.posix_fallocate(fd, 0, max(size, 1))  # a full disk shows now, and extents are made once
            except OSError as error:
                if error.errno not in _CANNOT and not _retried(error):
                    os.close(fd)
                    error.filename = error.filename or path
                    raise
        return _LocalWriter(fd, path, direct)

    def open(self, path: str) -> Reader:
        # O_NONBLOCK: opening a FIFO that somebody put in a file's place must not wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            info = os.fstat(fd)
        except OSError:
            os.close(fd)
            raise
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return _LocalReader(fd, path, info.st_size)

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _sync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def exchange(self, a: str, b: str) -> bool:
        try:
            renameat2(a, b, _RENAME_EXCHANGE)
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        return True

    def link(self, source: str, target: str) -> bool:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        return True

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_folder(self, path: str) -> None:
        os.rmdir(path)

    def claim(self, path: str) -> Claim | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever removes a folder renames it first, while holding its lock: so if the name still leads here
            # now, nobody is going to.
            if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd)):
                return _LocalClaim(fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException as error:  # an interrupt too must not leave the folder locked
            os.close(fd)
            if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                raise OSError(errno.ENOTSUP, error.strerror, path) from error
            raise
        os.close(fd)
        return None

    def free_bytes(self, path: str) -> int | None:
        try:
            info = os.statvfs(path)
        except OSError:
            return None
        return info.f_bavail * info.f_frsize

    def at(self, path: str | PathLike[str]) -> Location:
        """The location of a path; links in it are followed now, and no longer later.

        Raises:
            TypeError: it is no path.
            ValueError: the path is empty, holds NUL, is a URL, or begins with an unexpanded `~`.
        """
        text: object = os.fspath(path) if isinstance(path, PathLike) else path
        if not isinstance(text, str):
            kind = type(path).__name__
            raise TypeError(
                f"a path must be a str or a Path, not {kind}; the state comes before the path, as in save_params(state, path)"
            )
        if not text:
            raise ValueError("a path must not be empty; '.' is the working directory")
        if _URL.match(
            text
        ):  # as a path it would become a folder `s3:` here, and nobody would find the checkpoint there
            raise ValueError(f"{text!r} is a URL; a path is a file or folder of this machine, or one mounted into it")
        if "\0" in text:
            raise ValueError(f"no path can hold NUL, as this one does: {text!r}")
        if text.partition("/")[0] == "~":  # a shell expands it, Python does not: it would become a folder `~` here
            raise ValueError(f"{text!r}: os.path.expanduser() of it is what was meant, or './{text}'")
        return Location(self, os.path.realpath(text))


def _entry(name: str, info: os.stat_result) -> Entry:
    return Entry(name, _kind(info.st_mode), info.st_size, info.st_mtime)  # type: ignore[arg-type]


def _open_direct(path: str, flags: int) -> tuple[int, bool]:
    try:
        return os.open(path, flags | _O_DIRECT, 0o666), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # Some kernels make the file before they refuse the flag.
    return os.open(path, flags & ~os.O_EXCL, 0o666), False


def resolve(path: AnyPath) -> Location:
    """The location that a caller means by a path.

    Raises:
        TypeError: it is no path.
        ValueError: the path is empty, holds NUL, is a URL, or begins with an unexpanded `~`.
    """
    return path if isinstance(path, Location) else LocalStore().at(path)


_STORE: type[Store] = LocalStore
