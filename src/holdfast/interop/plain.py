"""Values of a checkpoint for files that know nothing but Python's plain values. Pure; knows no format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from holdfast.format.values import Tagged


class NotPlainError(TypeError):
    """A value has a part that is none of Python's; the message says which."""


def plain(
    value: Any, variables: Mapping[str, Any] | None = None, array: Callable[[np.ndarray], Any] | None = None
) -> Any:
    """A value of a checkpoint, new, with nothing but Python's own types in it, but for what stands for arrays.

    Scalars of NumPy become numbers of Python.

    Args:
        value: as `format.values` decodes it.
        variables: what stands for a variable that is referred to, by its name; None to refuse references.
        array: what stands for a small array; None for the array itself.

    Raises:
        NotPlainError: it has the state of a generator, or a reference that is refused, in it.
    """

    def made(part: Any) -> Any:
        if isinstance(part, dict):
            return {made(key): made(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(map(made, part))
        if isinstance(part, Tagged):
            if part.tag != "$variable":
                raise NotPlainError("it has the state of a random number generator in it")
            if variables is None:
                raise NotPlainError(f"it refers to the variable {part.value!r}")
            return variables[part.value]
        if isinstance(part, np.generic):
            number = part.item()
            return number if isinstance(number, bool | int | float | complex) else float(number)
        return array(part) if array is not None and isinstance(part, np.ndarray) else part

    return made(value)


def references(value: Any) -> list[str]:
    """Names of the variables that a value refers to."""
    if isinstance(value, Tagged):
        return [value.value] if value.tag == "$variable" else []
    if isinstance(value, dict):
        value = list(value.values())
    return [name for part in value for name in references(part)] if isinstance(value, list | tuple) else []


def renamed(value: Any, name_of: Callable[[str], str]) -> Any:
    """A value whose references go to variables of other names."""
    if isinstance(value, Tagged):
        return Tagged(value.tag, name_of(value.value)) if value.tag == "$variable" else value
    if isinstance(value, dict):
        return {key: renamed(item, name_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(renamed(item, name_of) for item in value)
    return value
