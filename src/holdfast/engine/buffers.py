"""The staging buffers of all pipelines: in huge pages, reused from save to save, bounded.

Huge pages matter: a disk takes some 250 pieces of memory a request, and a buffer of small pages that lie scattered is over two
thousand. The same save runs at 1.6 GB/s from such buffers, at 3.1 from huge pages (docs/design/004-pipelines.md).
Reuse matters: memory that a virtual machine has given back to its host faults in again at 0.4 GB/s.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

import numpy as np

from holdfast.engine import pages
from holdfast.engine.devices import Device

STAGING_BYTES = 8 << 20
"""What one direct write takes, and one block of the format."""

STEP_BYTES = 512 << 10
"""What is copied and then hashed at a time: it fits the second-level cache (3.0 GB/s written; 2.7 with 1 MiB)."""

MARGIN_BYTES = 8192
"""What a buffer has beyond that: a block read by direct I/O begins and ends within pages that are read as a whole."""

MAX_BUFFERS = 8
"""Buffers that one save may hold; 80 MiB with margins: the bound on its memory above the state, besides names and digests.
Those for devices are others, since they are page-locked: as many again, if a process saves or loads states of both kinds."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory that begins at a huge page, as bytes and as an array of the same bytes; page-locked if it is for a device."""

    size: int
    device: Device | None = None
    view: memoryview = field(init=False)
    array: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        array = pages.allocate(self.size, self.device)
        if self.device is not None:
            pages.lock(array, self.device)
        object.__setattr__(self, "view", array.data)
        object.__setattr__(self, "array", array)

    @property
    def kind(self) -> str:
        """Which devices it is page-locked for."""
        return "" if self.device is None else self.device.kind


_free: dict[str, list[Buffer]] = {}  # by their kinds
_lock = threading.Lock()


def _after_fork() -> None:
    """A thread that saves may hold the lock when another one forks; in the child nobody would ever release it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def take(device: Device | None = None) -> Buffer:
    """A buffer that nobody else uses, contents arbitrary; `give` it back.

    Args:
        device: will copy to or from it.
    """
    with _lock:
        free = _free.get("" if device is None else device.kind)
        if free:
            return free.pop()
    return Buffer(STAGING_BYTES + MARGIN_BYTES, device)


def give(buffer: Buffer) -> None:
    """Return a buffer for the next user."""
    with _lock:
        free = _free.setdefault(buffer.kind, [])
        if len(free) < MAX_BUFFERS and buffer.size == STAGING_BYTES + MARGIN_BYTES:
            free.append(buffer)
