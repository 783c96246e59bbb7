"""The read pipeline: every layout of target, in every way to read, verified; damage names all of its variables."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import holdfast
from holdfast import CorruptCheckpointError, LocalStore, MemoryStore, StorageError
from holdfast.engine import catalog, reader
from holdfast.engine.source import Source
from holdfast.format.digests import BLOCK_BYTES
from holdfast.storage import Location, local
from support import WrappedStore, flip_bit, read_file, write_file

RNG = np.random.default_rng(1)


def random_array(nbytes: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.integers(0, 127, nbytes, np.uint8).view(dtype)


SAVED: dict[str, np.ndarray] = {
    "scalar": np.array(3.5),
    "empty": np.zeros((3, 0), np.float32),
    "small": np.arange(12.0).reshape(3, 4),
    "middle": random_array(200_000).reshape(10, 5000),
    "odd": random_array(70_001, np.uint8),
    "large": random_array(BLOCK_BYTES + 12, np.int32),
    "grid": random_array(3 << 20, np.int16).reshape(3, 512, 1024),
    "bfloat16": np.arange(100).astype(ml_dtypes.bfloat16),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    path = tmp_path_factory.mktemp("reader") / "model"
    holdfast.save_params(SAVED, path)
    return path


@pytest.fixture(params=["cached", "disk", "disk-no-direct", "memory"])
def source(request: pytest.FixtureRequest, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """The checkpoint in every place that is read in a way of its own."""
    if request.param == "memory":
        store = MemoryStore()
        store.make_folder("/model")
        for file in saved.iterdir():
            write_file(store.at("model") / file.name, file.read_bytes())
        yield store.at("model")
        return
    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: request.param == "cached")
    if request.param == "disk-no-direct":
        monkeypatch.setattr(local, "_O_DIRECT", 0)
    yield LocalStore().at(saved)


def placed(array: np.ndarray, start: int) -> np.ndarray:
    """An empty copy whose memory begins `start` bytes after a page."""
    room = np.zeros(array.nbytes + 2 * 4096, np.uint8)
    first = -room.ctypes.data % 4096 + start
    return room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)


LAYOUTS = {
    "plain": lambda a: np.zeros_like(a, order="C"),
    "on a page": lambda a: placed(a, 0),
    "off a page": lambda a: placed(a, 16),
    "fortran": lambda a: np.zeros_like(a, order="F"),
    "big-endian": lambda a: np.zeros(a.shape, a.dtype.newbyteorder(">") if a.dtype.kind in "iuf" else a.dtype),
    "strided": lambda a: np.zeros((*a.shape, 2), a.dtype)[..., 0],
    "reversed": lambda a: np.zeros(a.shape, a.dtype)[::-1] if a.ndim else np.zeros_like(a),
    "offset": lambda a: (
        np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape) if a.size else np.zeros_like(a)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("verify", [True, False])
def test_every_layout_of_target_is_filled(source: Location, layout: str, verify: Any) -> None:
    target = {name: LAYOUTS[layout](array) for name, array in SAVED.items()}

    report = holdfast.load_params(target, source, verify=verify)

    for name, array in SAVED.items():
        assert target[name].astype(array.dtype).tobytes() == array.tobytes(), name
    assert report.verified == bool(verify)
    assert report.nbytes == sum(a.nbytes for a in SAVED.values())


def test_casts_are_made_on_the_way(source: Location) -> None:
    target = {
        name: np.zeros_like(a, np.float64 if a.dtype == np.float32 else a.dtype, order="F") for name, a in SAVED.items()
    }

    report = holdfast.load_params(target, source, cast="widen")

    assert all((target[name] == array).all() for name, array in SAVED.items())
    assert {v.name for v in report.loaded if v.cast_from} == {"middle", "empty"}


def test_read_gives_arrays_of_their_own(source: Location) -> None:
    with holdfast.open(source) as checkpoint:
        found = checkpoint.read()
        two = checkpoint.read(["small", "odd"])

    assert {name: a.tobytes() for name, a in found.items()} == {name: a.tobytes() for name, a in SAVED.items()}
    assert list(two) == ["small", "odd"]
    assert all(a.flags.writeable for a in found.values())


def copy_of(saved: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def place_of(path: Path, name: str) -> int:
    with holdfast.open(path) as checkpoint:
        return checkpoint["large" if name == "large" else name]._entry.chunks[0].range[0]


@pytest.mark.parametrize("cached", [True, False])
def test_damage_names_every_variable(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    path = copy_of(saved, tmp_path / "model")
    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: cached)
    for name, at in (("large", BLOCK_BYTES + 5), ("small", 3), ("scalar", 0), ("grid", 3 * (1 << 20) - 1)):
        flip_bit(path / "model.safetensors", place_of(path, name) + at)
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    with pytest.raises(CorruptCheckpointError, match="digests do not match.*Use an older checkpoint") as caught:
        holdfast.load_params(target, path)

    assert set(caught.value.variables) == {"large", "small", "scalar", "grid"}
    assert caught.value.path == str(path / "model.safetensors")
    with pytest.raises(CorruptCheckpointError) as caught:
        holdfast.verify(path)
    assert set(caught.value.variables) == {"large", "small", "scalar", "grid"}


@pytest.mark.parametrize("start", [0, 16])
@pytest.mark.parametrize("at", [5, BLOCK_BYTES - 1, BLOCK_BYTES + 11])
def test_damage_is_found_wherever_the_target_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, at: int
) -> None:
    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: True)
    holdfast.save_params({"large": SAVED["large"]}, tmp_path / "model")  # its data begin on a page
    flip_bit(tmp_path / "model" / "model.safetensors", place_of(tmp_path / "model", "large") + at)

    with pytest.raises(CorruptCheckpointError) as caught:
        holdfast.load_params({"large": placed(SAVED["large"], start)}, tmp_path / "model")

    assert caught.value.variables == ("large",)


def test_many_damaged_variables_are_shown_in_part_and_listed_in_full(tmp_path: Path) -> None:
    state = {f"v{i:03d}": np.full(10, i, np.uint8) for i in range(40)}
    holdfast.save_params(state, tmp_path / "m")
    data = bytearray((tmp_path / "m" / "model.safetensors").read_bytes())
    data[-400:] = bytes(400)
    (tmp_path / "m" / "model.safetensors").write_bytes(data)

    with pytest.raises(CorruptCheckpointError, match="'v010' …") as caught:
        holdfast.load_params(state, tmp_path / "m")

    assert len(caught.value.variables) == 39  # v000 is zeros


def test_damage_is_found_before_anything_is_changed_if_asked_for(saved: Path, tmp_path: Path) -> None:
    path = copy_of(saved, tmp_path / "model")
    flip_bit(path / "model.safetensors")
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    with pytest.raises(CorruptCheckpointError):
        holdfast.load_params(target, path, verify="before")

    assert not any(a.view(np.uint8).any() for a in target.values() if a.size and a.ndim)


def test_damaged_header_is_found_before_anything_is_changed(saved: Path, tmp_path: Path) -> None:
    path = copy_of(saved, tmp_path / "model")
    flip_bit(path / "model.safetensors", 30)
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    with pytest.raises(CorruptCheckpointError, match="its header"):
        holdfast.load_params(target, path)
    with pytest.raises(CorruptCheckpointError, match="its header"):
        holdfast.verify(path)

    assert not any(a.view(np.uint8).any() for a in target.values() if a.size and a.ndim)


def test_verify_false_reads_what_is_there(saved: Path, tmp_path: Path) -> None:
    path = copy_of(saved, tmp_path / "model")
    flip_bit(path / "model.safetensors", place_of(path, "small"))
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    assert not holdfast.load_params(target, path, verify=False).verified
    assert target["small"].tobytes() != SAVED["small"].tobytes()
    assert target["large"].tobytes() == SAVED["large"].tobytes()


class _Failing:
    """A reader whose reads fail, or end too early."""

    def __init__(self, real: Any, number: int | None) -> None:
        self._real, self._number = real, number
        self.size = real.size

    def _fail(self, count: int) -> int:
        if self._number is not None:
            raise OSError(self._number, os.strerror(self._number))
        return count // 2

    def read_into(self, buffers: Any, offset: int) -> int:
        return self._fail(sum(b.nbytes for b in buffers))

    def read_direct(self, buffer: Any, offset: int) -> int:
        return self._fail(len(buffer))

    def is_cached(self, offset: int, length: int) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def failing_store(number: int | None) -> WrappedStore:
    store = WrappedStore()
    real_open = store.inner.open
    store.instead["open"] = lambda path: (
        _Failing(real_open(path), number) if path.endswith(".safetensors") else real_open(path)
    )
    store.open = lambda path: store.instead["open"](path)  # type: ignore[method-assign]
    return store


@pytest.mark.parametrize("names", [["small"], ["large"], list(SAVED)])
def test_errors_of_reader_threads_reach_the_caller_with_their_cause(saved: Path, names: list[str]) -> None:
    target = {name: np.zeros_like(SAVED[name]) for name in names}

    with pytest.raises(StorageError, match="cannot read .*Input/output error") as caught:
        holdfast.load_params(target, failing_store(errno.EIO).at(saved), strict="subset")

    assert caught.value.errno == errno.EIO
    assert isinstance(caught.value.__cause__, OSError)
    assert not any(t.name.startswith("holdfast") for t in threading.enumerate())


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("start", range(0, 64, 4))  # one of them fits where the data lie in the file
def test_file_that_is_cut_off_while_it_is_read_is_damage(saved: Path, name: str, verify: bool, start: int) -> None:
    target = {name: placed(SAVED[name], start)}

    with pytest.raises(CorruptCheckpointError) as caught:
        holdfast.load_params(target, failing_store(None).at(saved), strict="subset", verify=verify)

    assert caught.value.variables == (name,)


def source_of(path: Path | Location) -> Source:
    folder = LocalStore().at(path) if isinstance(path, Path) else path
    return Source(folder, catalog.read_manifest(folder))


def test_file_that_vanished_is_named(saved: Path, tmp_path: Path) -> None:
    path = copy_of(saved, tmp_path / "model")
    with source_of(path) as source:
        (path / "model.safetensors").unlink()

        with pytest.raises(StorageError, match="model.safetensors has vanished; was the checkpoint deleted"):
            source.reader(0)


def test_file_that_cannot_be_opened_is_named(saved: Path) -> None:
    store = WrappedStore()
    real_open = store.inner.open

    def refusing(path: str) -> Any:
        if path.endswith(".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(path)

    store.instead["open"] = refusing

    with pytest.raises(StorageError, match="cannot open .*Permission denied") as caught:
        holdfast.open(store.at(saved))
    assert caught.value.errno == errno.EACCES


def test_file_of_another_size_is_damage(saved: Path, tmp_path: Path) -> None:
    path = copy_of(saved, tmp_path / "model")
    with source_of(path) as source:
        data = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(data[:-1])

        with pytest.raises(CorruptCheckpointError, match=f"has {len(data) - 1:,} bytes instead of {len(data):,}"):
            source.reader(0)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_from_the_callback_ends_all_threads(saved: Path, kind: type[BaseException]) -> None:
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    def interrupt(progress: Any) -> None:
        if progress.done_bytes > 1 << 20:
            raise kind

    with pytest.raises(kind):
        holdfast.load_params(target, saved, progress=interrupt)

    assert not any(t.name.startswith("holdfast") for t in threading.enumerate())


def test_lack_of_threads_is_an_error_and_no_hang(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    with pytest.raises(RuntimeError, match="can't start new thread"):
        holdfast.load_params(target, saved)


def test_every_block_is_read_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WrappedStore()
    target = {name: np.zeros_like(array) for name, array in SAVED.items()}

    holdfast.load_params(target, store.at(saved))

    asked = [(offset, length) for path, offset, length in store.asked if path.endswith("model.safetensors")]
    total = sum(length for _, length in asked)
    assert total <= read_size(saved) + len(asked) * 2 * 4096


def read_size(path: Path) -> int:
    return len(read_file(LocalStore().at(path) / "model.safetensors"))


@pytest.mark.parametrize("verify", [True, False])
def test_load_of_a_file_that_cannot_be_opened_names_it(saved: Path, verify: bool) -> None:
    store = WrappedStore()
    real_open = store.inner.open

    def refusing(path: str) -> Any:
        if path.endswith(".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(path)

    store.instead["open"] = refusing
    target = {"large": np.zeros_like(SAVED["large"])}

    with pytest.raises(StorageError, match="cannot open .*model.safetensors: Permission denied"):
        holdfast.load_params(target, store.at(saved), strict="subset", verify=verify)


def test_header_that_cannot_be_read_is_an_error(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reader: Any, offset: int, length: int) -> memoryview:
        raise OSError(errno.EIO, "Input/output error")

    with holdfast.open(saved) as checkpoint:
        checkpoint.source.reader(0)
        monkeypatch.setattr(local._LocalReader, "view", broken)

        with pytest.raises(StorageError, match="cannot read .*model.safetensors: Input/output error"):
            reader.verify_header(checkpoint.source, 0)
