import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid.framework import OpRole

L = fluid.layers


def given(*shape):
    """The same weights in every test; numbers in the program also compile faster than ones that are drawn."""
    value = np.random.RandomState(len(shape) + shape[0]).randn(*shape)
    return fluid.ParamAttr(initializer=fluid.initializer.NumpyArrayInitializer(value))


def regression(dtype="float32"):
    x, y = L.data("x", [3], dtype=dtype), L.data("y", [1], dtype=dtype)
    prediction = L.fc(L.fc(x, 4, act="tanh", param_attr=given(3, 4)), 1, param_attr=given(4, 1))
    return prediction, L.mean(L.square_error_cost(prediction, y))


def batch(seed=0, dtype="float32"):
    x = np.random.RandomState(seed).randn(8, 3).astype(dtype)
    return {"x": x, "y": (x.sum(1, keepdims=True) * 0.3).astype(dtype)}


def snapshot(program):
    return {
        v.name: np.array(fluid.global_scope().find_var(v.name).get_tensor())
        for v in program.list_vars()
        if v.persistable
    }


def held(name):
    return np.array(fluid.global_scope().find_var(name).get_tensor())


def averaged(average):
    def make(loss):
        fluid.optimizer.SGD(0.05).minimize(loss)
        made = average()
        getattr(made, "update", lambda: None)()

    return make


def minimized(optimizer):
    return lambda loss: optimizer().minimize(loss)


O = fluid.optimizer  # noqa: E741 - shorter lines
EVERY = {
    "SGD": minimized(lambda: O.SGD(L.exponential_decay(0.1, 2, 0.5))),
    "Momentum": minimized(lambda: O.Momentum(L.piecewise_decay([2, 4], [0.1, 0.05, 0.01]), 0.9)),
    "LarsMomentum": minimized(lambda: O.LarsMomentum(0.1, 0.5, lars_coeff=0.5)),
    "Adam": minimized(lambda: O.Adam(L.noam_decay(16, 3))),
    "Adamax": minimized(lambda: O.Adamax(0.05)),
    "Adagrad": minimized(lambda: O.Adagrad(0.1)),
    "DecayedAdagrad": minimized(lambda: O.DecayedAdagrad(0.05)),
    "Adadelta": minimized(lambda: O.Adadelta(1.0, epsilon=1e-3)),
    "RMSProp": minimized(lambda: O.RMSProp(0.01, centered=True, momentum=0.5)),
    "Ftrl": minimized(lambda: O.Ftrl(0.1)),
    "Lamb": minimized(lambda: O.Lamb(L.linear_lr_warmup(0.05, 3, 0.0, 0.05))),
    "Lookahead": minimized(lambda: O.LookaheadOptimizer(O.SGD(0.1), k=2)),
    "ModelAverage": averaged(lambda: O.ModelAverage(0.5, 2, 4)),
    "ExponentialMovingAverage": averaged(lambda: O.ExponentialMovingAverage(0.9)),
}


@pytest.mark.parametrize("name", EVERY)
def test_state_put_into_a_fresh_scope_goes_on_bit_for_bit_and_training_lowers_the_loss(name, fresh):
    main, startup, exe = fresh
    _, loss = regression()
    EVERY[name](loss)
    exe.run(startup)

    def train(steps):
        return [exe.run(main, feed=batch(), fetch_list=[loss])[0].item() for _ in range(steps)]

    first, *_ = train(20)
    saved = snapshot(main)
    *losses, last = train(3)
    expected = snapshot(main)

    assert last < 0.7 * first
    with fluid.scope_guard(fluid.Scope()):
        for variable, value in saved.items():
            fluid.global_scope().var(variable).get_tensor().set(value)
        assert train(3) == [*losses, last]
        for variable, value in snapshot(main).items():
            assert value.tobytes() == expected[variable].tobytes(), variable


def test_test_clone_has_nothing_of_training_wherever_minimize_was_called(fresh):
    main, startup, exe = fresh
    prediction, loss = regression()
    early = main.clone(for_test=True)
    clip = fluid.clip.GradientClipByGlobalNorm(0.5)
    decay = fluid.regularizer.L2Decay(0.1)
    fluid.optimizer.Adam(L.exponential_decay(0.1, 2, 0.5), regularization=decay, grad_clip=clip).minimize(loss)
    fluid.optimizer.ModelAverage(0.5, 2, 4)
    fluid.optimizer.ExponentialMovingAverage(0.9).update()

    late = main.clone(for_test=True)

    # What an average's constructor only declares no operator of the program names before update() or after a clone.
    assert [str(op) for op in late.all_ops()] == [str(op) for op in early.all_ops()]
    assert {p.name for p in late.all_parameters()} == {p.name for p in early.all_parameters()}
    exe.run(startup)
    before = snapshot(main)
    exe.run(late, feed=batch(), fetch_list=[prediction])
    assert all(np.array_equal(value, before[name]) for name, value in snapshot(main).items())


def test_roles_say_what_an_operator_is_for(fresh):
    main, _, _ = fresh
    _, loss = regression()
    forward = len(main.global_block().ops)

    made, pairs = fluid.optimizer.Momentum(L.noam_decay(16, 3), 0.9).minimize(loss)

    ops = main.global_block().ops
    assert ops[0].type == "increment"
    assert ops[0].role == OpRole.LRSched
    assert [op.type for op in made] == ["momentum"] * 4
    assert all(op.role == OpRole.Optimize for op in made)
    assert all(op.role & (OpRole.Backward | OpRole.Optimize | OpRole.LRSched) for op in ops[forward + 1 :])
    assert [p.name for p, _ in pairs] == ["fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_1.b_0"]
    assert [op.input("Param")[0] for op in made] == ["fc_0.b_0", "fc_0.w_0", "fc_1.b_0", "fc_1.w_0"]


def test_backward_and_apply_gradients_are_minimize(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    optimizer = fluid.optimizer.SGD(0.1)

    pairs = optimizer.backward(loss)
    halved = [(p, g * 0.5) for p, g in pairs]
    optimizer.apply_gradients(halved)

    exe.run(startup)
    before = held("fc_1.b_0")
    gradient = exe.run(main, feed=batch(), fetch_list=["fc_1.b_0@GRAD"])[0]
    np.testing.assert_allclose(held("fc_1.b_0"), before - 0.05 * gradient, rtol=1e-6)


def test_only_the_listed_parameters_change(fresh):
    main, startup, exe = fresh
    _, loss = regression()

    _, pairs = fluid.optimizer.SGD(0.1).minimize(
        loss, parameter_list=["fc_1.w_0", "fc_0.w_0"], no_grad_set={"fc_0.w_0"}
    )

    assert [p.name for p, _ in pairs] == ["fc_1.w_0"]
    exe.run(startup)
    before = snapshot(main)
    exe.run(main, feed=batch(), fetch_list=[loss])
    assert [n for n, v in snapshot(main).items() if not np.array_equal(v, before[n])] == ["fc_1.w_0"]


def test_parameter_list_of_the_optimizer_counts_too(fresh):
    _, loss = regression()

    _, pairs = fluid.optimizer.SGD(0.1, parameter_list=["fc_1.b_0"]).minimize(loss)

    assert [p.name for p, _ in pairs] == ["fc_1.b_0"]


def test_two_optimizers_of_one_program_do_not_share_what_they_remember(fresh):
    main, startup, exe = fresh
    _, loss = regression()

    fluid.optimizer.Adam(0.1).minimize(loss, parameter_list=["fc_0.w_0"])
    fluid.optimizer.Adam(0.2).minimize(loss, parameter_list=["fc_1.w_0", "fc_0.w_0"])

    names = {v.name for v in main.list_vars() if v.persistable}
    assert {
        "learning_rate_0",
        "learning_rate_1",
        "fc_0.w_0_moment1_0",
        "fc_0.w_0_moment1_1",
        "fc_1.w_0_moment1_0",
    } <= names
    exe.run(startup)
    exe.run(main, feed=batch(), fetch_list=[loss])
    assert [held(f"learning_rate_{i}").item() for i in range(2)] == pytest.approx([0.1, 0.2])


def test_one_optimizer_serves_programs_one_after_the_other():
    optimizer = fluid.optimizer.Momentum(0.1, 0.9)
    for _ in range(2):
        with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard():
            _, loss = regression()
            optimizer.minimize(loss)
            names = [v.name for v in loss.block.program.list_vars() if v.persistable]
            assert names[-2:] == ["fc_1.w_0_velocity_0", "learning_rate_0"]


def test_float64_programs_have_float64_state(fresh):
    main, startup, exe = fresh
    _, loss = regression("float64")
    fluid.optimizer.Adam(0.05).minimize(loss)
    exe.run(startup)

    exe.run(main, feed=batch(dtype="float64"), fetch_list=[loss])

    assert {v.dtype for v in snapshot(main).values()} == {np.dtype("float64")}
    assert held("fc_0.w_0_beta1_pow_acc_0") == pytest.approx(0.81, rel=1e-15)


def test_float32_programs_stay_float32(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    rate = L.polynomial_decay(0.1, 5, 0.01, 2.0)
    fluid.optimizer.Ftrl(rate, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0)).minimize(loss)
    exe.run(startup)

    values = exe.run(main, feed=batch(), fetch_list=[v for v in main.list_vars() if v.dtype.name == "FP32"])

    assert {v.dtype for v in values} == {np.dtype("float32")}


def test_learning_rate_may_be_a_variable_that_the_program_changes(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    rate = L.create_global_var([1], 0.0, "float32", persistable=True, name="rate")
    fluid.optimizer.SGD(rate).minimize(loss)
    exe.run(startup)
    before = snapshot(main)

    exe.run(main, feed=batch(), fetch_list=[loss])
    assert np.array_equal(held("fc_0.w_0"), before["fc_0.w_0"])
    fluid.global_scope().find_var("rate").get_tensor().set(np.array([0.1], "float32"))
    exe.run(main, feed=batch(), fetch_list=[loss])

    assert not np.array_equal(held("fc_0.w_0"), before["fc_0.w_0"])
    assert not main.global_block().has_var("learning_rate_0")


def test_betas_of_adam_may_be_variables(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    beta1 = L.create_global_var([1], 0.5, "float32", persistable=True, name="beta1")
    fluid.optimizer.Adam(0.05, beta1=beta1).minimize(loss)
    exe.run(startup)

    (gradient,) = exe.run(main, feed=batch(), fetch_list=["fc_1.b_0@GRAD"])

    np.testing.assert_allclose(held("fc_1.b_0_moment1_0"), 0.5 * gradient, rtol=1e-6)
    assert held("fc_1.b_0_beta1_pow_acc_0") == pytest.approx(0.45)


def test_grad_clip_of_minimize_is_for_that_call(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    fluid.optimizer.SGD(1.0).minimize(loss, grad_clip=fluid.clip.GradientClipByValue(1e-3))
    exe.run(startup)
    before = held("fc_1.b_0")

    exe.run(main, feed=batch(), fetch_list=[loss])

    assert np.abs(held("fc_1.b_0") - before).item() == pytest.approx(1e-3, rel=1e-4)


def test_lookahead_keeps_slow_parameters(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    fluid.optimizer.LookaheadOptimizer(fluid.optimizer.SGD(0.1), alpha=0.25, k=2).minimize(loss)
    exe.run(startup)
    slow = held("fc_1.w_0@SLOW")
    assert np.array_equal(slow, held("fc_1.w_0"))

    exe.run(main, feed=batch(), fetch_list=[loss])
    fast = held("fc_1.w_0")
    (gradient,) = exe.run(main, feed=batch(), fetch_list=["fc_1.w_0@GRAD"])

    expected = slow + 0.25 * (fast - 0.1 * gradient - slow)
    np.testing.assert_allclose(held("fc_1.w_0"), expected, rtol=1e-5)
    np.testing.assert_allclose(held("fc_1.w_0@SLOW"), expected, rtol=1e-5)


def test_recompute_trains_as_the_optimizer_inside(fresh):
    _main, _startup, _exe = fresh
    prediction, loss = regression()
    optimizer = fluid.optimizer.RecomputeOptimizer(fluid.optimizer.SGD(0.1))
    with pytest.raises(ValueError, match="_set_checkpoints"):
        optimizer.minimize(loss)
    optimizer._set_checkpoints([prediction])

    made, pairs = optimizer.minimize(loss)

    assert [op.type for op in made] == ["sgd"] * 4
    assert len(pairs) == 4


@pytest.mark.parametrize("name", ["DGCMomentumOptimizer", "Dpsgd", "DpsgdOptimizer", "PipelineOptimizer"])
def test_unplanned_names_can_be_had_but_not_called(name):
    with pytest.raises(NotImplementedError, match="not planned"):
        getattr(fluid.optimizer, name)(0.1)


def test_what_does_not_fit_is_refused(fresh):
    _, loss = regression()
    with pytest.raises(TypeError, match="learning_rate must be a number or a variable"):
        fluid.optimizer.SGD("0.1")
    with pytest.raises(TypeError, match="grad_clip must be a rule of fluid.clip"):
        fluid.optimizer.SGD(0.1, grad_clip=1.0)
    with pytest.raises(TypeError, match="grad_clip must be a rule of fluid.clip"):
        fluid.optimizer.SGD(0.1).minimize(loss, grad_clip=1.0)
    with pytest.raises(TypeError, match="regularization must be a rule"):
        fluid.optimizer.SGD(0.1, regularization=1e-4)
    with pytest.raises(TypeError, match="loss must be a variable"):
        fluid.optimizer.SGD(0.1).minimize(0.5)
    with pytest.raises(ValueError, match="alpha"):
        fluid.optimizer.LookaheadOptimizer(fluid.optimizer.SGD(0.1), alpha=1.5)
    with pytest.raises(ValueError, match="k must be a whole number"):
        fluid.optimizer.LookaheadOptimizer(fluid.optimizer.SGD(0.1), k=0)


def test_minimize_twice_is_refused_with_the_name_of_the_accumulator(fresh):
    _, loss = regression()
    optimizer = fluid.optimizer.Momentum(0.1, 0.9)
    optimizer.minimize(loss)

    with pytest.raises(ValueError, match="optimizes fc_0.b_0 already, and has fc_0.b_0_velocity_0"):
        optimizer.minimize(loss)


def test_loss_without_parameters_is_refused(fresh):
    x = L.data("x", [3])

    with pytest.raises(ValueError, match="depends on no trainable parameter"):
        fluid.optimizer.SGD(0.1).minimize(L.mean(x))


def test_schedule_of_another_program_is_refused(fresh):
    rate = L.noam_decay(16, 3)
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        _, loss = regression()

        with pytest.raises(ValueError, match="variable of another program"):
            fluid.optimizer.SGD(rate).minimize(loss)


def test_names_are_those_of_fluid():
    short = [
        "SGD",
        "Momentum",
        "LarsMomentum",
        "Adagrad",
        "Adam",
        "Adamax",
        "Dpsgd",
        "DecayedAdagrad",
        "Adadelta",
        "RMSProp",
        "Ftrl",
        "Lamb",
    ]
    for name in short:
        assert getattr(fluid.optimizer, name) is getattr(fluid.optimizer, f"{name}Optimizer")
