"""Staging buffers: aligned, reused, bounded."""

import pytest

from holdfast.engine import buffers


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of this test's own."""
    monkeypatch.setattr(buffers, "_free", {})


def test_buffer_is_aligned_for_direct_writes() -> None:
    buffer = buffers.take()

    assert buffer.array.__array_interface__["data"][0] % (2 << 20) == 0
    assert len(buffer.view) == buffer.array.size == buffers.STAGING_BYTES + buffers.MARGIN_BYTES


def test_buffer_is_used_again() -> None:
    buffer = buffers.take()
    buffers.give(buffer)

    assert buffers.take() is buffer
    assert buffers.take() is not buffer


def test_pool_keeps_no_more_than_the_bound() -> None:
    small = [buffers.Buffer(4096) for _ in range(3)]
    taken = [buffers.take() for _ in range(buffers.MAX_BUFFERS + 2)]
    for buffer in [*small, *taken]:
        buffers.give(buffer)

    assert len(buffers._free[""]) == buffers.MAX_BUFFERS
    huge_page = 2 << 20  # what the margin takes once it is touched
    assert buffers.MAX_BUFFERS * (buffers.STAGING_BYTES + huge_page) <= 128 << 20


def test_bytes_and_array_are_the_same_memory() -> None:
    buffer = buffers.take()
    buffer.array[7] = 9

    assert buffer.view[7] == 9
    buffer.view[8] = 10
    assert buffer.array[8] == 10
