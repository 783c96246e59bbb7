"""The snapshot: every layout of array arrives in its file's image, memory is reused, and nothing outlives an error."""

from __future__ import annotations

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from holdfast import LocalStore, MemoryStore, Variable, dtypes
from holdfast.engine import snapshot
from holdfast.engine.plan import plan_files
from holdfast.engine.progress import Meter
from holdfast.engine.snapshot import Held, Pool
from holdfast.engine.writer import Pipeline, write_files
from support import read_file

ARRAYS: dict[str, np.ndarray] = {
    "scalar": np.array(3.5),
    "empty": np.zeros((3, 0, 2), np.float32),
    "big-endian": np.arange(50_000, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(300_000.0).reshape(300, 1000)),
    "strided": np.arange(200_000, dtype=np.float32).reshape(200, 1000)[::2, ::-3],
    "small-strided": np.arange(100)[::3],
    "broadcast": np.broadcast_to(np.arange(300.0), (400, 300)),
    "bool": np.arange(70_001) % 3 == 0,
    "bfloat16": np.arange(100_000).astype(ml_dtypes.bfloat16),
    "float8": np.arange(9).astype(ml_dtypes.float8_e4m3fn),
    "blocks": np.random.default_rng(1).random((9 << 20) // 4 + 1, np.float32),
    "odd": np.arange(4097, dtype=np.uint8),
    **{f"many.{i}": np.full(i, i, np.int16) for i in range(3000)},
}
VARIABLES = [Variable(n, "parameter", True, dtypes.from_numpy(a.dtype) or "?", a.shape) for n, a in ARRAYS.items()]
VALUES = list(ARRAYS.values())


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast")]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("file_bytes", [1 << 40, 100_000])
def test_snapshot_is_written_as_the_arrays_are(file_bytes: int, direct: bool, tmp_path: Any) -> None:
    plans = plan_files(VARIABLES, file_bytes)
    one, two = (LocalStore().at(tmp_path / n) if direct else MemoryStore().at(n) for n in ("one", "two"))
    for folder in (one, two):
        folder.store.make_folder(folder.path)
    expected = write_files(one, plans, VALUES, Meter("save", 0, None))
    held, pool = Held.of(plans, [False] * len(VALUES)), Pool()
    pool.memory(held.nbytes)[...] = 0xEE  # what an earlier save has left
    copies = [array.copy() for array in VALUES]

    images = held.capture(copies, pool.memory(held.nbytes))
    for array in copies:
        array[...] = 0
    pipeline = Pipeline(two, plans, copies, images=images)
    pipeline.feed(Meter("save", 0, None))

    assert pipeline.finish() == expected
    for plan in plans:
        assert read_file(two / plan.name) == read_file(one / plan.name)
    assert not threads_left()


def test_files_of_values_that_never_change_are_not_copied() -> None:
    plans = plan_files(VARIABLES, 100_000)
    immutable = [v.name.startswith("many") or v.nbytes > 1 << 20 for v in VARIABLES]

    held = Held.of(plans, immutable)

    images = held.capture(VALUES, Pool().memory(held.nbytes))
    assert held.nbytes < 4 << 20
    for plan, image in zip(plans, images, strict=True):
        assert (image is None) == all(immutable[i] for i in plan.members)


def test_no_values_take_no_memory() -> None:
    assert Held.of([], []).nbytes == 0
    assert Held.of([], []).capture([], Pool().memory(0)) == []


def test_memory_grows_and_is_kept() -> None:
    pool = Pool()
    small = pool.memory(1 << 20)
    assert pool.memory(1000).__array_interface__["data"] == small.__array_interface__["data"]
    assert small.__array_interface__["data"][0] % 4096 == 0

    large = pool.memory(5 << 20)
    large[...] = 1
    pool.reserve(1 << 20)

    assert pool.nbytes == 5 << 20
    pool.clear()
    assert pool.nbytes == 0
    assert large.all(), "whoever still reads it may"
    assert not threads_left()


def test_clear_stops_memory_from_being_made() -> None:
    pool = Pool()
    pool.reserve(1 << 30)
    pool.clear()

    assert not threads_left()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_in_a_copy_is_raised_when_no_thread_works_any_more(error: type[BaseException]) -> None:
    done: list[int] = []

    def task(number: int) -> None:
        if number == 5:
            raise error("broken")
        done.append(number)

    with pytest.raises(error, match="broken"):
        snapshot.run_all([lambda n=n: task(n) for n in range(10_000)])

    assert not threads_left()
    assert len(done) < 10_000
