"""SelectedRows files."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.interop import lodtensor
from holdfast.interop.selected_rows import SelectedRows, from_bytes, read_file, to_bytes
from interop.truth import FLUID, arrays, meta, same

TABLE = FLUID / "selected_rows" / "model" / "table"


def shards() -> list[tuple]:
    tree = FLUID / "checkpoint_layout"
    tables = tree / "model" / "checkpoint_1" / "__lookup_table__"
    found = [(tables / name, entry, tree) for name, entry in meta(tree)["lookup_table"].items()]
    alone = FLUID / "selected_rows"
    return [*found, (TABLE, meta(alone)["vars"]["table"], alone)]


@pytest.mark.parametrize(("path", "entry", "case"), shards())
def test_read_gives_what_fluid_held_and_rewriting_gives_the_same_bytes(path, entry, case) -> None:
    found = read_file(path)

    assert found.rows.tolist() == entry["rows"]
    assert found.height == entry["height"]
    assert same(found.array, arrays(case)[entry["npz"]])
    assert to_bytes(found) == path.read_bytes()


def test_every_truncation_and_padding_is_refused() -> None:
    data = TABLE.read_bytes()

    for size in range(len(data)):
        with pytest.raises(FormatError, match="table"):
            from_bytes(data[:size], "table")
    with pytest.raises(FormatError, match=f"expected {len(data)} bytes, found {len(data) + 1}"):
        from_bytes(data + b"\0", "table")


def test_neither_kind_of_record_is_taken_for_the_other() -> None:
    with pytest.raises(FormatError):
        lodtensor.from_bytes(TABLE.read_bytes())
    with pytest.raises(FormatError):
        from_bytes((FLUID / "lod" / "model" / "seq2").read_bytes())


@given(hnp.arrays(np.int64, st.integers(0, 5), elements=st.integers(0, 1 << 62)), st.integers(0, 1 << 62))
def test_round_trip(rows: np.ndarray, height: int) -> None:
    value = SelectedRows(rows, height, np.arange(len(rows) * 2, dtype=np.float64).reshape(-1, 2))

    found = from_bytes(to_bytes(value))

    assert same(found.rows, rows)
    assert found.height == height
    assert same(found.array, value.array)


@pytest.mark.parametrize(
    ("rows", "height", "shape", "reason"),
    [
        (np.array([0, 1, 2]), 4, (2, 3), r"3 row numbers for a tensor of shape \(2, 3\)"),
        (np.array([-1]), 4, (1, 3), "a row has the number -1"),
        (np.array([0]), -4, (1, 3), "no table has -4 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused_on_both_sides(rows, height, shape, reason) -> None:
    value = SelectedRows(rows, height, np.zeros(shape, np.float32))
    good = bytearray(to_bytes(SelectedRows(np.arange(len(rows)), 4, np.zeros((len(rows), 3), np.float32))))
    good[12 : 12 + 8 * len(rows)] = rows.astype("<i8").tobytes()
    good[12 + 8 * len(rows) : 20 + 8 * len(rows)] = height.to_bytes(8, "little", signed=True)
    if len(rows) == 3:
        at = good.index(b"\x10\x03\x10\x03")
        good[at : at + 4] = b"\x10\x02\x10\x03"

    with pytest.raises(UnsupportedVariableError, match=reason):
        to_bytes(value)
    with pytest.raises(FormatError, match=reason):
        from_bytes(bytes(good))


def test_row_numbers_must_be_int64() -> None:
    with pytest.raises(UnsupportedVariableError, match="int64"):
        to_bytes(SelectedRows(np.zeros(1, np.float32), 1, np.zeros((1, 1), np.float32)))


def test_room_for_more_rows_than_are_used_is_read() -> None:
    value = SelectedRows(np.array([5]), 9, np.zeros((4, 2), np.float32))

    assert from_bytes(to_bytes(value)).array.shape == (4, 2)


def test_absurd_counts_are_refused() -> None:
    with pytest.raises(FormatError, match="takes bytes"):
        from_bytes(bytes(4) + b"\xff" * 8)
    with pytest.raises(FormatError, match="version 3"):
        from_bytes(b"\3" + bytes(40))
