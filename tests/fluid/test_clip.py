import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid.clip import ErrorClipByValue, GradientClipByGlobalNorm, GradientClipByNorm, GradientClipByValue

L = fluid.layers
ONES = fluid.initializer.Constant(1.0)


def two_layers():
    """A loss whose gradients are large; the parameters are fc_0.w_0 and fc_1.w_0."""
    hidden = L.fc(L.data("x", [3]), 2, param_attr=fluid.ParamAttr(initializer=ONES), bias_attr=False)
    out = L.fc(hidden, 1, param_attr=fluid.ParamAttr(initializer=ONES), bias_attr=False)
    return hidden, L.mean(L.square(out))


def applied(loss, main, startup, exe, **optimizer):
    """What one step of rate 1 takes from each parameter, beside its gradient."""
    fluid.optimizer.SGD(1.0, **optimizer).minimize(loss)
    exe.run(startup)
    names = ["fc_0.w_0", "fc_1.w_0"]
    x = np.arange(6, dtype="float32").reshape(2, 3)
    gradients = exe.run(main, feed={"x": x}, fetch_list=[f"{n}@GRAD" for n in names])
    after = [np.array(fluid.global_scope().find_var(n).get_tensor()) for n in names]
    return [1 - value for value in after], gradients


def test_need_clip_chooses_parameters(fresh):
    _, loss = two_layers()
    rule = GradientClipByValue(0.5, -0.25, need_clip=lambda p: p.name == "fc_1.w_0")

    (first, second), gradients = applied(loss, *fresh, grad_clip=rule)

    np.testing.assert_allclose(first, gradients[0], rtol=1e-6)
    np.testing.assert_allclose(second, np.clip(gradients[1], -0.25, 0.5), rtol=1e-5)


def test_global_norm_is_that_of_the_chosen_gradients_together(fresh):
    _, loss = two_layers()

    taken, gradients = applied(loss, *fresh, grad_clip=GradientClipByGlobalNorm(2.0))

    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > 2
    for step, gradient in zip(taken, gradients, strict=True):
        np.testing.assert_allclose(step, gradient * 2.0 / norm, rtol=1e-4)


def test_small_gradients_stay_as_they_are(fresh):
    _, loss = two_layers()

    taken, gradients = applied(loss * 1e-4, *fresh, grad_clip=GradientClipByGlobalNorm(2.0))

    np.testing.assert_allclose(taken[0], gradients[0], rtol=1e-3)


def test_set_gradient_clip_is_for_the_listed_parameters(fresh):
    _, loss = two_layers()
    fluid.clip.set_gradient_clip(GradientClipByNorm(0.5), param_list=["fc_0.w_0"])

    (first, second), gradients = applied(loss, *fresh)

    np.testing.assert_allclose(first, 0.5 * gradients[0] / np.linalg.norm(gradients[0]), rtol=1e-4)
    np.testing.assert_allclose(second, gradients[1], rtol=1e-6)


def test_error_clip_limits_what_goes_on_back(fresh):
    hidden, loss = two_layers()
    hidden.error_clip = ErrorClipByValue(0.1)

    _, gradients = applied(loss, *fresh)

    x = np.arange(6, dtype="float32").reshape(2, 3)
    out = 2 * x.sum(1, keepdims=True)
    back = np.clip(out * np.ones((2, 2)), -0.1, 0.1)  # of the mean of two squares: out itself
    np.testing.assert_allclose(gradients[0], x.T @ back, rtol=1e-5)


def test_error_clip_of_a_variable_used_twice_is_for_the_whole_gradient(fresh):
    main, startup, exe = fresh
    hidden, _ = two_layers()
    loss = L.mean(hidden * 3.0 + hidden)
    hidden.set_error_clip(ErrorClipByValue(0.75, -1.0))
    fluid.optimizer.SGD(1.0).minimize(loss)
    exe.run(startup)

    x = np.ones((2, 3), "float32")
    (gradient,) = exe.run(main, feed={"x": x}, fetch_list=["fc_0.w_0@GRAD"])

    np.testing.assert_allclose(
        gradient, np.full((3, 2), 2 * 0.75), rtol=1e-6
    )  # 1.0 from both uses, in each of two rows


def test_groups_are_scaled_apart_and_need_one_norm(fresh):
    _, loss = two_layers()
    fluid.clip.set_gradient_clip(GradientClipByGlobalNorm(0.5, "a"), ["fc_0.w_0"])
    fluid.clip.set_gradient_clip(GradientClipByGlobalNorm(0.25, "b"), ["fc_1.w_0"])

    taken, _ = applied(loss, *fresh)

    assert [np.linalg.norm(t) for t in taken] == pytest.approx([0.5, 0.25], rel=1e-3)


def test_one_group_with_two_norms_is_refused(fresh):
    _, loss = two_layers()
    fluid.clip.set_gradient_clip(GradientClipByGlobalNorm(0.5), ["fc_0.w_0"])
    fluid.clip.set_gradient_clip(GradientClipByGlobalNorm(0.25), ["fc_1.w_0"])

    with pytest.raises(ValueError, match=r"'default_group' need one clip_norm: fc_1.w_0 has 0.25, fc_0.w_0 has 0.5"):
        fluid.optimizer.SGD(0.1).minimize(loss)


def test_rules_that_have_no_effect_are_warned_of(fresh):
    _, loss = two_layers()
    fluid.clip.set_gradient_clip(GradientClipByNorm(0.5))
    with pytest.warns(UserWarning, match="grad_clip is used"):
        fluid.optimizer.SGD(0.1, grad_clip=GradientClipByNorm(1.0)).minimize(loss)

    with pytest.warns(UserWarning, match="no effect after minimize"):
        fluid.clip.set_gradient_clip(GradientClipByNorm(0.5))


def test_what_is_no_rule_is_refused(fresh):
    hidden, loss = two_layers()
    with pytest.raises(TypeError, match="clip must be a rule"):
        fluid.clip.set_gradient_clip(1.0)
    with pytest.raises(TypeError, match="these are none: x"):
        fluid.clip.set_gradient_clip(GradientClipByNorm(1.0), ["x", "fc_0.w_0"])
    with pytest.raises(ValueError, match="var nowhere not in this block"):
        fluid.clip.set_gradient_clip(GradientClipByNorm(1.0), ["nowhere"])
    with pytest.raises(TypeError, match="need_clip must be a function"):
        GradientClipByNorm(1.0, need_clip=["fc_0.w_0"])
    with pytest.raises(ValueError, match="above zero"):
        GradientClipByValue(-1.0)
    hidden.error_clip = 0.1
    with pytest.raises(TypeError, match=r"error_clip of fc_0.tmp_0 must be a rule"):
        fluid.optimizer.SGD(0.1).minimize(loss)


def test_parameter_with_what_is_no_rule_is_refused(fresh):
    out = L.fc(L.data("x", [3]), 1, param_attr=fluid.ParamAttr(gradient_clip=0.5))

    with pytest.raises(TypeError, match=r"gradient_clip of fc_0.w_0 must be a rule"):
        fluid.optimizer.SGD(0.1).minimize(L.mean(out))
