"""Targets of a load that share memory: they can only be loaded if what goes into them is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from holdfast.errors import Problem
from holdfast.format.manifest import Entry


class Target(NamedTuple):
    """An array that is loaded in place: its name in the target, itself, and the variable that goes into it."""

    name: str
    array: np.ndarray
    entry: Entry


def sharing_problems(targets: Sequence[Target]) -> list[Problem]:
    """Every pair of targets that overlap in memory and are to hold different values."""
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
            if not _tied(a, b) and not _interleaved(a.array, b.array):
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
