"""Numbers that layers accept as variables too: shapes, starts and ends."""

from __future__ import annotations

from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def add_numbers(
    helper: LayerHelper,
    inputs: dict[str, Any],
    attrs: dict[str, Any],
    values: Any,
    attr: str,
    tensor_slot: str,
    list_slot: str,
    *,
    as_layer: bool = False,
) -> list[int]:
    """Put a list of numbers where the operator wants it: an attribute, or input slots if variables are among them.

    Args:
        helper: the layer's.
        inputs, attrs: of the operator; they are added to.
        values: a variable, or a list of numbers and variables.
        attr: name of the attribute.
        tensor_slot: the slot for a variable that holds all of them.
        list_slot: the slot for a variable each.
        as_layer: whether numbers among variables are named as `fill_constant` layers, not as the layer's temporaries.

    Returns:
        The numbers, -1 for what only a variable says.
    """
    if isinstance(values, Variable):
        values.stop_gradient = True
        inputs[tensor_slot] = [values]
        return [-1] * int(values.shape[0])
    numbers = [-1 if isinstance(v, Variable) else int(v) for v in values]
    attrs[attr] = numbers
    if any(isinstance(v, Variable) for v in values):
        inputs[list_slot] = [
            v if isinstance(v, Variable) else _constant(LayerHelper("fill_constant") if as_layer else helper, int(v))
            for v in values
        ]
        for value in values:
            if isinstance(value, Variable):
                value.stop_gradient = True
    return numbers


def _constant(helper: LayerHelper, value: int) -> Variable:
    out = helper.create_variable_for_type_inference("int32", stop_gradient=True)
    attrs = {"shape": [1], "dtype": int(out.dtype), "value": float(value), "str_value": str(value), "force_cpu": True}
    helper.append_op("fill_constant", {}, {"Out": [out]}, attrs)
    return out


def say(variable: Variable, shape: Any, dtype: Any = None) -> Variable:
    """Say what is known of a variable whose shape could not be inferred."""
    if variable.shape is None:
        variable.shape = tuple(shape)
    if variable.dtype is None and dtype is not None:
        variable.dtype = dtype
    return variable
