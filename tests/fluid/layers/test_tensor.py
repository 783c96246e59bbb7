"""Layers that make tensors, where Fluid's record of single runs does not reach."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers


def test_step_counter_moves_once_a_run_however_often_it_is_asked_for(fresh):
    main, startup, exe = fresh
    counter = layers.autoincreased_step_counter(begin=3, step=2)
    assert layers.autoincreased_step_counter() is counter
    exe.run(startup)

    assert [int(exe.run(main, fetch_list=[counter])[0][0]) for _ in range(3)] == [
        4,
        6,
        8,
    ]  # begin - 1 + step, as in Fluid


def test_large_integers_are_kept_as_they_are(fresh):
    main, _, exe = fresh
    big = layers.fill_constant([1], "int64", 2**53 + 1)

    assert exe.run(main, fetch_list=[big])[0] == 2**53 + 1


def test_assign_refuses_what_a_program_cannot_hold(fresh):
    with pytest.raises(TypeError, match="float64"):
        layers.assign(np.zeros(2))
    with pytest.raises(TypeError, match="not 'a'"):
        layers.assign("a")
    with pytest.raises(ValueError, match="too many"):
        layers.assign(np.zeros(1024 * 1024 + 1, np.float32))


def test_arguments_that_cannot_be_are_refused(fresh):
    x = layers.data("x", [2, 3], append_batch_size=False)
    batch = layers.data("batch", [3])

    with pytest.raises(TypeError, match="whole numbers"):
        layers.eye(-1)
    with pytest.raises(TypeError, match="batch_shape"):
        layers.eye(2, batch_shape=[0])
    with pytest.raises(ValueError, match="shard_id"):
        layers.shard_index(layers.cast(x, "int64"), 4, 2, 2)
    with pytest.raises(ValueError, match="perm"):
        layers.transpose(x, [0, 0])
    with pytest.raises(ValueError, match="say num="):
        layers.unstack(batch, axis=0)
    with pytest.raises(ValueError, match="no multiple of 2"):
        layers.split(x, 2, dim=1)
    with pytest.raises(ValueError, match="axis 3"):
        layers.flatten(x, axis=3)
    with pytest.raises(ValueError, match="mode 'wrap'"):
        layers.pad2d(x, mode="wrap")
    with pytest.raises(ValueError, match="at most two"):
        layers.t(layers.data("y", [2, 3, 4]))
    with pytest.raises(ValueError, match="two inputs"):
        layers.multiplex([x], x)
    with pytest.raises(TypeError, match="crop needs a shape"):
        layers.crop(x)
    with pytest.raises(TypeError, match="crop_tensor needs a shape"):
        layers.crop_tensor(x)
    with pytest.raises(ValueError, match="-1 may stand once"):
        layers.reshape(x, [-1, -1])
    with pytest.raises(ValueError, match="other elements"):
        layers.reshape(x, [4, 2])


def test_swish_warns_of_a_beta_that_fluid_leaves_out(fresh):
    main, _, exe = fresh
    x = layers.data("x", [1], append_batch_size=False)
    with pytest.warns(fluid.HazardWarning, match="beta=1"):
        out = layers.swish(x, beta=2.0)

    (found,) = exe.run(main, {"x": np.ones(1, np.float32)}, [out])

    assert found == pytest.approx(1 / (1 + np.exp(-2)))


def test_fluid_data_takes_the_whole_shape(fresh):
    x = fluid.data("x", [None, 3], "int64")

    assert (x.shape, x.is_data, x.dtype) == ((-1, 3), True, fluid.core.VarType.INT64)


def test_temporaries_of_one_value_stay_float32(fresh):
    main, _, exe = fresh
    out = layers.scale(layers.fill_constant([2], "float32", 1.0), scale=0.1, bias=0.1)
    out = layers.elementwise_pow(out, layers.ones([1], "float32")) / 3.0

    assert exe.run(main, fetch_list=[out])[0].dtype == np.float32
