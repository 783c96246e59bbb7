"""batch_norm and its moving statistics; what layers refuse."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers

ROWS = np.random.RandomState(0).randn(6, 3).astype("float32") * 2 + 1


def value(name):
    return np.array(fluid.global_scope().find_var(name).get_tensor())


def test_moving_statistics_follow_the_batches(fresh):
    main, startup, exe = fresh
    out = layers.batch_norm(layers.data("x", [3]), momentum=0.8)
    exe.run(startup)

    for _ in range(2):
        (y,) = exe.run(main, feed={"x": ROWS}, fetch_list=[out])

    mean, variance = ROWS.mean(0), ROWS.var(0)  # the variance of the batch itself, in the moving one as well
    np.testing.assert_allclose(y, (ROWS - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    np.testing.assert_allclose(value("batch_norm_0.w_1"), mean * (0.2 * 0.8 + 0.2), atol=1e-6)
    np.testing.assert_allclose(value("batch_norm_0.w_2"), 0.64 + variance * 0.36, rtol=1e-6)


def test_clone_for_test_leaves_moving_statistics_and_uses_them(fresh):
    main, startup, exe = fresh
    out = layers.batch_norm(layers.data("x", [3]))
    test = main.clone(for_test=True)
    exe.run(startup)
    exe.run(main, feed={"x": ROWS})
    before = [value(f"batch_norm_0.w_{k}") for k in (1, 2)]

    (y,) = exe.run(test, feed={"x": ROWS[:1]}, fetch_list=[out])

    np.testing.assert_allclose(y, (ROWS[:1] - before[0]) / np.sqrt(before[1] + 1e-5), atol=1e-5)
    for k, old in zip((1, 2), before, strict=True):
        np.testing.assert_array_equal(value(f"batch_norm_0.w_{k}"), old)


def test_plain_clone_moves_the_statistics(fresh):
    main, startup, exe = fresh
    layers.batch_norm(layers.data("x", [3]))
    exe.run(startup)

    exe.run(main.clone(), feed={"x": ROWS})

    assert not np.array_equal(value("batch_norm_0.w_1"), np.zeros(3, "float32"))


def test_momentum_may_be_a_variable(fresh):
    main, startup, exe = fresh
    rate = layers.data("rate", [1], append_batch_size=False)
    layers.batch_norm(layers.data("x", [3]), momentum=rate)
    exe.run(startup)

    exe.run(main, feed={"x": ROWS, "rate": np.array([0.25], "float32")})

    np.testing.assert_allclose(value("batch_norm_0.w_1"), ROWS.mean(0) * 0.75, rtol=1e-5)


def test_in_place_gives_the_input_its_name(fresh):
    main, startup, exe = fresh
    x = layers.scale(layers.data("x", [3]), 2.0)
    out = layers.batch_norm(x, in_place=True)
    abn = layers.inplace_abn(layers.scale(layers.data("z", [3]), 1.0), act="leaky_relu", act_alpha=0.5)
    exe.run(startup)

    y, z = exe.run(main, feed={"x": ROWS, "z": ROWS}, fetch_list=[out, abn])

    assert out is x
    normal = (ROWS - ROWS.mean(0)) / np.sqrt(ROWS.var(0) + 1e-5)
    np.testing.assert_allclose(y, normal, atol=1e-4)
    np.testing.assert_allclose(z, np.where(normal > 0, normal, normal / 2), atol=1e-4)


def test_parameters_of_float16_inputs_are_float32(fresh):
    layers.batch_norm(layers.data("x", [3], dtype="float16"))

    main, _, _ = fresh
    assert {p.dtype.name for p in main.all_parameters()} == {"FP32"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: layers.batch_norm(x, bias_attr=False), "cannot be False"),
        (lambda x: layers.batch_norm(x, data_layout="NCWH"), "NCHW or NHWC"),
        (lambda x: layers.batch_norm(layers.data("y", [-1, -1])), "number of channels must be known"),
        (lambda x: layers.inplace_abn(x, act="relu"), "leaky_relu"),
        (lambda x: layers.layer_norm(x, param_attr=False), "scale=False"),
        (lambda x: layers.group_norm(x, 3), "do not make 3 groups"),
        (lambda x: layers.lrn(layers.data("y", [3])), "four dimensions"),
        (lambda x: layers.lrn(x, n=4), "must be odd"),
    ],
)
def test_layers_refuse_what_has_no_meaning(fresh, call, message):
    with pytest.raises(ValueError, match=message):
        call(layers.data("x", [4, 5, 5]))


def test_layer_norm_warns_of_an_attribute_without_effect(fresh):
    with pytest.warns(UserWarning, match="param_attr has no effect"):
        layers.layer_norm(layers.data("x", [4]), scale=False, param_attr="w")
