"""Which feeds are numbers of rows or of classes, and their check: a compiled program cannot refuse a value, so it is done before.

Only what an operator reads as it was fed is checked. Of numbers that a program computes, those without a row or class give NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.fluid.framework import Block
from holdfast.fluid.operators import Operator

_SLOTS = {
    "lookup_table": ("Ids", "W", 0),
    "lookup_table_v2": ("Ids", "W", 0),
    "cross_entropy": ("Label", "X", -1),
    "cross_entropy2": ("Label", "X", -1),
    "softmax_with_cross_entropy": ("Label", "Logits", -1),
}
"""Where the numbers are, and which dimension of what limits them."""
_ALLOWED = {"Ids": ("padding_idx", -1), "Label": ("ignore_index", -100)}
"""The attribute with one more number that is allowed, and its default. A padding_idx of -1 is none."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The numbers that an operator can take.

    Attributes:
        below: they are from 0 to below this.
        allowed: one more number that it takes; None if there is none.
        operator: its type, for messages.
    """

    below: int
    allowed: int | None
    operator: str


def bounds(block: Block) -> dict[str, tuple[Bound, ...]]:
    """The bounds of every variable that operators of a block read as numbers of rows or classes, by its name."""
    found: dict[str, tuple[Bound, ...]] = {}
    for op in block.ops:
        bound = _bound(op)
        if bound is not None:
            name = op.input("X" if op.type.startswith("one_hot") else _SLOTS[op.type][0])[0]
            found[name] = (*found.get(name, ()), bound)
    return found


def _bound(op: Operator) -> Bound | None:
    if op.type in ("one_hot", "one_hot_v2"):
        return None if op.attrs.get("allow_out_of_range") else Bound(op.attrs["depth"], None, op.type)
    if op.type not in _SLOTS or op.attrs.get("soft_label"):
        return None
    slot, other, dimension = _SLOTS[op.type]
    limiting = op.block.find(op.input(other)[0])
    if limiting is None or not limiting.shape:
        return None
    if op.type == "softmax_with_cross_entropy":
        dimension = op.attrs.get("axis", dimension)
    below = limiting.shape[dimension]
    attribute, default = _ALLOWED[slot]
    allowed = op.attrs.get(attribute, default)
    return None if below < 0 else Bound(below, None if allowed == -1 and slot == "Ids" else allowed, op.type)


def problem(name: str, values: np.ndarray, bound: Bound) -> str | None:
    """What is wrong with the numbers of a feed; None if nothing is."""
    if values.dtype.kind != "i" or not values.size:
        return None
    # Seen as unsigned, a negative number is a huge one: one pass instead of two.
    if int(values.view(f"u{values.dtype.itemsize}").max()) < bound.below:
        return None
    wrong = (values < 0) | (values >= bound.below)
    if bound.allowed is not None:
        wrong &= values != bound.allowed
    if not wrong.any():
        return None
    shown = ", ".join(str(n) for n in np.unique(values[wrong])[:5])
    more = "" if bound.allowed is None or 0 <= bound.allowed < bound.below else f", or {bound.allowed}"
    return f"feed {name!r} holds {shown}, and operator {bound.operator} takes whole numbers from 0 to {bound.below - 1}{more}"
