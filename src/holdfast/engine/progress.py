"""How far a save or load is: a callback for programs, a bar on a terminal for people."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from holdfast.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class Progress:
    """A state of work. Calls come in the thread that called Holdfast, or for loads in one of its threads; one at a time.

    Attributes:
        phase: what is being done.
        done_bytes: bytes done, of
        total_bytes: all there are.
    """

    phase: Literal["save", "load", "verify"]
    done_bytes: int
    total_bytes: int


Callback = Callable[[Progress], None]
ProgressOption = Callback | bool | None
"""`progress=`: a callback, True for a bar on standard error if that is a terminal, None or False for neither."""


class Meter:
    """Adds up bytes and tells the callback."""

    def __init__(self, phase: Literal["save", "load", "verify"], total_bytes: int, callback: Callback | None) -> None:
        self._phase, self._total, self._done, self._callback = phase, total_bytes, 0, callback
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """Count bytes as done."""
        if self._callback is not None:
            with self._lock:
                self._done += nbytes
                self._callback(Progress(self._phase, self._done, self._total))


@contextlib.contextmanager
def metered(phase: Literal["save", "load", "verify"], total_bytes: int, option: ProgressOption) -> Iterator[Meter]:
    """The meter that a `progress=` option asks for."""
    if option is not True or not sys.stderr.isatty():
        yield Meter(phase, total_bytes, option if callable(option) else None)
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress as Bar,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError as error:
        raise MissingExtraError("progress=True needs rich: pip install 'holdfast[cli]'") from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(phase, total=total_bytes)
        yield Meter(phase, total_bytes, lambda p: bar.update(task, completed=p.done_bytes))
