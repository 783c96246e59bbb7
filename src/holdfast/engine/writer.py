"""The write pipeline: one thread copies arrays into staging buffers and hashes them, others write the buffers to the disk.

    feeding thread:  array → copy a step into a buffer → hash that step while it is in the CPU's cache → full buffer → sink
                     snapshot (an image of a file, hashed when it was made) → sink: no copy is made of the copy
                     values on devices → staging buffers, one ahead → hash → sink (see fetching.py)

What is hashed is the copy, so digest and file agree even if somebody changes the array meanwhile. Memory above the state is
bounded by MAX_BUFFERS staging buffers. Where a file of the newest checkpoint has the same header, its digests are compared before
anything is written: as far as they are equal, but no further than the first block that is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec
import numpy as np

from holdfast.engine import arrays, buffers, devices, fetching
from holdfast.engine.devices import AnyArray
from holdfast.engine.links import Known, Links, block_digests, block_ends
from holdfast.engine.plan import FilePlan
from holdfast.engine.progress import Meter
from holdfast.engine.sink import PAGE, OpenFile, Sink
from holdfast.engine.snapshot import Image
from holdfast.errors import StorageError
from holdfast.format.digests import BLOCK_BYTES, block_count, file_digest, hasher, hexdigest
from holdfast.format.manifest import File
from holdfast.storage import Location

SMALL_BYTES = 64 << 10  # arrays up to here are copied in groups: a Python call for each costs more than its bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What a pipeline has written.

    Attributes:
        files: all data files.
        chunks: for each variable (file index, first byte, end, block digests).
        linked: names of the files that are links.
    """

    files: list[File]
    chunks: list[tuple[int, int, int, tuple[str, ...]]]
    linked: list[str] = field(default_factory=list)


class _Stream:
    """The bytes of one file on their way into staging buffers."""

    def __init__(self, sink: Sink, file: OpenFile, meter: Meter) -> None:
        self._sink, self._file, self._meter = sink, file, meter
        self._buffer: buffers.Buffer | None = None
        self._at = 0  # in the buffer
        self.position = 0  # in the file

    def room(self) -> int:
        """Bytes left in the current buffer; a new one is taken if there is none."""
        if self._buffer is None:
            self._buffer, self._at = self._sink.take(), 0
        return buffers.STAGING_BYTES - self._at

    def window(self, length: int) -> np.ndarray:
        """The next `length` bytes (at most `room()`), to be filled."""
        assert self._buffer is not None
        return self._buffer.array[self._at : self._at + length]

    def view(self, start: int, length: int) -> memoryview:
        """`length` bytes of the window from its byte `start`."""
        assert self._buffer is not None
        return self._buffer.view[self._at + start : self._at + start + length]

    def advance(self, length: int) -> None:
        """The next `length` bytes are filled."""
        assert self._buffer is not None
        self._at += length
        self.position += length
        self._meter.add(length)
        if self._at == buffers.STAGING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Queue what is in the buffer."""
        if self._buffer is None:
            return
        buffer, length, self._buffer = self._buffer, self._at, None
        if self._file.writer.direct and length % PAGE:
            buffer.array[length : -(-length // PAGE) * PAGE] = 0
        self._sink.put(self._file, buffer, length, self.position - length)

    def drop(self) -> None:
        """Give the buffer back without writing it."""
        if self._buffer is not None:
            self._sink.give(self._buffer)
            self._buffer = None


class Pipeline:
    """A set of files on its way to the disk: `feed` it and then `finish` it, in one thread or in two.

    Args:
        folder: where to; the files must not exist.
        plans: what goes where.
        values: the arrays that the plans' `members` count, of any strides and byte order, or what stands for them on devices.
        images: for each plan its file, in memory that nobody changes; None where it is to be made of the arrays.
        links: files that may be linked instead.
    """

    def __init__(
        self,
        folder: Location,
        plans: Sequence[FilePlan],
        values: Sequence[AnyArray],
        *,
        images: Sequence[Image | None] | None = None,
        links: Links | None = None,
    ) -> None:
        self._folder, self._plans, self._values = folder, plans, values
        self._images = images or [None] * len(plans)
        self._links = links
        self._devices = devices.devices_of(values)
        self._written = Written([], [(0, 0, 0, ())] * len(values))
        self._sink = Sink(sum(plan.size for plan in plans))

    def feed(self, meter: Meter) -> None:
        """Read all arrays and images: what happens to the arrays after this matters no more.

        Args:
            meter: told of every step.

        Raises:
            StorageError: the store refused an operation; its `__cause__` is the store's error. Files written so far remain.
        """
        try:
            devices.settle(self._devices)
            self._sink.start()
            for plan, image in zip(self._plans, self._images, strict=True):
                self._write(plan, image, meter)
            self._values = []
        except BaseException:
            self._sink.close(abort=True)
            raise

    def finish(self) -> Written:
        """Return when each file is on the disk and synced; their names are not (the commit syncs the folder).

        Raises:
            StorageError: as from `feed`.
        """
        self._sink.close(abort=False)
        return self._written

    def abort(self) -> None:
        """Stop writing, if it goes on; no thread outlives this."""
        self._sink.close(abort=True)

    def _write(self, plan: FilePlan, image: Image | None, meter: Meter) -> None:
        known = self._links.like(plan) if self._links else None
        seen: list[str] = []
        hashes = block_digests(plan, self._values, image)
        if known is not None and known.matches(hashes, seen) and self._link(plan, known, seen):
            meter.add(plan.size)
            return
        file = self._sink.add_file(self._folder / plan.name, plan.size)
        if image is None and self._devices and not devices.are_local([self._values[i] for i in plan.members]):
            hashes.close()  # which may hold buffers
            digests = self._write_fetched(plan, file, meter)
        elif image is None:
            stream = _Stream(self._sink, file, meter)
            local = cast("Sequence[np.ndarray]", self._values)  # those of this file are
            digests = _stream_file(stream, plan, local, len(self._written.files), self._written)
        else:
            memory = image.memory.data
            for at in range(0, plan.size, BLOCK_BYTES):
                length = min(BLOCK_BYTES, plan.size - at)
                self._sink.put_memory(file, memory[at:], length, at)
                meter.add(length)
            digests = [
                *seen,
                *hashes,
            ]  # those of what a device has written are made here, while it is written to the disk
            self._place(plan, digests)
        try:
            self._sink.finish(file)
        except OSError as error:
            raise StorageError.of(error, f"cannot write {file.path}") from error
        header_digest = hexdigest(plan.header)
        digest = file_digest(header_digest, digests)
        self._written.files.append(File(plan.name, plan.size, digest, len(plan.header), header_digest))

    def _write_fetched(self, plan: FilePlan, file: OpenFile, meter: Meter) -> list[str]:
        """Queue a file whose values lie on devices; returns the digests of its blocks."""
        digests: list[str] = []
        hashing = fetching.Hashing(plan, self._values)
        with contextlib.closing(fetching.fetched(plan, self._values, self._sink.take, self._sink.give)) as stream:
            for buffer, at, length in stream:
                digests += hashing.add(buffer.view[:length], at)
                buffer.array[length : -(-length // PAGE) * PAGE] = 0
                self._sink.put(file, buffer, length, at)
                meter.add(length)
        self._place(plan, digests)
        return digests

    def _link(self, plan: FilePlan, known: Known, digests: Sequence[str]) -> bool:
        assert self._links is not None
        blocks = list(zip(block_ends(plan, self._values), digests, strict=True))
        if not self._links.link(known, self._folder / plan.name, blocks):
            return False
        self._place(plan, digests)
        self._written.files.append(msgspec.structs.replace(known.file, name=plan.name))
        self._written.linked.append(plan.name)
        return True

    def _place(self, plan: FilePlan, digests: Sequence[str]) -> None:
        """Note where the variables of a file are, given the digests of all its blocks."""
        index, at, number = len(self._written.files), len(plan.header), 0
        for i in plan.members:
            end = at + self._values[i].nbytes
            count = block_count(end - at)
            self._written.chunks[i] = (index, at, end, tuple(digests[number : number + count]))
            at, number = end, number + count


def write_files(folder: Location, plans: Sequence[FilePlan], values: Sequence[AnyArray], meter: Meter) -> Written:
    """Write data files from arrays: see `Pipeline`."""
    pipeline = Pipeline(folder, plans, values)
    pipeline.feed(meter)
    return pipeline.finish()


def _stream_file(
    stream: _Stream, plan: FilePlan, values: Sequence[np.ndarray], index: int, written: Written
) -> list[str]:
    """Copy and hash the arrays of a file into staging buffers; returns the digests of its blocks."""
    digests: list[str] = []
    try:
        _copy_bytes(stream, np.frombuffer(plan.header, np.uint8))
        run: list[int] = []
        run_bytes = 0
        for i in plan.members:
            value = values[i]
            nbytes = value.nbytes
            if run and (
                nbytes > SMALL_BYTES or run_bytes + nbytes > stream.room() or values[run[0]].dtype != value.dtype
            ):
                digests += _write_run(stream, run, values, run_bytes, index, written)
                run, run_bytes = [], 0
            if nbytes > SMALL_BYTES or nbytes > stream.room():
                start = stream.position
                blocks = _write_large(stream, value)
                written.chunks[i] = (index, start, stream.position, tuple(blocks))
                digests += blocks
            else:
                run.append(i)
                run_bytes += nbytes
        if run:
            digests += _write_run(stream, run, values, run_bytes, index, written)
        stream.flush()
    finally:
        stream.drop()
    return digests


def _copy_bytes(stream: _Stream, data: np.ndarray) -> None:
    while data.size:
        length = min(data.size, stream.room())
        np.copyto(stream.window(length), data[:length])
        stream.advance(length)
        data = data[length:]


def _write_run(
    stream: _Stream, run: list[int], values: Sequence[np.ndarray], run_bytes: int, index: int, written: Written
) -> list[str]:
    """Small arrays of one dtype that fit the buffer: copied by one call."""
    stream.room()
    window = stream.window(run_bytes)
    dtype = arrays.stored_dtype(values[run[0]].dtype)
    flat = [values[i] if values[i].ndim == 1 else values[i].reshape(-1) for i in run]
    np.concatenate(flat, out=window.view(dtype))
    digests: list[str] = []
    at, start = 0, stream.position
    staged = stream.view(0, run_bytes)
    for i, array in zip(run, flat, strict=True):
        end = at + array.nbytes
        blocks = (hexdigest(staged[at:end]),) if end > at else ()
        written.chunks[i] = (index, start + at, start + end, blocks)
        digests += blocks
        at = end
    stream.advance(run_bytes)
    return digests


def _write_large(stream: _Stream, value: np.ndarray) -> list[str]:
    flat = arrays.flat_bytes(value)
    itemsize = value.dtype.itemsize
    blocks: list[str] = []
    for start in range(0, value.nbytes, BLOCK_BYTES):
        digest = hasher()
        at, stop = start, min(start + BLOCK_BYTES, value.nbytes)
        while at < stop:
            length = min(buffers.STEP_BYTES, stop - at, stream.room())
            piece = (
                flat[at : at + length]
                if flat is not None
                else arrays.gather(value, at // itemsize, (at + length) // itemsize)
            )
            np.copyto(stream.window(length), piece)
            digest.update(stream.view(0, length))
            stream.advance(length)
            at += length
        blocks.append(digest.hexdigest())
    return blocks
