"""Strides and byte orders against NumPy's own flattening."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from holdfast.engine import arrays


@st.composite
def strided(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every layout: slices with steps of both signs, transposed, Fortran, big-endian, broadcast."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    array = np.arange(
        int(np.prod(shape)), dtype=draw(st.sampled_from(["<f4", ">f4", "u1", ">i2", "<c8", ">f8"]))
    ).reshape(shape)
    for axis in range(array.ndim):
        step = draw(st.sampled_from([1, 1, 2, -1, -2]))
        array = array[(slice(None),) * axis + (slice(None, None, step),)]
    if draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    return array


@given(strided(), st.data())
def test_gather_is_a_part_of_the_flat_array_in_little_endian_order(array: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, array.size))
    stop = data.draw(st.integers(start, array.size))

    expected = array.reshape(-1)[start:stop].astype(array.dtype.newbyteorder("<")).tobytes()
    assert arrays.gather(array, start, stop).tobytes() == expected


@given(strided(), st.data())
def test_scatter_writes_what_gather_reads_and_nothing_else(array: np.ndarray, data: st.DataObject) -> None:
    target = np.copy(array, order="K")
    start = data.draw(st.integers(0, array.size))
    stop = data.draw(st.integers(start, array.size))
    values = np.arange(100, 100 + stop - start).astype(array.dtype.newbyteorder("<"))
    expected = target.reshape(-1).copy()
    expected[start:stop] = values

    arrays.scatter(values, target, start)

    assert (target.reshape(-1) == expected).all()


@given(strided())
def test_flat_bytes_is_the_memory_itself_or_none(array: np.ndarray) -> None:
    flat = arrays.flat_bytes(array)

    in_file_layout = array.flags.c_contiguous and array.dtype.newbyteorder("<") == array.dtype
    assert (flat is not None) == in_file_layout
    if flat is not None:
        assert flat.tobytes() == array.tobytes()
        assert array.size == 0 or np.shares_memory(flat, array)


@pytest.mark.parametrize("code", ["<f4", ">f4", "u1", "?"])
def test_stored_dtype_is_little_endian(code: str) -> None:
    assert arrays.stored_dtype(np.dtype(code)).newbyteorder("<") == np.dtype(code).newbyteorder("<")
    assert arrays.stored_dtype(np.dtype(code)).isnative


def test_scatter_casts() -> None:
    target = np.zeros((2, 2), np.float16, order="F")

    arrays.scatter(np.array([1.5, 2.5], np.float64), target, 1)

    assert target.tolist() == [[0, 1.5], [2.5, 0]]
