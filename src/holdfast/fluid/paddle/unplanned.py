"""Names of Paddle that Holdfast does not plan: they can be imported and passed on; calling one says what it is.

Old programs import such names at their top and use them in branches that never run (parameter servers, for one).
"""

from __future__ import annotations

import importlib.machinery
import types
from typing import Any, NoReturn


class Unplanned:
    """Stands for one name, or for whatever would come from it: `name.attribute` is an Unplanned, too.

    Args:
        name: as the program wrote it, such as `paddle.fluid.contrib.Trainer`.
        why: half a sentence: what it is, and what is planned instead.
    """

    def __init__(self, name: str, why: str) -> None:
        self._name = name
        self._why = why

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(f"{self._name} is not provided by Holdfast's Fluid front end: {self._why}")

    def __call__(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Refuse.

        Raises:
            NotImplementedError: always; it says what the name is.
        """
        self._refuse()

    def __mro_entries__(self, _bases: tuple[object, ...]) -> NoReturn:
        self._refuse()  # `class Mine(name)`

    def __getattr__(self, attribute: str) -> Unplanned:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Unplanned(f"{self._name}.{attribute}", self._why)

    def __repr__(self) -> str:
        return f"<{self._name}: not provided>"


class UnplannedModule(types.ModuleType):
    """A module, and a package of any depth, all of whose names are Unplanned."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, f"Not provided by Holdfast's Fluid front end: {why}")
        self._why = why
        self.__path__: list[str] = []
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)

    def __getattr__(self, attribute: str) -> Unplanned:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Unplanned(f"{self.__name__}.{attribute}", self._why)
