"""No framework is loaded that the program has not loaded itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = """
import json, sys
import numpy as np, holdfast
state = {"w": np.zeros(2), "rng": np.random.default_rng(0), "pair": (1, np.ones(1)), "random": holdfast.global_random()}
holdfast.save_checkpoint(state, holdfast.MemoryStore().at("run"))
print(json.dumps([name for name in sys.modules if name.partition(".")[0] in ("torch", "jax", "paddle", "flax")
                  or name.startswith(("holdfast.adapters.torch", "holdfast.adapters.jax", "holdfast.adapters.paddle"))]))
"""


def loaded(before: str = "") -> list[str]:
    done = subprocess.run([sys.executable, "-c", before + PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_numpy_program_loads_no_adapter_of_a_framework() -> None:
    assert loaded() == []


def test_adapter_is_loaded_with_its_framework_only() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")

    names = loaded("import jax\n")

    assert {"jax", "holdfast.adapters.jax"} <= set(names)
    assert not [name for name in names if "torch" in name or "paddle" in name]
