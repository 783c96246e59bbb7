"""Fluid's values as plain arrays and back: LoD and rows become arrays of their own beside the elements. Pure.

`x` with LoD: `x` and per level `x@LOD_0`, `x@LOD_1` … (int64 offsets). SelectedRows `t`: `t` (the rows that are there),
`t@ROWS` (int64 numbers) and `t@HEIGHT` (int64, one element).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from holdfast.errors import UnsupportedVariableError
from holdfast.interop.expected import Value
from holdfast.interop.lodtensor import LoDTensor
from holdfast.interop.selected_rows import SelectedRows


def to_arrays(variables: Mapping[str, Value]) -> dict[str, np.ndarray]:
    """Arrays by name, of the same memory.

    Raises:
        UnsupportedVariableError: a variable already has such a name.
    """
    made: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        parts: dict[str, np.ndarray] = {name: value.array}
        if isinstance(value, SelectedRows):
            parts |= {f"{name}@ROWS": value.rows, f"{name}@HEIGHT": np.array([value.height], np.int64)}
        else:
            parts |= {f"{name}@LOD_{i}": np.array(offsets, np.int64) for i, offsets in enumerate(value.lod)}
        if taken := [part for part in parts if part in made or (part != name and part in variables)]:
            raise UnsupportedVariableError(dict.fromkeys(taken, f"{name!r} needs this name for its LoD or rows"))
        made |= parts
    return made


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Value]:
    """What `to_arrays` was given; any other array is a LoDTensor without LoD."""
    made: dict[str, Value] = {}
    used: set[str] = set()
    for name, array in arrays.items():
        rows, height = arrays.get(f"{name}@ROWS"), arrays.get(f"{name}@HEIGHT")
        if rows is not None and height is not None and height.shape == (1,):
            made[name] = SelectedRows(rows, int(height[0]), array)
            used |= {f"{name}@ROWS", f"{name}@HEIGHT"}
            continue
        levels: list[tuple[int, ...]] = []
        while (offsets := arrays.get(f"{name}@LOD_{len(levels)}")) is not None and offsets.ndim == 1:
            used.add(f"{name}@LOD_{len(levels)}")
            levels.append(tuple(offsets.tolist()))
        made[name] = LoDTensor(array, tuple(levels))
    return {name: value for name, value in made.items() if name not in used}
