"""Losses; most give one for every sample, of shape (batch, 1), which `mean` makes a single one of."""

from __future__ import annotations

from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper


def cross_entropy(input: Variable, label: Variable, soft_label: bool = False, ignore_index: int = -100) -> Variable:
    """The cross entropy of probabilities, such as those of a softmax.

    Args:
        input: float (..., classes), probabilities.
        label: int64 (..., 1): the classes; with `soft_label` the probabilities that should be, shaped like the input.
        soft_label: see `label`.
        ignore_index: a class whose samples count as zero; not for soft labels.
    """
    if soft_label:
        attrs = {"soft_label": True, "ignore_index": ignore_index}
        inputs = {"X": [input], "Label": [label]}
        return LayerHelper("cross_entropy").op("cross_entropy", inputs, attrs, dtype=input.dtype, slot="Y")
    helper = LayerHelper("cross_entropy2")
    out, shape, match = (helper.create_variable_for_type_inference(input.dtype) for _ in range(3))
    outputs = {"Y": [out], "MatchX": [match], "XShape": [shape]}
    helper.append_op("cross_entropy2", {"X": [input], "Label": [label]}, outputs, {"ignore_index": ignore_index})
    return out


def softmax_with_cross_entropy(
    logits: Variable,
    label: Variable,
    soft_label: bool = False,
    ignore_index: int = -100,
    numeric_stable_mode: bool = True,
    return_softmax: bool = False,
    axis: int = -1,
) -> Any:
    """Softmax and cross entropy in one, which also holds for very small probabilities.

    Args:
        logits: float, any number of dimensions.
        label: int64, as the logits but 1 along the axis: the classes; with `soft_label` probabilities shaped like the logits.
        soft_label: see `label`.
        ignore_index: a class whose samples count as zero; not for soft labels.
        numeric_stable_mode: accepted; it always is stable.
        return_softmax: return the probabilities, too.
        axis: of the classes.

    Returns:
        The loss, 1 along the axis; with `return_softmax` a tuple of it and the probabilities.
    """
    helper = LayerHelper("softmax_with_cross_entropy")
    softmax, loss = (helper.create_variable_for_type_inference(logits.dtype) for _ in range(2))
    attrs = {
        "soft_label": soft_label,
        "ignore_index": ignore_index,
        "numeric_stable_mode": numeric_stable_mode,
        "axis": axis,
    }
    outputs = {"Softmax": [softmax], "Loss": [loss]}
    helper.append_op("softmax_with_cross_entropy", {"Logits": [logits], "Label": [label]}, outputs, attrs)
    return (loss, softmax) if return_softmax else loss


def square_error_cost(input: Variable, label: Variable) -> Variable:
    """The square of the difference, element by element."""
    helper = LayerHelper("square_error_cost")
    difference = helper.op("elementwise_sub", {"X": [input], "Y": [label]}, dtype=input.dtype)
    return helper.op("square", {"X": [difference]}, dtype=input.dtype)


def mse_loss(input: Variable, label: Variable) -> Variable:
    """The mean of the squared differences, shape [1]."""
    from holdfast.fluid import layers

    return layers.reduce_mean(square_error_cost(input, label))


def sigmoid_cross_entropy_with_logits(
    x: Variable, label: Variable, ignore_index: int = -100, name: str | None = None, normalize: bool = False
) -> Variable:
    """The cross entropy of `sigmoid(x)`, element by element.

    Args:
        x: logits.
        label: of the same shape and dtype, from 0 to 1.
        ignore_index: a label that counts as zero.
        name: key of the names.
        normalize: divide by the number of elements that are not ignored.
    """
    attrs = {"ignore_index": ignore_index, "normalize": normalize}
    helper = LayerHelper("sigmoid_cross_entropy_with_logits", name=name)
    return helper.op(helper.layer_type, {"X": [x], "Label": [label]}, attrs, dtype=x.dtype)


def bpr_loss(input: Variable, label: Variable, name: str | None = None) -> Variable:
    """Bayesian personalised ranking: how far the label's score is above the others.

    Args:
        input: scores (batch, classes).
        label: int64 (batch, 1).
        name: key of the names.
    """
    helper = LayerHelper("bpr_loss", name=name)
    return helper.op("bpr_loss", {"X": [input], "Label": [label]}, dtype=input.dtype, slot="Y")


def smooth_l1(
    x: Variable,
    y: Variable,
    inside_weight: Variable | None = None,
    outside_weight: Variable | None = None,
    sigma: float | None = None,
) -> Variable:
    """For each sample the sum of squared differences where they are small, of their sizes where they are not: (batch, 1).

    Args:
        x, y: of one shape.
        inside_weight, outside_weight: factors of the differences, and of what is made of them, shaped like `x`.
        sigma: differences count as small up to `1 / sigma ** 2`; None for 1.
    """
    helper = LayerHelper("smooth_l1_loss")
    diff, loss = (helper.create_variable_for_type_inference(x.dtype) for _ in range(2))
    inputs = {"X": [x], "Y": [y], "InsideWeight": inside_weight, "OutsideWeight": outside_weight}
    helper.append_op(
        "smooth_l1_loss", inputs, {"Diff": [diff], "Out": [loss]}, {"sigma": 1.0 if sigma is None else sigma}
    )
    return loss


def huber_loss(input: Variable, label: Variable, delta: float) -> Variable:
    """Half of the squared difference where it is up to `delta`, on a line further out, element by element."""
    helper = LayerHelper("huber_loss")
    residual, out = (helper.create_variable_for_type_inference(input.dtype) for _ in range(2))
    helper.append_op(
        "huber_loss", {"X": [input], "Y": [label]}, {"Out": [out], "Residual": [residual]}, {"delta": delta}
    )
    return out


def log_loss(input: Variable, label: Variable, epsilon: float = 1e-4, name: str | None = None) -> Variable:
    """Cross entropy of probabilities of yes, (batch, 1).

    Args:
        input: the probabilities.
        label: 0 or 1, as floats.
        epsilon: added to what a logarithm is taken of.
        name: key of the names.
    """
    inputs = {"Predicted": [input], "Labels": [label]}
    return LayerHelper("log_loss", name=name).op(
        "log_loss", inputs, {"epsilon": epsilon}, dtype=input.dtype, slot="Loss"
    )


def kldiv_loss(x: Variable, target: Variable, reduction: str = "mean", name: str | None = None) -> Variable:
    """The Kullback-Leibler divergence.

    Args:
        x: logarithms of probabilities.
        target: probabilities of the same shape.
        reduction: `"none"`, `"mean"`, `"sum"`, or `"batchmean"` for the sum divided by the first dimension.
        name: key of the names.
    """
    helper = LayerHelper("kldiv_loss", name=name)
    return helper.op("kldiv_loss", {"X": [x], "Target": [target]}, {"reduction": reduction}, dtype=x.dtype, slot="Loss")


def margin_rank_loss(
    label: Variable, left: Variable, right: Variable, margin: float = 0.1, name: str | None = None
) -> Variable:
    """By how much two scores are not in the order that the label says (1: left is greater, -1: right is), by a margin."""
    helper = LayerHelper("margin_rank_loss", name=name)
    out, active = (helper.create_variable_for_type_inference(left.dtype) for _ in range(2))
    inputs = {"Label": [label], "X1": [left], "X2": [right]}
    helper.append_op("margin_rank_loss", inputs, {"Out": [out], "Activated": [active]}, {"margin": margin})
    return out


def rank_loss(label: Variable, left: Variable, right: Variable, name: str | None = None) -> Variable:
    """Cross entropy of "left is before right" by RankNet: `log(1 + exp(left - right)) - label * (left - right)`."""
    inputs = {"Label": [label], "Left": [left], "Right": [right]}
    return LayerHelper("rank_loss", name=name).op("rank_loss", inputs, dtype=left.dtype)


def teacher_student_sigmoid_loss(
    input: Variable, label: Variable, soft_max_up_bound: float = 15.0, soft_max_lower_bound: float = -15.0
) -> Variable:
    """Cross entropy of a click, plus that of a teacher's score where the label holds one.

    Args:
        input: logits (batch, 1).
        label: -2 for no click, -1 for a click; with a score from 0 to 1: the score for no click, 1 + the score for a click.
        soft_max_up_bound, soft_max_lower_bound: accepted; Fluid's gradient treats logits beyond them as if they stood there.
    """
    helper = LayerHelper("teacher_student_sigmoid_loss")
    out = helper.create_variable(dtype=input.dtype)
    attrs = {"soft_max_lower_bound": float(soft_max_lower_bound), "soft_max_up_bound": float(soft_max_up_bound)}
    helper.append_op(helper.layer_type, {"X": [input], "Label": [label]}, {"Y": [out]}, attrs)
    return out


def center_loss(
    input: Variable, label: Variable, num_classes: int, alpha: Any, param_attr: Any, update_center: bool = True
) -> Variable:
    """Half of the squared distance of each sample to the center of its class, (batch, 1).

    Every run moves the centers, the Parameter `center_loss_0.w_0`, towards their samples.

    Args:
        input: (batch, size).
        label: int64 (batch, 1).
        num_classes: number of centers.
        alpha: how fast they move: a float, kept in the persistable `centerloss_alpha`, or a variable of shape [1].
        param_attr: of the centers; see `ParamAttr`.
        update_center: whether they move.
    """
    helper = LayerHelper("center_loss", param_attr=param_attr)
    centers = helper.create_parameter(param_attr, [num_classes, input.shape[1]], input.dtype)
    if centers is None:
        raise ValueError("center_loss: param_attr cannot be False")
    centers.stop_gradient = True
    if not isinstance(alpha, Variable):
        value = Constant(float(alpha))
        alpha = helper.create_global_variable(name="centerloss_alpha", shape=[1], dtype="float32", persistable=True)
        helper.set_variable_initializer(alpha, value)
    diff, loss = (helper.create_variable_for_type_inference(input.dtype) for _ in range(2))
    inputs = {"X": [input], "Label": [label], "Centers": [centers], "CenterUpdateRate": [alpha]}
    outputs = {"SampleCenterDiff": [diff], "Loss": [loss], "CentersOut": [centers]}
    helper.append_op("center_loss", inputs, outputs, {"cluster_num": num_classes, "need_update": update_center})
    return loss


def npair_loss(anchor: Variable, positive: Variable, labels: Variable, l2_reg: float = 0.002) -> Variable:
    """The N-pair loss: each anchor should be like the positives of its label, and like no others.

    Args:
        anchor, positive: (batch, size); the batch must be known.
        labels: (batch,) or (batch, 1).
        l2_reg: factor of the squared lengths.
    """
    from holdfast.fluid import layers

    batch = labels.shape[0]
    if batch < 0:
        raise ValueError("npair_loss: the batch must be known; give labels a shape with append_batch_size=False")
    rows = layers.expand(layers.reshape(labels, shape=[batch, 1]), expand_times=[1, batch])
    equal: Any = layers.equal(rows, layers.transpose(rows, perm=[1, 0]))
    same = equal.astype(anchor.dtype)
    same = same / layers.reduce_sum(same, dim=1, keep_dim=True)
    lengths: list[Any] = [layers.reduce_mean(layers.reduce_sum(layers.square(v), 1)) for v in (anchor, positive)]
    regular = (lengths[0] + lengths[1]) * 0.25 * l2_reg
    likeness = layers.matmul(anchor, positive, transpose_x=False, transpose_y=True)
    each = softmax_with_cross_entropy(likeness, same, soft_label=True)
    loss: Variable = regular + layers.reduce_mean(layers.reduce_sum(same * each, 0))
    return loss


def dice_loss(input: Variable, label: Variable, epsilon: float = 1e-5, name: str | None = None) -> Variable:
    """One minus twice the overlap divided by the sum, the mean over the batch, shape [1].

    Args:
        input: probabilities (batch, ..., classes).
        label: integers (batch, ..., 1).
        epsilon: added to the sum.
        name: accepted as Fluid has it.
    """
    from holdfast.fluid import layers

    del name
    scores: Any = input
    truth: Any = layers.one_hot(label, depth=input.shape[-1])
    dims = list(range(1, len(input.shape)))
    overlap: Any = layers.reduce_sum(scores * truth, dim=dims)
    total: Any = layers.reduce_sum(scores, dim=dims)
    total = total + layers.reduce_sum(truth, dim=dims)
    return layers.reduce_mean(1 - overlap * 2 / (total + epsilon))


def label_smooth(
    label: Variable,
    prior_dist: Variable | None = None,
    epsilon: float = 0.1,
    dtype: Any = "float32",
    name: str | None = None,
) -> Variable:
    """One-hot labels moved by a share towards a distribution over the classes.

    Args:
        label: float (..., classes).
        prior_dist: (1, classes); None for the uniform one.
        epsilon: the share, from 0 to 1.
        dtype: of the result.
        name: key of the names.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"label_smooth: epsilon must be from 0 to 1, not {epsilon}")
    label.stop_gradient = True
    inputs = {"X": [label], "PriorDist": prior_dist}
    return LayerHelper("label_smooth", name=name).op("label_smooth", inputs, {"epsilon": float(epsilon)}, dtype=dtype)
