"""Values in a device's memory, as the pipelines see them: something that stands for an array, and something that copies.

An adapter knows its framework's streams and events; here it is only known that a copy is started, and that it has arrived once
its `Flight` is called. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeGuard

import numpy as np

Flight = Callable[[], None]
"""Copies under way: returns once all of them have arrived. Until then nobody changes or frees what they read and write."""


class Remote:
    """An array that lies in a device's memory, where an array of this process's memory would stand.

    Attributes:
        dtype: as NumPy has it.
        shape: as NumPy has it.
        nbytes: as NumPy has it.
        device: what copies it.
    """

    __slots__ = ("device", "dtype", "nbytes", "shape")

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...], nbytes: int, device: Device) -> None:
        self.dtype, self.shape, self.nbytes, self.device = dtype, shape, nbytes, device

    def unwritable(self) -> str | None:
        """Why nothing can be loaded into it; None if it can."""
        raise NotImplementedError

    def place(self) -> tuple[Hashable, np.ndarray]:
        """Which memory it lies in, and an array that lies in the same way in memory that is not there: only for comparisons."""
        raise NotImplementedError


AnyArray = np.ndarray | Remote


class Piece(NamedTuple):
    """Bytes of a value, in row-major and little-endian order, and memory of this process for as many.

    Attributes:
        value: the value.
        start: the first byte; it and the number of bytes are multiples of the size of an element.
        host: flat uint8.
    """

    value: Remote
    start: int
    host: np.ndarray


class Device(Protocol):
    """The way between a device's memory and this process's. Methods may be called from several threads.

    Attributes:
        kind: devices of one kind share page-locked memory.
    """

    kind: str

    def settle(self) -> None:
        """Return once all that was asked of the device before, in whatever stream, is done."""

    def fetch(self, pieces: Sequence[Piece]) -> Flight:
        """Start to copy from the device; pieces that follow each other in host memory do so in the list too."""

    def put(self, pieces: Sequence[Piece]) -> Flight:
        """Start to copy to the device."""

    def locked_memory(self, nbytes: int) -> np.ndarray | None:
        """New page-locked memory as flat uint8; None if there is none, or if `lock` is the way to it."""

    def lock(self, memory: np.ndarray) -> Callable[[], None] | None:
        """Page-lock memory, and return what undoes that; None if it stays as it is, which makes copies slower and not wrong."""


def are_local(values: Sequence[AnyArray]) -> TypeGuard[Sequence[np.ndarray]]:
    """Whether all values lie in this process's memory."""
    return not any(issubclass(kind, Remote) for kind in set(map(type, values)))  # 100,000 of them take 2 ms


def devices_of(values: Sequence[object]) -> list[Device]:
    """The devices that hold some of the values."""
    if not any(issubclass(kind, Remote) for kind in set(map(type, values))):
        return []
    return list({id(value.device): value.device for value in values if isinstance(value, Remote)}.values())


def settle(devices: Iterable[Device]) -> None:
    """Return once all that was asked of the devices before is done."""
    for device in devices:
        device.settle()


def fetch(pieces: Sequence[Piece]) -> Flight:
    """Start to copy from all devices at once."""
    return _start(pieces, lambda device: device.fetch)


def put(pieces: Sequence[Piece]) -> Flight:
    """Start to copy to all devices at once."""
    return _start(pieces, lambda device: device.put)


def _start(pieces: Sequence[Piece], way: Callable[[Device], Callable[[Sequence[Piece]], Flight]]) -> Flight:
    flights: list[Flight] = []
    try:
        for device in devices_of([piece.value for piece in pieces]):
            flights.append(way(device)([piece for piece in pieces if piece.value.device is device]))
    except BaseException:
        land(flights)  # they write to memory that somebody else is given now
        raise
    return lambda: land(flights)


def land(flights: Iterable[Flight]) -> None:
    """Return when none is under way any more, whatever comes of them; the first error is raised then."""
    first: BaseException | None = None
    for flight in flights:
        try:
            flight()
        except BaseException as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first
