"""Losses: how far predictions are from what they should be, for every sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from holdfast.fluid.registry import op

_HUGE = 1e20  # what Fluid takes instead of an infinite logarithm


def _column(label: Array, x: Array) -> Array:
    """Labels with a dimension of size 1 where `x` has its classes: the last one."""
    return label if label.ndim == x.ndim else label[..., None]


def _picked(x: Array, label: Array, axis: int = -1) -> Array:
    """The value at each label; NaN where a label names no class."""
    # A negative label would count from the end.
    return jnp.take_along_axis(x, jnp.where(label < 0, x.shape[axis], label), axis, mode="fill")


def _negative_log(p: Array) -> Array:
    return jnp.where(
        p > 0,
        -jnp.log(jnp.where(p > 0, p, 1)),
        jnp.where(p == 0, jnp.asarray(_HUGE, p.dtype), jnp.asarray(jnp.nan, p.dtype)),
    )


@op("X Label -> Y")
def cross_entropy(x: Array, label: Array, *, soft_label: bool = False, ignore_index: int = -100) -> Array:
    """Minus the logarithm of the label's probability, or of all as far as the label says, for rows of probabilities."""
    if soft_label:
        return (label * _negative_log(x)).sum(-1, keepdims=True)
    return cross_entropy2(x, label, ignore_index=ignore_index)[0]


@op("X Label -> Y XShape MatchX")
def cross_entropy2(x: Array, label: Array, *, ignore_index: int = -100) -> tuple[Array, Array, Array]:
    """Minus the logarithm of the label's probability; zero for `ignore_index`. Then an empty array, and the probabilities."""
    column = _column(label, x)
    ignored = column == ignore_index
    match = jnp.where(ignored, jnp.ones((), x.dtype), _picked(x, jnp.where(ignored, 0, column)))
    loss = _negative_log(match)
    return loss.reshape(label.shape), jnp.zeros((*x.shape, 0), x.dtype), match.reshape(label.shape)


@op("Logits Label -> Softmax Loss")
def softmax_with_cross_entropy(
    logits: Array,
    label: Array,
    *,
    soft_label: bool = False,
    ignore_index: int = -100,
    numeric_stable_mode: bool = True,
    axis: int = -1,
) -> tuple[Array, Array]:
    """Softmax along an axis, and the cross entropy of that; zero for `ignore_index`."""
    del numeric_stable_mode  # it always is
    logs = jax.nn.log_softmax(logits, axis)
    if soft_label:
        return jnp.exp(logs), -(label * logs).sum(axis, keepdims=True)
    axis %= logits.ndim
    full = label if label.ndim == logits.ndim else jnp.expand_dims(label, axis)
    ignored = full == ignore_index
    loss = jnp.where(ignored, jnp.zeros((), logits.dtype), -_picked(logs, jnp.where(ignored, 0, full), axis))
    return jnp.exp(logs), loss.reshape(label.shape)


@op("X Label -> Out")
def sigmoid_cross_entropy_with_logits(
    x: Array, label: Array, *, ignore_index: int = -100, normalize: bool = False
) -> Array:
    """The cross entropy of `sigmoid(x)` with labels from 0 to 1; `normalize` divides by how many are not ignored."""
    used = label != ignore_index
    loss = jnp.where(used, jax.nn.softplus(x) - x * label, jnp.zeros((), x.dtype))
    return loss / jnp.maximum(used.sum().astype(x.dtype), 1e-5) if normalize else loss


@op("X Label -> Y")
def bpr_loss(x: Array, label: Array) -> Array:
    """How far the label's score is above each other one: the mean of `log(1 + exp(other - label's))`."""
    column = _column(label, x)
    others = jnp.arange(x.shape[-1]) != column
    each = jax.nn.softplus(x - _picked(x, column))
    return jnp.where(others, each, jnp.zeros((), x.dtype)).sum(-1, keepdims=True) / (x.shape[-1] - 1)


@op("X Y InsideWeight? OutsideWeight? -> Diff Out")
def smooth_l1_loss(
    x: Array, y: Array, inside: Array | None, outside: Array | None, *, sigma: float = 1.0
) -> tuple[Array, Array]:
    """The weighted difference, and for each sample the sum of its square near zero, of its size further out."""
    square = sigma * sigma
    diff = x - y if inside is None else (x - y) * inside
    size = jnp.abs(diff)
    each = jnp.where(size < 1 / square, 0.5 * square * diff * diff, size - 0.5 / square)
    if outside is not None:
        each = each * outside
    return diff, each.reshape(each.shape[0], -1).sum(1, keepdims=True)


@op("X Y -> Residual Out")
def huber_loss(x: Array, y: Array, *, delta: float) -> tuple[Array, Array]:
    """`y - x`, and half of its square up to `delta`, on a line further out."""
    residual = y - x
    size = jnp.abs(residual)
    return residual, jnp.where(size <= delta, 0.5 * residual * residual, delta * (size - 0.5 * delta))


@op("Predicted Labels -> Loss")
def log_loss(predicted: Array, labels: Array, *, epsilon: float = 1e-4) -> Array:
    """Cross entropy of probabilities of yes."""
    return -labels * jnp.log(predicted + epsilon) - (1 - labels) * jnp.log(1 - predicted + epsilon)


@op("X Target -> Loss")
def kldiv_loss(x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """The Kullback-Leibler divergence of probabilities `target` from those whose logarithms are `x`."""
    positive = target > 0
    loss = jnp.where(positive, target * (jnp.log(jnp.where(positive, target, 1)) - x), jnp.zeros((), x.dtype))
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean().reshape(1)
    if reduction in ("sum", "batchmean"):
        return (loss.sum() / (x.shape[0] if reduction == "batchmean" else 1)).reshape(1)
    raise ValueError(f"reduction is none, mean, sum or batchmean, not {reduction!r}")


@op("X1 X2 Label -> Activated Out")
def margin_rank_loss(x1: Array, x2: Array, label: Array, *, margin: float = 0.1) -> tuple[Array, Array]:
    """Where the order is not as the label (1: first, -1: second) says by a margin; then by how much."""
    loss = margin - label * (x1 - x2)
    return (loss > 0).astype(x1.dtype), jnp.maximum(loss, 0)


@op("Label Left Right -> Out")
def rank_loss(label: Array, left: Array, right: Array) -> Array:
    """Cross entropy of "left before right" with a label from 0 to 1."""
    return jax.nn.softplus(left - right) - label * (left - right)


@op("Logits Labels -> Loss")
def hinge_loss(logits: Array, labels: Array) -> Array:
    """How far scores are from one on the side of their label, 0 or 1."""
    return jnp.maximum(1 - (2 * labels - 1) * logits, 0)


@op("X Label -> Y")
def teacher_student_sigmoid_loss(
    x: Array, label: Array, *, soft_max_up_bound: float = 15.0, soft_max_lower_bound: float = -15.0
) -> Array:
    """Cross entropy of a click, plus that of a teacher's score if there is one.

    The label is -2 for no click, -1 for a click, the score from 0 to 1 for no click, 1 + the score for a click. The bounds, which
    Fluid keeps the logit in for the gradient only, are not used: beyond them the gradient is flat up to 3e-7.
    """
    del soft_max_up_bound, soft_max_lower_bound
    base = jax.nn.softplus(x)
    no_score = jnp.where(label < -1, base, base - x)
    score = jnp.where(label < 1, label, label - 1)
    clicked = jnp.where(label < 1, base, base - x)
    return jnp.where(label < 0, no_score, clicked + base - x * score)


@op("X Label Centers CenterUpdateRate -> CentersOut SampleCenterDiff Loss")
def center_loss(
    x: Array, label: Array, centers: Array, rate: Array, *, cluster_num: int, need_update: bool = True
) -> tuple[Array, Array, Array]:
    """The centers of the classes moved towards their samples, how far the samples were from them, and half of its square."""
    column = label.reshape(-1)
    diff = x - lax.stop_gradient(centers)[column]
    loss = 0.5 * jnp.square(diff).sum(1, keepdims=True)
    if need_update:
        sums = jnp.zeros_like(centers).at[column].add(diff)
        counts = jnp.ones(cluster_num, centers.dtype).at[column].add(1)
        centers = centers + rate.reshape(()).astype(centers.dtype) * sums / counts[:, None]
    return lax.stop_gradient(centers), diff, loss


@op("X PriorDist? -> Out")
def label_smooth(x: Array, prior: Array | None, *, epsilon: float = 0.0) -> Array:
    """Labels moved by a share towards a distribution over the classes, the uniform one if there is none."""
    return (1 - epsilon) * x + (epsilon / x.shape[-1] if prior is None else epsilon * prior.reshape(x.shape[-1]))
