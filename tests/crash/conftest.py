"""The scenarios, and the summary that says what was tried."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .promise import TALLY
from .scenario import Scenario


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tally: a proof by enumeration is worth what it enumerated."""
    for kind, scenarios in TALLY.counts.items():
        terminalreporter.section(f"{kind}: {sum(scenarios.values()):,}")
        for scenario, count in scenarios.items():
            terminalreporter.write_line(f"{count:8,}  {scenario}")


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has such: the model stands for the disk, so the real one need not work."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def scenario(medium: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A disk that can exchange two folders."""
    return Scenario(medium, monkeypatch)


@pytest.fixture
def plain_scenario(medium: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A disk that cannot."""
    return Scenario(medium, monkeypatch, exchange=False)
