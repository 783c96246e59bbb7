"""Comparing two checkpoints: against NumPy, over all dtypes and layouts of chunks; and what is not read for it."""

from __future__ import annotations

import itertools
import math
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import holdfast
from holdfast import comparing, dtypes
from holdfast.comparing import Comparison, compare
from holdfast.format.digests import BLOCK_BYTES
from spec.independent import Piece, SpecVariable, build_checkpoint, write_folder
from support import WrappedStore, flip_bit


def compared(a: Any, b: Any, tmp_path: Path, **options: Any) -> Comparison:
    """Two states, saved and compared."""
    for name, state in (("a", a), ("b", b)):
        holdfast.save_persistables(state, tmp_path / name)
    with holdfast.open(tmp_path / "a") as ours, holdfast.open(tmp_path / "b") as theirs:
        return compare(ours, theirs, **options)


def the_change(a: np.ndarray, b: np.ndarray, tmp_path: Path) -> comparing.ChangeSize:
    """The size of the change of one variable."""
    (changed,) = compared({"w": a}, {"w": b}, tmp_path).changed
    assert changed.size is not None
    return changed.size


def expected(x: np.ndarray, y: np.ndarray) -> comparing.ChangeSize:
    """The same by NumPy, all at once."""
    x, y = x.reshape(-1), y.reshape(-1)
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        p, q = x.astype(wide), y.astype(wide)
        differs = x.view(f"u{x.itemsize}") != y.view(f"u{y.itemsize}")
        finite = np.isfinite(p) & np.isfinite(q)
        chosen = differs & finite
        base, apart = np.linalg.norm(p[finite]), np.linalg.norm((q - p)[chosen])
        if x.dtype.kind in "iub":
            top: float | None = max(
                (abs(int(i) - int(j)) for i, j in zip(x[chosen], y[chosen], strict=True)), default=None
            )
        else:
            top = float(np.abs(q - p)[chosen].max()) if chosen.any() else None
        ratio = pytest.approx(apart / base, rel=1e-6, nan_ok=True) if base else None
    return comparing.ChangeSize(x.size, int(differs.sum()), int((differs & ~finite).sum()), top, ratio)


def values_of(dtype: np.dtype, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values of a dtype; for integers from its whole range."""
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).copy()
    real = rng.normal(size=count).astype(np.float32)
    return (real + 1j * rng.normal(size=count)).astype(dtype) if dtype.kind == "c" else real.astype(dtype)


@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_compare_agrees_with_numpy(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    count = comparing.PIECE + 1001
    a = values_of(dtypes.to_numpy(name), count, rng)
    b = a.copy()
    b[rng.choice(count, 500)] = values_of(a.dtype, 500, rng)

    assert the_change(a, b, tmp_path) == expected(a, b)


def test_compare_across_blocks_reads_equal_blocks_on_one_side_only(tmp_path: Path) -> None:
    a = np.arange(3 * BLOCK_BYTES // 8 + 5, dtype=np.float64)
    b = a.copy()
    b[[BLOCK_BYTES // 8, -1]] += 1
    store = WrappedStore()
    for name, state in (("a", a), ("b", b)):
        holdfast.save_persistables({"w": state}, tmp_path / name)

    with holdfast.open(store.at(tmp_path / "a")) as ours, holdfast.open(store.at(tmp_path / "b")) as theirs:
        store.asked.clear()
        (changed,) = compare(ours, theirs).changed

    assert changed.size == expected(a, b)
    assert sum(n for path, _, n in store.asked if "/a/" in path) == a.nbytes
    assert sum(n for path, _, n in store.asked if "/b/" in path) == BLOCK_BYTES + 40


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, 12, elements=st.floats(width=64)),
    hnp.arrays(np.float64, 12, elements=st.floats(width=64)),
)
def test_compare_takes_any_float(tmp_path_factory: pytest.TempPathFactory, a: np.ndarray, b: np.ndarray) -> None:
    if a.tobytes() == b.tobytes():
        return
    found, wanted = the_change(a, b, tmp_path_factory.mktemp("any")), expected(a, b)

    assert (found.elements, found.changed, found.not_finite, found.max_abs) == (
        wanted.elements, wanted.changed, wanted.not_finite, wanted.max_abs,
    )  # fmt: skip
    assert found.relative_l2 is None or not math.isnan(found.relative_l2)


def test_compare_norms_neither_overflow_nor_vanish(tmp_path: Path) -> None:
    for scale in (1e-300, 1e300):
        size = the_change(np.array([3.0, 4.0]) * scale, np.array([3.0, 9.0]) * scale, tmp_path)

        assert size.relative_l2 == pytest.approx(1.0)


def test_compare_integers_exactly(tmp_path: Path) -> None:
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max

    assert the_change(np.array([low, 0]), np.array([high, 0]), tmp_path).max_abs == high - low
    assert the_change(np.array([2**60]), np.array([2**60 + 1]), tmp_path).max_abs == 1
    assert the_change(np.array([2**64 - 1], np.uint64), np.array([0], np.uint64), tmp_path).max_abs == 2**64 - 1
    assert the_change(np.array([True]), np.array([False]), tmp_path).max_abs == 1


def test_compare_tells_negative_zero_and_nan_payloads_by_their_bits(tmp_path: Path) -> None:
    size = the_change(np.array([0.0, 1.0]), np.array([-0.0, 1.0]), tmp_path)
    assert (size.changed, size.not_finite, size.max_abs, size.relative_l2) == (1, 0, 0.0, 0.0)

    other_nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)
    size = the_change(np.array([np.nan]), other_nan, tmp_path)
    assert (size.changed, size.not_finite, size.max_abs, size.relative_l2) == (1, 1, None, None)


def test_compare_of_equal_variables_reads_no_data(tmp_path: Path) -> None:
    state = {"w": np.ones(100_000), "nan": np.array([np.nan])}
    store = WrappedStore()
    for name in "ab":
        holdfast.save_persistables(state, tmp_path / name)

    with holdfast.open(store.at(tmp_path / "a")) as ours, holdfast.open(store.at(tmp_path / "b")) as theirs:
        store.asked.clear()
        found = compare(ours, theirs)

    assert found.equal
    assert found.unchanged == 2
    assert store.asked == []


def test_compare_lists_added_removed_and_forms(tmp_path: Path) -> None:
    a = {"gone": np.ones(1), "shape": np.ones((2, 3)), "dtype": np.array([1.0, 2.5]), "same": np.ones(2)}
    b = {"new": np.ones(1), "shape": np.ones((3, 2)), "dtype": np.array([1.0, 3.0], np.float32), "same": np.ones(2)}

    found = compared(a, b, tmp_path)

    assert [v.name for v in found.added] == ["new"]
    assert [v.name for v in found.removed] == ["gone"]
    assert found.unchanged == 1
    assert not found.equal
    changed = {c.name: c for c in found.changed}
    assert (changed["shape"].aspects, changed["shape"].size) == (("shape",), None)
    assert changed["dtype"].aspects == ("dtype", "values")
    size = changed["dtype"].size
    assert size is not None
    assert (size.changed, size.max_abs) == (1, 0.5)


def test_compare_of_another_dtype_with_the_same_values(tmp_path: Path) -> None:
    a = np.array([1.0, np.nan, np.inf, 0.5])

    (changed,) = compared({"w": a}, {"w": a.astype(np.float16)}, tmp_path).changed

    assert (changed.aspects, changed.size) == (("dtype",), None)


def test_compare_notices_kind_and_trainable(tmp_path: Path) -> None:
    w = np.ones(2)
    parameter, frozen = holdfast.parameters({"w": w}), holdfast.parameters({"w": w}, trainable=False)

    assert compared(parameter, frozen, tmp_path).changed[0].aspects == ("trainable",)
    assert "kind" in compared(parameter, {"w": w}, tmp_path).changed[0].aspects


def test_compare_with_a_safetensors_file_reads_all_and_compares_no_kinds(tmp_path: Path) -> None:
    holdfast.save_params(holdfast.parameters({"w": np.ones(3)}, trainable=False), tmp_path / "model")

    with holdfast.open(tmp_path / "model") as ours, holdfast.open(tmp_path / "model" / "model.safetensors") as bare:
        assert compare(ours, bare).equal
        assert compare(bare, ours).equal
        assert compare(bare, bare).equal


def test_compare_of_chosen_variables_leaves_out_the_rest(tmp_path: Path) -> None:
    a = {"p": holdfast.parameters(np.ones(1)), "m": np.ones(1), "epoch": 1}
    b = {"p": holdfast.parameters(np.ones(1)), "m": np.zeros(1), "epoch": 2}
    for serial, state in enumerate((a, b)):
        assert holdfast.save_checkpoint(state, tmp_path, trainer_args={"x": serial}) == serial

    with holdfast.open(tmp_path, serial=0) as ours, holdfast.open(tmp_path, serial=1) as theirs:
        everything = compare(ours, theirs)
        parameters = compare(ours, theirs, predicate=holdfast.is_parameter)

    assert ([c.name for c in everything.changed], len(everything.values), len(everything.trainer_args)) == (["m"], 1, 1)
    assert parameters.equal
    assert parameters.unchanged == 1


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ({"x": 1}, {"x": 1}, []),
        ({"x": 1}, {"x": 1.0}, [("x", "changed")]),
        ({"x": 1}, {"x": True}, [("x", "changed")]),
        ({"x": (1,)}, {"x": [1]}, [("x", "changed")]),
        ({"x": float("nan")}, {"x": float("nan")}, []),
        ({"x": 0.0}, {"x": -0.0}, [("x", "changed")]),
        ({"x": 1}, {"y": 1}, [("x", "removed"), ("y", "added")]),
        (None, {"y": 1}, [("", "added")]),
        ({"y": 1}, None, [("", "removed")]),
        (None, None, []),
        ([1, 2], [1, 3], [("", "changed")]),
        (float("nan"), {"y": 1}, [("", "changed")]),
        (1, True, [("", "changed")]),
        ({1: 2}, {1: 3}, [("", "changed")]),
    ],
)
def test_compare_of_trainer_arguments(a: Any, b: Any, wanted: list[tuple[str, str]], tmp_path: Path) -> None:
    for args in (a, b):
        holdfast.save_checkpoint({"w": np.ones(1)}, tmp_path, trainer_args=args)

    with holdfast.open(tmp_path, serial=0) as ours, holdfast.open(tmp_path, serial=1) as theirs:
        found = compare(ours, theirs)

    assert [(value.name, value.change) for value in found.trainer_args] == wanted
    assert found.equal == (not wanted)


def test_compare_of_values_per_trainer(tmp_path: Path) -> None:
    variable = SpecVariable("w", "parameter", True, np.zeros(1, "f4"))
    for serial, trainers in enumerate(([(None, {"x": 1})], [(None, {"x": 1}), (None, {"x": 2})])):
        files = build_checkpoint([variable], {"model.safetensors": ["w"]}, trainers=trainers)
        write_folder(files, tmp_path / f"checkpoint_{serial}")

    with holdfast.open(tmp_path, serial=0) as ours, holdfast.open(tmp_path, serial=1) as theirs:
        (value,) = compare(ours, theirs).values

    assert (value.trainer_id, value.name, value.change, value.a, value.b) == (1, "x", "added", None, 2)


# ---- chunks

Cuts = tuple[tuple[int, ...], ...]


def write_cut(folder: Path, array: np.ndarray, cuts: Cuts | None) -> Path:
    """A checkpoint of one parameter in boxes, cut in each dimension at these places; None: as a whole."""
    pieces: list[Piece | str] = ["w"]
    if cuts is not None:
        edges = [[0, *places, n] for places, n in zip(cuts, array.shape, strict=True)]
        boxes = itertools.product(*(list(itertools.pairwise(e)) for e in edges))
        pieces = [Piece("w", tuple(lo for lo, _ in box), tuple(hi - lo for lo, hi in box)) for box in boxes]
    files = build_checkpoint([SpecVariable("w", "parameter", True, array)], {"model.safetensors": pieces})
    return write_folder(files, folder)


LAYOUTS: dict[str, Cuts | None] = {
    "whole": None,
    "rows": ((3, 20), ()),
    "columns": ((), (1, 7, 40)),
    "grid": ((11, 12, 30), (5, 23)),
    "empty rows": ((0, 10, 10), ()),
}


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(LAYOUTS, repeat=2)))
def test_compare_takes_any_layout_of_chunks(
    ours: str, theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PIECE", 64)
    rng = np.random.default_rng(3)
    a = rng.normal(size=(37, 41)).astype(np.float32)
    b = a.copy()
    b[rng.random(a.shape) < 0.2] += 1
    b[5, 5] = np.nan
    write_cut(tmp_path / "a", a, LAYOUTS[ours])
    write_cut(tmp_path / "b", b, LAYOUTS[theirs])
    write_cut(tmp_path / "c", a, LAYOUTS[theirs])

    with (
        holdfast.open(tmp_path / "a") as x,
        holdfast.open(tmp_path / "b") as y,
        holdfast.open(tmp_path / "c") as z,
    ):
        (changed,) = compare(x, y).changed
        same = compare(x, z)

    assert changed.size == expected(a, b)
    assert same.equal


def test_compare_of_many_chunks_in_another_layout_ends(tmp_path: Path) -> None:
    array = np.arange(4000, dtype=np.int32).reshape(2000, 2)
    write_cut(tmp_path / "a", array, (tuple(range(1, 2000)), ()))
    write_cut(tmp_path / "b", array + 1, (tuple(range(2, 2000, 2)), (1,)))

    with holdfast.open(tmp_path / "a") as ours, holdfast.open(tmp_path / "b") as theirs:
        (changed,) = compare(ours, theirs).changed

    assert changed.size is not None
    assert (changed.size.changed, changed.size.max_abs) == (4000, 1)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_compare_of_scalars_and_empty_variables(shape: tuple[int, ...], tmp_path: Path) -> None:
    found = compared({"w": np.zeros(shape)}, {"w": np.ones(shape)}, tmp_path)

    assert [c.size.changed for c in found.changed if c.size] == ([1] if shape == () else [])
    assert found.equal == (shape != ())


# ---- damage, closing, progress, memory


def test_compare_names_the_damaged_variable(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        holdfast.save_persistables({"w": np.full(10, value)}, tmp_path / name)
    flip_bit(tmp_path / "b" / "state-00001-of-00001.safetensors")

    with (
        holdfast.open(tmp_path / "a") as ours,
        holdfast.open(tmp_path / "b") as theirs,
        pytest.raises(holdfast.CorruptCheckpointError, match="'w'") as caught,
    ):
        compare(ours, theirs)

    assert caught.value.variables == ("w",)


def test_compare_notices_a_file_that_became_shorter(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        holdfast.save_persistables({"w": np.full(10_000, value)}, tmp_path / name)
    with holdfast.open(tmp_path / "a") as ours, holdfast.open(tmp_path / "b", verify=False) as theirs:
        np.asarray(theirs["w"][:1])
        os.truncate(tmp_path / "b" / "state-00001-of-00001.safetensors", 9000)

        with pytest.raises(holdfast.CorruptCheckpointError):
            compare(ours, theirs)


def test_compare_of_a_closed_checkpoint_raises(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        holdfast.save_persistables({"w": np.full(10, value)}, tmp_path / name)
    with holdfast.open(tmp_path / "a") as ours:
        pass

    with holdfast.open(tmp_path / "b") as theirs, pytest.raises(holdfast.ClosedError):
        compare(ours, theirs)


def test_compare_refuses_values_that_nest_too_deep(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(250):
        deep = [deep]
    variable = SpecVariable("w", "parameter", True, np.zeros(1, "f4"))
    write_folder(
        build_checkpoint([variable], {"model.safetensors": ["w"]}, trainers=[(None, {"x": deep})]), tmp_path / "a"
    )

    with holdfast.open(tmp_path / "a") as ours, pytest.raises(holdfast.FormatError):
        compare(ours, ours)


def test_compare_tells_progress(tmp_path: Path) -> None:
    seen: list[holdfast.Progress] = []

    compared({"w": np.ones(10), "s": np.ones(5)}, {"w": np.zeros(10), "s": np.ones(5)}, tmp_path, progress=seen.append)

    assert [(p.done_bytes, p.total_bytes) for p in seen] == [(80, 80)]


def test_compare_takes_bounded_memory(tmp_path: Path) -> None:
    with_change: Callable[[float], np.ndarray] = lambda value: np.full(16 << 20, value, np.float32)  # noqa: E731
    for name, value in (("a", 1.0), ("b", 2.0)):
        holdfast.save_persistables({"w": with_change(value)}, tmp_path / name)

    with holdfast.open(tmp_path / "a") as ours, holdfast.open(tmp_path / "b") as theirs:
        tracemalloc.start()
        (changed,) = compare(ours, theirs).changed
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert changed.size is not None
    assert changed.size.changed == 16 << 20
    assert peak < 50 << 20
