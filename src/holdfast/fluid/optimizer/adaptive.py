"""Rules whose rate adapts to past gradients of each element: Adagrad and those after it, and Ftrl."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.fluid.clip import GradientClipBase
from holdfast.fluid.optimizer.base import Accumulator, Optimizer
from holdfast.fluid.regularizer import WeightDecayRegularizer


class AdagradOptimizer(Optimizer):
    """The rate falls with the root of the sum of squared gradients.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        epsilon: is added to the root.
        initial_accumulator_value: what the sum begins with.
    """

    type = "adagrad"

    def __init__(
        self,
        learning_rate: Any,
        epsilon: float = 1e-6,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
        initial_accumulator_value: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"epsilon": float(epsilon)}
        self.accumulators = (Accumulator("moment", "Moment", "MomentOut", float(initial_accumulator_value)),)


class DecayedAdagradOptimizer(Optimizer):
    """Adagrad that forgets.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        decay: how much of the squared gradients stays.
        epsilon: is added to the root.
    """

    type = "decayed_adagrad"
    accumulators = (Accumulator("moment", "Moment", "MomentOut"),)

    def __init__(
        self,
        learning_rate: Any,
        decay: float = 0.95,
        epsilon: float = 1e-6,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"decay": float(decay), "epsilon": float(epsilon)}


class AdadeltaOptimizer(Optimizer):
    """Steps of the size of earlier steps.

    Args:
        learning_rate: has no effect, as in Fluid 1.8.5; `learning_rate_0` exists all the same.
        parameter_list, regularization, grad_clip, name: see `Optimizer`.
        epsilon: is added inside the roots.
        rho: how much of squared gradients and squared steps stays.
    """

    type = "adadelta"
    uses_rate = False
    # The names begin with an underscore, so that files are called `fc_0.w_0__avg_squared_grad_0`.
    accumulators = (
        Accumulator("_avg_squared_grad", "AvgSquaredGrad", "AvgSquaredGradOut"),
        Accumulator("_avg_squared_update", "AvgSquaredUpdate", "AvgSquaredUpdateOut"),
    )

    def __init__(
        self,
        learning_rate: Any,
        epsilon: float = 1e-6,
        rho: float = 0.95,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"epsilon": float(epsilon), "rho": float(rho)}


class RMSPropOptimizer(Optimizer):
    """The rate over the root of the mean squared gradient.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        rho: how much of the means stays.
        epsilon: is added inside the root.
        momentum: how much of the step stays.
        centered: take the variance of the gradient instead of its mean square.
    """

    type = "rmsprop"
    accumulators = (
        Accumulator("momentum", "Moment", "MomentOut"),
        Accumulator("mean_square", "MeanSquare", "MeanSquareOut"),
        Accumulator("mean_grad", "MeanGrad", "MeanGradOut"),
    )

    def __init__(
        self,
        learning_rate: Any,
        rho: float = 0.95,
        epsilon: float = 1e-6,
        momentum: float = 0.0,
        centered: bool = False,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {
            "decay": float(rho), "epsilon": float(epsilon), "momentum": float(momentum), "centered": bool(centered)
        }  # fmt: skip


class FtrlOptimizer(Optimizer):
    """Follow the regularized leader: sparse parameters through l1.

    Fluid 1.8.5 passes `l1` in the place of `l2` to its operator; here `l2` is what you give.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        l1, l2: strength of the penalties.
        lr_power: how the rate falls with the sum of squared gradients.
    """

    type = "ftrl"
    accumulators = (
        Accumulator("squared", "SquaredAccumulator", "SquaredAccumOut"),
        Accumulator("linear", "LinearAccumulator", "LinearAccumOut"),
    )

    def __init__(
        self,
        learning_rate: Any,
        l1: float = 0.0,
        l2: float = 0.0,
        lr_power: float = -0.5,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"l1": float(l1), "l2": float(l2), "lr_power": float(lr_power)}
