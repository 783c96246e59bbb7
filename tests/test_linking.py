"""What has not changed is not written again: which files are shared, that no value is ever stale, and what damage does."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import holdfast
from holdfast import CheckpointManager, CorruptCheckpointError, DiskFullError, MemoryStore, StorageError
from holdfast.engine import plan
from support import WrappedStore, contents, flip_bit

KIB = 1024


@pytest.fixture(autouse=True)
def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts of a large state, for a state of a megabyte or two."""
    monkeypatch.setattr(plan, "UNCUT_BYTES", 64 * KIB)
    monkeypatch.setattr(plan, "MIN_CUT_BYTES", 4 * KIB)


def layers(count: int = 100, floats: int = 2 * KIB) -> dict[str, np.ndarray]:
    random_numbers = np.random.default_rng(1)
    return {f"h.{i}.w": random_numbers.random(floats, np.float32) for i in range(count)}


def nbytes(state: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in state.values())


def files(folder: Path) -> dict[str, os.stat_result]:
    return {p.name: p.stat() for p in folder.iterdir() if p.suffix == ".safetensors"}


def written(new: Path, old: Path) -> int:
    """Bytes of the files of a checkpoint that are none of the other's."""
    shared = {info.st_ino for info in files(old).values()}
    return sum(info.st_size for info in files(new).values() if info.st_ino not in shared)


def folder(run: Path, serial: int) -> Path:
    return run / f"checkpoint_{serial}"


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_any_percent_of_the_variables_costs_at_most_three_percent(seed: int, wait: bool, tmp_path: Path) -> None:
    model = layers(200)
    state = {"model": holdfast.parameters(model), "bias": {f"b.{i}": np.zeros(8) for i in range(100)}}
    manager = CheckpointManager(tmp_path)
    manager.save(state, 0)
    for name in random.Random(seed).sample(list(model), 3):
        model[name] += 1
    expected = contents(state)

    manager.save(state, 1, wait=wait).result()

    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) <= 0.03 * nbytes(model)
    for array in model.values():
        array[...] = -1
    manager.restore(state)
    assert contents(state) == expected
    assert holdfast.verify(tmp_path, serial=0)


def test_values_of_standard_readers_are_never_stale(tmp_path: Path) -> None:
    rng = random.Random(0)
    model = layers(30)
    for serial in range(8):
        holdfast.save_checkpoint({"m": holdfast.parameters(model)}, tmp_path, max_num_checkpoints=3)
        found: dict[str, np.ndarray] = {}
        for file in files(folder(tmp_path, serial)):
            found |= safetensors.numpy.load_file(folder(tmp_path, serial) / file)
        assert found.keys() == {f"m.{name}" for name in model}
        assert all(np.array_equal(found[f"m.{name}"], array) for name, array in model.items())
        for name in rng.sample(list(model), 2):
            model[name][rng.randrange(100)] += 1


@pytest.mark.parametrize("wait", [True, False])
def test_frozen_parameters_are_written_once(wait: bool, tmp_path: Path) -> None:
    base, adapter = layers(50), {"a": np.zeros(4 * KIB, np.float32)}
    state = {
        "base": holdfast.parameters(base, trainable=False),
        "adapter": holdfast.parameters(adapter),
        "slots": {"m": np.zeros(4 * KIB, np.float32)},
    }
    manager = CheckpointManager(tmp_path, max_to_keep=2)
    for step in range(5):
        adapter["a"] += 1
        state["slots"]["m"] += 1
        manager.save(state, step, wait=wait)
        manager.wait_until_finished()

    changed = adapter["a"].nbytes + state["slots"]["m"].nbytes
    assert (
        written(folder(tmp_path, 4), folder(tmp_path, 3)) <= 1.05 * changed + 2 * 4096
    )  # headers are padded to a page
    manager.restore(state)
    assert state["adapter"].tree["a"].tolist() == [5] * (4 * KIB)


def test_nothing_changed_writes_no_data(tmp_path: Path) -> None:
    state = {"x": np.arange(100_000.0), "y": np.zeros(0), "z": np.asfortranarray(np.ones((300, 200)))}
    holdfast.save_checkpoint(state, tmp_path, trainer_args=1)

    holdfast.save_checkpoint(state, tmp_path, trainer_args=2)

    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) == 0
    target = {"x": np.zeros(100_000), "y": np.zeros(0), "z": np.zeros((300, 200))}
    assert holdfast.load_checkpoint(target, tmp_path).trainer_args == 2
    assert contents(target) == contents(state)


def test_file_is_found_under_another_number(tmp_path: Path) -> None:
    """Numbers in names shift when a layer is added; the files stay the same."""
    model = layers(20)
    holdfast.save_checkpoint({"m": holdfast.parameters(model)}, tmp_path)
    added = {"a": np.ones(2 * KIB, np.float32), **model}

    holdfast.save_checkpoint({"m": holdfast.parameters(added)}, tmp_path)

    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) <= 3 * added["a"].nbytes
    holdfast.verify(tmp_path)


@pytest.mark.parametrize("keep", [1, 2])
def test_deleting_a_checkpoint_never_harms_another(keep: int, tmp_path: Path) -> None:
    model = layers(20)
    for _ in range(6):
        model["h.3.w"] += 1
        holdfast.save_checkpoint({"m": model}, tmp_path, max_num_checkpoints=keep)
        for serial in holdfast.serials(tmp_path):
            holdfast.verify(tmp_path, serial=serial)

    shutil.rmtree(folder(tmp_path, 5 - (keep - 1)))
    if keep == 2:
        holdfast.verify(tmp_path, serial=5)


def test_flipped_bit_of_a_shared_file_is_noticed_in_both(tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path)
    (name,) = files(folder(tmp_path, 0))
    flip_bit(folder(tmp_path, 0) / name)

    for serial in (0, 1):
        with pytest.raises(CorruptCheckpointError, match="'w'"):
            holdfast.load_checkpoint({"w": np.zeros(1000)}, tmp_path, serial=serial)
        with pytest.raises(CorruptCheckpointError):
            holdfast.verify(tmp_path, serial=serial)


def damage_in_silence(path: Path) -> None:
    """What a disk does: other bytes, and the times as they were."""
    info = path.stat()
    flip_bit(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize("place", [30, 4100, -1])
def test_damaged_file_is_read_back_and_not_linked_if_that_is_wanted(
    place: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"w": np.arange(3_000_000.0), "v": np.arange(100_000.0), "u": np.ones(3)}
    manager = CheckpointManager(tmp_path, unchanged="verify")
    manager.save(state, 0)
    (largest,) = [name for name, info in files(folder(tmp_path, 0)).items() if info.st_size > 20_000_000]
    info = (folder(tmp_path, 0) / largest).stat()
    flip_bit(folder(tmp_path, 0) / largest, place)
    os.utime(folder(tmp_path, 0) / largest, ns=(info.st_atime_ns, info.st_mtime_ns))

    manager.save(state, 1)

    assert f"{largest} is damaged; what it held is written again, from memory" in caplog.text
    holdfast.verify(tmp_path, serial=1)
    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) == info.st_size
    manager.save(state, 2)
    assert written(folder(tmp_path, 2), folder(tmp_path, 1)) == 0
    assert caplog.text.count("is damaged") == 1


def test_damage_that_is_not_looked_for_is_noticed_on_load(tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    holdfast.save_checkpoint(state, tmp_path)
    (name,) = files(folder(tmp_path, 0))
    damage_in_silence(folder(tmp_path, 0) / name)

    holdfast.save_checkpoint(state, tmp_path)

    with pytest.raises(CorruptCheckpointError):
        holdfast.load_checkpoint(state, tmp_path)


def test_file_that_was_changed_after_its_commit_is_not_linked(tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    holdfast.save_checkpoint(state, tmp_path)
    (name,) = files(folder(tmp_path, 0))
    flip_bit(folder(tmp_path, 0) / name)

    holdfast.save_checkpoint(state, tmp_path)

    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) > 0
    holdfast.verify(tmp_path)


def test_nothing_is_linked_to_a_checkpoint_that_a_restore_found_damaged(tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0), "n": np.zeros(1)}
    manager = CheckpointManager(tmp_path)
    for step in range(2):
        state["w"] = state["w"] + step
        manager.save(state, step)
    (name,) = files(folder(tmp_path, 1))
    damage_in_silence(folder(tmp_path, 1) / name)
    assert manager.restore(state).step == 0

    state["w"] += 1  # what was in the damaged one
    manager.save(state, 2)

    assert written(folder(tmp_path, 2), folder(tmp_path, 1)) > 0
    holdfast.verify(tmp_path, serial=2)


@pytest.mark.parametrize("option", ["write", "link"])
def test_unchanged_files_are_written_again_if_that_is_wanted(option: Any, tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path, unchanged=option)

    assert (written(folder(tmp_path, 1), folder(tmp_path, 0)) > 0) == (option == "write")
    with pytest.raises(ValueError, match='unchanged must be "link", "verify" or "write", not \'copy\''):
        holdfast.save_checkpoint(state, tmp_path, unchanged="copy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unchanged must be"):
        CheckpointManager(tmp_path, unchanged="copy")  # type: ignore[arg-type]


def refuse(*_: Any) -> bool:
    raise PermissionError(1, "Operation not permitted")


def vanish(*_: Any) -> bool:
    raise FileNotFoundError(2, "No such file")


@pytest.mark.parametrize("link", [lambda *_: False, refuse, vanish])
@pytest.mark.parametrize("wait", [True, False])
def test_without_links_everything_is_written(link: Any, wait: bool, tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    manager = CheckpointManager(WrappedStore(link=link).at(tmp_path))
    for step in range(2):
        manager.save(state, step, wait=wait).result()

    assert written(folder(tmp_path, 1), folder(tmp_path, 0)) > 0
    holdfast.verify(tmp_path)


def test_older_checkpoint_that_cannot_be_read_is_no_reason_to_fail(tmp_path: Path) -> None:
    state = {"w": np.arange(1000.0)}
    store = WrappedStore()
    holdfast.save_checkpoint(state, store.at(tmp_path))
    reads = []

    def failing(path: str) -> Any:
        if path.endswith("checkpoint_0/manifest.json"):
            reads.append(path)
            if len(reads) > 1:  # the first look is at what there is
                raise OSError(5, "Input/output error")
        return store.inner.open(path)

    store.instead["open"] = failing
    try:
        holdfast.save_checkpoint(state, store.at(tmp_path), max_num_checkpoints=None)
    except StorageError:
        pytest.fail("a link is never worth an error")
    finally:
        store.instead.clear()
    holdfast.verify(tmp_path, serial=1)


@pytest.fixture
def nearly_full() -> holdfast.Location:
    """A store that holds one and a half of the state below."""
    return MemoryStore(capacity_bytes=1_300_000).at("run")


def test_space_is_needed_for_what_is_written_only(nearly_full: holdfast.Location) -> None:
    frozen = {"w": np.arange(100_000.0)}
    state = {"f": holdfast.parameters(frozen, trainable=False), "m": np.zeros(10)}
    manager = CheckpointManager(nearly_full, max_to_keep=None)
    for step in range(3):
        state["m"] += 1
        manager.save(state, step, wait=step != 2).result()
    assert manager.serials() == [0, 1, 2]

    frozen["w"][0] = -1
    with pytest.raises(DiskFullError, match="800,000|80[0-9],[0-9]{3} bytes are needed"):
        manager.save(state, 3)
    assert manager.serials() == [0, 1, 2]
