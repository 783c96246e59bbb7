"""Hostile chunks: boxes of one variable that overlap, leave holes, reach outside or are too many."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from hostile.cases import BAD_NUMBERS, MODEL, Case, Json, chunked, manifest_of, with_manifest
from spec.independent import (
    Files,
    Piece,
    SpecVariable,
    build_checkpoint,
)


def box_cases() -> Iterator[Case]:
    """Boxes of one variable that overlap, leave holes, reach outside or are too many."""
    base = chunked()

    def case(name: str, change: Callable[[list[Json]], object]) -> Case:
        return Case(f"boxes: {name}", with_manifest(base, lambda m: change(m["variables"][0]["chunks"])))

    assert manifest_of(base)["variables"][0]["name"] == "fc.w"
    for field in ("offset", "shape"):
        yield case(f"no {field}", lambda chunks, field=field: chunks[1].pop(field))
        for name, value in BAD_NUMBERS.items():
            yield case(f"{field} has {name}", lambda c, f=field, v=value: c[1][f].__setitem__(0, v))
        for value in (None, 1, "", {}, [], [0], [0, 0, 0], [[0], [0]], [0] * 1_000_000, [0.0, 3.0]):
            yield case(f"{field} = {str(value)[:20]}", lambda c, f=field, v=value: c[1].update({f: v}))
    yield case("two at one place", lambda c: c[1].update(offset=[0, 0]))
    yield case("overlap", lambda c: c[1].update(offset=[0, 2]))
    yield case("outside", lambda c: c[1].update(offset=[0, 4]))
    yield case("far outside", lambda c: c[1].update(offset=[2**62, 2**62]))
    yield case("turned", lambda c: c[1].update(shape=[3, 2]))
    yield case("one missing", lambda c: c.pop(1))
    yield case("one twice", lambda c: c.append(copy.deepcopy(c[1])))
    yield case("the last one twice", lambda c: c.append(copy.deepcopy(c[3])))
    yield case("the whole variable and its boxes", lambda c: c.insert(0, _without_box(c[0])))
    yield case("no box at all", lambda c: [c[0].pop(key) for key in ("offset", "shape")])
    yield case("file out of range", lambda c: c[3].update(file=99))
    yield case("file of the other half", lambda c: c[3].update(file=0))
    empty = {"file": 0, "range": [4096, 4096], "offset": [0, 0], "shape": [0, 3], "blocks": []}
    yield case("an empty box too many", lambda c: c.append(empty | {"shape": [2**62, 0, 1]}))
    yield case("20,000 times the same", lambda c: c.extend([copy.deepcopy(c[3])] * 20_000))
    for count in (900, 2_000, 5_000):
        yield Case(f"boxes: a staircase of {count}, two overlap", _move_last_box(staircase(count)))
    yield Case("boxes: 20,000 rows, two overlap", _move_last_box(many_rows(20_000)))


def _without_box(chunk: Json) -> Json:
    return {key: value for key, value in chunk.items() if key not in ("offset", "shape")}


Boxes = list[tuple[tuple[int, ...], tuple[int, ...]]]


def _boxes(shape: tuple[int, ...], boxes: Boxes) -> Files:
    """A sound checkpoint of one U8 parameter of zeros in these boxes."""
    variable = SpecVariable("fc.w", "parameter", True, np.zeros(shape, "u1"))
    pieces = [Piece("fc.w", offset, extent) for offset, extent in boxes]
    return build_checkpoint([variable], {MODEL: pieces}, trainers=[(None, {})])


def _move_last_box(files: Files) -> Files:
    """The last box one row up, onto the one before it: the sum of the sizes stays right."""

    def change(manifest: dict[str, Json]) -> None:
        manifest["variables"][0]["chunks"][-1]["offset"][0] -= 1

    return with_manifest(files, change)


def staircase(count: int) -> Files:
    """About so many boxes that no straight cut separates: each second column is shifted by one row."""
    columns, height = count // 10, 22
    boxes: Boxes = []
    for column in range(columns):
        edges = [0, *range(3 + column % 2, height - 1, 2), height]
        boxes += [((a, column), (b - a, 1)) for a, b in itertools.pairwise(edges)]
    return _boxes((height, columns), boxes)


def many_rows(count: int) -> Files:
    """One box for each row."""
    return _boxes((count, 1), [((row, 0), (1, 1)) for row in range(count)])
