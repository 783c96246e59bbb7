"""Boxes of an array: overlaps, coverage, and which rows an index needs. Pure: integers only."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

MAX_IRREGULAR = 1000
"""Boxes that no straight cut separates are compared pair by pair; more of them are refused, since n² steps is an attack."""


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
    """Why the boxes do not cover an array of `shape` exactly once; None if they do.

    Sweeps along the first dimension that splits the boxes, so that a million rows in boxes of their own take
    n log n steps and not n²; only boxes that share a range of it are compared further.
    """
    for box in boxes:
        if len(box.offset) != len(shape) or len(box.shape) != len(shape):
            return f"a box has {len(box.offset)} dimensions, the variable has {len(shape)}"
        if any(o + n > whole for o, n, whole in zip(box.offset, box.shape, shape, strict=True)):
            return f"the box at {list(box.offset)[:8]} reaches beyond the variable"
    if sum(box.size for box in boxes) != math.prod(shape):
        return "its chunks do not cover it exactly once"
    full = [box for box in boxes if box.size]
    return "its chunks overlap" if _overlapping(full, 0) else None


def _overlapping(boxes: list[Box], dim: int) -> bool:
    if len(boxes) < 2:
        return False
    if dim == len(boxes[0].offset):
        return True
    # Boxes with the same extent in this dimension form a group; grids, the usual case, split cleanly into groups.
    groups: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        groups.setdefault((box.offset[dim], box.offset[dim] + box.shape[dim]), []).append(box)
    spans = sorted(groups)
    clusters: list[list[Box]] = []
    end = -1
    for span in spans:
        if span[0] < end:
            clusters[-1] += groups[span]
            end = max(end, span[1])
        else:
            clusters.append(list(groups[span]))
            end = span[1]
    if len(spans) == len(clusters):
        return any(_overlapping(cluster, dim + 1) for cluster in clusters)
    return any(_any_pair(cluster) if _ragged(cluster, dim) else _overlapping(cluster, dim + 1) for cluster in clusters)


def _ragged(cluster: list[Box], dim: int) -> bool:
    return len({(box.offset[dim], box.shape[dim]) for box in cluster}) > 1


def _any_pair(boxes: list[Box]) -> bool:
    if len(boxes) > MAX_IRREGULAR:
        return True
    return any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


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
