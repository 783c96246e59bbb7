"""Names of nested parts, and which belong to optimizers."""

import numpy as np
import pytest

from holdfast.errors import FormatError, MissingExtraError, UnsupportedVariableError
from holdfast.interop import extras
from holdfast.interop.foreign import flatten, of_optimizers


def array_of(leaf: object) -> np.ndarray | str | None:
    return "is odd" if leaf == "odd" else leaf if isinstance(leaf, np.ndarray) else None


def test_names_are_the_keys_on_the_way_and_values_the_largest_parts_without_arrays() -> None:
    one = np.ones(1)
    flat = flatten(
        {"a": {"w": one, "n": {"x": 1, "y": [2]}}, "l": [one, 3], 7: (one,), "e": {}, "z": None}, array_of, 99, "f"
    )

    assert list(flat.arrays) == ["a.w", "l.0", "7.0"]
    assert flat.values == ["a.n", "l.1", "e", "z"]
    assert list(flatten(one, array_of, 9, "f").arrays) == ["tensor"]
    assert flatten({"a": 1}, array_of, 9, "f").values == ["the whole"]


def test_two_parts_with_one_name_are_refused() -> None:
    with pytest.raises(FormatError, match=r"two parts have the name 'a\.b'"):
        flatten({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, array_of, 99, "f")


def test_all_that_cannot_be_held_is_in_one_error() -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        flatten({"a": "odd", "b": ["odd", np.ones(1)]}, array_of, 99, "f")
    assert caught.value.reasons == {"a": "is odd", "b.0": "is odd"}


def test_parts_that_refer_to_each_other_without_end_are_refused() -> None:
    circle: list = []
    circle.append(circle)
    doubled: list = []
    for _ in range(60):
        doubled = [doubled, doubled]

    for tree in (circle, doubled):
        with pytest.raises(FormatError, match="without end"):
            flatten(tree, array_of, 10_000, "f")


def test_the_parts_of_an_optimizer_are_told_by_its_param_groups() -> None:
    names = ["model.state.w", "opt.state.0.exp_avg", "opt.param_groups.0.lr", "state.w", "a.opt2.state.0.m"]

    assert of_optimizers(names, ["epoch"]) == {"opt.state.0.exp_avg", "opt.param_groups.0.lr"}
    assert of_optimizers(names, ["a.opt2.param_groups"]) == {*names[1:3], "a.opt2.state.0.m"}
    assert of_optimizers(["state.0.m", "w"], ["param_groups.0.lr"]) == {"state.0.m"}
    assert of_optimizers(["model.state.w", "w"], ["my_param_groups"]) == set()


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"m\.x needs nothere: pip install 'holdfast\[nothere\]'"),
        extras.needed("nothere", "m.x"),
    ):
        import nothere  # noqa: F401


def test_a_broken_library_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="its_part") as caught, extras.needed("library", "m.x"):
        raise ModuleNotFoundError("No module named 'its_part'", name="its_part")
    assert not isinstance(caught.value, MissingExtraError)
