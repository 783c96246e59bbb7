"""The bytes of a file whose values lie on devices, on their way through page-locked staging buffers.

While one buffer is hashed, the next is being filled: a device copies ten times as fast as a disk writes, so two are enough.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from holdfast.engine import arrays, buffers, devices
from holdfast.engine.devices import AnyArray, Device, Flight, Piece, Remote
from holdfast.engine.plan import FilePlan
from holdfast.format.digests import BLOCK_BYTES, hasher

IN_FLIGHT = 2

Take = Callable[[Device], buffers.Buffer]
Give = Callable[[buffers.Buffer], None]


def fetched(
    plan: FilePlan, values: Sequence[AnyArray], take: Take, give: Give
) -> Generator[tuple[buffers.Buffer, int, int]]:
    """The bytes of a file in their order: buffers, each with what they are of the file: its first byte, and their number.

    Whoever is given a buffer gives it back; those that have not been handed out yet are given back here.

    Args:
        plan: of the file.
        values: the arrays that the plan's `members` count, some of them on devices.
        take: where buffers come from.
        give: where buffers go that nobody asks for any more.
    """
    device = devices.devices_of([values[i] for i in plan.members])[0]
    under_way: deque[tuple[buffers.Buffer, int, int, Flight]] = deque()
    parts = _parts(plan, values)
    try:
        for at in range(0, plan.size, buffers.STAGING_BYTES):
            if len(under_way) == IN_FLIGHT:
                yield _landed(under_way, give)
            buffer = take(device)
            length = min(buffers.STAGING_BYTES, plan.size - at)
            try:
                flight = _fill(buffer.array[:length], at, parts)
            except BaseException:
                give(buffer)
                raise
            under_way.append((buffer, at, length, flight))
        while under_way:
            yield _landed(under_way, give)
    finally:
        for buffer, _, _, flight in under_way:
            try:
                flight()
            finally:
                give(buffer)


def _landed(under_way: deque[tuple[buffers.Buffer, int, int, Flight]], give: Give) -> tuple[buffers.Buffer, int, int]:
    buffer, at, length, flight = under_way.popleft()
    try:
        flight()
    except BaseException:
        give(buffer)
        raise
    return buffer, at, length


def _parts(plan: FilePlan, values: Sequence[AnyArray]) -> deque[tuple[AnyArray, int, int]]:
    """What a file consists of: arrays, and where each begins and ends."""
    at = len(plan.header)
    parts: deque[tuple[AnyArray, int, int]] = deque([(np.frombuffer(plan.header, np.uint8), 0, at)])
    for i in plan.members:
        parts.append((values[i], at, at + values[i].nbytes))
        at += values[i].nbytes
    return parts


def _fill(window: np.ndarray, at: int, parts: deque[tuple[AnyArray, int, int]]) -> Flight:
    """Copy the file's bytes from `at` into a window, or start to; parts that are used up are removed."""
    pieces: list[Piece] = []
    stop = at + window.size
    while parts:
        value, start, end = parts[0]
        first, last = max(at, start), min(stop, end)
        target = window[first - at : max(first, last) - at]
        if isinstance(value, Remote):
            if target.size:
                pieces.append(Piece(value, first - start, target))
        elif target.size:
            flat = arrays.flat_bytes(value)
            itemsize = value.dtype.itemsize
            np.copyto(
                target,
                flat[first - start : last - start]
                if flat is not None
                else arrays.gather(value, (first - start) // itemsize, (last - start) // itemsize),
            )
        if end > stop:
            break
        parts.popleft()
    return devices.fetch(pieces)


class Hashing:
    """The digests of a file's blocks, made of the file's bytes as they come."""

    def __init__(self, plan: FilePlan, values: Sequence[AnyArray]) -> None:
        self._blocks = _blocks(plan, values)
        self._start, self._end = next(self._blocks, (plan.size, plan.size))
        self._digest = hasher()
        self._size = plan.size

    def add(self, view: memoryview, at: int) -> Iterator[str]:
        """The digests of the blocks that end in a piece of the file, which begins at `at`; consume it."""
        stop = at + len(view)
        while self._start < min(stop, self._size):
            first, last = max(at, self._start), min(stop, self._end)
            self._digest.update(view[first - at : last - at])
            if self._end > stop:
                return
            yield self._digest.hexdigest()
            self._digest = hasher()
            self._start, self._end = next(self._blocks, (self._size, self._size))


def _blocks(plan: FilePlan, values: Sequence[AnyArray]) -> Iterator[tuple[int, int]]:
    at = len(plan.header)
    for i in plan.members:
        stop = at + values[i].nbytes
        yield from ((start, min(start + BLOCK_BYTES, stop)) for start in range(at, stop, BLOCK_BYTES))
        at = stop


def block_digests(plan: FilePlan, values: Sequence[AnyArray]) -> Iterator[str]:
    """The digests of a file's blocks in their order; as much is fetched as is asked for, and a little more."""
    hashing = Hashing(plan, values)
    with contextlib.closing(fetched(plan, values, buffers.take, buffers.give)) as stream:
        for buffer, at, length in stream:
            try:
                yield from hashing.add(buffer.view[:length], at)
            finally:
                buffers.give(buffer)
