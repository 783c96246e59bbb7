"""Optimizers' operators: from a parameter, its gradient and accumulators to their next values."""

from __future__ import annotations

from jax import Array

from holdfast.fluid.registry import op


@op("Param Grad LearningRate -> ParamOut", differentiable=False)
def sgd(param: Array, grad: Array, rate: Array) -> Array:
    """Plain gradient descent."""
    return param - rate.astype(param.dtype) * grad
