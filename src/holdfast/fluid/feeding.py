"""The check of what is fed: every missing, unknown, wrongly typed or wrongly shaped feed, all in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from holdfast.fluid.core import EnforceNotMet
from holdfast.fluid.ranges import Bound, problem
from holdfast.fluid.scope import LoDTensor


@dataclass(frozen=True, slots=True)
class Expected:
    """What a data variable takes.

    Attributes:
        name: its name.
        dtype: of its values.
        shape: -1 for any size; None for any shape.
        used: whether the program reads it at all.
        lod_level: 0: levels of detail are left out, as none of its operators looks at them.
        bounds: of the numbers in it, if they are those of rows or classes. Looked at in NumPy arrays only: others may be far.
    """

    name: str
    dtype: np.dtype
    shape: Sequence[int] | None
    used: bool = True
    lod_level: int = 0
    bounds: tuple[Bound, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype} {'of any shape' if self.shape is None else list(self.shape)}"


class FeedError(EnforceNotMet, ValueError):
    """Feeds do not fit the program.

    Attributes:
        problems: one sentence for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join([f"{len(problems)} feed(s) do not fit the program; nothing was run:", *problems]))


def checked_feed(expected: Mapping[str, Expected], feed: Mapping[str, Any]) -> list[Any]:
    """The arrays for the data variables that a program reads, in its order.

    Raises:
        FeedError: feeds are missing, unknown, of another dtype or shape, or number rows or classes that there are not.
    """
    arrays, problems = [], []
    for name, wanted in expected.items():
        if name not in feed:
            problems.append(
                f"feed {name!r} is missing ({wanted}): the whole program runs, whatever is fetched; "
                "main_program.clone(for_test=True) or use_prune=True may do without it"
            )
            continue
        value = feed[name]
        if type(value) is not np.ndarray or value.dtype != wanted.dtype:
            value = _array(value, wanted, problems)
            if value is None:
                continue
        shape, fits = value.shape, wanted.shape
        if fits is not None and (
            len(shape) != len(fits) or any(n != m and m >= 0 for n, m in zip(shape, fits, strict=True))
        ):
            problems.append(_shape_problem(wanted.name, fits, shape))
            continue
        if wanted.bounds and isinstance(value, np.ndarray):
            problems += [text for bound in wanted.bounds if (text := problem(name, value, bound)) is not None]
        if wanted.used:
            arrays.append(value)
    for name in feed:
        if name not in expected:
            problems.append(f"feed {name!r} is unknown: the program has {', '.join(expected) or 'no data variables'}")
    if problems:
        raise FeedError(problems)
    return arrays


def _array(value: Any, wanted: Expected, problems: list[str]) -> Any:
    if isinstance(value, LoDTensor):
        if value.lod() and wanted.lod_level:
            problems.append(
                f"feed {wanted.name!r} has levels of detail (sequences): these are not supported yet; pad them to one length"
            )
            return None
        value = value.value()
    if value is None:
        problems.append(f"feed {wanted.name!r}: expected {wanted}, found nothing")
        return None
    if isinstance(value, jax.Array) and value.dtype == wanted.dtype:
        return value
    if not hasattr(value, "dtype"):  # a list or number has no dtype of its own
        try:
            made = np.asarray(value)
        except ValueError as error:
            problems.append(f"feed {wanted.name!r} is no array: {error}")
            return None
        if np.can_cast(made.dtype, wanted.dtype, "same_kind") or (made.dtype.kind in "iu" and wanted.dtype.kind == "f"):
            cast = made.astype(wanted.dtype)
            if wanted.dtype.kind == "f" or np.array_equal(cast, made):
                return cast
        value = made
    if np.dtype(value.dtype) != wanted.dtype:
        problems.append(
            f"feed {wanted.name!r}: expected {wanted.dtype}, found {np.dtype(value.dtype)}; "
            f"convert it yourself if that loses nothing: .astype({wanted.dtype.name!r})"
        )
        return None
    return np.asarray(value)


def _shape_problem(name: str, wanted: Sequence[int], shape: tuple[int, ...]) -> str:
    hint = ""
    if len(shape) == len(wanted) - 1 and wanted[-1] == 1:
        hint = "; .reshape(-1, 1) adds the last dimension"
    return f"feed {name!r}: expected the shape {list(wanted)} (-1: any), found {list(shape)}{hint}"
