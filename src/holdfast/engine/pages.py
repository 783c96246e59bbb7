"""Memory for copies: in huge pages, empty in a process that forks off, and page-locked where a device reads or writes it."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import weakref
from collections.abc import Callable

import numpy as np

from holdfast.engine.devices import Device

HUGE_PAGE = 2 << 20

_WIPE_ON_FORK = 18
"""A child gets zeros there instead of the parent's pages, so that the parent need not copy each of them when it writes to it, and a
device goes on writing to the parent's. With `MADV_DONTFORK` the child would give the same addresses to something else, and lose
that when the memory is freed there."""


def allocate(nbytes: int, device: Device | None = None) -> np.ndarray:
    """Memory that begins at a huge page, as flat uint8; none of it is touched yet unless the device made it.

    Args:
        nbytes: how much.
        device: will copy to or from it: then it may be page-locked already.

    Raises:
        MemoryError: the system has no more.
    """
    whole = None if device is None else device.locked_memory(nbytes + HUGE_PAGE)
    if whole is None:
        try:
            memory = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"the system has no {nbytes:,} bytes of memory for a copy ({error.strerror})") from error
        with contextlib.suppress(AttributeError, OSError):  # not on every system; then it is as fast as small pages are
            memory.madvise(mmap.MADV_HUGEPAGE)
        with contextlib.suppress(OSError):
            if sys.platform == "linux":
                memory.madvise(_WIPE_ON_FORK)
        whole = np.frombuffer(memory, np.uint8)
    start = -whole.__array_interface__["data"][0] % HUGE_PAGE
    return whole[start : start + nbytes]


def lock(memory: np.ndarray, device: Device) -> None:
    """Page-lock what `allocate` returned, if the device can do that; it is unlocked before the system gets it back."""
    unlock = device.lock(memory)
    if unlock is not None:
        # Its base lives as long as any view of it. The system unlocks what a process that ends has left.
        weakref.finalize(memory.base, _unlock, unlock, os.getpid()).atexit = False


def _unlock(unlock: Callable[[], None], process: int) -> None:
    if process == os.getpid():
        unlock()
