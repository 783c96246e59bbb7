"""What a scan of a state finds: arrays, values, and how both are given back. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from holdfast import dtypes
from holdfast.engine.devices import AnyArray, Remote
from holdfast.errors import UnsupportedVariableError
from holdfast.format.values import Tagged, encode
from holdfast.variables import Kind, Variable

T = TypeVar("T")
Arrays = dict[str, np.ndarray]
Rename = Callable[[str], str]


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


def join(name: str, key: Any) -> str:
    """The name of what stands under a key."""
    return f"{name}.{key}" if name else str(key)


@dataclass(frozen=True, slots=True)
class Mark:
    """What arrays are at some place of a state.

    Attributes:
        kind: as of variables.
        trainable: as of variables.
        fixed: somebody has said so; else what the framework knows of its own arrays counts.
    """

    kind: Kind
    trainable: bool
    fixed: bool = False


class Part(NamedTuple):
    """A part of something that cannot be changed.

    Attributes:
        label: its name there; empty if it has the name of the whole.
        key: what it is called when the whole is made anew.
        value: the part itself.
        mark: what its arrays are.
    """

    label: str
    key: Any
    value: Any
    mark: Mark


class Access(Protocol):
    """The way to an array that is not in this process's memory, or is not to be written there.

    One that is a `Remote` too is saved and loaded by its device, piece by piece; else all values are fetched at once. One with a
    method `begin` is told so before any is fetched: then many copies run side by side.

    Attributes:
        slot: the place that `put` replaces, as something to compare; None if it writes into the array itself.
    """

    @property
    def slot(self) -> tuple[int, Any] | None: ...  # noqa: D102 - above

    def fetch(self) -> np.ndarray:
        """The values of now, in host memory."""
        ...

    def put(self, array: np.ndarray) -> None:
        """Give the state new values; the array, of the variable's dtype and shape, may be kept."""
        ...


class Leaf(NamedTuple):
    """An array of a framework, as an adapter describes it.

    Attributes:
        dtype: the format's name.
        shape: its shape.
        array: its own memory; None if that cannot be read here.
        access: None if `array` can be written too.
        immutable: whether nobody can change the values while `array` is held.
    """

    dtype: str
    shape: tuple[int, ...]
    array: np.ndarray | None
    access: Access | None = None
    immutable: bool = False


class Item(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An array of a state.

    Attributes:
        variable: its name, kind, dtype and shape.
        array: its own memory; a placeholder without values if it is `remote`.
        owner: name of the value (an object or an optimizer) that refers to it, and may make it only later.
        access: how it is given new values; None: they are written into `array`.
        in_place: False: its owner is given a new array.
        immutable: whether nobody can change the values while `array` is held.
        remote: whether the values have to be fetched through `access`.
        aliases: further names in the state of the very same array.
    """

    variable: Variable
    array: np.ndarray
    owner: str | None = None
    access: Access | None = None
    in_place: bool = True
    immutable: bool = False
    remote: bool = False
    aliases: tuple[str, ...] = ()

    def fetched(self) -> Item:
        """The same, with its values in host memory.

        Raises:
            ValueError: it has none; the message is the reason.
        """
        if not self.remote or self.access is None:
            return self
        # A copy that is nobody else's: it cannot change any more.
        return msgspec.structs.replace(self, array=self.access.fetch(), immutable=True, remote=False)

    @property
    def source(self) -> AnyArray:
        """What its values are read from: its own memory, or what stands for that on a device."""
        access: object = self.access
        return access if self.remote and isinstance(access, Remote) else self.array

    def also(self, aliases: tuple[str, ...]) -> Item:
        """The same, known by further names."""
        return msgspec.structs.replace(self, aliases=aliases)

    @staticmethod
    def of(variable: Variable, leaf: Leaf, owner: str | None = None, *, in_place: bool = True) -> Item:
        """The item for a framework's array."""
        array = leaf.array
        if array is None:
            array = np.broadcast_to(np.zeros((), dtypes.to_numpy(leaf.dtype)), leaf.shape)
        return Item(variable, array, owner, leaf.access, in_place, leaf.immutable, leaf.array is None)


def fetched(items: Iterable[Item]) -> list[Item]:
    """The items with all values in host memory, but for those that a device copies piece by piece.

    Raises:
        UnsupportedVariableError: arrays have no values; all of them are named.
    """
    items = list(items)
    for item in items:
        if item.remote and (begin := getattr(item.access, "begin", None)) is not None:
            begin()
    found, problems = [], {}
    for item in items:
        try:
            found.append(item.fetched() if item.remote and not isinstance(item.source, Remote) else item)
        except ValueError as error:
            problems[item.variable.name] = str(error)
    if problems:
        raise UnsupportedVariableError(problems)
    return found


class Beside(NamedTuple):
    """What is known of an array that an optimizer makes only later.

    Attributes:
        parameter: of the target, that it belongs to.
        made: what it is going to be; None if that is seen only when it is made.
    """

    parameter: Variable
    made: Variable | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A part of a state that is no array.

    Attributes:
        name: as variables have them.
        value: what is saved: plain values, with `Tagged` for generators and for the arrays of objects.
        put: gives a loaded value to the state, with the arrays it refers to by name.
        problem: why a loaded value would not fit; None if it does.
        is_object: whether it refers to arrays, which it may make only later.
        identity: of the object, generator, dict, list or place that is given the value; None if there is nothing to compare.
        replaces: whether arrays that the loaded value does not refer to are dropped, rather than missed.
        localize: a loaded value with the names of its parameters renamed as variables are, and the names in the target of
            the variables that it refers to.
        beside: what is known of a localized value's variables that the target has not made yet.
        absent: why there is no value at present; it can be loaded all the same.
    """

    name: str
    value: Any
    put: Callable[[Any, Arrays], None]
    problem: Callable[[Any], str | None]
    is_object: bool = False
    identity: Hashable | None = None
    replaces: bool = False
    localize: Callable[[Any, Rename], tuple[Any, dict[str, str]]] | None = None
    beside: Callable[[Any], dict[str, Beside]] | None = None
    absent: str | None = None


class Finished(Protocol):
    """What has something to do once everything has its new value."""

    def finish(self) -> None:
        """Do it."""
        ...


class Changed:
    """Arrays that a load writes to behind their framework's back, which is told of it afterwards."""

    __slots__ = ("_tell", "arrays")

    def __init__(self, tell: Callable[[list[Any]], None]) -> None:
        self._tell = tell
        self.arrays: list[Any] = []

    def finish(self) -> None:
        """Tell it."""
        self._tell(self.arrays)


class Rebuilt:
    """Something that cannot be changed, such as a tuple: it is made anew where a part of it was replaced.

    Attributes:
        is_fixed: whether dicts and lists in it are made anew too.
    """

    __slots__ = ("_container", "_key", "_make", "_new", "is_fixed")

    def __init__(
        self, make: Callable[[dict[Any, Any]], Any], container: Any, key: Any, *, is_fixed: bool = False
    ) -> None:
        self._make, self._container, self._key, self.is_fixed = make, container, key, is_fixed
        self._new: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self._new[key] = value

    @property
    def place(self) -> tuple[int, Any] | None:
        """See `place`."""
        return place(self._container, self._key)

    def finish(self) -> None:
        """Put the new one where the old one stood."""
        if self._new:
            self._container[self._key] = self._make(self._new)


def place(container: Any, key: Any) -> tuple[int, Any] | None:
    """`container[key]` as something to compare: what stands at two places of a state can take one value only.

    None for what stands nowhere else: the whole state, and what an adapter compares itself.
    """
    if isinstance(container, dict | list):
        return id(container), key
    if isinstance(container, Attributes):
        return id(container.owner), key
    if isinstance(container, Rebuilt) and (whole := container.place) is not None:
        return whole[0], (whole[1], key)
    return None


class Attributes:
    """An object as a container of its attributes."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.owner, name, value)


@dataclass(slots=True)
class Scan:
    """What a state holds.

    Attributes:
        state: the state; after a load, what has come of it.
        replaced: whether that is another object than the one scanned.
        items: its arrays.
        values: everything else.
        aliases: second names of arrays → the names under which they are among the items.
        rebuilt: what may have to be made anew, containers before what is in them; and what else is to be done after a load.
        copies: names of dicts that are a `state_dict()`: what is loaded into them, the object that they are of does not know.
    """

    state: Any
    replaced: bool = False
    items: list[Item] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    rebuilt: list[Finished] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def absent(self) -> dict[str, str]:
        """Why values are not there at present, by name."""
        return {value.name: value.absent for value in self.values if value.absent is not None}

    def encoded(self) -> dict[str, Any]:
        """The values by name, as plain JSON objects; a second name of an array refers to it.

        Raises:
            UnsupportedVariableError: some have no value at present; all of them are named.
        """
        if absent := self.absent():
            raise UnsupportedVariableError(absent)
        tied = {name: encode(Tagged("$variable", first)) for name, first in self.aliases.items()}
        return {value.name: encode(value.value) for value in self.values} | tied

    def __setitem__(self, _: None, state: Any) -> None:
        self.state, self.replaced = state, True

    def finish(self) -> None:
        """Make anew what cannot be changed, once everything in it has its new value."""
        for rebuilt in reversed(self.rebuilt):
            rebuilt.finish()
