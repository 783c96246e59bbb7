"""In an environment that has everything, as `HOLDFAST_NO_SKIP=1` says that it has, a test that is skipped has failed.

Tests of a library that is not installed are skipped, so that `make test` needs none. Where they are meant to run, a skip would
let a green run stand for tests that nobody ran: a library that is missing there, or that a new test needs, must show.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

NO_SKIP = os.environ.get("HOLDFAST_NO_SKIP") == "1"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def counted(report: Report) -> Report:
    """The report; a failure instead of a skip where nothing may be skipped. A failure that is expected is no skip."""
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        said = report.longrepr
        where, line, reason = said if isinstance(said, tuple) else (report.nodeid, 0, str(said))
        report.outcome = "failed"
        report.longrepr = (
            f"{where}:{line}: {reason}\nHOLDFAST_NO_SKIP=1: nothing may be skipped here. `make test-frameworks` makes an "
            "environment with everything that the tests need; what is new belongs to the extra test-frameworks in "
            "pyproject.toml."
        )
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself, or is marked so."""
    return counted((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that is skipped whole."""
    return counted((yield))
