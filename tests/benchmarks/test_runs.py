"""The benchmark as a plain test: it must run and fill its tables. Its figures are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKERS = "# A page\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nThe end.\n"
LIMITS = {"write_direct_2", "write_buffered", "read_direct_2", "read_warm_2", "copy_1", "hash_1"}
WHOLE = {"save", "save_call", "save_memory", "load", "load_memory", "read", "read_memory", "one", "names", "disk"}
TRAIN = {"stall", "stall_first", "beside", "slowdown", "train_save", "train_load", "again", "again_part", "frozen_part"}
FIGURES = {
    "train": TRAIN,
    "big": WHOLE | {"load_cold"},
    "many": WHOLE,
    "rotate": {"rotate", "longest"},
    "limits": LIMITS,
}


def bench(*args: object) -> subprocess.CompletedProcess:
    """Run it as `make bench` does."""
    command = [sys.executable, "-m", "benchmarks", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A folder with the pages that are published to."""
    root = tmp_path_factory.mktemp("pages")
    (root / "docs").mkdir()
    for page in ("README.md", "docs/benchmarks.md"):
        (root / page).write_text(MARKERS)
    return root


@pytest.fixture(scope="module")
def results(pages, tmp_path_factory) -> dict:
    """Of one run, all workloads in small."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench("--quick", "--folder", folder / "data", "--out", folder / "results.json", "--publish", pages)

    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((folder / "data").iterdir()), "it cleans up"
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("workload", list(FIGURES))
@pytest.mark.parametrize("library", ["holdfast", "safetensors"])
def test_a_run_has_every_figure(results, library, workload):
    library = "limits" if workload == "limits" else library
    cells = [c for c in results["cells"] if (c["library"], c["workload"]) == (library, workload)]

    if (library, workload) == ("safetensors", "train"):
        assert not cells, "it has no asynchronous save"
        return
    assert cells
    for cell in cells:
        assert cell["error"] is None
        assert FIGURES[workload] - set(cell["metrics"]) == set()
        assert all(value >= 0 for key, value in cell["metrics"].items() if key != "slowdown")


def test_plain_writes_beside_the_same_steps_are_measured_too(results):
    (cell,) = [c for c in results["cells"] if (c["library"], c["workload"]) == ("limits", "train")]

    assert set(cell["metrics"]) == {"slowdown_1", "slowdown_2"}


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_publish_replaces_what_is_between_the_markers(results, pages, page):
    text = (pages / page).read_text()

    assert text.startswith("# A page\n\n<!-- bench:begin -->\n")
    assert text.endswith("<!-- bench:end -->\n\nThe end.\n")
    assert "\nold\n" not in text
    assert "| holdfast | safetensors |" in text
    assert results["machine"]["processor"] in text
    assert results["date"] in text


def test_publish_refuses_a_page_without_markers(results, pages, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no markers")
    (tmp_path / "docs" / "benchmarks.md").write_text(MARKERS)
    (tmp_path / "results.json").write_text(json.dumps(results))

    done = bench("--results", tmp_path / "results.json", "--publish", tmp_path)

    assert done.returncode != 0
    assert "README.md has 0 places for the tables" in done.stderr
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == MARKERS


def test_an_error_in_a_library_is_reported_and_the_others_go_on(results, tmp_path):
    cells = results["cells"]
    cells = [*cells, {"library": "safetensors", "workload": "big", "round": 0, "metrics": {}, "error": "OSError: no"}]
    (tmp_path / "results.json").write_text(json.dumps(results | {"cells": cells}))

    done = bench("--results", tmp_path / "results.json")

    assert done.returncode == 1
    assert "- safetensors, big: OSError: no" in done.stdout
    assert "| holdfast | safetensors |" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_the_pages_of_the_project_have_one_place_for_the_tables(page):
    text = (ROOT / page).read_text()

    assert text.count("<!-- bench:begin -->") == text.count("<!-- bench:end -->") == 1
