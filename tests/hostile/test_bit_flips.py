"""E1: every single bit of a checkpoint counts. Each is flipped, and verifying and loading must both notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import holdfast
from holdfast.errors import CorruptCheckpointError, HoldfastError
from holdfast.storage import Location, MemoryStore
from hostile.cases import MODEL, STATE, TRAINER, TRAINER_ARGS
from hostile.operations import arrays_of, blank_state

FILES = ("manifest.json", MODEL, STATE, TRAINER)


def saved_in_memory() -> tuple[Location, dict[str, bytearray]]:
    """A small checkpoint, and the very bytes that the store holds."""
    store = MemoryStore()
    run = store.at("run")
    holdfast.save_checkpoint(blank_state(), run, trainer_args=TRAINER_ARGS, step=3, metrics={"loss": 0.5})
    folder = run.path + "/checkpoint_0"
    return run, {entry.name: store._find(f"{folder}/{entry.name}").data for entry in store.list(folder)}  # type: ignore[union-attr]


def unnoticed(call: Callable[[], object]) -> bool:
    """Whether a call succeeds, though it should have raised one of our errors. Others pass."""
    try:
        call()
    except HoldfastError:
        return False
    return True


def test_the_checkpoint_has_no_other_files() -> None:
    assert set(saved_in_memory()[1]) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(name: str) -> None:
    run, files = saved_in_memory()
    data, state = files[name], blank_state()
    missed = []
    for place in range(len(data)):
        for bit in range(8):
            data[place] ^= 1 << bit
            if unnoticed(lambda: holdfast.verify(run)):
                missed.append(("verify", place, bit))
            if unnoticed(lambda: holdfast.load_checkpoint(state, run)):
                missed.append(("load_checkpoint", place, bit))
            data[place] ^= 1 << bit

    holdfast.verify(run)
    holdfast.load_checkpoint(state, run)
    assert not missed, f"{len(missed)} of {len(data) * 8} bits of {name}, such as {missed[:5]}"
    print(f"{len(data) * 8} bits of {name}")


@pytest.mark.parametrize("name", FILES)
def test_every_changed_length_is_noticed(name: str) -> None:
    run, files = saved_in_memory()
    whole, state = bytes(files[name]), blank_state()
    for length in range(len(whole)):
        files[name][:] = whole[:length]
        assert holdfast.serials(run) == [], length
        assert not unnoticed(lambda: holdfast.load_checkpoint(state, run)), length
    for extra in (b"\0", b" ", b"\n", whole):
        files[name][:] = whole + extra
        assert not unnoticed(lambda: holdfast.verify(run)), extra
        assert not unnoticed(lambda: holdfast.load_checkpoint(state, run)), extra


def _into_arrays(run: Path, state: dict[str, np.ndarray]) -> None:
    holdfast.load_checkpoint({name: np.empty_like(array) for name, array in state.items()}, run)


def _at_once(run: Path, state: dict[str, np.ndarray]) -> None:
    with holdfast.open(run) as checkpoint:
        assert checkpoint.read().keys() == state.keys()


def _lazily(run: Path, state: dict[str, np.ndarray]) -> None:
    with holdfast.open(run) as checkpoint:
        for name in state:
            np.asarray(checkpoint[name])


@pytest.mark.parametrize("nbytes", [24, 64 << 10, (64 << 10) + 4, 300_000, (8 << 20) + 4])
@pytest.mark.parametrize("read", [_into_arrays, _at_once, _lazily])
def test_flipped_bits_of_a_local_file_are_noticed_and_named(
    nbytes: int, read: Callable[[Path, dict[str, np.ndarray]], None], tmp_path: Path
) -> None:
    state = {"before": np.arange(9.0), "here": np.zeros(nbytes // 4, "f4"), "after": np.arange(5, dtype="u1")}
    holdfast.save_checkpoint(state, tmp_path)
    path = tmp_path / "checkpoint_0" / STATE
    with holdfast.open(tmp_path) as checkpoint:
        (chunk,) = next(entry.chunks for entry in checkpoint.manifest.variables if entry.name == "here")
    rng = random.Random(nbytes)
    for place in [chunk.range[0], chunk.range[1] - 1, *(rng.randrange(*chunk.range) for _ in range(20))]:
        _flip(path, place, mask := 1 << rng.randrange(8))

        with pytest.raises(CorruptCheckpointError, match="here") as caught:
            read(tmp_path, state)

        assert caught.value.variables == ("here",)
        _flip(path, place, mask)
    holdfast.verify(tmp_path)


def _flip(path: Path, place: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ mask]))


def test_damage_changes_nothing_if_it_is_looked_for_before(tmp_path: Path) -> None:
    holdfast.save_checkpoint(blank_state(), tmp_path, trainer_args=TRAINER_ARGS)
    path = tmp_path / "checkpoint_0" / STATE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    state = blank_state()
    for array in arrays_of(state).values():
        array[...] = 5

    with pytest.raises(CorruptCheckpointError):
        holdfast.load_checkpoint(state, tmp_path, verify="before")

    assert all((array == 5).all() for array in arrays_of(state).values())
