"""Variable and Parameter: what is known of a value before there is one. Knows no operators.

A Parameter is a persistable Variable, and a persistable Variable lives across runs; every other is a temporary of one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.fluid import unique_name
from holdfast.fluid.core import VarType, to_vartype

if TYPE_CHECKING:
    from holdfast.fluid.framework import Block
    from holdfast.fluid.operators import Operator

GRAD_SUFFIX = "@GRAD"
EMPTY = "@EMPTY@"  # stands for a gradient that nobody needs


def grad_var_name(name: str) -> str:
    """The name of a variable's gradient."""
    return name + GRAD_SUFFIX


class Variable:
    """A variable of a block: a name, and what is known of its value.

    Attributes:
        name: unique in its block.
        shape: -1 for a dimension that is known at run time only, such as the batch; None if not known.
        dtype: a `VarType`.
        type: `VarType.LOD_TENSOR` for all that has a value.
        lod_level: 0: ordinary tensors only.
        persistable: whether it lives across runs. Setting it makes a temporary one that does.
        stop_gradient: whether gradients end here.
        is_data: whether it is fed.
        error_clip: a rule of `fluid.clip` for its gradient.
    """

    def __init__(
        self,
        block: Block,
        name: str | None = None,
        shape: Sequence[int] | None = None,
        dtype: Any = None,
        type: VarType = VarType.LOD_TENSOR,
        lod_level: int | None = None,
        persistable: bool | None = None,
        stop_gradient: bool = False,
        is_data: bool = False,
        initializer: Any = None,
        **_: Any,
    ) -> None:
        self.block = block
        self.name = name if name is not None else unique_name.generate("_generated_var")
        self.shape: Any = None if shape is None else tuple(int(n) for n in shape)
        self.dtype: Any = None if dtype is None else to_vartype(dtype)
        self.type = type
        self.lod_level = lod_level or 0
        self._persistable = bool(persistable)
        self.stop_gradient = stop_gradient
        self.is_data = is_data
        self.op: Operator | None = None
        self.error_clip: Any = None
        if initializer is not None:
            initializer(self, block)

    @property
    def persistable(self) -> bool:
        """Whether it lives across runs."""
        return self._persistable

    @persistable.setter
    def persistable(self, value: bool) -> None:
        if value != self._persistable:
            self._persistable = value
            self.block.program.changed()

    @property
    def desc(self) -> Variable:
        """The variable itself: programs of the era call `var.desc.set_shape()` and the like."""
        return self

    def set_shape(self, shape: Sequence[int]) -> None:
        """Say what the shape is, where the program knows better."""
        self.shape = tuple(shape)

    def set_error_clip(self, error_clip: Any) -> None:
        """Limit the gradient of this variable by a rule such as `ErrorClipByValue`; call it before `minimize`."""
        self.error_clip = error_clip

    _set_error_clip = set_error_clip

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The variable as a line of text."""
        kind = "parameter" if isinstance(self, Parameter) else "persistable" if self.persistable else "var"
        dtype = "?" if self.dtype is None else self.dtype.name.lower()
        text = f"{kind} {self.name} : {dtype}{list(self.shape) if self.shape is not None else '?'}"
        if isinstance(self, Parameter) and not self.trainable:
            text += " not trainable"
        return text + (" stop_gradient" if self.stop_gradient and with_details else "")

    def __str__(self) -> str:
        return self.to_string(with_details=True)

    __repr__ = __str__

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"variable {self.name} cannot be iterated over; use fluid.layers.unstack or split")


class Parameter(Variable):
    """A learned variable: persistable, with its initializer, learning rate and so on.

    Attributes:
        trainable: whether optimizers change it.
        optimize_attr: `{"learning_rate": factor}`.
        regularizer, gradient_clip_attr, do_model_average: as given in `ParamAttr`.
        initializer: what fills it in the startup program; None if nothing does.
    """

    def __init__(
        self,
        block: Block,
        shape: Sequence[int],
        dtype: Any,
        *,
        trainable: bool = True,
        optimize_attr: Mapping[str, Any] | None = None,
        regularizer: Any = None,
        gradient_clip_attr: Any = None,
        do_model_average: bool | None = False,
        initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        if not shape:
            raise ValueError("a parameter needs a shape; a scalar has [1]")
        if any(n < 0 for n in shape):
            raise ValueError(f"all dimensions of a parameter must be known, not {tuple(shape)}")
        kwargs.pop("persistable", None)
        super().__init__(block, shape=shape, dtype=dtype, persistable=True, **kwargs)
        self.trainable = trainable
        self.optimize_attr = dict(optimize_attr or {"learning_rate": 1.0})
        self.regularizer = regularizer
        self.gradient_clip_attr = gradient_clip_attr
        self.do_model_average = do_model_average
        self.initializer = initializer
        self.is_distributed = False
