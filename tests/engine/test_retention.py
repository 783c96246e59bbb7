"""Which checkpoints stay: a union of rules."""

import errno
import logging
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import holdfast
from holdfast import MemoryStore
from holdfast.engine import retention
from holdfast.engine.catalog import Found
from holdfast.engine.retention import Rules, keep, ranked
from holdfast.format.manifest import VERSION, Manifest


def found(serial: int, step: int | None = None, pinned: bool = False, **metrics: float) -> Found:
    manifest = Manifest("holdfast", VERSION, "checkpoint", serial, step, "", "", "", 1, metrics, (), ())
    return Found(serial, MemoryStore().at(f"run/checkpoint_{serial}"), manifest, pinned)  # type: ignore[arg-type]


def test_newest_stay() -> None:
    assert keep([found(s) for s in (3, 9, 1, 10)], Rules(newest=2)) == {9, 10}


def test_none_keeps_all() -> None:
    assert keep([found(s) for s in (3, 9)], Rules()) == {3, 9}
    assert keep([found(s) for s in (3, 9)], Rules(newest=None, period=100, best=("loss", "min"))) == {3, 9}


def test_pinned_stay_besides() -> None:
    assert keep([found(1, pinned=True), found(2), found(3)], Rules(newest=1)) == {1, 3}


def test_multiples_of_the_period_stay_by_step_or_else_by_serial() -> None:
    checkpoints = [found(1, step=10), found(2, step=11), found(3, step=0), found(10), found(11), found(12, step=7)]

    assert keep(checkpoints, Rules(newest=1, period=10)) == {1, 3, 10, 12}


@pytest.mark.parametrize(("mode", "stay"), [("min", {2, 4, 9}), ("max", {1, 5, 9})])
def test_best_stay_and_those_without_the_metric_do_not_compete(mode: Any, stay: set[int]) -> None:
    checkpoints = [
        found(1, loss=9.0),
        found(2, loss=1.0),
        found(3),
        found(4, loss=2.0),
        found(5, loss=8.0),
        found(9, other=0.0),
    ]

    assert keep(checkpoints, Rules(newest=1, best=("loss", mode), best_count=2)) == stay


def test_of_equal_ones_the_newer_is_better() -> None:
    checkpoints = [found(1, loss=1.0), found(2, loss=1.0), found(3, loss=2.0)]

    assert ranked(checkpoints, ("loss", "min")) == [2, 1, 3]
    assert ranked(checkpoints, ("loss", "max")) == [3, 2, 1]


def test_non_finite_metrics_do_not_compete() -> None:
    checkpoints = [found(1, loss=float("nan")), found(2, loss=float("-inf")), found(3, loss=5.0)]

    assert ranked(checkpoints, ("loss", "min")) == [3]


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.none() | st.integers(0, 40), st.booleans(), st.none() | st.integers(0, 5)),
        unique_by=lambda t: t[0],
    ),
    st.integers(1, 5),
    st.none() | st.integers(1, 7),
    st.booleans(),
    st.integers(1, 3),
    st.randoms(),
)
def test_the_newest_always_stays_and_order_does_not_matter(
    drawn: list[tuple[int, int | None, bool, int | None]],
    newest: int,
    period: int | None,
    best: bool,
    count: int,
    rng: random.Random,
) -> None:
    checkpoints = [found(s, step, pin, **({} if loss is None else {"loss": loss})) for s, step, pin, loss in drawn]
    rules = Rules(newest, period, ("loss", "min") if best else None, count)

    kept = keep(checkpoints, rules)

    assert kept == keep(rng.sample(checkpoints, len(checkpoints)), rules)
    assert kept >= {c.serial for c in checkpoints if c.pinned}
    assert not checkpoints or max(c.serial for c in checkpoints) in kept
    assert len(kept) >= min(newest, len(checkpoints))


@pytest.mark.parametrize(
    "options", [{"newest": 0}, {"newest": -1}, {"newest": 2.0}, {"newest": True}, {"period": 0}, {"best_count": 0}]
)
def test_rules_refuse_numbers_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="whole number from 1"):
        Rules(**options)


@pytest.mark.parametrize("best", [("loss",), ("loss", "least"), ("a", "min", "max"), "loss"])
def test_rules_refuse_another_form_of_best(best: Any) -> None:
    with pytest.raises(ValueError, match=r'best must be a pair such as \("loss", "min"\)'):
        Rules(best=best)


def test_prune_logs_what_it_cannot_delete_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = MemoryStore().at("run")
    for _ in range(4):
        holdfast.save_checkpoint({"w": np.zeros(1)}, run, max_num_checkpoints=None)
    retire = retention.retire

    def failing(folder: Any, label: Any, *, unless_pinned: bool) -> bool:
        if label == 1:
            raise PermissionError("not allowed")
        if label == 2:
            raise FileNotFoundError("gone")
        return retire(folder, label, unless_pinned=unless_pinned)

    monkeypatch.setattr(retention, "retire", failing)
    with caplog.at_level(logging.WARNING):
        gone = retention.prune(run, Rules(newest=1))

    assert gone == [0]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "checkpoint_1" in caplog.text
    assert "not allowed" in caplog.text


class Unreadable(MemoryStore):
    """One checkpoint lies where nobody can read it now."""

    def open(self, path: str) -> Any:
        if "/checkpoint_2/" in path:
            raise OSError(errno.EIO, "the disk cannot be read", path)
        return super().open(path)


def test_prune_neither_counts_nor_deletes_what_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    run = Unreadable().at("run")
    for _ in range(4):
        holdfast.save_checkpoint({"w": np.zeros(1)}, run, max_num_checkpoints=None)

    with caplog.at_level(logging.WARNING):
        gone = retention.prune(run, Rules(newest=2))

    assert gone == [0]
    assert [e.name for e in run.store.list(run.path)] == ["checkpoint_1", "checkpoint_2", "checkpoint_3"]
    assert "checkpoint_2" in caplog.text
    assert "not deleted" in caplog.text
