"""The threads that write to the disk, and what they share with the thread that feeds them: a bounded queue of memory.

    producer:         takes a staging buffer, fills it, puts it; or puts memory that nobody will change before `close`
    writer threads:   queue → write_at → buffer back to the pool; complete files are synced, many at a time

An error in a writer thread stops them all, and is raised in the producer's at its next call or in `close`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.engine import buffers
from holdfast.engine.crew import Crew
from holdfast.engine.devices import Device
from holdfast.errors import StorageError
from holdfast.storage import Location, Writer

WRITER_THREADS = 4  # on a busy machine 2.4 GB/s with 4, 2.2 with 3, 2.0 with 2 (docs/design/004-pipelines.md)
SYNC_FILES = 64
"""How many files are synced together. One commit of the file system's journal serves all: 152 files take 9 ms at the end, and
970 ms of the writers' time if each is synced when it is complete (docs/design/007-linking.md)."""

PAGE = 4096


@dataclass(slots=True)
class OpenFile:
    """A file that is being written, and how many writes of it are still to come."""

    writer: Writer
    path: str
    size: int
    pending: int = 1  # writes under way, and one for the producer until it has queued the last
    lock: threading.Lock = field(default_factory=threading.Lock)

    def done(self) -> bool:
        """Count one of them; whether it was the last."""
        with self.lock:
            self.pending -= 1
            return self.pending == 0


class Sink:
    """The writer threads and the buffers they share with the producer."""

    def __init__(self, total_bytes: int) -> None:
        # A small save must not pay for the fresh memory of all buffers.
        self._allowed = threading.Semaphore(
            max(2, min(buffers.MAX_BUFFERS, -(-total_bytes // buffers.STAGING_BYTES) + 1))
        )
        self._queue: queue.SimpleQueue[tuple[OpenFile, memoryview, int, buffers.Buffer | None] | None] = (
            queue.SimpleQueue()
        )
        self._error: tuple[BaseException, str] | None = None
        self._failed = threading.Event()
        self._files: list[OpenFile] = []
        self._unsynced: list[OpenFile] = []
        self._lock = threading.Lock()
        self._count = max(1, min(WRITER_THREADS, -(-total_bytes // buffers.STAGING_BYTES)))
        self._crew = Crew()

    def start(self) -> None:
        """Start the writer threads; `close` ends them, also if not all could be started."""
        for number in range(self._count):
            self._crew.start(self._work, f"holdfast-write-{number}")

    def add_file(self, location: Location, size: int) -> OpenFile:
        """Make a file; `finish` it once all of it is put."""
        try:
            writer = location.store.create(location.path, size, direct=True)
        except OSError as error:
            raise StorageError.of(error, f"cannot create {location}") from error
        file = OpenFile(writer, location.path, size)
        self._files.append(file)
        return file

    def take(self, device: Device | None = None) -> buffers.Buffer:
        """A staging buffer, once one is free, for a device to copy to if one is named: `put` it, or `give` it back."""
        self._acquire()
        try:
            return buffers.take(device)
        except BaseException:
            self._allowed.release()
            raise

    def _acquire(self) -> None:
        self._allowed.acquire()
        if self._failed.is_set():
            self._allowed.release()
            self._raise()

    def put(self, file: OpenFile, buffer: buffers.Buffer, length: int, offset: int) -> None:
        """Have the first bytes of a buffer written; it must be zero up to the end of the page."""
        self._put(file, buffer.view[: _whole_pages(length) if file.writer.direct else length], offset, buffer)

    def put_memory(self, file: OpenFile, memory: memoryview, length: int, offset: int) -> None:
        """Have the first bytes of memory of whole pages written, which must stay as it is until `close`."""
        self._acquire()
        self._put(file, memory[: _whole_pages(length) if file.writer.direct else length], offset, None)

    def _put(self, file: OpenFile, memory: memoryview, offset: int, buffer: buffers.Buffer | None) -> None:
        with file.lock:
            file.pending += 1
        self._queue.put((file, memory, offset, buffer))

    def give(self, buffer: buffers.Buffer | None) -> None:
        """What was taken is free again."""
        if buffer is not None:
            buffers.give(buffer)
        self._allowed.release()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            file, memory, offset, buffer = task
            try:
                if not self._failed.is_set():
                    file.writer.write_at(memory, offset)  # the rest of a page is cut off again in finish()
                    self.finish(file)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread, by _raise
                self._fail(error, file.path)
            finally:
                self.give(buffer)

    def finish(self, file: OpenFile) -> None:
        """Count a write, or the producer's last word on a file, as done; whoever is last sees to it that the file is synced."""
        if not file.done():
            return
        if file.size % PAGE or not file.writer.direct:
            file.writer.truncate(file.size)
        if not file.writer.direct:  # what the page cache holds is better on its way early
            file.writer.sync()
            file.writer.close()
            return
        with self._lock:
            self._unsynced.append(file)
            batch = self._unsynced if len(self._unsynced) >= SYNC_FILES else []
            if batch:
                self._unsynced = []
        self._sync(batch)

    def _sync(self, files: Sequence[OpenFile]) -> None:
        for file in files:
            try:
                file.writer.sync()
                file.writer.close()
            except OSError as error:
                self._fail(error, file.path)
                return

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
        """Return when the threads are over and all files are closed: synced ones, unless this is to abort.

        Raises:
            StorageError: a write failed.
        """
        if abort:
            self._failed.set()
        for _ in range(self._count):
            self._queue.put(None)
        try:
            self._crew.wait()
            if not self._failed.is_set():
                self._sync(self._unsynced)
        finally:
            for file in self._files:
                try:
                    file.writer.close()
                except OSError as error:
                    self._fail(error, file.path)
        if not abort:
            self._raise()


def _whole_pages(length: int) -> int:
    return -(-length // PAGE) * PAGE
