"""What a watched store tells of its operations, and that it is the store in everything else."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from holdfast import LocalStore, Location, MemoryStore
from holdfast.storage.watched import WatchedStore


def test_nothing_is_under_way_when_nothing_is_asked(tmp_path: Path) -> None:
    store = WatchedStore(LocalStore())
    writer = store.create(str(tmp_path / "a"), 3)
    writer.write_at(memoryview(b"abc"), 0)
    writer.sync()
    writer.close()
    with pytest.raises(FileExistsError):
        store.create(str(tmp_path / "a"), 3)

    assert store.under_way() == ""
    assert bytes(store.open(str(tmp_path / "a")).view(0, 3)) == b"abc"


def test_the_longest_are_named_first_and_the_others_counted() -> None:
    class Slow(LocalStore):
        def stat(self, path: str) -> None:
            entered.release()
            go.wait(30)

    entered, go = threading.Semaphore(0), threading.Event()
    store = WatchedStore(Slow())
    asked = [threading.Thread(target=store.stat, args=(f"/{number}",)) for number in range(5)]
    for thread in asked:
        thread.start()
        assert entered.acquire(timeout=30)

    told = store.under_way()

    go.set()
    for thread in asked:
        thread.join()
    assert re.fullmatch(
        r"looking at /0 for \d\.\d s, looking at /1 for \d\.\d s, looking at /2 for \d\.\d s and 2 more", told
    )
    assert store.under_way() == ""


def test_it_is_the_same_store_as_the_one_behind_it() -> None:
    memory = MemoryStore()

    assert WatchedStore(memory) == WatchedStore(memory) == memory
    assert WatchedStore(memory) != WatchedStore(MemoryStore())
    assert WatchedStore(LocalStore()) == WatchedStore(LocalStore())
    assert len({WatchedStore(LocalStore()), WatchedStore(LocalStore())}) == 1
    here = Location(LocalStore(), "/a")
    assert WatchedStore(LocalStore()).at(here) == here
    assert str(WatchedStore(memory).at(memory.at("a") / "b")).endswith("a/b")


def test_whether_a_writer_is_direct_is_its_own_to_say(tmp_path: Path) -> None:
    store = WatchedStore(LocalStore())
    writer = store.create(str(tmp_path / "a"), 4096, direct=True)
    plain = LocalStore().create(str(tmp_path / "b"), 4096, direct=True)

    assert writer.direct == plain.direct
    writer.close()
    plain.close()
