"""Layers that rearrange tensors, take parts of them, or put several together."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.given import add_numbers, say


def _with_xshape(helper: LayerHelper, type: str, inputs: dict[str, Any], attrs: dict[str, Any]) -> Variable:
    x = inputs["X"][0]
    out = helper.create_variable_for_type_inference(x.dtype)
    shape = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type, inputs, {"Out": [out], "XShape": [shape]}, attrs)
    say(shape, (0, *x.shape))
    return out


def reshape(
    x: Variable,
    shape: Any,
    actual_shape: Variable | None = None,
    act: str | None = None,
    inplace: bool = False,
    name: str | None = None,
) -> Variable:
    """The same elements in another shape.

    Args:
        x: the tensor.
        shape: 0 keeps the dimension in its place, -1 (once) is what is left; numbers, or variables that hold them.
        actual_shape: a variable that comes before `shape` if it is known when the program is compiled.
        act: name of an activation.
        inplace: give the variable itself the new shape.
        name: key of the names.
    """
    helper = LayerHelper("reshape2", act=act, name=name)
    inputs: dict[str, Any] = {"X": [x]}
    attrs: dict[str, Any] = {}
    sizes = add_numbers(helper, inputs, attrs, shape, "shape", "Shape", "ShapeTensor")
    if isinstance(actual_shape, Variable):
        actual_shape.stop_gradient = True
        inputs["Shape"] = [actual_shape]
    if inplace:
        kept = helper.create_variable_for_type_inference(x.dtype)
        helper.append_op("reshape2", inputs, {"Out": [x], "XShape": [kept]}, attrs)
        return helper.append_activation(x)
    return helper.append_activation(say(_with_xshape(helper, "reshape2", inputs, attrs), sizes))


def squeeze(input: Variable, axes: Sequence[int], name: str | None = None) -> Variable:
    """Without dimensions of 1: these axes, or all such if there are none."""
    helper = LayerHelper("squeeze", name=name)
    return _with_xshape(helper, "squeeze2", {"X": [input]}, {"axes": [axes] if isinstance(axes, int) else list(axes)})


def unsqueeze(input: Variable, axes: Any, name: str | None = None) -> Variable:
    """With new dimensions of 1 at these axes."""
    helper = LayerHelper("unsqueeze2", name=name)
    inputs: dict[str, Any] = {"X": [input]}
    attrs: dict[str, Any] = {}
    axes = [axes] if isinstance(axes, int) else axes
    found = add_numbers(helper, inputs, attrs, axes, "axes", "AxesTensor", "AxesTensorList")
    if "AxesTensorList" in inputs:
        attrs = {}
    return say(_with_xshape(helper, "unsqueeze2", inputs, attrs), [-1] * (len(input.shape) + len(found)))


def transpose(x: Variable, perm: Sequence[int], name: str | None = None) -> Variable:
    """Dimensions in another order: dimension `perm[i]` comes to place i.

    Raises:
        ValueError: `perm` does not name every dimension once.
    """
    if sorted(perm) != list(range(len(x.shape))):
        raise ValueError(f"transpose: perm {list(perm)} must name each dimension of {x.name} {list(x.shape)} once")
    return _with_xshape(LayerHelper("transpose", name=name), "transpose2", {"X": [x]}, {"axis": list(perm)})


def t(input: Variable, name: str | None = None) -> Variable:
    """A matrix with rows and columns exchanged; tensors of fewer dimensions stay."""
    if len(input.shape) > 2:
        raise ValueError(f"t needs at most two dimensions, but {input.name} has {list(input.shape)}; use transpose")
    helper = LayerHelper("t", name=name)
    if len(input.shape) < 2:
        return input
    return _with_xshape(helper, "transpose2", {"X": [input]}, {"axis": [1, 0]})


def flatten(x: Variable, axis: int = 1, name: str | None = None) -> Variable:
    """A matrix: dimensions before the axis joined to rows, the others to columns."""
    if not 0 <= axis <= len(x.shape):
        raise ValueError(f"flatten: axis {axis} is none of {x.name} {list(x.shape)}")
    return _with_xshape(LayerHelper("flatten", name=name), "flatten2", {"X": [x]}, {"axis": axis})


def concat(input: Any, axis: Any = 0, name: str | None = None) -> Variable:
    """Tensors one after the other along an axis."""
    xs = list(input) if isinstance(input, list | tuple) else [input]
    helper = LayerHelper("concat", input=xs, name=name)
    inputs: dict[str, Any] = {"X": xs}
    if isinstance(axis, Variable):
        axis.stop_gradient = True
        out = helper.op("concat", inputs | {"AxisTensor": [axis]}, dtype=helper.input_dtype())
        return say(out, [-1] * len(xs[0].shape))
    return helper.op("concat", inputs, {"axis": axis}, dtype=helper.input_dtype())


def stack(x: Any, axis: int = 0) -> Variable:
    """Tensors of one shape side by side in a new dimension."""
    xs = list(x) if isinstance(x, list | tuple) else [x]
    return LayerHelper("stack").op("stack", {"X": xs}, {"axis": axis}, slot="Y")


def unstack(x: Variable, axis: int = 0, num: int | None = None) -> list[Variable]:
    """A tensor for each place of a dimension, without that.

    Raises:
        ValueError: the size of the dimension is not known, and `num` does not say it.
    """
    helper = LayerHelper("unstack")
    count = x.shape[axis] if num is None else num
    if count <= 0:
        raise ValueError(f"unstack: dimension {axis} of {x.name} {list(x.shape)} is not known; say num=")
    outs = [helper.create_variable_for_type_inference(x.dtype) for _ in range(count)]
    helper.append_op("unstack", {"X": [x]}, {"Y": outs}, {"axis": axis, "num": count})
    return outs


def split(input: Variable, num_or_sections: Any, dim: Any = -1, name: str | None = None) -> list[Variable]:
    """Parts along a dimension: so many equal ones, or these sizes, of which one may be -1 for the rest.

    Raises:
        ValueError: the dimension cannot be cut into so many equal parts.
    """
    helper = LayerHelper("split", name=name)
    inputs: dict[str, Any] = {"X": [input]}
    attrs: dict[str, Any] = {}
    if isinstance(dim, Variable):
        dim.stop_gradient = True
        inputs["AxisTensor"] = [dim]
        size = -1
    else:
        dim = len(input.shape) + dim if dim < 0 else dim
        attrs["axis"] = dim
        size = input.shape[dim]
    sizes: list[int] = []
    if isinstance(num_or_sections, int):
        count = num_or_sections
        attrs["num"] = count
        if size > 0 and size % count:
            raise ValueError(f"split: dimension {dim} of {input.name} {list(input.shape)} is no multiple of {count}")
    else:
        count = len(num_or_sections)
        sizes = add_numbers(helper, inputs, attrs, num_or_sections, "sections", "SectionsTensor", "SectionsTensorList")
    outs = [helper.create_variable_for_type_inference(input.dtype) for _ in range(count)]
    helper.append_op("split", inputs, {"Out": outs}, attrs)
    for number, out in enumerate(outs):
        known = [-1 if isinstance(dim, Variable) else n for n in input.shape]
        if not isinstance(dim, Variable):
            known[dim] = sizes[number] if sizes else -1
        say(out, known)
    return outs


def slice(input: Variable, axes: Sequence[int], starts: Any, ends: Any) -> Variable:
    """A part: from start to end (not included) on some axes; negative places count from the end."""
    return _sliced("slice", input, axes, {"Starts": starts, "Ends": ends})


def strided_slice(input: Variable, axes: Sequence[int], starts: Any, ends: Any, strides: Any) -> Variable:
    """A part: from start to end (not included) with a step on some axes."""
    return _sliced("strided_slice", input, axes, {"Starts": starts, "Ends": ends, "Strides": strides})


def _sliced(type: str, input: Variable, axes: Sequence[int], bounds: dict[str, Any]) -> Variable:
    helper = LayerHelper(type)
    inputs: dict[str, Any] = {"Input": [input]}
    attrs: dict[str, Any] = {"axes": list(axes)}
    found: dict[str, list[int]] = {}
    unknown: set[int] = set()  # which of the axes has a bound that only a variable says
    for slot, values in bounds.items():
        found[slot] = add_numbers(helper, inputs, attrs, values, slot.lower(), f"{slot}Tensor", f"{slot}TensorList")
        every = isinstance(values, Variable)
        unknown |= {i for i in range(len(axes)) if every or isinstance(values[i], Variable)}
    attrs["infer_flags"] = [-1 if i in unknown else 1 for i in range(len(axes))]
    out = helper.op(type, inputs, attrs, dtype=input.dtype)
    sizes = list(input.shape)
    for i, axis in enumerate(axes):
        whole = i not in unknown and sizes[axis] >= 0
        bound = builtins.slice(*(found[slot][i] for slot in bounds)) if whole else None
        sizes[axis] = len(range(*bound.indices(sizes[axis]))) if bound is not None else -1
    return say(out, sizes)


def expand(x: Variable, expand_times: Any, name: str | None = None) -> Variable:
    """Repeated so many times along each dimension."""
    helper = LayerHelper("expand", name=name)
    inputs: dict[str, Any] = {"X": [x]}
    attrs: dict[str, Any] = {}
    times = add_numbers(helper, inputs, attrs, expand_times, "expand_times", "ExpandTimes", "expand_times_tensor")
    sizes = [n * t if n >= 0 and t >= 0 else -1 for n, t in zip(x.shape, times, strict=False)]
    return say(helper.op("expand", inputs, attrs, dtype=x.dtype), sizes)


def expand_as(x: Variable, target_tensor: Variable, name: str | None = None) -> Variable:
    """Repeated along each dimension until it has another tensor's shape."""
    return LayerHelper("expand_as", name=name).op("expand_as", {"X": [x], "target_tensor": [target_tensor]})


def reverse(x: Variable, axis: Any) -> Variable:
    """Back to front along an axis or several."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    return LayerHelper("reverse").op("reverse", {"X": [x]}, {"axis": axes})


def flip(input: Variable, dims: Sequence[int], name: str | None = None) -> Variable:
    """Back to front along some dimensions."""
    helper = LayerHelper("flip", name=name)
    return helper.op("flip", {"X": [input]}, {"dims": list(dims)}, dtype=input.dtype)


def roll(input: Variable, shifts: Any, dims: Any = None) -> Variable:
    """Moved along some dimensions, around the edge; of the whole tensor as one row if there are none."""
    helper = LayerHelper("roll")
    shape = list(input.shape)
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else dims
    out = helper.create_variable_for_type_inference(input.dtype)
    if dims is None:
        input, dims = reshape(input, [-1, 1]), [0]
    helper.append_op("roll", {"X": [input]}, {"Out": [out]}, {"dims": list(dims), "shifts": shifts})
    return reshape(out, shape, inplace=True)


def pad(x: Variable, paddings: Sequence[int], pad_value: float = 0.0, name: str | None = None) -> Variable:
    """With a value before and after each dimension: two numbers a dimension."""
    attrs = {"paddings": list(paddings), "pad_value": float(pad_value)}
    return LayerHelper("pad", name=name).op("pad", {"X": [x]}, attrs)


def pad2d(
    input: Variable,
    paddings: Any = (0, 0, 0, 0),
    mode: str = "constant",
    pad_value: float = 0.0,
    data_format: str = "NCHW",
    name: str | None = None,
) -> Variable:
    """Images with an edge.

    Args:
        input: four dimensions.
        paddings: top, bottom, left, right; or a variable that holds them.
        mode: `constant`, `reflect` (mirrored) or `edge` (the outermost pixel).
        pad_value: for `constant`.
        data_format: `NCHW` or `NHWC`.
        name: key of the names.
    """
    if mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"pad2d: mode {mode!r} is none of constant, reflect, edge")
    helper = LayerHelper("pad2d", name=name)
    inputs: dict[str, Any] = {"X": [input]}
    attrs: dict[str, Any] = {"mode": mode, "pad_value": float(pad_value), "data_format": data_format}
    if isinstance(paddings, Variable):
        inputs["Paddings"] = [paddings]
    else:
        attrs["paddings"] = list(paddings)
    return say(helper.op("pad2d", inputs, attrs, dtype=input.dtype), [-1] * 4)


def pad_constant_like(x: Variable, y: Variable, pad_value: float = 0.0, name: str | None = None) -> Variable:
    """`y`, filled up at the end of each dimension with a value to the shape of `x`."""
    helper = LayerHelper("pad_constant_like", name=name)
    return helper.op("pad_constant_like", {"X": [x], "Y": [y]}, {"pad_value": float(pad_value)})


def crop(x: Variable, shape: Any = None, offsets: Any = None, name: str | None = None) -> Variable:
    """A block of a shape (numbers, or another variable's) from offsets on (zeros if None)."""
    helper = LayerHelper("crop", name=name)
    inputs: dict[str, Any] = {"X": [x]}
    attrs: dict[str, Any] = {}
    if isinstance(shape, Variable):
        inputs["Y"] = [shape]
    elif isinstance(shape, list | tuple):
        attrs["shape"] = [int(n) for n in shape]
    else:
        raise TypeError(f"crop needs a shape: numbers or a variable, not {shape!r}")
    if isinstance(offsets, Variable):
        inputs["Offsets"] = [offsets]
    else:
        attrs["offsets"] = [0] * len(x.shape) if offsets is None else list(offsets)
    return say(helper.op("crop", inputs, attrs, dtype=x.dtype), [-1] * len(x.shape))


def crop_tensor(x: Variable, shape: Any = None, offsets: Any = None, name: str | None = None) -> Variable:
    """A block of a shape from offsets on; -1 in the shape takes all that is left."""
    if not isinstance(shape, list | tuple | Variable):
        raise TypeError(f"crop_tensor needs a shape: numbers or a variable, not {shape!r}")
    helper = LayerHelper("crop_tensor", name=name)
    inputs: dict[str, Any] = {"X": [x]}
    attrs: dict[str, Any] = {}
    out = helper.create_variable_for_type_inference(x.dtype)
    offsets = [0] * len(x.shape) if offsets is None else offsets
    add_numbers(helper, inputs, attrs, offsets, "offsets", "Offsets", "OffsetsTensor")
    sizes = add_numbers(helper, inputs, attrs, shape, "shape", "Shape", "ShapeTensor")
    if not isinstance(shape, Variable):
        attrs["shape"] = [0 if isinstance(n, Variable) else int(n) for n in shape]
    helper.append_op("crop_tensor", inputs, {"Out": [out]}, attrs)
    return say(out, sizes)


def shape(input: Variable) -> Variable:
    """The shape as an int32 tensor; its values are known when the program is compiled, so layers take them for shapes."""
    return LayerHelper("shape").op("shape", {"Input": [input]}, dtype="int32")


def size(input: Variable) -> Variable:
    """The number of elements, int64 [1]."""
    return LayerHelper("size").op("size", {"Input": [input]}, dtype="int64")


def rank(input: Variable) -> Variable:
    """The number of dimensions, int32."""
    import numpy as np

    from holdfast.fluid.layers.tensor import assign

    return assign(np.array(len(input.shape), "int32"))


def meshgrid(input: Sequence[Variable], name: str | None = None) -> list[Variable]:
    """Coordinates of a grid, a tensor for each dimension."""
    helper = LayerHelper("meshgrid", name=name)
    outs = [helper.create_variable_for_type_inference(x.dtype) for x in input]
    helper.append_op("meshgrid", {"X": list(input)}, {"Out": outs})
    return outs
