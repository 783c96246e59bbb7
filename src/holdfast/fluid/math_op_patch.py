"""Operators of variables: `x + 1`, `x < y`, `x[:, 1:]`. Results are named `tmp_k`, slices `<name>_slice_k`, as in Fluid.

`==` and `!=` add operators too, so variables are compared with `is`; they hash by identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.core import VarType, to_vartype
from holdfast.fluid.framework import Block, Variable

_INTEGERS = (VarType.UINT8, VarType.INT8, VarType.INT16, VarType.INT32, VarType.INT64)
_END = 10000000  # Fluid's word for "to the end" in a slice


def _block(variable: Variable) -> Block:
    return variable.block.program.current_block()


def _temporary(block: Block, dtype: Any, stop_gradient: bool = False) -> Variable:
    return block.create_var(name=unique_name.generate("tmp"), dtype=dtype, stop_gradient=stop_gradient)


def scaled(x: Variable, scale: float, bias: float) -> Variable:
    """`scale * x + bias`, named as the operators' results are."""
    block = _block(x)
    out = _temporary(block, x.dtype)
    block.append_op("scale", {"X": [x]}, {"Out": [out]}, {"scale": float(scale), "bias": float(bias)})
    return out


def _constant(like: Variable, value: float, shape: Any) -> Variable:
    block = _block(like)
    out = _temporary(block, like.dtype, stop_gradient=True)
    attrs = {"dtype": int(like.dtype), "shape": list(shape), "value": float(value), "force_cpu": False}
    block.append_op("fill_constant", {}, {"Out": [out]}, attrs)
    return out


def _constant_like(like: Variable, value: float) -> Variable:
    """A constant of the whole shape, which is what stands on the left of a reflected operator."""
    if all(n >= 0 for n in like.shape):
        return _constant(like, value, like.shape)
    batch = next(i for i, n in enumerate(like.shape) if n < 0)
    shape = [n if n >= 0 or i == batch else 1 for i, n in enumerate(like.shape)]
    block = _block(like)
    out = _temporary(block, like.dtype, stop_gradient=True)
    attrs = {"shape": shape, "value": float(value), "input_dim_idx": batch, "output_dim_idx": batch}
    block.append_op(
        "fill_constant_batch_size_like", {"Input": [like]}, {"Out": [out]}, attrs | {"dtype": int(like.dtype)}
    )
    return out


def astype(self: Variable, dtype: Any) -> Variable:
    """The same numbers in another dtype."""
    block = _block(self)
    out = _temporary(block, dtype)
    attrs = {"in_dtype": int(self.dtype), "out_dtype": int(to_vartype(dtype))}
    block.append_op("cast", {"X": [self]}, {"Out": [out]}, attrs)
    return out


Scalar = Callable[[float], tuple[float, float]]  # of a number the scale and bias that stand for it


def _binary(
    type: str, scalar: Scalar | None = None, *, reflected: bool = False, compared: bool = False
) -> Callable[[Variable, Any], Any]:
    def operator(self: Variable, other: Any) -> Any:
        if not isinstance(other, Variable):
            try:
                number = float(other)
            except (TypeError, ValueError):
                return NotImplemented
            exact = type == "elementwise_div" and self.dtype in _INTEGERS
            if scalar is not None and not exact:
                if self.dtype in _INTEGERS and number != int(number):
                    raise ValueError(
                        f"{self.name} is {self.dtype.name}, which {other} would be cut off to; {self.name}.astype() first"
                    )
                return scaled(self, *scalar(number))
            other = _constant_like(self, number) if reflected else _constant(self, number, [1])
        left, right = self, other
        if left.dtype != right.dtype:
            right = astype(right, left.dtype)
        if reflected:
            left, right = right, left
        block = _block(self)
        out = _temporary(block, VarType.BOOL if compared else self.dtype)
        # A batch of numbers goes to the rows of the other side.
        axis = 0 if right.shape and right.shape[0] == -1 else -1
        block.append_op(type, {"X": [left], "Y": [right]}, {"Out": [out]}, {"axis": axis})
        return out

    return operator


def _items(variable: Variable, item: Any) -> list[Any]:
    items = list(item) if isinstance(item, tuple) else [item]
    places = [i for i, each in enumerate(items) if each is Ellipsis]
    if len(places) > 1:
        raise IndexError(f"{variable.name}: an index has ... once at most")
    rank = len(variable.shape)
    if places:
        missing = rank - (len(items) - 1)
        items[places[0] : places[0] + 1] = [slice(None)] * missing
    if len(items) > rank:
        raise IndexError(f"{variable.name} has {rank} dimension(s) {list(variable.shape)}, the index has {len(items)}")
    return items


def getitem(self: Variable, item: Any) -> Variable:
    """A part of a variable, by numbers, slices and `...`; numbers may be int32 variables of shape [1].

    A slice of negative step must be `::-1`, as in Fluid.

    Raises:
        IndexError: there are more places than dimensions, or one is outside.
    """
    axes: list[int] = []
    starts: list[Any] = []
    ends: list[Any] = []
    steps: list[int] = []
    dropped: list[int] = []
    backwards: list[int] = []
    for axis, each in enumerate(_items(self, item)):
        if isinstance(each, slice):
            if each == slice(None):
                continue
            step = 1 if each.step is None else each.step
            if step < 0 and each.start is None and each.stop is None and step == -1:
                backwards.append(axis)
                continue
            if step < 0:
                raise ValueError(
                    f"{self.name}[{each}]: backwards only as a whole, [::-1]; else fluid.layers.strided_slice"
                )
            axes.append(axis)
            starts.append(0 if each.start is None else each.start)
            ends.append(_END if each.stop is None else each.stop)
            steps.append(step)
        else:
            size = self.shape[axis]
            if not isinstance(each, Variable):
                each = int(each)
                if size >= 0 and not -size <= each < size:
                    raise IndexError(f"{self.name}: place {each} is outside dimension {axis} of {list(self.shape)}")
            axes.append(axis)
            dropped.append(axis)
            starts.append(each)
            ends.append(_following(self, each) if isinstance(each, Variable) else each + 1 if each != -1 else _END)
            steps.append(1)
    out = _slice(self, axes, starts, ends, steps, dropped) if axes else self
    if backwards:
        block = _block(out)
        found = block.create_var(name=unique_name.generate(f"{self.name}_slice_reverse"), dtype=self.dtype)
        gone = [sum(d < axis for d in dropped) for axis in backwards]
        places = [axis - g for axis, g in zip(backwards, gone, strict=True)]
        block.append_op("reverse", {"X": [out]}, {"Out": [found]}, {"axis": places})
        out = found
    return out


def _int32(block: Block, value: int) -> Variable:
    out = block.create_var(dtype=VarType.INT32, stop_gradient=True)
    attrs = {"dtype": int(VarType.INT32), "shape": [1], "value": float(value), "force_cpu": True}
    block.append_op("fill_constant", {}, {"Out": [out]}, attrs)
    return out


def _following(x: Variable, place: Variable) -> Variable:
    """The place after one that a variable says."""
    block = _block(x)
    one = _int32(block, 1)
    out = block.create_var(dtype=VarType.INT32, stop_gradient=True)
    block.append_op("elementwise_add", {"X": [place], "Y": [one]}, {"Out": [out]}, {"axis": -1})
    return out


def _slice(
    x: Variable, axes: list[int], starts: list[Any], ends: list[Any], steps: list[int], dropped: list[int]
) -> Variable:
    block = _block(x)
    inputs: dict[str, Any] = {"Input": [x]}
    attrs: dict[str, Any] = {"axes": axes, "decrease_axis": dropped}
    type = "slice" if all(s == 1 for s in steps) else "strided_slice"
    variable = [isinstance(start, Variable) for start in starts]
    for slot, values in (("Starts", starts), ("Ends", ends)):
        attrs[slot.lower()] = [-1 if isinstance(v, Variable) else v for v in values]
        if any(variable):
            inputs[f"{slot}TensorList"] = [v if isinstance(v, Variable) else _int32(block, v) for v in values]
    if type == "strided_slice":
        attrs["strides"] = steps
    attrs["infer_flags"] = [-1 if v else 1 for v in variable]
    out = block.create_var(name=unique_name.generate(f"{x.name}_{type}"), dtype=x.dtype)
    block.append_op(type, inputs, {"Out": [out]}, attrs)
    if out.shape is None:
        out.shape = tuple(-1 if i in axes else n for i, n in enumerate(x.shape) if i not in dropped) or (1,)
    return out


def install() -> None:
    """Give `Variable` its operators."""
    methods: dict[str, Any] = {
        "__add__": _binary("elementwise_add", lambda n: (1.0, n)),
        "__radd__": _binary("elementwise_add", lambda n: (1.0, n)),
        "__sub__": _binary("elementwise_sub", lambda n: (1.0, -n)),
        "__rsub__": _binary("elementwise_sub", lambda n: (-1.0, n), reflected=True),
        "__mul__": _binary("elementwise_mul", lambda n: (n, 0.0)),
        "__rmul__": _binary("elementwise_mul", lambda n: (n, 0.0)),
        "__truediv__": _binary("elementwise_div", lambda n: (1.0 / n, 0.0)),
        "__rtruediv__": _binary("elementwise_div", reflected=True),
        "__pow__": _binary("elementwise_pow"),
        "__rpow__": _binary("elementwise_pow", reflected=True),
        "__floordiv__": _binary("elementwise_floordiv"),
        "__mod__": _binary("elementwise_mod"),
        "__eq__": _binary("equal", compared=True),
        "__ne__": _binary("not_equal", compared=True),
        "__lt__": _binary("less_than", compared=True),
        "__le__": _binary("less_equal", compared=True),
        "__gt__": _binary("greater_than", compared=True),
        "__ge__": _binary("greater_equal", compared=True),
        "__neg__": lambda self: scaled(self, -1.0, 0.0),
        "__getitem__": getitem,
        "astype": astype,
    }
    for name, method in methods.items():
        if method is not getitem and method is not astype:
            method.__name__ = method.__qualname__ = name
        setattr(Variable, name, method)


install()
