"""Variable names as paths, which they are in Fluid's folders; and what a name tells about its variable's kind. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable

from holdfast.interop.files import TEMPORARY

MODEL, SUCCESS = "__model__", "_SUCCESS"
RESERVED = {MODEL, SUCCESS}
"""Files of a folder that are no variables."""

_SLOTS = (
    r"velocity|moment|moment1|moment2|moment2_max|beta1_pow_acc|beta2_pow_acc|inf_norm|momentum|mean_square|mean_grad|"
    r"_avg_squared_grad|_avg_squared_update|squared|linear|sum_1|sum_2|sum_3|num_accumulates|old_num_accumulates|num_updates|ema"
)
# Since 1.0 an accumulator is called after its parameter; in 0.14 it has a number only.
_ACCUMULATOR = re.compile(rf"(?:(?P<parameter>.+?)_)?(?:{_SLOTS})_[0-9]+", re.DOTALL)
_COUNTER = re.compile(
    r"@LR_DECAY_COUNTER@|@STEP_COUNTER@|@EMA_STEP_COUNTER@|scheduled_ema_decay_rate|learning_rate(_[0-9]+)?|_generated_var_[0-9]+"
)


def relative_path(name: str) -> str | None:
    """Where the file of a variable lies in its folder, as Fluid finds it; None if that would be outside."""
    if not name or "\0" in name or name.startswith("/"):
        return None
    path = posixpath.normpath(name)
    return None if path in (".", "..") or path.startswith("../") else path


def name_problems(names: Iterable[str]) -> dict[str, str]:
    """Names under which no file should be written, and why: they would leave the folder, or meet another file."""
    reasons: dict[str, str] = {}
    names = list(names)
    taken = set(names)
    for name in names:
        if relative_path(name) != name:
            reasons[name] = (
                "a name is a path in Fluid, and this one leads out of the folder or to another variable's file"
            )
        elif name.partition("/")[0] in RESERVED or posixpath.basename(name).startswith(TEMPORARY):
            reasons[name] = "a file of this name has another meaning"
        else:
            above = posixpath.dirname(name)
            while above and above not in taken:
                above = posixpath.dirname(above)
            if above:
                reasons[name] = f"its folder would be the file of {above!r}"
    return reasons


def not_parameters(names: Collection[str]) -> set[str]:
    """Those names that Fluid gives to accumulators of optimizers, learning rates and counters; a folder has only names.

    `fc_0.w_0_moment1_0` counts because `fc_0.w_0` is there too: a parameter that happens to be called like that stays one.
    """
    known = set(names)
    found = set()
    for name in known:
        match = _ACCUMULATOR.fullmatch(name)
        if _COUNTER.fullmatch(name) or (match and (match["parameter"] is None or match["parameter"] in known)):
            found.add(name)
    return found
