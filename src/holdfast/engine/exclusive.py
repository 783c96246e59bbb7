"""Calls of an object that must not overlap, as two that fill the same memory must not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class Exclusive:
    """One call at a time: those of other threads wait, and one from within another is an error.

    Both locks are let go by `with` statements alone: a `finally` of our own could be interrupted before it has.
    """

    def __init__(self) -> None:
        self._make()

    def _make(self) -> None:
        self._process = os.getpid()
        self._thread, self._inside = threading.RLock(), threading.Lock()
        self._name = ""

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
            self._make()
        thread, inside = self._thread, self._inside
        if timeout is not None and not thread.acquire(timeout=max(timeout, 0)):
            raise TimeoutError(f"{self._name}() of another thread is not over after {timeout} s")
        with thread:
            if timeout is not None:
                thread.release()  # one of the two that this thread has now
            if inside.locked():  # by this thread, as it has the other lock
                raise RuntimeError(
                    f"{name}() was called from within {self._name}(): by a signal handler, or by an object of the state? A "
                    "handler may set a flag, or leave signals to save_on_signal()"
                )
            with inside:
                self._name = name
                yield
