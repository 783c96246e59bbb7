"""Runs that nobody disturbs, each of them once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from frameworks.resuming import result


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    @functools.cache
    def run(program: str, *options: str) -> dict[str, str]:
        return result(program, tmp_path_factory.mktemp("undisturbed") / "run", *options)

    return run
