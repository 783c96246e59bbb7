"""One contract for every store: each test here runs against all of them.

A new store is right when it passes this file; what a single store can do beyond it is tested beside it.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.storage import LocalStore, Location, MemoryStore, local
from support import read_file, write_file


def _without_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that makes the file and then refuses the flag, as tmpfs did before Linux 6.6."""
    real_open = os.open

    def refusing(path: Any, flags: int, *args: Any, **options: Any) -> int:
        fd = real_open(path, flags & ~os.O_DIRECT, *args, **options)
        if flags & os.O_DIRECT:
            os.close(fd)
            raise OSError(errno.EINVAL, "Invalid argument", path)
        return fd

    monkeypatch.setattr(local.os, "open", refusing)


def _without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(source: str, target: str, flags: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", source)

    monkeypatch.setattr(local, "renameat2", refusing)


@pytest.fixture(params=["local", "shm", "no-direct", "no-exchange", "memory", "memory-no-exchange"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """An empty folder of a store."""
    name = request.param
    if name.startswith("memory"):
        location = MemoryStore(exchange=name == "memory").at("/root")
        location.store.make_folder("/root")
        yield location
    elif name == "shm":
        if not Path("/dev/shm").is_dir():
            pytest.skip("no /dev/shm here")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield LocalStore().at(folder)
    else:
        {"no-direct": _without_direct, "no-exchange": _without_exchange}.get(name, lambda _: None)(monkeypatch)
        yield LocalStore().at(tmp_path)


def folder(root: Location, name: str) -> Location:
    root.store.make_folder((root / name).path)
    return root / name


def names(location: Location) -> list[str]:
    return sorted(entry.name for entry in location.store.list(location.path))


def raises(number: int) -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno == number)


def test_list_gives_names_kinds_and_sizes(root: Location) -> None:
    write_file(root / "file", b"12345")
    folder(root, "folder")
    write_file(root / "folder" / "inner", b"")

    found = {entry.name: entry for entry in root.store.list(root.path)}

    assert {name: entry.kind for name, entry in found.items()} == {"file": "file", "folder": "folder"}
    assert found["file"].size == 5


def test_list_fails_for_what_is_no_folder(root: Location) -> None:
    write_file(root / "file", b"")

    with pytest.raises(FileNotFoundError):
        root.store.list((root / "none").path)
    with pytest.raises(NotADirectoryError):
        root.store.list((root / "file").path)


def test_stat_tells_what_is_there(root: Location) -> None:
    write_file(root / "file", b"123")
    folder(root, "folder")

    there = root.store.stat((root / "file").path)
    assert there is not None
    assert there[:3] == ("file", "file", 3)
    inner = root.store.stat((root / "folder").path)
    assert inner is not None
    assert inner[:2] == ("folder", "folder")


def test_stat_is_none_where_nothing_is(root: Location) -> None:
    write_file(root / "file", b"")

    assert root.store.stat((root / "none").path) is None
    assert root.store.stat((root / "none" / "deeper").path) is None
    assert root.store.stat((root / "file" / "below").path) is None


def test_make_folder_is_exclusive_and_needs_its_parent(root: Location) -> None:
    folder(root, "a")
    write_file(root / "file", b"")

    with pytest.raises(FileExistsError):
        folder(root, "a")
    with pytest.raises(FileExistsError):
        folder(root, "file")
    with pytest.raises(FileNotFoundError):
        folder(root / "none", "b")
    with pytest.raises(NotADirectoryError):
        folder(root / "file", "b")


def test_create_is_exclusive(root: Location) -> None:
    write_file(root / "file", b"old")
    folder(root, "folder")

    for name in ("file", "folder"):
        for direct in (False, True):
            with pytest.raises(FileExistsError):
                root.store.create((root / name).path, 3, direct=direct)
    with pytest.raises(FileNotFoundError):
        root.store.create((root / "none" / "file").path, 3)
    assert read_file(root / "file") == b"old"


def test_writes_land_where_they_were_put(root: Location) -> None:
    writer = root.store.create((root / "file").path, 10)
    writer.write_at(memoryview(b"world"), 5)
    writer.write_at(memoryview(b"hello"), 0)
    writer.sync()
    writer.close()
    writer.close()

    assert read_file(root / "file") == b"helloworld"


def test_truncate_cuts_and_extends(root: Location) -> None:
    writer = root.store.create((root / "file").path, 8)
    writer.write_at(memoryview(b"12345678"), 0)

    writer.truncate(3)
    writer.truncate(5)
    writer.close()

    assert read_file(root / "file") == b"123\0\0"


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * 4096 - 5])
def test_direct_files_hold_what_was_written(root: Location, size: int) -> None:
    padded = -(-size // 4096) * 4096
    buffer = mmap.mmap(-1, max(padded, 4096))
    buffer[:size] = os.urandom(size)
    expected = buffer[:size]

    writer = root.store.create((root / "file").path, size, direct=True)
    writer.write_at(memoryview(buffer)[: padded if writer.direct else size], 0)
    writer.truncate(size)
    writer.sync()
    writer.close()

    assert read_file(root / "file") == expected


def test_threads_write_to_one_file(root: Location) -> None:
    writer = root.store.create((root / "file").path, 16 * 4096, direct=True)
    pages = []
    for number in range(16):
        pages.append(mmap.mmap(-1, 4096))
        pages[-1][:] = bytes([number]) * 4096
    threads = [
        threading.Thread(target=writer.write_at, args=(memoryview(page), i * 4096)) for i, page in enumerate(pages)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()

    assert read_file(root / "file") == b"".join(bytes([n]) * 4096 for n in range(16))


def test_reader_fills_buffers_one_after_the_other(root: Location) -> None:
    write_file(root / "file", bytes(range(10)))
    reader = root.store.open((root / "file").path)
    one, none, two = bytearray(3), bytearray(0), bytearray(4)

    count = reader.read_into([memoryview(one), memoryview(none), memoryview(two)], 2)
    reader.close()

    assert reader.size == 10
    assert count == 7
    assert (bytes(one), bytes(two)) == (bytes([2, 3, 4]), bytes([5, 6, 7, 8]))


def test_reader_reads_fewer_bytes_at_the_end_only(root: Location) -> None:
    write_file(root / "file", b"0123456789")
    reader = root.store.open((root / "file").path)
    one, two = bytearray(4), bytearray(8)

    assert reader.read_into([memoryview(one), memoryview(two)], 4) == 6
    assert bytes(one + two) == b"456789" + bytes(6)
    assert reader.read_into([memoryview(one)], 10) == 0
    assert reader.read_into([], 0) == 0
    reader.close()


def test_reader_takes_more_buffers_than_one_system_call(root: Location) -> None:
    data = os.urandom(5000)
    write_file(root / "file", data)
    reader = root.store.open((root / "file").path)
    target = bytearray(5000)

    assert reader.read_into([memoryview(target)[i : i + 1] for i in range(5000)], 0) == 5000
    assert bytes(target) == data
    reader.close()


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (4096, 8192), (8192, 8192), (0, 16384)])
def test_direct_reads_are_ordinary_reads_in_another_way(root: Location, offset: int, length: int) -> None:
    data = os.urandom(10_000)
    write_file(root / "file", data)
    reader = root.store.open((root / "file").path)
    buffer = mmap.mmap(-1, length)

    count = reader.read_direct(memoryview(buffer), offset)
    reader.close()

    assert count == len(data[offset : offset + length])
    assert buffer[:count] == data[offset : offset + length]


def test_views_are_read_only_and_outlive_the_reader_and_the_file(root: Location) -> None:
    write_file(root / "file", b"0123456789")
    reader = root.store.open((root / "file").path)
    view, empty = reader.view(3, 4), reader.view(10, 0)
    reader.forget(3, 4)

    reader.close()
    reader.close()
    root.store.remove((root / "file").path)

    assert bytes(view) == b"3456"
    assert view.readonly
    assert bytes(empty) == b""


def test_is_cached_answers_for_any_range(root: Location) -> None:
    write_file(root / "file", bytes(100_000))
    reader = root.store.open((root / "file").path)

    assert reader.is_cached(0, 0) in (True, False)
    assert reader.is_cached(0, 100_000) in (True, False)
    assert reader.is_cached(99_999, 1) in (True, False)
    reader.close()


def test_open_refuses_what_is_no_file(root: Location) -> None:
    folder(root, "folder")

    with pytest.raises(FileNotFoundError):
        root.store.open((root / "none").path)
    with pytest.raises(OSError, match="folder"):
        root.store.open((root / "folder").path)


def test_rename_moves_a_folder_with_its_files(root: Location) -> None:
    write_file(folder(root, "a") / "file", b"1")

    root.store.rename((root / "a").path, (root / "b").path)

    assert names(root) == ["b"]
    assert read_file(root / "b" / "file") == b"1"


def test_rename_takes_the_place_of_an_empty_folder(root: Location) -> None:
    write_file(folder(root, "a") / "file", b"1")
    folder(root, "b")

    root.store.rename((root / "a").path, (root / "b").path)

    assert names(root / "b") == ["file"]


def test_rename_fails_where_something_is(root: Location) -> None:
    write_file(folder(root, "a") / "file", b"1")
    write_file(folder(root, "b") / "other", b"2")
    write_file(root / "file", b"3")

    with pytest.raises(OSError, check=lambda e: e.errno in (errno.ENOTEMPTY, errno.EEXIST)):
        root.store.rename((root / "a").path, (root / "b").path)
    with raises(errno.ENOTDIR):
        root.store.rename((root / "a").path, (root / "file").path)
    with pytest.raises(FileNotFoundError):
        root.store.rename((root / "none").path, (root / "c").path)
    assert names(root / "a") == ["file"]
    assert names(root / "b") == ["other"]


def test_exchange_swaps_two_folders_or_says_that_it_cannot(root: Location) -> None:
    write_file(folder(root, "a") / "one", b"")
    write_file(folder(root, "b") / "two", b"")

    exchanged = root.store.exchange((root / "a").path, (root / "b").path)

    assert (names(root / "a"), names(root / "b")) == ((["two"], ["one"]) if exchanged else (["one"], ["two"]))


def test_exchange_fails_if_one_is_absent(root: Location) -> None:
    folder(root, "a")
    if not root.store.exchange(root.path + "/a", root.path + "/a"):
        pytest.skip("this store never exchanges")

    with pytest.raises(FileNotFoundError):
        root.store.exchange((root / "a").path, (root / "b").path)
    with pytest.raises(FileNotFoundError):
        root.store.exchange((root / "b").path, (root / "a").path)


def test_link_gives_a_second_name(root: Location) -> None:
    write_file(root / "a", b"data")

    assert root.store.link((root / "a").path, (root / "b").path)
    root.store.remove((root / "a").path)

    assert read_file(root / "b") == b"data"


def test_link_never_replaces(root: Location) -> None:
    write_file(root / "a", b"1")
    write_file(root / "b", b"2")

    with pytest.raises(FileExistsError):
        root.store.link((root / "a").path, (root / "b").path)
    with pytest.raises(FileNotFoundError):
        root.store.link((root / "none").path, (root / "c").path)
    assert read_file(root / "b") == b"2"


def test_remove_deletes_files_only(root: Location) -> None:
    write_file(root / "file", b"")
    folder(root, "folder")

    root.store.remove((root / "file").path)

    with pytest.raises(FileNotFoundError):
        root.store.remove((root / "file").path)
    with pytest.raises(OSError, check=lambda e: e.errno in (errno.EISDIR, errno.EPERM)):
        root.store.remove((root / "folder").path)
    assert names(root) == ["folder"]


def test_remove_folder_deletes_empty_folders_only(root: Location) -> None:
    write_file(folder(root, "full") / "file", b"")
    folder(root, "empty")

    root.store.remove_folder((root / "empty").path)

    with raises(errno.ENOTEMPTY):
        root.store.remove_folder((root / "full").path)
    with raises(errno.ENOTDIR):
        root.store.remove_folder((root / "full" / "file").path)
    with pytest.raises(FileNotFoundError):
        root.store.remove_folder((root / "empty").path)
    assert names(root) == ["full"]


def test_claim_is_exclusive_until_it_is_released(root: Location) -> None:
    path = folder(root, "a").path
    first = root.store.claim(path)
    assert first is not None

    assert root.store.claim(path) is None
    first.release()
    first.release()

    second = root.store.claim(path)
    assert second is not None
    second.release()


def test_claim_follows_a_folder_that_is_renamed(root: Location) -> None:
    claim = root.store.claim(folder(root, "a").path)
    assert claim is not None

    root.store.rename((root / "a").path, (root / "b").path)

    assert root.store.claim((root / "a").path) is None
    assert root.store.claim((root / "b").path) is None
    claim.release()


def test_claim_of_what_is_no_folder_is_none(root: Location) -> None:
    write_file(root / "file", b"")

    assert root.store.claim((root / "none").path) is None
    assert root.store.claim((root / "file").path) is None


def test_sync_folder_needs_a_folder(root: Location) -> None:
    root.store.sync_folder(root.path)
    with pytest.raises(FileNotFoundError):
        root.store.sync_folder((root / "none").path)


def test_free_bytes_is_a_number_or_unknown(root: Location) -> None:
    free = root.store.free_bytes(root.path)

    assert free is None or free > 0


@pytest.mark.parametrize(
    "operation",
    [
        lambda s, p: s.list(p),
        lambda s, p: s.make_folder(p + "/x"),
        lambda s, p: s.create(p + "/x", 1),
        lambda s, p: s.sync_folder(p),
    ],
)
def test_errors_name_the_path(root: Location, operation: Callable[[Any, str], Any]) -> None:
    path = (root / "absent").path

    with pytest.raises(FileNotFoundError) as caught:
        operation(root.store, path)

    assert str(caught.value.filename).startswith(path)


def test_location_parts(root: Location) -> None:
    location = root / "a" / "b"

    assert str(location) == f"{root.path}/a/b"
    assert (location.name, location.parent.name, location.parent.parent) == ("b", "a", root)
    assert Location(root.store, "/").parent.path == "/"
    assert Location(root.store, "/x/").name == "x"
