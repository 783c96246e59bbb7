"""The read pipeline: threads read blocks, hash them, and put them into their targets.

Four ways to read, chosen by looking, not by name:
    many small variables         one system call reads a run of them, each straight into its own array
    large, in the page cache     a step at a time straight into its array, and hashed there, if that lies as the file does
                                 else a block at a time hashed in, and copied out of, a mapping of the file
    large, on the disk           a block at a time by direct I/O into a staging buffer, hashed and copied from there

What goes to a device is read into a page-locked staging buffer in any case, and copied from there once its digest is known to be
right. The threads take turns, so some read while the device copies for others.

A block that is cast or inspected is so in pieces: what that makes of it would else be several times its size, in each thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from holdfast import dtypes
from holdfast.engine import arrays, buffers, devices
from holdfast.engine.crew import Crew
from holdfast.engine.devices import AnyArray, Device, Piece, Remote
from holdfast.engine.pause import collection_paused
from holdfast.engine.progress import Meter
from holdfast.engine.source import Source
from holdfast.errors import CorruptCheckpointError, HoldfastError, StorageError
from holdfast.format.digests import BLOCK_BYTES, Hasher, hasher, hexdigest
from holdfast.format.manifest import Chunk, Entry
from holdfast.storage import Reader

DISK_THREADS = 6  # 2.4 GB/s from the disk with 6, 2.2 with 4 (benchmarks, row "load, cold")
MEMORY_THREADS = 4  # but no more than cores: what one hashes must still be in its cache when it copies
SMALL_BYTES = 64 << 10
RUN_BYTES = 4 << 20
RUN_LENGTH = 1024
PIECE_ELEMENTS = 256 << 10  # inspected and cast at a time: 4 MiB of complex numbers at most
_PAGE = 4096
_LINE = 64  # bytes of the processor's cache line: what PyTorch's tensors begin at; NumPy's arrays begin 16 bytes after
_SHORT = "the file is shorter than it was when it was opened"


class Wanted(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A chunk to read and where to put it.

    Attributes:
        entry: the variable, for messages.
        chunk: which bytes.
        target: array of the chunk's shape, of any strides and dtype (values are cast); one on a device is of the variable's shape,
            and the chunk all of it; None: only verify.
        inspect: called with the values, flat and piece by piece in any order, before they go anywhere.
    """

    entry: Entry
    chunk: Chunk
    target: AnyArray | None = None
    inspect: Callable[[np.ndarray], None] | None = None


class _Block(msgspec.Struct, frozen=True, eq=False):
    """A part of a large chunk, of at most one block."""

    wanted: Wanted
    number: int
    start: int  # in the file
    end: int
    flat: np.ndarray | None  # the target's bytes, if it is laid out as the file is


class _Run(msgspec.Struct, frozen=True, eq=False):
    """Small chunks that lie one behind the other."""

    file: int
    start: int
    end: int
    members: list[Wanted]
    targets: list[np.ndarray]  # one for each member; none if they are only to be verified, or go to devices


class _Bad:
    """Damaged variables found so far, by file."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, None]] = {}
        self._lock = threading.Lock()

    def add(self, file: int, name: str) -> None:
        with self._lock:
            self.found.setdefault(file, {})[name] = None


def read_chunks(source: Source, wanted: Sequence[Wanted], *, verify: bool, meter: Meter) -> None:
    """Read chunks into their targets.

    Args:
        source: the checkpoint.
        wanted: what to read; targets must not overlap in memory.
        verify: whether to check every block's digest.
        meter: told of every block.

    Raises:
        CorruptCheckpointError: blocks are damaged; it names all of their variables. Targets may hold anything then.
        StorageError: the system refused an operation.
    """
    bad = _Bad()
    with collection_paused():
        on_devices: list[Device] = []
        tasks = iter(list(_tasks(wanted, on_devices)))
    devices.settle(dict.fromkeys(on_devices))
    _run_threads(lambda: _work(source, tasks, verify, meter, bad), _thread_count(source, wanted))
    raise_if_damaged(source, bad.found)


def _thread_count(source: Source, wanted: Sequence[Wanted]) -> int:
    total = sum(one.chunk.nbytes for one in wanted)
    large = [one for one in wanted[:: max(1, len(wanted) // 16)] if one.chunk.nbytes > SMALL_BYTES]
    cached = all(source.reader(one.chunk.file).is_cached(*_first_block(one.chunk)) for one in large)
    useful = min(MEMORY_THREADS, os.cpu_count() or 1) if cached else DISK_THREADS
    return max(1, min(useful, -(-total // RUN_BYTES)))


def _first_block(chunk: Chunk) -> tuple[int, int]:
    return chunk.range[0], min(BLOCK_BYTES, chunk.nbytes)


def raise_if_damaged(source: Source, found: dict[int, dict[str, None]]) -> None:
    """Raise what was found, if anything was."""
    if not found:
        return
    names = [name for names in found.values() for name in names]
    parts = []
    for file, damaged in found.items():
        listed = ", ".join(map(repr, list(damaged)[:10])) + (" …" if len(damaged) > 10 else "")
        parts.append(f"{source.path(file)}: {listed}" if damaged else f"{source.path(file)}: its header")
    message = f"digests do not match, these bytes are not what was saved: {'; '.join(parts)}. Use an older checkpoint or a copy"
    raise CorruptCheckpointError(message, path=source.path(next(iter(found))), variables=[n for n in names if n])


def _tasks(wanted: Sequence[Wanted], on_devices: list[Device]) -> Iterator[_Block | _Run]:
    """What is to be done, small chunks together; the devices that it goes to are noted."""
    members: list[Wanted] = []
    targets: list[np.ndarray] = []
    file = end = -1
    small, run = min(SMALL_BYTES, buffers.STAGING_BYTES), min(RUN_BYTES, buffers.STAGING_BYTES)
    for one in sorted(wanted, key=_position):
        chunk = one.chunk
        lo, hi = chunk.range
        if lo == hi:
            continue
        buffer = _buffer(one)
        plain = buffer is not None or one.target is None
        if isinstance(one.target, Remote):
            on_devices.append(one.target.device)
            plain = _is_plain_remote(one)
        if hi - lo > small or not plain or one.inspect is not None:
            flat = None if buffer is None else buffer.reshape(-1).view(np.uint8)
            for number, at in enumerate(range(lo, hi, BLOCK_BYTES)):
                stop = min(at + BLOCK_BYTES, hi)
                yield _Block(one, number, at, stop, None if flat is None else flat[at - lo : stop - lo])
            continue
        if members and (
            chunk.file != file
            or lo != end
            or len(members) >= RUN_LENGTH
            or hi - members[0].chunk.range[0] > run
            or (buffer is None) != (not targets)
        ):
            yield _Run(file, members[0].chunk.range[0], end, members, targets)
            members, targets = [], []
        members.append(one)
        if buffer is not None:
            targets.append(buffer)
        file, end = chunk.file, hi
    if members:
        yield _Run(file, members[0].chunk.range[0], end, members, targets)


def _position(one: Wanted) -> tuple[int, tuple[int, int]]:
    return one.chunk.file, one.chunk.range


def _buffer(one: Wanted) -> np.ndarray | None:
    """The target as something that system calls can fill with the chunk's bytes; None if there is no such thing."""
    target = one.target
    if target is None or isinstance(target, Remote):
        return None
    dtype = target.dtype
    if dtype is not dtypes.to_numpy(one.entry.dtype) and dtype != dtypes.to_numpy(one.entry.dtype):
        return None
    if dtype.isbuiltin == 1 and target.flags.c_contiguous and not arrays.BIG_ENDIAN_MACHINE:
        return target  # as it is: a view of each of 100,000 would take as long as reading them
    return arrays.flat_bytes(target)


def _is_plain_remote(one: Wanted) -> bool:
    """Whether the target is on a device, and takes the chunk's bytes as they are."""
    return isinstance(one.target, Remote) and one.target.dtype == dtypes.to_numpy(one.entry.dtype)


def _run_threads(work: Callable[[], Iterable[None]], count: int) -> None:
    """Run `work` in so many threads, this one included; the first error of any stops all and is raised here."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for _ in work():
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)
            stop.set()

    crew = Crew()
    try:
        for number in range(1, count):
            crew.start(run, f"holdfast-read-{number}")
        run()
    except BaseException:
        stop.set()
        raise
    finally:
        crew.wait()
    if errors:
        # An interrupt tells more than the errors that it causes.
        raise next((e for e in errors if not isinstance(e, Exception)), errors[0])


def _work(source: Source, tasks: Iterator[_Block | _Run], verify: bool, meter: Meter, bad: _Bad) -> Iterable[None]:
    scratch: _Scratch = {}
    try:
        for task in tasks:  # a list's iterator hands each task to one thread
            if isinstance(task, _Run):
                _read_run(source, task, verify, bad, scratch)
                meter.add(task.end - task.start)
            else:
                _read_block(source, task, verify, bad, scratch)
                meter.add(task.end - task.start)
            yield
    finally:
        for buffer in scratch.values():
            buffers.give(buffer)


def _read_run(source: Source, run: _Run, verify: bool, bad: _Bad, scratch: _Scratch) -> None:
    reader = source.reader(run.file)
    filled: Sequence[Any] = run.targets
    targets: Sequence[Any] = run.targets
    if not run.targets:
        device = next(iter(devices.devices_of([one.target for one in run.members])), None)
        staged = _scratch(scratch, device).array[: run.end - run.start]
        filled = [staged]
        targets = [staged[m.chunk.range[0] - run.start : m.chunk.range[1] - run.start] for m in run.members]
    try:
        count = reader.read_into(filled, run.start)
    except OSError as error:
        raise StorageError.of(error, f"cannot read {source.path(run.file)}") from error
    is_sound = count == run.end - run.start
    if not is_sound:
        bad.add(run.file, run.members[0].entry.name)
    if verify:
        for one, target in zip(run.members, targets, strict=True):
            if hexdigest(target) != one.chunk.blocks[0]:
                bad.add(run.file, one.entry.name)
                is_sound = False
    if is_sound and not run.targets:
        pairs = zip(run.members, targets, strict=True)
        devices.put([Piece(one.target, 0, staged) for one, staged in pairs if isinstance(one.target, Remote)])()


_Scratch = dict[str, buffers.Buffer]  # this thread's staging buffers, by the kind of device that they are for


def _scratch(scratch: _Scratch, device: Device | None = None) -> buffers.Buffer:
    kind = "" if device is None else device.kind
    if kind not in scratch:
        scratch[kind] = buffers.take(device)
    return scratch[kind]


def _read_block(source: Source, block: _Block, verify: bool, bad: _Bad, scratch: _Scratch) -> None:
    file = block.wanted.chunk.file
    read = _read_block_to_device if isinstance(block.wanted.target, Remote) else read_block
    try:
        digest = read(source.reader(file), block.start, block.end, block, verify, scratch)
    except HoldfastError:
        raise
    except OSError as error:
        name = block.wanted.entry.name
        raise StorageError.of(error, f"cannot read variable {name!r} in {source.path(file)}") from error
    if digest == _SHORT or (verify and digest != block.wanted.chunk.blocks[block.number]):
        bad.add(file, block.wanted.entry.name)


def _read_block_to_device(
    reader: Reader, start: int, end: int, block: _Block, verify: bool, scratch: _Scratch
) -> str | None:
    """`read_block` for a target on a device, which is given nothing that is damaged."""
    wanted = block.wanted
    assert isinstance(wanted.target, Remote)
    buffer = _scratch(scratch, wanted.target.device)
    skip, length = 0, end - start
    if reader.is_cached(start, length):
        with reader.view(start, length) as view:
            np.copyto(buffer.array[:length], np.frombuffer(view, np.uint8))
        reader.forget(start, length)
    else:
        skip = start % _PAGE
        if reader.read_direct(buffer.view[: _whole_pages(skip + length)], start - skip) < skip + length:
            return _SHORT
    piece = buffer.array[skip : skip + length]
    digest = hexdigest(piece.data) if verify else None
    if digest is None or digest == wanted.chunk.blocks[block.number]:
        for part in _parts(piece, block, wanted.target):
            devices.put([part])()
    return digest


def _parts(piece: np.ndarray, block: _Block, target: Remote) -> Iterator[Piece]:
    """The bytes of a block as a device takes them: cast, if need be, and then in several parts."""
    if _is_plain_remote(block.wanted):
        yield Piece(target, block.number * BLOCK_BYTES, piece)
        return
    values = piece.view(dtypes.to_numpy(block.wanted.entry.dtype))
    first = block.number * BLOCK_BYTES // values.itemsize
    for at in range(0, values.size, PIECE_ELEMENTS):
        made = arrays.cast(values[at : at + PIECE_ELEMENTS], target.dtype)
        yield Piece(target, (first + at) * target.dtype.itemsize, made.view(np.uint8))


def read_block(reader: Reader, start: int, end: int, block: _Block, verify: bool, scratch: _Scratch) -> str | None:
    """Read one block into its target; its digest, if asked for."""
    digest = hasher() if verify else None
    if reader.is_cached(start, end - start):
        if block.flat is not None and (block.flat.ctypes.data - start) % _LINE == 0:
            return _read_in_place(reader, start, block.flat, digest)
        # The whole block at once: glibc copies pieces below the cache's size with `rep movsb`, which is slow into arrays that
        # are not aligned to 64 bytes (blind, of a limit of 15 GB/s: 10 by 1 MiB, 12 by 4, 14 by 8).
        with reader.view(start, end - start) as view:
            piece = np.frombuffer(view, np.uint8)
            if digest is not None:
                digest.update(view)
            _deliver(piece, block)
            del piece
        reader.forget(start, end - start)
        return digest.hexdigest() if digest is not None else None
    buffer = _scratch(scratch)
    skip = start % _PAGE
    length = end - start
    got = reader.read_direct(buffer.view[: _whole_pages(skip + length)], start - skip)
    if got < skip + length:
        return _SHORT
    if digest is not None:
        digest.update(buffer.view[skip : skip + length])
    _deliver(buffer.array[skip : skip + length], block)
    return digest.hexdigest() if digest is not None else None


def _read_in_place(reader: Reader, start: int, flat: np.ndarray, digest: Hasher | None) -> str | None:
    """Let the system copy a cached block, and hash what it has copied while that is in the processor's cache.

    No page of the file is mapped: where the page cache has it in small pages, as of all files below some 16 MiB, mapping and
    unmapping take as long as copying (processor time for 1 GiB: 0.14 s so, 0.20 s with a mapping, 0.08 s for a plain copy).
    Where the target lies otherwise than the file, the system's copy is slow: 0.21 s.
    """
    step = flat.size if digest is None else buffers.STEP_BYTES
    for at in range(0, flat.size, step):
        piece = flat.data[at : at + step]
        if reader.read_into([piece], start + at) < len(piece):
            return _SHORT
        if digest is not None:
            digest.update(piece)
    return None if digest is None else digest.hexdigest()


def _deliver(piece: np.ndarray, block: _Block) -> None:
    """Put the bytes of a block where they belong."""
    if block.flat is not None:
        np.copyto(block.flat, piece)
        return
    wanted = block.wanted
    values = piece.view(dtypes.to_numpy(wanted.entry.dtype))
    first = block.number * BLOCK_BYTES // values.itemsize
    for at in range(0, values.size, PIECE_ELEMENTS):
        part = values[at : at + PIECE_ELEMENTS]
        if wanted.inspect is not None:
            wanted.inspect(part)
        if wanted.target is not None and not isinstance(wanted.target, Remote):
            arrays.scatter(part, wanted.target, first + at)


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE


def verify_header(source: Source, file: int) -> bool:
    """Whether the bytes before a file's data are those that were written."""
    described = source.manifest.files[file]
    assert described.header_size is not None
    try:
        with source.reader(file).view(0, described.header_size) as view:
            return hexdigest(view) == described.header_digest
    except OSError as error:
        if isinstance(error, HoldfastError):
            raise
        raise StorageError.of(error, f"cannot read {source.path(file)}") from error
