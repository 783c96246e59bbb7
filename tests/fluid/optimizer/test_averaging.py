import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid.optimizer import SGD, ExponentialMovingAverage, ModelAverage

L = fluid.layers
X = {"x": np.ones((1, 2), "float32")}


def trained(fresh, make, steps):
    """Train a weight that falls by 0.5 a step from 1; returns the average and the weights after each step."""
    main, startup, exe = fresh
    one = fluid.initializer.Constant(1.0)
    loss = L.mean(L.fc(L.data("x", [2]), 1, param_attr=fluid.ParamAttr(initializer=one), bias_attr=False))
    SGD(0.5).minimize(loss)
    average = make()
    exe.run(startup)
    weights = []
    for _ in range(steps):
        exe.run(main, feed=X)
        weights.append(weight())
    return average, weights


def weight():
    return np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())[0, 0].item()


def moving(decay=0.5, **kwargs):
    def make():
        average = ExponentialMovingAverage(decay, **kwargs)
        average.update()
        return average

    return make


def test_mean_is_of_a_window(fresh):
    average, weights = trained(fresh, lambda: ModelAverage(1.0, min_average_window=3, max_average_window=3), 5)

    with average.apply(fresh[2]):
        # The window before of three steps, and the two of this one.
        assert weight() == pytest.approx(np.mean(weights))

    assert weight() == weights[-1]


def test_moving_average_is_corrected_for_its_zero_start_each_time_the_same(fresh):
    average, weights = trained(fresh, moving(), 3)
    parts = np.array([0.125, 0.25, 0.5])

    for _ in range(2):
        with average.apply(fresh[2]):
            assert weight() == pytest.approx((parts * weights).sum() / parts.sum())
        assert weight() == weights[-1]


@pytest.mark.parametrize("make", [lambda: ModelAverage(1.0, 2, 3), moving()])
def test_before_the_first_step_the_parameters_stand_for_their_average(make, fresh):
    average, _ = trained(fresh, make, 0)

    with average.apply(fresh[2]):
        assert weight() == 1.0


def test_decay_of_few_steps_is_small(fresh):
    def make():
        steps = L.create_global_var([1], 4, "int64", persistable=True, name="steps")
        return moving(0.9, thres_steps=steps)()

    average, weights = trained(fresh, make, 1)

    rate = np.array(fluid.global_scope().find_var("scheduled_ema_decay_rate").get_tensor())
    assert rate == pytest.approx(5 / 14)
    with average.apply(fresh[2]):
        assert weight() == pytest.approx(weights[0])


def test_averages_stay_until_restore(fresh):
    average, weights = trained(fresh, moving(), 2)

    with average.apply(fresh[2], need_restore=False):
        inside = weight()
    assert weight() == inside != weights[-1]
    average.restore(fresh[2])

    assert weight() == weights[-1]
    with pytest.raises(RuntimeError, match="has put away nothing"):
        average.restore(fresh[2])


def test_parameters_come_back_after_an_error_inside(fresh):
    average, weights = trained(fresh, lambda: ModelAverage(1.0, 2, 3), 2)

    with pytest.raises(KeyError), average.apply(fresh[2]):
        raise KeyError

    assert weight() == weights[-1]


def test_loaded_parameters_are_exchanged_and_still_count_as_loaded(fresh):
    average, _ = trained(fresh, moving(), 2)
    variable = fluid.global_scope().find_var("fc_0.w_0")
    variable.loaded_from = "checkpoint_3"

    with average.apply(fresh[2]):
        pass

    assert variable.loaded_from == "checkpoint_3"


def test_only_parameters_that_take_part_are_averaged(fresh):
    attr = fluid.ParamAttr(do_model_average=False)
    SGD(0.1).minimize(L.mean(L.fc(L.data("x", [2]), 1, param_attr=attr)))

    ModelAverage(1.0, 2, 3)

    names = [v.name for v in fresh[0].list_vars()]
    assert "fc_0.b_0_sum_1_0" in names
    assert "fc_0.w_0_sum_1_0" not in names


def test_what_does_not_fit_is_refused(fresh):
    average, _ = trained(fresh, moving(), 0)
    with pytest.raises(RuntimeError, match="update"):
        average.update()
    with pytest.raises(
        ValueError, match="min_average_window=10000 must be above 0, and not above max_average_window=100"
    ):
        ModelAverage(0.1, max_average_window=100)
