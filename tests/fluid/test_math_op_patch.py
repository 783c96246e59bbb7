"""Operators of variables: what they refuse, and the uses that Fluid's own record does not cover."""

import numpy as np
import pytest

from holdfast.fluid import layers


def _run(fresh, out, **feeds):
    main, _, exe = fresh
    return exe.run(main, feed=feeds, fetch_list=[out])[0]


def test_variables_stay_usable_in_sets_and_as_keys(fresh):
    main, *_ = fresh
    x, y = layers.data("x", [2]), layers.data("y", [2])
    count = len(main.global_block().ops)

    assert len({x, y, x}) == 2
    assert {x: 1}[x] == 1
    assert len(main.global_block().ops) == count


def test_other_objects_are_refused(fresh):
    x = layers.data("x", [2])

    with pytest.raises(TypeError):
        x + "a"
    with pytest.raises(TypeError):
        _ = x < object()


def test_batch_of_numbers_is_added_to_rows(fresh):
    x = layers.data("x", [3])
    per_row = layers.data("per_row", [-1], append_batch_size=False)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)

    found = _run(fresh, x + per_row, x=values, per_row=np.array([10, 20], np.float32))

    np.testing.assert_array_equal(found, values + np.array([[10], [20]]))


def test_reflected_division_knows_the_batch_at_run_time(fresh):
    x = layers.data("x", [2])
    values = np.array([[1, 2], [4, 8], [0.5, 1]], np.float32)

    np.testing.assert_allclose(_run(fresh, 1.0 / x, x=values), 1 / values)


def test_numpy_scalars_count_as_numbers(fresh):
    x = layers.data("x", [2], append_batch_size=False)

    np.testing.assert_allclose(_run(fresh, x * np.float32(2) + np.int64(1), x=np.array([1, 2], np.float32)), [3, 5])


def test_index_by_a_variable(fresh):
    x = layers.data("x", [4, 2], append_batch_size=False)
    place = layers.fill_constant([1], "int32", 2)
    values = np.arange(8, dtype=np.float32).reshape(4, 2)

    np.testing.assert_array_equal(_run(fresh, x[place], x=values), values[2])


@pytest.mark.parametrize(
    "index", [(Ellipsis, 0), (0, Ellipsis, slice(1, 3)), (slice(None, None, -1), 0), (slice(None), slice(-2, None, 2))]
)
def test_index_is_that_of_numpy(fresh, index):
    x = layers.data("x", [2, 3, 4], append_batch_size=False)
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    np.testing.assert_array_equal(_run(fresh, x[index], x=values), values[index])


def test_index_outside_is_refused(fresh):
    x = layers.data("x", [2, 3], append_batch_size=False)

    with pytest.raises(IndexError, match="place 3 is outside dimension 1"):
        x[0, 3]
    with pytest.raises(IndexError, match="has 2 dimension"):
        x[0, 0, 0]
    with pytest.raises(IndexError, match="once at most"):
        x[..., 0, ...]
    with pytest.raises(ValueError, match="backwards only as a whole"):
        x[::-2]


def test_iteration_is_refused(fresh):
    with pytest.raises(TypeError, match="unstack or split"):
        list(layers.data("x", [2]))
