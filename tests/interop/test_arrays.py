"""LoD and rows as plain arrays, and back."""

import numpy as np
import pytest

from holdfast.errors import UnsupportedVariableError
from holdfast.interop.arrays import from_arrays, to_arrays
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.selected_rows import SelectedRows
from interop.truth import same


def test_round_trip() -> None:
    rows = np.array([7, 0], np.int64)
    variables = {
        "w": LoDTensor(np.zeros((2, 2), np.float32)),
        "seq": LoDTensor(np.zeros((6, 1)), ((0, 2, 3), (0, 1, 3, 6))),
        "table": SelectedRows(rows, 10, np.ones((2, 3), np.float32)),
    }

    arrays = to_arrays(variables)
    found = from_arrays(dict(reversed(arrays.items())))

    assert sorted(arrays) == ["seq", "seq@LOD_0", "seq@LOD_1", "table", "table@HEIGHT", "table@ROWS", "w"]
    assert sorted(found) == sorted(variables)
    for name, value in variables.items():
        assert same(found[name].array, value.array)
    assert isinstance(found["seq"], LoDTensor)
    assert found["seq"].lod == ((0, 2, 3), (0, 1, 3, 6))
    assert isinstance(found["table"], SelectedRows)
    assert (found["table"].height, found["table"].rows.tolist()) == (10, [7, 0])


def test_names_that_are_taken() -> None:
    with pytest.raises(UnsupportedVariableError, match="'a' needs this name"):
        to_arrays({"a": LoDTensor(np.zeros(1), ((0, 1),)), "a@LOD_0": LoDTensor(np.zeros(2))})


def test_half_of_a_pair_is_an_array_like_any_other() -> None:
    arrays = {"t": np.zeros((2, 3)), "t@ROWS": np.zeros(2, np.int64)}

    assert sorted(from_arrays(arrays)) == ["t", "t@ROWS"]
