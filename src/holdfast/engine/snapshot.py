"""The snapshot: a private copy of a state, taken while the training loop is held, in memory that is kept from save to save.

The copy of a file is its image, header and all, at a page's beginning: it is written from there, and not copied again. It is hashed
while it is still in the CPU's cache: that holds the loop for a sixth more time, and takes nothing of its processors later.
Memory that was used before is what makes it fast: new pages come at 0.4 to 2 GB/s, warm ones are filled at the memory's own rate
(docs/design/006-asynchronous-saves.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from holdfast.engine import arrays, devices, pages
from holdfast.engine.buffers import STEP_BYTES
from holdfast.engine.crew import Crew
from holdfast.engine.devices import AnyArray, Device, Piece, Remote
from holdfast.engine.plan import FilePlan
from holdfast.format.digests import BLOCK_BYTES, block_count, hasher, hexdigest

COPY_THREADS = max(2, min(4, os.cpu_count() or 1))  # memory is busy with two to four, whatever the number of cores
PIECE_BYTES = BLOCK_BYTES  # what the threads take in turns: it has one digest
SMALL_BYTES = 64 << 10  # arrays up to here are copied in groups
_PAGE = 4096

Task = Callable[[], None]


class Pool:
    """The memory of a manager's snapshots: one arena, which grows to what the largest state takes, until `clear`.

    For a state that lies on devices it is page-locked as a whole, once it is there.

    Not for several threads, but for its own that make pages present.
    """

    def __init__(self) -> None:
        self._arena: np.ndarray | None = None
        self._kind = ""  # of the devices that it is page-locked for
        self._warming: Crew | None = None
        self._cancelled = threading.Event()
        self._process = os.getpid()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return 0 if self._arena is None else self._arena.nbytes

    def reserve(self, nbytes: int, device: Device | None = None) -> None:
        """Begin to make memory for snapshots of so many bytes; `memory` waits for what is not there yet.

        Args:
            nbytes: how much is needed.
            device: will copy to it.

        Raises:
            MemoryError: there is not so much.
        """
        if self._process != os.getpid():
            self._arena, self._warming, self._process = None, None, os.getpid()  # the parent's: not in this process
        if self._arena is not None and self.nbytes >= nbytes and (device is None or device.kind == self._kind):
            return
        self.clear()  # before there is more: never two of them
        try:
            arena = pages.allocate(nbytes, device)
        except MemoryError as error:
            raise MemoryError(f'{error}; save with snapshot="stream" or wait=True, which need 80 MiB') from error
        pieces = iter(range(0, nbytes, PIECE_BYTES))
        cancelled = self._cancelled = threading.Event()
        at_work = iter(range(COPY_THREADS - 1))

        def warm() -> None:
            for at in pieces:
                if cancelled.is_set() or not threading.main_thread().is_alive():  # nobody will use it
                    return
                arena[at : at + PIECE_BYTES : _PAGE] = 0
            if (
                device is not None and next(at_work, None) is None
            ):  # the last: a system locks pages that are there faster
                pages.lock(arena, device)

        self._arena, self._warming = arena, Crew()
        self._kind = "" if device is None else device.kind
        for number in range(COPY_THREADS):
            self._warming.start(warm, f"holdfast-prepare-{number}")

    def memory(self, nbytes: int, device: Device | None = None) -> np.ndarray:
        """Memory of so many bytes, all of it present; what it held before is gone.

        Args:
            nbytes: how much.
            device: will copy to it.
        """
        self.reserve(nbytes, device)
        if self._warming is not None:
            self._warming.wait()
            self._warming = None
        assert self._arena is not None
        return self._arena[:nbytes]

    def clear(self) -> None:
        """Give the memory back to the system, once nobody reads it any more."""
        self._cancelled.set()
        if self._warming is not None and self._process == os.getpid():
            self._warming.wait()
        self._arena = self._warming = None


class Image(NamedTuple):
    """A file as it will be.

    Attributes:
        memory: its bytes, filled up with zeros to whole pages.
        digests: of its blocks in their order; empty where a device has written the block: it is hashed while the loop goes on.
    """

    memory: np.ndarray
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Held:
    """Which files a snapshot copies.

    Attributes:
        plans: of all files.
        copied: whether a file is copied; the others hold nothing but values that never change.
    """

    plans: Sequence[FilePlan]
    copied: Sequence[bool]

    @classmethod
    def of(cls, plans: Sequence[FilePlan], immutable: Sequence[bool]) -> Held:
        """Which files, given which values never change."""
        return cls(plans, [not all(immutable[i] for i in plan.members) for plan in plans])

    @property
    def nbytes(self) -> int:
        """What the copy takes."""
        return sum(_whole_pages(plan.size) for plan, copied in zip(self.plans, self.copied, strict=True) if copied)

    def capture(self, values: Sequence[AnyArray], memory: np.ndarray) -> list[Image | None]:
        """Copy the values into images of their files; None for files that are not copied.

        Returns once the last byte is copied: whatever happens to the values then, in whatever stream of a device, the images stay.
        What devices were asked for before is done before their values are copied.
        """
        images: list[Image | None] = []
        tasks: list[Task] = []
        pieces: list[Piece] = []
        at = 0
        for plan, copied in zip(self.plans, self.copied, strict=True):
            if not copied:
                images.append(None)
                continue
            size = _whole_pages(plan.size)
            image = memory[at : at + size]
            at += size
            image[: len(plan.header)] = np.frombuffer(plan.header, np.uint8)
            image[plan.size :] = 0
            digests = [""] * sum(block_count(values[i].nbytes) for i in plan.members)
            tasks += _copies(plan, values, image, digests, pieces)
            images.append(Image(image, digests))
        devices.settle(devices.devices_of([piece.value for piece in pieces]))
        flight = devices.fetch(pieces)
        try:
            run_all(tasks)
        finally:
            flight()
        return images


def _copies(
    plan: FilePlan, values: Sequence[AnyArray], image: np.ndarray, digests: list[str], pieces: list[Piece]
) -> Iterator[Task]:
    at, number = len(plan.header), 0
    group: list[np.ndarray] = []
    start = first = 0
    for i in plan.members:
        value = values[i]
        end = at + value.nbytes
        if group and (
            isinstance(value, Remote)
            or value.nbytes > SMALL_BYTES
            or value.dtype != group[0].dtype
            or end - start > PIECE_BYTES
        ):
            yield _group_copy(group, image[start:at], digests, first)
            group = []
        if isinstance(value, Remote):
            if value.nbytes:
                pieces.append(Piece(value, 0, image[at:end]))
        elif value.nbytes > SMALL_BYTES:
            yield from _large_copies(value, image[at:end], digests, number)
        elif value.nbytes:
            if not group:
                start, first = at, number
            group.append(value)
        at, number = end, number + block_count(end - at)
    if group:
        yield _group_copy(group, image[start:at], digests, first)


def _group_copy(group: list[np.ndarray], window: np.ndarray, digests: list[str], number: int) -> Task:
    def copy() -> None:
        flat = [value if value.ndim == 1 else value.reshape(-1) for value in group]
        np.concatenate(flat, out=window.view(arrays.stored_dtype(group[0].dtype)))
        at, memory = 0, window.data
        for k, value in enumerate(flat, number):
            digests[k] = hexdigest(memory[at : at + value.nbytes])
            at += value.nbytes

    return copy


def _large_copies(value: np.ndarray, window: np.ndarray, digests: list[str], number: int) -> Iterator[Task]:
    flat = arrays.flat_bytes(value)
    if flat is None:  # other strides or byte order: NumPy finds the way, in one call

        def copy() -> None:
            np.copyto(window.view(arrays.stored_dtype(value.dtype)).reshape(value.shape), value)
            for k, at in enumerate(range(0, window.size, PIECE_BYTES), number):
                digests[k] = hexdigest(window[at : at + PIECE_BYTES].data)

        yield copy
        return
    for k, at in enumerate(range(0, flat.size, PIECE_BYTES), number):
        yield _copy(window[at : at + PIECE_BYTES], flat[at : at + PIECE_BYTES], digests, k)


def _copy(target: np.ndarray, source: np.ndarray, digests: list[str], number: int) -> Task:
    def copy() -> None:
        digest = hasher()
        for at in range(0, source.size, STEP_BYTES):
            step = target[at : at + STEP_BYTES]
            np.copyto(step, source[at : at + STEP_BYTES])
            digest.update(step.data)
        digests[number] = digest.hexdigest()

    return copy


def run_all(tasks: Sequence[Task]) -> None:
    """Do all tasks, in this thread and some others; the first error is raised when no thread works any more."""
    pending = iter(tasks)  # a list's iterator hands each to one thread
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for task in pending:
                if errors:
                    return
                task()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    crew = Crew()
    try:
        for number in range(1, min(COPY_THREADS, len(tasks))):
            crew.start(work, f"holdfast-copy-{number}")
        work()
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        crew.wait()
    if errors:
        # An interrupt tells more than the errors that it causes.
        raise next((e for e in errors if not isinstance(e, Exception)), errors[0])


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
