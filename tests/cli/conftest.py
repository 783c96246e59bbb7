"""A small run, and a checkpoint with hostile names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import holdfast
from cli.calling import state_at


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three checkpoints of steps 0, 10 and 20, in a folder named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    manager = holdfast.CheckpointManager("runs/digits", max_to_keep=None)
    for step in (0, 10, 20):
        manager.save(
            state_at(step),
            step,
            metrics={"loss": 1 / (1 + step)},
            trainer_args={"epoch": step // 10, "tag": ("a", float("nan"))},
        )
    return "runs/digits"


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A `save_params` folder `evil` with names that want to be more than names; how each must be shown."""
    monkeypatch.chdir(tmp_path)
    names = {
        "a\x1b[31mred\x1b[0m": r"a\x1b[31mred\x1b[0m",
        "clear\x9b2J": r"clear\x9b2J",
        "two\nlines\tand\rmore": r"two\nlines\tand\rmore",
        "rtl\u202eevil\u2066": r"rtl\u202eevil\u2066",
        "line\u2028end": r"line\u2028end",
        "[bold red]markup[/bold red]": "[bold red]markup[/bold red]",
        "[/]": "[/]",
        ":smile:": ":smile:",
        "http://example.org/" + "x" * 300: "http://example.org/" + "x" * 300,
        "日本語" * 40: "日本語" * 40,
    }
    holdfast.save_params(holdfast.parameters({name: np.ones(2, np.float32) for name in names}), "evil")
    return names
