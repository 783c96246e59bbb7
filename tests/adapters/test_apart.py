"""Dicts, lists and tuples that are plain on one side of a load, and have arrays in them on the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


def number(value: float) -> np.ndarray:
    """As a jitted function returns it."""
    return np.asarray(value, np.float32 if type(value) is float else np.int32)


def test_numbers_in_dicts_lists_and_tuples_that_were_saved_as_arrays_come_back_as_numbers() -> None:
    metrics: dict[str, Any] = {"loss": 0.0, "seen": {"images": 0}, "note": "a"}
    target = {"w": np.zeros(2), "metrics": metrics, "list": [0, 0.0], "tuple": (0, {"x": 0.0})}
    saved = {
        "w": np.ones(2),
        "metrics": {"loss": number(0.5), "seen": {"images": number(64)}, "note": "b"},
        "list": [number(3), number(1.5)],
        "tuple": (number(4), {"x": number(2.5)}),
    }

    report = through(saved, target)

    assert target["metrics"] is metrics
    assert metrics == {"loss": 0.5, "seen": {"images": 64}, "note": "b"}
    assert target["list"] == [3, 1.5]
    assert target["tuple"] == (4, {"x": 2.5})
    assert type(metrics["seen"]["images"]) is int
    assert report.missing == report.unexpected == ()


def test_numbers_that_were_saved_in_plain_dicts_load_into_arrays() -> None:
    target = {"metrics": {"loss": number(7.0), "seen": {"images": number(7)}, "note": "a"}, "list": [number(7), 0]}

    through({"metrics": {"loss": 0.5, "seen": {"images": 64}, "note": "b"}, "list": [3, 4]}, target)

    assert target["metrics"]["loss"] == np.float32(0.5)
    assert target["metrics"]["seen"]["images"] == 64
    assert target["metrics"]["seen"]["images"].dtype == np.int32
    assert target["metrics"]["note"] == "b"
    assert (target["list"][0], target["list"][1]) == (3, 4)


def test_plain_parts_stay_whole_where_the_other_side_has_them_whole() -> None:
    """A history has grown since: it is no mismatch, only because a number beside it is an array now."""
    target = {"run": {"step": 0, "history": [0.5], "options": {}}}

    through({"run": {"step": number(9), "history": [0.5, 0.25], "options": {"a": 1}}}, target)

    assert target == {"run": {"step": 9, "history": [0.5, 0.25], "options": {"a": 1}}}


def test_what_differs_is_named_by_its_part_and_nothing_is_loaded() -> None:
    target = {"w": np.zeros(2), "run": {"step": 0, "rate": 0.5, "new": 1}}

    with pytest.raises(MismatchError) as caught:
        through({"w": np.ones(2), "run": {"step": number(1), "rate": np.ones(3), "old": 1}}, target)

    text = str(caught.value)
    assert "'run.rate': the checkpoint has an array there, F64 (3,), the target a plain value" in text
    assert "'run.new' is not in the checkpoint" in text
    assert "'run.old' is in the checkpoint, and the target has no place for it" in text
    assert len(caught.value.problems) == 3
    assert target["run"] == {"step": 0, "rate": 0.5, "new": 1}
    assert (target["w"] == 0).all()


def test_number_that_an_array_inside_cannot_hold_is_refused() -> None:
    target = {"run": {"step": number(5)}}

    with pytest.raises(MismatchError, match=r"'run\.step': the checkpoint has the number 1099511627776"):
        through({"run": {"step": 2**40}}, target)

    assert target["run"]["step"] == 5


def test_value_inside_that_is_no_number_is_told_apart_from_an_array() -> None:
    with pytest.raises(
        MismatchError, match=r"'run\.rate': the checkpoint has a plain value there, the target an array, F64 \(3,\)"
    ):
        through({"run": {"rate": 0.5}}, {"run": {"rate": np.ones(3)}})


def test_dict_with_other_keys_than_names_is_told_as_a_whole() -> None:
    with pytest.raises(MismatchError, match="'run' is not in the checkpoint"):
        through({"run": {"step": number(1)}}, {"run": {"step": 0, (1, 2): 3}})
    with pytest.raises(MismatchError, match="'run' is in the checkpoint"):
        through({"run": {"step": 0, (1, 2): 3}}, {"run": {"step": number(1)}})


def test_skip_leaves_a_whole_dict_alone() -> None:
    target = {"w": np.zeros(2), "run": {"step": 0}}

    through({"w": np.ones(2), "run": {"step": number(1)}}, target, skip=["run", "run.*"])

    assert target["run"] == {"step": 0}
    assert (target["w"] == 1).all()


def test_renamed_arrays_reach_numbers_in_a_dict() -> None:
    target = {"w": np.zeros(2), "now": {"step": 0}}

    through({"w": np.ones(2), "before": {"step": number(5)}}, target, rename={"before.step": "now.step"})

    assert target["now"] == {"step": 5}


def test_variables_alone_are_loaded_as_before() -> None:
    """`load_params` asks for arrays; plain values are none of its business."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"w": holdfast.parameters({"a": np.ones(2)}), "run": {"step": number(1)}}, run)
    target = {"w": holdfast.parameters({"a": np.zeros(2)}), "run": {"step": 0}}

    holdfast.load_params(target, run)

    assert target["run"] == {"step": 0}
