"""What the integrations share: metrics that a checkpoint can hold, which one is whole, random states set apart from the rest."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from holdfast.adapters.global_random import global_random
from holdfast.errors import CorruptCheckpointError, FormatError, RestoreError, VersionError
from holdfast.manager import CheckpointManager
from holdfast.runs import verify

log = logging.getLogger(__name__)


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


def newest_whole(manager: CheckpointManager) -> int | None:
    """The serial of the newest checkpoint of which every byte is sound; None if nothing was saved yet.

    Raises:
        RestoreError: there are checkpoints, and all of them are damaged.
    """
    failures: list[tuple[int, Exception]] = []
    for serial in reversed(manager.serials()):
        try:
            verify(manager.checkpoint_dir, serial=serial)
        except VersionError:
            raise  # it is sound: a newer Holdfast reads it
        except (CorruptCheckpointError, FormatError) as error:
            log.warning("checkpoint_%d cannot be restored, trying an older one: %s", serial, error)
            failures.append((serial, error))
        else:
            return serial
    if failures:
        listed = "\n".join(f"  checkpoint_{number}: {error}" for number, error in failures)
        raise RestoreError(
            f"all checkpoints in {manager.checkpoint_dir} are damaged:\n{listed}", failures
        ) from failures[-1][1]
    return None
