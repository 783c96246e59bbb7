"""A PyTorch run that was killed ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from frameworks.resuming import EVERY, STEPS, kill_at, result

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

PROGRAM = "digits_torch.py"


def test_killed_run_ends_where_an_undisturbed_one_ends(tmp_path: Path) -> None:
    undisturbed = result(PROGRAM, tmp_path / "undisturbed")

    for step in (EVERY + 1, 3 * EVERY + 2):
        kill_at(PROGRAM, tmp_path / "killed", step)
    killed = result(PROGRAM, tmp_path / "killed")

    assert killed.pop("began") == str(3 * EVERY + 1)
    assert undisturbed.pop("began") == "1"
    assert killed == undisturbed
    assert len(killed["losses"].split(",")) == STEPS


def test_program_that_declares_its_layers_in_another_order_goes_on_all_the_same(tmp_path: Path) -> None:
    undisturbed = result(PROGRAM, tmp_path / "undisturbed")

    kill_at(PROGRAM, tmp_path / "killed", 2 * EVERY + 1)
    killed = result(PROGRAM, tmp_path / "killed", "--layers-turned")

    assert {name: killed[name] for name in ("moments", "weights", "losses", "random")} == {
        name: undisturbed[name] for name in ("moments", "weights", "losses", "random")
    }
