"""The operators of updates against optax, where both have the same rule: in float64, and with epsilon where that is alike."""

import jax
import numpy as np
import optax
import pytest

from holdfast.fluid import registry

SHAPE = (3, 2)


def gradients(steps=6):
    rng = np.random.default_rng(5)
    return [rng.standard_normal(SHAPE) for _ in range(steps)]


def start():
    return np.random.default_rng(6).standard_normal(SHAPE)


def by_optax(rule):
    parameter = start()
    state = rule.init(parameter)
    for gradient in gradients():
        update, state = rule.update(gradient, state, parameter)
        parameter = optax.apply_updates(parameter, update)
    return np.asarray(parameter)


def by_operator(type, rate, states, **attrs):
    """Run an operator; states are (slot, output slot or None, start)."""
    definition = registry.find(type)
    held = {slot: np.full(SHAPE if not scalar else (1,), value) for slot, (value, scalar, _) in states.items()}
    held |= {"Param": start(), "LearningRate": np.array([rate])}
    for gradient in gradients():
        held["Grad"] = gradient
        results = registry.call(definition, [held.get(slot.name) for slot in definition.inputs], attrs, None)
        given = {slot.name: result for slot, result in zip(definition.outputs, results, strict=True)}
        held["Param"] = given["ParamOut"]
        for slot, (_, _, change) in states.items():
            held[slot] = given[f"{slot}Out"] if change is None else held[slot] * change
    assert held["Param"].dtype == np.float64
    return np.asarray(held["Param"])


def whole(value=0.0):
    return value, False, None


MOMENTS = {"Moment1": whole(), "Moment2": whole(), "Beta1Pow": (0.8, True, None), "Beta2Pow": (0.9, True, None)}
SAME = {
    "sgd": (("sgd", 0.1, {}, {}), lambda: optax.sgd(0.1)),
    "momentum": (("momentum", 0.1, {"Velocity": whole()}, {"mu": 0.9}), lambda: optax.sgd(0.1, 0.9)),
    "nesterov": (
        ("momentum", 0.1, {"Velocity": whole()}, {"mu": 0.9, "use_nesterov": True}),
        lambda: optax.sgd(0.1, 0.9, nesterov=True),
    ),
    "adam": (
        ("adam", 0.1, MOMENTS, {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.0}),
        lambda: optax.adam(0.1, 0.8, 0.9, eps=0.0),
    ),
    "adamax": (
        ("adamax", 0.1, {"Moment": whole(), "InfNorm": whole(), "Beta1Pow": (0.8, True, 0.8)},
         {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.0}),
        lambda: optax.adamax(0.1, 0.8, 0.9, eps=0.0),
    ),
    "adagrad": (
        ("adagrad", 0.1, {"Moment": whole(0.1)}, {"epsilon": 0.0}),
        lambda: optax.adagrad(0.1, initial_accumulator_value=0.1, eps=0.0),
    ),
    "decayed_adagrad": (
        ("decayed_adagrad", 0.1, {"Moment": whole()}, {"decay": 0.8, "epsilon": 1e-3}),
        lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3, eps_in_sqrt=False),
    ),
    "rmsprop": (
        ("rmsprop", 0.1, {"Moment": whole(), "MeanSquare": whole(), "MeanGrad": whole()},
         {"decay": 0.8, "epsilon": 1e-3, "momentum": 0.5}),
        lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3, momentum=0.5),
    ),
    "rmsprop_centered": (
        ("rmsprop", 0.1, {"Moment": whole(), "MeanSquare": whole(), "MeanGrad": whole()},
         {"decay": 0.8, "epsilon": 1e-3, "centered": True}),
        lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3, centered=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_update_is_optax_s(name):
    arguments, rule = SAME[name]

    with jax.enable_x64(True):
        np.testing.assert_allclose(by_operator(*arguments[:3], **arguments[3]), by_optax(rule()), rtol=1e-12)


def test_ftrl_makes_parameters_zero_that_l1_outweighs():
    parameter, grad = np.array([0.0, 0.0]), np.array([0.05, 5.0])

    with jax.enable_x64(True):
        made, _, linear = registry.find("ftrl").fn(
            parameter, grad, np.zeros(2), np.zeros(2), np.array([0.1]), l1=0.1, l2=0.3
        )

    np.testing.assert_allclose(linear, grad)
    # -(linear - l1) / (sqrt(sum of squares) / rate + 2 * l2)
    np.testing.assert_allclose(made, [0.0, -(5.0 - 0.1) / (5.0 / 0.1 + 0.6)], rtol=1e-8)


def test_average_moves_its_sum_on_before_that_gets_too_long():
    zero, one, two = np.zeros(1), np.ones(1), np.full(1, 2.0)
    count, updates = np.array([16383]), np.array([16383])
    attrs = {"average_window": 0.5, "min_average_window": 10**6, "max_average_window": 10**6}

    with jax.enable_x64(True):
        found = registry.find("average_accumulates").fn(one, two, zero, zero, count, 0 * count, updates, **attrs)

    assert [np.asarray(v).item() for v in found] == [0.0, 3.0, 0.0, 16384, 0, 16384]


@pytest.mark.parametrize("type", ["lamb", "lars_momentum"])
def test_zero_parameter_is_no_division_by_zero(type):
    fn, zero, grad, rate = registry.find(type).fn, np.zeros(2), np.ones(2), np.array([0.1])

    with jax.enable_x64(True):
        if type == "lamb":
            made = fn(zero, grad, rate, zero, zero, None, None, epsilon=0.0, weight_decay=0.0)[0]
            expected = -0.1 * (0.1 / np.sqrt(0.001))
        else:
            made, expected = fn(zero, grad, zero, rate, mu=0.9)[0], -0.1

    np.testing.assert_allclose(made, [expected] * 2, rtol=1e-6)
