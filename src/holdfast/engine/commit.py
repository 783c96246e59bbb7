"""How a folder of files becomes a checkpoint: all of it by one rename, or nothing (docs/format.md, section 6).

Nobody ever waits for a lock here. An attempt folder is locked by its writer for as long as it lives; whoever can lock one
found a dead writer's, and may remove it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator

from holdfast.engine import removal
from holdfast.errors import DiskFullError, ForeignFolderError, HoldfastError, StorageError
from holdfast.format import layout
from holdfast.storage import Claim, Entry, Location

log = logging.getLogger(__name__)

_NOT_OURS_TO_SYNC = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
STALE_SECONDS = 24 * 3600
"""Age at which an attempt counts as dead on a file system that has no locks."""


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn the system's errors into ours, with what was being done."""
    try:
        yield
    except HoldfastError:
        raise  # some of ours are OSErrors too
    except OSError as error:
        raise StorageError.of(error, doing) from error


@contextlib.contextmanager
def disk_full(parent: Location, needed_bytes: int) -> Iterator[None]:
    """Say how much was needed and free if the disk turns out to be full; else let errors pass."""
    try:
        yield
    except DiskFullError as error:
        if error.needed_bytes is not None:
            raise
        raise _full(parent, needed_bytes, parent.store.free_bytes(parent.path)) from (error.__cause__ or error)


def check_space(parent: Location, needed_bytes: int) -> None:
    """Refuse a save that cannot fit, before anything is written.

    Raises:
        DiskFullError: less is free than needed.
    """
    free = free_bytes(parent, needed_bytes)
    if free is not None and free < needed_bytes:
        raise _full(parent, needed_bytes, free)


def free_bytes(parent: Location, needed_bytes: int) -> int | None:
    """Free space; if it is less than needed, what it is once this process's deletions have ended. None if that cannot be said."""
    free = parent.store.free_bytes(parent.path)
    if free is not None and free < needed_bytes:
        removal.wait()
        free = parent.store.free_bytes(parent.path)
    return free


def _full(parent: Location, needed_bytes: int, free: int | None) -> DiskFullError:
    known = "an unknown number of" if free is None else f"{free:,}"
    error = DiskFullError(
        f"no space in {parent}: {needed_bytes:,} bytes are needed, {known} are free; nothing was replaced, older checkpoints are "
        "untouched. Free some space or keep fewer checkpoints",
        needed_bytes=needed_bytes,
        free_bytes=free,
    )
    error.errno = errno.ENOSPC
    return error


def new_attempt_id() -> str:
    """16 hexadecimal digits that no other save has: random, since clocks of two machines can agree."""
    return os.urandom(8).hex()


def make_folders(location: Location) -> None:
    """Make a folder and those above it that do not exist; each survives a power cut once this returns."""
    store = location.store
    if location.path in ("", "/") or ((there := store.stat(location.path)) and there.kind == "folder"):
        return
    if there:
        raise ForeignFolderError(f"{location} is not a folder; choose another path")
    make_folders(location.parent)
    with contextlib.suppress(FileExistsError):  # somebody else made it just now
        store.make_folder(location.path)
    store.sync_folder(location.parent.path)


def sync_above(location: Location) -> None:
    """Make the names of a folder and of those above it durable: a process that was killed may have made them just now."""
    while location.path not in ("", "/"):
        location = location.parent
        try:
            location.store.sync_folder(location.path)
        except OSError as error:
            if error.errno not in _NOT_OURS_TO_SYNC:
                raise


def write_small(location: Location, data: bytes) -> None:
    """Write and sync a small file that must not exist; its name is synced with the folder."""
    writer = location.store.create(location.path, len(data))
    try:
        writer.write_at(memoryview(data), 0)
        writer.sync()
    finally:
        writer.close()


class Attempt:
    """A folder that is being written, beside the place it will have; locked until it is committed or discarded."""

    def __init__(self, parent: Location, label: str) -> None:
        """Nothing is made yet: see `begin`.

        Args:
            parent: the folder that the checkpoint will be in; it must exist.
            label: the expected serial, or the name of a folder that stands alone.
        """
        self.parent, self._label = parent, label
        self._claim: Claim | None = None
        self._committed = False
        self._process = os.getpid()
        self._rename()

    def _rename(self) -> None:
        self.id = new_attempt_id()
        self.folder = self.parent / layout.hidden_name(layout.ATTEMPT_PREFIX, self._label, self.id)

    def begin(self) -> None:
        """Make the folder and lock it; whatever happens here or later, `discard` removes what was made."""
        store = self.parent.store
        with storage_errors(f"cannot write in {self.parent}"):
            for _ in range(100):
                store.make_folder(self.folder.path)
                try:
                    self._claim = store.claim(self.folder.path)
                except OSError as error:
                    if error.errno != errno.ENOTSUP:
                        raise
                    return
                if self._claim is not None:
                    return
                # Somebody who removes dead attempts came between the two calls, and took this one for dead.
                self._rename()
        raise StorageError(f"cannot keep a folder in {self.parent}: another process removes each as soon as it is made")

    def commit_serial(self, serial: int, manifest: Callable[[int], bytes]) -> int:
        """Commit as `checkpoint_<serial>`, or under the next serial that nobody has; returns the one it got.

        Args:
            serial: the first to try.
            manifest: makes the manifest's bytes for a serial.
        """
        with storage_errors(f"cannot commit {self.folder}"):
            while True:
                write_small(self.folder / layout.MANIFEST, manifest(serial))
                self.folder.store.sync_folder(self.folder.path)
                try:
                    self.parent.store.rename(self.folder.path, (self.parent / layout.checkpoint_folder(serial)).path)
                    break
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise
                self.folder.store.remove((self.folder / layout.MANIFEST).path)
                serial = next_serial(self.parent)
            self.folder, self._committed = self.parent / layout.checkpoint_folder(serial), True
            self.parent.store.sync_folder(self.parent.path)
        self._release()
        return serial

    def commit_alone(self, target: Location, manifest: bytes) -> None:
        """Commit under the name of `target`, a sibling; what stood there is replaced at once and then deleted."""
        store = target.store
        with storage_errors(f"cannot commit {target}"):
            write_small(self.folder / layout.MANIFEST, manifest)
            store.sync_folder(self.folder.path)
            attempt = self.folder
            alone = store.stat(target.path) is None
            if alone:
                try:
                    store.rename(attempt.path, target.path)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                    alone = False  # another save committed between the two calls
            if not alone and not store.exchange(attempt.path, target.path):
                previous = self.parent / layout.hidden_name(layout.PREVIOUS_PREFIX, target.name, self.id)
                store.rename(target.path, previous.path)
                store.rename(attempt.path, target.path)
            self.folder, self._committed = target, True
            store.sync_folder(self.parent.path)
        self._release()
        # The old folder, if there was one, is now this attempt's or a previous one that nobody needs.
        sweep(self.parent, target.name)

    def discard(self) -> None:
        """Remove the attempt if it was not committed, as far as that is possible; a later save removes what remains."""
        try:
            if not self._committed and os.getpid() == self._process:  # a child that was forked meanwhile must not
                # An interrupt may have come right after the two names were exchanged, before that could be noted: what stands
                # here now is the old folder then, and must not be deleted before the exchange is durable.
                self.parent.store.sync_folder(self.parent.path)
                removal.remove_tree(self.folder)
        except OSError as error:
            log.warning("could not remove %s (%s); the next save will try again", self.folder, error)
        self._release()

    def _release(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()


@contextlib.contextmanager
def attempt(parent: Location, label: str, needed_bytes: int, *, in_advance: bool = True) -> Iterator[Attempt]:
    """An attempt to write into and commit; if it is not committed, whatever happens, nothing of it remains.

    Args:
        parent: the folder that the checkpoint will be in.
        label: see `Attempt`.
        needed_bytes: about how much will be written.
        in_advance: whether to refuse at once if there is less space.

    Raises:
        DiskFullError: there is less space than `needed_bytes`, or it ran out on the way.
        StorageError: the system refused an operation.
    """
    if in_advance:
        check_space(parent, needed_bytes)
    with disk_full(parent, needed_bytes):
        made = Attempt(parent, label)
        try:
            made.begin()
            yield made
        finally:
            made.discard()


def used_serials(run: Location) -> list[int]:
    """Every serial that a name in the run folder has, complete or not, and −1: a new one is greater than all of them."""
    found = [-1]
    for entry in list_or_empty(run):
        label = layout.hidden_label(entry.name)
        serial = layout.serial_of(entry.name if label is None else layout.checkpoint_folder(label))
        if serial is not None:
            found.append(serial)
    return found


def next_serial(run: Location) -> int:
    """A serial above every one that a name in the run folder has.

    Raises:
        StorageError: there is none left.
    """
    serial = max(used_serials(run)) + 1
    if serial > layout.MAX_SERIAL:
        raise StorageError(f"{run} holds checkpoint_{serial - 1}, the greatest serial there is; rename or remove it")
    return serial


def list_or_empty(folder: Location) -> list[Entry]:
    """The entries of a folder; none if there is no such folder."""
    try:
        return folder.store.list(folder.path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def retire(folder: Location, label: str | int, *, unless_pinned: bool = False) -> bool:
    """Delete a checkpoint: it is gone at once and for good, whenever the deletion of its files may end (see `removal.wait`).

    Args:
        folder: the checkpoint.
        label: its serial, for the name it has meanwhile.
        unless_pinned: put it back if somebody has pinned it before it was moved.

    Returns:
        Whether it is gone.
    """
    trash = folder.parent / layout.hidden_name(layout.TRASH_PREFIX, label, new_attempt_id())
    store = folder.store
    store.rename(folder.path, trash.path)
    if unless_pinned and store.stat((trash / layout.PINNED).path) is not None:
        store.rename(trash.path, folder.path)
        store.sync_folder(folder.parent.path)
        return False
    store.sync_folder(folder.parent.path)
    removal.remove_soon(trash)
    return True


def sweep(parent: Location, name: str | None = None) -> None:
    """Remove what dead writers and interrupted deletions left; a failure is logged and left to the next save.

    Args:
        parent: the folder to look in.
        name: only what belongs to this folder that stands alone; None: what belongs to the serials of a run.
    """
    try:
        entries = list_or_empty(parent)
    except OSError as error:
        log.warning("could not look for what dead writers left in %s (%s)", parent, error)
        return
    synced = False
    for entry in entries:
        label = layout.hidden_label(entry.name)
        if label is None or entry.kind != "folder":
            continue
        if label != name if name is not None else layout.serial_of(layout.checkpoint_folder(label)) is None:
            continue
        folder = parent / entry.name
        if removal.is_going(folder):
            continue
        try:
            if (
                not synced
            ):  # a killed process may have renamed it just now: what it replaced must not come back in pieces
                parent.store.sync_folder(parent.path)
                synced = True
            if entry.name.startswith(layout.TRASH_PREFIX):
                removal.remove_soon(folder)
            elif entry.name.startswith(layout.PREVIOUS_PREFIX):
                if parent.store.stat((parent / label).path) is not None:  # else it is the only one left
                    retire(folder, label)
            else:
                _sweep_attempt(folder, label, entry.modified)
        except OSError as error:
            log.warning("could not remove %s (%s); the next save will try again", folder, error)


def _sweep_attempt(folder: Location, label: str, modified: float) -> None:
    try:
        claim = folder.store.claim(folder.path)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        if time.time() - modified > STALE_SECONDS:
            retire(folder, label)
        return
    if claim is not None:
        try:
            retire(folder, label)
        finally:
            claim.release()
