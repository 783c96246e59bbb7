"""Values that are known while a program is compiled: shapes, and what operators compute of them, stay NumPy arrays.

XLA compiles for fixed shapes. Fluid's programs compute shapes with operators (`shape`, `slice`, `fill_constant`, `range`), so
those operators give NumPy arrays where their inputs are NumPy arrays, and operators that need a shape read them with `known`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from holdfast.fluid.registry import ValueDependentShape

F = TypeVar("F", bound=Callable[..., Any])
SMALL = 1024  # elements; a constant of more is left to XLA


def known(value: Any, what: str) -> np.ndarray:
    """The value of an input that decides a shape.

    Raises:
        ValueDependentShape: it is not known before the program runs.
    """
    if isinstance(value, np.ndarray):
        return value
    raise ValueDependentShape(
        f"{what} decides a shape, and is computed from values that are only known when the program runs; XLA needs the shape "
        "when it compiles the program: use numbers, or what fluid.layers.shape() gives"
    )


def shape_from(shape: Sequence[int], tensor: Any, parts: Sequence[Any], what: str) -> list[int]:
    """A shape from an attribute, or instead of it a tensor, or a tensor for each dimension."""
    if tensor is not None:
        return [int(n) for n in known(tensor, what).ravel()]
    if parts:
        return [int(known(p, what).ravel()[0]) for p in parts]
    return [int(n) for n in shape]


def folds(function: F) -> F:
    """Let an operator give NumPy arrays where all its inputs are NumPy arrays."""

    @functools.wraps(function)
    def run(*inputs: Any, **attrs: Any) -> Any:
        leaves = jax.tree.leaves(inputs)
        if not leaves or not all(isinstance(leaf, np.ndarray) for leaf in leaves):
            return function(*inputs, **attrs)
        with jax.ensure_compile_time_eval():
            return jax.tree.map(np.asarray, function(*inputs, **attrs))

    return run  # type: ignore[return-value]
