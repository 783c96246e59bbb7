"""A program for prediction as readable JSON: a small schema of its own, versioned, with a digest. Nothing in it is executed.

The document is `{"format", "version", "digest", "program"}`; the digest is over the bytes of `program`, and may be left out in a
file that was written by hand. Attributes are typed JSON (docs/format.md, section 5).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from holdfast.errors import FormatError, VersionError
from holdfast.fluid import core
from holdfast.fluid.framework import Block, Parameter, Program, Variable, program_guard
from holdfast.fluid.registry import IGNORED_ATTRS
from holdfast.format import values
from holdfast.format.digests import hexdigest

T = TypeVar("T")
FORMAT, VERSION = "holdfast.fluid.program", 1
MAX_BYTES = 256 << 20
"""No program of more bytes is read."""


class VarRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A variable: `kind` is that of the guide (parameter, persistable, temporary); shape and dtype are null if not known."""

    name: str
    kind: str
    dtype: str | None
    shape: list[int] | None
    trainable: bool = True
    fed: bool = False
    lod_level: int = 0


class OpRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An operator: names of variables by slot, and attributes."""

    type: str
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    attrs: dict[str, Any] = {}


class BlockRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A block; the first is the global one, and its parent is -1."""

    parent: int
    variables: list[VarRecord]
    operators: list[OpRecord]


class StableHLO(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The export beside the program: the file's name, or why there is none; the order of the flat arguments."""

    file: str | None
    reason: str = ""
    weights: list[str] = []
    feeds: list[str] = []


class ProgramRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program: feeds and fetches in their order; `params` is where the parameters are, in the folder; null: nowhere."""

    feeds: list[str]
    fetches: list[str]
    params: str | None
    stablehlo: StableHLO
    blocks: list[BlockRecord]


class _Head(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    program: msgspec.Raw
    digest: str | None = None


def to_bytes(record: ProgramRecord) -> bytes:
    """The document, with a line for each variable and each operator."""
    program = _laid_out(record)
    head = {"format": FORMAT, "version": VERSION, "digest": hexdigest(program)}
    return msgspec.json.encode(head)[:-1] + b',\n"program": ' + program + b"}\n"


def _laid_out(record: ProgramRecord) -> bytes:
    encode = msgspec.json.encode
    blocks = [
        b'{"parent":%b,"variables":[\n%b],\n"operators":[\n%b]}'
        % (encode(b.parent), b",\n".join(map(encode, b.variables)), b",\n".join(map(encode, b.operators)))
        for b in record.blocks
    ]
    ends = msgspec.json.encode(msgspec.structs.replace(record, blocks=[]))
    return ends.removesuffix(b"[]}") + b"[\n" + b",\n".join(blocks) + b"]}"


def from_bytes(data: bytes, path: str) -> ProgramRecord:
    """The program of a document.

    Raises:
        VersionError: a newer version of this library wrote it.
        FormatError: it is malformed, or damaged.
    """
    head = _decoded(data, _Head, path)
    if head.format != FORMAT:
        raise FormatError(f"{path} is no program of Holdfast: its format is {head.format!r}")
    if head.version > VERSION:
        raise VersionError(f"{path} is of version {head.version}; this release reads up to {VERSION}. Upgrade holdfast")
    document = _decoded(data, _Document, path)
    program = bytes(document.program)
    if document.digest is not None and hexdigest(program) != document.digest:
        raise FormatError(
            f"{path} is damaged: its digest does not match. If it was changed on purpose, remove the digest from it"
        )
    return _decoded(program, ProgramRecord, path)


def _decoded(data: bytes, type: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no program of Holdfast: {error}") from error


def blocks_of(program: Program) -> list[BlockRecord]:
    """A program's blocks.

    Raises:
        FormatError: an attribute of an operator has no form in JSON.
    """
    return [
        BlockRecord(
            block.parent_idx,
            [_variable(v) for _, v in sorted(block.vars.items())],
            [
                OpRecord(
                    op.type,
                    {slot: names for slot, names in op.inputs.items() if names},
                    {slot: names for slot, names in op.outputs.items() if names},
                    {k: _attribute(op.type, k, v) for k, v in sorted(op.attrs.items()) if k not in IGNORED_ATTRS},
                )
                for op in block.ops
            ],
        )
        for block in program.blocks
    ]


def _variable(v: Variable) -> VarRecord:
    return VarRecord(
        v.name,
        "parameter" if isinstance(v, Parameter) else "persistable" if v.persistable else "temporary",
        None if v.dtype is None else v.dtype.name,
        None if v.shape is None else list(v.shape),
        v.trainable if isinstance(v, Parameter) else True,
        v.is_data,
        v.lod_level,
    )


def _attribute(op: str, name: str, value: Any) -> Any:
    try:
        return values.encode(int(value) if isinstance(value, core.VarType) else value)
    except values.UnsupportedValueError as error:
        raise FormatError(f"operator {op}: attribute {name!r} cannot be saved: {error}") from error


def program_of(record: ProgramRecord, path: str) -> Program:
    """The program of a record, with every operator checked against the registry.

    Raises:
        FormatError: operators, slots, attributes or variables are unknown or do not fit; all are listed.
    """
    if not record.blocks or record.blocks[0].parent != -1:
        raise FormatError(f"{path}: there is no global block")
    made, problems = Program(), list[str]()
    for index, block in enumerate(record.blocks):
        if index and not 0 <= block.parent < index:
            problems.append(f"block {index} stands in block {block.parent}")
        target = made.global_block() if index == 0 else made._create_block(block.parent)
        for variable in block.variables:
            _add_variable(target, variable, problems)
    made.current_block_idx = 0
    if not problems:
        # Inner blocks first: what runs them looks into them.
        with program_guard(made, Program()):
            for target, block in reversed(list(zip(made.blocks, record.blocks, strict=True))):
                for op in block.operators:
                    add_operator(target, op, path, problems)
    known = made.global_block().vars
    problems += [
        f"{n!r} is fed or fetched, and no variable of it" for n in (*record.feeds, *record.fetches) if n not in known
    ]
    raise_problems(path, problems)
    made.feed_names, made.fetch_names = list(record.feeds), list(record.fetches)
    return made


def raise_problems(path: str, problems: list[str]) -> None:
    """Raise one FormatError for all of them, if there are any."""
    if problems:
        raise FormatError("\n  ".join([f"{path}: {len(problems)} problem(s) with the program:", *problems[:50]]))


def _add_variable(block: Block, v: VarRecord, problems: list[str]) -> None:
    try:
        _make_variable(block, v).stop_gradient = v.fed
    except (ValueError, KeyError) as error:
        problems.append(f"variable {v.name!r}: {error}")


def _make_variable(block: Block, v: VarRecord) -> Variable:
    if v.name in block.vars:
        raise ValueError("it is there twice")
    dtype = None if v.dtype is None else core.VarType[v.dtype]
    if dtype is not None:
        core.to_numpy(dtype)
    if v.kind == "parameter":
        if block.idx:
            raise ValueError("a parameter must be in the global block")
        return block.create_parameter(name=v.name, shape=v.shape or [], dtype=dtype, trainable=v.trainable)
    if v.kind not in ("persistable", "temporary"):
        raise ValueError(f"kind {v.kind!r} is not known")
    return block.create_var(
        name=v.name,
        shape=v.shape,
        dtype=dtype,
        persistable=v.kind == "persistable",
        is_data=v.fed,
        lod_level=v.lod_level,
    )


def add_operator(block: Block, op: OpRecord, path: str, problems: list[str]) -> None:
    """Add an operator to a block; what is wrong with it goes to the list."""
    if unknown := [n for names in op.outputs.values() for n in names if block.find(n) is None]:
        problems.append(f"operator {op.type}: its outputs name no variable of the program: {', '.join(unknown)}")
        return
    try:
        attrs = {name: values.decode(value, path) for name, value in op.attrs.items()}
        block.append_op(op.type, op.inputs, op.outputs, attrs)
    except (ValueError, TypeError, NotImplementedError) as error:
        problems.append(f"operator {op.type} -> {', '.join(n for ns in op.outputs.values() for n in ns)}: {error}")
