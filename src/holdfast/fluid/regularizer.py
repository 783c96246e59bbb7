"""`fluid.regularizer`: weight decay, as terms that are added to the gradients of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.fluid.framework import Block, Parameter, Variable

__all__ = ["L1Decay", "L1DecayRegularizer", "L2Decay", "L2DecayRegularizer"]


class WeightDecayRegularizer:
    """Base of the rules; calling one adds the operators of the term for a parameter, and returns its variable.

    Args:
        regularization_coeff: strength.
    """

    def __init__(self, regularization_coeff: float = 0.0) -> None:
        self._regularization_coeff = float(regularization_coeff)

    def __call__(self, param: Parameter, grad: Variable, block: Block) -> Variable:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{type(self).__name__.removesuffix('Regularizer')}, regularization_coeff={self._regularization_coeff:f}"


class L2DecayRegularizer(WeightDecayRegularizer):
    """Adds `regularization_coeff * parameter` to the gradient."""

    def __call__(self, param: Parameter, grad: Variable, block: Block) -> Variable:
        """See `WeightDecayRegularizer`."""
        term = block.create_var(dtype=param.dtype, shape=param.shape)
        block.append_op("scale", {"X": param}, {"Out": term}, {"scale": self._regularization_coeff})
        return term


class L1DecayRegularizer(WeightDecayRegularizer):
    """Adds `regularization_coeff * sign(parameter)` to the gradient."""

    def __call__(self, param: Parameter, grad: Variable, block: Block) -> Variable:
        """See `WeightDecayRegularizer`."""
        term = block.create_var(dtype=param.dtype, shape=param.shape)
        block.append_op("sign", {"X": param}, {"Out": term})
        block.append_op("scale", {"X": term}, {"Out": term}, {"scale": self._regularization_coeff})
        return term


L1Decay = L1DecayRegularizer
L2Decay = L2DecayRegularizer


def append_regularization_ops(
    parameters_and_grads: Iterable[tuple[Parameter, Variable]], regularization: WeightDecayRegularizer | None = None
) -> list[tuple[Parameter, Variable]]:
    """Add the terms to gradients, in place.

    Args:
        parameters_and_grads: the pairs, after clipping.
        regularization: for parameters that have no rule of their own.

    Returns:
        The same pairs.
    """
    from holdfast.fluid.framework import OpRole

    pairs = list(parameters_and_grads)
    for parameter, gradient in pairs:
        rule = parameter.regularizer or regularization
        if rule is None:
            continue
        with gradient.block.program.op_role_guard(OpRole.Optimize):
            term = rule(parameter, gradient, gradient.block)
            gradient.block.append_op("sum", {"X": [gradient, term]}, {"Out": [gradient]})
    return pairs
