"""Deletion of folders that nobody needs any more; large ones in a thread of its own, so that nobody waits for the disk.

A file system may take 0.2 s for each GiB that it frees (docs/design/012-what-a-save-takes.md), and a save would pay that for the
checkpoint that it replaces. A folder comes here once it has its hidden name and that is durable: whether its files go now, a moment
later, or with the next save's sweep because this process was killed, no reader can tell.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque

from holdfast.storage import Location

log = logging.getLogger(__name__)

AT_ONCE_BYTES = 64 << 20
"""Up to here a folder is deleted before `remove_soon` returns: it takes no longer than to start a thread and to tell of it."""

_changed = threading.Condition()
_waiting: deque[Location] = deque()  # the first one is being deleted
_worker: threading.Thread | None = None


def _after_fork() -> None:
    """The child has no such thread, and what its parent deletes is no concern of it."""
    global _changed, _worker
    _changed, _worker = threading.Condition(), None
    _waiting.clear()


os.register_at_fork(after_in_child=_after_fork)


def remove_tree(folder: Location) -> None:
    """Delete a folder with all that is in it; what has vanished already is no error. Links are not followed."""
    store = folder.store
    try:
        entries = store.list(folder.path)
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.kind == "folder":
                remove_tree(folder / entry.name)
            else:
                store.remove((folder / entry.name).path)
    with contextlib.suppress(FileNotFoundError):
        store.remove_folder(folder.path)


def remove_soon(folder: Location) -> None:
    """Delete a folder that has a hidden name; if it is large, only begin to.

    The program does not end before the deletion has; a failure in the thread is logged, and the next save's sweep tries again.
    """
    global _worker
    if _nbytes(folder) <= AT_ONCE_BYTES:
        remove_tree(folder)
        return
    with _changed:
        _waiting.append(folder)
        if _worker is None:
            worker = threading.Thread(target=_work, name="holdfast-delete")
            try:
                worker.start()
            except RuntimeError:  # no more threads, or the interpreter is about to end
                _waiting.pop()
            else:
                _worker = worker
                return
        else:
            return
    remove_tree(folder)


def is_going(folder: Location) -> bool:
    """Whether this process is deleting it, or about to."""
    with _changed:
        return folder in _waiting


def wait() -> None:
    """Return when nothing is being deleted any more by this process."""
    with _changed:
        while _waiting:
            _changed.wait()


def _work() -> None:
    global _worker
    while True:
        with _changed:
            if not _waiting:
                _worker = None
                return
            folder = _waiting[0]
        try:
            remove_tree(folder)
        except Exception as error:  # noqa: BLE001 - also a store's own fault: nobody else would hear of it
            log.warning("could not remove %s (%s); the next save will try again", folder, error)
        with _changed:
            _waiting.popleft()
            _changed.notify_all()


def _nbytes(folder: Location) -> int:
    """What its files take; those that others share are not counted apart."""
    try:
        return sum(entry.size for entry in folder.store.list(folder.path))
    except FileNotFoundError:
        return 0
