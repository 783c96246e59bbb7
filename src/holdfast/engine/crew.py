"""Threads that are certainly over when `wait` returns, also if Ctrl-C or another signal comes meanwhile.

`Thread.join` does not promise that: in Python 3.11 an interrupt inside it marks a thread that is running as stopped, and
every later join returns at once. Then files would be closed, and their numbers reused, while a thread still writes to them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Member:
    """A thread that may have begun, or not: an interrupt leaves that open."""

    work: Callable[[], None]
    claim: threading.Lock = field(default_factory=threading.Lock)  # whoever gets it decides whether the work is done
    done: threading.Event = field(default_factory=threading.Event)
    was_started: bool = False

    def run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            self.work()
        finally:
            self.done.set()


class Crew:
    """A few threads that work side by side."""

    def __init__(self) -> None:
        self._members: list[tuple[threading.Thread, _Member]] = []
        self._process = os.getpid()

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a new thread.

        Raises:
            RuntimeError: the system has no more threads.
        """
        member = _Member(work)
        thread = threading.Thread(target=member.run, name=name)
        self._members.append((thread, member))
        thread.start()
        member.was_started = True

    def wait(self) -> None:
        """Return when all threads are over; an interrupt is raised then, and not before."""
        interrupt: BaseException | None = None
        while self._members and self._process == os.getpid():  # in a forked child there are no such threads
            thread, member = self._members[-1]
            try:
                # One that was perhaps never started, since an interrupt or an error came, must not begin any more.
                if member.done.wait(0.05) or (not member.was_started and member.claim.acquire(blocking=False)):
                    self._members.pop()
                    if member.was_started:
                        thread.join()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, or what another signal's handler raises; raised below
                interrupt = error
        if interrupt is not None:
            raise interrupt
