"""Small training programs that real Fluid 1.8.5 and this package both build; written for either, so `fluid` is an argument.

Each case takes (fluid, loss, parameter attributes are in `ATTRS`) and adds what trains the network.
"""

import numpy as np

STEPS = 6


def feeds():
    """What every step is fed."""
    rng = np.random.RandomState(3)
    for _ in range(STEPS):
        x = rng.randn(5, 3).astype("float32")
        yield {"x": x, "y": (x.dot(np.ones((3, 2), "float32")) + rng.randn(5, 2) * 0.1).astype("float32")}


def network(fluid, case):
    """The loss of a linear model, whose weight and bias have the attributes that a case asks for."""
    x = fluid.layers.data("x", [3], dtype="float32")
    y = fluid.layers.data("y", [2], dtype="float32")
    weight, bias = ATTRS.get(case, lambda fluid: (None, None))(fluid)
    prediction = fluid.layers.fc(x, 2, param_attr=weight, bias_attr=bias)
    return fluid.layers.mean(fluid.layers.square_error_cost(prediction, y))


ATTRS = {
    "factors": lambda fluid: (fluid.ParamAttr(learning_rate=0.5), fluid.ParamAttr(learning_rate=2.0)),
    "own_decay": lambda fluid: (fluid.ParamAttr(regularizer=fluid.regularizer.L1Decay(0.05)), None),
    "frozen": lambda fluid: (None, fluid.ParamAttr(trainable=False)),
}


def _rule(make):
    return lambda fluid, loss: make(fluid).minimize(loss)


def _schedule(make):
    def case(fluid, loss):
        rate = make(fluid.layers)
        fluid.optimizer.SGD(rate).minimize(loss)
        return rate

    return case


def _clip_set(fluid, loss):
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(0.5))
    fluid.optimizer.SGD(0.1).minimize(loss)


def _model_average(fluid, loss):
    fluid.optimizer.Momentum(0.05, 0.9).minimize(loss)
    return fluid.optimizer.ModelAverage(0.5, min_average_window=2, max_average_window=4)


def _moving_average(fluid, loss):
    fluid.optimizer.SGD(0.1).minimize(loss)
    average = fluid.optimizer.ExponentialMovingAverage(0.7)
    average.update()
    return average


def _lookahead(fluid, loss):
    fluid.optimizer.LookaheadOptimizer(fluid.optimizer.SGD(0.1), alpha=0.4, k=3).minimize(loss)


RULES = {
    "sgd": _rule(lambda f: f.optimizer.SGD(0.1)),
    "momentum": _rule(lambda f: f.optimizer.Momentum(0.1, 0.9)),
    "nesterov": _rule(lambda f: f.optimizer.MomentumOptimizer(0.1, 0.9, use_nesterov=True)),
    "lars": _rule(lambda f: f.optimizer.LarsMomentum(0.5, 0.9, lars_coeff=0.1, lars_weight_decay=0.01)),
    "adam": _rule(lambda f: f.optimizer.Adam(0.1, beta1=0.8, beta2=0.9, epsilon=1e-3)),
    "adam_lazy": _rule(lambda f: f.optimizer.AdamOptimizer(0.1, lazy_mode=True)),
    "adam_named": _rule(lambda f: f.optimizer.Adam(0.1, name="mine")),
    "adamax": _rule(lambda f: f.optimizer.Adamax(0.1, beta1=0.8, beta2=0.9, epsilon=1e-3)),
    "adagrad": _rule(lambda f: f.optimizer.Adagrad(0.1, epsilon=1e-3, initial_accumulator_value=0.1)),
    "decayed_adagrad": _rule(lambda f: f.optimizer.DecayedAdagrad(0.1, decay=0.8, epsilon=1e-3)),
    "adadelta": _rule(lambda f: f.optimizer.Adadelta(0.1, epsilon=1e-3, rho=0.8)),
    "rmsprop": _rule(lambda f: f.optimizer.RMSPropOptimizer(0.1, rho=0.8, epsilon=1e-3, momentum=0.5)),
    "rmsprop_centered": _rule(lambda f: f.optimizer.RMSPropOptimizer(0.1, rho=0.8, epsilon=1e-3, centered=True)),
    "ftrl": _rule(lambda f: f.optimizer.Ftrl(0.1, l1=0.02, l2=0.02)),
    "ftrl_power": _rule(lambda f: f.optimizer.FtrlOptimizer(0.1, l1=0.02, l2=0.02, lr_power=-0.4)),
    "lamb": _rule(lambda f: f.optimizer.LambOptimizer(0.1, lamb_weight_decay=0.02)),
    "lamb_excluding": _rule(
        lambda f: f.optimizer.LambOptimizer(0.1, exclude_from_weight_decay_fn=lambda p: p.name.endswith("b_0"))
    ),
    "factors": _rule(lambda f: f.optimizer.Momentum(0.1, 0.9)),
    "frozen": _rule(lambda f: f.optimizer.Adam(0.1)),
    "own_decay": _rule(lambda f: f.optimizer.SGD(0.1, regularization=f.regularizer.L2Decay(0.1))),
    "l1_decay": _rule(lambda f: f.optimizer.Adam(0.1, regularization=f.regularizer.L1DecayRegularizer(0.1))),
    "clip_value": _rule(lambda f: f.optimizer.SGD(0.1, grad_clip=f.clip.GradientClipByValue(0.3, -0.1))),
    "clip_norm": _rule(lambda f: f.optimizer.SGD(0.1, grad_clip=f.clip.GradientClipByNorm(0.4))),
    "clip_global": _rule(
        lambda f: f.optimizer.SGD(
            0.1, grad_clip=f.clip.GradientClipByGlobalNorm(0.5), regularization=f.regularizer.L2Decay(0.1)
        )
    ),
    "clip_set": _clip_set,
    "lookahead": _lookahead,
}

AVERAGES = {"model_average": _model_average, "moving_average": _moving_average}

SCHEDULES = {
    "exponential": _schedule(lambda layers: layers.exponential_decay(0.1, 3, 0.5)),
    "exponential_stairs": _schedule(lambda layers: layers.exponential_decay(0.1, 3, 0.5, staircase=True)),
    "natural_exp": _schedule(lambda layers: layers.natural_exp_decay(0.1, 3, 0.5)),
    "natural_exp_stairs": _schedule(lambda layers: layers.natural_exp_decay(0.1, 3, 0.5, staircase=True)),
    "inverse_time": _schedule(lambda layers: layers.inverse_time_decay(0.1, 3, 0.5)),
    "inverse_time_stairs": _schedule(lambda layers: layers.inverse_time_decay(0.1, 3, 0.5, staircase=True)),
    "polynomial": _schedule(lambda layers: layers.polynomial_decay(0.1, 4, 0.01, power=2.0)),
    "polynomial_cycle": _schedule(lambda layers: layers.polynomial_decay(0.1, 2, 0.01, power=1.0, cycle=True)),
    "piecewise": _schedule(lambda layers: layers.piecewise_decay([2, 4], [0.1, 0.05, 0.01])),
    "noam": _schedule(lambda layers: layers.noam_decay(16, 3)),
    "noam_scaled": _schedule(lambda layers: layers.noam_decay(16, 3, learning_rate=0.5)),
    "cosine": _schedule(lambda layers: layers.cosine_decay(0.1, 2, 4)),
    "warmup": _schedule(lambda layers: layers.linear_lr_warmup(0.1, 3, 0.01, 0.07)),
    "warmup_piecewise": _schedule(
        lambda layers: layers.linear_lr_warmup(layers.piecewise_decay([4, 5], [0.1, 0.05, 0.01]), 3, 0.0, 0.1)
    ),
}
