"""The watch sees what it is there to see: without this, a test that finds nothing would prove nothing."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hostile.watch import HEADROOM_BYTES, watched


def _burn() -> None:
    end = time.process_time() + 1.1
    while time.process_time() < end:
        sum(range(1000))


@pytest.mark.parametrize(
    ("does", "complaint"),
    [
        (lambda folder: _burn(), "took"),
        (lambda folder: eval("1 + 1"), "exec"),
        (lambda folder: os.system("true"), "os.system"),
        (lambda folder: __import__("pickle").loads(b"cposix\nsystem\n."), "pickle.find_class"),
        (lambda folder: (folder / "file").write_text("new"), "open for writing"),
        (lambda folder: (folder / "folder").mkdir(), "os.mkdir"),
        (lambda folder: os.utime(folder / "there", (1, 1)), "changed the folder"),
    ],
)
def test_the_watch_notices(does: Callable[[Path], object], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"")

    with watched(tmp_path) as complaints:
        does(tmp_path)

    assert any(complaint in found for found in complaints), complaints


def test_the_watch_notices_a_file_left_open(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"")

    with watched(tmp_path) as complaints:
        fd = os.open(tmp_path / "there", os.O_RDONLY)
    os.close(fd)

    assert any("left open" in found for found in complaints), complaints


@pytest.mark.parametrize(
    "take",
    [lambda n: bytearray(n), lambda n: np.empty(n, np.uint8), lambda n: mmap.mmap(-1, n), lambda n: [0] * (n // 8)],
)
def test_the_watch_refuses_memory(take: Callable[[int], object]) -> None:
    with watched(), pytest.raises((MemoryError, OSError)):
        take(2 * HEADROOM_BYTES)


def test_the_watch_gives_the_memory_back() -> None:
    with contextlib.suppress(ZeroDivisionError), watched():
        raise ZeroDivisionError

    assert len(bytearray(2 * HEADROOM_BYTES)) == 2 * HEADROOM_BYTES


def test_the_watch_does_not_complain_without_a_reason(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")

    with watched(tmp_path) as complaints:
        assert (tmp_path / "there").read_bytes() == b"x"

    assert not complaints
