"""A file that is read from front to back: every length is held against what is left before anything is allocated.

Knows no format. Every complaint is a FormatError that names the file and the place.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, NoReturn

import numpy as np

from holdfast.errors import FormatError, StorageError

_AT_ONCE = 1 << 28  # bytes that are read between two calls of a watcher
_watcher: ContextVar[Callable[[int], None] | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched(watcher: Callable[[int], None]) -> Iterator[None]:
    """Call `watcher` with the number of bytes whenever elements of arrays have been read, by whichever reader."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class Source:
    """Bytes of a known total, read once.

    Attributes:
        name: of the file, for messages.
        size: bytes in all.
        at: bytes read so far.
        file: what they are read from, for libraries that want it themselves; `go` after that.
    """

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self.file, self.size, self.name, self.at = file, size, name, 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return self.size - self.at

    def need(self, count: int, what: str) -> None:
        """Complain unless there are `count` more bytes."""
        if count > self.left:
            raise FormatError(
                f"{self.name} is cut off or malformed: {what} takes bytes {self.at:,} to {self.at + count:,}, "
                f"but the file has {self.size:,}"
            )

    def bad(self, problem: str) -> NoReturn:
        """Raise the error for a problem at this place."""
        raise FormatError(f"{self.name}: {problem} (before byte {self.at:,} of {self.size:,})")

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self.need(count, what)
        data = self.file.read(count)
        if len(data) != count:
            self._shrunk()
        self.at += count
        return data

    def skip(self, count: int, what: str) -> None:
        """Pass over `count` bytes."""
        self.need(count, what)
        self.file.seek(count, os.SEEK_CUR)
        self.at += count

    def rewind(self) -> None:
        """Begin again."""
        self.go(0)

    def go(self, at: int) -> None:
        """Go on at this byte."""
        if not 0 <= at <= self.size:
            raise FormatError(f"{self.name} is cut off or malformed: it refers to byte {at:,}, but has {self.size:,}")
        self.file.seek(at)
        self.at = at

    def integer(self, code: str, what: str) -> int:
        """A little-endian integer; `code` is one of `struct`."""
        number: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]
        return number

    def array(self, dtype: np.dtype, shape: tuple[int, ...], what: str) -> np.ndarray:
        """The next bytes as a new array of its own."""
        self.need(math.prod(shape) * dtype.itemsize, what)
        made = np.empty(shape, dtype)
        # As bytes, because the buffer protocol does not know every dtype; readinto may stop early on huge reads.
        flat = made.reshape(-1).view(np.uint8)
        done, watcher = 0, _watcher.get()
        while done < flat.size:
            got = self.file.readinto(flat[done : done + _AT_ONCE])  # type: ignore[attr-defined]
            if not got:
                self._shrunk()
            done += got
            if watcher is not None:
                watcher(got)
        self.at += flat.size
        return made

    def end(self) -> None:
        """Complain if anything follows."""
        if self.left:
            raise FormatError(
                f"{self.name} is longer than its content: expected {self.at:,} bytes, found {self.size:,}. "
                "It is damaged, or of another format"
            )

    def _shrunk(self) -> NoReturn:
        raise FormatError(f"{self.name} became shorter while it was read")


def check_memory(needed: int, what: str) -> None:
    """Complain of content that this machine has not the memory for, before it is taken: a file can say anything of its size.

    Raises:
        StorageError: it needs more than there is; its `errno` is ENOMEM.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        error = StorageError(
            f"{what} says that its arrays take {needed:,} bytes, and this machine has {there:,} bytes of memory. If that is what "
            "was saved, read it on a larger machine; else it is damaged"
        )
        error.errno, error.filename = errno.ENOMEM, what
        raise error


def of_bytes(data: bytes, name: str) -> Source:
    """A source over bytes in memory."""
    return Source(io.BytesIO(data), len(data), name)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Source]:
    """A source over a regular file.

    Raises:
        FormatError: it is no regular file.
        StorageError: the system refused to open or read it; its `errno` says why.
    """
    name = os.fspath(path)
    try:
        # O_NONBLOCK: a named pipe must not hold the program.
        number = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        info = os.fstat(number)
        if not stat.S_ISREG(info.st_mode):
            os.close(number)
        else:
            with open(number, "rb") as file:
                yield Source(file, info.st_size, name)
            return
    except StorageError:
        raise  # it is an OSError too
    except OSError as error:
        raise StorageError.of(error, f"cannot read {name}") from error
    raise FormatError(f"{name} is a folder or a device, not a regular file")


def read_all(path: str | os.PathLike[str], limit: int) -> bytes:
    """All bytes of a small file.

    Raises:
        FormatError: it has more than `limit` bytes, or is no regular file.
    """
    with opened(path) as source:
        if source.size > limit:
            raise FormatError(f"{source.name} has {source.size:,} bytes; no such file has more than {limit:,}")
        return source.take(source.size, "the file")
