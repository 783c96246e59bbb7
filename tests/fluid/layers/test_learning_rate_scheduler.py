import numpy as np
import pytest

import holdfast.fluid as fluid

L = fluid.layers
STEP = np.arange(9.0)
PART = STEP / 3


def cycled(step, steps):
    return steps * np.maximum(np.ceil(step / steps), 1)


# Of every schedule: the layers, and the rate of each step by its formula.
SCHEDULES = {
    "exponential": (lambda: L.exponential_decay(0.1, 3, 0.5), 0.1 * 0.5**PART),
    "exponential_stairs": (lambda: L.exponential_decay(0.1, 3, 0.5, staircase=True), 0.1 * 0.5 ** np.floor(PART)),
    "natural_exp": (lambda: L.natural_exp_decay(0.1, 3, 0.5), 0.1 * np.exp(-0.5 * PART)),
    "inverse_time_stairs": (lambda: L.inverse_time_decay(0.1, 3, 0.5, True), 0.1 / (1 + 0.5 * np.floor(PART))),
    "polynomial": (
        lambda: L.polynomial_decay(0.1, 4, 0.01, power=2.0),
        0.09 * (1 - np.minimum(STEP, 4) / 4) ** 2 + 0.01,
    ),
    "polynomial_cycle": (
        lambda: L.polynomial_decay(0.1, 3, 0.01, cycle=True),
        0.09 * (1 - STEP / cycled(STEP, 3)) + 0.01,
    ),
    "piecewise": (lambda: L.piecewise_decay([3, 6], [0.1, 0.05, 0.01]), np.repeat([0.1, 0.05, 0.01], 3)),
    "noam": (
        lambda: L.noam_decay(16, 4, 2.0),
        2 * 16**-0.5 * np.minimum((STEP + 1) ** -0.5, (STEP + 1) * 4**-1.5),
    ),
    "cosine": (lambda: L.cosine_decay(0.1, 2, 5), 0.05 * (np.cos(np.floor(STEP / 2) * np.pi / 5) + 1)),
    "warmup": (lambda: L.linear_lr_warmup(0.1, 4, 0.02, 0.1), np.where(STEP < 4, 0.02 + 0.08 * STEP / 4, 0.1)),
    "warmup_of_a_schedule": (
        lambda: L.linear_lr_warmup(L.exponential_decay(0.1, 3, 0.5), 4, 0.0, 0.1),
        np.where(STEP < 4, 0.1 * STEP / 4, 0.1 * 0.5**PART),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rate_follows_its_formula(name, fresh):
    main, startup, exe = fresh
    make, expected = SCHEDULES[name]
    rate = make()
    exe.run(startup)

    found = [exe.run(main, fetch_list=[rate])[0] for _ in STEP]

    assert {(v.dtype.name, v.shape) for v in found} == {("float32", (1,))}
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-6)


def test_counter_moves_in_every_run_of_the_program_and_in_no_test_clone(fresh):
    main, startup, exe = fresh
    x = L.data("x", [2])
    out = L.fc(x, 1)
    fluid.optimizer.SGD(L.exponential_decay(0.1, 3, 0.5)).minimize(L.mean(out))
    test = main.clone(for_test=True)
    exe.run(startup)
    feed = {"x": np.ones((1, 2), "float32")}
    counter = fluid.global_scope().find_var("@LR_DECAY_COUNTER@")
    values = [np.array(counter.get_tensor()).item()]

    for program in (main, test, main):
        exe.run(program, feed=feed)
        values.append(np.array(counter.get_tensor()).item())

    assert values == [-1, 0, 0, 1]
    assert np.array(counter.get_tensor()).dtype == np.int64
    assert not test.global_block().has_var("@LR_DECAY_COUNTER@")


@pytest.mark.parametrize("name", ["piecewise", "warmup"])
def test_loaded_rate_is_no_hindrance_to_the_next_run(name, fresh):
    main, startup, exe = fresh
    rate = SCHEDULES[name][0]()
    exe.run(startup)
    for variable in main.list_vars():
        if variable.persistable:
            fluid.global_scope().find_var(variable.name).loaded_from = "checkpoint_3"

    (first,) = exe.run(main, fetch_list=[rate])

    assert first == pytest.approx(SCHEDULES[name][1][0])


def test_boundaries_and_values_must_fit(fresh):
    with pytest.raises(ValueError, match="2 boundaries need 3 values, not 2"):
        L.piecewise_decay([1, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="boundaries must rise"):
        L.piecewise_decay([2, 1], [0.1, 0.2, 0.3])
