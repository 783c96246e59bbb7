"""Names, shapes, dtypes and casts: every difference is found before anything is changed."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st

from holdfast import Variable, dtypes
from holdfast.engine import match
from holdfast.engine.match import Match, Rules, can_widen, cast_loss, match_names, name_problems, pair_problems
from holdfast.format.manifest import Entry


def pairs(held: list[str], wanted: list[str], **rules: Any) -> Match:
    return match_names(held, wanted, Rules(**rules))


def test_equal_names_are_paired() -> None:
    assert pairs(["a", "b"], ["b", "a"]) == Match({"b": "b", "a": "a"}, (), (), ())


def test_names_of_one_side_are_missing_or_unexpected() -> None:
    found = pairs(["a", "x"], ["a", "y"])

    assert (found.pairs, found.missing, found.unexpected) == ({"a": "a"}, ("y",), ("x",))


@pytest.mark.parametrize(
    ("rename", "held", "expected"),
    [
        ({"a": "b"}, ["a"], {"b": "a"}),
        ({"model.": ""}, ["model.x", "model.y"], {"x": "model.x", "y": "model.y"}),
        ({"model.": "net."}, ["model.x", "modelx"], {"net.x": "model.x", "modelx": "modelx"}),
        ({"m.": "1.", "m.deep.": "2."}, ["m.x", "m.deep.y"], {"1.x": "m.x", "2.y": "m.deep.y"}),
        ({"m.": "1.", "m.x": "exact"}, ["m.x", "m.y"], {"exact": "m.x", "1.y": "m.y"}),
        ({"a": "b", "b": "a"}, ["a", "b"], {"b": "a", "a": "b"}),
        (str.upper, ["a", "b"], {"A": "a", "B": "b"}),
        ({}, ["a"], {"a": "a"}),
    ],
)
def test_rename_maps_checkpoint_names_to_target_names(rename: Any, held: list[str], expected: dict[str, str]) -> None:
    assert pairs(held, list(expected), rename=rename).pairs == expected


def test_rename_that_gives_one_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="gives 'a' and 'b' the same name 'b'"):
        pairs(["a", "b"], ["b"], rename={"a": "b"})


def test_rename_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="names what the checkpoint does not hold: 'c', 'z.'"):
        pairs(["a", "b"], ["b"], rename={"c": "d", "a": "x", "z.": ""})


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["head.w"], ("head.w",)),
        ("head.w", ("head.w",)),
        (["head.*"], ("head.w", "head.b")),
        (["head.?", "fc.[w]"], ("head.w", "head.b")),
        (["HEAD.*"], ()),
        (["nothing"], ()),
    ],
)
def test_skip_takes_names_and_patterns(skip: Any, left: tuple[str, ...]) -> None:
    names = ["head.w", "head.b", "fc.w"]

    found = pairs(names, names, skip=skip)

    assert found.skipped == left
    assert set(found.pairs) == set(names) - set(left)
    assert found.missing == found.unexpected == ()


def test_skip_leaves_both_sides_alone_after_renaming() -> None:
    found = pairs(["old.head.w", "old.fc.w"], ["fc.w", "head.b"], rename={"old.": ""}, skip=["head.*"])

    assert found == Match({"fc.w": "old.fc.w"}, ("head.b",), (), ())


@pytest.mark.parametrize(
    ("strict", "kinds"), [("exact", ["missing", "unexpected"]), ("subset", ["missing"]), ("superset", ["unexpected"])]
)
def test_strict_says_which_side_may_hold_more(strict: Any, kinds: list[str]) -> None:
    rules = Rules(strict=strict)

    assert [p.kind for p in name_problems(match_names(["a"], ["b"], rules), rules)] == kinds


def test_near_misses_are_suggested_with_the_remedy() -> None:
    rules = Rules()
    (missing, unexpected) = name_problems(match_names(["encoder.weight"], ["encoder.weights"], rules), rules)

    assert (
        "did you mean the checkpoint's 'encoder.weight'? Then rename={'encoder.weight': 'encoder.weights'}"
        in missing.message
    )
    assert "'encoder.weight' is in the checkpoint, and the target has no place for it" in unexpected.message


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("abc", "xyz.uvw"),
        ("opt.0.nu.dense.kernel", "opt.0.trace.dense.kernel"),
        ("optimizer.dense_1.kernel", "dense_2.kernel"),
    ],
)
def test_names_that_are_far_apart_are_not_suggested(held: str, wanted: str) -> None:
    rules = Rules()

    assert "did you mean" not in name_problems(match_names([held], [wanted], rules), rules)[0].message


@pytest.mark.parametrize("options", [{"strict": "yes"}, {"strict": True}, {"cast": "safe"}, {"cast": None}])
def test_rules_refuse_other_modes_and_list_those_there_are(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected one of 'exact', 'subset'|expected one of 'forbid', 'widen'"):
        Rules(**options)


def entry(dtype: str, shape: tuple[int, ...]) -> Entry:
    return Entry("w", "parameter", True, dtype, shape, ())


def target(dtype: str, shape: tuple[int, ...]) -> Variable:
    return Variable("w", "parameter", True, dtype, shape)


@pytest.mark.parametrize(
    ("source", "wanted", "cast", "words"),
    [
        (("F32", (2,)), ("F32", (2,)), "forbid", None),
        (
            ("F32", (768, 512)),
            ("F32", (512, 768)),
            "allow",
            "'w': the checkpoint has F32 (768, 512), the target expects F32 (512, 768)",
        ),
        (("F32", (1,)), ("F32", ()), "allow", "rename= or skip= it"),
        (("F16", ()), ("F32", ()), "forbid", 'cast="widen" converts it'),
        (("F32", ()), ("F16", ()), "forbid", 'cast="allow" converts it, with rounding'),
        (("F16", ()), ("F32", ()), "widen", None),
        (("F32", ()), ("F16", ()), "widen", "cannot hold every value"),
        (("F32", ()), ("I8", ()), "allow", None),
    ],
)
def test_pairs_must_agree_in_shape_and_dtype(source: Any, wanted: Any, cast: Any, words: str | None) -> None:
    problem = pair_problems(entry(*source), target(*wanted), Rules(cast=cast))

    assert (problem is None) == (words is None)
    if problem is not None and words is not None:
        assert words in problem.message
        assert problem.kind == ("shape" if source[1] != wanted[1] else "dtype")


def samples(name: str) -> np.ndarray:
    """All values of the small dtypes; of others random bits, the limits, and numbers around powers of two."""
    dtype = dtypes.to_numpy(name)
    if name == "BOOL":
        return np.array([False, True])
    if dtype.itemsize <= 2:
        return np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)
    bits = np.random.default_rng(0).integers(0, 256, 4000 * dtype.itemsize, np.uint8).view(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        around = {info.min, info.max, *(s * 2**p + d for p in range(64) for d in (-1, 0, 1) for s in (1, -1))}
        return np.concatenate([bits, np.array([n for n in around if info.min <= n <= info.max], dtype)])
    return np.concatenate([bits, np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 2.0**24 + 1], dtype)])


@pytest.mark.parametrize("source", dtypes.ITEMSIZE)
def test_widening_keeps_every_value(source: str) -> None:
    values = samples(source)
    for name in dtypes.ITEMSIZE:
        if can_widen(source, name):
            with np.errstate(all="ignore"):
                made = values.astype(dtypes.to_numpy(name))
                back = (made.real if made.dtype.kind == "c" and values.dtype.kind != "c" else made).astype(values.dtype)
                kept = (back == values) | (np.isnan(back) & np.isnan(values))

            assert kept.all(), f"{source} to {name}: {values[~kept][:3]}"


@pytest.mark.parametrize(
    ("source", "wide"),
    [("F16", "F32"), ("BF16", "F32"), ("F32", "F64"), ("U8", "I16"), ("I32", "I64"), ("I32", "F64"), ("F32", "C64"), ("BOOL", "U8"),
     ("U8", "F16"), ("F8_E4M3", "F32"), ("F8_E5M2", "F32")],
)  # fmt: skip
def test_widening_is_possible_where_users_expect_it(source: str, wide: str) -> None:
    assert can_widen(source, wide)
    assert not can_widen(wide, source)


def fits(value: Any, dtype: np.dtype) -> bool:
    """The rule in plain Python: a finite number stays finite, an integer type holds the very number."""
    number = complex(value)
    if number.imag != 0 and dtype.kind != "c":
        return False
    if dtype.kind in "iub":
        exact = int(value) if isinstance(value, int | np.integer | np.bool_) else number.real
        if not np.isfinite(number.real) or exact != int(exact):
            return False
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return bool(low <= int(exact) <= high)
    if not np.isfinite(number):
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(complex(np.array([number if dtype.kind == "c" else number.real]).astype(dtype)[0])))


@given(st.sampled_from(list(dtypes.ITEMSIZE)), st.sampled_from(list(dtypes.ITEMSIZE)), st.data())
def test_cast_loss_agrees_with_the_rule_in_plain_python(source: str, name: str, data: st.DataObject) -> None:
    values = data.draw(st.sampled_from(samples(source)))
    dtype = dtypes.to_numpy(name)
    if not np.isfinite(complex(values)) and dtype.kind not in "iub":
        return  # infinities and NaN have a test of their own

    loss = cast_loss(np.array([values]), dtype)

    assert (loss is None) == fits(values, dtype)


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        (np.array([1.0, 70000.0], np.float32), np.float16, "70000.0 does not fit"),
        (np.array([1, 300], np.int64), np.int8, "300 does not fit"),
        (np.array([-1], np.int64), np.uint64, "-1 does not fit"),
        (np.array([2**63], np.uint64), np.int64, "9223372036854775808 does not fit"),
        (np.array([2.0**63]), np.int64, "does not fit"),
        (np.array([0.5]), np.int32, "0.5 does not fit"),
        (np.array([np.nan]), np.int32, "nan does not fit"),
        (np.array([2]), np.bool_, "2 does not fit"),
        (np.array([1, 1 + 2j], np.complex64), np.float32, "has an imaginary part"),
        (np.array([1e300]), np.complex64, "1e+300 does not fit"),
        (np.array([1e300]), ml_dtypes.bfloat16, "1e+300 does not fit"),
        (np.array([500.0], np.float32), ml_dtypes.float8_e4m3fn, "500.0 does not fit"),
        (np.array([-1.0], np.float32), ml_dtypes.float8_e8m0fnu, "-1.0 does not fit"),
    ],
)
def test_cast_loss_names_a_value(values: np.ndarray, dtype: Any, words: str) -> None:
    assert words in (cast_loss(values, np.dtype(dtype)) or "")


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu]
)
def test_cast_loss_notices_infinities_where_the_dtype_has_none(dtype: Any) -> None:
    # They would become NaN, or the greatest number, in silence.
    assert "inf" in (cast_loss(np.array([1.0, np.inf], np.float32), np.dtype(dtype)) or "")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_infinities_and_nan_pass_where_the_dtype_has_them(dtype: Any) -> None:
    assert cast_loss(np.array([np.inf, -np.inf, np.nan]), np.dtype(dtype)) is None


@pytest.mark.parametrize("source", dtypes.ITEMSIZE)
@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_every_dtype_can_be_cast_to_every_other(source: str, name: str) -> None:
    one = np.ones(1, dtypes.to_numpy(source))

    assert cast_loss(one, dtypes.to_numpy(name)) is None


def test_rounding_is_no_loss() -> None:
    assert cast_loss(np.array([0.1, 1e-300]), np.dtype(np.float16)) is None
    assert cast_loss(np.array([2**53 + 1]), np.dtype(np.float32)) is None


def test_losses_are_found_for_each_variable_once() -> None:
    losses = match.Losses()
    a, b = losses.inspector("a", "I8"), losses.inspector("b", "I8")
    a(np.array([1.0, 2.0]))
    a(np.array([1.0, 999.0]))
    a(np.array([777.0]))
    b(np.array([1.0]))

    assert losses.found == {"a": "999.0 does not fit"}


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        (["model.a", "model.b"], ["a", "b"], "rename={'model.': ''}"),
        (["net.model.a"], ["a"], "rename={'net.model.': ''}"),
        (["a", "b"], ["module.a", "module.b"], "rename=lambda name: 'module.' + name"),
        (["x"], ["y"], None),
        (["model.a", "other"], ["a"], None),
    ],
)
def test_hints_tell_what_would_mend_many_names_at_once(held: list[str], wanted: list[str], words: str | None) -> None:
    found = match.hints(pairs(held, wanted), held, wanted)

    assert len(found) == (0 if words is None else 1)
    if words is not None:
        assert words in found[0]


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        (
            ["model.a", "opt", "opt.m.a"],
            ["model.a"],
            "Of 'opt' the target has nothing: put it into the state, or skip=['opt', 'opt.*']",
        ),
        (
            ["model.a"],
            ["model.a", "ema.a", "n"],
            "Of 'ema', 'n' the checkpoint has nothing: skip=['n', 'ema.*'] leaves it",
        ),
        (["model.a", "model.b"], ["model.a"], None),
        (["model.a", "opt.m"], ["model.a", "model.b"], None),
        (["a"], ["a"], None),
    ],
)
def test_hints_tell_of_whole_parts_that_one_side_lacks(held: list[str], wanted: list[str], words: str | None) -> None:
    names = pairs(held, wanted)

    found = match.part_hints(names.missing, names.unexpected, held, wanted)

    assert len(found) == (0 if words is None else 1)
    if words is not None:
        assert words in found[0]


def test_skip_of_a_thing_with_all_that_is_in_it_may_find_nothing_in_it() -> None:
    match.check_skip({"a", "optimizer"}, ["optimizer", "optimizer.*"])
    with pytest.raises(ValueError, match=r"neither the checkpoint nor the target holds: 'optimizer\.\*'"):
        match.check_skip({"a", "optimizer"}, ["optimizer.*"])
