"""The model of a ProgramDesc, the program in `__model__`, `model.pb` and `.pdmodel`. Knows no bytes: `program_wire.py` does.

Every field keeps whether it was there (None or empty: it was not), and fields that are not known here keep their bytes.

Source: Fluid's framework.proto.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from holdfast.interop.expected import Expected
from holdfast.interop.tensor import DTYPES


class VarCode(IntEnum):
    """Types of variables that are no dtype."""

    LOD_TENSOR = 7
    SELECTED_ROWS = 8
    FEED_MINIBATCH = 9
    FETCH_LIST = 10
    STEP_SCOPES = 11
    LOD_RANK_TABLE = 12
    LOD_TENSOR_ARRAY = 13
    PLACE_LIST = 14
    READER = 15
    RAW = 17
    TUPLE = 18


class AttrCode(IntEnum):
    """Types of attributes; each names the field that holds the value."""

    INT = 0
    FLOAT = 1
    STRING = 2
    INTS = 3
    FLOATS = 4
    STRINGS = 5
    BOOLEAN = 6
    BOOLEANS = 7
    BLOCK = 8
    LONG = 9
    BLOCKS = 10
    LONGS = 11


_HOLDS = {
    AttrCode.INT: "i", AttrCode.FLOAT: "f", AttrCode.STRING: "s", AttrCode.INTS: "ints", AttrCode.FLOATS: "floats",
    AttrCode.STRINGS: "strings", AttrCode.BOOLEAN: "b", AttrCode.BOOLEANS: "bools", AttrCode.BLOCK: "block_idx",
    AttrCode.LONG: "l", AttrCode.BLOCKS: "blocks_idx", AttrCode.LONGS: "longs",
}  # fmt: skip


class Message(msgspec.Struct, kw_only=True):
    """A message; `unknown` has the fields that are not known here, as bytes."""

    unknown: bytes = b""


class Version(Message):
    """Of the program's format; 0 for Fluid."""

    version: int | None = None


class CompatibleInfo(Message):
    """From which version on an operator is compatible."""

    version: str = ""
    type: int = 0


class OpCompatiblePair(Message):
    """An operator's compatibility."""

    op_name: str = ""
    compatible_info: CompatibleInfo = msgspec.field(default_factory=CompatibleInfo)


class OpCompatibleMap(Message):
    """Compatibility of all operators, as 1.8 writes it."""

    pair: list[OpCompatiblePair] = []
    default_required_version: str | None = None


class TensorDesc(Message):
    """dtype (a code of `tensor.DTYPES`) and shape; -1 is an extent that is not known."""

    data_type: int = 0
    dims: list[int] = []


class LoDTensorDesc(Message):
    """A tensor and the number of its LoD levels."""

    tensor: TensorDesc = msgspec.field(default_factory=TensorDesc)
    lod_level: int | None = None


class ReaderDesc(Message):
    """What a reader gives."""

    lod_tensor: list[LoDTensorDesc] = []


class TupleDesc(Message):
    """Types of a tuple's elements."""

    element_type: list[int] = []


class VarType(Message):
    """A variable's type (a `VarCode`) and what belongs to it."""

    type: int = VarCode.LOD_TENSOR
    selected_rows: TensorDesc | None = None
    lod_tensor: LoDTensorDesc | None = None
    tensor_array: LoDTensorDesc | None = None
    reader: ReaderDesc | None = None
    tuple: TupleDesc | None = None


class VarDesc(Message):
    """A variable of a block. Only Paddle 2 and later record whether it is a parameter."""

    name: str
    type: VarType = msgspec.field(default_factory=VarType)
    persistable: bool | None = None
    need_check_feed: bool | None = None
    is_parameter: bool | None = None
    stop_gradient: bool | None = None

    @property
    def tensor(self) -> TensorDesc | None:
        """Its dtype and shape, for types that have them."""
        if self.type.selected_rows is not None:
            return self.type.selected_rows
        holder = self.type.lod_tensor or self.type.tensor_array
        return None if holder is None else holder.tensor


class OpVar(Message):
    """An input or output of an operator: its slot and the names of the variables."""

    parameter: str
    arguments: list[str] = []


class Attr(Message):
    """An attribute; `type` (an `AttrCode`) says which field has the value."""

    name: str
    type: int
    i: int | None = None
    f: float | None = None
    s: str | None = None
    ints: list[int] = []
    floats: list[float] = []
    strings: list[str] = []
    b: bool | None = None
    bools: list[bool] = []
    block_idx: int | None = None
    l: int | None = None  # noqa: E741 - the field's name
    blocks_idx: list[int] = []
    longs: list[int] = []

    @classmethod
    def of(cls, name: str, code: AttrCode, value: Any) -> Attr:
        """An attribute with a value."""
        return cls(name=name, type=int(code), **{_HOLDS[code]: value})

    @property
    def value(self) -> Any:
        """The value; None if the type is not known here."""
        return getattr(self, _HOLDS[AttrCode(self.type)]) if self.type in _HOLDS else None


class OpDesc(Message):
    """An operator of a block."""

    type: str
    inputs: list[OpVar] = []
    outputs: list[OpVar] = []
    attrs: list[Attr] = []
    is_target: bool | None = None

    def input(self, slot: str) -> list[str]:
        """Names of the variables in an input slot; empty if there is no such slot."""
        return next((var.arguments for var in self.inputs if var.parameter == slot), [])

    def output(self, slot: str) -> list[str]:
        """Names of the variables in an output slot; empty if there is no such slot."""
        return next((var.arguments for var in self.outputs if var.parameter == slot), [])

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return next((attr.value for attr in self.attrs if attr.name == name), default)


class BlockDesc(Message):
    """Variables and operators; block 0 is the global one."""

    idx: int = 0
    parent_idx: int = -1
    vars: list[VarDesc] = []
    ops: list[OpDesc] = []
    forward_block_idx: int | None = None


class ProgramDesc(Message):
    """A program."""

    blocks: list[BlockDesc] = []
    op_compatible_map: OpCompatibleMap | None = None
    version: Version | None = None

    def persistables(self) -> dict[str, Expected]:
        """Every variable that `save_persistables` saved, with its dtype and shape. Feeds and fetches are none."""
        kinds = {VarCode.LOD_TENSOR: "lod_tensor", VarCode.SELECTED_ROWS: "selected_rows"}
        found = {}
        for block in self.blocks:
            for var in block.vars:
                if not var.persistable or var.type.type not in kinds or (held := var.tensor) is None:
                    continue
                found[var.name] = Expected(
                    DTYPES.get(held.data_type),
                    tuple(held.dims),
                    kinds[VarCode(var.type.type)],  # type: ignore[arg-type]
                )
        return found

    def feeds(self) -> list[str]:
        """Names of the variables that are fed, in their order."""
        return self._ends("feed", lambda op: op.output("Out"))

    def fetches(self) -> list[str]:
        """Names of the variables that are fetched, in their order."""
        return self._ends("fetch", lambda op: op.input("X"))

    def _ends(self, type: str, names: Any) -> list[str]:  # noqa: A002 - the field's name
        ops = [op for op in (self.blocks[0].ops if self.blocks else []) if op.type == type]
        return [name for op in sorted(ops, key=lambda op: op.attr("col", 0)) for name in names(op)]
