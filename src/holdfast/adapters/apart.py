"""Dicts, lists and tuples that are plain on one side of a load, and have arrays in them on the other, are taken apart.

What holds no array is a value as a whole, so `{"metrics": {"loss": 0.0}}` is one value until a jitted function has made an array of
the loss. Part by part, numbers pass (see kinds.py), and the rest is told apart by name. Reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from holdfast.adapters.objects import tags
from holdfast.adapters.state import Scan, Value, join


def is_plain(value: Any) -> bool:
    """Whether this is a collection of plain values, and has names for its parts."""
    if isinstance(value, dict) and not all(type(key) in (str, int) for key in value):
        return False
    return isinstance(value, dict | list | tuple) and next(tags(value), None) is None


def target_apart(
    missing: Iterable[str], targets: Mapping[str, Value], sources: Iterable[str]
) -> tuple[dict[str, Value], list[Scan]]:
    """The target's values, with those in parts that the checkpoint has in parts.

    Args:
        missing: names of values that only the target has.
        targets: its values by name.
        sources: names of the checkpoint's variables and values, in the target's naming.

    Returns:
        The values by name; and what was found in the parts.
    """
    whole = {name: apart for name in missing if (apart := targets[name].apart) and is_plain(targets[name].value)}
    split = _ways(whole, sources)
    scans = [whole[name](split) for name in targets if name in whole and name in split]
    kept = {name: value for name, value in targets.items() if name not in split}
    return kept | {value.name: value for scan in scans for value in scan.values}, scans


def held_apart(
    unexpected: Iterable[str], held: Mapping[str, Any], wanted: Iterable[str], renamed: Callable[[str], str]
) -> dict[str, Any]:
    """The checkpoint's values, with those in parts that the target has in parts.

    Args:
        unexpected: names of values that only the checkpoint has.
        held: its values by name.
        wanted: names of the target's variables and values.
        renamed: names of the checkpoint in the target's naming.
    """
    whole = {renamed(name): name for name in unexpected if is_plain(held[name])}
    split = _ways(whole, wanted)
    apart = {whole[name]: name for name in whole.keys() & split}
    parts = {
        name: part for source, target in apart.items() for name, part in _parts(held[source], source, target, split)
    }
    return {name: value for name, value in held.items() if name not in apart} | parts


def _ways(whole: Collection[str], names: Iterable[str]) -> set[str]:
    """Of collections that are whole, those with some of the names in them; and what is in these on the way to the names."""
    found: set[str] = set()
    if not whole:
        return found
    for name in names:
        is_inside = False
        for end, letter in enumerate(name):
            if letter == ".":
                is_inside = is_inside or name[:end] in whole
                if is_inside:
                    found.add(name[:end])
    return found


def _parts(value: Any, source: str, target: str, split: Collection[str]) -> Iterator[tuple[str, Any]]:
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        names = join(source, key), join(target, key)
        if names[1] in split and is_plain(part):
            yield from _parts(part, *names, split)
        else:
            yield names[0], part
