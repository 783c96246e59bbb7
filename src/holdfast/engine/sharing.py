"""Targets of a load that share memory: they can only be loaded if what goes into them is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from holdfast.errors import Problem
from holdfast.format.manifest import Entry


class Target(NamedTuple):
    """An array that is loaded in place: its name in the target, itself, the variable that goes into it, and its dtype."""

    name: str
    array: np.ndarray
    entry: Entry
    dtype: str


Read = Callable[[Entry], np.ndarray]
"""The values of a variable of the checkpoint."""


def sharing_problems(targets: Sequence[Target], read: Read) -> list[Problem]:
    """Every pair of targets that overlap in memory and are to hold different values there.

    What is seen in two ways, such as a flat buffer and the weights that are views of it, is read and compared.
    """
    if _each_owns_its_memory(targets):
        return []
    targets = [target for target in targets if target.array.size]
    bounds = [_bounds(target.array) for target in targets]
    problems = []
    active: list[int] = []  # the targets that have begun and not ended yet, in memory
    for after in sorted(range(len(targets)), key=lambda i: bounds[i][0]):
        active = [before for before in active if bounds[before][1] > bounds[after][0]]
        for before in active:
            a, b = targets[before], targets[after]
            if not _tied(a, b) and not _interleaved(a.array, b.array) and not _agree(a, b, read):
                text = f"{b.name!r} shares memory with {a.name!r}, but the checkpoint has two values for them"
                problems.append(Problem("unwritable", b.name, text))
        active.append(after)
    return problems


def _bounds(array: np.ndarray) -> tuple[int, int]:
    if array.flags.c_contiguous:
        start = array.__array_interface__["data"][0]
        return start, start + array.nbytes
    return np.lib.array_utils.byte_bounds(array)


def _tied(a: Target, b: Target) -> bool:
    """Whether two targets are the same memory and will be given the same bytes."""
    same_place = (
        a.array.__array_interface__["data"] == b.array.__array_interface__["data"]
        and a.array.strides == b.array.strides
        and a.array.shape == b.array.shape
        and a.array.dtype == b.array.dtype
    )
    return same_place and same_bytes(a.entry, b.entry)


def same_bytes(a: Entry, b: Entry) -> bool:
    """Whether two variables of a checkpoint are known to hold the same values."""
    blocks = [chunk.blocks for chunk in a.chunks]  # none in a bare file, of which nothing is known
    return a is b or (a.dtype == b.dtype and any(blocks) and blocks == [chunk.blocks for chunk in b.chunks])


def same_values(a: Entry, b: Entry, read: Read) -> bool:
    """Whether two variables of a checkpoint hold the same values: by their digests, or, where these cannot tell, by themselves."""
    if same_bytes(a, b):
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if len(a.chunks) == len(b.chunks) == 1 and (a.chunks[0].blocks or b.chunks[0].blocks):
        return False
    return np.array_equal(_bytes(read(a)), _bytes(read(b)))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _agree(a: Target, b: Target, read: Read) -> bool:
    """Whether two targets can both have their values, since those are the same where they overlap: tried out in other memory."""
    if a.entry.dtype != a.dtype or b.entry.dtype != b.dtype:
        return False
    start = min(_bounds(a.array)[0], _bounds(b.array)[0])
    memory = np.empty(max(_bounds(a.array)[1], _bounds(b.array)[1]) - start, np.uint8)
    values = [np.ascontiguousarray(read(target.entry)).view(target.array.dtype) for target in (a, b)]
    there = [
        np.ndarray(
            target.array.shape,
            target.array.dtype,
            memory,
            target.array.__array_interface__["data"][0] - start,
            target.array.strides,
        )
        for target in (a, b)
    ]
    for place, value in zip(there, values, strict=True):
        place[...] = value.reshape(place.shape)
    return np.array_equal(_bytes(there[0]), _bytes(values[0]))


def _each_owns_its_memory(targets: Sequence[Target]) -> bool:
    """Whether the arrays belong to as many different owners, as is the rule: then there is nothing to compare."""
    owners = []
    for target in targets:
        array: Any = target.array
        while isinstance(array.base, np.ndarray):
            array = array.base
        if array.base is not None:
            return False  # memory that NumPy did not allocate, and which anybody may have twice
        owners.append(id(array))
    return len(set(owners)) == len(targets)


def _interleaved(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays lie in the same range without sharing an element, as the columns of a matrix do."""
    try:
        return not np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False
