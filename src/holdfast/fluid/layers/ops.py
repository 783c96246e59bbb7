"""Functions of each element: activations, roots, roundings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from holdfast.fluid.checks import HazardWarning
from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def _unary(type: str, what: str) -> Callable[..., Variable]:
    def layer(x: Variable, name: str | None = None) -> Variable:
        return LayerHelper(type, name=name).op(type, {"X": [x]})

    layer.__name__ = layer.__qualname__ = type
    layer.__doc__ = f"{what} of each element."
    return layer


abs = _unary("abs", "The absolute value")
acos = _unary("acos", "The arc cosine")
asin = _unary("asin", "The arc sine")
atan = _unary("atan", "The arc tangent")
ceil = _unary("ceil", "The next whole number above")
cos = _unary("cos", "The cosine")
exp = _unary("exp", "The exponential")
floor = _unary("floor", "The next whole number below")
log = _unary("log", "The natural logarithm")
logsigmoid = _unary("logsigmoid", "The logarithm of the sigmoid")
reciprocal = _unary("reciprocal", "The reciprocal")
relu = _unary("relu", "The positive part")
round = _unary("round", "The nearest whole number, of two the one away from zero,")
rsqrt = _unary("rsqrt", "The reciprocal of the square root")
sigmoid = _unary("sigmoid", "The logistic function")
sin = _unary("sin", "The sine")
softplus = _unary("softplus", "`log(1 + exp(x))`")
softsign = _unary("softsign", "`x / (1 + |x|)`")
sqrt = _unary("sqrt", "The square root")
square = _unary("square", "The square")
tanh = _unary("tanh", "The hyperbolic tangent")
tanh_shrink = _unary("tanh_shrink", "`x - tanh(x)`")


def _with(type: str, x: Variable, name: str | None = None, **attrs: Any) -> Variable:
    return LayerHelper(type, name=name).op(type, {"X": [x]}, attrs)


def log1p(x: Variable, out: Variable | None = None, name: str | None = None) -> Variable:
    """`log(1 + x)` of each element."""
    helper = LayerHelper("log1p", name=name)
    if out is None:
        return helper.op("log1p", {"X": [x]})
    helper.append_op("log1p", {"X": [x]}, {"Out": [out]})
    return out


def erf(x: Variable) -> Variable:
    """The error function of each element."""
    return _with("erf", x)


def gelu(x: Variable, approximate: bool = False) -> Variable:
    """Times the normal distribution function; `approximate` takes a tanh for it."""
    return _with("gelu", x, approximate=approximate)


def softshrink(x: Variable, alpha: float | None = None) -> Variable:
    """Zero within `alpha` (0.5 if None) of zero, and nearer to zero by that elsewhere."""
    attrs = {"lambda": 0.5 if alpha is None else alpha}
    return LayerHelper("softshrink").op("softshrink", {"X": [x]}, attrs)


def hard_shrink(x: Variable, threshold: float | None = None) -> Variable:
    """Zero within a threshold (0.5 if None) of zero."""
    return _with("hard_shrink", x, threshold=0.5 if threshold is None else threshold)


def thresholded_relu(x: Variable, threshold: float | None = None) -> Variable:
    """Zero up to a threshold (1 if None)."""
    return _with("thresholded_relu", x, threshold=1.0 if threshold is None else threshold)


def cumsum(
    x: Variable, axis: int | None = None, exclusive: bool | None = None, reverse: bool | None = None
) -> Variable:
    """Sums of all elements up to each, along an axis (the last if None).

    Args:
        x: the tensor.
        axis: the axis.
        exclusive: leave out the element itself.
        reverse: begin at the end.
    """
    return _with("cumsum", x, axis=-1 if axis is None else axis, exclusive=bool(exclusive), reverse=bool(reverse))


def selu(x: Variable, scale: float | None = None, alpha: float | None = None, name: str | None = None) -> Variable:
    """A scaled `elu`; Fluid's numbers if None."""
    return _with("selu", x, name, scale=scale, alpha=alpha)


def elu(x: Variable, alpha: float = 1.0, name: str | None = None) -> Variable:
    """`alpha * (exp(x) - 1)` below zero."""
    return _with("elu", x, name, alpha=alpha)


def relu6(x: Variable, threshold: float = 6.0, name: str | None = None) -> Variable:
    """The positive part, up to a threshold."""
    return _with("relu6", x, name, threshold=float(threshold))


def pow(x: Variable, factor: Any = 1.0, name: str | None = None) -> Variable:
    """To a power: a number, or a variable of shape [1]."""
    if isinstance(factor, Variable):
        factor.stop_gradient = True
        return LayerHelper("pow", name=name).op("pow", {"X": [x], "FactorTensor": [factor]})
    return _with("pow", x, name, factor=factor)


def stanh(x: Variable, scale_a: float = 0.67, scale_b: float = 1.7159, name: str | None = None) -> Variable:
    """`scale_b * tanh(scale_a * x)`."""
    return _with("stanh", x, name, scale_a=scale_a, scale_b=scale_b)


def hard_sigmoid(x: Variable, slope: float = 0.2, offset: float = 0.5, name: str | None = None) -> Variable:
    """`slope * x + offset`, within 0 and 1."""
    return _with("hard_sigmoid", x, name, slope=slope, offset=offset)


def swish(x: Variable, beta: float = 1.0, name: str | None = None) -> Variable:
    """`x * sigmoid(beta * x)`.

    Fluid 1.8.5 leaves `beta` out of account and takes 1, so another one gives a `HazardWarning`.
    """
    if beta != 1.0:
        warnings.warn(
            f"swish: Fluid 1.8.5 computes with beta=1 whatever is asked for, here {beta} counts: a model that Fluid trained "
            "predicts something else unless it is left out",
            HazardWarning,
            stacklevel=2,
        )
    return _with("swish", x, name, beta=beta)


def mish(x: Variable, threshold: float = 20, name: str | None = None) -> Variable:
    """`x * tanh(softplus(x))`."""
    return _with("mish", x, name, threshold=threshold or -1)


def brelu(x: Variable, t_min: float = 0.0, t_max: float = 24.0, name: str | None = None) -> Variable:
    """Within two bounds."""
    return _with("brelu", x, name, t_min=t_min, t_max=t_max)


def leaky_relu(x: Variable, alpha: float = 0.02, name: str | None = None) -> Variable:
    """`alpha * x` below zero."""
    return _with("leaky_relu", x, name, alpha=alpha)


def soft_relu(x: Variable, threshold: float = 40.0, name: str | None = None) -> Variable:
    """`log(1 + exp(x))`, x within the threshold on both sides."""
    return _with("soft_relu", x, name, threshold=threshold)


def hard_swish(
    x: Variable, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0, name: str | None = None
) -> Variable:
    """`x * (x + offset, within 0 and the threshold) / scale`."""
    return _with("hard_swish", x, name, threshold=threshold, scale=scale, offset=offset)


def sign(x: Any) -> Variable:
    """-1, 0 or 1 for each element of a variable or an array."""
    from holdfast.fluid.layers.tensor import assign

    helper = LayerHelper("sign")
    return helper.op("sign", {"X": [x if isinstance(x, Variable) else assign(x)]})


def softmax(input: Variable, use_cudnn: bool = False, name: str | None = None, axis: int = -1) -> Variable:
    """Exponentials that add up to one along an axis."""
    return _with("softmax", input, name, axis=axis)


def log_softmax(input: Variable, axis: int | None = None, dtype: Any = None, name: str | None = None) -> Variable:
    """The logarithm of `softmax`, computed in another dtype if one is given."""
    from holdfast.fluid.core import to_vartype

    helper = LayerHelper("log_softmax", name=name)
    if dtype is not None:
        kind = int(to_vartype(dtype))
        input = helper.op("cast", {"X": [input]}, {"in_dtype": int(input.dtype), "out_dtype": kind})
    probability = helper.op("softmax", {"X": [input]}, {"axis": -1 if axis is None else axis})
    return helper.op("log", {"X": [probability]})
