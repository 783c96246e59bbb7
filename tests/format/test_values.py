"""Typed JSON: what goes in comes out, with its exact types; what does not is an error that says where."""

import collections
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st

from holdfast import dtypes
from holdfast.errors import FormatError, VersionError
from holdfast.format import json, values
from holdfast.format.values import Tagged, UnsupportedValueError, decode, encode


def through_bytes(value: Any) -> Any:
    return decode(json.parse(values.to_bytes(encode(value)), "f"), "f")


def same(a: Any, b: Any) -> bool:
    """Equal, in every type and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.generic | np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and (a.tobytes() == b.tobytes())
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return all(same(list(x), list(y)) for x, y in ((a.keys(), b.keys()), (a.values(), b.values())))
    return bool(a == b)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(
        [np.float32(0.1), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.float16("inf"), np.complex64(1 - 2j)]
    ),
)
KEYS = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.tuples(st.integers())
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.one_of(st.lists(v, max_size=4), st.tuples(v), st.tuples(v, v), st.dictionaries(KEYS, v, max_size=4)),
    max_leaves=20,
)


@given(VALUES)
def test_values_come_back_with_their_exact_types(value: Any) -> None:
    assert same(through_bytes(value), value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.inf, b'{"$float":"inf"}'),
        (-math.inf, b'{"$float":"-inf"}'),
        (math.nan, b'{"$float":"nan"}'),
        ((1, "a"), b'{"$tuple":[1,"a"]}'),
        ({1: 2}, b'{"$dict":[[1,2]]}'),
        ({"$x": 2}, b'{"$dict":[["$x",2]]}'),
        ({"$x": 2, "y": 3}, b'{"$x":2,"y":3}'),
        (np.float32(0.5), b'{"$scalar":["F32",0.5]}'),
        (np.complex64(1 + 2j), b'{"$scalar":["C64",[1.0,2.0]]}'),
        (np.array([[1], [2]], np.uint32), b'{"$array":["U32",[2,1],[1,2]]}'),
        (Tagged("$variable", "a.b"), b'{"$variable":"a.b"}'),
        (Tagged("$random", ["random.Random", (3,)]), b'{"$random":["random.Random",{"$tuple":[3]}]}'),
        ("ü€", b'"\\u00fc\\u20ac"'),
    ],
)
def test_values_are_written_as_the_specification_says(value: Any, written: bytes) -> None:
    assert values.to_bytes(encode(value)) == written


@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_scalars_and_small_arrays_of_every_dtype_come_back(name: str) -> None:
    array = np.arange(256, dtype=np.uint8)[: 16 * dtypes.ITEMSIZE[name]].view(dtypes.to_numpy(name))
    if name == "BOOL":
        array = np.array([True, False, True])

    given_back = through_bytes(
        {"array": array, "scalar": array[1], "empty": array[:0].reshape(0, 3), "none": array[0].reshape(())}
    )

    assert same(given_back["array"], array)
    assert same(given_back["scalar"], array[1])
    assert given_back["empty"].shape == (0, 3)
    assert given_back["none"].shape == ()


def test_non_finite_elements_come_back() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1.0])
    bfloat = np.array([np.inf, 1.5], ml_dtypes.bfloat16)

    assert same(through_bytes(array), array)
    assert same(through_bytes(bfloat), bfloat)


def test_big_endian_and_fortran_arrays_come_back_as_values() -> None:
    array = np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))

    assert through_bytes(array).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("value", "where", "words"),
    [
        ({1, 2}, "", "builtins.set"),
        ({"a": [0, {"b": object()}]}, ".a.1.b", "builtins.object"),
        ([b"x"], ".0", "builtins.bytes"),
        ({frozenset(): 1}, "", "frozenset"),
        (1j, "", "complex"),
        ((np.array(["s"]),), ".0", "<U1"),
        ([np.float64(1), np.array([None])], ".1", "dtype object"),
        (np.zeros(values.MAX_INLINE_ELEMENTS + 1), "", "65537 elements"),
        ([values.MAX_INT], ".0", "more than 4,298 digits"),
        (-values.MAX_INT, "", "more than 4,298 digits"),
    ],
)
def test_encode_refuses_with_the_place(value: Any, where: str, words: str) -> None:
    with pytest.raises(UnsupportedValueError, match=words) as caught:
        encode(value)

    assert caught.value.where.startswith(where)


def test_text_that_is_no_valid_unicode_comes_back_too() -> None:
    # Python gives such names to files that are not UTF-8; JSON can write them as escapes.
    assert through_bytes({"k\ud800": "\udfff"}) == {"k\ud800": "\udfff"}


class Flavour(str):
    __slots__ = ()


class Count(int):
    pass


Point = collections.namedtuple("Point", "x y")  # what users have


@pytest.mark.parametrize("value", [Flavour("a"), Count(3), Point(1, 2), [Point(1, 2)], {"a": Count(1)}, {Count(1): 1}])
def test_encode_refuses_subclasses_whose_type_would_be_lost(value: Any) -> None:
    with pytest.raises(UnsupportedValueError, match="Flavour|Count|Point"):
        encode(value)


def test_encode_refuses_bottomless_nesting() -> None:
    value: list[Any] = []
    for _ in range(values.MAX_DEPTH + 1):
        value = [value]

    with pytest.raises(UnsupportedValueError, match="deeper than 200"):
        encode(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"$new":1}',
        '{"$float":"1"}',
        '{"$float":1}',
        '{"$tuple":{"a":1}}',
        '{"$dict":[[1]]}',
        '{"$dict":[[[1],2]]}',
        '{"$dict":3}',
        '{"$scalar":["F32"]}',
        '{"$scalar":["F99",1]}',
        '{"$scalar":["U8",300]}',
        '{"$scalar":["U8",1.5]}',
        '{"$scalar":["F32","x"]}',
        '{"$scalar":["C64",1]}',
        '{"$scalar":3}',
        '{"$array":["U8",[2],[1]]}',
        '{"$array":["U8",[-1],[]]}',
        '{"$array":["U8",[true],[1]]}',
        '{"$array":["U8",3,[1]]}',
        '{"$array":["U8",[1]]}',
        '{"$array":["U8",[1000000],[]]}',
        '{"$array":[["U8"],[1],[1]]}',
        '{"$scalar":["I8",true]}',
        '{"$dict":[[1,2],[1,3]]}',
        '{"$dict":[["a"]]}',
        '{"$dict":["ab"]}',
        '{"$scalar":["F16",70000]}',
        '{"$scalar":["F32",1e300]}',
        '{"$array":["BOOL",[1],[2]]}',
    ],
)
def test_decode_refuses_malformed_objects(text: str) -> None:
    with pytest.raises(FormatError, match="place"):
        decode(json.parse(text.encode(), "place"), "place")


def test_trainer_file_comes_back() -> None:
    data = values.trainer_to_bytes(0, encode({"epoch": (1, 2)}), {"a.b": encode([math.inf])})

    assert values.trainer_from_bytes(data, "f", 0) == ({"epoch": (1, 2)}, {"a.b": [math.inf]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not a trainer's file"),
        ({"trainer_args": ...}, "not a trainer's file"),
        ({"values": []}, "values must be an object"),
        ({"values": ...}, "values must be an object"),
        ({"version": 1}, "version must be two integers"),
        ({"version": [1]}, "version must be two integers"),
        ({"version": [1, "0"]}, "version must be two integers"),
        ({"version": [0, 1]}, "no format version 0"),
        ({"trainer_id": "0"}, "trainer_id is 0, expected 0"),
        ({"trainer_id": 1}, "trainer_id is 1, expected 0"),
        ({"trainer_id": ...}, "trainer_id is None, expected 0"),
    ],
)
def test_trainer_file_refuses_other_contents(change: dict[str, Any], words: str) -> None:
    content = {
        "format": "holdfast-trainer",
        "version": [1, 0],
        "trainer_id": 0,
        "trainer_args": None,
        "values": {},
        **change,
    }
    content = {name: value for name, value in content.items() if value is not ...}

    with pytest.raises(FormatError, match=words):
        values.trainer_from_bytes(values.to_bytes(content), "f", 0)


@pytest.mark.parametrize(
    "data", [b"[]", b"3", b"", b"{", b'{"format":"holdfast-trainer","trainer_args":' + b"[" * 9999]
)
def test_trainer_file_refuses_what_is_no_object(data: bytes) -> None:
    with pytest.raises(FormatError, match="f"):
        values.trainer_from_bytes(data, "f", 0)


def test_trainer_file_of_a_newer_major_version_is_refused() -> None:
    content = {"format": "holdfast-trainer", "version": [2, 0], "trainer_id": 0, "trainer_args": None, "values": {}}

    with pytest.raises(VersionError, match="format version 2.*upgrade holdfast"):
        values.trainer_from_bytes(values.to_bytes(content), "f", 0)


def test_trainer_file_that_nests_too_deep_for_python_is_refused() -> None:
    data = values.trainer_to_bytes(0, None, {}).replace(
        b'"trainer_args":null', b'"trainer_args":' + b"[" * 800 + b"]" * 800
    )

    with pytest.raises(FormatError, match="f"):
        values.trainer_from_bytes(data, "f", 0)
