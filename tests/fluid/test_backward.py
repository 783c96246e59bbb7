"""append_backward and gradients: names, sums, stops."""

import numpy as np
import pytest
from tests.fluid.models import batch, regression, square_error

import holdfast.fluid as fluid
from holdfast.fluid.layer_helper import LayerHelper


def op(type, attrs=None, **inputs):
    return LayerHelper(type).op(type, {k: v if isinstance(v, list) else [v] for k, v in inputs.items()}, attrs)


def test_pairs_come_in_the_order_of_the_parameters(fresh):
    main, _, _ = fresh
    _, loss = regression()
    pairs = fluid.append_backward(loss)

    assert [(p.name, g.name) for p, g in pairs] == [(p.name, p.name + "@GRAD") for p in main.all_parameters()]
    assert all(p.shape == g.shape and p.dtype == g.dtype for p, g in pairs)


def test_gradients_of_a_variable_that_is_used_twice_add_up(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [3], stop_gradient=False)
    h = op("scale", {"scale": 2.0}, X=x)
    total = op("elementwise_add", X=op("square", X=h), Y=op("scale", {"scale": 5.0}, X=h))
    loss = fluid.layers.mean(total)
    fluid.append_backward(loss)
    fed = np.arange(6, dtype="float32").reshape(2, 3)
    grad_h, grad_x = exe.run(main, feed={"x": fed}, fetch_list=[h.name + "@GRAD", "x@GRAD"])

    np.testing.assert_allclose(grad_h, (2 * 2 * fed + 5) / 6, rtol=1e-6)
    np.testing.assert_allclose(grad_x, 2 * grad_h, rtol=1e-6)
    assert any("@GRAD@RENAME@" in name for name in main.global_block().vars)


def test_one_variable_in_two_slots_of_an_operator_adds_up(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [3], stop_gradient=False)
    loss = fluid.layers.mean(op("elementwise_mul", X=x, Y=x))
    fluid.append_backward(loss)
    fed = np.arange(3, dtype="float32").reshape(1, 3)
    (grad,) = exe.run(main, feed={"x": fed}, fetch_list=["x@GRAD"])

    np.testing.assert_allclose(grad, 2 * fed / 3, rtol=1e-6)


def test_a_shared_parameter_gets_the_sum(fresh):
    main, startup, exe = fresh
    x = fluid.layers.data("x", [4])
    attr = fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(0.5))
    a = fluid.layers.fc(x, 4, param_attr=attr, bias_attr=False)
    b = fluid.layers.fc(a, 4, param_attr=attr, bias_attr=False)
    pairs = fluid.append_backward(fluid.layers.mean(b))
    exe.run(startup)
    fed = np.ones((1, 4), "float32")
    (grad,) = exe.run(main, feed={"x": fed}, fetch_list=[pairs[0][1]])

    assert len(pairs) == 1
    w = np.full((4, 4), 0.5)
    expected = (fed @ w).T @ np.full((1, 4), 0.25) + fed.T @ (np.full((1, 4), 0.25) @ w.T)
    np.testing.assert_allclose(grad, expected, rtol=1e-6)


def test_gradients_stop_where_they_are_told(fresh):
    main, _, _ = fresh
    x, y = fluid.layers.data("x", [4]), fluid.layers.data("y", [1])
    hidden = fluid.layers.fc(x, 4)
    hidden.stop_gradient = True
    loss = square_error(fluid.layers.fc(hidden, 1), y)

    assert [p.name for p, _ in fluid.append_backward(loss)] == ["fc_1.w_0", "fc_1.b_0"]
    assert "x@GRAD" not in main.global_block().vars
    assert hidden.name + "@GRAD" not in main.global_block().vars


def test_no_grad_set_and_parameter_list(fresh):
    main, _, _ = fresh
    _, loss = regression()
    pairs = fluid.append_backward(loss, parameter_list=["fc_1.w_0", "fc_0.w_0"], no_grad_set={"fc_0.w_0"})

    assert [p.name for p, _ in pairs] == ["fc_1.w_0"]
    assert "fc_0.w_0@GRAD" not in main.global_block().vars


def test_a_frozen_parameter_gets_no_gradient(fresh):
    x, y = fluid.layers.data("x", [4]), fluid.layers.data("y", [1])
    loss = square_error(fluid.layers.fc(x, 1, param_attr=fluid.ParamAttr(trainable=False)), y)

    assert [p.name for p, _ in fluid.append_backward(loss)] == ["fc_0.b_0"]


def test_a_parameter_the_loss_does_not_depend_on_is_left_out(fresh):
    _, loss = regression()
    fluid.layers.fc(fluid.default_main_program().global_block().var("x"), 2)

    assert not any(p.name.startswith("fc_2") for p, _ in fluid.append_backward(loss))


def test_the_loss_must_have_one_element(fresh):
    prediction, _ = regression()
    with pytest.raises(ValueError, match=r"must have one element, but fc_1.tmp_1 has the shape \[-1, 1\]"):
        fluid.append_backward(prediction)
    with pytest.raises(TypeError, match="variable of a program"):
        fluid.append_backward("loss")


def test_gradients_of_targets_with_given_beginnings(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [3])
    start = fluid.layers.data("start", [3])
    y = op("square", X=x)
    (plain,) = fluid.gradients(y, x)
    fed = {"x": np.arange(3, dtype="float32").reshape(1, 3), "start": np.full((1, 3), 3.0, "float32")}
    (got,) = exe.run(main, feed=fed, fetch_list=[plain])
    np.testing.assert_allclose(got, 2 * fed["x"])
    assert x.stop_gradient  # as it was

    other = fluid.Program()
    with fluid.program_guard(other, fluid.Program()):
        x, start = fluid.layers.data("x", [3]), fluid.layers.data("start", [3])
        (weighted,) = fluid.gradients([op("square", X=x)], [x], [start])
        unrelated = fluid.gradients(op("square", X=start), x)
    (got,) = exe.run(other, feed=fed, fetch_list=[weighted])
    np.testing.assert_allclose(got, 6 * fed["x"])
    assert unrelated == [other.global_block().vars.get("x@GRAD")] or unrelated == [None]


def test_the_forward_part_is_computed_once(fresh):
    """A random operator that were run again for its gradient would draw other numbers."""
    main, startup, exe = fresh
    x = fluid.layers.data("x", [1000], stop_gradient=False)
    noise = LayerHelper("noise").op("uniform_random", {}, {"shape": [1, 1000], "dtype": 5})
    noise.stop_gradient = False
    out = op("elementwise_mul", X=x, Y=noise)
    fluid.append_backward(fluid.layers.mean(out))
    exe.run(startup)
    drawn, grad = exe.run(main, feed={"x": np.ones((1, 1000), "float32")}, fetch_list=[noise, "x@GRAD"])

    np.testing.assert_allclose(grad, drawn / 1000, rtol=1e-6)


def test_a_gradient_without_its_forward_operator_says_so(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    fluid.append_backward(loss)
    exe.run(startup)
    del main.global_block().ops[0]
    main.changed()
    with pytest.raises(Exception, match="forward operator of mul_grad is not in this program|not been initialized"):
        exe.run(main, feed=batch(), fetch_list=[loss])
