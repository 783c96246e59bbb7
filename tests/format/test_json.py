"""Strict JSON: refused is what two readers could understand differently."""

import math

import msgspec
import pytest

from holdfast.errors import FormatError
from holdfast.format import json


class Pair(msgspec.Struct):
    a: int
    b: dict[str, int] = {}


DECODER = msgspec.json.Decoder(Pair)
ENCODE = msgspec.json.Encoder().encode


def test_decode_gives_the_type() -> None:
    assert json.decode(b'{"a":1,"b":{"x":2}}', DECODER, ENCODE, "f") == Pair(1, {"x": 2})


def test_decode_takes_white_space_other_orders_and_unknown_fields() -> None:
    assert json.decode(b' { "b" : {} ,\n "new":[1.5, null], "a":1 } ', DECODER, ENCODE, "f") == Pair(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":1,"a":1}', "'a' stands twice"),
        (b'{"a":1,"b":{"x":1,"x":2}}', "'x' stands twice"),
        (b'{"a":1,"new":{"y":1,"y":1}}', "'y' stands twice"),
        (b'{"a":1,"\\u0061":1}', "'a' stands twice"),
        (b'{"b":{}}', "missing required field `a`"),
        (b'{"a":"1"}', "Expected `int`"),
        (b'{"a":1', "truncated"),
        (b"\xff", "f:"),
        (b'{"a":1,"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "f:"),
    ],
)
def test_decode_refuses(text: bytes, words: str) -> None:
    with pytest.raises(FormatError, match="f: ") as caught:
        json.decode(text, DECODER, ENCODE, "f")

    assert words in str(caught.value)


def test_parse_keeps_integers_of_any_size() -> None:
    assert json.parse(b"[1180591620717411303424, -1, 0.5]", "f") == [2**70, -1, 0.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "1e999 is out of range"),
        (b"[-1e999]", "-1e999 is out of range"),
        (b'{"k":1,"k":2}', "'k' stands twice"),
        (b"[1,]", "f:"),
        (b"", "f:"),
        (b'"\xff"', "f:"),
        (b"\xef\xbb\xbf{}", "f:"),
        (b"[" * 100_000, "f:"),
        (b"9" * 5000, "f:"),
    ],
)
def test_parse_refuses(text: bytes, words: str) -> None:
    with pytest.raises(FormatError, match="f: ") as caught:
        json.parse(text, "f")

    assert words in str(caught.value)


def test_parse_names_only_the_beginning_of_a_long_key() -> None:
    key = "k" * 10_000

    with pytest.raises(FormatError) as caught:
        json.parse(f'{{"{key}":1,"{key}":1}}'.encode(), "f")

    assert len(str(caught.value)) < 300


def test_parse_keeps_every_float() -> None:
    values = [0.1, 1e-320, 1.7976931348623157e308, -0.0]

    parsed = json.parse(msgspec.json.encode(values), "f")

    assert [x.hex() for x in parsed] == [x.hex() for x in values]
    assert math.copysign(1, parsed[3]) == -1
