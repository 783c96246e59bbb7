"""Signals that announce the end of a process: noted when they come, and acted on by whoever asks.

A signal handler runs between any two instructions of the program, in the middle of a save too. So it only sets two attributes; it
takes no lock, and calls nothing but the handler that was there before.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class Preemption:
    """Which signals were asked for, and whether one has come.

    Attributes:
        has_come: whether one has come at all.
        is_pending: whether one has come that nobody has acted on.
    """

    def __init__(self) -> None:
        self.has_come = self.is_pending = False
        self._previous: dict[int, Any] = {}
        self._process = os.getpid()

    def watch(self, *signals: int) -> None:
        """Note these signals from now on; handlers that are functions are called as well.

        Raises:
            ValueError: this is not the main thread, or there is no such signal.
        """
        for number in signals:
            if number in self._previous and signal.getsignal(number) == self._note:
                continue
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        if os.getpid() == self._process:
            self.has_come = self.is_pending = True
        elif previous in (signal.SIG_DFL, None):
            # A forked child, such as a data loader's worker, has inherited the handler. It saves nothing, and its parent may wait
            # for this signal to end it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if callable(previous):  # not SIG_DFL, which would end the process, nor SIG_IGN
            previous(number, frame)

    def release(self) -> None:
        """Put the handlers back, where ours is still the one."""
        for number, previous in list(self._previous.items()):
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
            del self._previous[number]
