"""Programs of real Fluid (`__model__`) as ours, and ours as Fluid's. Knows no bytes: interop does.

A program for training has its gradients and updates, too. Fluid writes every attribute that a kernel ever had. Those that
change no value are passed over by name; of the others an operator here either knows the name, or the value must be the one
that does nothing; else it is an error that names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.fluid import core, registry
from holdfast.fluid.framework import Block, Operator, Program, Variable, program_guard
from holdfast.fluid.infer import FORWARD, is_gradient
from holdfast.fluid.io.gradient_forms import forward_type, in_fluid, linked
from holdfast.fluid.io.program_json import OpRecord, add_operator, raise_problems
from holdfast.fluid.layers.control_flow import add_conditional_block
from holdfast.fluid.variable import GRAD_SUFFIX
from holdfast.interop.program_desc import (
    Attr,
    AttrCode,
    BlockDesc,
    LoDTensorDesc,
    OpDesc,
    OpVar,
    ProgramDesc,
    TensorDesc,
    VarCode,
    VarDesc,
    VarType,
    Version,
)

_FEED, _FETCH = "feed", "fetch"

_OWN = frozenset({
    "apply_average", "apply_moving_average", "limited_decay", "lookahead", "moving_average", "piecewise_rate",
    "restore_parameter", "warmup_rate",
})  # fmt: skip
"""Operators that Fluid does not have."""

# They say how kernels work, or for quantisation and servers what this operator is not.
_HARMLESS = frozenset({
    "@ALL_KERNELS_MUST_COMPUTE_RUNTIME_SHAPE@", "Scale_in", "Scale_in_eltwise", "Scale_out", "Scale_weights",
    "Scale_x", "Scale_y", "epmap",
    "exhaustive_search", "fix_seed", "force_fp32_output", "fuse_alpha", "fuse_beta", "fuse_brelu_threshold",
    "fuse_relu_before_depthwise_conv", "grad_inplace", "height_sections", "in_dtype", "is_distributed", "is_sparse",
    "mkldnn_data_type", "onednn_data_type", "op_device", "out_dtype", "remote_prefetch", "scale_out", "scale_x",
    "scale_y", "sync_stats", "table_names", "trainer_id", "use_cudnn", "use_mkldnn", "use_onednn", "use_quantizer",
    "with_quant_attr", "workspace_size_MB", "x_data_format", "y_data_format",
})  # fmt: skip
_OF_THE_FORWARD_OPERATOR = {"concat": frozenset({"num", "sections"})}  # the gradient of a split is a concat with them
# Of these only what is given here does nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "fuse_relu": (False,),
    "fuse_with_relu": (False,),
    "fuse_brelu": (False,),
    "fuse_activation": ("",),
    "fuse_residual_connection": (False,),
    "trainable_statistics": (False,),
    "use_global_stats": (False,),
    "data_format": ("NCHW", "AnyLayout", "NCDHW", ""),
    "data_layout": ("NCHW", "AnyLayout"),
    "padding_algorithm": ("EXPLICIT",),
    "adaptive": (False,),
    "is_test": (True, False),
    "seed": (0,),
    "is_negative_slope": (False,),
}


def program_of(desc: ProgramDesc, path: str) -> Program:
    """A program of Fluid's, without its feed and fetch operators.

    Fluid 1.8's files do not say which persistables are parameters. In a program that updates some those are, and the statistics
    of `batch_norm`; in any other all that have a known shape.

    Raises:
        FormatError: it has operators, slots or attributes that are not known here; all are listed.
    """
    made, problems = Program(), list[str]()
    fed = set(desc.feeds())
    ops = [op for b in desc.blocks for op in b.ops]
    read = {n for op in ops for n in _read(op)} | set(desc.fetches())
    updated = {n for op in ops for n in op.input("Param")}
    learned = updated | {n for op in ops if op.type == "batch_norm" for s in ("Mean", "Variance") for n in op.input(s)}
    for index, block in enumerate(desc.blocks):
        if index and not 0 <= block.parent_idx < index:
            raise_problems(path, [f"block {index} stands in block {block.parent_idx}"])
        target = made.global_block() if index == 0 else made._create_block(block.parent_idx)
        for var in block.vars:
            _add_variable(target, var, fed, learned if updated else None, problems)
    made.current_block_idx = 0
    with program_guard(made, Program()):
        for target, block in reversed(list(zip(made.blocks, desc.blocks, strict=True))):
            for op in block.ops:
                if op.type not in (_FEED, _FETCH):
                    _add_operator(target, op, read, path, problems)
    made.feed_names, made.fetch_names = desc.feeds(), desc.fetches()
    known = made.global_block().vars
    ends = (*made.feed_names, *made.fetch_names)
    raise_problems(
        path, [*problems, *(f"{n!r} is fed or fetched, and no variable of it" for n in ends if n not in known)]
    )
    return made


def _read(op: OpDesc) -> list[str]:
    """What an operator reads; of a gradient operator only gradients, as what it needs of the forward operator is kept here."""
    gradient = not registry.exists(op.type) and forward_type(op.type) is not None
    return [n for var in op.inputs if not gradient or var.parameter.endswith(GRAD_SUFFIX) for n in var.arguments]


def _add_variable(block: Block, var: VarDesc, fed: set[str], learned: set[str] | None, problems: list[str]) -> None:
    if var.type.type in (VarCode.FEED_MINIBATCH, VarCode.FETCH_LIST, VarCode.RAW):
        return
    if var.type.type == VarCode.STEP_SCOPES:
        block.create_var(name=var.name, type=core.VarType.STEP_SCOPES)
        return
    tensor = var.tensor
    if tensor is None:
        problems.append(f"variable {var.name!r}: type {var.type.type} is not supported: only tensors are")
        return
    try:
        shape, dtype = [int(n) for n in tensor.dims], core.VarType(tensor.data_type)
        core.to_numpy(dtype)
        fixed = var.persistable and not block.idx and shape and all(n >= 0 for n in shape)
        if fixed and (learned is None or var.name in learned):
            block.create_parameter(name=var.name, shape=shape, dtype=dtype)
            return
        level = var.type.lod_tensor.lod_level if var.type.lod_tensor is not None else 0
        block.create_var(
            name=var.name, shape=shape, dtype=dtype, persistable=bool(var.persistable), is_data=var.name in fed,
            stop_gradient=var.name in fed, lod_level=level,
        )  # fmt: skip
    except ValueError as error:
        problems.append(f"variable {var.name!r}: {error}")


def _add_operator(block: Block, op: OpDesc, read: set[str], path: str, problems: list[str]) -> None:
    role = op.attr("op_role", 0)
    if type(role) is not int:
        problems.append(f"operator {op.type}: op_role = {role!r}")
    elif op.type == "conditional_block":
        _add_conditional_block(block, op, role, problems)
    elif registry.exists(op.type):
        _add_plain(block, op, role, read, path, problems)
    elif (kind := forward_type(op.type)) is not None:
        parts = linked(block, kind, _slots(op.inputs), _slots(op.outputs))
        if parts is None:
            problems.append(f"operator {op.type}: the operator {kind} whose gradient it is does not stand before it")
        else:
            block.append_op(*parts[:3], {**parts[3], "op_role": role})
    else:
        problems.append(f"operator {op.type!r} is not known here; docs/fluid/operators.md shows how one is added")


def _slots(given: Sequence[OpVar]) -> dict[str, list[str]]:
    return {var.parameter: var.arguments for var in given if var.arguments}


def _add_conditional_block(block: Block, op: OpDesc, role: int, problems: list[str]) -> None:
    """What it reads is found anew: Fluid leaves out the values that its outputs keep where the condition does not hold."""
    index, condition, scope = op.attr("sub_block"), op.input("Cond"), op.output("Scope")
    blocks = block.program.blocks
    if type(index) is not int or not block.idx < index < len(blocks) or blocks[index].parent_idx != block.idx:
        problems.append(f"operator {op.type}: its block {index!r} is none of block {block.idx}")
    elif len(condition) != 1 or len(scope) != 1 or any(block.find(n) is None for n in (*condition, *scope)):
        problems.append(f"operator {op.type}: needs one variable in Cond and one in Scope")
    else:
        add_conditional_block(block, blocks[index], condition[0], scope[0])
        block.ops[-1].attrs["op_role"] = role


def _add_plain(block: Block, op: OpDesc, role: int, read: set[str], path: str, problems: list[str]) -> None:
    definition = registry.find(op.type)
    slots = {slot.name for slot in definition.outputs}
    # What nothing reads may be left out, such as what Fluid keeps for the gradient.
    outputs = {s: names for s, names in _slots(op.outputs).items() if s in slots or read.intersection(names)}
    attrs, unknown = dict[str, Any](op_role=role), []
    passed = registry.IGNORED_ATTRS | _HARMLESS | _OF_THE_FORWARD_OPERATOR.get(op.type, frozenset())
    for attr in op.attrs:
        if attr.name in definition.attrs or (attr.name == "seed" and definition.random):
            attrs[attr.name] = attr.value
        elif attr.name in passed:
            continue
        elif attr.value not in _NEUTRAL.get(attr.name, ()):
            unknown.append(f"operator {op.type}: attribute {attr.name!r} = {attr.value!r} is not supported")
    problems += unknown
    if not unknown:
        add_operator(block, OpRecord(op.type, _slots(op.inputs), outputs, attrs), path, problems)


def desc_of(program: Program, feeds: Sequence[str], fetches: Sequence[str]) -> ProgramDesc:
    """A program as Fluid's, with the feed and fetch operators that it puts around programs for prediction.

    Raises:
        FormatError: operators, gradients or attributes have no form in Fluid's files; all are listed.
    """
    problems: list[str] = []
    forwards = {op.uid: op for op in program.all_ops() if not is_gradient(op)}
    blocks = []
    for block in program.blocks:
        vars = [_var_desc(v) for _, v in sorted(block.vars.items())]
        ops = [_op_desc(each, problems) for op in block.ops for each in _in_fluid(op, forwards, problems)]
        if block.idx == 0:
            vars += [_holder(_FEED, VarCode.FEED_MINIBATCH), _holder(_FETCH, VarCode.FETCH_LIST)]
            before = [_end(_FEED, "X", _FEED, "Out", name, i) for i, name in enumerate(feeds)]
            after = [_end(_FETCH, "X", name, "Out", _FETCH, i) for i, name in enumerate(fetches)]
            # Fluid puts each feed before the last one; their columns say which is which.
            ops = [*reversed(before), *ops, *after]
        blocks.append(BlockDesc(idx=block.idx, parent_idx=block.parent_idx, vars=vars, ops=ops, forward_block_idx=-1))
    raise_problems("it cannot be written as Fluid's", problems)
    return ProgramDesc(blocks=blocks, version=Version(version=0))


def _in_fluid(op: Operator, forwards: Mapping[int, Operator], problems: list[str]) -> list[Operator]:
    if is_gradient(op):
        return in_fluid(op, forwards[op.attrs[FORWARD]], problems)
    if op.type in _OWN:
        problems.append(f"operator {op.type} is Holdfast's own: Fluid builds the same of many")
    return [] if op.type == "init_random_state" else [op]  # Fluid's random operators have no state


def _var_desc(v: Variable) -> VarDesc:
    tensor = TensorDesc(data_type=int(v.dtype if v.dtype is not None else core.VarType.FP32), dims=list(v.shape or []))
    holder = LoDTensorDesc(tensor=tensor, lod_level=v.lod_level)
    return VarDesc(name=v.name, type=VarType(type=int(v.type), lod_tensor=holder), persistable=v.persistable)


def _holder(name: str, code: VarCode) -> VarDesc:
    return VarDesc(name=name, type=VarType(type=int(code)), persistable=True)


def _end(type: str, slot_in: str, name_in: str, slot_out: str, name_out: str, column: int) -> OpDesc:
    return OpDesc(
        type=type,
        inputs=[OpVar(parameter=slot_in, arguments=[name_in])],
        outputs=[OpVar(parameter=slot_out, arguments=[name_out])],
        attrs=[Attr.of("col", AttrCode.INT, column)],
    )


def _op_desc(op: Operator, problems: list[str]) -> OpDesc:
    kind = op.type if registry.exists(op.type) else forward_type(op.type)
    defaults = {} if kind is None else registry.find(kind).attrs
    attrs = []
    for name, value in sorted(op.attrs.items()):
        if name == "op_role" and not value:
            continue
        code = _CODES.get(f"{kind}.{name}") or _code(value, defaults.get(name))
        if code is None:
            problems.append(f"operator {op.type}: attribute {name!r} = {value!r} has no form in Fluid's files")
        else:
            attrs.append(Attr.of(name, code, _converted(value, code)))
    return OpDesc(
        type=op.type,
        inputs=[OpVar(parameter=slot, arguments=names) for slot, names in sorted(op.inputs.items())],
        outputs=[OpVar(parameter=slot, arguments=names) for slot, names in sorted(op.outputs.items())],
        attrs=attrs,
    )


_CODES = {
    "None.sub_block": AttrCode.BLOCK,
    "assign_value.bool_values": AttrCode.INTS,
    "fill_constant.shape": AttrCode.LONGS,
    "lookup_table.padding_idx": AttrCode.LONG,
    "lookup_table_v2.padding_idx": AttrCode.LONG,
    "roll.dims": AttrCode.LONGS,
    "roll.shifts": AttrCode.LONGS,
    "space_to_depth.blocksize": AttrCode.LONG,
}
"""Types of attributes that are not seen from their values."""


def _code(value: Any, default: Any) -> AttrCode | None:
    """Fluid's type for a value; where Python's is not telling, the operator's own default decides."""
    items = list(value) if isinstance(value, list | tuple) else None
    first = value if items is None else items[0] if items else None
    example = default[0] if isinstance(default, list | tuple) and default else default
    many = items is not None
    if isinstance(first, bool):
        return AttrCode.BOOLEANS if many else AttrCode.BOOLEAN
    if isinstance(first, float) or (isinstance(first, int) and isinstance(example, float)):
        return AttrCode.FLOATS if many else AttrCode.FLOAT
    if isinstance(first, int) or items == []:
        numbers: list[int] = items if items is not None else [value]
        if all(-(1 << 31) <= n < 1 << 31 for n in numbers):
            return AttrCode.INTS if many else AttrCode.INT
        return AttrCode.LONGS if many else AttrCode.LONG
    if isinstance(first, str):
        return AttrCode.STRINGS if many else AttrCode.STRING
    return None


def _converted(value: Any, code: AttrCode) -> Any:
    if code == AttrCode.FLOAT:
        return float(value)
    if code == AttrCode.FLOATS:
        return [float(v) for v in value]
    if code == AttrCode.INTS:
        return [int(v) for v in value]
    return list(value) if isinstance(value, list | tuple) else int(value) if isinstance(value, core.VarType) else value
