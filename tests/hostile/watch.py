"""What a reader may not do with hostile files, watched: run long, take memory, execute, write, keep files open."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CPU_SECONDS = 1.0
HEADROOM_BYTES = 256 << 20
"""Address space that a call may take beyond what the process has: buffers and threads' stacks have room in it, and
nothing that is as large as a hostile number says."""

_EXECUTES = {"exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class",
             "import", "socket.connect", "ctypes.dlopen", "marshal.loads", "code.__new__"}  # fmt: skip
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
            "os.utime", "shutil.rmtree"}  # fmt: skip
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watching = False
_seen: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _EXECUTES or event in _CHANGES:
        _seen.append(f"{event}{args!r}"[:200])
    elif event == "open" and isinstance(args[2], int) and args[2] & _WRITE_FLAGS:
        _seen.append(f"open for writing: {args[0]!r}")


sys.addaudithook(_hook)


def open_files() -> list[str]:
    """Targets of the open file descriptors."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if not name.startswith("/proc/"))


def tree(folder: Path) -> list[tuple[str, int, int, int]]:
    """Every entry below a folder: name, mode, size and time of change."""
    found = []
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            info = os.lstat(os.path.join(parent, name))
            found.append((os.path.join(parent, name), info.st_mode, info.st_size, info.st_mtime_ns))
    return sorted(found)


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def watched(folder: Path | None = None, *, times_bytes: int = 0) -> Iterator[list[str]]:
    """Watch what is done in the block; yields the list of complaints, which is complete after it.

    Args:
        folder: it must not change.
        times_bytes: size of the input: memory may also grow with it.
    """
    global _watching
    complaints: list[str] = []
    before, files = tree(folder) if folder else [], open_files()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + HEADROOM_BYTES + 10 * times_bytes, limit[1]))
    _seen.clear()
    gc.freeze()  # else a collection goes through all that the tests before have left, and counts as this call's time
    # Of the process, not of the wall: the machine may be busy with something else.
    start, _watching = time.process_time(), True
    try:
        yield complaints
    finally:
        _watching = False
        seconds = time.process_time() - start
        gc.unfreeze()
        resource.setrlimit(resource.RLIMIT_AS, limit)
        if seconds > CPU_SECONDS:
            complaints.append(f"took {seconds:.2f} s")
        complaints += [f"executed or changed: {event}" for event in _seen]
        if open_files() != files:
            complaints.append(f"left open: {sorted(set(open_files()) - set(files))}")
        if folder and tree(folder) != before:
            complaints.append("changed the folder")
