"""The staging buffers of all pipelines: page-aligned, reused from save to save, bounded.

Reuse matters: memory that a virtual machine has given back to its host faults in again at 0.4 GB/s, a sixth of what the
disk takes (measured: benchmarks, row "save").
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass, field

import numpy as np

STAGING_BYTES = 8 << 20
"""What one direct write takes, and one block of the format."""

MARGIN_BYTES = 8192
"""What a buffer has beyond that: a block read by direct I/O begins and ends within pages that are read as a whole."""

MAX_BUFFERS = 12
"""Buffers that one save or load may hold: 96 MiB, the bound on its memory above the state (besides names and digests)."""

# Populated at once: page by page, on first use, takes twice as long (21 ms against 53 for 64 MiB).
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Page-aligned memory, as bytes and as an array of the same bytes."""

    memory: mmap.mmap
    view: memoryview = field(init=False)
    array: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", memoryview(self.memory))
        object.__setattr__(self, "array", np.frombuffer(self.memory, np.uint8))


_free: list[Buffer] = []
_lock = threading.Lock()


def take() -> Buffer:
    """A buffer that nobody else uses, contents arbitrary; `give` it back."""
    with _lock:
        if _free:
            return _free.pop()
    return Buffer(mmap.mmap(-1, STAGING_BYTES + MARGIN_BYTES, flags=_FLAGS))


def give(buffer: Buffer) -> None:
    """Return a buffer for the next user."""
    with _lock:
        if len(_free) < MAX_BUFFERS and len(buffer.memory) == STAGING_BYTES + MARGIN_BYTES:
            _free.append(buffer)
