"""Calls of an object that must not overlap, as two that fill the same memory must not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class Exclusive:
    """One call at a time: those of other threads wait, and one from within another is an error."""

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()
        self._inside = ""

    @contextlib.contextmanager
    def call(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """Be the only call while this lasts.

        Args:
            name: of the call.
            timeout: seconds to wait for other threads; None waits as long as it takes.

        Raises:
            RuntimeError: it comes from within another, as when a signal handler or a `state_dict()` saves during a save. A lock
                would wait for ever here.
            TimeoutError: another thread's call is not over.
        """
        if self._process != os.getpid():  # the thread that has the lock may not be in this process
            self._lock, self._process, self._inside = threading.RLock(), os.getpid(), ""
        lock = self._lock
        if not lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise TimeoutError(f"{self._inside}() of another thread is not over after {timeout} s")
        try:
            if self._inside:
                raise RuntimeError(
                    f"{name}() was called from within {self._inside}(): by a signal handler, or by an object of the state? A "
                    "handler may set a flag, or leave signals to save_on_signal()"
                )
            self._inside = name
            try:
                yield
            finally:
                self._inside = ""
        finally:
            lock.release()
