"""Names of nested parts, which are values and which are left out, and which belong to optimizers."""

import numpy as np
import pytest

from holdfast.errors import FormatError, MissingExtraError, UnsupportedVariableError
from holdfast.interop import extras
from holdfast.interop.foreign import LeftOut, Refused, collect, of_optimizers

ONE = np.ones(1)
ODD = Refused("is odd")


def test_names_are_the_keys_on_the_way_and_values_the_largest_parts_without_arrays() -> None:
    held = collect({"a": {"w": ONE, "n": {"x": 1, "y": [2]}}, "l": [ONE, 3], 7: (ONE,), "e": {}, "z": None}, 99, "f")

    assert list(held.arrays) == ["a.w", "l.0", "7.0"]
    assert held.values == {"a.n": {"x": 1, "y": [2]}, "l.1": 3, "e": {}, "z": None}
    assert list(collect(ONE, 9, "f").arrays) == ["tensor"]
    assert collect({"a": 1, "b": [2]}, 9, "f").values == {"a": 1, "b": [2]}
    assert collect(3, 9, "f").values == {"value": 3}


def test_values_keep_their_types() -> None:
    given = {"i": 1 << 100, "f": float("inf"), "t": (1, (2,)), "d": {0: True, "x": None}, "n": np.float32(0.1)}

    held = collect({"w": ONE, "v": given}, 99, "f")

    assert repr(held.values) == repr({"v": given})
    assert held.left_out == []


def test_what_is_no_plain_value_is_left_out_by_name_and_the_rest_beside_it_stays() -> None:
    odd = LeftOut("thing.Thing is no plain value")
    given = {"a": odd, "b": {"c": odd, "d": 1}, "e": [1, [odd]], "f": {"g": odd}, "h": b"x", (1, 2): 4, "i": {odd: 1}}

    held = collect({"w": ONE, **given}, 99, "f")

    assert held.values == {"b": {"d": 1}, "(1, 2)": 4}
    assert held.left_out == [
        "value a: thing.Thing is no plain value",
        "value b.c: thing.Thing is no plain value",
        "value e, because of e.1.0: thing.Thing is no plain value",
        "value f.g: thing.Thing is no plain value",
        "value h: bytes is no plain value",
        "value i.thing.Thing is no plain value: its key is no text or number",
    ]


def test_two_parts_with_one_name_are_refused() -> None:
    with pytest.raises(FormatError, match=r"two parts have the name 'a\.b'"):
        collect({"a": {"b": ONE}, "a.b": ONE}, 99, "f")
    with pytest.raises(FormatError, match=r"two parts have the name 'a\.b'"):
        collect({"a": {"b": 1, "c": ONE}, "a.b": ONE}, 99, "f")


def test_all_that_cannot_be_held_is_in_one_error() -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        collect({"a": ODD, "b": [ODD, ONE]}, 99, "m.pt")
    assert caught.value.reasons == {"a": "is odd", "b.0": "is odd"}
    assert str(caught.value).startswith("m.pt holds what no checkpoint can hold:")


def test_parts_that_refer_to_each_other_without_end_are_refused() -> None:
    circle: list = []
    circle.append(circle)
    doubled: list = []
    for _ in range(60):
        doubled = [doubled, doubled]

    for tree in (circle, doubled):
        with pytest.raises(FormatError, match="without end"):
            collect(tree, 10_000, "f")


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
