"""Operator: a call of an operator in a block, and the role it has in training. Knows no values."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from holdfast.fluid import registry
from holdfast.fluid.variable import Variable

if TYPE_CHECKING:
    from holdfast.fluid.framework import Block


class OpRole(enum.IntFlag):
    """Why an operator is in a program; the numbers are Fluid's."""

    Forward = 0
    Backward = 1
    Optimize = 2
    RPC = 4
    Dist = 8
    LRSched = 16
    Loss = 256


_uids = itertools.count(1)


def _names_of(given: Mapping[str, Any] | None) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for slot, value in (given or {}).items():
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        names[slot] = [v.name if isinstance(v, Variable) else str(v) for v in values]
    return names


class Operator:
    """A call of an operator in a block: names of variables by slot, and attributes.

    Attributes:
        type: what `registry.find` knows.
        inputs, outputs: names by slot.
        attrs: plain values by name; `op_role` among them.
        uid: stays the same in clones, where a gradient operator names its forward operator by it.
    """

    def __init__(
        self,
        block: Block,
        type: str,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        uid: int | None = None,
    ) -> None:
        self.block = block
        self.type = type
        self.inputs = _names_of(inputs)
        self.outputs = _names_of(outputs)
        self.attrs = {name: value for name, value in (attrs or {}).items() if value is not None}
        self.attrs.setdefault("op_role", int(block.program._op_role))
        self.uid = next(_uids) if uid is None else uid

    @property
    def role(self) -> OpRole:
        """Why it is in the program."""
        return OpRole(self.attrs.get("op_role", 0))

    @property
    def input_arg_names(self) -> list[str]:
        """Names of all variables that it reads."""
        return [name for names in self.inputs.values() for name in names]

    @property
    def output_arg_names(self) -> list[str]:
        """Names of all variables that it writes."""
        return [name for names in self.outputs.values() for name in names]

    @property
    def input_names(self) -> list[str]:
        """Names of the input slots."""
        return list(self.inputs)

    @property
    def output_names(self) -> list[str]:
        """Names of the output slots."""
        return list(self.outputs)

    @property
    def attr_names(self) -> list[str]:
        """Names of the attributes."""
        return list(self.attrs)

    def input(self, name: str) -> list[str]:
        """Names of the variables in an input slot."""
        return list(self.inputs.get(name, []))

    def output(self, name: str) -> list[str]:
        """Names of the variables in an output slot."""
        return list(self.outputs.get(name, []))

    def attr(self, name: str) -> Any:
        """The value of an attribute."""
        return self.attrs[name]

    def has_attr(self, name: str) -> bool:
        """Whether the operator has the attribute."""
        return name in self.attrs

    def all_attrs(self) -> dict[str, Any]:
        """Every attribute."""
        return dict(self.attrs)

    def set_attr(self, name: str, value: Any) -> None:
        """Change an attribute."""
        self.attrs[name] = value
        self.block.program.changed()

    _set_attr = set_attr

    def sub_blocks(self) -> list[int]:
        """Indices of the blocks that it runs."""
        return [self.attrs["sub_block"]] if "sub_block" in self.attrs else []

    def to_string(self, throw_on_error: bool = False) -> str:
        """The operator as a line of text."""
        shown = {k: v for k, v in sorted(self.attrs.items()) if k not in registry.IGNORED_ATTRS}
        ins = ", ".join(f"{slot}={names}" for slot, names in self.inputs.items() if names)
        outs = ", ".join(f"{slot}={names}" for slot, names in self.outputs.items() if names)
        return f"{{{outs}}} = {self.type}({ins}){' ' + str(shown) if shown else ''}"

    __str__ = __repr__ = to_string
