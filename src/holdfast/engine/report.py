"""What a load did: one record for each variable. Values only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import msgspec


class LoadedVariable(msgspec.Struct, frozen=True, gc=False):
    """One variable that was loaded.

    Attributes:
        name: in the target.
        source: in the checkpoint.
        file: the file of its (first) bytes.
        nbytes: in the checkpoint.
        cast_from: the checkpoint's dtype, if it was converted; else None.
    """

    name: str
    source: str
    file: str
    nbytes: int
    cast_from: str | None = None


class Outcome:
    """What has come of a state; complains if it is another object than the one given, and nobody asks for it."""

    __slots__ = ("_is_waiting", "_state")

    def __init__(self, state: Any, replaced: bool) -> None:
        self._state, self._is_waiting = state, replaced

    def state(self) -> Any:
        """The state."""
        self._is_waiting = False
        return self._state

    def __del__(self) -> None:
        if self._is_waiting:
            warnings.warn(
                f"a {type(self._state).__name__} cannot be changed, so its loaded values are in a new one, which nobody took: "
                "state = holdfast.load_checkpoint(state, …).state",
                RuntimeWarning,
                stacklevel=2,
            )


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes:
        path: the folder or file that was loaded.
        serial: of the checkpoint; None if it stands alone.
        step: the training step given when it was saved; None if none was.
        trainer_args: what `save_checkpoint(trainer_args=)` was given.
        metrics: what `save_checkpoint(metrics=)` was given.
        loaded: every variable that was loaded, and from where.
        values: names of the values (no arrays) that were loaded.
        skipped: names that `skip=` left alone.
        missing: names that only the target has (with `strict="superset"`): they are as they were.
        unexpected: names that only the checkpoint has (with `strict="subset"`).
        verified: whether digests were checked.
        nbytes: bytes of the loaded variables.
        seconds: the time it took.
    """

    path: str
    serial: int | None
    step: int | None
    trainer_args: Any
    metrics: dict[str, float]
    loaded: tuple[LoadedVariable, ...] = field(repr=False)
    values: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    verified: bool
    nbytes: int
    seconds: float
    outcome: Outcome = field(repr=False, compare=False)

    @property
    def state(self) -> Any:
        """The state with everything loaded: the object that was given, or a new one if that cannot be changed.

        Tuples, Flax's `TrainState` and Equinox modules cannot; one that stands in a dict was replaced there.
        """
        return self.outcome.state()
