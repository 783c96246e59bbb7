"""Files and folders that appear whole: written beside their place, synced, and renamed to it. Knows no format."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import IO, NoReturn

import numpy as np

from holdfast.errors import ForeignFolderError, StorageError
from holdfast.storage import LocalStore

TEMPORARY = ".holdfast-"
"""How the names of files and folders that are being written begin."""

Piece = bytes | np.ndarray


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn the system's errors into ours, with what was being done."""
    try:
        yield
    except (StorageError, ForeignFolderError):
        raise  # OSErrors too, and ours already
    except OSError as error:
        raise StorageError.of(error, doing) from error


def write_file(path: str, pieces: Iterable[Piece]) -> int:
    """Write a file: durable when this returns, and at every instant the old one or the new one, whole. Returns its size.

    Raises:
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    with new_file(path) as file:
        return _pour(file, pieces)


@contextlib.contextmanager
def new_file(path: str) -> Iterator[IO[bytes]]:
    """A file to fill that becomes `path`, durable and as a whole, when the block ends; if it fails nothing changes.

    Raises:
        ForeignFolderError: there is a folder.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    folder = os.path.dirname(os.path.abspath(path))
    temporary = os.path.join(folder, f"{TEMPORARY}{os.urandom(8).hex()}")
    with storage_errors(f"cannot write {path}"):
        if os.path.isdir(path):
            raise ForeignFolderError(f"{path} is a folder; a file cannot take its place")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(folder)


def put(path: str, pieces: Iterable[Piece]) -> int:
    """Write a new file and sync it; returns its size."""
    with open(path, "xb") as file:
        size = _pour(file, pieces)
        file.flush()
        os.fsync(file.fileno())
    return size


def _pour(file: IO[bytes], pieces: Iterable[Piece]) -> int:
    return sum(file.write(piece if isinstance(piece, bytes) else piece.data) for piece in pieces)


@contextlib.contextmanager
def new_folder(target: str, *, beside: str | None = None, replace: bool = False) -> Iterator[str]:
    """A folder to fill that becomes `target`, durable and as a whole, when the block ends; if it fails nothing changes.

    Args:
        target: its place; there may be an empty folder.
        beside: where it stands while it is filled; None for the folder that `target` is in. Must be of the same file system.
        replace: whether what is there is replaced; the caller has made sure that it may be.

    Raises:
        ForeignFolderError: something is at `target`, and is not to be replaced.
        StorageError, DiskFullError: the system refused.
    """
    target = os.path.abspath(target)
    parent = os.path.dirname(target)
    with storage_errors(f"cannot write {target}"):
        if not replace and os.path.lexists(target) and not _is_empty(target):
            _refuse(target)
        os.makedirs(beside or parent, exist_ok=True)
        temporary = os.path.join(beside or parent, f"{TEMPORARY}{os.urandom(8).hex()}")
        os.mkdir(temporary)
        try:
            yield temporary
            for folder, _, _ in os.walk(temporary):
                _sync_folder(folder)
            os.makedirs(parent, exist_ok=True)
            _take_place(temporary, target, replace)
        finally:
            # After an exchange this is the old folder, else what was not finished; after a plain rename nothing.
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_above(parent)


def _take_place(temporary: str, target: str, replace: bool) -> None:
    if not os.path.lexists(target) or _is_empty(target):
        os.rename(temporary, target)  # fails if somebody has filled it meanwhile
    elif not replace:
        _refuse(target)
    elif not LocalStore().exchange(temporary, target):
        # No such call on this file system: for an instant there is nothing at the place, but never a mixture.
        aside = temporary + "-old"
        os.rename(target, aside)
        os.rename(temporary, target)
        os.rename(aside, temporary)


def _refuse(target: str) -> NoReturn:
    raise ForeignFolderError(
        f"{target} exists and is not empty; it is never overwritten. Choose another path or remove it"
    )


def _is_empty(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)


def _sync_folder(path: str) -> None:
    LocalStore().sync_folder(path)


def _sync_above(path: str) -> None:
    """Sync a folder and those above it that may have been made just now; not those that are nobody's to sync."""
    while True:
        with contextlib.suppress(PermissionError):
            _sync_folder(path)
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)
