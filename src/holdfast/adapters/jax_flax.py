"""Flax in a state: NNX modules, optimizers and states, Linen's TrainState and boxed parameters. Imports no Flax.

Params are parameters, batch statistics parameters with trainable=False, intermediates temporaries; all else is persistable.
NNX variables can be changed, and are: a module that was loaded is the same object.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from holdfast.adapters.state import Attributes, Mark, Part

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_TRAIN_STATE = {"params": Mark("parameter", True, True), "batch_stats": Mark("parameter", False, True)}
_OTHER = Mark("persistable", True, True)  # also the optimizer's state, though it has the shape of the model


def visit(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:
    """Tell the scanner what an object of Flax holds; False if it is none."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and hasattr(nnx, "Variable"):
        if isinstance(node, nnx.Variable) and name:
            _add_variable(scanner, node, name, mark, nnx)
            return True
        if isinstance(node, nnx.Module | nnx.Optimizer):
            _add_graph(scanner, node, name, mark, nnx)
            return True
        if isinstance(node, nnx.State):
            for part in list(node):
                label = f"{name}.{part}" if name else str(part)
                if not scanner.walk(node[part], label, mark, node, part):
                    scanner.add_value(label, node[part], mark, node, part)
            return True
    if _is(node, "flax.training.train_state", "TrainState"):
        _add_train_state(scanner, node, name, mark, container, key)
        return True
    if _is(node, "flax.core.meta", "AxisMetadata") and name:
        # A box around an array says how it is to be sharded; its name is the array's.
        part = Part("", None, node.unbox(), mark)
        scanner.walk_parts([part], lambda new: node.replace_boxed(new[None]), name, container, key)
        return True
    return False


def is_model(node: Any) -> bool:
    """Whether this knows by itself which of its arrays are parameters."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and hasattr(nnx, "Variable"):
        if isinstance(node, nnx.Module | nnx.Param):
            return True
        if isinstance(node, nnx.State):
            return any(isinstance(variable, nnx.Param) for _, variable in nnx.to_flat_state(node))
    return _is(node, "flax.training.train_state", "TrainState")


def _is(node: Any, origin: str, name: str) -> bool:
    """Whether this is of a class of a module that the program has loaded."""
    module = sys.modules.get(origin)
    return module is not None and hasattr(module, name) and isinstance(node, getattr(module, name))


def _add_graph(scanner: Scanner, node: Any, name: str, mark: Mark, nnx: Any) -> None:
    """The variables of a module or an optimizer, each once however often it is shared, and arrays that stand there bare."""
    prefix = f"{name}." if name else ""
    found = list(nnx.iter_graph(node))
    nodes = dict(found)
    for path, part in found:
        label = prefix + ".".join(map(str, path))
        if isinstance(part, nnx.Variable):
            _add_variable(scanner, part, label, mark, nnx)
        elif hasattr(part, "dtype") and hasattr(part, "shape") and path:
            parent = nodes[path[:-1]]
            where = parent if isinstance(parent, MutableMapping | list) else Attributes(parent)
            scanner.walk(part, label, mark, where, path[-1])


def _add_variable(scanner: Scanner, variable: Any, name: str, mark: Mark, nnx: Any) -> None:
    if isinstance(variable, nnx.Intermediate):
        return
    if not mark.fixed:
        is_parameter = isinstance(variable, nnx.Param | nnx.BatchStat)
        mark = Mark("parameter" if is_parameter else "persistable", not isinstance(variable, nnx.BatchStat))
    value, place = variable.get_raw_value(), _Inside(variable)
    if not scanner.walk(value, name, mark, place, None):
        scanner.add_value(name, value, mark, place, None)


class _Inside:
    """A variable as the container of its value."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __setitem__(self, _: None, value: Any) -> None:
        self._variable.set_raw_value(value)


def _add_train_state(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> None:
    parts = [
        Part(
            field.name,
            field.name,
            getattr(node, field.name),
            mark if mark.fixed else _TRAIN_STATE.get(field.name, _OTHER),
        )
        for field in dataclasses.fields(node)
        if field.metadata.get("pytree_node", True)
    ]
    scanner.walk_parts(parts, lambda new: dataclasses.replace(node, **new), name, container, key)
