"""File systems that a test may fill: real ones, mounted for it where that is allowed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.storage import LocalStore
from holdfast.storage.base import Writer


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{command[0]}: {done.stderr.strip() or done.returncode}")


@contextlib.contextmanager
def mounted(folder: Path, *options: str | Path) -> Iterator[Path]:
    """Something mounted at a folder; the test is skipped where that needs more rights than it has."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder.mkdir(exist_ok=True)
    try:
        _run("mount", *options, folder)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def tmpfs(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system in memory of so many MiB."""
    with mounted(folder, "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs") as made:
        yield made


@contextlib.contextmanager
def ext4(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system in a file of so many MiB; less than that can be written."""
    image = folder.parent / f"{folder.name}.img"
    image.touch()
    os.truncate(image, mebibytes << 20)
    try:
        _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image)
    except FileNotFoundError:
        pytest.skip("there is no mkfs.ext4 here")
    with mounted(folder, "-o", "loop", image) as made:
        (made / "lost+found").rmdir()
        yield made


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that another user may enter, unlike tmp_path; the test is skipped where this one cannot become another."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if not all(above.stat().st_mode & 0o001 for above in folder.parents):
            pytest.skip(f"others may not enter {folder.parent}")
        folder.chmod(0o755)
        yield folder


AS_NOBODY = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
"""Makes a process of root's one of a user without rights."""


class Untold(LocalStore):
    """A file system that does not say how much is free, as some network file systems: a full disk shows in the middle of a save.

    Args:
        direct: whether it takes direct I/O. Where it does not, nothing is reserved, and it is a writer thread that meets the end.
    """

    def __init__(self, *, direct: bool = True) -> None:
        self.direct = direct

    def free_bytes(self, path: str) -> int | None:
        return None

    def create(self, path: str, size: int, *, direct: bool = False) -> Writer:
        return super().create(path, size, direct=direct and self.direct)
