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
import traceback
from collections.abc import Callable

log = logging.getLogger(__name__)

NICENESS = 10
"""Of the thread, and of those that it starts: on a machine whose cores are all training, the save takes a tenth of one's time,
not an equal share. On one with a core to spare nothing changes (docs/design/006-asynchronous-saves.md)."""


class Background:
    """Work that has begun.

    Args:
        work: returns the result; it calls no code of the user's.
        after: what remains to be done once there is a result; it raises nothing.
        name: what it is, for messages, such as `"the save of step 3"`.

    Raises:
        RuntimeError: the system has no more threads; nothing was begun.
    """

    def __init__(self, work: Callable[[], int], after: Callable[[], None], name: str) -> None:
        self.name = name
        self._value: int | None = None
        self._error: BaseException | None = None
        self._process = os.getpid()
        self._over = threading.Event()
        self._was_told = False
        self._thread = threading.Thread(target=self._run, args=(work, after), name=f"holdfast: {name}", daemon=False)
        self._thread.start()

    def _run(self, work: Callable[[], int], after: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, AttributeError):  # on Linux a number of a thread is one of a process, too
            if sys.platform == "linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            self._value = work()
            after()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
            self._error = error
            traceback.clear_frames(error.__traceback__)  # or they would keep the arrays alive
            # Also here: the program may end without ever asking.
            log.error("%s failed: %s: %s", self.name, type(error).__name__, error)  # noqa: TRY400 - it is raised with its trace
        finally:
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
        if not self._over.wait(timeout):
            return False
        if self._process == os.getpid():
            self._thread.join()  # which takes no time now
        return True

    def result(self, timeout: float | None = None) -> int | None:
        """Wait, and give the result.

        Raises:
            TimeoutError: it is not over yet.
            BaseException: what the work raised.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.name} is not done after {timeout} s; it goes on")
        self._was_told = True
        if self._error is not None:
            raise self._error
        return self._value

    def raise_once(self) -> None:
        """Raise what the finished work raised, unless somebody has been told already."""
        if self.is_over() and self._error is not None and not self._was_told:
            self.result()
