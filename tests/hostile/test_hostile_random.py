"""Hostile states of random number generators: NumPy checks few of these numbers, and reads memory by some of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.errors import HoldfastError
from spec.independent import build_checkpoint, write_folder
from spec.typed import Random

BITS = {name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")}
HOSTILE: list[Any] = [-1, 2**31, 2**32, 2**63, 2**64, 2**128, 10**400, -(2**63), 1.5, 1e300, float("nan"), float("inf"), None,
                      True, "", "1", [], [1], {}, np.arange(3)]  # fmt: skip


def generators() -> Iterator[tuple[str, Any, str, Any]]:
    """(name, a fresh generator, the type's name in the format, its state)."""
    for name, bits in BITS.items():
        made = np.random.Generator(bits(7))
        yield name, np.random.Generator(bits(1)), "numpy.random.Generator", made.bit_generator.state
    yield (
        "RandomState",
        np.random.RandomState(1),
        "numpy.random.RandomState",
        np.random.RandomState(7).get_state(legacy=False),
    )


def numbers(state: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of everything in a state that is no container."""
    if isinstance(state, dict):
        for key, child in state.items():
            yield from numbers(child, (*here, key))
    else:
        yield here


def hostile_states(state: Any) -> Iterator[tuple[str, Any]]:
    """States with one place changed, in which no generator ever is."""

    def changed(path: tuple[Any, ...], value: Any) -> Any:
        made = copy.deepcopy(state)
        inner = made
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return made

    for path in numbers(state):
        for value in HOSTILE:
            yield f"{path} = {str(value)[:20]}", changed(path, value)
    for wrong in (None, 1, "", [], {}, "PCG64", [1, 2], {"bit_generator": "os.system", "state": {}}):
        yield f"{str(wrong)[:40]}", wrong
    limits = {"pos": (625, 624 + 2**20, 10**6), "buffer_pos": (5, 100, 10**6)}
    for path in numbers(state):
        for value in limits.get(path[-1], ()):
            yield f"{path} = {value}", changed(path, value)


def sound(state: Any) -> bool:
    """Whether a generator may be in this state after all: every number is of its field's range."""
    limits = {"pos": 625, "buffer_pos": 5, "has_uint32": 2, "has_gauss": 2, "uinteger": 2**32}
    for path in numbers(state):
        value = state
        for key in path:
            value = value[key]
        if path[-1] in limits and not (type(value) is int and 0 <= value < limits[path[-1]]):
            return False
    return True


def _save(folder: Path, value: Any) -> Path:
    files = build_checkpoint([], {}, trainers=[(None, {"rng": value})])
    return write_folder(files, folder)


@pytest.mark.parametrize(("name", "target", "kind", "state"), list(generators()), ids=[*BITS, "RandomState"])
def test_hostile_state_of_a_generator_is_refused(name: str, target: Any, kind: str, state: Any, tmp_path: Path) -> None:
    holdfast.load_checkpoint({"rng": target}, _save(tmp_path / "sound" / "checkpoint_0", Random(kind, state)))
    failures = []
    for number, (what, hostile) in enumerate(hostile_states(state)):
        before = repr(_state(target))
        folder = _save(tmp_path / str(number) / "checkpoint_0", Random(kind, hostile))
        try:
            holdfast.load_checkpoint({"rng": target}, folder)
        except HoldfastError:
            if repr(_state(target)) != before:
                failures.append(f"{what}: the generator was touched")
            continue
        except Exception as error:
            failures.append(f"{what}: {type(error).__name__}: {error}")
            continue
        # Never drawn from here: NumPy reads its buffer at the position that it was given, wherever that is.
        if not isinstance(hostile, dict) or not sound(hostile):
            failures.append(f"{what}: accepted")
        elif repr(_state(target)) != repr(hostile) and not _equal(_state(target), hostile):
            failures.append(f"{what}: became {str(_state(target))[:200]}")

    assert not failures, f"{len(failures)} for {name}:\n" + "\n".join(failures)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b or repr(a) == repr(b))


@pytest.mark.parametrize(
    "state",
    [None, 1, (), (3,), (3, (), None), (3, (1,) * 625, None, 1),
     (9, (1,) * 625, None), (3, (1,) * 624, None), (3, (1,) * 626, None),
     (3, (*(1,) * 624, 625), None), (3, (*(1,) * 624, -1), None), (3, (-1, *(1,) * 624), None), (3, (2**32, *(1,) * 624), None),
     (3, (2**64, *(1,) * 624), None), (3, ("1",) * 625, None), (3, (1.5,) * 625, None), (3, (None,) * 625, None),
     (3, [1] * 625, None), (3, (1,) * 625, "x"), (3, (1,) * 625, [1]), {"a": 1}, "state"],
    ids=lambda state: repr(state)[:30],
)  # fmt: skip
def test_hostile_state_of_a_python_generator_is_refused(state: Any, tmp_path: Path) -> None:
    target = random.Random(1)
    before = target.getstate()
    folder = _save(tmp_path / "checkpoint_0", Random("random.Random", state))

    with pytest.raises(HoldfastError):
        holdfast.load_checkpoint({"rng": target}, folder)

    assert target.getstate() == before


@pytest.mark.parametrize(("name", "target", "kind", "state"), list(generators()), ids=[*BITS, "RandomState"])
def test_state_of_another_type_is_refused(name: str, target: Any, kind: str, state: Any, tmp_path: Path) -> None:
    before = repr(_state(target))
    for number, (other, _, other_kind, other_state) in enumerate(generators()):
        if (other == name) or (kind, name) == (other_kind, other):
            continue
        folder = _save(tmp_path / str(number) / "checkpoint_0", Random(other_kind, other_state))
        with pytest.raises(HoldfastError):
            holdfast.load_checkpoint({"rng": target}, folder)
        folder = _save(tmp_path / f"{number}b" / "checkpoint_0", Random("random.Random", state))
        with pytest.raises(HoldfastError):
            holdfast.load_checkpoint({"rng": target}, folder)

    assert repr(_state(target)) == before
