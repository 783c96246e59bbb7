"""Shapes that programs compute with operators are known when they are compiled; others are refused with a reason."""

import numpy as np
import pytest

from holdfast.fluid import layers

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)


def _x():
    return layers.data("x", [6])


def test_shape_arithmetic_gives_a_shape(fresh):
    main, _, exe = fresh
    x = _x()
    sizes = layers.shape(x)
    rows = layers.slice(sizes, axes=[0], starts=[0], ends=[1])
    half = layers.cast(
        layers.elementwise_floordiv(layers.cast(rows, "int64"), layers.fill_constant([1], "int64", 2)), "int32"
    )
    out = layers.reshape(x, [half, -1])
    ones = layers.fill_constant([half, 3], "float32", 2.0)
    noise = layers.uniform_random([rows, 2])

    found = exe.run(main, feed={"x": VALUES}, fetch_list=[out, ones, noise])

    assert [v.shape for v in found] == [(2, 12), (2, 3), (4, 2)]
    np.testing.assert_array_equal(found[0], VALUES.reshape(2, 12))
    assert ones.shape == (-1, 3)


def test_actual_shape_of_reshape_comes_before_shape(fresh):
    main, _, exe = fresh
    y = layers.data("y", [3, 2])
    out = layers.reshape(_x(), [-1, 6], actual_shape=layers.shape(y))

    (found,) = exe.run(main, feed={"x": VALUES, "y": np.zeros((4, 3, 2), np.float32)}, fetch_list=[out])

    assert found.shape == (4, 3, 2)


def test_whole_list_of_numbers_may_be_a_variable(fresh):
    main, _, exe = fresh
    x = _x()
    times = layers.assign(np.array([1, 2], "int32"))
    start = layers.assign(np.array([1], "int32"))
    outs = [layers.expand(x, times), layers.slice(x, [0], start, layers.assign(np.array([3], "int32")))]
    outs.append(layers.crop_tensor(x, shape=[layers.fill_constant([1], "int32", 2), -1], offsets=[1, 2]))

    found = exe.run(main, feed={"x": VALUES}, fetch_list=outs)

    np.testing.assert_array_equal(found[0], np.tile(VALUES, (1, 2)))
    np.testing.assert_array_equal(found[1], VALUES[1:3])
    np.testing.assert_array_equal(found[2], VALUES[1:3, 2:])


def test_shape_from_fed_values_is_refused_with_the_reason(fresh):
    main, _, exe = fresh
    count = layers.data("count", [1], append_batch_size=False, dtype="int32")
    out = layers.fill_constant([count], "float32", 1.0)

    with pytest.raises(ValueError, match="XLA needs the shape when it compiles"):
        exe.run(main, feed={"count": np.array([3], np.int32)}, fetch_list=[out])


def test_range_of_shapes_and_numbers(fresh):
    main, _, exe = fresh
    rows = layers.slice(layers.shape(_x()), axes=[0], starts=[0], ends=[1])
    outs = [layers.range(0, rows, 1, "int32"), layers.range(0, 5, 2, "int64"), layers.linspace(0, 1, 3, "float32")]

    found = exe.run(main, feed={"x": VALUES}, fetch_list=outs)

    assert [v.tolist() for v in found] == [[0, 1, 2, 3], [0, 2, 4], [0, 0.5, 1]]
    assert [v.shape for v in outs] == [(-1,), (3,), (3,)]
