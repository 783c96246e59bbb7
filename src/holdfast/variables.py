"""Variables and their kinds, and how a selection of them is made. Knows no array and no file.

Every variable is a *parameter* (learned; always persistable too), another *persistable* (lives across iterations) or
a *temporary* (lives within one iteration; never saved). Source: the Fluid guide on model variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec

from holdfast.dtypes import ITEMSIZE

Kind = Literal["parameter", "persistable", "temporary"]


class Variable(msgspec.Struct, frozen=True, gc=False):
    """A named array of a state, without its value.

    Attributes:
        name: unique within its state; levels of nesting are joined with `.`.
        kind: `"parameter"`, `"persistable"` (and no parameter) or `"temporary"`.
        trainable: whether training changes it; a frozen parameter has False.
        dtype: the format's name, such as `"F32"` (docs/format.md, section 3).
        shape: the global shape.
    """

    name: str
    kind: Kind
    trainable: bool
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole value."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


def is_parameter(variable: Variable) -> bool:
    """Whether the variable is learned: what `save_params` saves."""
    return variable.kind == "parameter"


def is_persistable(variable: Variable) -> bool:
    """Whether the variable lives across iterations: parameters, and whatever else `save_persistables` saves."""
    return variable.kind != "temporary"


def is_checkpoint_variable(variable: Variable) -> bool:
    """Whether resuming needs the variable: what `save_checkpoint` saves.

    The kind alone decides. Fluid also looked for substrings in the name and so lost a layer called `my.block`.
    """
    return variable.kind != "temporary"


Predicate = Callable[[Variable], bool]
V = TypeVar("V", bound=Variable)


def select(
    variables: Iterable[V], *, predicate: Predicate | None = None, vars: Iterable[str | Variable] | None = None
) -> list[V]:
    """The variables that `predicate` accepts, or those listed in `vars`; every persistable one if neither is given.

    Args:
        variables: what to select from; their order is kept.
        predicate: called once with every variable.
        vars: names, or variables, whose names count.

    Raises:
        ValueError: both are given, or `vars` names variables that are not there or are temporary.
    """
    variables = list(variables)
    if vars is None:
        chosen = [v for v in variables if (predicate or is_persistable)(v)]
    elif predicate is not None:
        raise ValueError("give predicate= or vars=, not both")
    else:
        wanted = {v if isinstance(v, str) else v.name for v in ([vars] if isinstance(vars, str) else vars)}
        chosen = [v for v in variables if v.name in wanted]
        if absent := sorted(wanted - {v.name for v in chosen}):
            raise ValueError(f"vars= names what the state does not hold: {', '.join(absent)}")
    if temporary := [v.name for v in chosen if v.kind == "temporary"]:
        raise ValueError(f"temporary variables are never saved or loaded: {', '.join(temporary)}; leave them out")
    return chosen
