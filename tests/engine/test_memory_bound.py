"""Memory above the state is bounded, whatever its size: measured in processes of their own, by the kernel."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

BOUND = 128 << 20

# VmHWM is the greatest resident size so far; writing 5 to clear_refs sets it back to the present one.
PROGRAM = """
import gc, sys
import numpy as np
import holdfast
from holdfast.storage import local

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))

def measure(work):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = resident()
    work()
    print(peak() - before)

path, made = sys.argv[1:]
holdfast.save_params({"warm": np.zeros(1)}, path + "-warm")
state = eval(made)
measure(lambda: holdfast.save_checkpoint(state, path))
measure(lambda: holdfast.load_checkpoint(state, path))
measure(lambda: holdfast.load_checkpoint(state, path, verify="before"))
local._LocalReader.is_cached = lambda *_: False
measure(lambda: holdfast.load_checkpoint(state, path))
del state
measure(lambda: holdfast.verify(path))
"""

STATES = {
    "512 MiB in one array": "[np.ones(128 << 20, np.float32)]",
    "160 MiB in Fortran order": "[np.asfortranarray(np.ones((5 << 10, 1 << 12), np.float64))]",
    "180 MB in many small arrays": "[np.ones(60_000, np.uint8) for i in range(3000)]",
}


@pytest.mark.parametrize("made", STATES.values(), ids=STATES)
def test_memory_above_the_state_is_bounded(made: str) -> None:
    if not Path("/proc/self/clear_refs").exists() or not Path("/dev/shm").is_dir():
        pytest.skip("measured by Linux's /proc")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # what is measured is this process, and not the disk
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, f"{folder}/run", made], capture_output=True, text=True, check=False
        )

    assert done.returncode == 0, done.stderr
    peaks = dict(
        zip(
            ("save", "load", "verify before load", "load from disk", "verify"),
            map(int, done.stdout.split()),
            strict=True,
        )
    )
    assert {what: f"{peak / 2**20:.0f} MiB" for what, peak in peaks.items() if peak > BOUND} == {}
