"""JAX arrays: saved from their own memory where that is one piece of the host's, loaded as new arrays of the same placement.

A JAX array never changes, so a load replaces it where it stands. The new one has the old one's dtype, sharding and weak type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from holdfast import dtypes
from holdfast.adapters.numpy import dtype_problem
from holdfast.adapters.state import Leaf, Value, place
from holdfast.format.values import MAX_INLINE_ELEMENTS, Tagged

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_KEY = "jax.random.key"


def is_array(node: Any) -> bool:
    """Whether this is an array, or the description of one that a load is to make."""
    return isinstance(node, jax.Array | jax.ShapeDtypeStruct)


def is_key(node: Any) -> bool:
    """Whether this is an array of typed PRNG keys, or the description of one."""
    return jax.numpy.issubdtype(node.dtype, jax.dtypes.prng_key)


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
        self.slot = place(container, key)

    def begin(self) -> None:
        """Start to copy from all devices."""
        if not self._reason:
            self._node.copy_to_host_async()

    def fetch(self) -> np.ndarray:
        """The values, gathered from all devices."""
        if self._reason:
            raise ValueError(self._reason)
        return np.asarray(self._node)

    def put(self, array: np.ndarray) -> None:
        """Replace the array."""
        self._container[self._key] = alike(array, self._node)


def alike(array: np.ndarray, node: Any) -> jax.Array:
    """A new JAX array with the dtype, the placement and the weak type of another."""
    if array.dtype.itemsize == 8 and array.dtype.kind in "iuf" and not jax.config.read("jax_enable_x64"):
        with jax.enable_x64(True):  # a target that was made so; else half of every number would be lost
            return alike(array, node)
    if not getattr(node, "weak_type", False) or array.dtype.kind not in "bifc":
        return placed(array, node)
    # Of a Python number: weakly typed, so that it does not widen what it meets.
    made = jax.numpy.asarray(array.dtype.type(0).item() if array.shape else array.item())
    if made.dtype != array.dtype:
        return placed(array, node)
    return placed(jax.lax.broadcast(made, array.shape).at[...].set(array) if array.shape else made, node)


def placed(array: Any, node: Any) -> jax.Array:
    """An array on the devices of another; one that was not bound to a device is not bound then either."""
    is_bound = isinstance(node, jax.ShapeDtypeStruct) or getattr(node, "committed", True)
    made: jax.Array = jax.device_put(array, node.sharding if is_bound else None)
    return made


def _form(keys: Any) -> tuple[str, tuple[int, ...]]:
    """The name of the generator of keys, and the shape of their numbers; of a description of keys too."""
    names = []

    def numbers(traced: Any) -> Any:
        names.append(str(jax.random.key_impl(traced)))
        return jax.random.key_data(traced)

    shape = jax.eval_shape(numbers, jax.ShapeDtypeStruct(keys.shape, keys.dtype)).shape
    return names[0], shape


def add_key(scanner: Scanner, node: Any, name: str, container: Any, key: Any) -> None:
    """Tell the scanner of typed PRNG keys: a value with the generator's name and the key's numbers."""
    impl, shape = _form(node)
    if np.prod(shape) > MAX_INLINE_ELEMENTS:
        scanner.refuse(name, f"has too many keys ({node.size}); save jax.random.key_data() of it")
        return
    absent = None
    if isinstance(node, jax.ShapeDtypeStruct):
        absent = "is a description without values"
    elif node.is_deleted():
        absent = "was deleted, or donated to a jitted function"
    elif not node.is_fully_addressable:
        scanner.refuse(name, "is sharded over several processes, which is not supported yet")
        return
    numbers = np.zeros(shape, np.uint32) if absent else np.asarray(jax.random.key_data(node))

    def problem(value: Any) -> str | None:
        if not (isinstance(value, Tagged) and value.tag == "$random"):
            return "the checkpoint has a plain value there, the target a PRNG key"
        kind, state = value.value
        if kind != _KEY or not isinstance(state, list) or len(state) != 2 or not isinstance(state[1], np.ndarray):
            return f"the checkpoint has the state of a {str(kind)[:60]}, the target is a {_KEY}"
        if state[0] != impl:
            return f"the checkpoint has a key of {str(state[0])[:20]!r}, the target one of {impl!r}"
        if state[1].shape != shape or state[1].dtype != np.uint32:
            return f"the checkpoint has a key of {state[1].dtype} {state[1].shape}, the target one of uint32 {shape}"
        return None

    def put(value: Any, _: Any) -> None:
        container[key] = placed(jax.random.wrap_key_data(value.value[1][1], impl=impl), node)

    value = Tagged("$random", [_KEY, [impl, numbers]])
    scanner.add(Value(name, value, put, problem, identity=place(container, key), absent=absent))
