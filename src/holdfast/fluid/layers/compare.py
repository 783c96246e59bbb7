"""Comparisons and logic; what they give is bool, and gradients stop there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def _compared(
    type: str, x: Variable, y: Variable, cond: Variable | None, attrs: dict[str, Any] | None = None
) -> Variable:
    helper = LayerHelper(type)
    if cond is None:
        cond = helper.create_variable_for_type_inference("bool", stop_gradient=True)
    helper.append_op(type, {"X": [x], "Y": [y]}, {"Out": [cond]}, attrs)
    return cond


def _comparison(type: str, sign: str) -> Callable[..., Variable]:
    def layer(x: Variable, y: Variable, cond: Variable | None = None) -> Variable:
        return _compared(type, x, y, cond)

    layer.__name__ = layer.__qualname__ = type
    layer.__doc__ = f"`x {sign} y`, element by element; put into `cond` if that is given."
    return layer


def less_than(x: Variable, y: Variable, force_cpu: bool | None = None, cond: Variable | None = None) -> Variable:
    """`x < y`, element by element; put into `cond` if that is given."""
    return _compared("less_than", x, y, cond, None if force_cpu is None else {"force_cpu": force_cpu})


less_equal = _comparison("less_equal", "<=")
greater_than = _comparison("greater_than", ">")
greater_equal = _comparison("greater_equal", ">=")
equal = _comparison("equal", "==")
not_equal = _comparison("not_equal", "!=")


def elementwise_equal(x: Variable, y: Variable, name: str | None = None) -> Variable:
    """`x == y`, element by element."""
    helper = LayerHelper("elementwise_equal", name=name)
    out = helper.create_variable_for_type_inference("bool", stop_gradient=True)
    helper.append_op("equal", {"X": [x], "Y": [y]}, {"Out": [out]})
    return out


def _logic(type: str, what: str) -> Callable[..., Variable]:
    def layer(x: Variable, y: Variable, out: Variable | None = None, name: str | None = None) -> Variable:
        helper = LayerHelper(type, name=name)
        if out is None:
            return helper.op(type, {"X": [x], "Y": [y]}, dtype=x.dtype)
        helper.append_op(type, {"X": [x], "Y": [y]}, {"Out": [out]})
        return out

    layer.__name__ = layer.__qualname__ = type
    layer.__doc__ = f"{what}, element by element; put into `out` if that is given."
    return layer


logical_and = _logic("logical_and", "Whether both hold")
logical_or = _logic("logical_or", "Whether one of them holds, or both")
logical_xor = _logic("logical_xor", "Whether just one of them holds")


def logical_not(x: Variable, out: Variable | None = None, name: str | None = None) -> Variable:
    """The opposite of each element; put into `out` if that is given."""
    helper = LayerHelper("logical_not", name=name)
    if out is None:
        return helper.op("logical_not", {"X": [x]}, dtype=x.dtype)
    helper.append_op("logical_not", {"X": [x]}, {"Out": [out]})
    return out


def allclose(
    input: Variable,
    other: Variable,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
    name: str | None = None,
) -> Variable:
    """Whether two tensors are nearly equal, shape [1]."""
    attrs = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan}
    return LayerHelper("allclose", name=name).op("allclose", {"Input": [input], "Other": [other]}, attrs, dtype="bool")


def is_empty(x: Variable, cond: Variable | None = None) -> Variable:
    """Whether a tensor has no elements, shape [1]; put into `cond` if that is given."""
    helper = LayerHelper("is_empty")
    if cond is None:
        cond = helper.create_variable_for_type_inference("bool", stop_gradient=True)
    helper.append_op("is_empty", {"X": [x]}, {"Out": [cond]})
    return cond


def has_inf(x: Variable) -> Variable:
    """Whether any element is infinite, shape [1]."""
    return LayerHelper("isinf").op("isinf", {"X": [x]})


def has_nan(x: Variable) -> Variable:
    """Whether any element is not a number, shape [1]."""
    return LayerHelper("isnan").op("isnan", {"X": [x]})


def isfinite(x: Variable) -> Variable:
    """Whether every element is finite, shape [1]."""
    return LayerHelper("isfinite").op("isfinite", {"X": [x]}, dtype="bool")
