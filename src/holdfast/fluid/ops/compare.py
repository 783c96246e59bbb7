"""Comparisons and logic: bool tensors, with no gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.ops.elementwise import aligned
from holdfast.fluid.ops.known import folds
from holdfast.fluid.registry import op


def _comparison(name: str, function: Callable[[Array, Array], Array]) -> None:
    @folds
    def run(x: Array, y: Array, *, axis: int = -1, force_cpu: bool = False) -> Array:
        return function(*aligned(x, y, axis))

    op("X Y -> Out", name, differentiable=False)(run)


_comparison("less_than", jnp.less)
_comparison("less_equal", jnp.less_equal)
_comparison("greater_than", jnp.greater)
_comparison("greater_equal", jnp.greater_equal)
_comparison("equal", jnp.equal)
_comparison("not_equal", jnp.not_equal)


def _logic(name: str, function: Callable[[Array, Array], Array]) -> None:
    op("X Y -> Out", name, differentiable=False)(folds(lambda x, y: function(x, y)))


_logic("logical_and", jnp.logical_and)
_logic("logical_or", jnp.logical_or)
_logic("logical_xor", jnp.logical_xor)


@op("X -> Out", differentiable=False)
@folds
def logical_not(x: Array) -> Array:
    """The opposite."""
    return jnp.logical_not(x)


@op("Input Other -> Out", differentiable=False)
def allclose(x: Array, other: Array, *, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Array:
    """Whether two tensors are nearly equal, shape [1]."""
    return jnp.allclose(x, other, rtol, atol, equal_nan).reshape(1)


@op("X* Mask -> Out")
def select_input(xs: list[Array], mask: Array) -> Array:
    """The input of a number."""
    number = mask.reshape(())
    out = xs[0]
    for i, x in enumerate(xs[1:], 1):
        out = jnp.where(number == i, x, out)
    return out


@op("Condition X Y -> Out")
def where(condition: Array, x: Array, y: Array) -> Array:
    """Elements of one tensor where a condition holds, of another elsewhere."""
    return jnp.where(condition, x, y)
