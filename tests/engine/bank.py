"""A device for tests: arrays that only its own thread copies, in the order in which it was asked, and not at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from holdfast.engine import arrays
from holdfast.engine.devices import Flight, Piece, Remote


class Deposit(Remote):
    """An array in the bank."""

    def __init__(self, array: np.ndarray, bank: Bank) -> None:
        super().__init__(array.dtype, array.shape, array.nbytes, bank)
        self.there = array


class Bank:
    """See `Device`."""

    def __init__(self, *, kind: str = "bank", seconds: float = 0.001) -> None:
        self.kind = kind
        self.errors: list[Exception] = []  # of the next copies
        self.locked: dict[int, int] = {}
        self._seconds = seconds
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"{kind}-device", daemon=True).start()

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            time.sleep(self._seconds)
            task()

    def ask(self, task: Callable[[], None]) -> None:
        """Have something done, after all that was asked before."""
        self._tasks.put(task)

    def settle(self) -> None:
        done = threading.Event()
        self.ask(done.set)
        done.wait()

    def fetch(self, pieces: Sequence[Piece]) -> Flight:
        return self._start(pieces, _fetch)

    def put(self, pieces: Sequence[Piece]) -> Flight:
        return self._start(pieces, _put)

    def _start(self, pieces: Sequence[Piece], copy: Callable[[Piece], None]) -> Flight:
        error = self.errors.pop(0) if self.errors else None
        for piece in pieces:
            assert piece.start % piece.value.dtype.itemsize == 0 == piece.host.size % piece.value.dtype.itemsize
            self.ask(lambda piece=piece: copy(piece))

        def land() -> None:
            self.settle()
            if error is not None:
                raise error

        return land

    def locked_memory(self, nbytes: int) -> np.ndarray | None:
        return None

    def lock(self, memory: np.ndarray) -> Callable[[], None] | None:
        address = memory.__array_interface__["data"][0]
        assert address not in self.locked
        self.locked[address] = memory.size
        return lambda: self.locked.pop(address)


def _fetch(piece: Piece) -> None:
    array, size = piece.value.there, piece.value.dtype.itemsize  # type: ignore[attr-defined]
    piece.host[:] = arrays.gather(array, piece.start // size, (piece.start + piece.host.size) // size)


def _put(piece: Piece) -> None:
    value: Any = piece.value
    arrays.scatter(piece.host.view(value.dtype), value.there, piece.start // value.dtype.itemsize)
