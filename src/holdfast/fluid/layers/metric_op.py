"""What programs measure in the graph itself."""

from __future__ import annotations

from holdfast.fluid.framework import Variable
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.nn import topk


def accuracy(
    input: Variable, label: Variable, k: int = 1, correct: Variable | None = None, total: Variable | None = None
) -> Variable:
    """The share of the batch whose label is among the `k` greatest scores: float32 [1].

    Args:
        input: scores (batch, classes).
        label: int64 (batch, 1).
        k: how many scores count.
        correct, total: int32 variables that get the number of hits and of samples; None for temporaries.
    """
    helper = LayerHelper("accuracy")
    values, indices = topk(input, k=k)
    share = helper.create_variable_for_type_inference("float32")
    correct = helper.create_variable_for_type_inference("int32") if correct is None else correct
    total = helper.create_variable_for_type_inference("int32") if total is None else total
    helper.append_op(
        "accuracy",
        {"Out": [values], "Indices": [indices], "Label": [label]},
        {"Accuracy": [share], "Correct": [correct], "Total": [total]},
    )
    return share


def auc(
    input: Variable,
    label: Variable,
    curve: str = "ROC",
    num_thresholds: int = 2**12 - 1,
    topk: int = 1,
    slide_steps: int = 1,
) -> tuple[Variable, Variable, list[Variable]]:
    """The area under the ROC curve over all runs so far, and over the last few.

    The counts are four persistable int64 variables `_generated_var_<k>`; evaluate with a program and a scope of its own, or set
    them to zero, to begin anew.

    Args:
        input: scores from 0 to 1: (batch, 2), the second is that of yes, or (batch, 1).
        label: integers (batch, 1), zero for no.
        curve: `"ROC"`.
        num_thresholds: how fine the scores are counted.
        topk: accepted as Fluid has it.
        slide_steps: how many runs the second area is of.

    Returns:
        The area over all runs and that over the last ones, float64 [1]; the four counts: positive and negative ones of the
        last runs, then of all.
    """
    helper = LayerHelper("auc")
    whole, recent = (helper.create_variable_for_type_inference("float64") for _ in range(2))
    lines = num_thresholds + 1
    shapes = [[(1 + slide_steps) * lines + 1]] * 2 + [[1, lines]] * 2
    states = [helper.create_global_variable(persistable=True, dtype="int64", shape=shape) for shape in shapes]
    for state in states:
        helper.set_variable_initializer(state, Constant(0.0))
    for out, positive, negative, steps in ((recent, *states[:2], slide_steps), (whole, *states[2:], 0)):
        helper.append_op(
            "auc",
            {"Predict": [input], "Label": [label], "StatPos": [positive], "StatNeg": [negative]},
            {"AUC": [out], "StatPosOut": [positive], "StatNegOut": [negative]},
            {"curve": curve, "num_thresholds": num_thresholds, "slide_steps": steps},
        )
    return whole, recent, states


def mean_iou(input: Variable, label: Variable, num_classes: int) -> tuple[Variable, Variable, Variable]:
    """The mean over the classes of intersection / union.

    Args:
        input: integers: the classes that were predicted.
        label: integers of the same shape.
        num_classes: number of classes.

    Returns:
        The mean, float32 [1]; for each class how often it was wrong, and how often right: int32 (classes,).
    """
    helper = LayerHelper("mean_iou")
    mean = helper.create_variable_for_type_inference("float32")
    wrong, correct = (helper.create_variable_for_type_inference("int32") for _ in range(2))
    helper.append_op(
        "mean_iou",
        {"Predictions": [input], "Labels": [label]},
        {"OutMeanIou": [mean], "OutWrong": [wrong], "OutCorrect": [correct]},
        {"num_classes": num_classes},
    )
    return mean, wrong, correct
