"""`fluid.metrics`: figures added up over mini-batches, on the host, in NumPy. They see fetched arrays, never a Program.

The figures are those of Fluid 1.8.5, but for two faults: `reset` reaches what a CompositeMetric holds and the counts of an Auc,
which Fluid left as they were; and `Auc(curve="PR")`, for which Fluid returned the area under the other curve, is an error.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from holdfast.fluid.paddle.unplanned import Unplanned

__all__ = [
    "Accuracy",
    "Auc",
    "ChunkEvaluator",
    "CompositeMetric",
    "DetectionMAP",
    "EditDistance",
    "MetricBase",
    "Precision",
    "Recall",
]

_Array = np.ndarray[Any, Any]

DetectionMAP = Unplanned("fluid.metrics.DetectionMAP", "object detection is not planned")
EditDistance = Unplanned("fluid.metrics.EditDistance", "CTC and edit distances are not planned")


class MetricBase:
    """Base of all metrics, for those of programs, too.

    State is every attribute whose name does not begin with `_`: `reset` sets it to zero, `get_config` returns it.

    Args:
        name: shown by `str`; None for the class's name.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = str(name) if name is not None else type(self).__name__

    def __str__(self) -> str:
        return self._name

    def reset(self) -> None:
        """Set all state to zero: numbers to 0 of their kind, arrays to zeros, anything else to None."""
        for attribute, value in self._states().items():
            if isinstance(value, np.ndarray | np.generic):
                setattr(self, attribute, np.zeros_like(value))
            else:
                setattr(self, attribute, type(value)() if isinstance(value, int | float) else None)

    def get_config(self) -> dict[str, Any]:
        """The name, and a copy of the state: `{"name": …, "states": {…}}`."""
        return {"name": self._name, "states": copy.deepcopy(self._states())}

    def update(self, preds: Any, labels: Any) -> None:
        """Add a mini-batch.

        Raises:
            NotImplementedError: a subclass has to define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update(preds, labels)")

    def eval(self) -> Any:
        """The figure over all mini-batches since the last reset.

        Raises:
            NotImplementedError: a subclass has to define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define eval()")

    def _states(self) -> dict[str, Any]:
        return {attribute: value for attribute, value in vars(self).items() if not attribute.startswith("_")}


class CompositeMetric(MetricBase):
    """Several metrics with the same arguments, updated and evaluated together."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._metrics: list[MetricBase] = []

    def add_metric(self, metric: MetricBase) -> None:
        """Add one.

        Raises:
            ValueError: it is no MetricBase.
        """
        if not isinstance(metric, MetricBase):
            raise ValueError(f"CompositeMetric.add_metric takes a MetricBase, not {type(metric).__name__}")  # noqa: TRY004 - the class that Fluid raises
        self._metrics.append(metric)

    def reset(self) -> None:
        """Reset all of them."""
        for metric in self._metrics:
            metric.reset()

    def update(self, preds: Any, labels: Any) -> None:
        """Update all of them with a mini-batch."""
        for metric in self._metrics:
            metric.update(preds, labels)

    def eval(self) -> list[Any]:
        """The figure of each, in the order in which they were added."""
        return [metric.eval() for metric in self._metrics]


class Precision(MetricBase):
    """Of the samples that a binary classifier called positive, the share that is.

    Example:
        >>> precision = Precision()
        >>> precision.update(preds=np.array([[0.1], [0.7], [0.8]]), labels=np.array([[0], [1], [0]]))
        >>> precision.eval()
        0.5
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.tp = 0
        self.fp = 0

    def update(self, preds: _Array, labels: _Array) -> None:
        """Add a mini-batch.

        Args:
            preds: `(batch, 1)` probabilities of being positive; rounded to 0 or 1.
            labels: `(batch, 1)`, 0 or 1.

        Raises:
            ValueError: one is no array, or they differ in size.
        """
        called, true = _binary(self, preds, labels)
        self.tp += int(np.sum(called & true))
        self.fp += int(np.sum(called & ~true))

    def eval(self) -> float:
        """The precision; 0.0 if nothing was called positive."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0


class Recall(MetricBase):
    """Of the samples that are positive, the share that a binary classifier called so."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.tp = 0
        self.fn = 0

    def update(self, preds: _Array, labels: _Array) -> None:
        """Add a mini-batch; see `Precision.update`."""
        called, true = _binary(self, preds, labels)
        self.tp += int(np.sum(called & true))
        self.fn += int(np.sum(~called & true))

    def eval(self) -> float:
        """The recall; 0.0 if there was no positive sample."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0


class Accuracy(MetricBase):
    """The mean of accuracies that the program computed (`layers.accuracy`), weighted by the size of their mini-batches."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.value: Any = 0.0
        self.weight: Any = 0.0

    def update(self, value: Any, weight: Any) -> None:
        """Add a mini-batch.

        Args:
            value: its accuracy, a number or an array.
            weight: its size.

        Raises:
            ValueError: one of them is neither, or `weight` is negative.
        """
        size = number("Accuracy.update: weight", weight)
        if size < 0:
            raise ValueError(f"Accuracy.update: weight cannot be negative, but is {weight!r}")
        self.value = self.value + number_or_array("Accuracy.update: value", value) * size
        self.weight = self.weight + size

    def eval(self) -> Any:
        """The mean accuracy: a number, or an array if arrays were added.

        Raises:
            ValueError: nothing was added.
        """
        if self.weight == 0:
            raise ValueError(
                "Accuracy has no data: update() was not called since the last reset(), or all weights are 0"
            )
        return self.value / self.weight


class ChunkEvaluator(MetricBase):
    """Precision, recall and F1 of chunks, from the counts that the program computed."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.num_infer_chunks: Any = 0
        self.num_label_chunks: Any = 0
        self.num_correct_chunks: Any = 0

    def update(  # type: ignore[override]  # Fluid's signature
        self, num_infer_chunks: Any, num_label_chunks: Any, num_correct_chunks: Any
    ) -> None:
        """Add the counts of a mini-batch: chunks found, chunks there are, and chunks that are both.

        Raises:
            ValueError: one of them is neither a number nor an array.
        """
        given = {
            "num_infer_chunks": num_infer_chunks,
            "num_label_chunks": num_label_chunks,
            "num_correct_chunks": num_correct_chunks,
        }
        counts = {name: number_or_array(f"ChunkEvaluator.update: {name}", value) for name, value in given.items()}
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)

    def eval(self) -> tuple[float, float, float]:
        """Precision, recall and F1; 0.0 where there is nothing to divide by."""
        found, there, both = (
            float(np.sum(count)) for count in (self.num_infer_chunks, self.num_label_chunks, self.num_correct_chunks)
        )
        precision = both / found if found else 0.0
        recall = both / there if there else 0.0
        return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0


class Auc(MetricBase):
    """The area under the ROC curve of a binary classifier, from the counts at evenly spaced thresholds.

    Args:
        name: shown by `str`; None for the class's name.
        curve: `ROC`.
        num_thresholds: more of them, more exact.

    Raises:
        NotImplementedError: another curve; Fluid computed ROC for it.
    """

    def __init__(self, name: str | None = None, curve: str = "ROC", num_thresholds: int = 4095) -> None:
        super().__init__(name)
        if curve != "ROC":
            raise NotImplementedError(f"fluid.metrics.Auc: curve={curve!r} is not provided, only 'ROC'")
        self._num_thresholds = num_thresholds
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._stat_pos = np.zeros(self._num_thresholds + 1, dtype=np.int64)
        self._stat_neg = np.zeros(self._num_thresholds + 1, dtype=np.int64)

    def update(self, preds: _Array, labels: _Array) -> None:
        """Add a mini-batch.

        Args:
            preds: `(batch, 2)` probabilities of class 0 and 1.
            labels: `(batch, 1)`; 0 is negative, anything else positive.

        Raises:
            ValueError: one is no array, their shapes do not fit, or a probability is not in [0, 1].
        """
        for name, value in (("preds", preds), ("labels", labels)):
            _require_array(f"Auc.update: {name}", value)
        if preds.ndim != 2 or preds.shape[1] != 2 or labels.size != len(preds):
            raise ValueError(
                f"Auc.update: preds {preds.shape} must be (batch, 2), and labels {labels.shape} (batch, 1)"
            )
        positive = preds[:, 1].astype(np.float64)
        if not np.all((positive >= 0) & (positive <= 1)):  # NaN is not, either
            raise ValueError("Auc.update: preds[:, 1] must be probabilities in [0, 1]; is there a softmax?")
        places = (positive * self._num_thresholds).astype(np.int64)
        true = labels.reshape(-1) != 0
        self._stat_pos += np.bincount(places[true], minlength=self._num_thresholds + 1)
        self._stat_neg += np.bincount(places[~true], minlength=self._num_thresholds + 1)

    def eval(self) -> float:
        """The area; 0.0 while there are only positive or only negative samples."""
        # From the highest threshold down, how many of each kind lie above it; trapezoids between neighbours.
        positives = np.concatenate([[0], np.cumsum(self._stat_pos[::-1])]).astype(np.float64)
        negatives = np.concatenate([[0], np.cumsum(self._stat_neg[::-1])]).astype(np.float64)
        whole = positives[-1] * negatives[-1]
        return float(np.trapezoid(positives, negatives) / whole) if whole else 0.0


def number(what: str, value: Any) -> Any:
    """`value`, if it is a number or an array of one.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.size == 1):
        return value
    raise ValueError(f"{what} must be a number, not {type(value).__name__}")


def number_or_array(what: str, value: Any) -> Any:
    """`value`, if it is a number or an array.

    Raises:
        ValueError: it is neither.
    """
    return value if isinstance(value, np.ndarray) else number(what, value)


def _require_array(what: str, value: Any) -> None:
    if not isinstance(value, np.ndarray | np.generic):
        raise ValueError(  # noqa: TRY004 - the class that Fluid raises
            f"{what} must be a NumPy array, not {type(value).__name__}; fetch it with exe.run(fetch_list=…)"
        )


def _binary(metric: MetricBase, preds: Any, labels: Any) -> tuple[_Array, _Array]:
    """Which samples were called positive, and which are."""
    name = type(metric).__name__
    _require_array(f"{name}.update: preds", preds)
    _require_array(f"{name}.update: labels", labels)
    if preds.size != labels.size:
        raise ValueError(
            f"{name}.update: preds {preds.shape} and labels {labels.shape} must have one number for each sample"
        )
    return np.rint(preds).reshape(-1) == 1, labels.reshape(-1) == 1
