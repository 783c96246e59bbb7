"""Protobuf's wire format."""

import pytest
from hypothesis import given, strategies as st

from holdfast.errors import FormatError
from holdfast.interop import wire

NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)


@given(NUMBERS)
def test_varint_round_trip(value: int) -> None:
    data = wire.put_varint(value)

    found, end = wire.varint(data + b"rest", 0, "x")

    assert (found, end) == (value % (1 << 64), len(data))


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x00", b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\xff" * 20], ids=repr
)
def test_varints_that_are_cut_off_too_long_or_not_shortest(data: bytes) -> None:
    with pytest.raises(FormatError, match="x: "):
        wire.varint(data, 0, "x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x01", "0 is no field number"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x05abc", "field 1 is cut off: it takes bytes 2 to 7 of 5"),
        (b"\x0d\x00", "cut off"),
        (b"\x09" + bytes(7), "cut off"),
        (wire.put_varint(1 << 32) + b"\x00", "no field number"),
    ],
)
def test_fields_that_are_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        list(wire.fields(data, "x"))


@given(st.binary(max_size=40))
def test_fields_of_any_bytes_end_or_complain(data: bytes) -> None:
    try:
        found = list(wire.fields(data, "x"))
    except FormatError:
        return
    assert b"".join(data[start:end] for *_, start, end in found) == data
