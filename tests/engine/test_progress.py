"""Progress: a callback for programs, a bar on a terminal, nothing else anywhere."""

import builtins
import io
import sys
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, Progress
from holdfast.engine.progress import metered

STATE = {"w": np.zeros(3_000_000), "small": np.zeros(3)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_callback_sees_bytes_grow_to_the_total() -> None:
    where = MemoryStore().at("run")
    for phase, work in [
        ("save", lambda seen: holdfast.save_checkpoint(STATE, where, progress=seen)),
        ("load", lambda seen: holdfast.load_checkpoint(STATE, where, progress=seen)),
        ("verify", lambda seen: holdfast.verify(where, progress=seen)),
    ]:
        seen: list[Progress] = []
        work(seen.append)

        assert {p.phase for p in seen} == {phase}
        done = [p.done_bytes for p in seen]
        assert len(done) > 2
        assert done == sorted(done)
        assert done[-1] == seen[0].total_bytes == seen[-1].total_bytes >= 24_000_024


@pytest.mark.parametrize("option", [None, False])
def test_no_progress_is_shown_unless_asked_for(
    option: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())

    holdfast.save_params(STATE, MemoryStore().at("p"), progress=option)

    assert sys.stderr.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_bar_goes_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", Terminal())

    holdfast.save_params(STATE, MemoryStore().at("p"), progress=True)

    assert "save" in sys.stderr.getvalue()


def test_no_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    holdfast.save_params(STATE, MemoryStore().at("p"), progress=True)

    assert sys.stderr.getvalue() == ""


def test_bar_without_rich_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_rich(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "rich":
            raise ImportError("No module named 'rich'")
        return real_import(name, *args, **options)

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(builtins, "__import__", without_rich)

    with pytest.raises(holdfast.MissingExtraError, match=r"pip install 'holdfast\[cli\]'"):
        holdfast.save_params(STATE, MemoryStore().at("p"), progress=True)


def test_meter_without_callback_counts_nothing() -> None:
    with metered("load", 10, None) as meter:
        meter.add(3)

    assert meter._done == 0
