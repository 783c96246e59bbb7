"""Small programs for tests of the core."""

import numpy as np

import holdfast.fluid as fluid
from holdfast.fluid.framework import OpRole
from holdfast.fluid.layer_helper import LayerHelper


def square_error(prediction, label):
    helper = LayerHelper("square_error")
    difference = helper.op("elementwise_sub", {"X": [prediction], "Y": [label]})
    return fluid.layers.mean(helper.op("square", {"X": [difference]}))


def regression(width=8):
    """Two layers on x (4 columns) for y (1 column); returns (prediction, loss)."""
    x, y = fluid.layers.data("x", [4]), fluid.layers.data("y", [1])
    hidden = fluid.layers.fc(x, width, act="tanh")
    prediction = fluid.layers.fc(hidden, 1)
    return prediction, square_error(prediction, y)


def descend(loss, rate=0.1):
    """Plain gradient descent, from the operators themselves."""
    main = loss.block.program
    pairs = fluid.append_backward(loss)
    helper = LayerHelper("rate")
    learning_rate = helper.create_global_variable(True, name="learning_rate_0", shape=[1], dtype="float32")
    helper.set_variable_initializer(learning_rate, fluid.initializer.Constant(rate))
    with main.op_role_guard(OpRole.Optimize):
        for parameter, gradient in pairs:
            main.global_block().append_op(
                "sgd",
                {"Param": [parameter], "Grad": [gradient], "LearningRate": [learning_rate]},
                {"ParamOut": [parameter]},
            )
    return pairs


def batch(rows=16, seed=0):
    x = np.random.RandomState(seed).randn(rows, 4).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


def values(program, scope=None):
    """Copies of every persistable's value."""
    scope = scope or fluid.global_scope()
    return {v.name: np.array(scope.find_var(v.name).get_tensor()) for v in program.list_vars() if v.persistable}
