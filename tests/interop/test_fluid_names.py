"""Names as paths, and what they tell."""

import pytest

from holdfast.interop.fluid_names import name_problems, not_parameters, relative_path
from interop.truth import FLUID, meta


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("fc_0.w_0", "fc_0.w_0"), ("enc/layer_0/w", "enc/layer_0/w"), ("a/../b_0", "b_0"), ("a//b", "a/b"), ("./a", "a"),
        ("", None), (".", None), ("..", None), ("../a", None), ("a/../../b", None), ("/etc/passwd", None), ("a\0b", None),
        ("a/..", None), ("...", "..."), ("..a", "..a"),
    ],
)  # fmt: skip
def test_a_name_is_looked_up_inside_of_the_folder_only(name: str, path: str | None) -> None:
    assert relative_path(name) == path


def test_names_that_must_not_be_written() -> None:
    good = [
        "fc_0.w_0",
        "enc/layer_0/w",
        "a.b",
        "with blank",
        "w@AVG",
        "参数_0",
        "..a",
        "__model__x",
        "sub/__model__",
        "d/e",
    ]
    bad = ["", ".", "..", "../a", "/a", "a/../b", "a//b", "./c", "c/", "a\0b", "__model__", "_SUCCESS", "__model__/x",
           ".holdfast-x", "d/e/f", "fc_0.w_0/x/y"]  # fmt: skip

    assert sorted(name_problems([*good, *bad])) == sorted(bad)
    assert name_problems(["a", "a/b"]) == {"a/b": "its folder would be the file of 'a'"}
    assert name_problems(["a/b"]) == {}


@pytest.mark.parametrize(
    "case",
    [c for c in sorted(FLUID.iterdir()) if c.name.startswith(("save_", "checkpoint", "fluid_save"))],
    ids=lambda c: c.name,
)
def test_kinds_are_those_that_the_program_had(case) -> None:
    kinds = {name: entry["kind"] for name, entry in meta(case)["vars"].items()}

    assert not_parameters(kinds) == {name for name, kind in kinds.items() if kind != "Parameter"}


def test_accumulators_of_0_14_and_names_that_only_look_like_some() -> None:
    old = {
        "velocity_0",
        "moment1_12",
        "beta1_pow_acc_0",
        "learning_rate_0",
        "learning_rate",
        "@STEP_COUNTER@",
        "_generated_var_3",
    }
    odd = {"w__avg_squared_grad_0", "w_sum_1_0", "w_ema_0"}
    kept = {"w", "gate_linear_0", "my_velocity_0", "linear_0.w_0", "velocity", "momentum_x"}

    assert not_parameters(old | odd | kept) == old | odd
