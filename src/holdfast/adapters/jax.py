"""JAX: arrays, PRNG keys and any registered pytree node in a state; names are the fields and keys on the way.

Dicts and lists are refilled in place. What cannot be changed (tuples, dataclasses, Equinox modules, Flax's TrainState) is
made anew and put where it stood, or is `report.state` if it is the whole state.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from holdfast.adapters import jax_arrays, jax_flax
from holdfast.adapters.state import Attributes, Leaf, Mark, Part, Rebuilt, join

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_PLAIN = (str, int, float, bool, complex, bytes, type(None), np.ndarray, np.generic)


def visit(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:
    """See `Framework`."""
    if isinstance(node, _PLAIN):
        return False
    if jax_arrays.is_array(node):
        if not name:
            return False
        if jax_arrays.is_key(node) and not isinstance(node, jax.core.Tracer):
            jax_arrays.add_key(scanner, node, name, container, key)
        else:
            scanner.add_leaf(name, jax_arrays.describe(node, container, key), mark)
        return True
    if jax_flax.visit(scanner, node, name, mark, container, key):
        return True
    if isinstance(node, tuple):
        if not (hasattr(node, "_fields") and type(node).__module__.partition(".")[0] == "optax"):
            return False
        # An optimizer's state has the shape of the model, down to its modules, but is none.
        mark = Mark(mark.kind, mark.trainable, True)
    elif _is_equinox(node):
        _add_equinox(scanner, node, name, mark, container, key)
        return True
    parts, tree = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda part: part is not node)
    if parts and parts[0][0] == ():
        return False  # no node, but a leaf
    if _has_attributes(node, parts) and not (isinstance(container, Rebuilt) and container.is_fixed):
        for path, part in parts:
            label, whole = join(name, path[0].name), Attributes(node)
            if not scanner.walk(part, label, mark, whole, path[0].name):
                scanner.add_value(label, part, mark, whole, path[0].name)
        return True
    scanner.walk_parts(
        [Part(_label(path), i, part, mark) for i, (path, part) in enumerate(parts)],
        _maker(parts, tree),
        name,
        container,
        key,
    )
    return True


def _maker(parts: list[tuple[Any, Any]], tree: Any) -> Callable[[dict[Any, Any]], Any]:
    """How a pytree node is made anew, with some of its parts replaced."""
    return lambda new: jax.tree_util.tree_unflatten(tree, [new.get(i, part) for i, (_, part) in enumerate(parts)])


def _has_attributes(node: Any, parts: list[tuple[Any, Any]]) -> bool:
    """Whether a pytree node is a dataclass that can be changed, and its parts are its fields."""
    if not dataclasses.is_dataclass(node) or getattr(node, "__dataclass_params__").frozen:  # noqa: B009 - not typed
        return False
    fields = {field.name for field in dataclasses.fields(node)}
    return all(isinstance(path[0], jax.tree_util.GetAttrKey) and path[0].name in fields for path, _ in parts)


def is_model(node: Any) -> bool:
    """See `Framework`."""
    return _is_equinox(node) or jax_flax.is_model(node)


def leaf(node: Any) -> Leaf | str | None:
    """See `Framework`."""
    return jax_arrays.describe(node) if isinstance(node, jax.Array) else None


def native(array: np.ndarray) -> Any:
    """See `Framework`."""
    return jax.numpy.asarray(array)


def owns(node: Any) -> bool:
    """See `Framework`."""
    return any(kind.__module__.partition(".")[0] in ("jax", "flax", "optax") for kind in type(node).__mro__)


def _label(path: tuple[Any, ...]) -> str:
    """The name that a pytree node gives one of its parts."""
    (entry,) = path
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _is_equinox(node: Any) -> bool:
    equinox = sys.modules.get("equinox")
    return equinox is not None and hasattr(equinox, "Module") and isinstance(node, equinox.Module)


def _add_equinox(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> None:
    """An Equinox module: its arrays are parameters; activation functions, rates and flags are the program's, not the state's.

    So it is in the lists, tuples and dicts in it: `layers=[Linear(…), jax.nn.relu, Linear(…)]` is what people write.
    """
    mark = mark if mark.fixed else Mark("parameter", True)
    parts, tree = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda part: part is not node)
    rebuilt = scanner.rebuilt(_maker(parts, tree), container, key)
    for i, (path, part) in enumerate(parts):
        label = join(name, _label(path))
        if jax_arrays.is_array(part) or isinstance(part, np.ndarray):
            is_learned = jax.numpy.issubdtype(part.dtype, jax.numpy.inexact)
            scanner.walk(part, label, mark if is_learned else Mark(mark.kind, False, mark.fixed), rebuilt, i)
        elif any(map(_is_held, jax.tree_util.tree_leaves(part))):
            _add_equinox(scanner, part, label, mark, rebuilt, i)


def _is_held(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or jax_arrays.is_array(leaf)
