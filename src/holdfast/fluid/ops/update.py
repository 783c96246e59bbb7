"""Optimizers' operators: from a parameter, its gradient and accumulators to their next values, as Fluid 1.8.5's kernels have them.

The rate is a tensor of one element. No gradient goes through any of these.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.registry import op


@op("Param Grad LearningRate -> ParamOut", differentiable=False)
def sgd(param: Array, grad: Array, rate: Array) -> Array:
    """Plain gradient descent."""
    return param - rate.astype(param.dtype) * grad


@op("Param Grad Velocity LearningRate -> ParamOut VelocityOut", differentiable=False)
def momentum(
    param: Array, grad: Array, velocity: Array, rate: Array, *, mu: float, use_nesterov: bool = False
) -> tuple[Array, Array]:
    """The velocity is a sum of gradients, not of steps: a change of rate takes effect at once."""
    rate = rate.astype(param.dtype)
    velocity = mu * velocity + grad
    step = grad + mu * velocity if use_nesterov else velocity
    return param - rate * step, velocity


@op("Param Grad Velocity LearningRate -> ParamOut VelocityOut", differentiable=False)
def lars_momentum(
    param: Array,
    grad: Array,
    velocity: Array,
    rate: Array,
    *,
    mu: float,
    lars_coeff: float = 0.001,
    lars_weight_decay: float = 0.0005,
) -> tuple[Array, Array]:
    """Momentum with a rate of its own for every parameter, by the ratio of the norms of parameter and gradient."""
    rate = rate.astype(param.dtype)
    whole, slope = _norm(param), _norm(grad)
    local = rate * lars_coeff * whole / (slope + lars_weight_decay * whole)
    local = jnp.where((whole > 0) & (slope > 0), local, rate)
    velocity = mu * velocity + local * (grad + lars_weight_decay * param)
    return param - velocity, velocity


@op(
    "Param Grad LearningRate Moment1 Moment2 Beta1Pow Beta2Pow Beta1Tensor? Beta2Tensor? -> "
    "ParamOut Moment1Out Moment2Out Beta1PowOut Beta2PowOut",
    differentiable=False,
)
def adam(
    param: Array,
    grad: Array,
    rate: Array,
    moment1: Array,
    moment2: Array,
    beta1_pow: Array,
    beta2_pow: Array,
    beta1_tensor: Array | None,
    beta2_tensor: Array | None,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    lazy_mode: bool = False,
    min_row_size_to_use_multithread: int = 1000,
) -> tuple[Array, Array, Array, Array, Array]:
    """Adam; epsilon is added to the root of the second moment before that is corrected for its zero start."""
    b1 = beta1 if beta1_tensor is None else beta1_tensor.astype(param.dtype)
    b2 = beta2 if beta2_tensor is None else beta2_tensor.astype(param.dtype)
    moment1 = b1 * moment1 + (1 - b1) * grad
    moment2 = b2 * moment2 + (1 - b2) * grad * grad
    rate = rate.astype(param.dtype) * jnp.sqrt(1 - beta2_pow) / (1 - beta1_pow)
    return param - rate * (moment1 / (jnp.sqrt(moment2) + epsilon)), moment1, moment2, beta1_pow * b1, beta2_pow * b2


@op(
    "Param Grad LearningRate Moment1 Moment2 Beta1Pow Beta2Pow -> ParamOut Moment1Out Moment2Out",
    differentiable=False,
)
def lamb(
    param: Array,
    grad: Array,
    rate: Array,
    moment1: Array,
    moment2: Array,
    _beta1_pow: Array,
    _beta2_pow: Array,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: float = 0.01,
) -> tuple[Array, Array, Array]:
    """Adam's step scaled to the norm of the parameter. In Fluid 1.8.5 it does not correct the moments for their zero start."""
    moment1 = beta1 * moment1 + (1 - beta1) * grad
    moment2 = beta2 * moment2 + (1 - beta2) * grad * grad
    step = moment1 / (jnp.sqrt(moment2) + epsilon) + weight_decay * param
    whole, length = _norm(param), _norm(step)
    ratio = jnp.where((whole > 0) & (length > 0), whole / length, jnp.ones_like(whole))
    return param - rate.astype(param.dtype) * ratio * step, moment1, moment2


@op("Param Grad LearningRate Moment InfNorm Beta1Pow -> ParamOut MomentOut InfNormOut", differentiable=False)
def adamax(
    param: Array,
    grad: Array,
    rate: Array,
    moment: Array,
    inf_norm: Array,
    beta1_pow: Array,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """Adam with the largest gradient of late in place of the second moment."""
    moment = beta1 * moment + (1 - beta1) * grad
    inf_norm = jnp.maximum(jnp.abs(grad), beta2 * inf_norm + epsilon)
    return param - rate.astype(param.dtype) / (1 - beta1_pow) * (moment / inf_norm), moment, inf_norm


@op("Param Grad Moment LearningRate -> ParamOut MomentOut", differentiable=False)
def adagrad(param: Array, grad: Array, moment: Array, rate: Array, *, epsilon: float = 1e-6) -> tuple[Array, Array]:
    """The rate falls with the sum of squared gradients."""
    moment = moment + grad * grad
    return param - rate.astype(param.dtype) * grad / (jnp.sqrt(moment) + epsilon), moment


@op("Param Grad Moment LearningRate -> ParamOut MomentOut", differentiable=False)
def decayed_adagrad(
    param: Array, grad: Array, moment: Array, rate: Array, *, decay: float = 0.95, epsilon: float = 1e-6
) -> tuple[Array, Array]:
    """Adagrad that forgets."""
    moment = decay * moment + (1 - decay) * grad * grad
    return param - rate.astype(param.dtype) * grad / (jnp.sqrt(moment) + epsilon), moment


@op(
    "Param Grad AvgSquaredGrad AvgSquaredUpdate -> ParamOut AvgSquaredGradOut AvgSquaredUpdateOut",
    differentiable=False,
)
def adadelta(
    param: Array, grad: Array, squared_grad: Array, squared_update: Array, *, rho: float = 0.95, epsilon: float = 1e-6
) -> tuple[Array, Array, Array]:
    """Steps of the size of earlier steps; there is no rate.

    Fluid's kernel takes the step twice: with the accumulator as it was for the accumulator, and as it then is for the parameter.
    """
    squared_grad = rho * squared_grad + (1 - rho) * grad * grad
    before = grad * grad * ((squared_update + epsilon) / (squared_grad + epsilon))
    squared_update = rho * squared_update + (1 - rho) * before
    step = jnp.sqrt((squared_update + epsilon) / (squared_grad + epsilon)) * grad
    return param - step, squared_grad, squared_update


@op(
    "Param Grad Moment MeanSquare MeanGrad LearningRate -> ParamOut MomentOut MeanSquareOut MeanGradOut",
    differentiable=False,
)
def rmsprop(
    param: Array,
    grad: Array,
    moment: Array,
    mean_square: Array,
    mean_grad: Array,
    rate: Array,
    *,
    decay: float = 0.9,
    epsilon: float = 1e-10,
    momentum: float = 0.0,
    centered: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """The rate over the root of the mean squared gradient, or of its variance; epsilon is inside the root."""
    mean_square = decay * mean_square + (1 - decay) * grad * grad
    spread = mean_square
    if centered:
        mean_grad = decay * mean_grad + (1 - decay) * grad
        spread = mean_square - mean_grad * mean_grad
    moment = momentum * moment + rate.astype(param.dtype) * grad / jnp.sqrt(spread + epsilon)
    return param - moment, moment, mean_square, mean_grad


@op(
    "Param Grad SquaredAccumulator LinearAccumulator LearningRate -> ParamOut SquaredAccumOut LinearAccumOut",
    differentiable=False,
)
def ftrl(
    param: Array,
    grad: Array,
    squared: Array,
    linear: Array,
    rate: Array,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    lr_power: float = -0.5,
) -> tuple[Array, Array, Array]:
    """Follow the regularized leader: parameters whose linear term is within l1 are zero."""
    rate = rate.astype(param.dtype)
    l1, l2 = l1 + 1e-10, l2 + 1e-10  # the kernel's own, so that it never divides by zero
    total = squared + grad * grad
    linear = linear + grad - (total**-lr_power - squared**-lr_power) / rate * param
    shrunk = (l1 * jnp.sign(linear) - linear) / (total**-lr_power / rate + 2 * l2)
    return jnp.where(jnp.abs(linear) > l1, shrunk, jnp.zeros_like(param)), total, linear


_MOST_SUMMED = 16384  # then a sum is moved on, as adding small values to a large sum loses them


@op(
    "param in_sum_1 in_sum_2 in_sum_3 in_num_accumulates in_old_num_accumulates in_num_updates -> "
    "out_sum_1 out_sum_2 out_sum_3 out_num_accumulates out_old_num_accumulates out_num_updates",
    differentiable=False,
)
def average_accumulates(
    param: Array,
    sum_1: Array,
    sum_2: Array,
    sum_3: Array,
    count: Array,
    old_count: Array,
    updates: Array,
    *,
    average_window: float,
    min_average_window: int = 10000,
    max_average_window: int = 10000,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """ModelAverage's sums of the parameter: 1 and 2 of this window, 3 of the one before."""
    updates, count, sum_1 = updates + 1, count + 1, sum_1 + param
    zero = jnp.zeros_like(param)
    move = updates % _MOST_SUMMED == 0
    sum_1, sum_2 = jnp.where(move, zero, sum_1), jnp.where(move, sum_2 + sum_1, sum_2)
    window = jnp.minimum(max_average_window, (updates * jnp.float32(average_window)).astype(updates.dtype))
    full = (count >= min_average_window) & (count >= window)
    return (
        jnp.where(full, zero, sum_1),
        jnp.where(full, zero, sum_2),
        jnp.where(full, sum_1 + sum_2, sum_3),
        jnp.where(full, jnp.zeros_like(count), count),
        jnp.where(full, count, old_count),
        updates,
    )


# What follows are no operators of Fluid's: it builds these from arithmetic and blocks with conditions.


@op("Param Average Decay -> AverageOut", differentiable=False)
def moving_average(param: Array, average: Array, decay: Array) -> Array:
    """The average moves towards the parameter."""
    decay = decay.astype(param.dtype)
    return average * decay + param * (1 - decay)


@op("Param Average Decay Step -> ParamOut", differentiable=False)
def apply_moving_average(param: Array, average: Array, decay: Array, step: Array) -> Array:
    """The average, corrected for its zero start; the parameter itself before the first step."""
    missing = decay.astype(param.dtype) ** step.astype(param.dtype)
    return jnp.where(step > 0, average / (1 - missing), param)


@op("Param Sums* Counts* -> ParamOut", differentiable=False)
def apply_average(param: Array, sums: list[Array], counts: list[Array]) -> Array:
    """The mean over a window; the parameter itself before the first step."""
    count = sum(counts[1:], counts[0])
    return jnp.where(count > 0, sum(sums[1:], sums[0]) / count.astype(param.dtype), param)


@op("Param Backup -> ParamOut", differentiable=False)
def restore_parameter(_param: Array, backup: Array) -> Array:
    """The backup. The parameter is an input so that this counts as a change of it, and not as its initialisation."""
    return backup


@op("Param Slow Step K Alpha -> ParamOut SlowOut", differentiable=False)
def lookahead(param: Array, slow: Array, step: Array, k: Array, alpha: Array) -> tuple[Array, Array]:
    """Every k-th step, both become the slow parameter plus alpha of the way to the fast one."""
    alpha = alpha.astype(param.dtype)
    mixed = param * alpha + slow * (1 - alpha)
    due = step % k == 0
    return jnp.where(due, mixed, param), jnp.where(due, mixed, slow)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x))
