"""States as trees: nested dicts, lists and tuples of arrays, plain values, generators and objects. Knows no framework.

Names are the keys on the way, joined with `.`. An array is a variable and is loaded in place where that is possible. The
largest parts without any array, generator or object are *values*, whole: a history that has grown since is given back as it
was. What can be changed is changed; what cannot (a tuple, a JAX array) is replaced where it stands in what can.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.adapters import frameworks
from holdfast.adapters.numpy import array_problem, plain_array
from holdfast.adapters.objects import add_object, has_state, is_state_dict, references, tags
from holdfast.adapters.random import is_random, random_problem, random_value, set_random
from holdfast.adapters.state import Arrays, Changed, Item, Leaf, Mark, Marked, Part, Rebuilt, Scan, Value, join, place
from holdfast.engine.pause import collection_paused
from holdfast.errors import UnsupportedVariableError
from holdfast.format.manifest import name_problem
from holdfast.format.values import UnsupportedValueError, encode
from holdfast.variables import Kind, Variable

ROOT_NAME = "state"  # of a state that is a single array or object
_INNER = (dict, list, tuple, Marked)


@collection_paused()
def scan(state: Any, *, whole_is_model: bool = False, is_target: bool = False) -> Scan:
    """Find every variable and value of a state.

    Args:
        state: see the module's docstring. Nothing in it is changed.
        whole_is_model: if no part is marked as parameters or is a framework's model, whether all arrays are parameters;
            else arrays in no such part are persistables that are no parameters.
        is_target: whether the state is going to be loaded into: what it holds now need not be had.

    Raises:
        UnsupportedVariableError: the state holds leaves that no checkpoint can hold; all of them are named.
    """
    scanner = Scanner(state, is_target=is_target)
    try:
        kind: Kind = "parameter" if whole_is_model and not scanner.has_parameters(state) else "persistable"
        scanner.walk_root(state, Mark(kind, True))
        return scanner.finish()
    except RecursionError as error:
        raise scanner.refusal({"state": "it contains itself, or nests too deep"}) from error


class Scanner:
    """Collects what a state holds; adapters tell it what is in their frameworks' objects.

    Attributes:
        found: what was found so far.
        is_target: see `scan`.
        known: what adapters remember of this state, such as the names of parameters.
    """

    def __init__(self, state: Any, *, is_target: bool = False) -> None:
        self.found = Scan(state)
        self.is_target = is_target
        self.known: dict[Hashable, Any] = {}
        self._frameworks = frameworks.loaded()
        self._problems: dict[str, str] = {}
        self._names: set[str] = set()
        self._later: list[Callable[[], None]] = []

    def has_parameters(self, node: Any) -> bool:
        """Whether a part is marked as parameters, or is a model."""
        if isinstance(node, Marked):
            return node.kind == "parameter" or (node.kind != "temporary" and self.has_parameters(node.tree))
        if isinstance(node, dict):
            return any(self.has_parameters(child) for child in node.values() if self._is_inner(child))
        if isinstance(node, list | tuple):
            return any(self.has_parameters(child) for child in node if self._is_inner(child))
        return any(framework.is_model(node) for framework in self._frameworks)

    def _is_inner(self, child: Any) -> bool:
        return isinstance(child, _INNER) or (bool(self._frameworks) and not isinstance(child, np.ndarray))

    def walk_root(self, state: Any, mark: Mark) -> None:
        """Collect a whole state."""
        container: Any = self.found
        while isinstance(state, Marked) and state.kind != "temporary":
            mark, container = Mark(state.kind, state.trainable, True), self._rebuilt_mark(state, container, None)
            state = state.tree
        is_single = not isinstance(state, _INNER)
        if is_single and any(f.visit(self, state, "", mark, container, None) for f in self._frameworks):
            return
        if not self.walk(state, ROOT_NAME if is_single else "", mark, container, None):
            if isinstance(state, dict | list):
                for key, child in state.items() if isinstance(state, dict) else enumerate(state):
                    self.add_value(join("", key), child, mark, state, key)
            elif isinstance(state, tuple):
                parts = self._rebuilt(state, container, None)
                for key, child in enumerate(state):
                    self.add_value(join("", key), child, mark, parts, key)
            else:
                self.add_value(ROOT_NAME, state, mark, container, None)

    def walk(self, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:
        """Collect what is below a node; False if that is a plain value as a whole, which the caller then adds.

        Args:
            node: what stands at `container[key]`.
            name: of that place.
            mark: what is known of arrays there.
            container: what can be given something else to hold instead: `container[key] = …`.
            key: see `container`.
        """
        if isinstance(node, np.ndarray):
            self.add_array(name, node, mark)
            return True
        if isinstance(node, dict):
            whole = self._rebuilt_copy(node, container, key) if _is_fixed(container) else node
            if self.is_target and is_state_dict(node):
                self.found.copies.append(name)
            prefix = f"{name}." if name else ""
            pairs = list(node.items())
            live = [self.walk(child, f"{prefix}{at}", mark, whole, at) for at, child in pairs]
            return any(live) and self._add_rest(name, pairs, live, mark, whole)
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            fields: Any = node
            if not any(framework.visit(self, node, name, mark, container, key) for framework in self._frameworks):
                parts = [Part(label, label, child, mark) for label, child in zip(fields._fields, node, strict=True)]
                self.walk_parts(parts, lambda new: fields._replace(**new), name, container, key)
            return True
        if isinstance(node, list | tuple):
            holder: Any = node
            if isinstance(node, tuple):
                holder = self._rebuilt(node, container, key)
            elif _is_fixed(container):
                holder = self._rebuilt_copy(node, container, key)
            prefix = f"{name}." if name else ""
            pairs = list(enumerate(node))
            live = [self.walk(child, f"{prefix}{at}", mark, holder, at) for at, child in pairs]
            return any(live) and self._add_rest(name, pairs, live, mark, holder)
        return self._walk_other(node, name, mark, container, key)

    def _walk_other(self, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:
        if isinstance(node, Marked):
            if node.kind == "temporary":
                self._pass_over(node.tree, name)
                return True
            mark, container = Mark(node.kind, node.trainable, True), self._rebuilt_mark(node, container, key)
            if not self.walk(node.tree, name, mark, container, None):
                self.add_value(name, node.tree, mark, container, None)
            return True
        if is_random(node):
            value = Value(
                name,
                random_value(node),
                lambda v, _: set_random(node, v),
                lambda v: random_problem(node, v),
                identity=id(node),
            )
            self.add(value)
            return True
        if any(framework.visit(self, node, name, mark, container, key) for framework in self._frameworks):
            return True
        if has_state(node):
            add_object(self, name, node, mark, self._frameworks)
            return True
        return False

    def walk_parts(
        self, parts: Iterable[Part], make: Callable[[dict[Any, Any]], Any], name: str, container: Any, key: Any
    ) -> None:
        """Collect the parts of something that cannot be changed. Dicts and lists in it are made anew with it.

        So whoever holds the old one, as functions on pytrees may, has it whole as it was.

        Args:
            parts: what it consists of.
            make: the same with some parts replaced, by key.
            name, container, key: see `walk`.
        """
        rebuilt = self.rebuilt(make, container, key)
        for part in parts:
            label = join(name, part.label) if part.label else name
            if not self.walk(part.value, label, part.mark, rebuilt, part.key):
                self.add_value(label, part.value, part.mark, rebuilt, part.key)

    def rebuilt(self, make: Callable[[dict[Any, Any]], Any], container: Any, key: Any) -> Rebuilt:
        """What is made anew with everything in it: see `walk_parts`."""
        self.found.rebuilt.append(rebuilt := Rebuilt(make, container, key, is_fixed=True))
        return rebuilt

    def _rebuilt(self, node: tuple[Any, ...], container: Any, key: Any) -> Rebuilt:
        def make(new: dict[Any, Any]) -> tuple[Any, ...]:
            return tuple(new.get(i, child) for i, child in enumerate(node))

        self.found.rebuilt.append(rebuilt := Rebuilt(make, container, key, is_fixed=_is_fixed(container)))
        return rebuilt

    def _rebuilt_copy(self, node: dict[Any, Any] | list[Any], container: Any, key: Any) -> Rebuilt:
        def make(new: dict[Any, Any]) -> Any:
            made: Any = copy.copy(node)
            for at, child in new.items():
                made[at] = child
            return made

        return self.rebuilt(make, container, key)

    def _rebuilt_mark(self, mark: Marked[Any], container: Any, key: Any) -> Rebuilt:
        rebuilt = Rebuilt(
            lambda new: Marked(new[None], mark.kind, mark.trainable), container, key, is_fixed=_is_fixed(container)
        )
        self.found.rebuilt.append(rebuilt)
        return rebuilt

    def _add_rest(self, name: str, pairs: list[tuple[Any, Any]], live: list[bool], mark: Mark, container: Any) -> bool:
        """The plain values beside arrays, once it is known that there are any."""
        for (key, child), done in zip(pairs, live, strict=True):
            if type(key) is not str and type(key) is not int:
                self._problems[join(name, key)] = "keys on the way to an array must be strings or integers"
            if not done:
                self.add_value(join(name, key), child, mark, container, key)
        return True

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
                    self.found.items.append(Item(Variable(name, "temporary", False, dtype, node.shape), node))
            elif isinstance(node, dict | list | tuple) and id(node) not in seen:
                seen.add(id(node))
                pairs = node.items() if isinstance(node, dict) else enumerate(node)
                pending += reversed([(child, join(name, key)) for key, child in pairs if type(key) in (str, int)])

    def add_value(self, name: str, value: Any, mark: Mark, container: Any, key: Any) -> None:
        """A plain value, which stands at `container[key]`."""
        if mark.kind == "temporary":
            return
        if not name:  # a key of the whole state; an adapter asked about an array without a name has not said a word
            self._take_name(name)
            return
        try:
            encode(value)
        except UnsupportedValueError as error:
            self._problems[name + error.where] = _with_hint(str(error), value)
            return
        except RecursionError:
            self._problems[name] = "it contains itself, or nests too deep"
            return

        def put(new: Any, _: Arrays) -> None:
            # In place where that is possible: the program may hold the very dict or list elsewhere too.
            if _is_fixed(container):
                container[key] = new
            elif isinstance(value, dict) and type(new) is dict:
                value.clear()
                value.update(new)
            elif type(value) is list and type(new) is list:
                value[:] = new
            else:
                container[key] = new

        is_refilled = isinstance(value, dict | list) and not _is_fixed(container)
        identity = id(value) if is_refilled else place(container, key)
        self.add(Value(name, value, put, _plain_problem, identity=identity))

    def add(self, value: Value) -> None:
        """A value."""
        self._take_name(value.name)
        if value.is_object and value.identity is not None and (refs := references(value.value)):
            first, held = self.known.setdefault(("object", value.identity), (value.name, refs))
            if held != refs:
                self.refuse(
                    value.name, f"is the same object as {first!r}, and its arrays would be saved twice; leave one out"
                )
        self.found.values.append(value)

    def add_array(
        self, name: str, array: np.ndarray, mark: Mark, owner: str | None = None, *, in_place: bool = True
    ) -> None:
        """A NumPy array."""
        self._take_name(name)
        dtype = dtypes.from_numpy(array.dtype)
        if dtype is None or type(array) is not np.ndarray:
            if problem := array_problem(array):
                self._problems[name] = problem
                return
            array = plain_array(array)
        self.found.items.append(
            Item(Variable(name, mark.kind, mark.trainable, dtype, array.shape), array, owner, None, in_place)  # type: ignore[arg-type]
        )

    def add_leaf(
        self, name: str, leaf: Leaf | str, mark: Mark, owner: str | None = None, *, in_place: bool = True
    ) -> None:
        """A framework's array, or why no checkpoint can hold it."""
        self._take_name(name)
        if isinstance(leaf, str):
            self._problems[name] = leaf
            return
        variable = Variable(name, mark.kind, mark.trainable, leaf.dtype, leaf.shape)
        self.found.items.append(Item.of(variable, leaf, owner, in_place=in_place))

    def add_alias(self, name: str, first: str) -> None:
        """A second name of an array that has been added already."""
        self._take_name(name)
        self.found.aliases[name] = first

    def note_change(self, array: Any, tell: Callable[[list[Any]], None]) -> None:
        """Have `tell` called, after a load, with the arrays that it may have changed in place: autograd counts changes."""
        changed = self.known.get(("changed", tell))
        if changed is None:
            changed = self.known["changed", tell] = Changed(tell)
            self.found.rebuilt.append(changed)
        changed.arrays.append(array)

    def refuse(self, name: str, reason: str) -> None:
        """Something that no checkpoint can hold."""
        self._problems[name or ROOT_NAME] = reason

    def later(self, visit: Callable[[], None]) -> None:
        """Call this when all else has been walked: optimizers need the names of parameters, wherever these are."""
        self._later.append(visit)

    def _take_name(self, name: str) -> None:
        if name in self._names:
            self._problems[name] = "two leaves have this name; rename one of the keys on the way"
        elif reason := name_problem(name):
            self._problems[name] = reason
        else:
            self._names.add(name)

    def finish(self) -> Scan:
        """What was found.

        Raises:
            UnsupportedVariableError: there were problems.
        """
        while self._later:
            self._later.pop(0)()
        if self._problems:
            raise self.refusal(self._problems)
        if self.found.aliases:
            self._note_aliases()
        return self.found

    def refusal(self, problems: dict[str, str]) -> UnsupportedVariableError:
        """The error for a state with leaves that no checkpoint can hold, or be loaded into."""
        if self.is_target:
            return UnsupportedVariableError(problems, "nothing can be loaded into this state; it is unchanged")
        return UnsupportedVariableError(problems)

    def _note_aliases(self) -> None:
        names: dict[str, list[str]] = {}
        for alias, first in self.found.aliases.items():
            names.setdefault(first, []).append(alias)
        for i, item in enumerate(self.found.items):
            if item.variable.name in names:
                self.found.items[i] = item.also(tuple(names[item.variable.name]))


def _is_fixed(container: Any) -> bool:
    return isinstance(container, Rebuilt) and container.is_fixed


def _with_hint(reason: str, value: Any) -> str:
    if hasattr(value, "__array__"):
        return f"{reason}; numpy.asarray() makes it an array"
    if dataclasses.is_dataclass(value) and "jax" in sys.modules:
        return f"{reason}; jax.tree_util.register_dataclass() makes its type a tree"
    return reason


def _plain_problem(value: Any) -> str | None:
    tag = next(tags(value), None)
    return None if tag is None else f"the checkpoint has {_MEANINGS[tag]} there, the target a plain value"


_MEANINGS = {"$random": "the state of a random number generator", "$variable": "a variable"}
