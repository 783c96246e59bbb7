"""What the tests of every framework share: a program that trains is killed between two saves, and another goes on."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 24
EVERY = 4
ROOT = Path(__file__).parents[2]


def digest(arrays: dict[str, Any]) -> str:
    """Of all bytes of named arrays."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return hashed.hexdigest()


def images() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits: (1797, 64) float32 in 0 to 1, and (1797,) int64 labels."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    return (inputs / 16).astype(np.float32), labels.astype(np.int64)


def start(program: str, run: Path, *options: str) -> subprocess.Popen[str]:
    """Start a training program of this folder in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "frameworks")])}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "frameworks" / program), str(run), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result(program: str, run: Path, *options: str) -> dict[str, str]:
    """What a program that ends by itself says at its end."""
    process = start(program, run, *options)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)


def kill_at(program: str, run: Path, step: int, *options: str) -> None:
    """Let a program train until it has done a step, and kill it there."""
    process = start(program, run, *options)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == f"did {step}":
            process.send_signal(signal.SIGKILL)
            break
    errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
