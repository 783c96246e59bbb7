"""JAX arrays: saved from their own memory where that is one piece of the host's, loaded as new arrays of the same placement.

A JAX array never changes, so a load replaces it where it stands. The new one has the old one's dtype, sharding and weak type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from holdfast import dtypes
from holdfast.adapters.numpy import dtype_problem
from holdfast.adapters.state import Leaf, Value
from holdfast.format.values import MAX_INLINE_ELEMENTS, Tagged

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_KEY = "jax.random.key"


def is_array(node: Any) -> bool:
    """Whether this is an array, or the description of one that a load is to make."""
    return isinstance(node, jax.Array | jax.ShapeDtypeStruct)


def is_key(node: Any) -> bool:
    """Whether this is an array of typed PRNG keys."""
    return isinstance(node, jax.Array) and jax.numpy.issubdtype(node.dtype, jax.dtypes.prng_key)


def describe(node: Any, container: Any = None, key: Any = None) -> Leaf | str:
    """An array as one of a state, which is replaced in its container; the reason if no checkpoint can hold it."""
    if isinstance(node, jax.core.Tracer):
        return "is a tracer: save and load outside of jit, grad and the like"
    if jax.numpy.issubdtype(node.dtype, jax.dtypes.prng_key):
        return "is a PRNG key inside an object's state_dict(); put jax.random.key_data() of it there"
    name = dtypes.from_numpy(np.dtype(node.dtype))
    if name is None:
        return dtype_problem(node.dtype)
    shape = tuple(node.shape)
    if isinstance(node, jax.ShapeDtypeStruct):
        return Leaf(name, shape, None, _Place(node, container, key, "is a description without values"))
    if not node.is_fully_addressable:
        return "is sharded over several processes, which is not supported yet"
    if node.is_deleted():
        return Leaf(name, shape, None, _Place(node, container, key, "was deleted, or donated to a jitted function"))
    # While NumPy looks at it JAX does not reuse its memory, even if it is donated: it copies instead.
    is_here = len(node.sharding.device_set) == 1 and next(iter(node.sharding.device_set)).platform == "cpu"
    return Leaf(name, shape, np.asarray(node) if is_here else None, _Place(node, container, key), is_here)


class _Place:
    """Where an array stands, and what a new one there has to be like."""

    def __init__(self, node: Any, container: Any, key: Any, reason: str = "") -> None:
        self._node, self._container, self._key, self._reason = node, container, key, reason
        self.slot = (id(container), key) if isinstance(container, dict | list) else None

    def fetch(self) -> np.ndarray:
        """The values, gathered from all devices."""
        if self._reason:
            raise ValueError(self._reason)
        return np.asarray(self._node)

    def put(self, array: np.ndarray) -> None:
        """Replace the array."""
        self._container[self._key] = alike(array, self._node)


def alike(array: np.ndarray, node: Any) -> jax.Array:
    """A new JAX array with the placement and the weak type of another."""
    if getattr(node, "weak_type", False) and array.shape == () and array.dtype.kind in "bifc":
        made = jax.numpy.asarray(
            array.item()
        )  # of a Python number: weakly typed, so that it does not widen what it meets
        if made.dtype == array.dtype:
            return placed(made, node)
    return placed(array, node)


def placed(array: Any, node: Any) -> jax.Array:
    """An array on the devices of another; one that was not bound to a device is not bound then either."""
    is_bound = isinstance(node, jax.ShapeDtypeStruct) or getattr(node, "committed", True)
    made: jax.Array = jax.device_put(array, node.sharding if is_bound else None)
    return made


def add_key(scanner: Scanner, node: Any, name: str, container: Any, key: Any) -> None:
    """Tell the scanner of typed PRNG keys: a value with the generator's name and the key's numbers."""
    impl = str(jax.random.key_impl(node))
    data_shape = jax.eval_shape(jax.random.key_data, node).shape
    if np.prod(data_shape) > MAX_INLINE_ELEMENTS:
        scanner.refuse(name, f"has too many keys ({node.size}); save jax.random.key_data() of it")
        return
    if node.is_deleted():
        scanner.refuse(name, "was deleted, or donated to a jitted function")
        return

    def problem(value: Any) -> str | None:
        if not (isinstance(value, Tagged) and value.tag == "$random"):
            return "the checkpoint has a plain value there, the target a PRNG key"
        kind, state = value.value
        if kind != _KEY or not isinstance(state, list) or len(state) != 2 or not isinstance(state[1], np.ndarray):
            return f"the checkpoint has the state of a {str(kind)[:60]}, the target is a {_KEY}"
        if state[0] != impl:
            return f"the checkpoint has a key of {str(state[0])[:20]!r}, the target one of {impl!r}"
        if state[1].shape != data_shape or state[1].dtype != np.uint32:
            return (
                f"the checkpoint has a key of {state[1].dtype} {state[1].shape}, the target one of uint32 {data_shape}"
            )
        return None

    def put(value: Any, _: Any) -> None:
        container[key] = placed(jax.random.wrap_key_data(value.value[1][1], impl=impl), node)

    scanner.add(Value(name, Tagged("$random", [_KEY, [impl, np.asarray(jax.random.key_data(node))]]), put, problem))
