"""Flax in a state: NNX modules, optimizers and states, Linen's TrainState and boxed parameters. Imports no Flax.

Params are parameters, batch statistics parameters with trainable=False, intermediates temporaries; all else is persistable.
NNX variables can be changed, and are: a module that was loaded is the same object.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.adapters.state import Attributes, Mark, Part, Value

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
        if isinstance(node, _graph_nodes(nnx)):
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


Path = tuple[Any, ...]
Named = list[tuple[str, Callable[[str], None]]]
"""What was found: the name of each, and what tells the scanner of a second name."""


def _add_graph(scanner: Scanner, node: Any, name: str, mark: Mark, nnx: Any) -> None:
    """The variables of a module or an optimizer, and arrays that stand there bare; what is shared has several names."""
    graph_node = _graph_nodes(nnx)
    found = list(nnx.iter_graph(node))
    nodes = dict(found)
    done: set[Path] = set()
    named: Named = []
    for path, part in found:
        if isinstance(part, nnx.Variable):
            named += _add_variable(scanner, part, _label(name, path), mark, nnx)
        elif path and not isinstance(part, graph_node) and hasattr(part, "dtype") and hasattr(part, "shape"):
            # (Rngs have every attribute that they are asked for.) A tuple is replaced where it stands in the nearest thing that
            # has attributes.
            at = next(n for n in range(len(path) - 1, -1, -1) if isinstance(nodes[path[:n]], graph_node))
            whole = path[: at + 1]
            if whole not in done:
                done.add(whole)
                scanner.walk(nodes[whole], _label(name, whole), mark, Attributes(nodes[path[:at]]), whole[-1])
    if shared := [paths for paths in nnx.find_duplicates(node) if not _is_cycle(paths)]:
        _add_second_names(name, list(nodes), shared, named)


def _graph_nodes(nnx: Any) -> tuple[type, ...]:
    kinds = (getattr(nnx, kind, None) for kind in ("Module", "Optimizer", "Pytree"))
    return tuple(kind for kind in kinds if kind is not None)


def _label(name: str, path: Path) -> str:
    return ".".join([name, *map(str, path)] if name else map(str, path))


def _is_cycle(paths: list[Path]) -> bool:
    """Whether a node holds itself, so that it would have names without end."""
    return any(one != other and other[: len(one)] == one for one in paths for other in paths)


def _add_second_names(name: str, paths: list[Path], shared: list[list[Path]], named: Named) -> None:
    """Tell the scanner what else variables are called, since they, or modules that they are in, stand at several places.

    Args:
        name: of the whole.
        paths: every path in it, of what is shared only the first.
        shared: the paths of what is shared.
        named: the variables.
    """
    first = {path: path for path in paths}
    pending = list(paths)
    while pending:
        path = pending.pop()
        for group in shared:
            for one in group:
                for other in group if path[: len(one)] == one else ():
                    made = other + path[len(one) :]
                    if made not in first:
                        first[made] = first[path]
                        pending.append(made)
    labels = [(_label(name, path), _label(name, origin)) for path, origin in first.items() if path != origin]
    told = {own for own, _ in named}
    for own, add in named:
        for label, origin in labels:
            second = label + own[len(origin) :]
            if (own == origin or own.startswith(f"{origin}.")) and second not in told:
                told.add(second)
                add(second)


def _add_variable(scanner: Scanner, variable: Any, name: str, mark: Mark, nnx: Any) -> Named:
    if isinstance(variable, nnx.Intermediate):
        return []
    if not mark.fixed:
        is_parameter = isinstance(variable, nnx.Param | nnx.BatchStat)
        mark = Mark("parameter" if is_parameter else "persistable", not isinstance(variable, nnx.BatchStat))
    known = ("nnx variable", id(variable))
    if known not in scanner.known:
        scanner.known[known] = (name, _found_in(scanner, variable, name, mark))
        return scanner.known[known][1]  # type: ignore[no-any-return]
    first, named = scanner.known[known]
    if first == name:
        return named  # type: ignore[no-any-return]
    seconds: Named = [(name + own[len(first) :], add) for own, add in named]
    for second, add in seconds:
        add(second)
    return seconds


def _found_in(scanner: Scanner, variable: Any, name: str, mark: Mark) -> Named:
    """Tell the scanner of what is in a variable."""
    items, values = len(scanner.found.items), len(scanner.found.values)
    value, place = variable.get_raw_value(), _Inside(variable)
    if not scanner.walk(value, name, mark, place, None):
        scanner.add_value(name, value, mark, place, None)
    named: Named = [
        (item.variable.name, functools.partial(scanner.add_alias, first=item.variable.name))
        for item in scanner.found.items[items:]
    ]
    for at, held in enumerate(scanner.found.values[values:], values):
        # What is given it under one name and under another has to be the same.
        one = (
            held if held.identity is not None else dataclasses.replace(held, identity=("nnx", id(variable), held.name))
        )
        scanner.found.values[at] = one
        named.append((one.name, functools.partial(_add_again, scanner, one)))
    return named


def _add_again(scanner: Scanner, value: Value, name: str) -> None:
    scanner.add(dataclasses.replace(value, name=name))


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
