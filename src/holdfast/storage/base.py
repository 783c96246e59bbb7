"""The Store protocol: folders of files, with the few operations that a crash-safe commit needs. Knows no tensors.

Paths are absolute and separated by `/`. Every operation raises `OSError` (the builtin subclasses where they fit) and has then
changed nothing, unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal, NamedTuple, Protocol


class Entry(NamedTuple):
    """What stands under a name. Links are `"other"`: they are never followed."""

    name: str
    kind: Literal["file", "folder", "other"]
    size: int
    modified: float = 0.0
    """Seconds since the epoch by the file system's clock; only ever compared with the age of a day."""


class Buffer(Protocol):
    """Contiguous memory: a memoryview, or an array, which is one for system calls without a call for each."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """What the system fills."""


class Writer(Protocol):
    """A new file that nobody else writes. `write_at` may be called from several threads."""

    direct: bool
    """Whether writes bypass the page cache; addresses, offsets and lengths must then be multiples of 4,096."""

    def write_at(self, buffer: memoryview, offset: int) -> None:
        """Write all of `buffer` at `offset`."""

    def truncate(self, size: int) -> None:
        """Cut or extend the file to `size` bytes."""

    def sync(self) -> None:
        """Return once contents and size would survive a power cut."""

    def close(self) -> None:
        """Release the file; a second call does nothing."""


class Reader(Protocol):
    """An open file. Methods may be called from several threads."""

    size: int

    def read_into(self, buffers: Sequence[Buffer], offset: int) -> int:
        """Fill the buffers, one after the other, with what stands from `offset`; returns the bytes read.

        Fewer than asked for are read at the end of the file only.
        """

    def read_direct(self, buffer: memoryview, offset: int) -> int:
        """Like `read_into`, past the page cache where that is possible; address, offset and length: multiples of 4,096."""

    def is_cached(self, offset: int, length: int) -> bool:
        """Whether a range seems to be in memory: a guess that decides between ways to read, not about what is read."""

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes of a range within the file, read-only, without a copy where possible; valid beyond `close`."""

    def forget(self, offset: int, length: int) -> None:
        """A viewed range is no longer needed: it need not count as this process's memory. Views stay valid."""

    def close(self) -> None:
        """Release the file; a second call does nothing."""


class Claim(Protocol):
    """An exclusive lock of a folder, which the death of the process releases too."""

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""


class Store(Protocol):
    """A place for files that can commit a folder as a whole by a rename."""

    def list(self, path: str) -> list[Entry]:
        """The entries of a folder, in no order."""

    def stat(self, path: str) -> Entry | None:
        """What stands at a path; None if nothing does."""

    def make_folder(self, path: str) -> None:
        """Make a folder that must not exist, in one that must."""

    def create(self, path: str, size: int, *, direct: bool = False) -> Writer:
        """Make a file that must not exist, for `size` bytes; it may be that long before they are written.

        With `direct`, writes bypass the page cache if the file system takes that; see `Writer.direct`.
        """

    def open(self, path: str) -> Reader:
        """Open a regular file for reading; everything else is refused."""

    def sync_folder(self, path: str) -> None:
        """Return once the folder's entries would survive a power cut."""

    def rename(self, source: str, target: str) -> None:
        """Give a folder another name, at once; fails if the target exists and is not an empty folder."""

    def exchange(self, a: str, b: str) -> bool:
        """Exchange the names of two folders, at once; False if that is not possible here."""

    def link(self, source: str, target: str) -> bool:
        """Give a file a second name that must not exist; False if that is not possible here."""

    def remove(self, path: str) -> None:
        """Delete a file or a link."""

    def remove_folder(self, path: str) -> None:
        """Delete an empty folder."""

    def claim(self, path: str) -> Claim | None:
        """Lock a folder; None if somebody else holds it or it is gone.

        Raises:
            OSError: with `errno.ENOTSUP` where the file system has no locks.
        """

    def free_bytes(self, path: str) -> int | None:
        """Space left for files in a folder; None if not known."""


@dataclass(frozen=True, slots=True)
class Location:
    """A path in a store: what every call that takes a path also accepts.

    Raises:
        ValueError: the path is not absolute; a store's `at` makes it so.

    Example:
        >>> from holdfast.storage import MemoryStore
        >>> MemoryStore().at("runs/digits").name
        'digits'
    """

    store: Store
    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError(f"the path of a Location must be absolute, not {self.path!r}; a store's at() makes it so")

    def __truediv__(self, name: str) -> Location:
        return Location(self.store, f"{self.path.rstrip('/')}/{name}")

    @property
    def parent(self) -> Location:
        """The folder that this is in."""
        return Location(self.store, self.path.rstrip("/").rpartition("/")[0] or "/")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.path


AnyPath = str | PathLike[str] | Location
"""What every call that takes a path accepts."""
