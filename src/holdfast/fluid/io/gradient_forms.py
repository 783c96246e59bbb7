"""Gradient operators as Fluid's files have them, and back. Knows operators, no bytes.

Here a gradient operator names its forward operator, whose VJP it is. In Fluid's files it has the forward operator's attributes
and inputs instead, and some gradients are plain operators: that of a `cast` is a `cast`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.fluid import registry
from holdfast.fluid.framework import Block
from holdfast.fluid.infer import FORWARD
from holdfast.fluid.operators import Operator
from holdfast.fluid.variable import EMPTY, GRAD_SUFFIX

_ODD = {"cross_entropy2": "cross_entropy_grad2"}
_FORWARD_OF_ODD = {gradient: forward for forward, gradient in _ODD.items()}
_SAME = frozenset({"assign", "flip", "reverse", "increment"})  # the gradient passes as the value does, or as it is
_KERNELS: Mapping[str, Any] = {
    "Scale_in": 1.0, "Scale_in_eltwise": 1.0, "Scale_out": 1.0, "Scale_weights": [1.0], "Scale_x": 1.0, "Scale_y": 1.0,
    "adaptive": False,
    "data_format": "NCHW", "data_layout": "NCHW", "exhaustive_search": False, "fix_seed": False,
    "force_fp32_output": False, "in_dtype": -1, "fuse_activation": "", "fuse_alpha": 0.0, "fuse_beta": 0.0, "fuse_brelu": False,
    "fuse_brelu_threshold": 6.0, "fuse_relu": False, "fuse_relu_before_depthwise_conv": False,
    "fuse_residual_connection": False, "fuse_with_relu": False, "grad_inplace": False,
    "is_distributed": False, "is_sparse": False, "is_test": False, "padding_algorithm": "EXPLICIT",
    "remote_prefetch": False, "scale_out": 1.0, "scale_x": 1.0, "scale_y": [1.0], "trainer_id": 0,
    "trainable_statistics": False, "use_cudnn": False, "use_global_stats": False, "use_mkldnn": False,
    "use_quantizer": False, "workspace_size_MB": 512, "x_data_format": "", "y_data_format": "",
}  # fmt: skip
"""What Fluid's kernels ask for. Of other operators Fluid knows the defaults; gradients have none there."""
_READ = {
    "Out": "cos_sim dist elementwise_div exp hard_sigmoid leaky_relu lrn maxout pool2d pool3d reciprocal reduce_max reduce_min "
    "reduce_prod relu6 relu rsqrt selu sigmoid soft_relu softmax sqrt tanh",
    "XShape": "cross_entropy2 flatten2 reshape2 squeeze2 transpose2 unsqueeze2",
    "Mask": "dropout max_pool2d_with_index max_pool3d_with_index",
    "SavedMean": "batch_norm instance_norm", "SavedVariance": "batch_norm instance_norm",
    "Mean": "layer_norm", "Variance": "group_norm layer_norm", "Y": "group_norm",
    "XNorm": "cos_sim", "YNorm": "cos_sim", "Norm": "norm", "MatchX": "cross_entropy2", "MidOut": "lrn",
    "Activated": "margin_rank_loss", "Diff": "smooth_l1_loss", "Residual": "huber_loss",
    "SampleCenterDiff": "center_loss", "Softmax": "softmax_with_cross_entropy",
}  # fmt: skip
"""The forward operators' outputs that gradients read, and whose. Fluid's kernels take others as a sign of something else."""
_NONE = frozenset({"diag_embed", "conditional_block"})  # Fluid has none, or one with a block of its own


def in_fluid(op: Operator, forward: Operator, problems: list[str]) -> list[Operator]:
    """The operators that stand for a gradient operator in Fluid's files.

    Args:
        op: the gradient operator.
        forward: its forward operator.
        problems: a sentence is added to it if there are none.
    """
    kind, role = forward.type, op.attrs["op_role"]
    if kind in _NONE:
        problems.append(f"operator {op.type} has no form in Fluid's files")
        return []
    plain = _plain(op, forward)
    if plain is not None:
        return [Operator(op.block, t, i, o, {**attrs, "op_role": role}) for t, i, o, attrs in plain]
    defaults = {n: v for n, v in registry.find(kind).attrs.items() if v is not inspect.Parameter.empty}
    attrs = {**_KERNELS, **defaults, **_windows(forward), **forward.attrs, "op_role": role}
    unread = {slot for slot in forward.outputs if kind not in _READ.get(slot, "").split()}
    inputs = {slot: names for slot, names in op.inputs.items() if slot not in unread}
    return [Operator(op.block, _ODD.get(kind, op.type), inputs, op.outputs, attrs)]


def _windows(forward: Operator) -> Mapping[str, Any]:
    """What Fluid fills in for windows that say no more than their size, as those that adapt to it."""
    size = len(forward.attrs.get("ksize", ()))
    return {"strides": [1] * size, "paddings": [0] * size} if size else {}


Parts = tuple[str, Mapping[str, list[str]], Mapping[str, list[str]], Mapping[str, Any]]


def _plain(op: Operator, forward: Operator) -> list[Parts] | None:
    """The plain operators that a gradient is in Fluid: type, inputs, outputs, attributes. None if it has one of its own."""
    kind, attrs = forward.type, forward.attrs
    given, wanted = op.input("Out" + GRAD_SUFFIX), op.output("X" + GRAD_SUFFIX)
    if kind == "sum":
        return [("scale", {"X": given}, {"Out": [n]}, {"scale": 1.0}) for n in wanted if n != EMPTY]
    if kind == "split":
        return [("concat", {"X": given}, {"Out": wanted}, {"axis": attrs.get("axis", 0)})]
    changed: Mapping[str, Any]
    if kind == "scale":
        changed = {"scale": attrs.get("scale", 1.0)}
    elif kind == "sign":
        kind, changed = "scale", {"scale": 0.0}
    elif kind == "increment":
        kind, changed = "scale", {"scale": 1.0}
    elif kind == "cast":
        source = op.block._var_recursive(forward.input("X")[0]).dtype
        changed = {"in_dtype": attrs["out_dtype"], "out_dtype": int(source)}
    elif kind == "cumsum":
        changed = {**attrs, "reverse": not attrs.get("reverse", False)}
    elif kind in _SAME:
        changed = attrs
    else:
        return None
    held = {"ScaleTensor": forward.input("ScaleTensor")} if forward.input("ScaleTensor") else {}
    return [(kind, {"X": given, **held}, {"Out": wanted}, changed)]


def forward_type(kind: str) -> str | None:
    """The type of the operator whose gradient an operator of Fluid's is; None if it is none that is known here."""
    forward = _FORWARD_OF_ODD.get(kind) or (kind.removesuffix("_grad") if kind.endswith("_grad") else "")
    return forward if registry.exists(forward) and registry.find(forward).differentiable else None


def linked(block: Block, kind: str, inputs: Mapping[str, list[str]], outputs: Mapping[str, list[str]]) -> Parts | None:
    """A gradient operator of Fluid's with the forward operator that it belongs to, as it is here.

    Args:
        block: has the forward operator already.
        kind: what `forward_type` gave.
        inputs, outputs: names by slot, as they stand in the file.

    Returns:
        Type, inputs, outputs and attributes; None if the block has no such forward operator.
    """
    for forward in reversed(block.ops):
        if forward.type == kind and _belongs(forward, inputs, outputs):
            gradients = {s: names for s, names in inputs.items() if s.endswith(GRAD_SUFFIX)}
            return f"{kind}_grad", {**forward.inputs, **forward.outputs, **gradients}, outputs, {FORWARD: forward.uid}
    return None


def _belongs(forward: Operator, inputs: Mapping[str, list[str]], outputs: Mapping[str, list[str]]) -> bool:
    known = {**forward.outputs, **forward.inputs}
    if any(known[slot] != names for slot, names in inputs.items() if slot in known):
        return False
    return all(
        _is_gradient_of(names, known.get(slot.removesuffix(GRAD_SUFFIX), []))
        for slot, names in (*inputs.items(), *outputs.items())
        if slot.endswith(GRAD_SUFFIX)
    )


def _is_gradient_of(names: Iterable[str], variables: list[str]) -> bool:
    names = list(names)
    return len(names) == len(variables) and all(
        n == EMPTY or n.startswith(v + GRAD_SUFFIX) for n, v in zip(names, variables, strict=True)
    )
