"""NaN is found in values of every kind and layout, and nothing else is taken for one."""

import ml_dtypes
import numpy as np
import pytest

from holdfast.fluid.io.held import _has_nan

FLOATS = ["float16", "float32", "float64", "complex64", "complex128", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("place", [0, 7, 1000, -1])
def test_one_nan_is_found_wherever_it_is(dtype, place):
    array = np.zeros((37, 41), dtype)
    array.flat[[5, 6]] = [np.inf, -np.inf]
    assert not _has_nan(array)

    array.flat[place] = np.nan
    assert _has_nan(array)
    assert _has_nan(np.asfortranarray(array))
    assert _has_nan(array[:, ::-1])


@pytest.mark.parametrize("value", [complex(1, np.nan), complex(np.nan, 1)])
def test_either_part_of_a_complex_number_counts(value):
    assert _has_nan(np.array([0, value, 0], np.complex64))


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.float32), np.array([1, -1]), np.array([True])], ids=str)
def test_what_can_hold_none_has_none(array):
    assert not _has_nan(array)
