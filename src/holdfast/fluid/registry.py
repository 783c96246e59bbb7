"""The registry of operators: each is a small pure function of JAX arrays, with its slots written as a line of text.

    @op("X Y -> Out")
    def elementwise_max(x, y, *, axis=-1): ...

Positional parameters are the input slots, keyword-only ones the attributes; what is returned goes to the output slots. A slot
with `*` holds any number of variables (a list), one with `?` may be left out (None). A keyword-only parameter `key` makes the
operator random, `is_test` one that behaves otherwise in a program for tests. Shapes, dtypes and gradients follow from the
function itself (see infer.py and backward.py); nothing else has to be written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast.fluid.core import EnforceNotMet

F = TypeVar("F", bound=Callable[..., Any])


class OperatorError(EnforceNotMet, ValueError):
    """An operator does not fit its inputs: found while the program was built, or when a run knew their shapes."""


class ValueDependentShape(ValueError):
    """The shape of what an operator gives depends on values that are known at run time only.

    While a program is built, its layer says what is known of the shape; in a run, XLA cannot compile it.
    """


@dataclass(frozen=True, slots=True)
class Slot:
    """A named group of an operator's inputs or outputs."""

    name: str
    many: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class OpDef:
    """What an operator is.

    Attributes:
        type: its name in programs.
        inputs, outputs: the slots, in the order of the function's parameters and results.
        fn: the function; None for operators that the lowering carries out itself.
        attrs: default of every attribute; `inspect.Parameter.empty` if it must be given.
        random: whether the function takes a `key`.
        differentiable: False if no gradient goes through it.
    """

    type: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    fn: Callable[..., Any] | None
    attrs: dict[str, Any]
    random: bool
    differentiable: bool


_ops: dict[str, OpDef] = {}

# Attributes of real Fluid's operators that say how its kernels work or who added the operator, and change no value.
IGNORED_ATTRS = frozenset(
    (
        "op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "with_quant_attr", "use_cudnn", "use_mkldnn",
        "is_sparse", "is_distributed", "remote_prefetch",
    )
)  # fmt: skip


def _slots(text: str) -> tuple[Slot, ...]:
    return tuple(Slot(s.rstrip("*?"), s.endswith("*"), s.endswith("?")) for s in text.split())


def op(spec: str, type: str | None = None, *, differentiable: bool = True) -> Callable[[F], F]:
    """Register a function as an operator.

    Args:
        spec: the slots, as `"X Y? -> Out Mask"`; see the module's docstring.
        type: the operator's name; the function's own if None.
        differentiable: False if no gradient goes through it.
    """
    inputs, outputs = (_slots(part) for part in spec.split("->"))

    def register(fn: F) -> F:
        name = type or fn.__name__.rstrip("_")
        parameters = inspect.signature(fn).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if len(positional) != len(inputs):
            raise TypeError(f"operator {name}: {len(inputs)} input slots, but {len(positional)} positional parameters")
        if name in _ops:
            raise TypeError(f"operator {name} is registered twice")
        random = keywords.pop("key", None) is not None  # its default is inspect.Parameter.empty
        _ops[name] = OpDef(name, inputs, outputs, fn, keywords, random, differentiable)
        return fn

    return register


def find(type: str) -> OpDef:
    """The operator of this name.

    Raises:
        NotImplementedError: there is none.
    """
    try:
        return _ops[type]
    except KeyError:
        raise NotImplementedError(
            f"there is no operator {type!r}; docs/fluid/operators.md shows how one is added in a few lines"
        ) from None


def exists(type: str) -> bool:
    """Whether there is an operator of this name."""
    return type in _ops


def names() -> list[str]:
    """The names of all operators, sorted."""
    return sorted(_ops)


def arguments(definition: OpDef, attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes that the function takes, out of an operator's."""
    return {name: attrs[name] for name in definition.attrs if name in attrs}


def call(definition: OpDef, inputs: list[Any], attrs: dict[str, Any], key: Any) -> list[Any]:
    """Run an operator's function.

    Args:
        definition: the operator.
        inputs: for each input slot an array, a list of arrays (slots with `*`) or None.
        attrs: the operator's attributes; those that the function does not take are left out.
        key: a JAX random key; None if the operator is not random.

    Returns:
        For each output slot an array, a list or None.
    """
    assert definition.fn is not None
    keywords = arguments(definition, attrs)
    if definition.random:
        keywords["key"] = key
    result = definition.fn(*inputs, **keywords)
    return list(result) if len(definition.outputs) > 1 else [result]
