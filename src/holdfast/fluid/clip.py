"""`fluid.clip`: rules that limit gradients - of parameters before the update, or of any variable while they are computed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.fluid.framework import (
    Block,
    OpRole,
    Parameter,
    Program,
    Variable,
    default_main_program,
    grad_var_name,
)
from holdfast.fluid.layer_helper import LayerHelper

__all__ = [
    "ClipByGlobalNorm", "ClipByNorm", "ClipByValue", "ErrorClipByValue", "GradientClipByGlobalNorm",
    "GradientClipByNorm", "GradientClipByValue", "set_gradient_clip",
]  # fmt: skip

Pair = tuple[Parameter, Variable]


class BaseErrorClipAttr:
    """Base of the rules for the gradient of a variable."""

    def _append_clip_op(self, block: Block, index: int, name: str) -> None:
        raise NotImplementedError


class ErrorClipByValue(BaseErrorClipAttr):
    """Limits the gradient of a variable on its way back: `variable.error_clip = ErrorClipByValue(1.0)` before `minimize`.

    Args:
        max: the largest value.
        min: the smallest; None for `-max`.
    """

    def __init__(self, max: float, min: float | None = None) -> None:
        self.max = float(max)
        self.min = -self.max if min is None else float(min)

    def __str__(self) -> str:
        return f"ByValue, min={self.min:f}, max={self.max:f}"

    def _append_clip_op(self, block: Block, index: int, name: str) -> None:
        block._insert_op(index, "clip", {"X": name}, {"Out": name}, {"min": self.min, "max": self.max})


def append_error_clip_ops(block: Block) -> None:
    """Limit the gradients of variables that have an `error_clip`, where they are whole and nothing has read them yet.

    Raises:
        TypeError: an `error_clip` is no rule.
    """
    for variable in list(block.vars.values()):
        clip = variable.error_clip
        if clip is None:
            continue
        if not isinstance(clip, BaseErrorClipAttr):
            raise TypeError(f"error_clip of {variable.name} must be a rule such as ErrorClipByValue, not {clip!r}")
        name = grad_var_name(variable.name)
        makers = [i for i, op in enumerate(block.ops) if name in op.output_arg_names]
        if makers:
            with block.program.op_role_guard(OpRole.Backward):
                clip._append_clip_op(block, makers[-1] + 1, name)


class GradientClipBase:
    """Base of the rules for gradients of parameters.

    Args:
        need_clip: is given a parameter, and says whether the rule is for it; None for all.
    """

    def __init__(self, need_clip: Callable[[Parameter], bool] | None = None) -> None:
        if need_clip is not None and not callable(need_clip):
            raise TypeError(f"need_clip must be a function of a parameter, not {need_clip!r}")
        self._need_clip_func = need_clip

    def __call__(self, params_grads: Iterable[Pair]) -> list[Pair]:
        """Add the operators to the default main program; returns the pairs with the limited gradients."""
        pairs = list(params_grads)
        if any(p.gradient_clip_attr is not None for p, _ in pairs):
            warnings.warn(
                "the optimizer's grad_clip is used; set_gradient_clip and ParamAttr(gradient_clip=) have no effect beside it",
                stacklevel=5,
            )
        wanted = [pair for pair in pairs if self._need_clip_func is None or self._need_clip_func(pair[0])]
        with default_main_program().op_role_guard(OpRole.Optimize):
            clipped = iter(self._clip(wanted))
        names = {p.name for p, _ in wanted}
        return [next(clipped) if p.name in names else (p, g) for p, g in pairs]

    def _clip(self, pairs: Sequence[Pair]) -> list[Pair]:
        raise NotImplementedError


class GradientClipByValue(GradientClipBase):
    """Limits every element.

    Args:
        max: the largest value.
        min: the smallest; None for `-max`.
        need_clip: see `GradientClipBase`.
    """

    def __init__(
        self,
        max: float,
        min: float | None = None,
        need_clip: Callable[[Parameter], bool] | None = None,
    ) -> None:
        super().__init__(need_clip)
        if min is None and not max > 0:
            raise ValueError(f"max={max} must be above zero if min is left out")
        self.max = float(max)
        self.min = -self.max if min is None else float(min)

    def __str__(self) -> str:
        return f"Gradient Clip By Value, min = {self.min:f}, max={self.max:f}"

    def _clip(self, pairs: Sequence[Pair]) -> list[Pair]:
        return [(p, _op("clip", {"X": g}, {"min": self.min, "max": self.max})) for p, g in pairs]


class GradientClipByNorm(GradientClipBase):
    """Scales a gradient down to a norm if its own is larger.

    Args:
        clip_norm: the largest L2 norm of a gradient.
        need_clip: see `GradientClipBase`.
    """

    def __init__(self, clip_norm: float, need_clip: Callable[[Parameter], bool] | None = None) -> None:
        super().__init__(need_clip)
        self.clip_norm = float(clip_norm)

    def __str__(self) -> str:
        return f"Gradient Clip By Norm, clip_norm={self.clip_norm:f}"

    def _clip(self, pairs: Sequence[Pair]) -> list[Pair]:
        return [(p, _op("clip_by_norm", {"X": g}, {"max_norm": self.clip_norm})) for p, g in pairs]


class GradientClipByGlobalNorm(GradientClipBase):
    """Scales all gradients together down to a norm if that of all of them is larger.

    Args:
        clip_norm: the largest L2 norm of all gradients as one vector.
        group_name: parameters with the same one are scaled together, where the rule comes from `set_gradient_clip`.
        need_clip: see `GradientClipBase`.
    """

    def __init__(
        self,
        clip_norm: float,
        group_name: str = "default_group",
        need_clip: Callable[[Parameter], bool] | None = None,
    ) -> None:
        super().__init__(need_clip)
        self.clip_norm = float(clip_norm)
        self.group_name = group_name

    def __str__(self) -> str:
        return f"Gradient Clip By GlobalNorm, global_norm={self.clip_norm:f}"

    def _clip(self, pairs: Sequence[Pair]) -> list[Pair]:
        if not pairs:
            return []
        whole = self._norm(pairs)
        return self._scaled(pairs, self._limit(pairs), whole)

    def _norm(self, pairs: Sequence[Pair]) -> Variable:
        squares = [_op("reduce_sum", {"X": _op("square", {"X": g})}, {"reduce_all": True}) for _, g in pairs]
        return _op("sqrt", {"X": _op("sum", {"X": squares})})

    def _limit(self, pairs: Sequence[Pair]) -> Variable:
        dtype = int(pairs[0][1].dtype)
        return _op("fill_constant", {}, {"shape": [1], "dtype": dtype, "value": self.clip_norm})

    def _scaled(self, pairs: Sequence[Pair], limit: Variable, norm: Variable) -> list[Pair]:
        larger = _op("elementwise_max", {"X": limit, "Y": norm})
        factor = _op("elementwise_div", {"X": limit, "Y": larger})
        return [(p, _op("elementwise_mul", {"X": g, "Y": factor})) for p, g in pairs]


ClipByValue = GradientClipByValue
ClipByNorm = GradientClipByNorm
ClipByGlobalNorm = GradientClipByGlobalNorm


def _op(type: str, inputs: Any, attrs: Any = None) -> Variable:
    return LayerHelper(type).op(type, inputs, attrs)


def set_gradient_clip(
    clip: GradientClipBase, param_list: Sequence[Parameter | str] | None = None, program: Program | None = None
) -> None:
    """Set the rule of parameters; call it before `minimize`.

    Args:
        clip: the rule.
        param_list: parameters or their names; None for all of the program.
        program: None for the default main program.

    Raises:
        TypeError: `clip` is no rule, or `param_list` has what is no parameter.
        ValueError: the program has no variable of a name.
    """
    if not isinstance(clip, GradientClipBase):
        raise TypeError(f"clip must be a rule such as GradientClipByNorm, not {clip!r}")
    block = (default_main_program() if program is None else program).global_block()
    if any(op.role & OpRole.Optimize for op in block.ops):
        warnings.warn("set_gradient_clip has no effect after minimize(): call it before", stacklevel=2)
    given = block.all_parameters() if param_list is None else list(param_list)
    found = [block.var(p) if isinstance(p, str) else p for p in given]
    wrong = [str(getattr(p, "name", p)) for p in found if not isinstance(p, Parameter)]
    if wrong:
        raise TypeError(f"param_list must be parameters or their names, but these are none: {', '.join(wrong)}")
    for parameter in found:
        assert isinstance(parameter, Parameter)
        parameter.gradient_clip_attr = copy.deepcopy(clip)


def append_gradient_clip_ops(params_grads: Iterable[Pair]) -> list[Pair]:
    """Apply the rules that parameters themselves have; those without one keep their gradients.

    Raises:
        ValueError: parameters of one group have different norms.
        TypeError: what a parameter has is no rule.
    """
    pairs = list(params_grads)
    groups: dict[str, list[Pair]] = {}
    limits: dict[str, tuple[GradientClipByGlobalNorm, Variable]] = {}
    clipped: dict[str, Pair] = {}
    with default_main_program().op_role_guard(OpRole.Optimize):
        for parameter, gradient in pairs:
            rule = parameter.gradient_clip_attr
            if rule is None:
                continue
            if not isinstance(rule, GradientClipBase):
                raise TypeError(f"gradient_clip of {parameter.name} must be a rule of fluid.clip, not {rule!r}")
            if rule._need_clip_func is not None and not rule._need_clip_func(parameter):
                continue
            if not isinstance(rule, GradientClipByGlobalNorm):
                clipped[parameter.name] = rule._clip([(parameter, gradient)])[0]
                continue
            group = groups.setdefault(rule.group_name, [])
            group.append((parameter, gradient))
            if len(group) == 1:
                limits[rule.group_name] = rule, rule._limit(group)
            elif rule.clip_norm != limits[rule.group_name][0].clip_norm:
                raise ValueError(
                    f"parameters of the clip group {rule.group_name!r} need one clip_norm: {parameter.name} has "
                    f"{rule.clip_norm}, {group[0][0].name} has {limits[rule.group_name][0].clip_norm}"
                )
        for name, group in groups.items():
            rule, limit = limits[name]
            clipped.update({pair[0].name: pair for pair in rule._scaled(group, limit, rule._norm(group))})
    return [clipped.get(p.name, (p, g)) for p, g in pairs]
