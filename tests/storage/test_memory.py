"""What only the memory store has: a capacity, and paths that are normalized."""

import errno

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore


def test_at_normalizes() -> None:
    store = MemoryStore()

    assert store.at("runs//digits/./a/").path == "/runs/digits/a"
    assert store.at("/").path == "/"
    assert store.at("runs").store is store


def test_capacity_is_that_of_a_full_disk() -> None:
    store = MemoryStore(capacity_bytes=10)
    store.create("/a", 6).write_at(memoryview(b"123456"), 0)

    assert store.free_bytes("/") == 4
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOSPC):
        store.create("/b", 5)
    assert store.stat("/b") is None
    assert MemoryStore().free_bytes("/") is None


def test_save_that_does_not_fit_says_how_much_was_needed_and_free() -> None:
    store = MemoryStore(capacity_bytes=20_000)
    run = store.at("run")
    first = holdfast.save_checkpoint({"w": np.zeros(10)}, run)

    with pytest.raises(holdfast.DiskFullError, match="bytes are needed.*are free") as caught:
        holdfast.save_checkpoint({"w": np.zeros(10_000)}, run)

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.needed_bytes is not None
    assert caught.value.needed_bytes >= 80_000
    assert caught.value.free_bytes is not None
    assert 0 < caught.value.free_bytes < 20_000
    assert holdfast.serials(run) == [first]
    assert holdfast.verify(run).serial == first
    assert [e.name for e in store.list("/run")] == ["checkpoint_0"]
