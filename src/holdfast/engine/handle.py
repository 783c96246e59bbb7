"""SaveHandle: what becomes of a save, for whoever asked for it."""

from __future__ import annotations

from holdfast.engine.background import Background


class SaveHandle:
    """What becomes of a `CheckpointManager.save`.

    Attributes:
        step: the step it was called with.
        reason: why none was saved; empty if one was, or will be.
    """

    __slots__ = ("_pending", "_serial", "reason", "step")

    def __init__(
        self, step: int, serial: int | None = None, reason: str = "", *, pending: Background | None = None
    ) -> None:
        self.step, self.reason = step, reason
        self._serial, self._pending = serial, pending

    @property
    def serial(self) -> int | None:
        """The serial of the new checkpoint; None if there is none, or not yet."""
        return self._serial if self._pending is None else self._pending.value

    def done(self) -> bool:
        """Whether there is nothing more to wait for: it is committed, or failed, or was not to be saved."""
        return self._pending is None or self._pending.is_over()

    def committed(self) -> bool:
        """Whether a new checkpoint is complete and durable by now."""
        return self.serial is not None

    def result(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the save.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The serial of the new checkpoint, complete and durable; None if this step was not to be saved.

        Raises:
            TimeoutError: it is not done after `timeout`; it goes on. The message says what it waits for.
            As `save_checkpoint`: it failed; nothing of it remains, and older checkpoints are untouched.
        """
        return self._serial if self._pending is None else self._pending.result(timeout)

    def __repr__(self) -> str:
        if self.reason:
            state = f"not saved: {self.reason}"
        elif self.committed():
            state = f"serial={self.serial}"
        else:
            state = "failed" if self.done() else "in flight"
        return f"<SaveHandle step={self.step}, {state}>"
