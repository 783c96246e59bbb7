"""Names that stand for a value on one side and for an array on the other: numbers pass, all else is told apart. Reads no file.

A step begins as Python's 0 and is an array once a jitted function has counted it, so a run that goes back to its beginning, or
begins anew from a later checkpoint, meets either where it has the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.adapters.state import Item, Value
from holdfast.engine.match import Match
from holdfast.errors import Problem
from holdfast.format.manifest import Entry
from holdfast.format.values import Tagged
from holdfast.variables import Variable

_KINDS = {bool: "b", int: "iu", float: "f"}


def arrays_into_numbers(
    match: Match, targets: Mapping[str, Value], by_name: Mapping[str, Entry], renamed: Callable[[str], str]
) -> tuple[dict[str, Value], Match]:
    """Plain numbers of the target that were saved as arrays, by the arrays' names in the checkpoint; and the match without them."""
    sources = {renamed(name): name for name, entry in by_name.items() if entry.shape == ()}
    found = {}
    for name in match.missing:
        kinds = _KINDS.get(type(targets[name].value), "")
        if name in sources and dtypes.to_numpy(by_name[sources[name]].dtype).kind in kinds:
            found[sources[name]] = targets[name]
    names = {value.name for value in found.values()}
    return found, dataclasses.replace(match, missing=tuple(name for name in match.missing if name not in names))


def numbers_into_arrays(
    match: Match,
    held: Mapping[str, Any],
    items: Iterable[Item],
    by_name: Iterable[str],
    renamed: Callable[[str], str],
    problems: list[Problem],
) -> tuple[dict[str, tuple[Item, np.ndarray]], Match]:
    """Arrays of the target that were saved as plain numbers, with what they are to hold; and the match without the numbers.

    Args:
        match: of the values.
        held: the checkpoint's values.
        items: the target's arrays.
        by_name: names of the checkpoint's variables.
        renamed: names of the checkpoint in the target's naming.
        problems: is told of numbers that an array's dtype cannot hold.
    """
    there = {renamed(name) for name in by_name}
    scalars = {
        item.variable.name: item
        for item in items
        if item.variable.shape == () and item.owner is None and item.variable.name not in there
    }
    found = {}
    taken = set()
    for source in match.unexpected:
        item, number = scalars.get(renamed(source)), held[source]
        if item is None:
            continue
        dtype = dtypes.to_numpy(item.variable.dtype)
        if dtype.kind not in _KINDS.get(type(number), "") and not (type(number) is float and _is_float(dtype)):
            continue
        taken.add(source)
        array = _exactly(number, dtype)
        if array is None:
            name, expected = item.variable.name, item.variable.dtype
            text = f"{name!r}: the checkpoint has the number {number!r}, which the target's {expected} cannot hold"
            problems.append(Problem("dtype", name, text))
            array = np.zeros((), dtype)
        found[item.variable.name] = (item, array)
    return found, dataclasses.replace(match, unexpected=tuple(name for name in match.unexpected if name not in taken))


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or np.dtype(dtype).name in ("bfloat16",)


def _exactly(number: float, dtype: np.dtype) -> np.ndarray | None:
    """The number as an array, rounded if it is a fraction; None if it does not fit."""
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(np.asarray(number).astype(dtype))
    except OverflowError:
        return None
    if type(number) is float:
        fits = bool(np.isfinite(array.astype(np.float64))) == bool(np.isfinite(number))
    else:
        fits = int(array) == number
    return array if fits else None


def fill(item: Item, array: np.ndarray) -> None:
    """Give an array of the target a new value."""
    if item.access is not None:
        item.access.put(array)
    else:
        np.copyto(item.array, array)


def told_apart(
    names: Match,
    values: Match,
    held: Mapping[str, Any],
    by_name: Mapping[str, Entry],
    targets: Mapping[str, Value],
    variables: Mapping[str, Variable],
    renamed: Callable[[str], str],
) -> tuple[list[Problem], Match, Match]:
    """What both sides have, but as different kinds of things; and what is left then of the matches of arrays and values."""
    problems = []
    there = {renamed(name): name for name in values.unexpected}
    for name in names.missing:
        if name in there:
            ours = f"an array, {variables[name].dtype} {variables[name].shape}"
            text = f"{name!r}: the checkpoint has {_said(held[there[name]])} there, the target {ours}"
            problems.append(Problem("kind", name, text))
    arrays = {renamed(name): name for name in names.unexpected}
    for name in values.missing:
        if name in arrays:
            entry, value = by_name[arrays[name]], targets[name]
            ours = "an object" if value.is_object else _said(value.value)
            text = f"{name!r}: the checkpoint has an array there, {entry.dtype} {entry.shape}, the target {ours}"
            problems.append(Problem("kind", name, text))
    told = {problem.name for problem in problems}
    if not told:
        return [], names, values

    def rest(match: Match) -> Match:
        return dataclasses.replace(
            match,
            missing=tuple(name for name in match.missing if name not in told),
            unexpected=tuple(name for name in match.unexpected if renamed(name) not in told),
        )

    return problems, rest(names), rest(values)


def _said(value: Any) -> str:
    if isinstance(value, Tagged) and value.tag == "$random":
        return f"the state of a random number generator ({str(value.value[0])[:40]})"
    return "a plain value"
