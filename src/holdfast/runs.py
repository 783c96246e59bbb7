"""A run's checkpoints as a whole: list, verify, pin, prune, clean, export."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import msgspec

from holdfast.engine import catalog, commit, removal, retention
from holdfast.engine.alone import copy_file, replace_folder
from holdfast.engine.catalog import Found, complete
from holdfast.engine.commit import storage_errors
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.reader import Wanted, raise_if_damaged, read_chunks, verify_header
from holdfast.engine.source import Source
from holdfast.errors import CheckpointNotFoundError, CorruptCheckpointError, FormatError
from holdfast.format import layout, manifest as manifests, safetensors
from holdfast.format.digests import file_digest
from holdfast.format.values import trainer_from_bytes
from holdfast.reading import Checkpoint, read_listed
from holdfast.storage import AnyPath, Location, resolve


def serials(checkpoint_dir: AnyPath) -> list[int]:
    """The serials of the complete checkpoints of a run, ascending; empty if there are none. Creates and deletes nothing.

    Raises:
        StorageError: the folder or a manifest cannot be read.
    """
    run = resolve(checkpoint_dir)
    with storage_errors(f"cannot list {run}"):
        return sorted(found.serial for found in complete(run))


def latest_serial(checkpoint_dir: AnyPath) -> int | None:
    """The serial of the newest complete checkpoint of a run; None if there is none. Creates and deletes nothing.

    To resume, use `CheckpointManager.restore`: it does not take checkpoints that cannot be used for none at all.

    Raises:
        StorageError: the folder or a manifest cannot be read.
    """
    run = resolve(checkpoint_dir)
    with storage_errors(f"cannot list {run}"):
        newest = next(complete(run), None)
    return None if newest is None else newest.serial


def checkpoints(checkpoint_dir: AnyPath) -> list[Found]:
    """The complete checkpoints of a run with their manifests, ascending."""
    run = resolve(checkpoint_dir)
    with storage_errors(f"cannot list {run}"):
        return sorted(complete(run), key=lambda found: found.serial)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A checkpoint that was found whole.

    Attributes:
        path: its folder.
        serial: its number in its run; None if it stands alone.
        files: how many files there are beside the manifest.
        variables: how many variables.
        nbytes: bytes that were read and checked.
    """

    path: str
    serial: int | None
    files: int
    variables: int
    nbytes: int


def verify(path: AnyPath, *, serial: int | None = None, progress: ProgressOption = None) -> VerifyReport:
    """Check every bit of a checkpoint: manifest, headers, all data, and that they agree.

    Args:
        path: a run folder (its newest complete checkpoint is verified), or a checkpoint's own folder.
        serial: which checkpoint of a run.
        progress: see `save_params`.

    Raises:
        CorruptCheckpointError: bytes are not those that were saved; it names every damaged variable.
        CheckpointNotFoundError: there is no complete checkpoint.
        FormatError: manifest, headers or trainer files break the specification.
        StorageError: the system refused to read.
    """
    location = resolve(path)
    with storage_errors(f"cannot read {location}"):
        folder, number = catalog.locate(location, serial)
        manifest = catalog.read_manifest(folder)
        manifests.check(manifest, str(folder / layout.MANIFEST))
        damage: list[CorruptCheckpointError] = []
        with Source(folder, manifest) as source:
            _verify_files(source, damage)
            wanted = [Wanted(entry, chunk) for entry in manifest.variables for chunk in entry.chunks]
            with metered("verify", sum(w.chunk.nbytes for w in wanted), progress) as meter:
                try:
                    read_chunks(source, wanted, verify=True, meter=meter)
                except CorruptCheckpointError as error:
                    damage.append(error)
    if damage:
        names = [name for error in damage for name in error.variables]
        raise CorruptCheckpointError("\n".join(map(str, damage)), path=damage[0].path, variables=names) from damage[0]
    return VerifyReport(str(folder), number, len(manifest.files), len(manifest.variables), manifest.nbytes)


def _verify_files(source: Source, damage: list[CorruptCheckpointError]) -> None:
    """Check all that is no data; damage is added to the list, what breaks the specification is raised."""
    manifest, headers = source.manifest, dict[int, dict[str, None]]()
    for number, (file, chunks) in enumerate(zip(manifest.files, manifests.placed(manifest), strict=True)):
        path = source.path(number)
        if file.header_size is None:
            try:
                data = read_listed(source, number)
            except CorruptCheckpointError as error:
                damage.append(error)
                continue
            if (trainer_id := layout.trainer_id_of(file.name)) is not None:
                trainer_from_bytes(data, path, trainer_id)
            continue
        assert file.header_digest is not None
        if not verify_header(source, number):
            headers[number] = {}
            continue
        if file_digest(file.header_digest, (block for *_, chunk in chunks for block in chunk.blocks)) != file.digest:
            raise FormatError(f"{path}: the manifest's digest of the file is not that of its blocks")
        _compare_header(source, number, chunks)
    try:
        raise_if_damaged(source, headers)
    except CorruptCheckpointError as error:
        damage.append(error)


def _compare_header(
    source: Source, number: int, chunks: list[tuple[int, int, manifests.Entry, manifests.Chunk]]
) -> None:
    """Manifest and safetensors header must say the same, or tools that read only one of them would see other values."""
    file, path, reader = source.manifest.files[number], source.path(number), source.reader(number)
    assert file.header_size is not None
    header = bytes(reader.view(0, file.header_size))
    if safetensors.header_size(header[:8], file.size, path) != file.header_size:
        raise FormatError(f"{path}: its header has another length than the manifest says")
    tensors = safetensors.parse_header(header[8:], file.size, path)
    described = {}
    for start, stop, entry, chunk in chunks:
        box = chunk.box(entry.shape)
        name = entry.name if chunk.offset is None else f"{entry.name}@{','.join(map(str, box.offset))}"
        described[name] = safetensors.Tensor(
            entry.dtype, box.shape, (start - file.header_size, stop - file.header_size)
        )
    if described != tensors:
        names = sorted(n for n in {*described, *tensors} if described.get(n) != tensors.get(n))
        raise FormatError(f"{path}: header and manifest disagree on {', '.join(map(repr, names[:10]))}")


def clean_checkpoint(checkpoint_dir: AnyPath, *, delete_dir: bool = False) -> list[int]:
    """Delete every checkpoint of a run, pinned ones too, with what dead writers left; returns their serials.

    Nothing foreign is touched. Incomplete checkpoints are not deleted either: they may be another program's. Serials begin
    at 0 again if nothing is left.

    Args:
        checkpoint_dir: the run folder; nothing happens if it does not exist.
        delete_dir: whether to remove the folder too, if it is empty then.

    Raises:
        StorageError: the system refused an operation; what was deleted before stays deleted.
    """
    run = resolve(checkpoint_dir)
    with storage_errors(f"cannot clean {run}"):
        gone = []
        for found in sorted(complete(run), key=lambda f: f.serial):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                commit.retire(found.folder, found.serial)
                gone.append(found.serial)
        commit.sweep(run)
        removal.wait()
        if delete_dir and run.store.stat(run.path) is not None and not run.store.list(run.path):
            run.store.remove_folder(run.path)
            run.store.sync_folder(run.parent.path)
        return gone


def prune(checkpoint_dir: AnyPath, *, keep: int, keep_period: int | None = None) -> list[int]:
    """Delete all but the newest complete checkpoints of a run, and what dead writers left; returns the deleted serials.

    Args:
        checkpoint_dir: the run folder.
        keep: how many of the newest stay; pinned ones stay besides.
        keep_period: those whose step (serial, if it has none) is a multiple of this stay too.

    Raises:
        ValueError: a number is below 1.
        StorageError: the system refused an operation.
    """
    rules = retention.Rules(newest=keep, period=keep_period)
    run = resolve(checkpoint_dir)
    with storage_errors(f"cannot prune {run}"):
        if run.store.stat(run.path) is not None:
            run.store.sync_folder(run.path)  # the newest may be one whose writer was killed before its own sync
        gone = retention.prune(run, rules)
        commit.sweep(run)
        removal.wait()
    return gone


def _pin_of(checkpoint_dir: AnyPath, serial: int) -> Location:
    folder, _ = catalog.locate(resolve(checkpoint_dir), serial)
    catalog.read_outline(folder)
    return folder / layout.PINNED


def pin(checkpoint_dir: AnyPath, serial: int) -> None:
    """Keep a checkpoint whatever the rules of rotation say, until `unpin`; durable when this returns.

    Raises:
        CheckpointNotFoundError: there is no such complete checkpoint, or a rotation was faster.
        ValueError: `serial` is not a whole number from 0.
        StorageError: the system refused an operation.
    """
    with storage_errors(f"cannot pin checkpoint_{serial}"):
        pinned = _pin_of(checkpoint_dir, serial)
        try:
            with contextlib.suppress(FileExistsError):
                commit.write_small(pinned, b"")
            pinned.store.sync_folder(pinned.parent.path)
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(f"{pinned.parent} was deleted just now, by a rotation or by hand") from error
        catalog.read_outline(pinned.parent)  # whoever moves it away now sees the pin, and moves it back


def unpin(checkpoint_dir: AnyPath, serial: int) -> None:
    """Let rotation delete a checkpoint again.

    Raises:
        CheckpointNotFoundError: there is no such complete checkpoint.
        ValueError: `serial` is not a whole number from 0.
        StorageError: the system refused an operation.
    """
    with storage_errors(f"cannot unpin checkpoint_{serial}"):
        pinned = _pin_of(checkpoint_dir, serial)
        with contextlib.suppress(FileNotFoundError):
            pinned.store.remove(pinned.path)
        pinned.store.sync_folder(pinned.parent.path)


def export(path: AnyPath, out: AnyPath, *, serial: int | None = None) -> list[str]:
    """Make a `save_params` folder out of a checkpoint's parameters: by hard links, where the file system has them.

    Args:
        path: a run folder (its newest complete checkpoint is taken), or a checkpoint's own folder.
        out: the new folder; an earlier save there is replaced as `save_params` does it.
        serial: which checkpoint of a run.

    Returns:
        The names of the files.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint.
        ValueError: it holds no parameters.
        ForeignFolderError: the folder is not Holdfast's own.
        StorageError, DiskFullError: the system refused an operation.
    """
    source, target = resolve(path), resolve(out)
    with storage_errors(f"cannot export {source}"):
        folder, _ = catalog.locate(source, serial)
        manifest = catalog.read_manifest(folder)
    manifests.check(manifest, str(folder / layout.MANIFEST))
    learned = {entry.name for entry in manifest.variables if entry.kind == "parameter"}
    with Checkpoint(folder, None, manifest, verify=True) as checkpoint:
        aliases = {alias: first for alias, first in checkpoint.aliases().items() if first in learned}
    kept = [file.name for file in manifest.files if layout.is_parameter_file(file.name)]
    if not kept:
        raise ValueError(f"{folder} holds no parameters: mark them by holdfast.parameters() when it is saved")
    numbers = {old: kept.index(file.name) for old, file in enumerate(manifest.files) if file.name in kept}

    def fill(attempt: commit.Attempt) -> bytes:
        with storage_errors(f"cannot export into {attempt.folder}"):
            for name in kept:
                copy_file(folder / name, attempt.folder / name)
        return manifests.to_bytes(
            msgspec.structs.replace(
                manifest,
                content="params",
                serial=None,
                attempt=attempt.id,
                files=tuple(file for file in manifest.files if file.name in kept),
                variables=tuple(
                    msgspec.structs.replace(
                        entry, chunks=tuple(msgspec.structs.replace(c, file=numbers[c.file]) for c in entry.chunks)
                    )
                    for entry in manifest.variables
                    if entry.kind == "parameter"
                ),
                aliases=aliases,
            )
        )

    # Links take no space, so only where they are not to be had can a full disk be in the way.
    needed = sum(file.size for file in manifest.files if file.name in kept)
    replace_folder(target, needed, fill, check_space=False)
    return kept
