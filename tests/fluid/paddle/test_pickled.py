"""Pickles read without pickle: what real data sets hold comes out, anything else is an error, and nothing is run."""

import contextlib
import pickle
import pickletools
import struct

import numpy as np
import pytest
from hypothesis import given, strategies as st

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset.pickled import loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=12,
)


@given(value=VALUES, protocol=st.integers(0, 5))
def test_loads_gives_what_pickle_wrote(value: object, protocol: int) -> None:
    assert loads(pickle.dumps(value, protocol), "here") == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">f4", "?", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_loads_builds_arrays_as_numpy_does(protocol: int, dtype: str, order: str) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    found = loads(pickle.dumps({"data": array, "again": array}, protocol), "here")

    np.testing.assert_array_equal(found["data"], array, strict=True)
    np.testing.assert_array_equal(found["again"], array, strict=True)


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch of CIFAR as Python 2 pickled it, protocol 2: `str` is a byte string, the names are NumPy 1's."""

    def string(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def small(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    dtype = (
        b"cnumpy\ndtype\n"
        + string(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + string(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"".join(small(size) for size in images.shape) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + string(images.tobytes()) + b"tb"
    numbers = b"](" + b"".join(small(label) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + numbers + b"u."


def test_loads_reads_what_python_2_wrote() -> None:
    images = np.arange(2 * 300, dtype=np.uint8).reshape(2, 300)
    data = python2_batch(images, [3, 255])
    # The bytes above are a real pickle: the standard module agrees.
    np.testing.assert_array_equal(pickle.loads(data, encoding="bytes")[b"data"], images)

    found = loads(data, "here")

    assert found[b"labels"] == [3, 255]
    np.testing.assert_array_equal(found[b"data"], images, strict=True)


class Hostile:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [exec, eval, print, open, np.load, np.frombuffer, getattr])
def test_loads_refuses_any_other_name_and_runs_nothing(protocol: int, function, tmp_path) -> None:
    made = tmp_path / "made"
    data = pickle.dumps(Hostile(function, f"open({str(made)!r}, 'w')"), protocol)

    with pytest.raises(FormatError, match=r"(names .*|opcode).*nothing was run"):
        loads(data, "hostile.pickle")
    assert not made.exists()


@pytest.mark.parametrize(
    "value", [{1, 2}, np.array([object()], dtype=object), np.array(["text"]), np.zeros(1, dtype="M8[s]"), 1j]
)
def test_loads_refuses_what_no_data_set_needs(value: object) -> None:
    with pytest.raises(FormatError, match=r"here"):
        loads(pickle.dumps(value, 4), "here")


def test_loads_refuses_every_truncation() -> None:
    data = pickle.dumps({"data": np.arange(3), "labels": [1, 2, 300]}, 4)

    for length in range(len(data)):
        with pytest.raises(FormatError, match="here"):
            loads(data[:length], "here")


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_loads_of_a_changed_byte_gives_a_value_or_a_format_error(at: int, value: int) -> None:
    data = bytearray(pickle.dumps({"data": np.arange(3), "labels": [1, 2, 300], "name": "x"}, 2))
    data[at % len(data)] = value

    with contextlib.suppress(FormatError):  # any other error fails the test
        loads(bytes(data), "here")


def test_loads_refuses_a_shape_that_the_bytes_do_not_fill() -> None:
    data = pickle.dumps(np.zeros((2, 3), np.uint8), 2)
    shape = next(
        position
        for opcode, argument, position in pickletools.genops(data)
        if opcode.name == "BININT1" and argument == 3
    )
    changed = bytearray(data)
    changed[shape + 1] = 200

    with pytest.raises(FormatError, match="reshape"):
        loads(bytes(changed), "here")
