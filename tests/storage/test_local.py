"""The local store where systems differ: what is tried and refused falls back; links and pipes are never followed."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.engine import removal
from holdfast.storage import LocalStore, Location, Writer, local, resolve
from support import read_file, write_file


class Os:
    """The module `os`, with some calls replaced: the store calls every one of them by name."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return self._calls.get(name) or getattr(os, name)


class Fcntl:
    """The module `fcntl`, with some calls replaced."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        import fcntl

        self._calls, self._real = calls, fcntl

    def __getattr__(self, name: str) -> Any:
        return self._calls.get(name) or getattr(self._real, name)


def failing(number: int, after: int = 0) -> Callable[..., Any]:
    """A call that raises, from its call `after` on."""
    calls = iter(range(10**9))

    def fail(*_: Any, **__: Any) -> Any:
        assert next(calls) >= after
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return LocalStore().at(tmp_path)


@pytest.fixture
def pages() -> mmap.mmap:
    """Two pages of random bytes, aligned as direct I/O needs it."""
    memory = mmap.mmap(-1, 8192)
    memory[:] = os.urandom(8192)
    return memory


def direct_writer(root: Location, size: int = 8192) -> Writer:
    return root.store.create((root / "file").path, size, direct=True)


# Direct I/O


def test_create_falls_back_if_open_refuses_the_flag(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument", path)
        return os.open(path, flags, *args)

    monkeypatch.setattr(local, "os", Os(open=refusing))
    writer = direct_writer(root)

    assert not writer.direct
    writer.write_at(memoryview(pages)[:100], 3)
    writer.close()
    assert read_file(root / "file") == bytes(3) + pages[:100]


def test_create_does_not_hide_other_errors_of_open(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "os", Os(open=failing(errno.EACCES)))

    with pytest.raises(PermissionError):
        direct_writer(root)


def test_write_falls_back_if_the_file_system_took_the_flag_and_refuses_the_write(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refusing(fd: int, buffer: Any, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return os.pwrite(fd, buffer, offset)

    writer = direct_writer(root)
    if not writer.direct:
        pytest.skip("this file system takes no O_DIRECT")
    monkeypatch.setattr(local, "os", Os(pwrite=refusing))
    writer.write_at(memoryview(pages), 0)
    assert not writer.direct
    writer.write_at(memoryview(pages)[:7], 8192)
    writer.close()

    assert read_file(root / "file") == pages[:] + pages[:7]


def test_write_leaves_direct_mode_once_for_all_threads(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    together = threading.Barrier(2)

    def refusing(fd: int, buffer: Any, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            together.wait(timeout=60)  # both threads see the refusal before one of them reacts
            raise OSError(errno.EINVAL, "Invalid argument")
        return os.pwrite(fd, buffer, offset)

    writer = direct_writer(root)
    if not writer.direct:
        pytest.skip("this file system takes no O_DIRECT")
    monkeypatch.setattr(local, "os", Os(pwrite=refusing))
    errors: list[OSError] = []

    def write(at: int) -> None:
        try:
            writer.write_at(memoryview(pages)[at : at + 4096], at)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(at,)) for at in (0, 4096)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()

    assert errors == []
    assert read_file(root / "file") == pages[:]


def test_write_error_in_ordinary_mode_is_no_reason_to_try_forever(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = root.store.create((root / "file").path, 3)
    monkeypatch.setattr(local, "os", Os(pwrite=failing(errno.EINVAL)))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL and e.filename == (root / "file").path):
        writer.write_at(memoryview(b"123"), 0)
    writer.close()


@pytest.mark.parametrize("direct", [False, True])
def test_short_writes_are_continued(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    import fcntl

    def short(fd: int, buffer: Any, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT and len(buffer) == 8192:
            # What a real direct write may do when the disk fills up: stop within a page.
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
            os.pwrite(fd, buffer[:1000], offset)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
            return 1000
        return os.pwrite(fd, buffer[:5000], offset)

    writer = root.store.create((root / "file").path, 8192, direct=direct)
    monkeypatch.setattr(local, "os", Os(pwrite=short))
    writer.write_at(memoryview(pages), 0)
    writer.close()

    assert read_file(root / "file") == pages[:]


def test_write_of_nothing_is_an_error_and_no_endless_loop(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = root.store.create((root / "file").path, 3)
    monkeypatch.setattr(local, "os", Os(pwrite=lambda *_: 0))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO):
        writer.write_at(memoryview(b"123"), 0)
    writer.close()


def test_interrupted_calls_are_made_again(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted: set[str] = set()

    def once(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name not in interrupted:
                interrupted.add(name)
                raise InterruptedError(errno.EINTR, "Interrupted system call")
            return getattr(os, name)(*args)

        return call

    monkeypatch.setattr(local, "os", Os(pwrite=once("pwrite"), preadv=once("preadv")))
    write_file(root / "file", b"123")
    reader = root.store.open((root / "file").path)
    target = bytearray(3)

    assert reader.read_into([memoryview(target)], 0) == 3
    assert bytes(target) == b"123"
    assert interrupted == {"pwrite", "preadv"}
    reader.close()


def test_create_reports_a_full_disk_at_once(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "os", Os(posix_fallocate=failing(errno.ENOSPC)))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOSPC and e.filename == (root / "file").path):
        direct_writer(root)


def test_create_does_without_allocation_where_there_is_none(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "os", Os(posix_fallocate=failing(errno.EOPNOTSUPP)))

    writer = direct_writer(root)
    writer.truncate(5)
    writer.close()

    assert read_file(root / "file") == bytes(5)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOENT])
def test_direct_reads_fall_back_if_the_file_cannot_be_opened_so(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_file(root / "file", pages[:5000])

    def refusing(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number), path)
        return os.open(path, flags, *args)

    monkeypatch.setattr(local, "os", Os(open=refusing))
    reader = root.store.open((root / "file").path)
    with mmap.mmap(-1, 8192) as target:
        assert reader.read_direct(memoryview(target), 0) == 5000
        assert target[:5000] == pages[:5000]
    reader.close()


def test_direct_reads_fall_back_if_the_read_is_refused_and_report_other_errors(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(root / "file", pages[:])
    numbers = [errno.EINVAL, errno.EIO]

    def refusing(fd: int, buffers: Any, offset: int, *flags: int) -> int:
        import fcntl

        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(numbers[0], os.strerror(numbers[0]))
        return os.preadv(fd, buffers, offset, *flags)

    reader = root.store.open((root / "file").path)
    monkeypatch.setattr(local, "os", Os(preadv=refusing))
    with mmap.mmap(-1, 8192) as target:
        assert reader.read_direct(memoryview(target), 0) == 8192
        assert target[:] == pages[:]
        del numbers[0]
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO and e.filename == (root / "file").path):
            reader.read_direct(memoryview(target), 0)
    reader.close()


def test_direct_reads_that_are_cut_short_are_completed(
    root: Location, pages: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(root / "file", pages[:])
    monkeypatch.setattr(local, "os", Os(preadv=lambda fd, b, o, *f: os.preadv(fd, [b[0][:4096], *b[1:]], o, *f)))
    reader = root.store.open((root / "file").path)
    with mmap.mmap(-1, 8192) as target:
        assert reader.read_direct(memoryview(target), 0) == 8192
        assert target[:] == pages[:]
    reader.close()


def test_direct_reads_stay_with_the_file_that_was_opened(root: Location, pages: mmap.mmap) -> None:
    write_file(root / "file", pages[:])
    reader = root.store.open((root / "file").path)
    write_file(root / "file", bytes(8192))  # another file under the same name, as after a rotation and a new save

    with mmap.mmap(-1, 8192) as target:
        reader.read_direct(memoryview(target), 0)
        assert target[:] == pages[:]
    reader.close()


def test_file_that_became_shorter_is_an_error_and_no_crash(root: Location) -> None:
    write_file(root / "file", bytes(8192))
    reader = root.store.open((root / "file").path)
    os.truncate((root / "file").path, 100)

    with pytest.raises(OSError, match="shorter"):
        reader.view(4096, 4096)
    reader.close()


def test_view_reports_an_unreadable_page(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(root / "file", bytes(8192))
    reader = root.store.open((root / "file").path)
    reader.view(0, 1)

    class Broken:
        def madvise(self, *_: int) -> None:
            raise OSError(errno.EFAULT, "Bad address")

    monkeypatch.setattr(reader, "_map", Broken())
    with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO and e.filename == (root / "file").path):
        reader.view(0, 1)
    reader.close()


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "Invalid argument"), ValueError("madvise is not supported")])
def test_view_does_without_advice_on_older_systems(
    root: Location, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_file(root / "file", b"0123456789")
    reader = root.store.open((root / "file").path)
    mapped = mmap.mmap(-1, 4096)
    mapped[:10] = b"0123456789"

    class Old(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise error

    old = Old(-1, 4096)
    old[:10] = b"0123456789"
    monkeypatch.setattr(reader, "_map", old)

    assert bytes(reader.view(3, 4)) == b"3456"
    reader.close()


def test_is_cached_takes_the_ordinary_way_where_the_system_does_not_tell(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(root / "file", bytes(3 * mmap.PAGESIZE))
    reader = root.store.open((root / "file").path)

    monkeypatch.setattr(local, "cached_pages", lambda *_: None)
    assert reader.is_cached(0, 3 * mmap.PAGESIZE)
    monkeypatch.setattr(local, "cached_pages", lambda *_: 0)
    assert not reader.is_cached(0, 3 * mmap.PAGESIZE)
    monkeypatch.setattr(local, "cached_pages", lambda *_: 3)
    assert reader.is_cached(0, 3 * mmap.PAGESIZE)
    reader.close()


@pytest.mark.parametrize("dropped", [0, 4 << 20])
def test_is_cached_looks_at_both_ends(root: Location, dropped: int) -> None:
    write_file(root / "file", bytes(8 << 20))
    reader = root.store.open((root / "file").path)
    with open((root / "file").path, "rb") as file:
        os.fsync(file.fileno())
        if local.cached_pages(file.fileno(), 0, 8 << 20) != 2048:
            pytest.skip("the system does not tell what is cached, or caches nothing here")
        assert reader.is_cached(0, 8 << 20)
        os.posix_fadvise(file.fileno(), dropped, 4 << 20, os.POSIX_FADV_DONTNEED)  # whole pages, which may be large

        assert not reader.is_cached(0, 8 << 20)
        assert reader.is_cached(5 << 20 if dropped == 0 else 1 << 20, 1 << 20)
    reader.close()


def test_cached_pages_counts_or_says_that_it_cannot(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(root / "file", bytes(3 * mmap.PAGESIZE))
    with open((root / "file").path, "rb") as file:
        assert local.cached_pages(file.fileno(), 0, 3 * mmap.PAGESIZE) in (None, 0, 1, 2, 3)
        monkeypatch.setattr(local, "_HAS_CACHESTAT", False)
        assert local.cached_pages(file.fileno(), 0, 3 * mmap.PAGESIZE) is None
    monkeypatch.undo()
    assert local.cached_pages(-1, 0, 10) is None


# Renames, links, locks


def test_exchange_is_false_where_the_system_has_none(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        root.store.make_folder((root / name).path)
    monkeypatch.setattr(local, "renameat2", failing(errno.ENOSYS))

    assert root.store.exchange((root / "a").path, (root / "b").path) is False


def test_exchange_does_not_hide_other_errors(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "renameat2", failing(errno.EACCES))

    with pytest.raises(PermissionError):
        root.store.exchange((root / "a").path, (root / "b").path)


def test_renameat2_is_enosys_on_other_systems(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.sys, "platform", "darwin")

    with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOSYS):
        local.renameat2("a", "b", 2)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_link_is_false_where_it_is_not_possible(root: Location, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write_file(root / "a", b"")
    monkeypatch.setattr(local, "os", Os(link=failing(number)))

    assert root.store.link((root / "a").path, (root / "b").path) is False


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_claim_says_that_there_are_no_locks(root: Location, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(local, "fcntl", Fcntl(flock=failing(number)))
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.ENOTSUP and e.filename == root.path):
        root.store.claim(root.path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_claim_does_not_hide_other_errors(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "fcntl", Fcntl(flock=failing(errno.EIO)))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO):
        root.store.claim(root.path)


def test_claim_is_none_if_the_folder_was_moved_before_the_lock(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    root.store.make_folder((root / "a").path)

    def moved(fd: int, operation: int) -> None:
        os.rename((root / "a").path, (root / "b").path)
        root.store.make_folder((root / "a").path)
        fcntl.flock(fd, operation)

    monkeypatch.setattr(local, "fcntl", Fcntl(flock=moved))

    assert root.store.claim((root / "a").path) is None


CLAIMER = """
import sys
from holdfast.storage import LocalStore
claim = LocalStore().claim(sys.argv[1])
print(claim is not None, flush=True)
sys.stdin.read()
"""


def test_claim_dies_with_its_process(root: Location) -> None:
    path = (root / "a").path
    root.store.make_folder(path)
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"

        assert root.store.claim(path) is None
        process.kill()
        process.wait()

    claim = root.store.claim(path)
    assert claim is not None
    claim.release()


def test_claim_is_not_inherited_by_programs_that_are_started(root: Location) -> None:
    claim = root.store.claim(root.path)
    assert claim is not None
    with subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        claim.release()

        again = root.store.claim(root.path)
        assert again is not None
        again.release()
        process.kill()


# What is no file


def test_open_refuses_a_pipe_without_waiting_for_its_other_end(root: Location) -> None:
    os.mkfifo((root / "pipe").path)

    with pytest.raises(OSError, match="not a regular file"):
        root.store.open((root / "pipe").path)
    entry = root.store.stat((root / "pipe").path)
    assert entry is not None
    assert entry.kind == "other"


def test_links_are_never_followed(root: Location, tmp_path: Path) -> None:
    write_file(root / "file", b"data")
    root.store.make_folder((root / "folder").path)
    os.symlink("file", tmp_path / "to-file")
    os.symlink("folder", tmp_path / "to-folder")

    assert {e.name: e.kind for e in root.store.list(root.path)} == {
        "file": "file", "folder": "folder", "to-file": "other", "to-folder": "other",
    }  # fmt: skip
    with pytest.raises(OSError, check=lambda e: e.errno == errno.ELOOP):
        root.store.open((root / "to-file").path)
    assert root.store.claim((root / "to-folder").path) is None


def test_remove_tree_deletes_links_and_not_what_they_lead_to(root: Location, tmp_path: Path) -> None:
    kept, doomed = tmp_path / "kept", tmp_path / "doomed"
    kept.mkdir()
    (kept / "file").write_bytes(b"1")
    doomed.mkdir()
    os.symlink(kept, doomed / "link")
    os.symlink(kept / "file", doomed / "link2")

    removal.remove_tree(root / "doomed")

    assert not doomed.exists()
    assert (kept / "file").read_bytes() == b"1"


def test_entries_that_vanish_while_listing_are_left_out(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(root / "a", b"")
    write_file(root / "b", b"")
    scandir = os.scandir

    class Vanishing:
        def __init__(self, path: str) -> None:
            self._entries = list(scandir(path))

        def __enter__(self) -> Any:
            os.unlink((root / "a").path)
            return iter(self._entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(local, "os", Os(scandir=Vanishing))

    assert [e.name for e in root.store.list(root.path)] == ["b"]


# Modes, paths


@pytest.mark.parametrize(
    ("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664)]
)
def test_modes_follow_the_umask(root: Location, umask: int, folder: int, file: int) -> None:
    old = os.umask(umask)
    try:
        root.store.make_folder((root / "folder").path)
        write_file(root / "file", b"")
        root.store.create((root / "direct").path, 10, direct=True).close()
    finally:
        os.umask(old)

    modes = {e.name: stat.S_IMODE(os.stat((root / e.name).path).st_mode) for e in root.store.list(root.path)}
    assert modes == {"folder": folder, "file": file, "direct": file}


def test_no_file_is_left_open(tmp_path: Path) -> None:
    state = {"w": np.zeros(300_000), "small": [np.zeros(3), np.zeros(3)]}
    before = len(os.listdir("/proc/self/fd"))

    holdfast.save_checkpoint(state, tmp_path)
    holdfast.load_checkpoint(state, tmp_path)
    holdfast.verify(tmp_path)
    with holdfast.open(tmp_path) as checkpoint:
        checkpoint["w"][3]
    with pytest.raises(holdfast.MismatchError):
        holdfast.load_checkpoint({"w": np.zeros(1)}, tmp_path)

    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_of_all_kinds_mean_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = os.path.realpath(tmp_path / "run")

    for path in ("run", "run/", "./run", "x/../run", tmp_path / "run", LocalStore().at("run")):
        assert resolve(path).path == expected
    os.symlink("run", tmp_path / "link")
    assert resolve("link").path == expected


def test_two_local_stores_are_the_same_store() -> None:
    assert LocalStore() == LocalStore()
    assert len({LocalStore(), LocalStore()}) == 1
    assert LocalStore() != object()


def test_free_bytes_of_what_is_not_there_is_unknown(root: Location) -> None:
    assert root.store.free_bytes((root / "none").path) is None


def test_read_errors_name_the_file(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(root / "file", b"123")
    reader = root.store.open((root / "file").path)
    monkeypatch.setattr(local, "os", Os(preadv=failing(errno.EIO)))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO and e.filename == (root / "file").path):
        reader.read_into([memoryview(bytearray(3))], 0)
    reader.close()


def test_open_that_fails_half_way_leaves_no_file_open(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(root / "file", b"123")
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(local, "os", Os(fstat=failing(errno.EIO)))

    with pytest.raises(OSError, check=lambda e: e.errno == errno.EIO):
        root.store.open((root / "file").path)
    assert len(os.listdir("/proc/self/fd")) == before
