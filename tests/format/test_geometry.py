"""Boxes and rows against NumPy as the model."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from holdfast.format import geometry
from holdfast.format.geometry import Box, boxes_problem, overlap, range_boxes, relative, rows_of

IRREGULAR = "its chunks overlap and leave holes, or are cut up too irregularly"
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def shaped_boxes(draw: st.DrawFn, count: int = 2) -> tuple[tuple[int, ...], list[Box]]:
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    boxes = []
    for _ in range(count):
        offset = tuple(draw(st.integers(0, n - 1)) for n in shape)
        boxes.append(Box(offset, tuple(draw(st.integers(0, n - o)) for n, o in zip(shape, offset, strict=True))))
    return shape, boxes


@given(shaped_boxes())
def test_overlap_is_what_two_masks_have_in_common(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, (a, b) = case
    one, two = np.zeros(shape, bool), np.zeros(shape, bool)
    one[a.slices] = two[b.slices] = True

    common = overlap(a, b)

    mask = np.zeros(shape, bool)
    if common is not None:
        assert common.size > 0
        mask[common.slices] = True
    assert (mask == (one & two)).all()


def test_relative_moves_the_offset_only() -> None:
    assert relative(Box((5, 7), (2, 3)), Box((4, 7), (9, 9))) == Box((1, 0), (2, 3))


@given(shaped_boxes(count=4))
def test_boxes_problem_agrees_with_counting_elements(case: tuple[tuple[int, ...], list[Box]]) -> None:
    shape, boxes = case
    counts = np.zeros(shape, int)
    for box in boxes:
        counts[box.slices] += 1

    assert (boxes_problem(shape, boxes) is None) == bool((counts == 1).all())


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=3), st.randoms())
def test_boxes_problem_takes_every_grid(cuts: list[list[int]], random: Any) -> None:
    shape = tuple(map(sum, cuts))
    starts = [list(itertools.accumulate(sizes, initial=0)) for sizes in cuts]
    boxes = [
        Box(tuple(starts[d][i] for d, i in enumerate(cell)), tuple(cuts[d][i] for d, i in enumerate(cell)))
        for cell in itertools.product(*(range(len(sizes)) for sizes in cuts))
    ]
    random.shuffle(boxes)

    assert boxes_problem(shape, boxes) is None
    assert len(boxes) == 1 or boxes_problem(shape, [*boxes[1:], boxes[1]]) is not None


def test_boxes_problem_takes_a_pinwheel() -> None:
    # No straight cut separates these; they are compared pair by pair.
    boxes = [Box((0, 0), (1, 2)), Box((0, 2), (2, 1)), Box((2, 1), (1, 2)), Box((1, 0), (2, 1)), Box((1, 1), (1, 1))]

    assert boxes_problem((3, 3), boxes) is None
    assert boxes_problem((3, 3), [*boxes[:-1], Box((0, 0), (1, 1))]) == IRREGULAR


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([Box((0,), (4,))], "1 dimensions, the variable has 2"),
        ([Box((0, 0), (4, 5))], "reaches beyond"),
        ([Box((3, 0), (2, 4))], "reaches beyond"),
        ([Box((0, 0), (3, 4))], "do not cover"),
        ([Box((0, 0), (2, 4)), Box((1, 0), (2, 4))], "overlap"),
        ([], "do not cover"),
    ],
)
def test_boxes_problem_says_what_is_wrong(boxes: list[Box], words: str) -> None:
    assert words in (boxes_problem((4, 4), boxes) or "")


def test_boxes_of_an_empty_or_scalar_variable() -> None:
    assert boxes_problem((), [Box((), ())]) is None
    assert boxes_problem((), [Box((), ()), Box((), ())]) is not None
    assert boxes_problem((0, 3), [Box((0, 0), (0, 3))]) is None


def test_boxes_problem_takes_any_number_of_regular_boxes() -> None:
    # Compared pair by pair they would be refused for their number alone.
    count = 20_000
    boxes = [Box((row, half), (1, 1)) for row in range(count) for half in (0, 1)]

    assert boxes_problem((count, 2), boxes) is None
    assert boxes_problem((count, 2), [*boxes[:-1], boxes[0]]) == IRREGULAR


def test_boxes_problem_refuses_many_boxes_at_one_place() -> None:
    assert boxes_problem((40, 2), [Box((0, 0), (1, 2))] * 40) == IRREGULAR


def test_boxes_problem_refuses_more_elements_than_a_file_can_have() -> None:
    half = geometry.MAX_ELEMENTS

    assert "are allowed" in (boxes_problem((2 * half,), [Box((0,), (half,)), Box((half,), (half,))]) or "")


def test_boxes_problem_gives_up_on_boxes_that_no_cut_separates() -> None:
    # Long boxes in every dimension that cross each other: each cut goes through nearly all of them.
    count = 3000
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 2**10, (count, 3))
    boxes = [Box(tuple(map(int, s)), (2**10, 2**10, 2**10)) for s in starts]

    assert boxes_problem((2**11, 2**11, count * 2**8), boxes) == IRREGULAR


INDEX_PARTS = st.one_of(
    st.integers(-7, 7),
    st.slices(6),
    st.builds(
        slice, st.one_of(st.none(), st.integers(-9, 9)), st.one_of(st.none(), st.integers(-9, 9)), st.integers(1, 3)
    ),
    st.just(Ellipsis),
    st.none(),
    st.sampled_from([np.int64(1), np.array(1), True, False, np.array([0, 1]), [0, 0]]),
)


@given(SHAPES, st.one_of(INDEX_PARTS, st.lists(INDEX_PARTS, max_size=4).map(tuple)))
def test_rows_of_and_the_rest_give_what_numpy_gives(shape: tuple[int, ...], index: Any) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape)
    try:
        expected = array[index]
    except IndexError:
        expected = None

    try:
        needed = rows_of(index, shape)
        found = array[index] if needed is None else array[needed[0] : needed[1]][needed[2]]
    except IndexError:
        found = None

    assert (found is None) == (expected is None)
    if expected is not None:
        assert np.array_equal(found, expected)
        assert np.shape(found) == np.shape(expected)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (3, (3, 4)),
        (-1, (9, 10)),
        (slice(2, 5), (2, 5)),
        ((slice(8, 99), 0), (8, 10)),
        (slice(None, 3), (0, 3)),
        (slice(5, 5), (0, 0)),
    ],
)
def test_rows_of_asks_for_no_more_than_needed(index: Any, rows: tuple[int, int]) -> None:
    needed = rows_of(index, (10, 4))

    assert needed is not None
    assert needed[:2] == rows


def test_rows_of_reports_an_index_out_of_bounds() -> None:
    with pytest.raises(IndexError, match="10 is out of bounds for 10 rows"):
        rows_of(10, (10,))
    with pytest.raises(IndexError, match="-11"):
        rows_of((-11, 0), (10, 2))


@given(SHAPES, st.data())
def test_range_boxes_cover_a_range_in_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape)
    start = data.draw(st.integers(0, array.size))
    stop = data.draw(st.integers(start, array.size))

    boxes = list(range_boxes(shape, start, stop))

    assert [int(x) for box in boxes for x in array[(..., *box.slices)].reshape(-1)] == list(range(start, stop))
    assert len(boxes) <= 2 * len(shape) + 1
