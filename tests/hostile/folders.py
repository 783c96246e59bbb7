"""Hostile folders: links, pipes, folders, sockets and files of a terabyte in place of files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.cases import MODEL, RESUMES, STATE, TRAINER, Case, plain, put, with_manifest


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / name
        path.unlink()
        make(path)

    return plant


def _link_to_copy(path: Path) -> None:
    aside = path.parent.parent / f"elsewhere-{path.parent.name}-{path.name}"
    aside.write_bytes(plain()[path.name])
    path.symlink_to(aside)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself may be too long for a socket
        finally:
            os.close(here)


def sparse(begin: bytes, size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(begin)
        os.truncate(path, size)

    return make


def folder_cases() -> Iterator[Case]:
    """Links, pipes, folders, sockets and files of many gigabytes in place of files."""
    base = plain()
    makers: dict[str, Callable[[Path], object]] = {
        "a link to a right copy": _link_to_copy,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a dangling link": lambda path: path.symlink_to("nobody"),
        "a FIFO": os.mkfifo,
        "a folder": Path.mkdir,
        "a socket": make_socket,
        "a file of 1 TiB": sparse(b"", 1 << 40),
    }
    for name in ("manifest.json", MODEL, STATE, TRAINER):
        for what, make in makers.items():
            yield Case(f"{name} is {what}", base, plant=_replace(name, make))
    begin = base["manifest.json"]
    yield Case("manifest.json goes on for 1 TiB", base, plant=_replace("manifest.json", sparse(begin, 1 << 40)))
    huge = with_manifest(base, put(("files", 2, "size"), 1 << 40))
    yield Case(
        "trainer_0.json of 1 TiB as listed", huge, RESUMES, plant=_replace(TRAINER, sparse(base[TRAINER], 1 << 40))
    )
