"""Boxes of an array: overlaps, coverage, and which rows an index needs. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

MAX_ELEMENTS = 2**62
MAX_VISITS = 100_000
"""Work that checking the boxes of a variable may take, plus some for every box: beyond are boxes that somebody made to stall us."""


class Box(NamedTuple):
    """A box of an array: the first index and the extent in every dimension."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box in every dimension."""
        return tuple(slice(o, o + n) for o, n in zip(self.offset, self.shape, strict=True))

    @property
    def index(self) -> Any:
        """What takes the box out of the whole array, as a view also where that is a scalar."""
        return (..., *self.slices)


def overlap(a: Box, b: Box) -> Box | None:
    """The box that both have in common; None if they have no element in common."""
    offset = tuple(max(p, q) for p, q in zip(a.offset, b.offset, strict=True))
    ends = (min(p + n, q + m) for p, n, q, m in zip(a.offset, a.shape, b.offset, b.shape, strict=True))
    shape = tuple(e - o for e, o in zip(ends, offset, strict=True))
    return Box(offset, shape) if all(n > 0 for n in shape) else None


def relative(inner: Box, outer: Box) -> Box:
    """`inner` as seen from the first element of `outer`."""
    return Box(tuple(i - o for i, o in zip(inner.offset, outer.offset, strict=True)), inner.shape)


def boxes_problem(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """Why the boxes do not cover an array of `shape` exactly once; None if they do."""
    for box in boxes:
        if len(box.offset) != len(shape) or len(box.shape) != len(shape):
            return f"a box has {len(box.offset)} dimensions, the variable has {len(shape)}"
        if any(o + n > whole for o, n, whole in zip(box.offset, box.shape, shape, strict=True)):
            return f"the box at {list(box.offset)[:8]} reaches beyond the variable"
    total = math.prod(shape)
    if sum(box.size for box in boxes) != total:
        return "its chunks do not cover it exactly once"
    if total > MAX_ELEMENTS:
        return f"it has {total:,} elements in several chunks; at most {MAX_ELEMENTS:,} are allowed"
    full = [box for box in boxes if box.size]
    if len(full) < 2:
        return None
    starts = np.array([box.offset for box in full], np.int64)
    ends = starts + np.array([box.shape for box in full], np.int64)
    budget = [MAX_VISITS + 100 * len(full)]
    covered = _covered_once(np.zeros(len(shape), np.int64), np.array(shape, np.int64), starts, ends, budget)
    return None if covered else "its chunks overlap and leave holes, or are cut up too irregularly"


def _covered_once(low: np.ndarray, high: np.ndarray, starts: np.ndarray, ends: np.ndarray, budget: list[int]) -> bool:
    """Whether boxes within a region cover it exactly once.

    The region is halved again and again, boxes that the cut goes through too. In each part the sizes must add up, so boxes that
    overlap are found at the first cut that separates their overlap from the hole that it must leave elsewhere.
    """
    count = len(starts)
    budget[0] -= count
    if budget[0] < 0 or (ends - starts).prod(axis=1).sum() != (high - low).prod():
        return False
    if count <= 32:
        both = np.minimum(ends[:, None], ends[None]) > np.maximum(starts[:, None], starts[None])
        return int(both.all(axis=2).sum()) == count  # each overlaps itself only
    distinct = [_distinct(starts[:, dim]) for dim in range(starts.shape[1])]
    dim = max(range(len(distinct)), key=lambda d: len(distinct[d]))
    if len(distinct[dim]) < 2:
        return False  # all begin at one corner
    cut = distinct[dim][len(distinct[dim]) // 2]
    halves = ((starts[:, dim] < cut, low[dim], cut), (ends[:, dim] > cut, cut, high[dim]))
    for chosen, first, last in halves:
        part_low, part_high, part_starts, part_ends = low.copy(), high.copy(), starts[chosen], ends[chosen]
        part_low[dim], part_high[dim] = first, last
        np.maximum(part_starts[:, dim], first, out=part_starts[:, dim])
        np.minimum(part_ends[:, dim], last, out=part_ends[:, dim])
        if not _covered_once(part_low, part_high, part_starts, part_ends, budget):
            return False
    return True


def _distinct(numbers: np.ndarray) -> np.ndarray:
    ordered = np.sort(numbers)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def rows_of(index: Any, shape: tuple[int, ...]) -> tuple[int, int, tuple[Any, ...]] | None:
    """Which rows (indices of the first dimension) an index needs, and the index that then remains.

    Args:
        index: what stands in the brackets of `array[…]`.
        shape: of the whole array.

    Returns:
        (first row, end row, index relative to these rows); None if the index is of a form that needs all rows.

    Raises:
        IndexError: an integer is out of bounds.
    """
    items = index if isinstance(index, tuple) else (index,)
    if not shape or not items or items[0] is Ellipsis or items[0] is None:
        return None
    first, rows = items[0], shape[0]
    if isinstance(first, slice):
        start, stop, step = first.indices(rows)
        if step < 0 or start >= stop:
            return (0, 0, (slice(None), *items[1:])) if step > 0 else None
        return start, stop, (slice(None, None, step), *items[1:])
    if isinstance(first, bool):
        return None
    try:
        row = operator.index(first)
    except TypeError:
        return None
    if not -rows <= row < rows:
        raise IndexError(f"index {row} is out of bounds for {rows} rows")
    row %= rows
    return row, row + 1, (0, *items[1:])


def range_boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    """The boxes that elements `start` to `stop` of an array form, counted in row-major order; in that order.

    At most two boxes a dimension and one in the middle, whatever the size: what a flat piece of a strided array is copied by.
    """
    if start >= stop:
        return
    if not shape:
        yield Box((), ())
        return
    row = math.prod(shape[1:])
    first, head = divmod(start, row)
    last, tail = divmod(stop, row)
    if first == last:
        yield from _within(first, range_boxes(shape[1:], head, tail))
        return
    if head:
        yield from _within(first, range_boxes(shape[1:], head, row))
        first += 1
    if first < last:
        zeros = (0,) * (len(shape) - 1)
        yield Box((first, *zeros), (last - first, *shape[1:]))
    if tail:
        yield from _within(last, range_boxes(shape[1:], 0, tail))


def _within(row: int, boxes: Iterator[Box]) -> Iterator[Box]:
    return (Box((row, *box.offset), (1, *box.shape)) for box in boxes)
