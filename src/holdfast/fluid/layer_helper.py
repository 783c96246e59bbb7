"""LayerHelper: what every layer needs to add its variables and operators to the default programs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.core import is_floating, to_vartype
from holdfast.fluid.framework import (
    Block,
    Operator,
    Parameter,
    Program,
    Variable,
    default_main_program,
    default_startup_program,
)
from holdfast.fluid.initializer import Constant, XavierInitializer, global_initializer
from holdfast.fluid.param_attr import ParamAttr


class LayerHelper:
    """The key of a layer's names, and the programs it adds to.

    Args:
        layer_type: such as `"fc"`; the key is this with a counter.
        kwargs: the layer's arguments: `name` replaces the key; `param_attr`, `bias_attr`, `act`, `input` are used by the
            methods.
    """

    def __init__(self, layer_type: str, **kwargs: Any) -> None:
        self.kwargs = kwargs
        self.layer_type = layer_type
        name = kwargs.get("name")
        self.name: str = unique_name.generate(layer_type) if name is None else name

    @property
    def main_program(self) -> Program:
        """The program that operators are added to."""
        return default_main_program()

    @property
    def startup_program(self) -> Program:
        """The program that initialises."""
        return default_startup_program()

    @property
    def block(self) -> Block:
        """The block that is being built."""
        return self.main_program.current_block()

    def append_op(self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None) -> Operator:
        """Add an operator to the block that is being built."""
        return self.block.append_op(type, inputs, outputs, attrs)

    def op(self, type: str, inputs: Any, attrs: Any = None, *, dtype: Any = None, slot: str = "Out") -> Variable:
        """Add an operator with one output; returns that, a temporary `<key>.tmp_<k>`."""
        out = self.create_variable_for_type_inference(dtype)
        self.append_op(type, inputs, {slot: [out]}, attrs)
        return out

    def create_variable_for_type_inference(self, dtype: Any = None, stop_gradient: bool = False) -> Variable:
        """A temporary `<key>.tmp_<k>`; shape and dtype come from the operator that computes it."""
        return self.block.create_var(
            name=unique_name.generate(f"{self.name}.tmp"), dtype=dtype, persistable=False, stop_gradient=stop_gradient
        )

    def create_variable(self, **kwargs: Any) -> Variable:
        """A variable of the block that is being built."""
        return self.block.create_var(**kwargs)

    def create_global_variable(self, persistable: bool = False, **kwargs: Any) -> Variable:
        """A variable of the global block; gradients stop at it."""
        return self.main_program.global_block().create_var(persistable=persistable, stop_gradient=True, **kwargs)

    def set_variable_initializer(self, variable: Variable, initializer: Any) -> Variable:
        """Let the startup program fill a persistable variable."""
        block = self.startup_program.global_block()
        made = block.create_var(name=variable.name, shape=variable.shape, dtype=variable.dtype, persistable=True)
        initializer(made, block)
        return made

    def create_parameter(
        self, attr: Any, shape: Any, dtype: Any, is_bias: bool = False, default_initializer: Any = None
    ) -> Parameter | None:
        """A parameter `<key>.w_<k>` or `.b_<k>` in the main program, and its initialisation in the startup program.

        Returns:
            The parameter: an existing one if the attribute names it; None if the attribute is False.
        """
        attr = ParamAttr.to_attr(attr)
        if attr is False:
            return None
        attr = copy.copy(attr)
        if attr.name is None:
            attr.name = unique_name.generate(f"{self.name}.{'b' if is_bias else 'w'}")
        initializer = attr.initializer or global_initializer(is_bias) or default_initializer
        if initializer is None:
            kind = to_vartype(dtype)
            if not is_floating(kind):
                raise ValueError(f"parameter {attr.name}: {kind.name} needs an initializer in its ParamAttr")
            initializer = Constant(0.0) if is_bias else XavierInitializer()
        wanted = {
            "name": attr.name,
            "shape": [int(n) for n in shape],
            "dtype": dtype,
            "trainable": attr.trainable,
            "stop_gradient": not attr.trainable,
            "optimize_attr": {"learning_rate": attr.learning_rate},
            "regularizer": attr.regularizer,
            "gradient_clip_attr": attr.gradient_clip,
            "do_model_average": attr.do_model_average,
        }
        parameter = self.main_program.global_block().create_parameter(**wanted)
        parameter.initializer = initializer
        self.startup_program.global_block().create_parameter(**wanted, initializer=initializer)
        return parameter

    def multiple_input(self, input_param_name: str = "input") -> list[Variable]:
        """The layer's inputs as a list."""
        inputs = self.kwargs.get(input_param_name, [])
        return list(inputs) if isinstance(inputs, list | tuple) else [inputs]

    def input(self, input_param_name: str = "input") -> Variable:
        """The layer's only input.

        Raises:
            ValueError: it has several.
        """
        inputs = self.multiple_input(input_param_name)
        if len(inputs) != 1:
            raise ValueError(f"layer {self.layer_type} needs one input, not {len(inputs)}")
        return inputs[0]

    @property
    def param_attr(self) -> Any:
        """What the layer was told of its weights."""
        return ParamAttr.to_attr(self.kwargs.get("param_attr"))

    @property
    def bias_attr(self) -> Any:
        """What the layer was told of its bias."""
        return ParamAttr.to_attr(self.kwargs.get("bias_attr"))

    def multiple_param_attr(self, length: int) -> list[Any]:
        """One attribute for each of a layer's inputs."""
        given = self.param_attr
        if isinstance(given, list):
            if len(given) not in (1, length):
                raise ValueError(
                    f"layer {self.layer_type}: {length} inputs need 1 or {length} param_attr, not {len(given)}"
                )
            return given * length if len(given) == 1 and length > 1 else given
        if given is not False and given.name is not None and length > 1:
            return [given] * length
        return [copy.copy(given) for _ in range(length)]

    def iter_inputs_and_params(self, input_param_name: str = "input") -> Iterator[tuple[Variable, Any]]:
        """Every input with the attribute of its parameter."""
        inputs = self.multiple_input(input_param_name)
        yield from zip(inputs, self.multiple_param_attr(len(inputs)), strict=True)

    def input_dtype(self, input_param_name: str = "input") -> Any:
        """The dtype that all inputs have.

        Raises:
            ValueError: they differ.
        """
        dtypes = {v.dtype for v in self.multiple_input(input_param_name)}
        if len(dtypes) > 1:
            raise ValueError(
                f"inputs of layer {self.layer_type} have different dtypes: {', '.join(d.name for d in dtypes)}"
            )
        return dtypes.pop()

    def append_bias_op(self, input_var: Variable, dim_start: int = 1, dim_end: int | None = None) -> Variable:
        """Add a bias of the input's dimensions from `dim_start` to `dim_end`; returns the input if there is none."""
        size = list(input_var.shape[dim_start:dim_end])
        bias = self.create_parameter(self.bias_attr, size, input_var.dtype, is_bias=True)
        if bias is None:
            return input_var
        return self.op("elementwise_add", {"X": [input_var], "Y": [bias]}, {"axis": dim_start})

    def append_activation(self, input_var: Variable) -> Variable:
        """Apply the layer's `act`, a name or `{"type": name, …}`; returns the input if there is none."""
        act = self.kwargs.get("act")
        if act is None:
            return input_var
        attrs = {"type": act} if isinstance(act, str) else dict(act)
        return self.op(attrs.pop("type"), {"X": [input_var]}, attrs)
