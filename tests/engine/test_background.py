"""Work in a thread of its own: whether it begins, how it ends, and who is told."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from holdfast.engine import background
from holdfast.engine.background import Background


def nothing() -> None: ...


def test_result_is_there_once_what_comes_after_is_done() -> None:
    go = threading.Event()
    work = Background(lambda: 7, lambda: assert_waited(go), "it")
    work.start()

    with pytest.raises(TimeoutError, match=r"it is not done after 0\.05 s; it goes on$"):
        work.result(0.05)
    assert work.value == 7
    go.set()
    assert work.result(30) == 7
    assert work.is_over()


def assert_waited(event: threading.Event) -> None:
    assert event.wait(30)


def test_work_that_has_not_begun_can_be_withdrawn_and_never_begins() -> None:
    done: list[int] = []
    work = Background(lambda: done.append(1) or 1, nothing, "it")

    assert work.withdraw()

    work.start()
    assert work.wait(30)
    assert (done, work.value) == ([], None)


def test_work_that_has_begun_cannot_be_withdrawn() -> None:
    go, begun = threading.Event(), threading.Event()

    def wait() -> int:
        begun.set()
        go.wait(30)
        return 1

    work = Background(wait, nothing, "it")
    work.start()
    assert begun.wait(30)

    assert not work.withdraw()
    go.set()
    assert work.result(30) == 1
    assert not work.withdraw()


def test_nobody_waits_for_work_that_was_never_started() -> None:
    """Two interrupts in a row can leave that."""
    work = Background(lambda: 1, nothing, "it")

    assert work.wait()
    assert work.value is None


def test_system_without_threads_is_an_error_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    work = Background(lambda: 1, nothing, "it")

    with pytest.raises(RuntimeError, match="can't start new thread"):
        work.start()
    assert work.withdraw()


def test_error_is_raised_once_unless_somebody_was_told(caplog: pytest.LogCaptureFixture) -> None:
    work = Background(lambda: 1 // 0, nothing, "it")
    work.start()
    assert work.wait(30)

    with pytest.raises(ZeroDivisionError):
        work.raise_once()
    work.raise_once()
    assert "it failed: ZeroDivisionError" in caplog.text


def test_waiting_without_a_limit_tells_what_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "HANGING_SECONDS", 0.02)
    work = Background(lambda: time.sleep(0.3) or 1, nothing, "it", lambda: "sleeping")
    work.start()

    assert work.result() == 1

    assert "waiting for it for 0 s: sleeping" in caplog.text
