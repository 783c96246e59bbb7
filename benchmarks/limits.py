"""What the machine itself can do: the figures that those of the libraries are shares of."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

from benchmarks.instruments import make_cold, make_warm, timed, warm_memory

BLOCK = 8 << 20

TITLES = {
    "write_direct_2": "write, durable: O_DIRECT in blocks of 8 MiB, fallocate, fsync; 2 threads",
    "write_direct_4": "the same; 4 threads",
    "write_buffered": "write, durable: through the page cache, fsync; 1 thread",
    "read_direct_2": "read from the disk: O_DIRECT in blocks of 8 MiB; 2 threads",
    "read_direct_4": "the same; 4 threads",
    "read_warm_1": "page cache into memory that is in use already; 1 thread",
    "read_warm_2": "the same; 2 threads",
    "read_warm_fresh_2": "page cache into new memory; 2 threads",
    "copy_1": "memcpy between memory in use; 1 thread",
    "copy_2": "the same; 2 threads",
    "hash_1": "XXH3-128; 1 thread",
    "slowdown_1": "a plain write by 1 thread",  # these are no rates, but shares; benchmarks.training measures them
    "slowdown_2": "by 2 threads",
}
WRITE = ("write_direct_2", "write_direct_4", "write_buffered")
COPY = ("copy_2",)
READ_WARM = ("read_warm_1", "read_warm_2")
READ_FRESH = ("read_warm_fresh_2",)
READ_COLD = ("read_direct_2", "read_direct_4")
SLOWDOWN = ("slowdown_1", "slowdown_2")


def _on_threads(count: int, size: int, work: Callable[[int], object]) -> None:
    """Call work(offset) for each block, the blocks dealt out to so many threads."""

    def one(thread: int) -> None:
        for offset in range(thread * BLOCK, size, count * BLOCK):
            work(offset)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(count)))


def _open(path: Path, flags: int, *, direct: bool) -> int:
    try:
        return os.open(path, flags | (os.O_DIRECT if direct else 0), 0o644)
    except OSError as error:
        if direct and error.errno == errno.EINVAL:  # a file system without direct I/O: its limit is the buffered one
            return os.open(path, flags, 0o644)
        raise


def write(path: Path, source: memoryview, threads: int, *, direct: bool) -> None:
    """Write a new file, durably."""
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, direct=direct)
    if direct:
        os.posix_fallocate(descriptor, 0, len(source))
    _on_threads(threads, len(source), lambda at: os.pwrite(descriptor, source[at : at + BLOCK], at))
    os.fsync(descriptor)
    os.close(descriptor)


def _read(path: Path, target: memoryview, threads: int, *, direct: bool = False) -> None:
    descriptor = _open(path, os.O_RDONLY, direct=direct)
    _on_threads(threads, len(target), lambda at: os.preadv(descriptor, [target[at : at + BLOCK]], at))
    os.close(descriptor)


def memory(size: int) -> mmap.mmap:
    """Page-aligned, as direct I/O wants it, and in huge pages: scattered small ones halve what the disk takes (a request
    to it has room for so many pieces, here 254), and would flatter everybody's share of the limit.
    """
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.madvise(mmap.MADV_HUGEPAGE)
    return made


def measure(folder: Path, size: int, seed: int) -> dict[str, float]:
    """Bytes per second of each limit, on `size` bytes (a multiple of BLOCK)."""
    path, seconds = folder / "limit", {}
    source, target = memory(size), memory(size)
    a, b = np.frombuffer(source, np.uint8), np.frombuffer(target, np.uint8)
    np.random.default_rng(seed).random(out=a.view(np.float32), dtype=np.float32)
    b.fill(1)
    for threads in (1, 2):
        with timed(seconds, f"copy_{threads}"):
            _on_threads(threads, size, lambda at: np.copyto(b[at : at + BLOCK], a[at : at + BLOCK]))
    with timed(seconds, "hash_1"):
        digest = xxhash.xxh3_128()
        for at in range(0, size, BLOCK):
            digest.update(a[at : at + BLOCK])
    for key, threads, direct in [
        ("write_buffered", 1, False),
        ("write_direct_4", 4, True),
        ("write_direct_2", 2, True),
    ]:
        path.unlink(missing_ok=True)
        os.sync()
        if not direct:
            warm_memory(3 * size // 2)
        with timed(seconds, key):
            write(path, memoryview(source), threads, direct=direct)
    for threads in (2, 4):
        make_cold(path)
        with timed(seconds, f"read_direct_{threads}"):
            _read(path, memoryview(target), threads, direct=True)
    make_warm(path)
    for threads in (1, 2):
        with timed(seconds, f"read_warm_{threads}"):
            _read(path, memoryview(target), threads)
    warm_memory(3 * size // 2)
    with timed(seconds, "read_warm_fresh_2"):
        fresh = np.empty(size, np.uint8)
        _read(path, memoryview(fresh), 2)
    assert np.array_equal(a, fresh)
    path.unlink()
    return {key: size / value for key, value in seconds.items()}
