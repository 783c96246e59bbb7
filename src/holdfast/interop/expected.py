"""What a caller expects a variable to be, and how a record differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.errors import Problem
from holdfast.interop import lodtensor, selected_rows

AnyRecord = lodtensor.Record | selected_rows.Record
Value = lodtensor.LoDTensor | selected_rows.SelectedRows
RecordKind = Literal["lod_tensor", "selected_rows"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a program says about a variable.

    Attributes:
        dtype: None for any.
        shape: None for any; -1 stands for any extent. Of SelectedRows it is the whole table's.
        kind: which record it is; None: whichever the bytes are.
    """

    dtype: np.dtype | None = None
    shape: tuple[int, ...] | None = None
    kind: RecordKind | None = "lod_tensor"


Expectations = Mapping[str, Expected]


def problems_of(name: str, expected: Expected, record: AnyRecord) -> list[Problem]:
    """How a record differs from what is expected of it."""
    found: list[Problem] = []
    rows = isinstance(record, selected_rows.Record)
    if expected.kind is not None and rows != (expected.kind == "selected_rows"):
        found.append(Problem("kind", name, f"{name!r}: the file holds {'SelectedRows' if rows else 'a LoDTensor'}"))
    if expected.dtype is not None and expected.dtype != record.dtype:
        found.append(
            Problem("dtype", name, f"{name!r}: the file holds {record.dtype}, the program expects {expected.dtype}")
        )
    shape = whole_shape(record)
    if expected.shape is not None and (
        len(shape) != len(expected.shape)
        or any(wanted not in (-1, extent) for wanted, extent in zip(expected.shape, shape, strict=True))
    ):
        found.append(Problem("shape", name, f"{name!r}: the file holds {shape}, the program expects {expected.shape}"))
    return found


def whole_shape(record: AnyRecord) -> tuple[int, ...]:
    """The shape of a record's variable: of SelectedRows that of the whole table."""
    return (record.height, *record.shape[1:]) if isinstance(record, selected_rows.Record) else record.shape
