"""Arrays that an object or an optimizer has in the checkpoint and makes only later in the target: as what they are given to it.

They have no counterpart that they could be compared with; what is known is which parameter each belongs to. Reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.adapters.state import Beside, Value
from holdfast.engine.match import Rules, pair_problems
from holdfast.errors import Problem
from holdfast.format.manifest import Entry
from holdfast.variables import Variable


def late_variables(
    value: Value,
    content: Any,
    late: Sequence[str],
    by_name: Mapping[str, Entry],
    source_of: Callable[[str], str | None],
    renamed: Callable[[str], str],
    skipped: Callable[[str], bool],
    rules: Rules,
) -> tuple[dict[str, Variable], list[Problem]]:
    """The arrays as the target is given them, by their names in the checkpoint, and why some cannot be.

    What has the dtype of its parameter is cast with it. What is to be skipped is left out, if all of a parameter's is: then the
    optimizer begins anew with it.

    Args:
        value: the object.
        content: what is loaded into it.
        late: the arrays, by their names in the checkpoint.
        by_name: the checkpoint's variables.
        source_of: the name in the checkpoint of a variable of the target.
        renamed: names of the checkpoint in the target's naming.
        skipped: whether a name of the target is to be left alone.
        rules: how strictly all must match.
    """
    beside = value.beside(content) if value.beside is not None else {}
    left = {ref for ref in late if skipped(renamed(ref))}
    problems = [
        Problem("unwritable", renamed(ref), f"{renamed(ref)!r}: {_PARTLY}{value.name!r}")
        for ref in sorted(left - _whole_parameters(beside, late, left))
    ]
    made: dict[str, Variable] = {}
    for ref in late:
        if ref in left:
            continue
        entry, variable = (
            by_name[ref],
            Variable(renamed(ref), "persistable", True, by_name[ref].dtype, by_name[ref].shape),
        )
        if ref in beside:
            variable = _expected(variable, beside[ref], by_name.get(source_of(beside[ref].parameter.name) or ""))
            if problem := pair_problems(entry, variable, rules):
                problems.append(problem)
                continue
        made[ref] = variable
    return made, problems


_PARTLY = (
    "skip= leaves it alone, but the target has none that could stay; skip all that belongs to the parameter, or all of "
)


def _expected(saved: Variable, beside: Beside, parameter: Entry | None) -> Variable:
    """What the target is going to have for a variable."""
    if beside.made is not None:
        return msgspec.structs.replace(saved, dtype=beside.made.dtype, shape=beside.made.shape)
    if parameter is None or saved.shape != parameter.shape:
        return saved
    dtype = beside.parameter.dtype if saved.dtype == parameter.dtype else saved.dtype
    return msgspec.structs.replace(saved, dtype=dtype, shape=beside.parameter.shape)


def _whole_parameters(beside: Mapping[str, Beside], late: Collection[str], left: Collection[str]) -> set[str]:
    """Those of `left` whose parameter has nothing else that is late."""
    half = {beside[ref].parameter.name for ref in late if ref in beside and ref not in left}
    return {ref for ref in left if ref in beside and beside[ref].parameter.name not in half}
