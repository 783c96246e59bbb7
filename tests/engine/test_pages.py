"""Memory for copies: aligned, and no trouble for a process that forks off."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
from tests.engine.bank import Bank

from holdfast.engine import pages


@pytest.mark.parametrize("nbytes", [0, 1, 5 << 20])
def test_memory_begins_at_a_huge_page(nbytes: int) -> None:
    memory = pages.allocate(nbytes)

    assert memory.nbytes == nbytes
    assert memory.__array_interface__["data"][0] % (2 << 20) == 0


def child(work: Callable[[], bool]) -> int:
    """What becomes of work in a forked process: 0 if it is true."""
    number = os.fork()
    if number == 0:
        try:
            os._exit(0 if work() else 3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such advice")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_child_neither_sees_the_memory_nor_loses_its_own_when_it_frees_it() -> None:
    memory = [pages.allocate(64 << 20)]
    memory[0][...] = 7

    def lives() -> bool:
        empty = not memory[0].any()
        start = memory[0].__array_interface__["data"][0]
        own = [np.ones(2 << 20) for _ in range(40)]  # with MADV_DONTFORK some of these got the same addresses
        inside = [a for a in own if start <= a.__array_interface__["data"][0] < start + (64 << 20)]
        memory.clear()
        gc.collect()
        return empty and not inside and sum(a.sum() for a in own) == 40 * (2 << 20)

    assert child(lives) == 0
    assert (memory[0] == 7).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_only_the_process_that_locked_memory_unlocks_it() -> None:
    bank = Bank()
    memory = [pages.allocate(1 << 20)]
    pages.lock(memory[0], bank)

    def keeps() -> bool:
        memory.clear()
        gc.collect()
        return len(bank.locked) == 1

    assert child(keeps) == 0
    assert len(bank.locked) == 1
    memory.clear()
    assert bank.locked == {}
