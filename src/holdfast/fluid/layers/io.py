"""Variables that are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid.core import VarType
from holdfast.fluid.framework import Variable, default_main_program


def data(
    name: str,
    shape: Sequence[int | None],
    append_batch_size: bool = True,
    dtype: Any = "float32",
    lod_level: int = 0,
    type: Any = VarType.LOD_TENSOR,
    stop_gradient: bool = True,
) -> Variable:
    """A variable that every run is fed.

    Args:
        name: the key in `feed`, as it is.
        shape: without the batch.
        append_batch_size: True puts a batch dimension of any size (-1) before the shape, unless that has one already.
        dtype: of the arrays that are fed; they are not converted.
        lod_level: 0; sequences are not supported yet.
        type: accepted as Fluid has it.
        stop_gradient: False lets `fluid.gradients` reach it.

    Raises:
        ValueError: the name is in use for another shape or dtype.
        NotImplementedError: `lod_level` is not 0.
    """
    if lod_level:
        raise NotImplementedError(
            f"data {name!r}: lod_level={lod_level}: sequences (LoD) are planned and not supported yet; pad them to one length"
        )
    sizes = [-1 if n is None else int(n) for n in shape]
    if append_batch_size and all(n >= 0 for n in sizes):
        sizes = [-1, *sizes]
    return default_main_program().global_block().create_var(
        name=name, shape=sizes, dtype=dtype, type=type, stop_gradient=stop_gradient, is_data=True
    )  # fmt: skip
