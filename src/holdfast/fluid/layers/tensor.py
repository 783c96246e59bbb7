"""Layers that make tensors, copy them or change their dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.fluid.core import VarType, to_numpy, to_vartype
from holdfast.fluid.framework import Parameter, Variable
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.given import add_numbers, say
from holdfast.fluid.param_attr import ParamAttr


def create_tensor(dtype: Any, name: str | None = None, persistable: bool = False) -> Variable:
    """A variable with no value yet, for layers that put one there."""
    helper = LayerHelper("create_tensor", name=name)
    return helper.create_variable(name=helper.name, dtype=dtype, persistable=persistable)


def create_parameter(
    shape: Sequence[int],
    dtype: Any,
    name: str | None = None,
    attr: Any = None,
    is_bias: bool = False,
    default_initializer: Any = None,
) -> Parameter | None:
    """A parameter that belongs to no layer.

    Args:
        shape: of the parameter.
        dtype: of the parameter.
        name: None for the next `create_parameter_k.w_0`.
        attr: see `ParamAttr`.
        is_bias: filled with zeros then, if nothing else is said; else by Xavier's rule.
        default_initializer: used if `attr` has none.
    """
    helper = LayerHelper("create_parameter", name=name)
    attr = ParamAttr(name=name) if attr is None else attr
    return helper.create_parameter(attr, shape, dtype, is_bias, default_initializer)


def create_global_var(
    shape: Sequence[int],
    value: float,
    dtype: Any,
    persistable: bool = False,
    force_cpu: bool = False,
    name: str | None = None,
) -> Variable:
    """A variable that the startup program fills with a value.

    Without a name it gets `_generated_var_k`, which changes with its place in the program: name what is to be saved.
    """
    helper = LayerHelper("global_var")
    variable = helper.create_global_variable(persistable=persistable, name=name, shape=shape, dtype=dtype)
    helper.set_variable_initializer(variable, Constant(float(value), force_cpu=force_cpu))
    return variable


def cast(x: Variable, dtype: Any) -> Variable:
    """The same numbers in another dtype; floats are cut off to integers."""
    kind = to_vartype(dtype)
    attrs = {"in_dtype": int(x.dtype), "out_dtype": int(kind)}
    return LayerHelper("cast").op("cast", {"X": [x]}, attrs, dtype=kind)


def assign(input: Any, output: Variable | None = None) -> Variable:
    """A copy of a variable, or of a NumPy array that is kept in the program; put into `output` if that is given.

    Raises:
        TypeError: the array is not bool, float32, int32 or int64.
        ValueError: the array has more than a million elements.
    """
    helper = LayerHelper("assign")
    if isinstance(input, Variable):
        if output is None:
            output = helper.create_variable_for_type_inference(input.dtype)
        helper.append_op("assign", {"X": [input]}, {"Out": [output]})
        return output
    if not isinstance(input, np.ndarray):
        raise TypeError(f"assign needs a variable or a NumPy array, not {input!r}")
    slots = {
        VarType.BOOL: "bool_values",
        VarType.FP32: "fp32_values",
        VarType.INT32: "int32_values",
        VarType.INT64: "int64_values",
    }
    kind = to_vartype(input.dtype)
    if kind not in slots:
        raise TypeError(f"assign keeps arrays of bool, float32, int32 or int64 in a program, not {input.dtype}")
    if input.size > 1024 * 1024:
        raise ValueError(f"assign: {input.size} elements are too many for a program; feed them, or load a variable")
    if output is None:
        output = helper.create_variable_for_type_inference(kind)
    attrs = {"dtype": int(kind), "shape": list(input.shape), slots[kind]: input.ravel().tolist()}
    helper.append_op("assign_value", {}, {"Out": [output]}, attrs)
    return output


def _text(value: Any, dtype: Any) -> str:
    return str(int(value)) if to_vartype(dtype) in (VarType.INT32, VarType.INT64) else str(float(value))


def fill_constant(shape: Any, dtype: Any, value: Any, force_cpu: bool = False, out: Variable | None = None) -> Variable:
    """A tensor of one value.

    Args:
        shape: numbers, or variables that hold them and are known when the program is compiled.
        dtype: of the tensor.
        value: a number, or a variable of shape [1].
        force_cpu: accepted as Fluid has it; XLA places constants.
        out: where to put it.
    """
    helper = LayerHelper("fill_constant")
    inputs: dict[str, Any] = {}
    attrs: dict[str, Any] = {"force_cpu": force_cpu}
    if isinstance(value, Variable):
        inputs["ValueTensor"] = [value]
    else:
        attrs |= {"value": float(value), "str_value": _text(value, dtype)}
    sizes = add_numbers(helper, inputs, attrs, shape, "shape", "ShapeTensor", "ShapeTensorList", as_layer=True)
    if out is None:
        out = helper.create_variable_for_type_inference(dtype)
    attrs["dtype"] = int(out.dtype)
    helper.append_op("fill_constant", inputs, {"Out": [out]}, attrs)
    out.stop_gradient = True
    return say(out, sizes)


def fill_constant_batch_size_like(
    input: Variable,
    shape: Sequence[int],
    dtype: Any,
    value: float,
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    force_cpu: bool = False,
) -> Variable:
    """A tensor of one value, whose dimension `output_dim_idx` is the input's `input_dim_idx`."""
    attrs = {
        "shape": [int(n) for n in shape],
        "dtype": int(to_vartype(dtype)),
        "value": float(value),
        "str_value": _text(value, dtype),
        "input_dim_idx": input_dim_idx,
        "output_dim_idx": output_dim_idx,
        "force_cpu": force_cpu,
    }
    helper = LayerHelper("fill_constant_batch_size_like")
    return _stopped(helper.op("fill_constant_batch_size_like", {"Input": [input]}, attrs, dtype=dtype))


def _stopped(variable: Variable) -> Variable:
    variable.stop_gradient = True
    return variable


def zeros(shape: Any, dtype: Any, force_cpu: bool = False) -> Variable:
    """Zeros."""
    return fill_constant(shape, dtype, 0.0, force_cpu)


def ones(shape: Any, dtype: Any, force_cpu: bool = False) -> Variable:
    """Ones."""
    return fill_constant(shape, dtype, 1.0, force_cpu)


def full(
    shape: Any,
    fill_value: Any,
    out: Variable | None = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Variable:
    """A tensor of one value, float32 if no dtype is given."""
    helper = LayerHelper("full", name=name)
    if out is None:
        out = helper.create_variable_for_type_inference("float32" if dtype is None else dtype)
    fill_constant(shape, "float32" if dtype is None else dtype, fill_value, out=out)
    out.stop_gradient = stop_gradient
    return out


def full_like(
    input: Variable,
    fill_value: float,
    out: Variable | None = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Variable:
    """A tensor of one value and another's shape; its dtype too, if none is given."""
    helper = LayerHelper("full_like", name=name)
    kind = input.dtype if dtype is None else to_vartype(dtype)
    if out is None:
        out = helper.create_variable_for_type_inference(kind)
    helper.append_op("fill_any_like", {"X": [input]}, {"Out": [out]}, {"value": float(fill_value), "dtype": int(kind)})
    out.stop_gradient = stop_gradient
    return out


def zeros_like(x: Variable, out: Variable | None = None) -> Variable:
    """Zeros of another's shape and dtype."""
    helper = LayerHelper("zeros_like")
    if out is None:
        out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op("fill_zeros_like", {"X": [x]}, {"Out": [out]})
    return _stopped(out)


def ones_like(x: Variable, out: Variable | None = None) -> Variable:
    """Ones of another's shape and dtype."""
    helper = LayerHelper("ones_like")
    if out is None:
        out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op("fill_any_like", {"X": [x]}, {"Out": [out]}, {"value": 1.0})
    return out


def _number(value: Any, dtype: Any) -> Variable:
    if not isinstance(value, Variable):
        return fill_constant([1], dtype, value)
    return value if value.dtype == to_vartype(dtype) else cast(value, dtype)


def range(start: Any, end: Any, step: Any, dtype: Any) -> Variable:
    """Numbers from `start` to `end`, which is not among them: numbers, or variables known when the program is compiled."""
    helper = LayerHelper("range")
    inputs = {"Start": [_number(start, dtype)], "End": [_number(end, dtype)], "Step": [_number(step, dtype)]}
    out = _stopped(helper.op("range", inputs, dtype=dtype))
    known = not any(isinstance(v, Variable) for v in (start, end, step))
    return say(out, [np.arange(start, end, step, dtype=to_numpy(dtype)).size if known else -1])


def arange(start: Any, end: Any, step: Any = 1, dtype: Any = None, name: str | None = None) -> Variable:
    """`range`, float32 if no dtype is given."""
    return range(start, end, step, "float32" if dtype is None else dtype)


def linspace(start: Any, stop: Any, num: Any, dtype: Any) -> Variable:
    """So many numbers from `start` to `stop`, both among them."""
    helper = LayerHelper("linspace")
    inputs = {"Start": [_number(start, dtype)], "Stop": [_number(stop, dtype)], "Num": [_number(num, "int32")]}
    out = helper.op("linspace", inputs, dtype=dtype)
    return say(out, [-1 if isinstance(num, Variable) else int(num)])


def eye(
    num_rows: int, num_columns: int | None = None, batch_shape: Sequence[int] | None = None, dtype: Any = "float32"
) -> Variable:
    """A matrix with ones on the diagonal, repeated for each of `batch_shape`."""
    counts: list[Any] = [num_rows, num_columns]
    for count in counts:
        if count is not None and (not isinstance(count, int) or count < 0):
            raise TypeError(f"eye needs whole numbers of rows and columns, not {count!r}")
    attrs = {
        "num_rows": num_rows,
        "num_columns": num_rows if num_columns is None else num_columns,
        "dtype": int(to_vartype(dtype)),
    }
    out = _stopped(LayerHelper("eye").op("eye", {}, attrs, dtype=dtype))
    sizes = list(batch_shape or [])
    for count in reversed(sizes):
        if count <= 0:
            raise TypeError(f"eye needs a batch_shape of positive numbers, not {sizes}")
        out = LayerHelper("stack").op("stack", {"X": [out] * count}, {"axis": 0}, slot="Y")
    return out


def diag(diagonal: Any) -> Variable:
    """A matrix with this diagonal, a variable or an array."""
    helper = LayerHelper("diag")
    if not isinstance(diagonal, Variable):
        diagonal = assign(diagonal)
    return _stopped(helper.op("diag", {"Diagonal": [diagonal]}, dtype=diagonal.dtype))


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Variable:
    """Matrices with the last dimension of a variable or an array as diagonals."""
    helper = LayerHelper("diag_embed")
    if not isinstance(input, Variable):
        input = assign(input)
    attrs = {"offset": offset, "dim1": dim1, "dim2": dim2}
    return _stopped(helper.op("diag_embed", {"Input": [input]}, attrs, dtype=input.dtype))


def _tril_triu(type: str, input: Variable, diagonal: int, name: str | None) -> Variable:
    helper = LayerHelper(type, name=name)
    out = helper.create_variable(name=helper.name, dtype=input.dtype)
    helper.append_op("tril_triu", {"X": [input]}, {"Out": [out]}, {"diagonal": diagonal, "lower": type == "tril"})
    return out


def tril(input: Variable, diagonal: int = 0, name: str | None = None) -> Variable:
    """Zeros above a diagonal of the last two dimensions."""
    return _tril_triu("tril", input, diagonal, name)


def triu(input: Variable, diagonal: int = 0, name: str | None = None) -> Variable:
    """Zeros below a diagonal of the last two dimensions."""
    return _tril_triu("triu", input, diagonal, name)


def argmax(x: Variable, axis: int = 0) -> Variable:
    """The place of the largest element along an axis, int64."""
    return _stopped(LayerHelper("arg_max").op("arg_max", {"X": [x]}, {"axis": axis}, dtype="int64"))


def argmin(x: Variable, axis: int = 0) -> Variable:
    """The place of the smallest element along an axis, int64."""
    return _stopped(LayerHelper("arg_min").op("arg_min", {"X": [x]}, {"axis": axis}, dtype="int64"))


def argsort(
    input: Variable, axis: int = -1, descending: bool = False, name: str | None = None
) -> tuple[Variable, Variable]:
    """Sorted along an axis, and the places that the elements came from, int64."""
    helper = LayerHelper("argsort", name=name)
    out = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    places = helper.create_variable_for_type_inference("int64", stop_gradient=True)
    attrs = {"axis": axis, "descending": descending}
    helper.append_op("argsort", {"X": [input]}, {"Out": [out], "Indices": [places]}, attrs)
    return out, places


def shard_index(input: Variable, index_num: int, nshards: int, shard_id: int, ignore_value: int = -1) -> Variable:
    """Places within one of the parts that an index is cut into; `ignore_value` for those in other parts."""
    if not 0 <= shard_id < nshards:
        raise ValueError(f"shard_id {shard_id} is not in [0, {nshards})")
    attrs = {"index_num": index_num, "nshards": nshards, "shard_id": shard_id, "ignore_value": ignore_value}
    return LayerHelper("shard_index").op("shard_index", {"X": [input]}, attrs)


def autoincreased_step_counter(counter_name: str | None = None, begin: int = 1, step: int = 1) -> Variable:
    """A persistable int64 that grows by `step` in every run; it is `begin - 1 + step` in the first.

    Args:
        counter_name: `@STEP_COUNTER@` if None; layers that give the same name share the counter.
        begin: the value in the first run if `step` is 1.
        step: what each run adds.
    """
    helper = LayerHelper("global_step_counter")
    name = "@STEP_COUNTER@" if counter_name is None else counter_name
    block = helper.main_program.global_block()
    if block.has_var(name):
        return block.var(name)
    counter = helper.create_global_variable(persistable=True, name=name, shape=[1], dtype="int64")
    helper.set_variable_initializer(counter, Constant(begin - 1, force_cpu=True))
    # First in the program: whatever reads it sees this run's value.
    block._prepend_op("increment", {"X": [counter]}, {"Out": [counter]}, {"step": float(step)})
    return counter
