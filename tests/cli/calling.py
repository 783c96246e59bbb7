"""Ways to call the program, and what a small run holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

import holdfast
from holdfast.cli.app import app
from hostile.cases import Json, with_manifest
from spec.independent import read_folder


@dataclass(frozen=True)
class Called:
    """What a call gave."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | os.PathLike[str]) -> Called:
    """Call the program in this process."""
    result = CliRunner().invoke(app, [os.fspath(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return Called(result.exit_code, result.stdout, result.stderr)


def environment(**more: str) -> dict[str, str]:
    """The environment for another process, in which it finds the same holdfast as this one; no colours are asked for."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE")
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}


def call_process(*arguments: str | os.PathLike[str], cwd: Path | None = None, **more: str) -> Called:
    """Call the program in a process of its own, its output in pipes."""
    command = [sys.executable, "-m", "holdfast", *map(os.fspath, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment(**more))
    return Called(done.returncode, done.stdout, done.stderr)


def state_at(step: int) -> dict[str, Any]:
    """A state that changes in one weight, one moment and the values from step to step."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight[0, 1] += step
    return {
        "model": holdfast.parameters({"fc": {"bias": np.zeros(3, np.float32), "weight": weight}}),
        "frozen": holdfast.parameters({"embedding": np.ones((4, 2), np.float16)}, trainable=False),
        "adam": {"m": np.full(3, step, np.float64), "step": step},
    }


def damage(path: str | Path, at: int = -1) -> None:
    """Flip a bit of a file; files may be hard links of others, so it is written anew."""
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 1
    Path(path).unlink()
    Path(path).write_bytes(data)


def rewrite_manifest(folder: str | Path, **fields: Json) -> None:
    """Change fields of a manifest, whose digest is right again."""
    files = with_manifest(read_folder(folder), lambda manifest: manifest.update(fields))
    Path(folder, "manifest.json").write_bytes(files["manifest.json"])
