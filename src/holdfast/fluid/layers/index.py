"""Layers that pick elements by their places, or put them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def gather(input: Variable, index: Variable, overwrite: bool = True) -> Variable:
    """The rows of these places, a row or column of int32 or int64."""
    return LayerHelper("gather").op("gather", {"X": [input], "Index": [index]}, {"overwrite": overwrite})


def gather_nd(input: Variable, index: Variable, name: str | None = None) -> Variable:
    """What stands at these coordinates, which are the last dimension of the index."""
    return LayerHelper("gather_nd", name=name).op("gather_nd", {"X": [input], "Index": [index]})


def scatter(
    input: Variable, index: Variable, updates: Variable, name: str | None = None, overwrite: bool = True
) -> Variable:
    """Rows of these places replaced; `overwrite=False` adds up those that have one place."""
    helper = LayerHelper("scatter", name=name)
    return helper.op("scatter", {"X": [input], "Ids": [index], "Updates": [updates]}, {"overwrite": overwrite})


def scatter_nd_add(ref: Variable, index: Variable, updates: Variable, name: str | None = None) -> Variable:
    """With something added at these coordinates, which are the last dimension of the index."""
    helper = LayerHelper("scatter_nd_add", name=name)
    return helper.op("scatter_nd_add", {"X": [ref], "Index": [index], "Updates": [updates]})


def scatter_nd(index: Variable, updates: Variable, shape: Sequence[int], name: str | None = None) -> Variable:
    """Zeros of a shape with something added at these coordinates."""
    from holdfast.fluid.layers.tensor import zeros

    return scatter_nd_add(zeros(shape, updates.dtype), index, updates, name)


def index_select(input: Variable, index: Any, dim: int = 0) -> Variable:
    """The places of one dimension; the index is a variable or an array."""
    from holdfast.fluid.layers.tensor import assign

    helper = LayerHelper("index_select")
    index = index if isinstance(index, Variable) else assign(index)
    return helper.op("index_select", {"X": [input], "Index": [index]}, {"dim": dim})


def index_sample(x: Variable, index: Variable) -> Variable:
    """From each row the places that stand in the same row of the index."""
    return LayerHelper("index_sample").op("index_sample", {"X": [x], "Index": [index]})


def multiplex(inputs: Sequence[Variable], index: Variable) -> Variable:
    """Each row from the input whose number stands in the same row of the index."""
    if not isinstance(inputs, list | tuple) or len(inputs) < 2:
        raise ValueError("multiplex needs a list of two inputs or more")
    return LayerHelper("multiplex").op("multiplex", {"X": list(inputs), "Ids": [index]})
