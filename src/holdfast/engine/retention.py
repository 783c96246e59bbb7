"""Which checkpoints stay: a union of rules, over complete ones only (`keep` is pure; `prune` deletes)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.engine.catalog import Found, complete
from holdfast.engine.commit import retire
from holdfast.errors import StorageError
from holdfast.storage import Location

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What to keep; a checkpoint stays if any rule, or its pin, or being the newest, asks for it.

    Attributes:
        newest: this many of the highest serials; None keeps all.
        period: every checkpoint whose step (serial, if it has none) is a multiple of this.
        best: (metric, "min" or "max"): the checkpoints with the best value.
        best_count: how many of those.
    """

    newest: int | None = None
    period: int | None = None
    best: tuple[str, Literal["min", "max"]] | None = None
    best_count: int = 1

    def __post_init__(self) -> None:
        for name, value in (("newest", self.newest), ("period", self.period), ("best_count", self.best_count)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(
                    f"the number of checkpoints to keep ({name}) must be a whole number from 1, not {value!r}"
                )
        if self.best is not None and self.best[1:] not in (("min",), ("max",)):
            raise ValueError(f'best must be a pair such as ("loss", "min"), not {self.best!r}')


def keep(found: Sequence[Found], rules: Rules) -> set[int]:
    """The serials that stay."""
    serials = sorted((f.serial for f in found), reverse=True)
    if rules.newest is None:
        return set(serials)
    kept = {*serials[: rules.newest], *(f.serial for f in found if f.pinned)}
    if rules.period is not None:
        kept |= {
            f.serial for f in found if (f.serial if f.manifest.step is None else f.manifest.step) % rules.period == 0
        }
    if rules.best is not None:
        kept |= set(ranked(found, rules.best)[: rules.best_count])
    return kept


def ranked(found: Sequence[Found], best: tuple[str, Literal["min", "max"]]) -> list[int]:
    """The serials of those that have the metric, the best first; of equal ones the newer, which was trained for longer."""
    name, mode = best
    scored = [
        (f.manifest.metrics[name], f.serial) for f in found if math.isfinite(f.manifest.metrics.get(name, math.nan))
    ]
    return [serial for _, serial in sorted(scored, key=lambda s: (s[0] if mode == "min" else -s[0], -s[1]))]


def prune(run: Location, rules: Rules) -> list[int]:
    """Delete the complete checkpoints that no rule keeps, the oldest first; returns their serials.

    Call it after a commit only. A deletion that fails is logged and tried again by the next save: the new checkpoint
    is there, and that is what the caller has to know. One that cannot be read is not counted, and stays.
    """
    unreadable: list[StorageError] = []
    found = list(complete(run, unreadable))
    for error in unreadable:
        log.warning("%s; it is not counted among the checkpoints to keep, and not deleted", error)
    kept = keep(found, rules)
    gone = []
    for old in reversed(found):
        if old.serial not in kept:
            try:
                if not retire(old.folder, old.serial, unless_pinned=True):
                    continue
            except FileNotFoundError:
                continue  # another process was faster
            except OSError as error:
                log.warning("could not delete %s (%s); the next save will try again", old.folder, error)
                continue
            gone.append(old.serial)
    return gone
