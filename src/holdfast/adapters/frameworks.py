"""Which frameworks' objects may be in a state: those whose modules the program has loaded itself. Imports none of them."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.adapters.state import Leaf, Mark

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner


class Framework(Protocol):
    """What each framework's adapter (a module) has to say of its objects."""

    def visit(self, scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:
        """Tell the scanner what an object of the framework holds; False if it is none of the framework's.

        Args:
            scanner: is told.
            node: the object, anything but a dict, list or tuple.
            name: of the place it has in the state; empty if it is the state itself.
            mark: what is known of arrays there.
            container: where it can be replaced: `container[key] = …`.
            key: see `container`.
        """
        ...

    def is_model(self, node: Any) -> bool:
        """Whether this knows by itself which of its arrays are parameters."""
        ...

    def leaf(self, node: Any) -> Leaf | str | None:
        """The array that an object's `state_dict()` holds; the reason if no checkpoint can hold it; None if it is no array."""
        ...

    def native(self, array: np.ndarray) -> Any:
        """A loaded array as one of the framework, for an object's `load_state_dict()`."""
        ...

    def owns(self, node: Any) -> bool:
        """Whether an object with `state_dict()` expects arrays of this framework."""
        ...


def loaded() -> list[Framework]:
    """The adapters of the frameworks that the program uses."""
    return [
        importlib.import_module(f"holdfast.adapters.{name}")
        for name in ("torch", "jax", "paddle")
        # A module that only goes by the name, as ours does for old Fluid scripts, is not the framework.
        if getattr(sys.modules.get(name), "__name__", None) == name
    ]
