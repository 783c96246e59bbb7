"""Variables, predicates and selections."""

import pytest

from holdfast import Variable, is_checkpoint_variable, is_parameter, is_persistable, select

WEIGHT = Variable("fc.w", "parameter", True, "F32", (3, 4))
MOMENT = Variable("adam.m", "persistable", False, "F32", (3, 4))
BLOCK = Variable("my.block@GRAD.tmp", "persistable", False, "BF16", ())
SCRATCH = Variable("scratch", "temporary", False, "F64", (0, 9))
ALL = [WEIGHT, MOMENT, BLOCK, SCRATCH]


def test_nbytes_is_of_the_whole_value() -> None:
    assert [v.nbytes for v in ALL] == [48, 48, 2, 0]


def test_variable_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        WEIGHT.name = "other"  # type: ignore[misc]


def test_predicates_are_nested() -> None:
    assert [is_parameter(v) for v in ALL] == [True, False, False, False]
    assert [is_persistable(v) for v in ALL] == [True, True, True, False]


def test_is_checkpoint_variable_looks_at_the_kind_and_not_at_the_name() -> None:
    assert [is_checkpoint_variable(v) for v in ALL] == [True, True, True, False]


def test_select_takes_every_persistable_by_default() -> None:
    assert select(ALL) == [WEIGHT, MOMENT, BLOCK]


def test_select_by_predicate_keeps_the_order() -> None:
    assert select([MOMENT, WEIGHT], predicate=lambda v: v.nbytes == 48) == [MOMENT, WEIGHT]


@pytest.mark.parametrize(
    "vars", [["adam.m", "fc.w"], [MOMENT, WEIGHT], {"fc.w": 1, "adam.m": 2}, iter(["adam.m", "fc.w"])]
)
def test_select_by_names_or_variables(vars: object) -> None:
    assert select(ALL, vars=vars) == [WEIGHT, MOMENT]  # type: ignore[call-overload]


def test_select_takes_a_single_name_as_one_name() -> None:
    assert select(ALL, vars="fc.w") == [WEIGHT]


def test_select_refuses_names_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="does not hold: fc.W, nothing"):
        select(ALL, vars=["fc.W", "fc.w", "nothing"])


def test_select_refuses_both_ways_at_once() -> None:
    with pytest.raises(ValueError, match="not both"):
        select(ALL, predicate=is_parameter, vars=["fc.w"])


def test_select_refuses_temporaries_by_name() -> None:
    with pytest.raises(ValueError, match="never saved.*scratch"):
        select(ALL, vars=["scratch"])
    with pytest.raises(ValueError, match="never saved.*scratch"):
        select(ALL, predicate=lambda _: True)
