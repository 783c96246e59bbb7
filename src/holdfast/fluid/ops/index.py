"""Operators that pick elements by their places, or put them there."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from holdfast.fluid.ops.known import folds
from holdfast.fluid.registry import op


@op("X Index -> Out")
@folds
def gather(x: Array, index: Array, *, overwrite: bool = True) -> Array:
    """The rows of these places; the index is a row or a column of numbers."""
    return jnp.take(x, index.reshape(-1), 0, mode="clip")


def _coordinates(index: Array) -> tuple[Array, ...]:
    return tuple(jnp.moveaxis(index, -1, 0))


@op("X Index -> Out")
def gather_nd(x: Array, index: Array) -> Array:
    """What stands at these coordinates; the last dimension of the index holds them."""
    return jnp.asarray(x)[_coordinates(index)]


@op("X Ids Updates -> Out")
def scatter(x: Array, ids: Array, updates: Array, *, overwrite: bool = True) -> Array:
    """Rows replaced by others, or by the sum of others if several have one place."""
    places = ids.reshape(-1)
    rows = jnp.asarray(x)  # a constant is a NumPy array
    if overwrite:
        return rows.at[places].set(updates)
    return rows.at[places].set(jnp.zeros((), x.dtype)).at[places].add(updates)


@op("X Index Updates -> Out")
def scatter_nd_add(x: Array, index: Array, updates: Array) -> Array:
    """With something added at these coordinates."""
    return jnp.asarray(x).at[_coordinates(index)].add(updates)


@op("X Index -> Out")
def index_select(x: Array, index: Array, *, dim: int = 0) -> Array:
    """The places of one dimension."""
    return jnp.take(x, index.reshape(-1), dim, mode="clip")


@op("X Index -> Out")
def index_sample(x: Array, index: Array) -> Array:
    """From each row the places of its own."""
    return jnp.take_along_axis(x, index, 1, mode="clip")


@op("Ids X* -> Out")
def multiplex(ids: Array, xs: list[Array]) -> Array:
    """Each row from the tensor of a number."""
    rows = jnp.arange(ids.shape[0])
    return jnp.stack(xs)[jnp.asarray(ids).reshape(-1), rows]
