"""The Adam family: first moments over roots of second ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.fluid.clip import GradientClipBase
from holdfast.fluid.framework import Block, Parameter, Variable
from holdfast.fluid.optimizer.base import Accumulator, Optimizer
from holdfast.fluid.regularizer import WeightDecayRegularizer

_MOMENTS = (Accumulator("moment1", "Moment1", "Moment1Out"), Accumulator("moment2", "Moment2", "Moment2Out"))


class AdamOptimizer(Optimizer):
    """Adam.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        beta1, beta2: how much of the moments stays; numbers or variables.
        epsilon: is added to the root of the second moment.
        lazy_mode: accepted as Fluid has it: gradients are never sparse here, so every row is updated in every step.
    """

    type = "adam"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: float = 1e-8,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
        lazy_mode: bool = False,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._beta1, self._beta2, self._epsilon, self._lazy_mode = beta1, beta2, float(epsilon), lazy_mode
        self.accumulators = (
            *_MOMENTS,
            Accumulator("beta1_pow_acc", "Beta1Pow", "Beta1PowOut", _start(beta1, 0.9), scalar=True),
            Accumulator("beta2_pow_acc", "Beta2Pow", "Beta2PowOut", _start(beta2, 0.999), scalar=True),
        )

    def attributes(self, parameter: Parameter) -> dict[str, Any]:  # noqa: D102
        numbers = {"beta1": self._beta1, "beta2": self._beta2}
        given = {name: float(value) for name, value in numbers.items() if not isinstance(value, Variable)}
        return {**given, "epsilon": self._epsilon, "lazy_mode": self._lazy_mode}

    def inputs(self) -> dict[str, Any]:  # noqa: D102
        tensors = {"Beta1Tensor": self._beta1, "Beta2Tensor": self._beta2}
        return {slot: value for slot, value in tensors.items() if isinstance(value, Variable)}


def _start(beta: Any, usual: float) -> float:
    return usual if isinstance(beta, Variable) else float(beta)


class LambOptimizer(Optimizer):
    """Adam for large batches: the step of every parameter is scaled to its norm (LAMB).

    As in Fluid 1.8.5 the moments are not corrected for their zero start, so `beta1_pow_acc` and `beta2_pow_acc` never change.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        lamb_weight_decay: of the rule itself, beside `regularization`.
        beta1, beta2: how much of the moments stays.
        epsilon: is added to the root of the second moment.
        exclude_from_weight_decay_fn: is given a parameter, and says whether it has no weight decay.
    """

    type = "lamb"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        lamb_weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        exclude_from_weight_decay_fn: Callable[[Parameter], bool] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"beta1": float(beta1), "beta2": float(beta2), "epsilon": float(epsilon)}
        self._weight_decay = float(lamb_weight_decay)
        self._exclude = exclude_from_weight_decay_fn
        self.accumulators = (
            *_MOMENTS,
            Accumulator("beta1_pow_acc", "Beta1Pow", None, float(beta1), scalar=True),
            Accumulator("beta2_pow_acc", "Beta2Pow", None, float(beta2), scalar=True),
        )

    def attributes(self, parameter: Parameter) -> dict[str, Any]:  # noqa: D102
        excluded = self._exclude is not None and self._exclude(parameter)
        return {**self._attributes, "weight_decay": 0.0 if excluded else self._weight_decay}


class AdamaxOptimizer(Optimizer):
    """Adam with the largest gradient of late in place of the second moment.

    Args:
        learning_rate, parameter_list, regularization, grad_clip, name: see `Optimizer`.
        beta1, beta2: how much of moment and norm stays.
        epsilon: is added to the norm.
    """

    type = "adamax"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self._attributes = {"beta1": float(beta1), "beta2": float(beta2), "epsilon": float(epsilon)}
        self.accumulators = (
            Accumulator("moment", "Moment", "MomentOut"),
            Accumulator("inf_norm", "InfNorm", "InfNormOut"),
            Accumulator("beta1_pow_acc", "Beta1Pow", None, float(beta1), scalar=True),
        )

    def _finish(self, block: Block, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            power = self._get_accumulator("beta1_pow_acc", parameter)
            block.append_op("scale", {"X": power}, {"Out": power}, {"scale": self._attributes["beta1"]})
