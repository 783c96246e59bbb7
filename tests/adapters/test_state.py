"""What a scan finds: values that have to be fetched are under way, all of them, before the first is waited for."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast import Variable
from holdfast.adapters.state import Item, Leaf, fetched
from holdfast.errors import UnsupportedVariableError


class Far:
    """An array that has to be fetched."""

    slot = None

    def __init__(self, notes: list[str], reason: str = "") -> None:
        self.notes, self.reason = notes, reason

    def begin(self) -> None:
        self.notes.append("begin")

    def fetch(self) -> np.ndarray:
        self.notes.append("fetch")
        if self.reason:
            raise ValueError(self.reason)
        return np.ones(2)

    def put(self, array: np.ndarray) -> None: ...


def item(name: str, access: Far | None) -> Item:
    leaf = Leaf("F64", (2,), np.zeros(2) if access is None else None, access)
    return Item.of(Variable(name, "persistable", True, "F64", (2,)), leaf)


def test_all_copies_are_begun_before_the_first_is_waited_for() -> None:
    notes: list[str] = []

    found = fetched(iter([item("a", Far(notes)), item("b", None), item("c", Far(notes))]))

    assert notes == ["begin", "begin", "fetch", "fetch"]
    assert [one.array.tolist() for one in found] == [[1, 1], [0, 0], [1, 1]]
    assert [one.immutable for one in found] == [True, False, True]


def test_all_that_cannot_be_fetched_is_named() -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        fetched([item("a", Far([], "is gone")), item("b", Far([])), item("c", Far([], "was donated"))])

    assert caught.value.reasons == {"a": "is gone", "c": "was donated"}
