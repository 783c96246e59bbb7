"""Gradient descent, plain or with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.fluid.clip import GradientClipBase
from holdfast.fluid.optimizer.base import Accumulator, Optimizer
from holdfast.fluid.regularizer import WeightDecayRegularizer


class SGDOptimizer(Optimizer):
    """Stochastic gradient descent: `parameter - rate * gradient`.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
    """

    type = "sgd"


class MomentumOptimizer(Optimizer):
    """Steps along `velocity = momentum * velocity + gradient`.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        momentum: how much of the velocity stays.
        use_nesterov: step along `gradient + momentum * velocity`.
    """

    type = "momentum"
    accumulators = (Accumulator("velocity", "Velocity", "VelocityOut"),)

    def __init__(
        self,
        learning_rate: Any,
        momentum: float,
        parameter_list: Iterable[Any] | None = None,
        use_nesterov: bool = False,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"mu": float(momentum), "use_nesterov": bool(use_nesterov)}


class LarsMomentumOptimizer(Optimizer):
    """Momentum, with a rate for each parameter by the ratio of its norm to that of its gradient (LARS).

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        momentum: how much of the velocity stays.
        lars_coeff: factor of the local rates.
        lars_weight_decay: of the rule itself, beside `regularization`.
    """

    type = "lars_momentum"
    accumulators = (Accumulator("velocity", "Velocity", "VelocityOut"),)

    def __init__(
        self,
        learning_rate: Any,
        momentum: float,
        lars_coeff: float = 0.001,
        lars_weight_decay: float = 0.0005,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {
            "mu": float(momentum), "lars_coeff": float(lars_coeff), "lars_weight_decay": float(lars_weight_decay)
        }  # fmt: skip
