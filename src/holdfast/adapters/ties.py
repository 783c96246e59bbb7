"""Arrays of several names, such as tied weights: under which of them a checkpoint has the values. Reads no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.adapters.state import Item
from holdfast.errors import Problem
from holdfast.format.manifest import Entry
from holdfast.format.values import Tagged


def aliases_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The second names of variables among the values of a checkpoint."""
    return {
        name: value.value for name, value in values.items() if isinstance(value, Tagged) and value.tag == "$variable"
    }


def second_names(items: Iterable[Item]) -> dict[str, str]:
    """The second names of arrays that are to be saved → the names that they are saved under."""
    return {alias: item.variable.name for item in items for alias in item.aliases}


def names_of_tied(
    items: Sequence[Item],
    offered: Mapping[str, str],
    by_name: Mapping[str, Entry],
    same: Callable[[Entry, Entry], bool],
    problems: list[Problem],
) -> tuple[dict[str, str], set[str]]:
    """What each item is called in the checkpoint, in the target's naming, and further names there of the same values.

    Which of its names a tied array is saved under depends on the order in which the program came upon it.

    Args:
        items: the arrays of the target.
        offered: name in the target's naming → name in the checkpoint.
        by_name: the checkpoint's variables.
        same: whether two of these have the same values.
        problems: is told of arrays that are one in the target and differ in the checkpoint.
    """
    called = {item.variable.name: item.variable.name for item in items}
    spare: set[str] = set()
    for item in items:
        if not item.aliases:
            continue
        names = [name for name in (item.variable.name, *item.aliases) if name in offered]
        for other in names[1:]:
            spare.add(other)
            if not same(by_name[offered[names[0]]], by_name[offered[other]]):
                text = f"{other!r} is the same array as {names[0]!r}, but the checkpoint has two values for them"
                problems.append(Problem("unwritable", other, text))
        called[item.variable.name] = names[0] if names else item.variable.name
    return called, spare
