"""Optimizers of PyTorch: which number is which parameter, if the file or the caller says it; never a guess."""

from typing import Any

import numpy as np
import pytest

from holdfast.format.values import Tagged
from holdfast.interop.optimizers import UnnamedError, found, named

ARRAYS = {"model.w": np.ones((2, 3)), "model.b": np.ones(2), "model.mean": np.ones(2), "step": np.ones(())}


def adam(*keys: Any, **group: Any) -> dict[str, Any]:
    """The state of an optimizer for `w` and `b`."""
    state = {key: {"step": 4, "exp_avg": np.full(shape, 0.5)} for key, shape in zip(keys, [(2, 3), (2,)], strict=True)}
    return {"state": state, "param_groups": [{"lr": 0.1, "params": list(keys), **group}]}


def test_names_that_the_file_says_take_the_place_of_numbers() -> None:
    optimizer = found(adam(0, 1, param_names=["w", "b"]))
    assert optimizer is not None

    made = named(optimizer, None, ARRAYS)

    assert made.value == {
        "param_groups": [{"lr": 0.1, "params": ["model.w", "model.b"]}],
        "state": {
            "model.w": {"step": 4, "exp_avg": Tagged("$variable", "optimizer.exp_avg.w")},
            "model.b": {"step": 4, "exp_avg": Tagged("$variable", "optimizer.exp_avg.b")},
        },
    }
    assert {name: array.shape for name, array in made.arrays.items()} == {
        "optimizer.exp_avg.w": (2, 3),
        "optimizer.exp_avg.b": (2,),
    }
    assert (made.trained, made.module) == (["model.w", "model.b"], "model.")


FLAT = {f"state.{name}.exp_avg": ARRAYS[f"model.{name}"] for name in "wb"} | {
    f"param_groups.{name}.lr": 0.1 for name in "wb"
}
GROUPS = [{"params": [0], "param_names": ["w"]}, {"params": [1], "param_names": ["b"]}]


@pytest.mark.parametrize("node", [adam("w", "b"), FLAT, {"state": {"0": {"m": np.ones(())}}, "param_groups": GROUPS}])
def test_names_as_keys_and_flattened_and_numbers_that_became_texts(node: dict) -> None:
    optimizer = found(node)
    assert optimizer is not None

    made = named(optimizer, None, ARRAYS)

    assert made.trained == ["model.w", "model.b"]
    assert made.value["state"].keys() <= {"model.w", "model.b"}
    assert made.arrays


def test_names_that_the_caller_gives_come_before_those_of_the_file() -> None:
    optimizer = found(adam(0, 1, param_names=["x", "y"]))
    assert optimizer is not None

    assert named(optimizer, ["w", "b"], ARRAYS).trained == ["model.w", "model.b"]
    assert named(optimizer, ["model.w", "model.b"], ARRAYS).trained == ["model.w", "model.b"]


@pytest.mark.parametrize(
    ("node", "names", "said"),
    [
        (adam(0, 1), None, "the file has numbers in place of names"),
        (adam(0, 1), ["w"], "it has 2 parameters, and there are 1 names"),
        (adam(0, 1), ["w", "w"], "names stand twice: w"),
        (adam(0, 1), ["w", "c"], r"holds no variables of these names: c \(others are below 'model\.'\)"),
        (adam(0, 1), ["x", "y"], "holds no variables of these names: x, y"),
        (adam(0, 1), ["b", "w"], r"shapes do not fit: b is \(2,\), its exp_avg \(2, 3\); w is"),
        (
            adam(0, 1, param_names=["w", "b"], at=object()),
            None,
            r"at param_groups\.0\.at it holds what is no plain value",
        ),
    ],
)
def test_what_cannot_be_told_is_said(node: dict, names: list[str] | None, said: str) -> None:
    optimizer = found(node)
    assert optimizer is not None

    with pytest.raises(UnnamedError, match=said):
        named(optimizer, names, ARRAYS)


def test_names_that_are_in_several_parts_are_no_names() -> None:
    optimizer = found(adam(0, 1, param_names=["w", "b"]))
    assert optimizer is not None
    arrays = {**ARRAYS, "ema.w": np.ones((2, 3)), "ema.b": np.ones(2)}

    with pytest.raises(UnnamedError, match=r"several parts of the file have all of these names: 'model\.', 'ema\.'"):
        named(optimizer, None, arrays)
    assert named(optimizer, ["ema.w", "ema.b"], arrays).module == ""


def test_state_of_other_shapes_than_the_parameter_s() -> None:
    node = adam(0, 1)
    node["state"][0] |= {
        "row_var": np.ones((2, 1)),
        "col": np.ones(3),
        "old": [np.ones(2), {"a": np.ones(1)}],
        "n": None,
    }
    optimizer = found(node)
    assert optimizer is not None

    made = named(optimizer, ["w", "b"], ARRAYS)

    assert made.value["state"]["model.w"]["old"] == [
        Tagged("$variable", "optimizer.old.w.0"),
        {"a": Tagged("$variable", "optimizer.old.w.1.a")},
    ]
    node["state"][0]["row_var"] = np.ones((3, 1))
    with pytest.raises(UnnamedError, match=r"w is \(2, 3\), its row_var \(3, 1\)"):
        named(found(node), ["w", "b"], ARRAYS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "node",
    [
        3, [], {}, {"state": {}}, {"param_groups": []}, {"state": [], "param_groups": []},
        {"state": {}, "param_groups": [{"lr": 1}]},
        {"state": {}, "param_groups": [{"params": [0, 0]}]}, {"state": {5: {}}, "param_groups": [{"params": [0]}]},
        {"state": {0: 1}, "param_groups": [{"params": [0]}]}, {"state": {}, "param_groups": [{"params": [1.5]}]},
        {"state": {}, "param_groups": [{"params": [0], 3: 4}]}, {"state.w": 1}, {"param_groups.w.lr": 1, "x": 2},
    ],
)  # fmt: skip
def test_what_is_no_optimizer(node: Any) -> None:
    assert found(node) is None


def test_an_optimizer_that_has_not_stepped() -> None:
    optimizer = found({"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]})
    assert optimizer is not None

    made = named(optimizer, ["w", "b"], ARRAYS)

    assert made.value == {"param_groups": [{"lr": 0.1, "params": ["model.w", "model.b"]}], "state": {}}
