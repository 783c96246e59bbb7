"""fluid.metrics and fluid.average: Fluid 1.8.5's figures, against its documented examples and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import roc_auc_score

from holdfast.fluid import average, evaluator, metrics

# The example that Fluid's documentation gives for Precision and Recall: 3/5 and 3/4. 0.5 rounds to 0.
PREDS = np.array([[0.1], [0.7], [0.8], [0.9], [0.2], [0.2], [0.3], [0.5], [0.8], [0.6]])
LABELS = np.array([[0], [1], [1], [1], [1], [0], [0], [0], [0], [0]])


@pytest.mark.parametrize("flat", [False, True])
def test_precision_and_recall_of_the_documented_example(flat: bool) -> None:
    preds, labels = (PREDS.ravel(), LABELS.ravel()) if flat else (PREDS, LABELS)
    precision, recall = metrics.Precision(), metrics.Recall()
    for part in (slice(0, 4), slice(4, None)):
        precision.update(preds=preds[part], labels=labels[part])
        recall.update(preds=preds[part], labels=labels[part])

    assert precision.eval() == 3 / 5
    assert recall.eval() == 3 / 4
    assert (precision.tp, precision.fp, recall.tp, recall.fn) == (3, 2, 3, 1)


def test_precision_and_recall_of_nothing_are_zero() -> None:
    assert (metrics.Precision().eval(), metrics.Recall().eval()) == (0.0, 0.0)


@pytest.mark.parametrize("kind", [metrics.Precision, metrics.Recall])
def test_precision_and_recall_refuse_other_arguments(kind: type[metrics.Precision | metrics.Recall]) -> None:
    with pytest.raises(ValueError, match="update: preds must be a NumPy array, not list"):
        kind().update([0.1], LABELS)
    with pytest.raises(ValueError, match="update: labels must be a NumPy array, not list"):
        kind().update(PREDS, [1])
    with pytest.raises(ValueError, match=r"preds \(10, 1\) and labels \(9, 1\)"):
        kind().update(PREDS, LABELS[:9])


def test_composite_metric_evaluates_and_resets_all() -> None:
    both = metrics.CompositeMetric()
    both.add_metric(metrics.Precision())
    both.add_metric(metrics.Recall())
    both.update(preds=PREDS, labels=LABELS)

    assert both.eval() == [3 / 5, 3 / 4]
    both.reset()  # Fluid leaves the parts as they were
    assert both.eval() == [0.0, 0.0]
    with pytest.raises(ValueError, match="takes a MetricBase, not str"):
        both.add_metric("accuracy")  # type: ignore[arg-type]


def test_accuracy_weighs_batches_by_their_size() -> None:
    accuracy = metrics.Accuracy()
    accuracy.update(value=0.9, weight=128)
    accuracy.update(value=0.8, weight=64)

    assert accuracy.eval() == pytest.approx((0.9 * 128 + 0.8 * 64) / 192)
    accuracy.reset()
    accuracy.update(value=0.8, weight=1)
    assert accuracy.eval() == 0.8


@pytest.mark.parametrize("weight", [4, np.int64(4), 4.0, np.array([4]), np.float32(4)])
def test_accuracy_takes_what_a_run_fetches(weight: object) -> None:
    accuracy = metrics.Accuracy()
    fetched = np.array([0.5], dtype=np.float32)
    accuracy.update(value=fetched, weight=weight)
    accuracy.update(value=np.array([0.25], dtype=np.float32), weight=weight)

    np.testing.assert_allclose(accuracy.eval(), [0.375])
    assert fetched == 0.5  # what was given is not written to
    accuracy.reset()
    with pytest.raises(ValueError, match="Accuracy has no data"):
        accuracy.eval()


@pytest.mark.parametrize(
    ("value", "weight", "complaint"),
    [
        ("0.5", 1, "value must be a number, not str"),
        (0.5, None, "weight must be a number"),
        (0.5, np.zeros(2), "weight"),
        (1, -1, "negative"),
    ],
)
def test_accuracy_refuses_other_arguments(value: object, weight: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        metrics.Accuracy().update(value, weight)


def test_chunk_evaluator_of_the_documented_example() -> None:
    chunks = metrics.ChunkEvaluator()
    chunks.update(10, 9, 8)
    assert chunks.eval() == (0.8, 8 / 9, pytest.approx(2 * 0.8 * (8 / 9) / (0.8 + 8 / 9)))

    chunks.update(np.array([3]), np.array([3]), np.array([3]))
    assert chunks.eval() == (11 / 13, 11 / 12, pytest.approx(2 * (11 / 13) * (11 / 12) / (11 / 13 + 11 / 12)))
    chunks.reset()
    assert chunks.eval() == (0.0, 0.0, 0.0)


def test_chunk_evaluator_changes_nothing_on_bad_arguments() -> None:
    chunks = metrics.ChunkEvaluator()

    with pytest.raises(ValueError, match="num_correct_chunks must be a number, not str"):
        chunks.update(1, 2, "3")
    assert chunks.get_config()["states"] == {"num_infer_chunks": 0, "num_label_chunks": 0, "num_correct_chunks": 0}


def fluid_auc(preds: np.ndarray, labels: np.ndarray, thresholds: int) -> float:
    """Fluid's rule, written out: counts in buckets, trapezoids from the highest bucket down."""
    buckets = np.zeros((2, thresholds + 1))
    for probability, label in zip(preds[:, 1], labels, strict=True):
        buckets[int(bool(label)), int(float(probability) * thresholds)] += 1
    area = above_negative = above_positive = 0.0
    for negative, positive in buckets.T[::-1]:
        area += negative * (above_positive + above_positive + positive) / 2
        above_negative, above_positive = above_negative + negative, above_positive + positive
    return area / above_negative / above_positive if above_negative and above_positive else 0.0


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), thresholds=st.sampled_from([1, 7, 200, 4095]))
def test_auc_is_fluid_s_in_any_batches(seed: int, count: int, thresholds: int) -> None:
    random = np.random.default_rng(seed)
    positive = random.choice([0.0, 0.25, 0.5, 1.0, *random.random(5)], count).astype(np.float32)
    preds, labels = np.stack([1 - positive, positive], axis=1), random.integers(0, 2, (count, 1))
    auc = metrics.Auc("auc", num_thresholds=thresholds)
    for start in range(0, count, 7):
        auc.update(preds=preds[start : start + 7], labels=labels[start : start + 7])

    assert auc.eval() == pytest.approx(fluid_auc(preds, labels.ravel(), thresholds), abs=1e-12)


def test_auc_comes_near_the_exact_area() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 2000)
    positive = np.clip(labels * 0.3 + random.normal(0.35, 0.2, 2000), 0, 1)
    auc = metrics.Auc("auc")
    auc.update(np.stack([1 - positive, positive], axis=1), labels[:, None])

    assert auc.eval() == pytest.approx(roc_auc_score(labels, positive), abs=1e-3)
    auc.reset()  # Fluid leaves its counts as they were
    assert auc.eval() == 0.0


@pytest.mark.parametrize(
    ("preds", "labels", "complaint"),
    [
        ([[0.5, 0.5]], np.array([1]), "preds must be a NumPy array"),
        (np.full((1, 2), 0.5), [1], "labels must be a NumPy array"),
        (np.full((2, 1), 0.5), np.array([1, 0]), r"preds \(2, 1\) must be \(batch, 2\)"),
        (np.full((2, 2), 0.5), np.array([1]), r"labels \(1,\)"),
        (np.array([[0.0, 1.5]]), np.array([1]), "softmax"),
        (np.array([[1.1, -0.1]]), np.array([1]), "softmax"),
        (np.array([[0.0, np.nan]]), np.array([1]), "softmax"),
    ],
)
def test_auc_refuses_other_arguments(preds: object, labels: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        metrics.Auc("auc").update(preds, labels)  # type: ignore[arg-type]


def test_auc_refuses_the_curve_that_fluid_ignores() -> None:
    with pytest.raises(NotImplementedError, match="curve='PR' is not provided"):
        metrics.Auc("auc", curve="PR")


def test_metric_base_resets_and_shows_the_state_of_a_program_s_own_metric() -> None:
    class Largest(metrics.MetricBase):
        def __init__(self) -> None:
            super().__init__(None)
            self.count, self.total, self.seen, self.note, self._kept = 3, 2.5, np.ones((2,), np.int32), "x", 9

    own = Largest()

    assert str(own) == own.get_config()["name"] == "Largest"
    config = own.get_config()
    own.seen[0] = 5
    assert config["states"]["seen"].tolist() == [1, 1]  # a copy
    own.reset()
    assert (own.count, own.total, own.seen.tolist(), own.note, own._kept) == (0, 0.0, [0, 0], None, 9)
    assert own.seen.dtype == np.int32
    assert str(metrics.MetricBase("mine")) == "mine"
    for call in (lambda: own.update(PREDS, LABELS), own.eval):
        with pytest.raises(NotImplementedError, match="Largest does not define"):
            call()


@pytest.mark.parametrize("name", ["EditDistance", "DetectionMAP"])
def test_metrics_that_are_not_planned_refuse_when_called(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"fluid\.metrics\.{name} is not provided"):
        getattr(metrics, name)("name")


@pytest.mark.parametrize("name", evaluator.__all__)
def test_evaluators_refuse_when_called(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"fluid\.evaluator\.{name} is not provided"):
        getattr(evaluator, name)(None, None)


def test_weighted_average_of_the_documented_example() -> None:
    mean = average.WeightedAverage()
    mean.add(value=2.0, weight=1)
    mean.add(value=4.0, weight=2)

    assert mean.eval() == pytest.approx(10 / 3)
    mean.reset()
    mean.add(np.array([1.0, 3.0]), np.array([2]))
    mean.add(np.array([2.0, 5.0]), 2)
    np.testing.assert_allclose(mean.eval(), [1.5, 4.0])


def test_weighted_average_refuses_nothing_and_no_numbers() -> None:
    mean = average.WeightedAverage()
    with pytest.raises(ValueError, match="has no data"):
        mean.eval()
    with pytest.raises(ValueError, match="value must be a number, not list"):
        mean.add([1.0], 1)
    with pytest.raises(ValueError, match="weight must be a number"):
        mean.add(1.0, "1")
    mean.add(1.0, 0)
    with pytest.raises(ValueError, match="has no data"):
        mean.eval()
