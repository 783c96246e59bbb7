"""holdfast.open: a checkpoint as a lazy mapping of named arrays. Nothing is read before it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.adapters.ties import aliases_of
from holdfast.engine import catalog
from holdfast.engine.commit import storage_errors
from holdfast.engine.pause import collection_paused
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.reader import Wanted, raise_if_damaged, read_chunks
from holdfast.engine.source import Source
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    HoldfastError,
    StorageError,
    VersionError,
)
from holdfast.format import layout, manifest as manifests, safetensors, values
from holdfast.format.digests import BLOCK_BYTES, hasher, hexdigest
from holdfast.format.geometry import Box, overlap, relative, rows_of
from holdfast.format.manifest import Chunk, Entry, File, Manifest, Outline, UnreadEntry
from holdfast.storage import AnyPath, LocalStore, Location, resolve
from holdfast.variables import Variable

_REOPENINGS = 20


class LazyVariable:
    """A variable of an open checkpoint; `[…]` and `numpy.asarray` read it.

    Attributes:
        variable: its name, kind, dtype and shape.
    """

    def __init__(self, checkpoint: Checkpoint, entry: Entry) -> None:
        self._checkpoint, self._entry = checkpoint, entry
        self.variable = entry.variable

    @property
    def name(self) -> str:
        """The variable's name."""
        return self._entry.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The global shape."""
        return self._entry.shape

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype."""
        return dtypes.to_numpy(self._entry.dtype)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._entry.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._entry.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole value."""
        return self._entry.nbytes

    def __repr__(self) -> str:
        return f"<LazyVariable {self.name!r} {self._entry.dtype} {self.shape}>"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """The part of the value that NumPy would give for the index.

        If the index begins with an integer or a slice with a positive step, only the rows (of the first dimension) that it
        needs are read; with verification, the 8 MiB blocks they lie in. Any other index reads the whole variable.

        Returns:
            A read-only array, of the file's own pages where possible: copy it to keep or change it. It stays valid
            after the checkpoint is closed, and while a rotation deletes the files.

        Raises:
            IndexError: the index is out of bounds.
            CorruptCheckpointError: the bytes are not those that were saved.
            StorageError: the system refused to read.
            ClosedError: the checkpoint is closed.
        """
        needed = rows_of(index, self.shape)
        if needed is None:
            return _frozen(self._read(Box((0,) * len(self.shape), self.shape))[index])
        first, stop, rest = needed
        rows = Box((first, *(0,) * (len(self.shape) - 1)), (stop - first, *self.shape[1:]))
        return _frozen(self._read(rows)[rest])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[...]
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"{self.name!r} is {array.dtype}: as {np.dtype(dtype)} it needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def _read(self, box: Box) -> np.ndarray:
        with storage_errors(f"cannot read variable {self.name!r} of {self._checkpoint.path}"):
            for chunk in self._entry.chunks:
                inside = overlap(box, chunk.box(self.shape))
                if inside == box:
                    return self._chunk_rows(chunk, box)
            made = np.empty(box.shape, self.dtype)
            for chunk in self._entry.chunks:
                if (inside := overlap(box, chunk.box(self.shape))) is not None:
                    made[relative(inside, box).slices] = self._chunk_rows(chunk, inside)
            return made

    def _chunk_rows(self, chunk: Chunk, box: Box) -> np.ndarray:
        """A box out of one chunk: a view of its rows, cut to the box."""
        whole = chunk.box(self.shape)
        inside = relative(box, whole)
        row_bytes = math.prod(whole.shape[1:]) * self.dtype.itemsize
        first, stop = (inside.offset[0], inside.offset[0] + inside.shape[0]) if box.shape else (0, 1)
        data = self._checkpoint._bytes(self._entry, chunk, first * row_bytes, stop * row_bytes)
        rows = np.frombuffer(data, self.dtype).reshape((*inside.shape[:1], *whole.shape[1:]))
        return rows[(slice(None), *inside.slices[1:])] if box.shape else rows


def _frozen(array: Any) -> np.ndarray:
    made: np.ndarray = np.asarray(array)
    made.flags.writeable = False
    return made


class Checkpoint(Mapping[str, LazyVariable]):
    """An open checkpoint: a mapping from names to variables that are read when asked for. Use it in a `with` block.

    Threads may share it. It goes on to give what was saved if the checkpoint is replaced or deleted after it was opened.

    Attributes:
        path: the folder or file.
        serial: its number in its run; None if it stands alone.
        manifest: the commit record, as docs/format.md describes it.
        verified: whether reads check digests; False for a safetensors file that has none.
    """

    def __init__(
        self, folder: Location, serial: int | None, manifest: Manifest, *, verify: bool, path: str = ""
    ) -> None:
        self.path = path or str(folder)
        self.serial, self.manifest, self.verified = serial, manifest, verify
        self.source = Source(folder, manifest)
        self._folder = folder
        self._record = str(folder / layout.MANIFEST)
        self._entries: Mapping[str, Entry | UnreadEntry] = manifests.by_name(manifest.variables, self._record)

    @property
    def step(self) -> int | None:
        """The training step that was given when it was saved."""
        return self.manifest.step

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that were given when it was saved."""
        return dict(self.manifest.metrics)

    @property
    def variables(self) -> dict[str, Variable]:
        """Every variable, without its value.

        Raises:
            FormatError: one has a dtype that the format does not know.
        """
        for entry in self._entries.values():
            if entry.dtype not in dtypes.ITEMSIZE or len(entry.shape) > safetensors.MAX_DIMENSIONS:
                self._checked(entry)
        with collection_paused():
            return {name: entry.variable for name, entry in self._entries.items()}

    @property
    def trainer_args(self) -> Any:
        """What `save_checkpoint(trainer_args=)` was given; None if there was nothing."""
        return self.trainer()[0]

    def trainer(self, trainer_id: int = 0) -> tuple[Any, dict[str, Any]]:
        """A trainer's arguments and the values of its state by name; (None, {}) if the checkpoint has none.

        Raises:
            CorruptCheckpointError: the file's digest does not match.
        """
        names = [file.name for file in self.manifest.files]
        name = layout.trainer_file(trainer_id)
        if name not in names:
            return None, {}
        number = names.index(name)
        return values.trainer_from_bytes(read_listed(self.source, number), self.source.path(number), trainer_id)

    def aliases(self, trainer_id: int = 0) -> dict[str, str]:
        """The second names of arrays that were tied → the names of the variables that have their values."""
        return {**self.manifest.aliases, **aliases_of(self.trainer(trainer_id)[1])}

    def __getitem__(self, name: str) -> LazyVariable:
        try:
            entry = self._entries[name]
        except KeyError:
            raise KeyError(f"{self.path} has no variable {name!r}; list(checkpoint) has all names") from None
        return LazyVariable(self, self._checked(entry))

    def _checked(self, entry: Entry | UnreadEntry) -> Entry:
        found = manifests.whole(entry)
        if not is_bare(self.manifest):
            manifests.check_entry(self.manifest, found, self._record)
        return found

    def _all(self) -> Sequence[Entry]:
        if not isinstance(self.manifest, Outline):
            return self.manifest.variables
        try:
            manifest = catalog.read_manifest(self._folder)  # faster than to decode every entry by itself
        except HoldfastError:
            manifest = None
        if manifest is None or manifest.attempt != self.manifest.attempt:  # replaced or deleted since
            return [self._checked(entry) for entry in self._entries.values()]
        manifests.check(manifest, self._record)
        return manifest.variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    __eq__ = object.__eq__  # that of Mapping would compare variables that nobody has read
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path}: {len(self)} variables>"

    def read(self, names: Collection[str] | None = None, *, progress: ProgressOption = None) -> dict[str, np.ndarray]:
        """Variables as new arrays, read by several threads.

        Args:
            names: which; None for all.
            progress: see `save_params`.

        Returns:
            Arrays of their own, by name.

        Raises:
            KeyError: there is no variable of a name.
            CorruptCheckpointError: bytes are not those that were saved; every damaged variable is named.
            FormatError: the manifest has a variable that breaks the specification.
            StorageError: the system refused to read.
            ClosedError: the checkpoint is closed.
        """
        entries = [self[name]._entry for name in names] if names is not None else self._all()
        made = {entry.name: np.empty(entry.shape, dtypes.to_numpy(entry.dtype)) for entry in entries}
        wanted = [w for entry in entries for w in wanted_chunks(entry, made[entry.name])]
        with metered("load", sum(entry.nbytes for entry in entries), progress) as meter:
            read_chunks(self.source, wanted, verify=self.verified, meter=meter)
        return made

    def open_files(self) -> None:
        """Open every file now; what is open stays readable if the checkpoint is replaced or deleted meanwhile."""
        for number in range(len(self.manifest.files)):
            self.source.reader(number)

    def close(self) -> None:
        """Release all files. Arrays that were read stay valid."""
        self.source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bytes(self, entry: Entry, chunk: Chunk, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` of a chunk; verified together with the rest of the blocks they lie in."""
        reader = self.source.reader(chunk.file)
        base = chunk.range[0]
        if not self.verified:
            return reader.view(base + start, stop - start)
        for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            lo, hi = number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, chunk.nbytes)
            digest = hasher()
            with reader.view(base + lo, hi - lo) as view:
                digest.update(view)
            if digest.hexdigest() != chunk.blocks[number]:
                raise_if_damaged(self.source, {chunk.file: {entry.name: None}})
        return reader.view(base + start, stop - start)


def wanted_chunks(entry: Entry, target: np.ndarray) -> Iterator[Wanted]:
    """What to read for a whole variable, into an array of its shape."""
    for chunk in entry.chunks:
        yield Wanted(entry, chunk, target if chunk.offset is None else target[chunk.box(entry.shape).index])


def read_listed(source: Source, number: int) -> bytes:
    """All bytes of a JSON file, checked against its digest whatever else is verified: it is small.

    Raises:
        CorruptCheckpointError: the digest does not match.
        FormatError: it is absurdly large.
        StorageError: the system refused to read.
    """
    path, file = source.path(number), source.manifest.files[number]
    if file.size > catalog.MAX_JSON_BYTES:
        raise FormatError(f"{path} has {file.size:,} bytes; no such file of a checkpoint is that large")
    with storage_errors(f"cannot read {path}"), source.reader(number).view(0, file.size) as view:
        data = bytes(view)
    if hexdigest(data) != file.digest:
        raise CorruptCheckpointError(
            f"{path} is damaged: its digest does not match. Use an older checkpoint or a copy", path=path
        )
    return data


def open(path: AnyPath, *, serial: int | None = None, verify: bool = True) -> Checkpoint:
    """A checkpoint whose variables are read when asked for, by name and by rows. Needs no permission to write.

    Args:
        path: a run folder (its newest complete checkpoint is opened), a checkpoint folder, a `save_params` folder, or a
            `.safetensors` file, which may be anybody's: it has no digests, so nothing is verified then.
        serial: which checkpoint of a run.
        verify: whether reads check digests.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint; the message says what is there.
        FormatError, VersionError: the manifest or the header is malformed, or of a newer version.
        StorageError: the system refused to read.
        ValueError: `serial` is not a whole number from 0.

    Example:
        >>> import numpy as np, holdfast
        >>> holdfast.save_params({"fc.w": np.arange(6.0).reshape(3, 2)}, "weights")
        >>> with holdfast.open("weights") as checkpoint:
        ...     checkpoint["fc.w"][1:3].tolist()
        [[2.0, 3.0], [4.0, 5.0]]
    """
    return _open(path, serial, verify, catalog.read_outline)


def open_whole(path: AnyPath, *, serial: int | None, verify: bool) -> Checkpoint:
    """Like `open`, with the manifest decoded as a whole: half the time for one who is going to read everything."""
    return _open(path, serial, verify, catalog.read_manifest)


def _open(path: AnyPath, serial: int | None, verify: bool, read: Callable[[Location], Manifest]) -> Checkpoint:
    location = resolve(path)
    try:
        return _found(location, serial, verify, read)
    except (CheckpointNotFoundError, FormatError) as error:
        if type(error) is VersionError or not isinstance(location.store, LocalStore):
            raise
        from holdfast.interop.recognise import advice

        if said := advice(location.path):
            raise type(error)(f"{error}{said}") from error
        raise


def _found(location: Location, serial: int | None, verify: bool, read: Callable[[Location], Manifest]) -> Checkpoint:
    with storage_errors(f"cannot open {location}"):
        entry = location.store.stat(location.path)
        if entry is not None and entry.kind == "file" and serial is None:
            return Checkpoint(location.parent, None, _of_safetensors(location), verify=False, path=str(location))
        for _ in range(_REOPENINGS):
            folder, found = catalog.locate(location, serial)
            head = catalog.record_head(folder)
            try:
                checkpoint = Checkpoint(folder, found, read(folder), verify=verify)
                try:
                    checkpoint.open_files()
                except BaseException:
                    checkpoint.close()
                    raise
            except (CheckpointNotFoundError, StorageError, CorruptCheckpointError):
                if location.store.stat(folder.path) is not None and catalog.record_head(folder) == head:
                    raise  # nobody has moved it: that is how it is
            else:
                # The same record before and after: all files that are open now belong to it, whatever becomes of their names.
                if catalog.record_head(folder) == head:
                    return checkpoint
                checkpoint.close()
        raise CheckpointNotFoundError(f"{location} is replaced faster than it can be opened; try again")


def _of_safetensors(location: Location) -> Manifest:
    """A manifest, without digests, of a safetensors file that somebody wrote."""
    path = str(location)
    reader = location.store.open(path)
    try:
        prefix = bytearray(min(8, reader.size))
        reader.read_into([memoryview(prefix)], 0)
        size = safetensors.header_size(bytes(prefix), reader.size, path)
        header = bytearray(size - 8)
        reader.read_into([memoryview(header)], 8)
        tensors = safetensors.parse_header(bytes(header), reader.size, path)
        total = reader.size
    finally:
        reader.close()
    entries = tuple(
        Entry(
            name,
            "parameter",
            True,
            t.dtype,
            t.shape,
            (Chunk(0, (size + t.data_offsets[0], size + t.data_offsets[1]), ()),),
        )
        for name, t in tensors.items()
    )
    for entry in entries:
        if reason := manifests.name_problem(entry.name):
            raise FormatError(f"{path}: tensor {entry.name[:100]!r}: {reason}")
    blank = "0" * 32
    return _Bare(
        format="holdfast", version=manifests.VERSION, content="params", serial=None, step=None, created="", writer="",
        attempt="", world_size=1, metrics={}, files=(File(location.name, total, blank, size, blank),), variables=entries,
    )  # fmt: skip


class _Bare(Manifest, frozen=True):
    """Made from a bare safetensors file, whose header was checked already: there are no digests to count."""


def is_bare(manifest: Manifest) -> bool:
    """Whether there is only a safetensors file, without a record of what it should hold."""
    return isinstance(manifest, _Bare)
