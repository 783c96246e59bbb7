"""Which checkpoints there are: complete ones only. Reads and never writes."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.engine.arguments import whole_number
from holdfast.engine.commit import list_or_empty
from holdfast.engine.pause import collection_paused
from holdfast.errors import CheckpointNotFoundError, ForeignFolderError, FormatError, HoldfastError, StorageError
from holdfast.format import layout
from holdfast.format.manifest import HEAD_BYTES, MANIFEST_PREFIX, M, Manifest, Outline, from_bytes, outline_from_bytes
from holdfast.storage import Location

MAX_JSON_BYTES = 1 << 30
"""A manifest or trainer file above this is refused unread: 5 million variables fit."""


_RELISTINGS = 20  # a rotation would have to overtake a reader this often before it says that there is nothing
_LOOKED_AT = 1000  # neighbours, for a message that says what may have been meant: 30 ms
_NOT_A_FILE = {errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class Found:
    """A complete checkpoint of a run."""

    serial: int
    folder: Location
    manifest: Outline
    pinned: bool


def read_small(location: Location) -> bytes:
    """All bytes of a small file.

    Raises:
        OSError: it is absent or cannot be read.
        FormatError: it is absurdly large.
    """
    reader = location.store.open(location.path)
    try:
        if reader.size > MAX_JSON_BYTES:
            raise FormatError(f"{location} has {reader.size:,} bytes; no such file of a checkpoint is that large")
        with reader.view(0, reader.size) as view:
            return bytes(view)
    finally:
        reader.close()


def read_manifest(folder: Location) -> Manifest:
    """The manifest of a complete checkpoint folder: valid, and every file it lists is there in its full size.

    The variables are not checked: see `format.manifest.check`.

    Raises:
        CheckpointNotFoundError: there is no folder, no manifest, or not every file.
        FormatError: the manifest is malformed or damaged.
        StorageError: it cannot be read.
    """
    return _read(folder, from_bytes)


def read_outline(folder: Location) -> Outline:
    """Like `read_manifest`, in half the time: the chunks of the variables stay undecoded."""
    return _read(folder, outline_from_bytes)


def _read(folder: Location, decode: Callable[[bytes, str], M]) -> M:
    path = folder / layout.MANIFEST
    try:
        with collection_paused():
            manifest = decode(read_small(path), str(path))
        there = {entry.name: entry for entry in folder.store.list(folder.path)}
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.store.stat(folder.path) is None:
            raise CheckpointNotFoundError(f"{folder} does not exist") from error
        raise CheckpointNotFoundError(f"no {layout.MANIFEST} in {folder}: no save was ever completed there") from error
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise FormatError(f"{path} is not a regular file") from error
        raise StorageError.of(error, f"cannot read {path}") from error
    problems = []
    for file in manifest.files:
        entry = there.get(file.name)
        if entry is None:
            problems.append(f"{file.name} is missing")
        elif entry.kind != "file":
            problems.append(f"{file.name} is not a regular file")
        elif entry.size != file.size:
            problems.append(f"{file.name} has {entry.size:,} bytes instead of {file.size:,}")
    if problems:
        raise CheckpointNotFoundError(
            f"{folder} is not complete: {'; '.join(problems)}. Copy it again, or use another checkpoint"
        )
    return manifest


def record_head(folder: Location) -> bytes:
    """The first bytes of a folder's manifest, its digest among them: no two saves have the same. Empty if there is none."""
    try:
        reader = folder.store.open((folder / layout.MANIFEST).path)
    except OSError:
        return b""
    try:
        head = bytearray(min(HEAD_BYTES, reader.size))
        reader.read_into([memoryview(head)], 0)
        return bytes(head)
    except OSError:
        return b""
    finally:
        reader.close()


def is_checkpoint(folder: Location) -> bool:
    """Whether a folder itself has the manifest of a save, sound or not; another program's `manifest.json` does not count."""
    return record_head(folder).startswith(MANIFEST_PREFIX)


def candidates(run: Location) -> list[tuple[int, bool]]:
    """(serial, whether it is a folder) of everything that is named like a checkpoint, the newest first; complete or not.

    A folder is not listed at one instant: a listing may come too early for the newest and too late for the one that it
    replaced, and has neither. So two in a row must agree.
    """
    found = _candidates_now(run)
    for _ in range(_RELISTINGS):
        before, found = found, _candidates_now(run)
        if found == before:
            break
    return found


def _candidates_now(run: Location) -> list[tuple[int, bool]]:
    named = ((layout.serial_of(entry.name), entry.kind == "folder") for entry in list_or_empty(run))
    return sorted(((serial, folder) for serial, folder in named if serial is not None), reverse=True)


def complete(run: Location, unreadable: list[StorageError] | None = None) -> Iterator[Found]:
    """The complete checkpoints of a run, the newest first. Nothing that is incomplete or foreign, and no error for it.

    Args:
        run: the run folder.
        unreadable: the errors of those that cannot be read now, which are passed over.

    Raises:
        StorageError: one cannot be read now, and no list for that was given.
    """
    found = False
    for _ in range(_RELISTINGS):
        vanished = False
        for serial, is_folder in candidates(run):
            folder = run / layout.checkpoint_folder(serial)
            if not is_folder:
                continue
            try:
                manifest = read_outline(folder)
            except (CheckpointNotFoundError, FormatError):
                vanished |= folder.store.stat(folder.path) is None
                continue
            except StorageError as error:
                if unreadable is None:  # what cannot be read now is not "no checkpoint"
                    raise
                unreadable.append(error)
                continue
            if manifest.content != "checkpoint":
                continue  # somebody moved a folder that stands alone here, under such a name
            yield Found(serial, folder, manifest, folder.store.stat((folder / layout.PINNED).path) is not None)
            found = True
        if not vanished or found:
            return
        # All that were listed have been rotated out since: newer ones have taken their place.


def locate(path: Location, serial: int | None = None) -> tuple[Location, int | None]:
    """The checkpoint folder that a path means, and its serial.

    Args:
        path: a run folder, a checkpoint folder, or a folder that stands alone.
        serial: which checkpoint of a run; None for the newest complete one.

    Raises:
        CheckpointNotFoundError: there is none; the message says what is there.
        ValueError: `serial` is not a whole number from 0.
    """
    store = path.store
    if serial is not None:
        serial = whole_number("serial", serial)
        folder = path / layout.checkpoint_folder(serial)
        if store.stat(folder.path) is None:
            if store.stat(path.path) is None:
                raise CheckpointNotFoundError(f"{path} does not exist{meant(path)}")
            raise CheckpointNotFoundError(f"no checkpoint_{serial} in {path}: {others(path)}")
        return folder, serial
    there = store.stat(path.path)
    if there is not None and there.kind != "folder":
        raise CheckpointNotFoundError(f"{path} is no folder, and no checkpoint therefore")
    if layout.serial_of(path.name) is not None or is_checkpoint(path):
        return path, layout.serial_of(path.name)
    newest = next(complete(path), None)
    if newest is not None:
        return newest.folder, newest.serial
    if there is None:
        if (previous := previous_of(path)) is not None:
            return previous, None
        raise CheckpointNotFoundError(f"{path} does not exist{meant(path)}")
    raise CheckpointNotFoundError(f"no complete checkpoint in {path}: {others(path)}")


def previous_of(path: Location) -> Location | None:
    """The complete folder that a replacing save has moved aside, if it was cut off before the new one took the name (6.2)."""
    for entry in sorted(list_or_empty(path.parent), key=lambda e: -e.modified):
        if entry.kind != "folder" or not entry.name.startswith(layout.PREVIOUS_PREFIX):
            continue
        if layout.hidden_label(entry.name) == path.name:
            try:
                manifest = read_outline(path.parent / entry.name)
            except HoldfastError:
                continue
            if manifest.content != "checkpoint":
                return path.parent / entry.name
    return None


def check_run_folder(run: Location) -> None:
    """Refuse a path that can be no run folder.

    Raises:
        ForeignFolderError: it has the name of a checkpoint, is one itself, or is a file.
    """
    if layout.serial_of(run.name) is not None:
        raise ForeignFolderError(f"{run} has the name of a checkpoint; name the run folder otherwise")
    there = run.store.stat(run.path)
    if there is not None and there.kind != "folder":
        raise ForeignFolderError(f"{run} is not a folder; choose another path")
    if is_checkpoint(run):
        raise ForeignFolderError(f"{run} is a checkpoint itself; save into the folder that it is in, or into another")


def others(run: Location) -> str:
    """What there is in a run folder instead of the checkpoint that was asked for."""
    if run.store.stat(run.path) is None:
        return f"nothing was saved there yet{meant(run)}"
    serials = [found.serial for found in complete(run)]
    if serials:
        return f"the complete ones are {_listed(serials)}"
    incomplete = [serial for serial, _ in candidates(run)]
    if incomplete:
        try:
            read_outline(run / layout.checkpoint_folder(incomplete[0]))
        except HoldfastError as error:
            return f"checkpoint_{incomplete[0]} cannot be used: {error}"
    if any(entry.name.endswith(".safetensors") for entry in list_or_empty(run)):
        return "its safetensors files were not saved by Holdfast; name one of them to read it"
    folders = sorted(entry.name for entry in list_or_empty(run) if entry.kind == "folder")[:_LOOKED_AT]
    if below := [name for name in folders if _is_saved(run / name)]:
        return f"nothing was saved there yet, but in its {_listed(below)}"
    return "nothing was saved there yet"


def _listed(what: Sequence[object]) -> str:
    return ", ".join(map(str, what[:10])) + (", …" if len(what) > 10 else "")


def _is_saved(folder: Location) -> bool:
    """Whether something was saved at a place, as far as one listing tells."""
    try:
        return bool(candidates(folder)) or is_checkpoint(folder)
    except OSError:
        return False


def meant(path: Location) -> str:
    """What a path at which nothing is may have been meant for; empty if nothing there is like it."""
    store = path.store
    name, _, serial = path.name.rpartition("@")
    if name and serial.isdecimal() and _is_saved(path.parent / name):
        return f"; {path.parent / name} does, and serial={serial} is said beside it"
    absent, rest = path, list[str]()
    while absent.path != "/" and store.stat(absent.parent.path) is None:
        rest.insert(0, absent.name)
        absent = absent.parent
    try:
        names = [entry.name for entry in list_or_empty(absent.parent) if not entry.name.startswith(".")][:_LOOKED_AT]
    except OSError:
        return ""
    for like in difflib.get_close_matches(absent.name, names):
        found = absent.parent / like
        for part in rest:
            found /= part
        if _is_saved(found):
            return f"; did you mean {found}?"
    return ""
