"""What the parameters of a state are called, for the optimizers in it. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner


class Known(NamedTuple):
    """A parameter that some module of the state has."""

    full: str  # name in the state
    short: str  # name in its module
    root: str  # name of the module in the state
    parameter: Any  # what is alive keeps its id


def note_parameter(scanner: Scanner, parameter: Any, full: str, short: str, root: str) -> None:
    """Remember what a parameter is called; the first name counts."""
    scanner.known.setdefault(("parameter", id(parameter)), Known(full, short, root, parameter))


def known_parameters(scanner: Scanner, places: list[tuple[str, Any]]) -> list[Known] | None:
    """What an optimizer's parameters are called; None, and each refused by its place, if some have no name.

    Args:
        scanner: has walked all else.
        places: the parameters, with what to call the place that each has in the optimizer.
    """
    found: list[Known] = []
    for place, parameter in places:
        known = scanner.known.get(("parameter", id(parameter)))
        if known is not None:
            found.append(known)
        else:
            dtype, shape = str(parameter.dtype).rpartition(".")[2], tuple(parameter.shape)
            scanner.refuse(
                place,
                f"the parameter, {dtype} {shape}, is in no module of the state, so it has no name: put the module that has it "
                "into the state, such as {'model': model, 'optimizer': optimizer}",
            )
    return found if len(found) == len(places) else None


def short_names(known: list[Known]) -> dict[str, str]:
    """By full names, those that stand in the names of variables: `fc.weight`, or full ones if there are several modules."""
    is_one = len({one.root for one in known}) == 1
    return {one.full: one.short if is_one else one.full for one in known}


def localized(
    saved: Sequence[str], renamed: Callable[[str], str], ours: Collection[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """What the parameters of a saved optimizer are called in the target, by their names in the checkpoint.

    Which of its names a tied parameter goes by depends on the order in which layers are declared.

    Args:
        saved: names in the checkpoint.
        renamed: names of the checkpoint in the target's naming.
        ours: names of the parameters of the target's optimizer.
        aliases: second names of parameters in the target → their first.
    """
    found: dict[str, str] = {}
    taken = {renamed(name) for name in saved}
    for name in saved:
        local = renamed(name)
        first = aliases.get(local, local)
        if local not in ours and first in ours and first not in taken:
            local = first
            taken.add(first)
        found[name] = local
    return found
