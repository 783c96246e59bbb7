"""Layers with parameters."""

from __future__ import annotations

import math
from typing import Any

from holdfast.fluid.framework import Variable
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
