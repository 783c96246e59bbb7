"""Fully connected layers, dropout, and what else makes vectors of vectors."""

from __future__ import annotations

import math
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper


def fc(
    input: Any,
    size: int,
    num_flatten_dims: int = 1,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: str | None = None,
    name: str | None = None,
) -> Variable:
    """A fully connected layer: inputs times weights, added up, plus a bias, and an activation.

    Args:
        input: a variable or several, each with a weight of its own.
        size: of the output.
        num_flatten_dims: how many of the first dimensions stay; the others are joined to one.
        param_attr, bias_attr: see `ParamAttr`; `bias_attr=False` for no bias.
        act: name of an activation.
        name: key of the names; `fc_0`, `fc_1`, … if None.
    """
    helper = LayerHelper("fc", input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    dtype = helper.input_dtype()
    products = []
    for variable, attr in helper.iter_inputs_and_params():
        dims = num_flatten_dims if num_flatten_dims >= 0 else len(variable.shape) + num_flatten_dims
        weight = helper.create_parameter(attr, [math.prod(variable.shape[dims:]), size], dtype)
        products.append(
            helper.op("mul", {"X": [variable], "Y": [weight]}, {"x_num_col_dims": dims, "y_num_col_dims": 1})
        )
    total = products[0] if len(products) == 1 else helper.op("sum", {"X": products})
    return helper.append_activation(helper.append_bias_op(total, dim_start=num_flatten_dims))


def dropout(
    x: Variable,
    dropout_prob: float,
    is_test: bool = False,
    seed: int | None = None,
    name: str | None = None,
    dropout_implementation: str = "downgrade_in_infer",
) -> Variable:
    """Values are zero with a probability in training; `clone(for_test=True)` lets all through.

    Args:
        x: any shape.
        dropout_prob: the probability.
        is_test: as in a program for tests.
        seed: draw the same in every run; None or 0 for other numbers in each, which follow from the seed of the startup program.
        name: key of the names.
        dropout_implementation: `"downgrade_in_infer"`: a program for tests multiplies by `1 - dropout_prob`;
            `"upscale_in_train"`: training divides what stays by it.
    """
    if dropout_implementation not in ("downgrade_in_infer", "upscale_in_train"):
        raise ValueError(
            f"dropout_implementation must be 'downgrade_in_infer' or 'upscale_in_train', not {dropout_implementation!r}"
        )
    if not 0 <= dropout_prob <= 1:
        raise ValueError(f"dropout_prob must be from 0 to 1, not {dropout_prob!r}")
    helper = LayerHelper("dropout", name=name)
    out = helper.create_variable_for_type_inference(x.dtype)
    mask = helper.create_variable_for_type_inference("uint8", stop_gradient=True)
    attrs = {
        "dropout_prob": dropout_prob,
        "is_test": is_test,
        "fix_seed": seed is not None,
        "seed": seed or 0,
        "dropout_implementation": dropout_implementation,
    }
    helper.append_op("dropout", {"X": [x]}, {"Out": [out], "Mask": [mask]}, attrs)
    return out


def topk(input: Variable, k: Any, name: str | None = None) -> tuple[Variable, Variable]:
    """The `k` greatest values of every row, the greatest first, and where they stand.

    Args:
        input: any shape; rows are its last dimension.
        k: a number; not a variable, as XLA compiles for one size.
        name: key of the names.

    Returns:
        Values (..., k) and indices int64 (..., k); gradients stop at both, as in Fluid.
    """
    if isinstance(k, Variable):
        raise NotImplementedError("topk: a k that is a variable gives another shape in every run; give a number")
    helper = LayerHelper("top_k", name=name)
    values = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    indices = helper.create_variable_for_type_inference("int64", stop_gradient=True)
    helper.append_op("top_k", {"X": [input]}, {"Out": [values], "Indices": [indices]}, {"k": k})
    return values, indices


def prelu(x: Variable, mode: str, param_attr: Any = None, name: str | None = None) -> Variable:
    """Values below zero times a learned slope, 0.25 at first.

    Args:
        x: (batch, channels, ...).
        mode: `"all"`: one slope; `"channel"`: one for each channel; `"element"`: one for each element of a sample.
        param_attr: of the slopes; see `ParamAttr`.
        name: key of the names.
    """
    shapes = {"all": [1], "channel": [1, *x.shape[1:2], 1, 1], "element": [1, *x.shape[1:]]}
    if mode not in shapes:
        raise ValueError(f"mode must be 'all', 'channel' or 'element', not {mode!r}")
    if mode == "channel" and len(x.shape) < 2:
        raise ValueError(f"prelu by channels needs at least two dimensions, but the shape is {list(x.shape)}")
    helper = LayerHelper("prelu", param_attr=param_attr, name=name)
    # Fluid's slopes are float32 whatever the input is; with float64 ones a float64 program stays one.
    alpha = helper.create_parameter(helper.param_attr, shapes[mode], x.dtype, default_initializer=Constant(0.25))
    return helper.op("prelu", {"X": [x], "Alpha": [alpha]}, {"mode": mode}, dtype=x.dtype)


def cos_sim(X: Variable, Y: Variable) -> Variable:
    """The cosine of the angle between rows, (batch, 1).

    Args:
        X: (batch, size).
        Y: the same, or (1, size) for all rows.
    """
    helper = LayerHelper("cos_sim")
    out, x_norm, y_norm = (helper.create_variable_for_type_inference(X.dtype) for _ in range(3))
    helper.append_op("cos_sim", {"X": [X], "Y": [Y]}, {"Out": [out], "XNorm": [x_norm], "YNorm": [y_norm]})
    return out


def bilinear_tensor_product(
    x: Variable,
    y: Variable,
    size: int,
    act: str | None = None,
    name: str | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
) -> Variable:
    """`x W_k y + b_k` for `size` matrices.

    Args:
        x, y: (batch, size of x), (batch, size of y).
        size: number of matrices.
        act: name of an activation.
        name: key of the names.
        param_attr, bias_attr: of the matrices `.w_0` and the bias `.b_0`; see `ParamAttr`.
    """
    helper = LayerHelper("bilinear_tensor_product", param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    weight = helper.create_parameter(helper.param_attr, [size, x.shape[1], y.shape[1]], x.dtype)
    out = helper.create_variable_for_type_inference(x.dtype)
    inputs: dict[str, Any] = {"X": [x], "Y": [y], "Weight": [weight]}
    if helper.bias_attr is not False:
        inputs["Bias"] = [helper.create_parameter(helper.bias_attr, [1, size], x.dtype, is_bias=True)]
    helper.append_op("bilinear_tensor_product", inputs, {"Out": [out]})
    return helper.append_activation(out)


def add_position_encoding(input: Variable, alpha: float, beta: float, name: str | None = None) -> Variable:
    """`alpha * input` plus `beta` times sines and cosines of the position, for (batch, length, even size)."""
    attrs = {"alpha": alpha, "beta": beta}
    helper = LayerHelper("add_position_encoding", name=name)
    return helper.op("add_position_encoding", {"X": [input]}, attrs, dtype=input.dtype)
