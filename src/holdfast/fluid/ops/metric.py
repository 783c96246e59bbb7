"""What programs measure: the greatest scores, accuracy, area under the curve, intersection over union."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from holdfast.fluid.registry import op


@op("X -> Out Indices")
def top_k(x: Array, *, k: int) -> tuple[Array, Array]:
    """The `k` greatest values of every row, the greatest first, and where they stand: int64."""
    if k > x.shape[-1]:
        raise ValueError(f"k={k}: the rows have {x.shape[-1]} values")
    values, indices = lax.top_k(x, k)
    return values, indices.astype(jnp.int64)


@op("Out Indices Label -> Accuracy Correct Total", differentiable=False)
def accuracy(out: Array, indices: Array, label: Array) -> tuple[Array, Array, Array]:
    """The share of the rows in which the label is among the indices: float32 [1]; their number and that of all: int32 [1]."""
    del out
    hits = (indices == label.reshape(-1, 1)).any(1).sum(dtype=jnp.int32)
    total = jnp.full(1, indices.shape[0], jnp.int32)
    return (hits / total).astype(jnp.float32), hits.reshape(1), total


@op("Predict Label StatPos StatNeg -> AUC StatPosOut StatNegOut", differentiable=False)
def auc(
    predict: Array,
    label: Array,
    positive: Array,
    negative: Array,
    *,
    curve: str = "ROC",
    num_thresholds: int = 4095,
    slide_steps: int = 1,
) -> tuple[Array, Array, Array]:
    """The area under the ROC curve of all that was counted so far, or in the last `slide_steps` runs: float64 [1].

    The states count positive and negative samples by their score. With `slide_steps` they hold a line of counts for each of
    these runs, then their sum, then how many runs there were.
    """
    if curve != "ROC":
        raise ValueError(
            f"curve={curve!r}: only ROC is there; Fluid took the others, and gave the area under ROC for them"
        )
    lines = num_thresholds + 1
    score = predict.reshape(predict.shape[0], -1)[:, -1]
    place = (score * num_thresholds).astype(jnp.int32)
    is_positive = label.reshape(-1) != 0
    counts = [jnp.zeros(lines, jnp.int64).at[place].add(chosen) for chosen in (is_positive, ~is_positive)]
    totals, states = [], []
    for state, count in zip((positive, negative), counts, strict=True):
        if slide_steps == 0:
            total = state.reshape(-1) + count
            states.append(total.reshape(state.shape))
        else:
            runs = state[-1]
            kept = state[: slide_steps * lines].reshape(slide_steps, lines).at[runs % slide_steps].set(count)
            total = kept.sum(0)
            states.append(jnp.concatenate([kept.reshape(-1), total, (runs + 1).reshape(1)]).reshape(state.shape))
        totals.append(total[::-1].astype(jnp.float64))
    pos, neg = totals
    # Trapezoids: every threshold adds its negatives times the mean of the positives above it and with it.
    above = jnp.cumsum(pos)
    area = (neg * (above - pos / 2)).sum()
    both = pos.sum() * neg.sum()
    return jnp.where(both > 0, area / jnp.where(both > 0, both, 1.0), area).reshape(1), states[0], states[1]


@op("Predictions Labels InWrongs* InCorrects* InMeanIou* -> OutMeanIou OutWrong OutCorrect", differentiable=False)
def mean_iou(
    predictions: Array,
    labels: Array,
    wrongs: list[Array],
    corrects: list[Array],
    means: list[Array],
    *,
    num_classes: int,
) -> tuple[Array, Array, Array]:
    """The mean over the classes that occur of intersection / union: float32 [1]; wrong and right pixels by class: int32."""
    predictions, labels = predictions.reshape(-1), labels.reshape(-1)
    right = predictions == labels
    zeros = jnp.zeros(num_classes, jnp.int32)
    correct = zeros.at[labels].add(right.astype(jnp.int32))
    wrong = zeros.at[labels].add((~right).astype(jnp.int32)).at[predictions].add((~right).astype(jnp.int32))
    wrong, correct = sum(wrongs, wrong), sum(corrects, correct)
    union = wrong + correct
    shares = jnp.where(union > 0, correct / jnp.maximum(union, 1), 0.0)
    mean = shares.sum() / jnp.maximum((union > 0).sum(), 1)
    return sum(means, mean.astype(jnp.float32).reshape(1)), wrong, correct
