"""Values on devices in every pipeline: the bytes are those of arrays, nothing is used before it has arrived, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.engine.bank import Bank, Deposit

from holdfast import CorruptCheckpointError, LocalStore, Variable, dtypes, save_params
from holdfast.engine import buffers, catalog, devices, fetching, links, reader
from holdfast.engine.devices import AnyArray, Piece
from holdfast.engine.plan import plan_files
from holdfast.engine.progress import Meter
from holdfast.engine.reader import Wanted
from holdfast.engine.snapshot import Held, Pool
from holdfast.engine.source import Source
from holdfast.engine.writer import Pipeline, write_files
from holdfast.format.digests import hexdigest
from holdfast.storage import Location, local
from support import flip_bit, read_file

ARRAYS: dict[str, np.ndarray] = {
    "scalar": np.array(3.5),
    "empty": np.zeros((3, 0, 2), np.float32),
    "turned": np.arange(300_000.0).reshape(300, 1000).T,
    "stepped": np.arange(200_000, dtype=np.float32).reshape(200, 1000)[::2, ::3],
    "bfloat16": np.arange(100_000).astype(ml_dtypes.bfloat16),
    "blocks": np.random.default_rng(1).random((17 << 20) // 4 + 1, np.float32),
    "odd": np.arange(4097).astype(np.uint8),
    **{f"many.{i}": np.full(i, i, np.int16) for i in range(500)},
}
VARIABLES = [Variable(n, "parameter", True, dtypes.from_numpy(a.dtype) or "?", a.shape) for n, a in ARRAYS.items()]


def meter() -> Meter:
    return Meter("save", 0, None)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Buffers that are out."""
    out: list[int] = []
    take, give = buffers.take, buffers.give
    monkeypatch.setattr(buffers, "_free", {})
    monkeypatch.setattr(buffers, "take", lambda device=None: out.append(1) or take(device))
    monkeypatch.setattr(buffers, "give", lambda buffer: out.append(-1) or give(buffer))
    return out


def deposited(share: int, *banks: Bank, copy: bool = True) -> list[AnyArray]:
    """The arrays, all but every `share`-th in one of the banks."""
    return [
        array if share and i % share == 0 else Deposit(array.copy(order="K") if copy else array, banks[i % len(banks)])
        for i, array in enumerate(ARRAYS.values())
    ]


@pytest.fixture
def expected(tmp_path: Path) -> tuple[Location, Any]:
    """What arrays would have been written as."""
    folder = LocalStore().at(tmp_path / "expected")
    folder.store.make_folder(folder.path)
    return folder, lambda file_bytes: write_files(
        folder, plan_files(VARIABLES, file_bytes), list(ARRAYS.values()), meter()
    )


@pytest.mark.parametrize("file_bytes", [1 << 40, 100_000])
@pytest.mark.parametrize("share", [0, 3])
def test_values_on_devices_are_written_as_arrays_are(
    share: int, file_bytes: int, expected: tuple[Location, Any], tmp_path: Path, counted: list[int]
) -> None:
    folder, write = expected
    written = write(file_bytes)
    plans = plan_files(VARIABLES, file_bytes)
    values = deposited(share, Bank(), Bank(kind="other"))

    assert write_files(LocalStore().at(tmp_path), plans, values, meter()) == written

    for plan in plans:
        assert read_file(LocalStore().at(tmp_path) / plan.name) == read_file(folder / plan.name)
    assert sum(counted) == 0


@pytest.mark.parametrize("share", [0, 3])
def test_snapshot_of_values_on_devices_is_that_of_the_call(
    share: int, expected: tuple[Location, Any], tmp_path: Path
) -> None:
    folder, write = expected
    written = write(1 << 20)
    plans = plan_files(VARIABLES, 1 << 20)
    banks = Bank(), Bank()
    values = deposited(share, *banks)
    held, pool = Held.of(plans, [False] * len(values)), Pool()
    pool.memory(held.nbytes, banks[0])[...] = 0xEE
    remote = [
        (value, array) for value, array in zip(values, ARRAYS.values(), strict=True) if isinstance(value, Deposit)
    ]
    for value, array in remote:  # under way when the call comes
        value.there[...] = 0
        value.device.ask(lambda there=value.there, array=array: np.copyto(there, array))  # type: ignore[attr-defined]

    images = held.capture(values, pool.memory(held.nbytes, banks[0]))
    for value, _ in remote:
        value.there[...] = 0
    pipeline = Pipeline(LocalStore().at(tmp_path), plans, values, images=images)
    pipeline.feed(meter())

    assert pipeline.finish() == written
    for plan in plans:
        assert read_file(LocalStore().at(tmp_path) / plan.name) == read_file(folder / plan.name)


def test_arena_for_a_device_is_page_locked_once_and_unlocked_when_nobody_reads_it() -> None:
    bank, pool = Bank(), Pool()

    memory = pool.memory(5 << 20, bank)
    assert pool.memory(1 << 20, bank).__array_interface__["data"] == memory.__array_interface__["data"]
    assert pool.memory(1 << 20).__array_interface__["data"] == memory.__array_interface__["data"]
    assert list(bank.locked.values()) == [5 << 20]
    pool.clear()
    assert len(bank.locked) == 1, "it is still read"
    del memory

    assert bank.locked == {}
    pool.memory(1 << 20)
    assert bank.locked == {}
    pool.memory(1 << 20, bank)
    assert list(bank.locked.values()) == [1 << 20]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_buffers_come_back_when_nobody_asks_for_more(taken: int, counted: list[int]) -> None:
    (plan,) = plan_files(VARIABLES)
    stream = fetching.fetched(plan, deposited(0, Bank()), buffers.take, buffers.give)

    for _ in range(taken):
        buffers.give(next(stream)[0])
    stream.close()

    assert sum(counted) == 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_error_of_a_device_ends_the_save_and_gives_all_buffers_back(
    number: int, tmp_path: Path, counted: list[int]
) -> None:
    bank = Bank()
    bank.errors = [*[None] * number, RuntimeError("the device is gone")]  # type: ignore[list-item]

    with pytest.raises(RuntimeError, match="the device is gone"):
        write_files(LocalStore().at(tmp_path), plan_files(VARIABLES), deposited(0, bank), meter())

    assert sum(counted) == 0


def test_error_of_one_device_is_raised_when_no_other_copies_any_more() -> None:
    quick, slow = Bank(), Bank(seconds=0.1)
    quick.errors = [RuntimeError("the device is gone")]
    host = np.zeros(16, np.uint8)
    one = Piece(Deposit(np.ones(1), quick), 0, host[:8])
    two = Piece(Deposit(np.ones(1), slow), 0, host[8:])

    with pytest.raises(RuntimeError, match="the device is gone"):
        devices.fetch([one, two])()

    assert host.view(np.float64).tolist() == [1, 1]


def test_digests_are_fetched_up_to_the_first_that_differs(counted: list[int]) -> None:
    (plan,) = plan_files(VARIABLES)
    values = deposited(0, Bank())
    local_digests = list(links.block_digests(plan, list(ARRAYS.values()), None))

    assert list(links.block_digests(plan, values, None)) == local_digests
    stream = links.block_digests(plan, values, None)
    assert next(stream) == local_digests[0]
    stream.close()
    assert sum(counted) == 0


@pytest.fixture(params=[True, False], ids=["cached", "disk"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    save_params(ARRAYS, tmp_path / "model")
    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: request.param)
    folder = LocalStore().at(tmp_path / "model")
    return Source(folder, catalog.read_manifest(folder))


def wanted_in(source: Source, targets: dict[str, AnyArray]) -> list[Wanted]:
    entries = {entry.name: entry for entry in source.manifest.variables}
    return [Wanted(entries[name], entries[name].chunks[0], target) for name, target in targets.items()]


def test_values_are_loaded_onto_devices_after_all_that_was_asked_of_them(source: Source, counted: list[int]) -> None:
    banks = Bank(), Bank(kind="other")
    targets = dict(zip(ARRAYS, deposited(3, *banks), strict=True))
    for value in targets.values():
        if isinstance(value, Deposit):
            value.device.ask(lambda value=value: value.there.fill(9))  # type: ignore[attr-defined]
        else:
            value[...] = 9

    with source:
        reader.read_chunks(source, wanted_in(source, targets), verify=True, meter=meter())

    for name, value in targets.items():
        there = value.there if isinstance(value, Deposit) else value
        assert there.tobytes() == ARRAYS[name].tobytes(), name
    assert sum(counted) == 0


def test_values_are_cast_on_their_way_to_a_device(source: Source) -> None:
    target = Deposit(np.zeros(ARRAYS["blocks"].shape), Bank())

    with source:
        reader.read_chunks(source, wanted_in(source, {"blocks": target}), verify=True, meter=meter())

    assert np.array_equal(target.there, ARRAYS["blocks"].astype(np.float64))


@pytest.mark.parametrize("name", ["many.499", "blocks"])
def test_damaged_bytes_do_not_reach_a_device(name: str, source: Source) -> None:
    targets = {key: Deposit(np.zeros_like(array), Bank(seconds=0)) for key, array in ARRAYS.items()}
    (one,) = wanted_in(source, {name: targets[name]})
    flip_bit(Path(source.path(one.chunk.file)), one.chunk.range[1] - 1)

    with source, pytest.raises(CorruptCheckpointError, match=f"'{name}'"):
        reader.read_chunks(source, wanted_in(source, dict(targets)), verify=True, meter=meter())

    whole = ARRAYS[name].size * ARRAYS[name].itemsize // (8 << 20) * (8 << 20) // ARRAYS[name].itemsize
    assert not targets[name].there[whole:].any()
    if whole:
        assert np.array_equal(targets[name].there[:whole], ARRAYS[name][:whole])


def test_blocks_of_an_image_that_a_device_wrote_are_hashed_when_asked_for() -> None:
    (plan,) = plan_files(VARIABLES)
    values = deposited(0, Bank(seconds=0))
    held = Held.of([plan], [False] * len(values))

    (image,) = held.capture(values, Pool().memory(held.nbytes))

    assert image is not None
    assert set(image.digests) == {""}
    assert list(links.block_digests(plan, values, image)) == list(
        links.block_digests(plan, list(ARRAYS.values()), None)
    )
    assert hexdigest(image.memory[: len(plan.header)].data) == hexdigest(plan.header)
