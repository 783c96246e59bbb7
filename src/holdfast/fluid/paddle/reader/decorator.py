"""Readers made of readers: mapped, shuffled, joined, and read ahead in threads.

What happens in a thread reaches the program: an error of a reader or a mapper is raised where the samples are used (Paddle
waits forever), and a program that stops early stops the threads.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from holdfast.fluid.paddle.unplanned import Unplanned

Reader = Callable[[], Iterator[Any]]

PipeReader = Unplanned(
    "paddle.reader.PipeReader", "reading a command's output is not planned; use subprocess in a reader"
)


class ComposeNotAligned(ValueError):
    """The readers of a `compose` have different numbers of samples."""


def cache(reader: Reader) -> Reader:
    """A reader of the samples that `reader` yields now: it is read once, at this call, and kept in memory."""
    samples = tuple(reader())
    return lambda: iter(samples)


def map_readers(func: Callable[..., Any], *readers: Reader) -> Reader:
    """A reader of `func(a, b, …)` with one sample of each reader; it ends with the shortest."""
    return lambda: map(func, *(reader() for reader in readers))


def shuffle(reader: Reader, buf_size: int) -> Reader:
    """A reader of the same samples, shuffled within windows of `buf_size` samples.

    The order comes from Python's global generator, so `random.seed` decides it, and Holdfast's checkpoints can hold its state.
    """

    def shuffled() -> Iterator[Any]:
        samples = iter(reader())
        while window := list(itertools.islice(samples, max(buf_size, 1))):
            random.shuffle(window)
            yield from window

    return shuffled


def chain(*readers: Reader) -> Reader:
    """A reader of all samples of the first reader, then of the second, and so on."""
    return lambda: itertools.chain(*(reader() for reader in readers))


def compose(*readers: Reader, check_alignment: bool = True) -> Reader:
    """A reader of tuples that join one sample of each reader: `(1, 2)` and `3` give `(1, 2, 3)`.

    Args:
        readers: what to join.
        check_alignment: False to end with the shortest reader instead of an error.

    Raises:
        ComposeNotAligned: while reading, when one reader ends before another.
    """
    missing = object()

    def composed() -> Iterator[tuple[Any, ...]]:
        sources = [reader() for reader in readers]
        rows = itertools.zip_longest(*sources, fillvalue=missing) if check_alignment else zip(*sources, strict=False)
        for number, row in enumerate(rows):
            if ended := [at for at, sample in enumerate(row) if sample is missing]:
                raise ComposeNotAligned(
                    f"compose: readers {ended} of {len(readers)} ended after {number} samples, others go on"
                )
            yield tuple(itertools.chain(*(sample if isinstance(sample, tuple) else (sample,) for sample in row)))

    return composed


def firstn(reader: Reader, n: int) -> Reader:
    """A reader of the first `n` samples."""
    return lambda: itertools.islice(reader(), n)


def buffered(reader: Reader, size: int) -> Reader:
    """A reader of the same samples in the same order, read ahead by a thread.

    Args:
        reader: what the thread reads.
        size: samples that wait at most; 0 or less for no limit.
    """

    def read_ahead() -> Iterator[Any]:
        return _from_threads([reader], size)

    return read_ahead


def multiprocess_reader(readers: Sequence[Reader], use_pipe: bool = True, queue_size: int = 1000) -> Reader:
    """A reader of the samples of all `readers`, as they come; the order within each one is kept.

    Each is read by a thread, not by a process as in Paddle: forking a process in which JAX's threads run can hang it. So
    samples may be of any kind, and need no pickling.

    Args:
        readers: at least one.
        use_pipe: without effect.
        queue_size: samples that wait at most.

    Raises:
        ValueError: `readers` is empty.
    """
    del use_pipe
    sources = list(readers)
    if not sources:
        raise ValueError("multiprocess_reader needs at least one reader")

    def merged() -> Iterator[Any]:
        return _from_threads(sources, queue_size)

    return merged


def xmap_readers(
    mapper: Callable[[Any], Any], reader: Reader, process_num: int, buffer_size: int, order: bool = False
) -> Reader:
    """A reader of `mapper(sample)`, computed by `process_num` threads, in the order of `reader`.

    Args:
        mapper: is called in several threads at once.
        reader: read by one thread.
        process_num: threads.
        buffer_size: mapped samples that wait at most.
        order: without effect: the order is kept either way, so that a run can be repeated.

    Raises:
        ValueError: `process_num` is not positive.
    """
    del order
    if process_num < 1:
        raise ValueError(f"xmap_readers: process_num must be positive, not {process_num!r}")

    def mapped() -> Iterator[Any]:
        pool = ThreadPoolExecutor(process_num, thread_name_prefix="xmap_readers")
        under_way: deque[Future[Any]] = deque()
        try:
            for sample in reader():
                under_way.append(pool.submit(mapper, sample))
                if len(under_way) >= max(process_num, buffer_size):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return buffered(mapped, max(buffer_size, 1))


class Fake:
    """Makes a reader that yields the first sample of a reader over and over, to time everything but the reading.

    Example:
        >>> list(Fake()(lambda: iter("ab"), 3)())
        ['a', 'a', 'a']
    """

    def __init__(self) -> None:
        self.data: Any = None
        self._read = False

    def __call__(self, reader: Reader, data_num: int) -> Reader:
        """A reader of `data_num` times the same sample; the first call reads it."""

        def repeated() -> Iterator[Any]:
            if not self._read:
                self.data, self._read = next(iter(reader())), True
            return itertools.repeat(self.data, data_num)

        return repeated


class _End:
    """What a thread leaves last in the queue: its error, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _from_threads(readers: Sequence[Reader], size: int) -> Iterator[Any]:
    """The samples of all readers, each read by a thread of its own."""
    waiting: queue.Queue[Any] = queue.Queue(max(size, 0))
    stopped = threading.Event()

    def put(value: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(value, timeout=0.1)
            except queue.Full:
                continue  # look again whether anybody still reads
            return True
        return False

    def read(reader: Reader) -> None:
        samples: Iterator[Any] = iter(())
        try:
            samples = iter(reader())
            for sample in samples:
                if not put(sample):
                    break
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that reads
            put(_End(error))
        else:
            put(_End(None))
        finally:
            if close := getattr(samples, "close", None):
                close()  # here, by the thread that ran it: files and pools of the reader end with it

    for reader in readers:
        threading.Thread(target=read, args=(reader,), name="paddle.reader", daemon=True).start()
    try:
        left = len(readers)
        while left:
            value = waiting.get()
            if not isinstance(value, _End):
                yield value
            elif value.error is not None:
                raise value.error
            else:
                left -= 1
    finally:
        stopped.set()
