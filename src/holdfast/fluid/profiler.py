"""`fluid.profiler`: wall times of what reported itself while it was on.

Fluid's table has one line for each operator. Here a program is compiled whole, so operators have no times of their own: the
table has one line for each kind of event that was recorded (`record`), and the time in all. Times of the device are
`jax.profiler.trace`'s.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["cuda_profiler", "profiler", "record", "reset_profiler", "start_profiler", "stop_profiler"]

_STATES = ("CPU", "GPU", "All")
_OPTIONS = ("Default", "OpDetail", "AllOpDetail")


@dataclass(slots=True)
class _Event:
    calls: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = 0.0


class _Session:
    def __init__(self, state: str) -> None:
        self.state = state
        self.began = time.perf_counter()
        self.events: dict[str, _Event] = {}
        self.lock = threading.Lock()


_session: _Session | None = None  # one for the process, as in Fluid


@contextlib.contextmanager
def record(name: str) -> Iterator[None]:
    """Count the block as an event of this name while the profiler is on; costs next to nothing while it is off."""
    session = _session
    if session is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - began
        with session.lock:
            event = session.events.setdefault(name, _Event())
            event.calls += 1
            event.total += took
            event.low, event.high = min(event.low, took), max(event.high, took)


def start_profiler(state: str, tracer_option: str = "Default") -> None:
    """Begin to measure; without effect if it has begun.

    Args:
        state: `CPU`, `GPU` or `All`: all three measure wall times.
        tracer_option: of Fluid's names; without effect.

    Raises:
        ValueError: `state` or `tracer_option` is none of these.
    """
    global _session
    _check("state", state, _STATES)
    _check("tracer_option", tracer_option, _OPTIONS)
    if _session is None:
        _session = _Session(state)


def stop_profiler(sorted_key: str | None = None, profile_path: str = "/tmp/profile") -> None:  # noqa: S108 - Fluid's default
    """End measuring and print the table to standard output; without effect if it has not begun.

    Args:
        sorted_key: `calls`, `total`, `max`, `min` or `ave` for the order of the lines; None for that of the first call.
        profile_path: where Fluid wrote its records; nothing is written here.

    Raises:
        ValueError: `sorted_key` is none of these; measuring goes on.
    """
    global _session
    del profile_path
    if sorted_key not in (None, "default"):
        _check("sorted_key", sorted_key, tuple(_COLUMNS))
    session, _session = _session, None
    if session is not None:
        sys.stdout.write(_table(session, sorted_key))


def reset_profiler() -> None:
    """Forget what was measured so far, and go on."""
    session = _session
    if session is not None:
        with session.lock:
            session.events.clear()
            session.began = time.perf_counter()


@contextlib.contextmanager
def profiler(
    state: str,
    sorted_key: str | None = None,
    profile_path: str = "/tmp/profile",  # noqa: S108 - Fluid's default
    tracer_option: str = "Default",
) -> Iterator[None]:
    """Measure the block; the table is printed when it ends, by an error too. See `start_profiler` and `stop_profiler`."""
    start_profiler(state, tracer_option)
    try:
        yield
    finally:
        stop_profiler(sorted_key, profile_path)


@contextlib.contextmanager
def cuda_profiler(
    output_file: str, output_mode: str | None = None, config: Sequence[str] | None = None
) -> Iterator[None]:
    """Run the block, after a warning: nvprof's counters are not collected, and `output_file` is not written.

    Raises:
        ValueError: `output_mode` is neither `kvp` nor `csv`.
    """
    del config
    _check("output_mode", output_mode or "csv", ("kvp", "csv"))
    warnings.warn(
        f"fluid.profiler.cuda_profiler writes no {output_file}: use jax.profiler.trace(folder) for times of the device",
        stacklevel=3,
    )
    yield


_COLUMNS = {
    "calls": lambda event: event.calls,
    "total": lambda event: event.total,
    "max": lambda event: event.high,
    "min": lambda event: event.low,
    "ave": lambda event: event.total / event.calls,
}


def _check(what: str, value: str | None, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"fluid.profiler: {what} must be one of {', '.join(allowed)}, not {value!r}")


def _table(session: _Session, sorted_key: str | None) -> str:
    whole = time.perf_counter() - session.began
    lines = [
        f"profiler: {whole * 1000:.3f} ms of wall time (operators are compiled together and have no times of their own)"
    ]
    events = list(session.events.items())
    if sorted_key in _COLUMNS:
        events.sort(key=lambda item: _COLUMNS[sorted_key](item[1]), reverse=True)
    if events:
        lines.append(f"{'Event':<32}{'Calls':>8}{'Total ms':>12}{'Min ms':>12}{'Max ms':>12}{'Ave ms':>12}{'Share':>8}")
    for name, event in events:
        times = (event.total, event.low, event.high, event.total / event.calls)
        shown = "".join(f"{seconds * 1000:>12.3f}" for seconds in times)
        lines.append(f"{name:<32}{event.calls:>8}{shown}{event.total / whole:>8.1%}")
    return "\n".join(lines) + "\n"
