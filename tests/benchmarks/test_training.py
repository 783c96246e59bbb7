"""The workload beside training notices a library that saves something else than the state at the call."""

import numpy as np
import pytest

from benchmarks import libraries, report, training

SIZES = {"layers": 1, "width": 8, "vocab": 32}
BESIDE = {"stall", "stall_first", "beside", "slowdown"}


class Faithful(libraries.Savez):
    """Copies first, and writes when it is asked whether it is done."""

    name = "faithful"

    def save_beside(self, state, folder, step):
        copied = {name: array.copy() for name, array in state.items()}
        return lambda: self.save(copied, folder / f"step-{step}{self.suffix}") is None


class Live(libraries.Savez):
    """Writes the live arrays later, as some do in a thread."""

    name = "live"

    def save_beside(self, state, folder, step):
        return lambda: self.save(dict(state), folder / f"step-{step}{self.suffix}") is None


class Half(libraries.Savez):
    """Saves less precisely than it is asked to."""

    name = "half"

    def save(self, state, path):
        super().save({name: array.astype(np.float16) for name, array in state.items()}, path)


def wrong(metrics: dict) -> set[str]:
    """Figures that are worth nothing."""
    return {key.removesuffix("_wrong") for key in metrics if key.endswith("_wrong")}


@pytest.mark.parametrize(
    ("library", "expected"), [(Faithful, set()), (Live, BESIDE), (Half, {"train_save", "train_load"})]
)
def test_wrong_values_are_counted_for_the_figures_that_they_belong_to(library, expected, tmp_path):
    metrics = training.measure(library(), tmp_path, 0, SIZES)

    assert wrong(metrics) == expected
    assert all(metrics[f"{key}_wrong"] > 10 for key in expected)
    assert metrics["train_load"] > 0


def test_the_table_has_no_time_for_wrong_values(tmp_path):
    metrics = training.measure(Live(), tmp_path, 0, SIZES)
    cell = {"library": "live", "workload": "train", "round": 0, "metrics": metrics, "error": None}
    limits = {"library": "limits", "workload": "train", "round": 0, "metrics": {"slowdown_1": 0.031}, "error": None}
    data = {"cells": [cell, limits], "sizes": {"train": SIZES}, "date": "", "machine": {}, "versions": {}}

    rows = {line.split(" | ")[0]: line for line in report.full(data).splitlines() if line.startswith("| ")}
    said = f"**wrong values** ({4 * len(list(training.shapes(**SIZES)))})"
    assert rows["| the same, until durable"] == f"| the same, until durable | 0.00 GB/s | {said} |"
    assert rows["| steps take longer meanwhile, on all cores"].endswith(
        f" | a plain write by 1 thread: 3.1 % | {said} |"
    )
    assert " s" in rows["| save it while training waits, durable"].split(" | ")[2]
    assert "were not bit for bit what had been saved" in report.full(data)


def test_wrong_values_of_another_library_are_a_result_and_of_this_one_a_failure():
    cells = [{"library": name, "metrics": {"stall": 1.0, "stall_wrong": 3}} for name in ("holdfast", "torchsnapshot")]

    assert [report.is_wrong(cell) for cell in cells] == [True, False]
    assert not report.is_wrong({"library": "holdfast", "metrics": {"stall": 1.0}})
