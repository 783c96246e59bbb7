"""What the integrations share: metrics that a checkpoint can hold, and random states set apart from the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from holdfast.adapters.global_random import global_random
from holdfast.manager import CheckpointManager


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those metrics that are one finite number, as floats; `CheckpointManager.save` refuses others."""
    numbers = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue  # a text, or an array of several numbers
        if math.isfinite(number):
            numbers[name] = number
    return numbers


def restore_random(manager: CheckpointManager, serial: int, extra: Any = None) -> None:
    """Set the process's random generators, and what is in `extra`, once more: a loop has drawn from them since the restore."""
    state = {"random": global_random()} | ({} if extra is None else {"extra": extra})
    manager.restore(state, serial=serial, strict="subset")
