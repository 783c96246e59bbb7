"""Clocks, caches, memory and comparison: the instruments of the benchmark. Knows no library; needs Linux."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MIB = 1 << 20


@contextmanager
def timed(metrics: dict[str, float], key: str) -> Iterator[None]:
    """Note the seconds that the block took."""
    start = time.perf_counter()
    yield
    metrics[key] = time.perf_counter() - start


def files_below(path: Path) -> list[Path]:
    """The regular files of a folder, or the file itself."""
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]


def make_cold(path: Path) -> None:
    """Let the page cache forget these files: the next read comes from the disk."""
    for file in files_below(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)  # only clean pages can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def make_warm(path: Path) -> None:
    """Read these files into the page cache."""
    buffer = bytearray(8 * MIB)
    for file in files_below(path):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _kib(file: str, key: str) -> int:
    with open(file) as lines:
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), 0)


@contextmanager
def peak_memory(metrics: dict[str, float], key: str, *, wanted: int = 0) -> Iterator[None]:
    """Note the peak of resident memory inside the block above what was resident before it and the `wanted` bytes."""
    before = _kib("/proc/self/status", "VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    except OSError:
        yield
        return
    yield
    metrics[key] = max(0, _kib("/proc/self/status", "VmHWM") - before - wanted)


def warm_memory(size: int) -> None:
    """Have about `size` bytes of free memory that cost what new memory costs on a real machine. Call it just before.

    A virtual machine with free page reporting hands memory that has been free for two seconds back to its host; using it
    again then costs twenty times a normal page fault (0.4 GB/s instead of 8), and whoever allocates most looks slowest for
    a reason that is none of his. So memory is taken, touched and freed: what was freed last is what the kernel gives out
    first. It must be in huge pages, as NumPy asks for them: with small ones, and with a file in memory that was held and
    made smaller instead, the kernel still gave out the pages that had been free for long.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the last region freed must not help the next
    np.empty(size, np.uint8)[::4096] = 1


def as_a_tensor(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array that begins at a multiple of 64 bytes, as PyTorch's tensors do; NumPy's own begin 16 bytes after one."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(np.float32).reshape(shape)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays hold the same bytes in the same shape."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def differing(loaded: Mapping[str, np.ndarray], expected: Iterable[tuple[str, np.ndarray]]) -> int:
    """How many arrays are missing, or not what is expected in every bit, or not expected at all."""
    names, wrong = set(), 0
    for name, array in expected:
        names.add(name)
        wrong += name not in loaded or not same_bits(loaded[name], array)
    return wrong + len(loaded.keys() - names)


def machine(folder: Path) -> dict[str, str]:
    """What the figures depend on, for people: processor, memory, kernel, file system."""
    with open("/proc/cpuinfo") as lines:
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
        )
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "file system": _file_system(folder),
        "Python": platform.python_version(),
    }


def _file_system(folder: Path) -> str:
    found, kind = "", "unknown"
    with open("/proc/mounts") as lines:
        for line in lines:
            _, point, name = line.split()[:3]
            if folder.resolve().is_relative_to(point) and len(point) >= len(found):
                found, kind = point, name
    return kind
