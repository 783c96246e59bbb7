"""The write pipeline: one thread copies arrays into staging buffers and hashes them, others write the buffers to the disk.

    caller's thread:  array → copy a step into a buffer → hash that step while it is in the CPU's cache → full buffer → queue
    writer threads:   queue → write_at → buffer back to the pool; the last write of a file also syncs it

What is hashed is the copy, so digest and file agree even if somebody changes the array meanwhile. Memory above the state is
bounded by MAX_BUFFERS staging buffers. An error in a writer thread stops the pipeline and is raised in the caller's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.engine import arrays, buffers
from holdfast.engine.crew import Crew
from holdfast.engine.plan import FilePlan
from holdfast.engine.progress import Meter
from holdfast.errors import StorageError
from holdfast.format.digests import BLOCK_BYTES, file_digest, hasher, hexdigest
from holdfast.format.manifest import File
from holdfast.storage import Location, Writer

WRITER_THREADS = 4  # on a busy machine 2.4 GB/s with 4, 2.2 with 3, 2.0 with 2 (docs/design/004-pipelines.md)
STEP_BYTES = 512 << 10  # copied and hashed at a time: fits the second-level cache; 2.7 GB/s with 1 MiB, 3.0 with this
SMALL_BYTES = 64 << 10  # arrays up to here are copied in groups: a Python call for each costs more than its bytes
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Written:
    """What a pipeline has written: the files, and for each variable (file index, first byte, end, block digests)."""

    files: list[File]
    chunks: list[tuple[int, int, int, tuple[str, ...]]]


@dataclass(slots=True)
class _OpenFile:
    writer: Writer
    path: str
    size: int
    pending: int = 1  # writes under way, and one for the producer until it has queued the last
    lock: threading.Lock = field(default_factory=threading.Lock)

    def done(self) -> bool:
        with self.lock:
            self.pending -= 1
            return self.pending == 0


class _Sink:
    """The writer threads and the buffers they share with the producer."""

    def __init__(self, total_bytes: int) -> None:
        # A small save must not pay for the fresh memory of all buffers.
        self._allowed = threading.Semaphore(
            max(2, min(buffers.MAX_BUFFERS, -(-total_bytes // buffers.STAGING_BYTES) + 1))
        )
        self._queue: queue.SimpleQueue[tuple[_OpenFile, buffers.Buffer, int, int] | None] = queue.SimpleQueue()
        self._error: tuple[BaseException, str] | None = None
        self._failed = threading.Event()
        self._files: list[_OpenFile] = []
        self._count = max(1, min(WRITER_THREADS, -(-total_bytes // buffers.STAGING_BYTES)))
        self._crew = Crew()

    def start(self) -> None:
        """Start the writer threads; `close` ends them, also if not all could be started."""
        for number in range(self._count):
            self._crew.start(self._work, f"holdfast-write-{number}")

    def add_file(self, location: Location, size: int) -> _OpenFile:
        try:
            writer = location.store.create(location.path, size, direct=True)
        except OSError as error:
            raise StorageError.of(error, f"cannot create {location}") from error
        file = _OpenFile(writer, location.path, size)
        self._files.append(file)
        return file

    def take(self) -> buffers.Buffer:
        self._allowed.acquire()
        if self._failed.is_set():
            self._allowed.release()
            self._raise()
        return buffers.take()

    def put(self, file: _OpenFile, buffer: buffers.Buffer, length: int, offset: int) -> None:
        with file.lock:
            file.pending += 1
        self._queue.put((file, buffer, length, offset))

    def give(self, buffer: buffers.Buffer) -> None:
        buffers.give(buffer)
        self._allowed.release()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            file, buffer, length, offset = task
            try:
                if not self._failed.is_set():
                    if file.writer.direct:  # the rest of a page is cut off again in finish()
                        length = -(-length // _PAGE) * _PAGE
                    file.writer.write_at(buffer.view[:length], offset)
                    self.finish(file)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread, by _raise
                self._fail(error, file.path)
            finally:
                self.give(buffer)

    def finish(self, file: _OpenFile) -> None:
        """Count a write, or the producer's last word on a file, as done; whoever is last syncs and closes the file."""
        if file.done():
            file.writer.truncate(file.size)
            file.writer.sync()
            file.writer.close()

    def _fail(self, error: BaseException, path: str) -> None:
        self._error = self._error or (error, path)
        self._failed.set()

    def _raise(self) -> None:
        if self._error is not None:
            error, path = self._error
            if isinstance(error, OSError):
                raise StorageError.of(error, f"cannot write {path}") from error
            if isinstance(error, Exception):  # a store's own fault
                raise StorageError(f"cannot write {path}: {type(error).__name__}: {error}") from error
            raise error

    def close(self, *, abort: bool) -> None:
        if abort:
            self._failed.set()
        for _ in range(self._count):
            self._queue.put(None)
        try:
            self._crew.wait()
        finally:
            for file in self._files:
                try:
                    file.writer.close()
                except OSError as error:
                    self._fail(error, file.path)
        if not abort:
            self._raise()


class _Stream:
    """The bytes of one file on their way into staging buffers."""

    def __init__(self, sink: _Sink, file: _OpenFile, meter: Meter) -> None:
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
        if self._file.writer.direct and length % _PAGE:
            buffer.array[length : -(-length // _PAGE) * _PAGE] = 0
        self._sink.put(self._file, buffer, length, self.position - length)

    def drop(self) -> None:
        """Give the buffer back without writing it."""
        if self._buffer is not None:
            self._sink.give(self._buffer)
            self._buffer = None


def write_files(folder: Location, plans: Sequence[FilePlan], values: Sequence[np.ndarray], meter: Meter) -> Written:
    """Write data files, each synced when this returns; their names are not (the commit syncs the folder).

    Args:
        folder: where to; the files must not exist.
        plans: what goes where.
        values: the arrays that the plans' `members` count, of any strides and byte order.
        meter: told of every step.

    Raises:
        StorageError: the store refused an operation; its `__cause__` is the store's error. Files written so far remain.
    """
    written = Written([], [(0, 0, 0, ())] * len(values))
    sink = _Sink(sum(plan.size for plan in plans))
    try:
        sink.start()
        for plan in plans:
            _write_file(folder, plan, values, sink, meter, written)
    except BaseException:
        sink.close(abort=True)
        raise
    sink.close(abort=False)
    return written


def _write_file(
    folder: Location, plan: FilePlan, values: Sequence[np.ndarray], sink: _Sink, meter: Meter, written: Written
) -> None:
    file = sink.add_file(folder / plan.name, plan.size)
    stream = _Stream(sink, file, meter)
    index, digests = len(written.files), []
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
    try:
        sink.finish(file)
    except OSError as error:
        raise StorageError.of(error, f"cannot write {file.path}") from error
    header_digest = hexdigest(plan.header)
    digest = file_digest(header_digest, digests)
    written.files.append(File(plan.name, plan.size, digest, len(plan.header), header_digest))


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
            length = min(STEP_BYTES, stop - at, stream.room())
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
