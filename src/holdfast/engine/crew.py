"""Threads that are certainly over when `wait` returns, also if Ctrl-C comes meanwhile.

`Thread.join` does not promise that: in Python 3.11 an interrupt inside it marks a thread that is running as stopped, and
every later join returns at once. Then files would be closed, and their numbers reused, while a thread still writes to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Crew:
    """A few threads that work side by side."""

    def __init__(self) -> None:
        self._members: list[tuple[threading.Thread, threading.Event]] = []

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a new thread.

        Raises:
            RuntimeError: the system has no more threads.
        """
        done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        thread = threading.Thread(target=run, name=name)
        self._members.append((thread, done))
        thread.start()

    def wait(self) -> None:
        """Return when all threads are over; an interrupt is raised then, and not before."""
        interrupt: KeyboardInterrupt | None = None
        while self._members:
            thread, done = self._members[-1]
            try:
                # Without an identity after so long it was never started: an interrupt or an error came first.
                if done.wait(0.05) or thread.ident is None:
                    self._members.pop()
                    if thread.ident is not None:
                        thread.join()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
