"""The fixtures: what the frameworks wrote, and what they held."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"
FLUID = FIXTURES / "fluid-1.8.5"
PADDLE = FIXTURES / "paddle-3.3.1"


@cache
def meta(case: Path) -> dict[str, Any]:
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


@cache
def arrays(case: Path) -> dict[str, np.ndarray]:
    with np.load(case / "expected.npz") as held:
        return dict(held)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Equal bit for bit: NaN, -0.0 and dtype too."""
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def values(case: Path, key: str = "vars") -> dict[str, np.ndarray]:
    """True values by variable name."""
    entries = meta(case)[key]
    return {
        name: arrays(case)[entry["npz"] if isinstance(entry, dict) else entry]
        for name, entry in entries.items()
        if not isinstance(entry, dict) or "npz" in entry
    }


def tensor_files() -> list[tuple[Path, str, Path]]:
    """(case, variable, file) of every file with one LoDTensor that has an expected value."""
    found = []
    for case in sorted(FLUID.iterdir()):
        root = case / "model"
        if case.name == "checkpoint_layout":
            root = root / "checkpoint_1" / "__model__"
        for name, entry in meta(case)["vars"].items():
            path = root / os.path.normpath(entry.get("file") or "-")
            if entry.get("type") != "SELECTED_ROWS" and path.is_file():
                found.append((case, name, path))
    return found


def combined_files() -> list[tuple[Path, Path, list[str]]]:
    """(case, file, names) of every combined file of Fluid."""
    found = []
    for case in sorted(FLUID.iterdir()):
        for name in ("combined/all", "model/all.params", "model/__persistables__", "model/weights.bin"):
            if (case / name).is_file():
                found.append((case, case / name, meta(case)["combined_order"]))
    return found


def program_files() -> list[Path]:
    found = [*FIXTURES.rglob("__model__"), *FIXTURES.rglob("*.pdmodel"), *FIXTURES.rglob("model.pb")]
    return sorted(path for path in found if path.is_file())


def pickle_files() -> list[Path]:
    return sorted(p for kind in ("pdparams", "pdopt", "pd", "pdtensor", "distcp") for p in FIXTURES.rglob(f"*.{kind}"))
