"""The staging buffers of all pipelines: in huge pages, reused from save to save, bounded.

Huge pages matter: a disk takes some 250 pieces of memory a request, and a buffer of small pages that lie scattered is over two
thousand. The same save runs at 1.6 GB/s from such buffers, at 3.1 from huge pages (docs/design/004-pipelines.md).
Reuse matters: memory that a virtual machine has given back to its host faults in again at 0.4 GB/s.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from dataclasses import dataclass, field

import numpy as np

STAGING_BYTES = 8 << 20
"""What one direct write takes, and one block of the format."""

MARGIN_BYTES = 8192
"""What a buffer has beyond that: a block read by direct I/O begins and ends within pages that are read as a whole."""

MAX_BUFFERS = 8
"""Buffers that one save may hold; 80 MiB with margins: the bound on its memory above the state, besides names and digests."""

_HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory that begins at a huge page, as bytes and as an array of the same bytes; none of it is touched yet when made."""

    size: int
    memory: mmap.mmap = field(init=False)
    view: memoryview = field(init=False)
    array: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        memory = mmap.mmap(-1, self.size + 2 * _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(AttributeError, OSError):  # not on every system; then it is as fast as small pages are
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.__array_interface__["data"][0] % _HUGE_PAGE
        object.__setattr__(self, "memory", memory)
        object.__setattr__(self, "view", memoryview(memory)[start : start + self.size])
        object.__setattr__(self, "array", whole[start : start + self.size])


_free: list[Buffer] = []
_lock = threading.Lock()


def _after_fork() -> None:
    """A thread that saves may hold the lock when another one forks; in the child nobody would ever release it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def take() -> Buffer:
    """A buffer that nobody else uses, contents arbitrary; `give` it back."""
    with _lock:
        if _free:
            return _free.pop()
    return Buffer(STAGING_BYTES + MARGIN_BYTES)


def give(buffer: Buffer) -> None:
    """Return a buffer for the next user."""
    with _lock:
        if len(_free) < MAX_BUFFERS and buffer.size == STAGING_BYTES + MARGIN_BYTES:
            _free.append(buffer)
