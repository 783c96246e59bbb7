"""Objects with `state_dict()` and `load_state_dict()`: one value each, which refers to their arrays by name.

An object is given back all that it had when it was saved, also arrays that a fresh one does not have yet.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.adapters.frameworks import Framework
from holdfast.adapters.state import Arrays, Mark, Value
from holdfast.format.values import Tagged, UnsupportedValueError, encode

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner


def has_state(node: Any) -> bool:
    """Whether this is such an object."""
    methods = (getattr(node, "state_dict", None), getattr(node, "load_state_dict", None))
    return all(callable(m) for m in methods) and not isinstance(node, type)


def is_state_dict(node: dict[Any, Any]) -> bool:
    """Whether a dict is what the `state_dict()` of an optimizer or a scheduler of PyTorch returns."""
    return node.keys() == {"state", "param_groups"} or {"last_epoch", "_step_count"} <= node.keys()


def add_object(
    scanner: Scanner,
    name: str,
    node: Any,
    mark: Mark,
    frameworks: Sequence[Framework],
    *,
    replaces: bool = False,
    problem: Callable[[dict[Any, Any]], str | None] | None = None,
) -> None:
    """Tell the scanner what an object holds.

    Args:
        scanner: is told.
        name: of the object.
        node: the object.
        mark: what its arrays are.
        frameworks: whose arrays it may hold.
        replaces: as in `Value`.
        problem: why a loaded state would not fit, beyond what `object_problem` finds.
    """
    held = node.state_dict()
    if not isinstance(held, dict):
        scanner.refuse(name, f"its state_dict() must return a dict, not {type(held).__name__}")
        return
    references = References(scanner, name, mark, frameworks)
    tree = references.made_of(held)
    try:
        encode(tree)
    except UnsupportedValueError as error:
        scanner.refuse(name + error.where, f"in a state_dict(): {error}")
        return
    owner = next((f for f in frameworks if f.owns(node)), None)

    def put(value: Any, arrays: Arrays) -> None:
        try:
            node.load_state_dict(references.resolved(value, arrays, owner, held))
        except Exception as error:
            error.add_note(f"while {name!r} was given its state by load_state_dict()")
            raise

    def misfit(value: Any) -> str | None:
        return object_problem(value) or (problem(value) if problem is not None else None)

    scanner.add(Value(name, tree, put, misfit, is_object=True, identity=id(node), replaces=replaces))


class References:
    """The arrays of an object's state, and references to them in their place."""

    def __init__(self, scanner: Scanner, name: str, mark: Mark, frameworks: Sequence[Framework]) -> None:
        self._scanner, self._name, self._mark, self._frameworks = scanner, name, mark, frameworks
        self._native: dict[str, Callable[[np.ndarray], Any]] = {}
        self._kinds: set[Callable[[np.ndarray], Any] | None] = set()  # of arrays that it has; None is NumPy's

    def made_of(self, item: Any, where: str | None = None) -> Any:
        """The object's state with every array replaced by a reference to its variable, of which the scanner is told."""
        where = self._name if where is None else where
        if isinstance(item, dict):
            return {key: self.made_of(child, f"{where}.{key}") for key, child in item.items()}
        if type(item) is list or type(item) is tuple:
            return type(item)(self.made_of(child, f"{where}.{i}") for i, child in enumerate(item))
        if isinstance(item, np.ndarray):
            self._scanner.add_array(where, item, self._mark, self._name, in_place=False)
            self._kinds.add(None)
            return Tagged("$variable", where)
        for framework in self._frameworks:
            if (leaf := framework.leaf(item)) is not None:
                self._scanner.add_leaf(where, leaf, self._mark, self._name, in_place=False)
                self._native[where] = framework.native
                self._kinds.add(framework.native)
                return Tagged("$variable", where)
        return item

    def resolved(self, value: Any, arrays: Arrays, owner: Framework | None, like: Any = None) -> Any:
        """A loaded state with every reference replaced by the array, as one of the framework that it was of before.

        Args:
            value: the loaded state.
            arrays: what it refers to.
            owner: the framework whose arrays the object expects where it had none before; None if its arrays alone say so.
            like: the state before: a dict of another type, such as a `Counter`, stays one.
        """
        if isinstance(value, Tagged) and value.tag == "$variable":
            array = arrays[value.value]
            usual = next(iter(self._kinds)) if len(self._kinds) == 1 else None  # what is new is like all else
            native = self._native.get(value.value, owner.native if owner else usual)
            return native(array) if native else array
        if isinstance(value, dict):
            known = like if isinstance(like, dict) else {}
            made = {key: self.resolved(item, arrays, owner, known.get(key)) for key, item in value.items()}
            return made if type(known) is dict else _filled(known, made)
        if type(value) is list or type(value) is tuple:
            parts = like if isinstance(like, list | tuple) else ()
            return type(value)(
                self.resolved(item, arrays, owner, part)
                for item, part in itertools.zip_longest(value, parts[: len(value)])
            )
        return value


def _filled(like: dict[Any, Any], content: dict[Any, Any]) -> dict[Any, Any]:
    made = copy.copy(like)
    made.clear()
    made.update(content)
    return made


def object_problem(value: Any) -> str | None:
    """Why a loaded value cannot be an object's state; None if it can."""
    if not isinstance(value, dict):
        return "the checkpoint has a plain value there, the target an object"
    if "$random" in tags(value):
        return "the checkpoint has the state of a random number generator in it, which no state_dict() can hold"
    return None


def tags(value: Any) -> Iterator[str]:
    """The tags of every `Tagged` in a loaded value; keys cannot be any."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, Tagged):
            yield node.tag
        elif isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list | tuple):
            pending += node


def references(value: Any) -> list[str]:
    """Names of the variables that a loaded value refers to."""
    if isinstance(value, Tagged):
        return [value.value] if value.tag == "$variable" and isinstance(value.value, str) else []
    if isinstance(value, dict):
        return [name for item in value.values() for name in references(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in references(item)]
    return []
