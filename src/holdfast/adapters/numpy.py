"""States of NumPy programs: nested dicts and lists of arrays, plain values, random generators and objects with state_dict().

Names are the keys on the way, joined with `.`. An array is a variable and is loaded in place. The largest parts without any
array, generator or object are *values*, whole: a history that has grown since is given back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from holdfast import dtypes
from holdfast.adapters.random import is_random, random_problem, random_value, set_random
from holdfast.engine.pause import collection_paused
from holdfast.errors import UnsupportedVariableError
from holdfast.format.manifest import name_problem
from holdfast.format.values import Tagged, UnsupportedValueError, encode
from holdfast.variables import Kind, Variable

T = TypeVar("T")
ROOT_NAME = "state"  # of a state that is a single array or object


@dataclass(frozen=True, slots=True)
class Marked(Generic[T]):
    """A part of a state whose arrays are of a certain kind; `tree` is that part."""

    tree: T
    kind: Kind
    trainable: bool


def parameters(tree: T, *, trainable: bool = True) -> Marked[T]:
    """Mark the learned part of a state: its arrays are parameters.

    Args:
        tree: nested dicts and lists of arrays, an array, or an object with `state_dict()` and `load_state_dict()`.
        trainable: False for parameters that training leaves alone; they get files of their own.

    Returns:
        A mark around `tree` itself (not a copy); `.tree` gives it back.

    Example:
        >>> import numpy as np, holdfast
        >>> weights = {"fc": {"w": np.zeros((2, 3), np.float32)}}
        >>> state = {"model": holdfast.parameters(weights), "step": 0}
        >>> state["model"].tree is weights
        True
    """
    return Marked(tree, "parameter", trainable)


def temporary(tree: T) -> Marked[T]:
    """Mark a part of a state that lives for one iteration only: it is never saved, and a load leaves it alone."""
    return Marked(tree, "temporary", False)


class Item(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An array of a state.

    Attributes:
        variable: its name, kind, dtype and shape.
        array: the live array itself.
        owner: name of the object whose `state_dict()` it came from; None if it is loaded in place.
    """

    variable: Variable
    array: np.ndarray
    owner: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A part of a state that is no array.

    Attributes:
        name: as variables have them.
        value: what is saved: plain values, with `Tagged` for generators and for the arrays of objects.
        put: gives a loaded value to the state, with the arrays it refers to by name; None: it cannot be replaced.
        problem: why a loaded value would not fit; None if it does.
        is_object: whether it is an object's state.
        identity: of the object, generator, dict or list that is given the value; None if a place in a container is.
    """

    name: str
    value: Any
    put: Callable[[Any, dict[str, np.ndarray]], None] | None
    problem: Callable[[Any], str | None]
    is_object: bool = False
    identity: int | None = None


_INNER = (dict, list, tuple, Marked)


@dataclass(slots=True)
class Scan:
    """What a state holds.

    Attributes:
        items: its arrays.
        values: everything else.
    """

    items: list[Item] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def encoded(self) -> dict[str, Any]:
        """The values by name, as plain JSON objects."""
        return {value.name: encode(value.value) for value in self.values}


@dataclass(frozen=True, slots=True)
class _Mark:
    kind: Kind
    trainable: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands in its container."""

    container: Any
    key: Any

    def put(self, old: Any) -> Callable[[Any, dict[str, np.ndarray]], None] | None:
        if isinstance(self.container, tuple):
            return None

        def put(value: Any, _: dict[str, np.ndarray]) -> None:
            # In place where that is possible: the program may hold the very dict or list elsewhere too.
            if isinstance(old, dict) and type(value) is dict:
                old.clear()
                old.update(value)
            elif type(old) is list and type(value) is list:
                old[:] = value
            else:
                self.container[self.key] = value

        return put


@collection_paused()
def scan(state: Any, *, whole_is_model: bool = False) -> Scan:
    """Find every variable and value of a state.

    Args:
        state: see the module's docstring. Nothing in it is changed.
        whole_is_model: if no part is marked as parameters, whether all arrays are; else arrays in no marked part are
            persistables that are no parameters.

    Raises:
        UnsupportedVariableError: the state holds leaves that no checkpoint can hold; all of them are named.
    """
    if not isinstance(state, dict | list | tuple | Marked):
        state = {ROOT_NAME: state}
    scanner = _Scanner()
    try:
        mark = _Mark("parameter" if whole_is_model and not _has_parameters(state) else "persistable", True)
        while isinstance(state, Marked) and state.kind != "temporary":
            mark = _Mark(state.kind, state.trainable)
            state = state.tree if isinstance(state.tree, _INNER) else {ROOT_NAME: state.tree}
        if not scanner.walk(state, "", mark):
            for key, child in _children(state):
                scanner.add_value(_join("", key), child, _Place(state, key), mark)
    except RecursionError as error:
        raise UnsupportedVariableError({"state": "it contains itself, or nests too deep"}) from error
    return scanner.finish()


def _has_parameters(node: Any) -> bool:
    if isinstance(node, Marked):
        return node.kind == "parameter" or (node.kind != "temporary" and _has_parameters(node.tree))
    if isinstance(node, dict | list | tuple):
        return any(_has_parameters(child) for _, child in _children(node) if isinstance(child, _INNER))
    return False


def _children(node: Any) -> list[tuple[Any, Any]]:
    return list(node.items()) if isinstance(node, dict) else list(enumerate(node))


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


class _Scanner:
    def __init__(self) -> None:
        self._scan = Scan()
        self._problems: dict[str, str] = {}
        self._names: set[str] = set()

    def walk(self, node: Any, name: str, mark: _Mark) -> bool:
        """Collect what is below a node; False if that is a plain value as a whole, which the caller then adds."""
        if isinstance(node, Marked):
            if node.kind == "temporary":
                self._pass_over(node.tree, name)
                return True
            mark = _Mark(node.kind, node.trainable)
            if not self.walk(node.tree, name, mark):
                # A marked plain value cannot be put back into its mark; it is saved where its container can be changed.
                self.add_value(name, node.tree, _InMark(node.tree), mark)
            return True
        if isinstance(node, np.ndarray):
            self._add_array(name, node, mark, None)
            return True
        if isinstance(node, dict | list | tuple):
            children = _children(node)
            prefix = f"{name}." if name else ""
            live = [self.walk(child, f"{prefix}{key}", mark) for key, child in children]
            if not any(live):
                return False
            for (key, child), done in zip(children, live, strict=True):
                if type(key) is not str and type(key) is not int:
                    self._problems[_join(name, key)] = "keys on the way to an array must be strings or integers"
                if not done:
                    self.add_value(_join(name, key), child, _Place(node, key), mark)
            return True
        if is_random(node):
            self._add(
                Value(
                    name,
                    random_value(node),
                    lambda v, _: set_random(node, v),
                    lambda v: random_problem(node, v),
                    identity=id(node),
                ),
                mark,
            )
            return True
        if _has_state(node):
            self._add_object(name, node, mark)
            return True
        return False

    def _pass_over(self, tree: Any, name: str) -> None:
        """Temporaries may be anything: only what could be taken for a variable is noted, so that choosing it is an error.

        No method of theirs is called, and what contains itself is walked once.
        """
        pending, seen = [(tree, name)], set()
        while pending:
            node, name = pending.pop()
            if isinstance(node, Marked):
                pending.append((node.tree, name))
            elif isinstance(node, np.ndarray):
                if (dtype := dtypes.from_numpy(node.dtype)) is not None:
                    self._scan.items.append(Item(Variable(name, "temporary", False, dtype, node.shape), node))
            elif isinstance(node, dict | list | tuple) and id(node) not in seen:
                seen.add(id(node))
                children = [(child, _join(name, key)) for key, child in _children(node) if type(key) in (str, int)]
                pending += reversed(children)

    def add_value(self, name: str, value: Any, place: _Place | _InMark, mark: _Mark) -> None:
        try:
            encode(value)
        except UnsupportedValueError as error:
            self._problems[name + error.where] = _with_hint(str(error), value)
            return
        except RecursionError:
            self._problems[name] = "it contains itself, or nests too deep"
            return
        identity = id(value) if isinstance(value, dict | list) else None
        self._add(Value(name, value, place.put(value), _plain_problem, identity=identity), mark)

    def _add(self, value: Value, mark: _Mark) -> None:
        if mark.kind != "temporary":
            self._take_name(value.name)
            self._scan.values.append(value)

    def _take_name(self, name: str) -> None:
        if name in self._names:
            self._problems[name] = "two leaves have this name; rename one of the keys on the way"
        elif reason := name_problem(name):
            self._problems[name] = reason
        else:
            self._names.add(name)

    def _add_array(self, name: str, array: np.ndarray, mark: _Mark, owner: str | None) -> None:
        dtype = dtypes.from_numpy(array.dtype)
        self._take_name(name)
        if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
            self._problems[name] = "a masked array would lose its mask; save .data and .mask"
        elif dtype is None:
            self._problems[name] = (
                f"dtype {array.dtype} is not one that the format holds ({', '.join(dtypes.ITEMSIZE)})"
            )
        else:
            if type(array) is not np.ndarray:
                array = array.view(np.ndarray)  # the same memory; a matrix, for one, cannot be made flat
            self._scan.items.append(Item(Variable(name, mark.kind, mark.trainable, dtype, array.shape), array, owner))

    def _add_object(self, name: str, node: Any, mark: _Mark) -> None:
        def refer(item: Any, where: str) -> Any:
            """The object's state with every array replaced by a reference to its variable."""
            if isinstance(item, np.ndarray):
                self._add_array(where, item, mark, name)
                return Tagged("$variable", where)
            if isinstance(item, dict):
                return {key: refer(child, _join(where, key)) for key, child in item.items()}
            if type(item) is list or type(item) is tuple:
                return type(item)(refer(child, _join(where, i)) for i, child in enumerate(item))
            return item

        def put(value: Any, arrays: dict[str, np.ndarray]) -> None:
            try:
                node.load_state_dict(_with_arrays(value, arrays))
            except Exception as error:
                error.add_note(f"while {name!r} was given its state by load_state_dict()")
                raise

        held = node.state_dict()
        if not isinstance(held, dict):
            self._problems[name] = f"its state_dict() must return a dict, not {type(held).__name__}"
            return
        tree = refer(held, name)
        try:
            encode(tree)
        except UnsupportedValueError as error:
            self._problems[name + error.where] = f"in a state_dict(): {error}"
            return
        self._add(Value(name, tree, put, _object_problem, is_object=True, identity=id(node)), mark)

    def finish(self) -> Scan:
        if self._problems:
            raise UnsupportedVariableError(self._problems)
        return self._scan


@dataclass(frozen=True, slots=True)
class _InMark:
    """The place of a plain value right inside a mark or an object: only a dict or list there can be refilled."""

    value: Any

    def put(self, old: Any) -> Callable[[Any, dict[str, np.ndarray]], None] | None:
        return _Place([old], 0).put(old) if isinstance(old, dict | list) else None


def _has_state(node: Any) -> bool:
    methods = (getattr(node, "state_dict", None), getattr(node, "load_state_dict", None))
    return all(callable(m) for m in methods) and not isinstance(node, type)


def _with_hint(reason: str, value: Any) -> str:
    return f"{reason}; numpy.asarray() makes it an array" if hasattr(value, "__array__") else reason


def _plain_problem(value: Any) -> str | None:
    tag = next(_tags(value), None)
    return None if tag is None else f"the checkpoint has {_MEANINGS[tag]} there, the target a plain value"


def _object_problem(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "the checkpoint has a plain value there, the target an object"
    if "$random" in _tags(value):
        return "the checkpoint has the state of a random number generator in it, which no state_dict() can hold"
    return None


_MEANINGS = {"$random": "the state of a random number generator", "$variable": "a variable"}


def _tags(value: Any) -> Iterator[str]:
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


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A loaded value with every reference replaced by the array."""
    if isinstance(value, Tagged) and value.tag == "$variable":
        return arrays[value.value]
    if isinstance(value, dict):
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if isinstance(value, tuple):
        return tuple(_with_arrays(item, arrays) for item in value)
    return value
