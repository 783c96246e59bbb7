"""Arithmetic layers: of two tensors, of all elements of one, and of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.math_op_patch import scaled


def _elementwise(type: str, what: str) -> Callable[..., Variable]:
    def layer(x: Variable, y: Variable, axis: int = -1, act: str | None = None, name: str | None = None) -> Variable:
        helper = LayerHelper(type, act=act, name=name)
        return helper.append_activation(helper.op(type, {"X": [x], "Y": [y]}, {"axis": axis}))

    layer.__name__ = layer.__qualname__ = type
    layer.__doc__ = f"""{what}, element by element.

    Args:
        x, y: of one shape, or one of them with fewer dimensions, or with some of 1.
        axis: of the larger, where the first dimension of the smaller stands; -1: its last ones, as in NumPy.
        act: name of an activation.
        name: key of the names.
    """
    return layer


elementwise_add = _elementwise("elementwise_add", "`x + y`")
elementwise_sub = _elementwise("elementwise_sub", "`x - y`")
elementwise_mul = _elementwise("elementwise_mul", "`x * y`")
elementwise_div = _elementwise("elementwise_div", "`x / y`, of integers cut off towards zero")
elementwise_max = _elementwise("elementwise_max", "The larger one")
elementwise_min = _elementwise("elementwise_min", "The smaller one")
elementwise_pow = _elementwise("elementwise_pow", "`x ** y`")
elementwise_mod = _elementwise(
    "elementwise_mod", "The remainder, which has the sign of `x` for integers and that of `y` for floats, as in Fluid,"
)
elementwise_floordiv = _elementwise("elementwise_floordiv", "The quotient, cut off towards zero as in Fluid")


def _reduction(type: str, what: str) -> Callable[..., Variable]:
    def layer(input: Variable, dim: Any = None, keep_dim: bool = False, name: str | None = None) -> Variable:
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        every = not dims or len(dims) == len(input.shape)
        return LayerHelper(type, name=name).op(
            type, {"X": [input]}, {"dim": dims or [0], "keep_dim": keep_dim, "reduce_all": every}
        )

    layer.__name__ = layer.__qualname__ = type
    layer.__doc__ = f"""{what} over some dimensions.

    Args:
        input: the tensor.
        dim: a dimension or several, negative ones from the end; None for all, which gives shape [1].
        keep_dim: keep these dimensions as 1.
        name: key of the names.
    """
    return layer


reduce_sum = _reduction("reduce_sum", "The sum")
reduce_mean = _reduction("reduce_mean", "The mean")
reduce_max = _reduction("reduce_max", "The largest element")
reduce_min = _reduction("reduce_min", "The smallest element")
reduce_prod = _reduction("reduce_prod", "The product")
reduce_all = _reduction("reduce_all", "Whether all elements are true")
reduce_any = _reduction("reduce_any", "Whether any element is true")


def mean(x: Variable, name: str | None = None) -> Variable:
    """The mean of all elements, shape [1]."""
    return LayerHelper("mean", name=name).op("mean", {"X": [x]})


def logsumexp(
    x: Variable, dim: Any = None, keepdim: bool = False, out: Variable | None = None, name: str | None = None
) -> Variable:
    """The logarithm of the sum of exponentials over some dimensions."""
    from holdfast.fluid.layers.ops import exp, log

    LayerHelper("logsumexp", name=name)
    found = log(reduce_sum(exp(x), dim, keepdim), name)
    return found if out is None else _assigned(found, out)


def _assigned(value: Variable, out: Variable) -> Variable:
    LayerHelper("assign").append_op("assign", {"X": [value]}, {"Out": [out]})
    return out


def sum(x: Any) -> Variable:
    """The sum of several tensors of one shape."""
    return LayerHelper("sum").op("sum", {"X": list(x) if isinstance(x, list | tuple) else [x]})


def sums(input: Sequence[Variable], out: Variable | None = None) -> Variable:
    """The sum of several tensors of one shape, put into `out` if that is given."""
    helper = LayerHelper("sum")
    inputs = {"X": list(input) if isinstance(input, list | tuple) else [input]}
    if out is None:
        return helper.op("sum", inputs)
    helper.append_op("sum", inputs, {"Out": [out]})
    return out


def scale(
    x: Variable,
    scale: Any = 1.0,
    bias: float = 0.0,
    bias_after_scale: bool = True,
    act: str | None = None,
    name: str | None = None,
) -> Variable:
    """`scale * x + bias`, or `scale * (x + bias)`; the scale is a number or a variable of shape [1]."""
    helper = LayerHelper("scale", act=act, name=name)
    attrs = {"bias": float(bias), "bias_after_scale": bias_after_scale}
    inputs = {"X": [x]}
    if isinstance(scale, Variable):
        inputs["ScaleTensor"] = [scale]
    else:
        attrs["scale"] = float(scale)
    return helper.append_activation(helper.op("scale", inputs, attrs))


def mul(
    x: Variable, y: Variable, x_num_col_dims: int = 1, y_num_col_dims: int = 1, name: str | None = None
) -> Variable:
    """The product of two matrices, which tensors become by joining dimensions: the first so many, and the others."""
    attrs = {"x_num_col_dims": x_num_col_dims, "y_num_col_dims": y_num_col_dims}
    return LayerHelper("mul", name=name).op("mul", {"X": [x], "Y": [y]}, attrs)


def matmul(
    x: Variable,
    y: Variable,
    transpose_x: bool = False,
    transpose_y: bool = False,
    alpha: float = 1.0,
    name: str | None = None,
) -> Variable:
    """`alpha` times the product of matrices in the last two dimensions; dimensions before them are matched as in NumPy."""
    attrs = {"transpose_X": transpose_x, "transpose_Y": transpose_y, "alpha": float(alpha)}
    return LayerHelper("matmul", name=name).op("matmul", {"X": [x], "Y": [y]}, attrs)


def bmm(x: Variable, y: Variable, name: str | None = None) -> Variable:
    """Products of matrices, one for each of a batch."""
    return LayerHelper("bmm", name=name).op("bmm", {"X": [x], "Y": [y]})


def dot(x: Variable, y: Variable, name: str | None = None) -> Variable:
    """Scalar products over the last dimension, which stays as 1."""
    return LayerHelper("dot", name=name).op("dot", {"X": [x], "Y": [y]})


def dist(x: Variable, y: Variable, p: float = 2) -> Variable:
    """The p-norm of `x - y`, shape [1]."""
    return LayerHelper("dist").op("dist", {"X": [x], "Y": [y]}, {"p": float(p)})


def cross(input: Variable, other: Variable, dim: int | None = None) -> Variable:
    """Vector products along a dimension of 3; the first such if None."""
    return LayerHelper("cross").op("cross", {"X": [input], "Y": [other]}, {"dim": dim})


def kron(x: Variable, y: Variable, out: Variable | None = None, name: str | None = None) -> Variable:
    """The Kronecker product."""
    helper = LayerHelper("kron", name=name)
    if out is None:
        return helper.op("kron", {"X": [x], "Y": [y]})
    helper.append_op("kron", {"X": [x], "Y": [y]}, {"Out": [out]})
    return out


def addmm(
    input: Variable, x: Variable, y: Variable, alpha: float = 1.0, beta: float = 1.0, name: str | None = None
) -> Variable:
    """`beta * input + alpha * x @ y`."""
    return LayerHelper("addmm", name=name).op(
        "addmm", {"Input": [input], "X": [x], "Y": [y]}, {"Alpha": alpha, "Beta": beta}
    )


def addcmul(
    input: Variable,
    tensor1: Variable,
    tensor2: Variable,
    value: float = 1.0,
    out: Variable | None = None,
    name: str | None = None,
) -> Variable:
    """`input + value * tensor1 * tensor2`."""
    found = elementwise_add(input, scaled(elementwise_mul(tensor1, tensor2), value, 0.0))
    return found if out is None else _assigned(found, out)


def clip(x: Variable, min: float, max: float, name: str | None = None) -> Variable:
    """Within two bounds."""
    return LayerHelper("clip", name=name).op("clip", {"X": [x]}, {"min": float(min), "max": float(max)})


def clamp(
    input: Variable, min: Any = None, max: Any = None, output: Variable | None = None, name: str | None = None
) -> Variable:
    """Within two bounds: numbers, variables of shape [1], or None for none."""
    helper = LayerHelper("clamp", name=name)
    inputs, attrs = {"X": [input]}, {"min": -math.inf, "max": math.inf}
    for key, slot, bound in (("min", "Min", min), ("max", "Max", max)):
        if isinstance(bound, Variable):
            bound.stop_gradient = True
            inputs[slot] = [bound]
        elif bound is not None:
            attrs[key] = float(bound)
    if output is None:
        return helper.op("clip", inputs, attrs)
    helper.append_op("clip", inputs, {"Out": [output]}, attrs)
    return output


def clip_by_norm(x: Variable, max_norm: float, name: str | None = None) -> Variable:
    """Scaled down so that the norm of all elements is at most `max_norm`."""
    return LayerHelper("clip_by_norm", name=name).op("clip_by_norm", {"X": [x]}, {"max_norm": float(max_norm)})


def trace(
    input: Variable, offset: int = 0, dim1: int = 0, dim2: int = 1, out: Variable | None = None, name: str | None = None
) -> Variable:
    """The sum of a diagonal of two dimensions."""
    helper = LayerHelper("trace", name=name)
    attrs = {"offset": offset, "dim1": dim1, "dim2": dim2}
    if out is None:
        return helper.op("trace", {"Input": [input]}, attrs)
    helper.append_op("trace", {"Input": [input]}, {"Out": [out]}, attrs)
    return out


def increment(x: Variable, value: float = 1.0, in_place: bool = True) -> Variable:
    """A number more: in the variable itself, or in a new one."""
    helper = LayerHelper("increment")
    if not in_place:
        return helper.op("increment", {"X": [x]}, {"step": float(value)})
    helper.append_op("increment", {"X": [x]}, {"Out": [x]}, {"step": float(value)})
    return x
