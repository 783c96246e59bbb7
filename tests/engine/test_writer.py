"""The write pipeline: every layout of array arrives as the same bytes, each digest fits, errors reach the caller."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from holdfast import LocalStore, MemoryStore, StorageError, Variable, dtypes
from holdfast.engine import buffers, writer
from holdfast.engine.plan import FilePlan, plan_files
from holdfast.engine.progress import Meter
from holdfast.engine.writer import Written, write_files
from holdfast.format.digests import BLOCK_BYTES, file_digest, hexdigest
from holdfast.storage import Location
from support import WrappedStore

RNG = np.random.default_rng(0)


def variables_of(arrays: dict[str, np.ndarray]) -> list[Variable]:
    return [Variable(n, "parameter", True, dtypes.from_numpy(a.dtype) or "?", a.shape) for n, a in arrays.items()]


def write(folder: Location, arrays: dict[str, np.ndarray], file_bytes: int = 1 << 40) -> tuple[list[FilePlan], Written]:
    plans = plan_files(variables_of(arrays), file_bytes)
    return plans, write_files(folder, plans, list(arrays.values()), Meter("save", 0, None))


def random_array(nbytes: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.integers(0, 255, nbytes, np.uint8).view(dtype)


ARRAYS: dict[str, Callable[[], np.ndarray]] = {
    "scalar": lambda: np.array(3.5),
    "empty": lambda: np.zeros((3, 0, 2), np.float32),
    "one": lambda: np.array([7], np.int8),
    "big-endian": lambda: np.arange(50, dtype=">i4").reshape(5, 10),
    "big-endian-large": lambda: np.arange(50_000, dtype=">f8"),
    "fortran": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "fortran-large": lambda: np.asfortranarray(np.arange(300_000.0).reshape(300, 1000)),
    "strided": lambda: np.arange(100)[::3],
    "strided-large": lambda: np.arange(200_000, dtype=np.float32).reshape(200, 1000)[::2, ::-3],
    "transposed": lambda: np.arange(60_000.0).reshape(20, 30, 100).transpose(2, 0, 1),
    "broadcast": lambda: np.broadcast_to(np.arange(300.0), (400, 300)),
    "bool": lambda: np.arange(70_001) % 3 == 0,
    "bfloat16": lambda: np.arange(100).astype(ml_dtypes.bfloat16),
    "complex": lambda: (np.arange(10_000) * (1 + 2j)).astype(np.complex64),
    "blocks": lambda: random_array(BLOCK_BYTES + 4),
    "block": lambda: random_array(BLOCK_BYTES),
    "step": lambda: random_array(buffers.STEP_BYTES + 4),
    "small-limit": lambda: random_array(writer.SMALL_BYTES),
    "above-small": lambda: random_array(writer.SMALL_BYTES + 4),
    "odd": lambda: random_array(4097, np.uint8),
}


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy() if array.flags.c_contiguous else array
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", ARRAYS)
def test_every_layout_arrives_as_the_official_package_writes_it(name: str, tmp_path: Path) -> None:
    array = read_only(ARRAYS[name]())

    write(LocalStore().at(tmp_path), {"x": array})

    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")["x"]
    assert (found.dtype, found.shape) == (array.dtype.newbyteorder("="), array.shape)
    assert found.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("direct", [True, False])
def test_all_together_have_the_digests_of_their_bytes(tmp_path: Path, direct: bool) -> None:
    arrays = {name: make() for name, make in ARRAYS.items()}
    folder = LocalStore().at(tmp_path) if direct else MemoryStore().at("/")

    plans, written = write(folder, arrays)

    (plan,) = plans
    reader = folder.store.open((folder / plan.name).path)
    data = bytes(reader.view(0, reader.size))
    reader.close()
    (file,) = written.files
    assert (file.name, file.size, file.header_size) == (plan.name, len(data), len(plan.header))
    assert file.header_digest == hexdigest(data[: len(plan.header)])
    end, digests = len(plan.header), []
    for i in plan.members:
        array = list(arrays.values())[i]
        number, start, stop, blocks = written.chunks[i]
        assert (number, start, stop) == (0, end, end + array.nbytes)
        assert data[start:stop] == array.astype(array.dtype.newbyteorder("<")).tobytes()
        assert list(blocks) == [
            hexdigest(data[at : min(at + BLOCK_BYTES, stop)]) for at in range(start, stop, BLOCK_BYTES)
        ]
        digests += blocks
        end = stop
    assert end == len(data)
    assert file.digest == file_digest(hexdigest(plan.header), digests)


def test_many_small_arrays_cross_the_buffers(tmp_path: Path) -> None:
    sizes = RNG.integers(0, 60_000, 700).tolist()  # some 21 MB: three buffers, with arrays across their ends
    arrays = {f"{i}": random_array(size, np.uint8) for i, size in enumerate(sizes)}

    write(LocalStore().at(tmp_path), arrays)

    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_several_files_are_written(tmp_path: Path) -> None:
    arrays = {f"{i}": random_array(100_000) for i in range(5)}

    plans, written = write(LocalStore().at(tmp_path), arrays, 250_000)

    assert (
        sorted(p.name for p in tmp_path.iterdir()) == [plan.name for plan in plans] == [f.name for f in written.files]
    )
    assert len(plans) == 3
    for plan in plans:
        found = safetensors.numpy.load_file(tmp_path / plan.name)
        assert all(found[name].tobytes() == arrays[name].tobytes() for name in found)


def test_array_that_changes_meanwhile_has_the_digest_of_what_was_written(tmp_path: Path) -> None:
    array = random_array(3 * BLOCK_BYTES, np.uint8)
    plans = plan_files(variables_of({"x": array}))

    def disturb(_: Any) -> None:
        array[:] += 1

    written = write_files(LocalStore().at(tmp_path), plans, [array], Meter("save", 0, disturb))

    data = (tmp_path / "model.safetensors").read_bytes()
    _, start, stop, blocks = written.chunks[0]
    assert list(blocks) == [hexdigest(data[at : at + BLOCK_BYTES]) for at in range(start, stop, BLOCK_BYTES)]


def no_threads_left() -> bool:
    return not any(thread.name.startswith("holdfast") for thread in threading.enumerate())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["write_at", "truncate", "sync", "close"])
@pytest.mark.parametrize("size", [10, (20 << 20) + 4])  # neither fills its last page
def test_errors_of_writer_threads_reach_the_caller_with_their_cause(
    tmp_path: Path, operation: str, number: int, size: int
) -> None:
    class Broken:
        def __init__(self, real: Any) -> None:
            self._real = real
            self.direct = real.direct

        def __getattr__(self, name: str) -> Any:
            if name != operation:
                return getattr(self._real, name)

            def fail(*_: Any) -> None:
                if name == "close":
                    self._real.close()
                raise OSError(number, "it is broken")

            return fail

    store = WrappedStore()
    real_create = store.inner.create
    store.instead["create"] = lambda path, size, **options: Broken(real_create(path, size, **options))

    with pytest.raises(StorageError, match="cannot write .*model.safetensors: it is broken") as caught:
        write(store.at(tmp_path), {"x": np.zeros(size, np.uint8)})

    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, OSError)
    assert no_threads_left()


def test_errors_of_create_reach_the_caller(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot create .*model.safetensors") as caught:
        write(LocalStore().at(tmp_path), {"x": np.zeros(3)})

    assert caught.value.errno == errno.EEXIST
    assert no_threads_left()


def test_interrupt_from_the_callback_ends_all_threads_and_gives_all_buffers_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take, give = buffers.take, buffers.give
    monkeypatch.setattr(buffers, "take", lambda device=None: taken.append(1) or take(device))
    monkeypatch.setattr(buffers, "give", lambda buffer: taken.append(-1) or give(buffer))

    def interrupt(progress: Any) -> None:
        if progress.done_bytes > 20 << 20:
            raise KeyboardInterrupt

    array = np.zeros(40 << 20, np.uint8)
    plans = plan_files(variables_of({"x": array}))

    with pytest.raises(KeyboardInterrupt):
        write_files(LocalStore().at(tmp_path), plans, [array], Meter("save", 0, interrupt))

    assert no_threads_left()
    assert sum(taken) == 0 < len(taken)


def test_fault_of_our_own_in_a_thread_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        direct = False

        def __getattr__(self, name: str) -> Any:
            if name == "write_at":
                raise RuntimeError("a fault")
            return lambda *_: None

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    store = WrappedStore(MemoryStore(), create=lambda *_, **__: Odd())

    with pytest.raises(StorageError, match="RuntimeError: a fault"):
        write(Location(store, "/x"), {"x": np.zeros(20 << 20, np.uint8)})  # type: ignore[arg-type]

    assert no_threads_left()


def test_lack_of_threads_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def second_fails(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", second_fails)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        write(MemoryStore().at("/"), {"x": np.zeros(20 << 20, np.uint8)})

    assert started
    assert no_threads_left()
