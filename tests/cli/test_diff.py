"""`holdfast diff`."""

import os

import numpy as np
import pytest

import holdfast
from cli.calling import call, damage, state_at


def test_diff_lists_what_changed_and_how_far(run: str) -> None:
    called = call("diff", f"{run}@0", f"{run}@1")

    lines = called.out.splitlines()
    assert called.status == 1
    assert lines[0].startswith("a: runs/digits@0  step 0, saved ")
    assert lines[1].startswith("b: runs/digits@1  step 10, saved ")
    assert [line.split() for line in lines[3:6]] == [
        ["CHANGED", "MAX", "|b-a|", "RELATIVE", "DTYPE", "SHAPE", "NAME"],
        ["~", "1", "10", "1.3", "F32", "(2,", "3)", "model.fc.weight"],
        ["~", "all", "10", "–", "F64", "(3,)", "adam.m"],
    ]
    assert lines[6:] == [
        "",
        "Trainer arguments",
        "~ epoch: 0 → 1",
        "",
        "Values",
        "~ adam.step: 0 → 10",
        "",
        "Variables: 2 changed, 0 added, 0 removed, 2 equal",
    ]


def test_diff_of_equal_checkpoints_is_0(run: str) -> None:
    holdfast.save_checkpoint(state_at(20), run, step=99, trainer_args={"epoch": 2, "tag": ("a", float("nan"))})

    called = call("diff", f"{run}@2", f"{run}@3")

    assert called.status == 0
    assert called.out.splitlines()[-1] == "equal: 4 variables, and every value beside them"


def test_diff_lists_added_removed_and_reshaped_variables(run: str) -> None:
    holdfast.save_params(holdfast.parameters({"old": np.ones(2), "both": np.ones((2, 2)), "cast": np.ones(2)}), "a")
    holdfast.save_params(holdfast.parameters({"new": np.ones(2), "both": np.ones(4), "cast": np.ones(2, "f4")}), "b")

    called = call("diff", "a", "b")

    assert called.status == 1
    assert [line.split() for line in called.out.splitlines()[4:8]] == [
        ["-", "F64", "(2,)", "old"],
        ["~", "F64", "(2,", "2)", "→", "(4,)", "both"],
        ["~", "F64", "→", "F32", "(2,)", "cast"],
        ["+", "F64", "(2,)", "new"],
    ]


def test_diff_json_has_the_documented_keys(run: str) -> None:
    called = call("diff", f"{run}@0", f"{run}@1", "--json")

    found = called.json
    assert called.status == 1
    assert found["a"] == {"path": os.path.realpath(f"{run}/checkpoint_0"), "serial": 0, "step": 0}
    assert found["b"]["serial"] == 1
    weight = {
        "name": "model.fc.weight",
        "kind": "parameter",
        "trainable": True,
        "dtype": "F32",
        "shape": [2, 3],
        "bytes": 24,
    }
    assert found["changed"][0] == {
        "name": "model.fc.weight",
        "aspects": ["values"],
        "a": weight,
        "b": weight,
        "size": {
            "elements": 6,
            "changed": 1,
            "not_finite": 0,
            "max_abs": 10.0,
            "relative_l2": pytest.approx(10 / np.sqrt(55)),
        },
    }
    assert {key: found[key] for key in ("equal", "added", "removed", "unchanged", "values", "trainer_args")} == {
        "equal": False,
        "added": [],
        "removed": [],
        "unchanged": 2,
        "values": [{"trainer_id": 0, "name": "adam.step", "change": "changed", "a": 0, "b": 10}],
        "trainer_args": [{"trainer_id": 0, "name": "epoch", "change": "changed", "a": 0, "b": 1}],
    }


def test_diff_json_writes_what_json_lacks(run: str) -> None:
    for name, value in (("a", -1e308), ("b", 1.7e308)):
        holdfast.save_params(holdfast.parameters({"w": np.array([value])}), name)

    size = call("diff", "a", "b", "--json").json["changed"][0]["size"]

    assert size["max_abs"] == {"$float": "inf"}


def test_diff_shows_values_that_are_not_finite(run: str) -> None:
    holdfast.save_params(holdfast.parameters({"w": np.array([1.0, 2.0, 3.0])}), "a")
    holdfast.save_params(holdfast.parameters({"w": np.array([1.0, np.nan, np.inf])}), "b")

    assert "2, 2 NaN/inf" in call("diff", "a", "b").out


def test_diff_of_parameters_only_ignores_the_rest(run: str) -> None:
    holdfast.export(run, "exported")

    assert call("diff", run, "exported").status == 1
    called = call("diff", "--params", run, "exported")
    assert called.status == 0
    assert called.out.splitlines()[-1] == "equal: 3 parameters"


def test_diff_with_a_safetensors_file_compares_no_kinds(run: str) -> None:
    holdfast.save_params(holdfast.parameters({"w": np.ones(3)}, trainable=False), "model")

    assert call("diff", "model", "model/model.safetensors").status == 0


def test_diff_of_random_states_says_that_there_is_another(run: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(2):
        holdfast.save_checkpoint({"rng": rng, "x": {"only": 1}}, "runs/random")
        rng.random()

    called = call("diff", "runs/random@0", "runs/random@1")

    assert called.status == 1
    assert "~ rng: state of a numpy.random.Generator, another one" in called.out


def test_diff_names_damage_that_it_meets(run: str) -> None:
    damage(f"{run}/checkpoint_1/model-00001-of-00002.safetensors")

    called = call("diff", f"{run}@0", f"{run}@1", "--json")

    assert called.status == 1
    assert called.json["error"]["type"] == "CorruptCheckpointError"
    assert called.json["error"]["variables"] == ["model.fc.weight"]


def test_diff_with_nothing_is_not_found(run: str) -> None:
    called = call("diff", run, "nowhere")

    assert (called.status, called.out) == (2, "")


def test_diff_shows_other_kinds_and_values_that_came_and_went(run: str) -> None:
    w, v = np.ones(2), np.ones(3)
    holdfast.save_checkpoint({"w": holdfast.parameters(w), "v": holdfast.parameters(v), "old": 1}, "runs/kinds")
    holdfast.save_checkpoint({"w": w, "v": holdfast.parameters(v, trainable=False), "new": "x"}, "runs/kinds")

    lines = call("diff", "runs/kinds@0", "runs/kinds@1").out.splitlines()

    assert [line.split("  ")[-1].strip() for line in lines if line.startswith("~")] == [
        "v (trainable → frozen)",
        "w (parameter → persistable)",
    ]
    assert "- old = 1" in lines
    assert '+ new = "x"' in lines
