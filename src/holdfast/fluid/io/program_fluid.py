"""Programs of real Fluid (`__model__`) as ours, and ours as Fluid's. Knows no bytes: interop does.

Fluid writes every attribute that a kernel ever had. Those that change no value are passed over by name; of the others an
operator here either knows the name, or the value must be the one that does nothing; else it is an error that names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.fluid import core, registry
from holdfast.fluid.framework import Block, Operator, Program, Variable, program_guard
from holdfast.fluid.io.program_json import OpRecord, add_operator, raise_problems
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

# They say how kernels work, or for quantisation and servers what this operator is not.
_HARMLESS = frozenset({
    "Scale_in", "Scale_in_eltwise", "Scale_out", "Scale_weights", "Scale_x", "Scale_y", "epmap",
    "exhaustive_search", "fix_seed", "force_fp32_output", "fuse_alpha", "fuse_beta", "fuse_brelu_threshold",
    "fuse_relu_before_depthwise_conv", "grad_inplace", "height_sections", "in_dtype", "is_distributed", "is_sparse",
    "mkldnn_data_type", "onednn_data_type", "op_device", "out_dtype", "remote_prefetch", "scale_out", "scale_x",
    "scale_y", "sync_stats", "table_names", "trainer_id", "use_cudnn", "use_mkldnn", "use_onednn", "use_quantizer",
    "with_quant_attr", "workspace_size_MB", "x_data_format", "y_data_format",
})  # fmt: skip
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
    """A program of Fluid's, without its feed and fetch operators; persistables of known shape are parameters.

    Raises:
        FormatError: it has operators, slots or attributes that are not known here; all are listed.
    """
    made, problems = Program(), list[str]()
    fed = set(desc.feeds())
    read = {n for b in desc.blocks for op in b.ops for var in op.inputs for n in var.arguments} | set(desc.fetches())
    for index, block in enumerate(desc.blocks):
        target = made.global_block() if index == 0 else made._create_block(block.parent_idx)
        for var in block.vars:
            _add_variable(target, var, fed, problems)
    made.current_block_idx = 0
    with program_guard(made, Program()):
        for target, block in reversed(list(zip(made.blocks, desc.blocks, strict=True))):
            for op in block.ops:
                if op.type not in (_FEED, _FETCH):
                    _add_operator(target, op, read, path, problems)
    raise_problems(path, problems)
    return made


def _add_variable(block: Block, var: VarDesc, fed: set[str], problems: list[str]) -> None:
    if var.type.type in (VarCode.FEED_MINIBATCH, VarCode.FETCH_LIST, VarCode.RAW):
        return
    tensor = var.tensor
    if tensor is None:
        problems.append(f"variable {var.name!r}: type {var.type.type} is not supported: only tensors are")
        return
    try:
        shape, dtype = [int(n) for n in tensor.dims], core.VarType(tensor.data_type)
        core.to_numpy(dtype)
        if var.persistable and not block.idx and shape and all(n >= 0 for n in shape):
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
    if not registry.exists(op.type):
        problems.append(f"operator {op.type!r} is not known here; docs/fluid/operators.md shows how one is added")
        return
    definition = registry.find(op.type)
    slots = {slot.name for slot in definition.outputs}
    # What nothing reads may be left out, such as what Fluid keeps for the gradient.
    outputs = {
        var.parameter: var.arguments
        for var in op.outputs
        if var.arguments and (var.parameter in slots or read.intersection(var.arguments))
    }
    inputs = {var.parameter: var.arguments for var in op.inputs if var.arguments}
    attrs, unknown = {}, []
    for attr in op.attrs:
        if attr.name in definition.attrs or (attr.name == "seed" and definition.random) or attr.name == "sub_block":
            attrs[attr.name] = attr.value
        elif attr.name in registry.IGNORED_ATTRS or attr.name in _HARMLESS:
            continue
        elif attr.value not in _NEUTRAL.get(attr.name, ()):
            unknown.append(f"operator {op.type}: attribute {attr.name!r} = {attr.value!r} is not supported")
    problems += unknown
    if not unknown:
        add_operator(block, OpRecord(op.type, inputs, outputs, attrs), path, problems)


def desc_of(program: Program, feeds: Sequence[str], fetches: Sequence[str]) -> ProgramDesc:
    """A program as Fluid's, with the feed and fetch operators that it puts around programs for prediction.

    Raises:
        FormatError: an attribute has no form in Fluid's files.
    """
    problems: list[str] = []
    blocks = []
    for block in program.blocks:
        vars = [_var_desc(v) for _, v in sorted(block.vars.items())]
        ops = [_op_desc(op, problems) for op in block.ops]
        if block.idx == 0:
            vars += [_holder(_FEED, VarCode.FEED_MINIBATCH), _holder(_FETCH, VarCode.FETCH_LIST)]
            before = [_end(_FEED, "X", _FEED, "Out", name, i) for i, name in enumerate(feeds)]
            after = [_end(_FETCH, "X", name, "Out", _FETCH, i) for i, name in enumerate(fetches)]
            # Fluid puts each feed before the last one; their columns say which is which.
            ops = [*reversed(before), *ops, *after]
        blocks.append(BlockDesc(idx=block.idx, parent_idx=block.parent_idx, vars=vars, ops=ops, forward_block_idx=-1))
    raise_problems("the program", problems)
    return ProgramDesc(blocks=blocks, version=Version(version=0))


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
    defaults = registry.find(op.type).attrs if registry.exists(op.type) else {}
    attrs = []
    for name, value in sorted(op.attrs.items()):
        if name == "op_role":
            continue
        code = AttrCode.BLOCK if name == "sub_block" else _code(value, defaults.get(name))
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
    return list(value) if isinstance(value, list | tuple) else int(value) if isinstance(value, core.VarType) else value
