"""Arithmetic layers."""

from __future__ import annotations

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def mean(x: Variable, name: str | None = None) -> Variable:
    """The mean of all elements, shape [1]."""
    return LayerHelper("mean", name=name).op("mean", {"X": [x]})
