"""A piece of work in a thread of its own, and what came of it.

The thread is no daemon: a program that ends while it works waits for it, before any `atexit` function runs. So a save that was
begun is finished, and the exit status is the program's own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)

NICENESS = 10
"""Of the thread, and of those that it starts: on a machine whose cores are all training, the save takes a tenth of one's time,
not an equal share. On one with a core to spare nothing changes (docs/design/012-what-a-save-takes.md)."""

HANGING_SECONDS = 60.0
"""Whoever waits without a limit is told so often what the wait is for."""


class Background:
    """Work that `start` begins.

    Args:
        work: returns the result; it calls no code of the user's.
        after: what remains to be done once there is a result; it raises nothing.
        name: what it is, for messages, such as `"the save of step 3"`.
        doing: what it is doing just now, for messages; empty if that is not known.
    """

    def __init__(
        self, work: Callable[[], int], after: Callable[[], None], name: str, doing: Callable[[], str] = str
    ) -> None:
        self.name = name
        self._doing = doing
        self._value: int | None = None
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None
        self._process = os.getpid()
        self._over = threading.Event()
        self._was_told = False
        self._claim = threading.Lock()  # whoever gets it decides whether the work is done: its thread, or `withdraw`
        self._was_started = False
        self._thread = threading.Thread(target=self._run, args=(work, after), name=f"holdfast: {name}", daemon=False)

    def start(self) -> None:
        """Begin; after an error, `withdraw` tells whether it has begun.

        In an `atexit` function, where nobody waits for threads any more, all of it is done before this returns.

        Raises:
            RuntimeError: the system has no more threads.
        """
        main = threading.main_thread()
        if threading.current_thread() is main and not main.is_alive():
            self._was_started = True
            self._thread.run()
        else:
            self._thread.start()
            self._was_started = True

    def withdraw(self) -> bool:
        """Whether the work has not begun; then it never will. An interrupt in `start` leaves that open."""
        if not self._claim.acquire(blocking=False):
            return False
        self._over.set()
        return True

    def _run(self, work: Callable[[], int], after: Callable[[], None]) -> None:
        if not self._claim.acquire(blocking=False):
            return
        with contextlib.suppress(OSError, AttributeError):  # on Linux a number of a thread is one of a process, too
            if sys.platform == "linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            self._value = work()
            after()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
            self._error, self._trace = error, error.__traceback__
            _let_go(error)
            # Also here: the program may end without ever asking.
            log.error("%s failed: %s: %s", self.name, type(error).__name__, error)  # noqa: TRY400 - it is raised with its trace
        finally:
            del work, after  # the error's trace has this function in it
            self._over.set()

    def is_over(self) -> bool:
        """Whether it has ended, well or not. In a forked child it never does: its thread is not there."""
        return self._over.is_set()

    @property
    def value(self) -> int | None:
        """The result; None before there is one."""
        return self._value

    def is_elsewhere(self) -> bool:
        """Whether it is the work of a process from which this one was forked, and was not over then."""
        return self._process != os.getpid() and not self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when it is over, or after so many seconds; whether it is over.

        Raises:
            RuntimeError: it is another process's work, and this one would wait for ever.
        """
        if self.is_elsewhere():
            raise RuntimeError(
                f"{self.name} was begun before this process was forked: only process {self._process} can wait"
            )
        # Asked first: a fork may have come while the thread held the lock that `wait` takes.
        if not self._over.is_set() and not self._ends_within(timeout):
            return False
        if self._process == os.getpid() and self._thread.ident is not None:
            self._thread.join()  # which takes no time now
        return True

    def _ends_within(self, timeout: float | None) -> bool:
        if not self._was_started:
            self.withdraw()  # two interrupts in a row came between it and its thread
        if timeout is not None:
            return self._over.wait(timeout)
        began = time.monotonic()
        while not self._over.wait(HANGING_SECONDS):
            log.warning("waiting for %s for %.0f s%s", self.name, time.monotonic() - began, self._activity())
        return True

    def late(self, timeout: float | None) -> TimeoutError:
        """The error for a wait that has ended too early: it says what takes so long."""
        return TimeoutError(f"{self.name} is not done after {timeout} s; it goes on{self._activity()}")

    def _activity(self) -> str:
        doing = self._doing()
        return f": {doing}" if doing else ""

    def result(self, timeout: float | None = None) -> int | None:
        """Wait, and give the result.

        Raises:
            TimeoutError: it is not over yet.
            BaseException: what the work raised.
        """
        if not self.wait(timeout):
            raise self.late(timeout)
        self._was_told = True
        if self._error is not None:
            raise self._error.with_traceback(self._trace)  # or it would grow with every call
        return self._value

    def raise_once(self) -> None:
        """Raise what the finished work raised, unless somebody has been told already."""
        if self.is_over() and self._error is not None and not self._was_told:
            self.result()


def _let_go(error: BaseException | None) -> None:
    """Forget the variables of the functions that an error and its causes came through: they would keep arrays alive."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        error = pending.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            pending += [error.__cause__, error.__context__]
