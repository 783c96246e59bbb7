"""Signals that announce the end of a process: noted when they come, and acted on by whoever asks.

A signal handler runs between any two instructions of the program, in the middle of a save too. So it only sets two attributes; it
takes no lock, and calls nothing but the handler that was there before.
"""

from __future__ import annotations

import os
import signal
import threading
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
        self._noted: set[int] = set()
        self._inside: set[int] = set()  # whose handler runs just now
        self._process = os.getpid()
        self._is_over = False

    def watch(self, *signals: int) -> None:
        """Note these signals from now on, in this process.

        Handlers that are functions are called as well; Ctrl-C's own only from its second time on.

        Raises:
            ValueError: this is not the main thread, or there is no such signal.
        """
        for number in signals:
            if signal.getsignal(number) != self._note:
                self._previous[number] = signal.signal(number, self._note)
        self._process, self._is_over = os.getpid(), False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._inside:
            return  # two that watch the same signal may each have come to call the other
        self._inside.add(number)
        try:
            self._note_once(number, frame)
        finally:
            self._inside.discard(number)

    def _note_once(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        if not self._is_over and os.getpid() == self._process:
            is_first = number not in self._noted
            self._noted.add(number)
            self.has_come = self.is_pending = True
            if is_first and previous is signal.default_int_handler:
                return  # Ctrl-C: only the second one interrupts
        elif previous in (signal.SIG_DFL, None) and signal.getsignal(number) == self._note:
            # Nobody here acts on it: this is a forked child, such as a data loader's worker, whose parent may wait for the signal
            # to end it; or the manager is gone. If another handler has called this one, that one decides.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if callable(previous):  # not SIG_DFL, which would end the process, nor SIG_IGN
            previous(number, frame)

    def abandon(self) -> None:
        """From now on do with the signals what was done before; handlers stay where they are, so any thread may call this."""
        self._is_over = True

    def release(self) -> None:
        """The same, and in the main thread put back the handlers where ours is still the one; elsewhere somebody calls ours."""
        self.abandon()
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in list(self._previous.items()):
            if signal.getsignal(number) == self._note:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
                del self._previous[number]
