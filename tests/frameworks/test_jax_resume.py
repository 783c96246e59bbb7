"""A JAX run that was killed ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from frameworks.resuming import EVERY, STEPS, kill_at, result

for module in ("jax", "flax", "optax", "sklearn"):
    pytest.importorskip(module, reason=f"{module} is not installed")

PROGRAM = "digits_jax.py"


def test_killed_run_ends_where_an_undisturbed_one_ends(tmp_path: Path) -> None:
    undisturbed = result(PROGRAM, tmp_path / "undisturbed")

    for step in (EVERY + 1, 3 * EVERY + 2):
        kill_at(PROGRAM, tmp_path / "killed", step)
    killed = result(PROGRAM, tmp_path / "killed")

    assert killed.pop("began") == str(3 * EVERY + 1)
    assert undisturbed.pop("began") == "1"
    assert killed == undisturbed
    assert killed["step"] == str(STEPS)
