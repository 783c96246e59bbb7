"""What Fluid only warned of in its guide, checked: updates in a program for prediction, startup after a load, fresh state."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from holdfast.fluid.framework import RANDOM_STATE, OpRole, Parameter, Program
from holdfast.fluid.scope import Scope, ScopeVariable


class HazardWarning(UserWarning):
    """A program does what is right in one case and loses work in another; docs/fluid/hazards.md has the list.

    `warnings.simplefilter("ignore", fluid.HazardWarning)` silences all of them, `"error"` makes errors of them.
    """


class OverwriteError(RuntimeError):
    """A startup program would overwrite variables that a load has filled.

    Attributes:
        names: of those variables.
    """

    def __init__(self, variables: Sequence[ScopeVariable]) -> None:
        self.names = tuple(v.name for v in variables)
        sources = ", ".join(sorted({str(v.loaded_from) for v in variables}))
        super().__init__(
            f"this startup program would overwrite {len(variables)} variable(s) that were loaded from {sources}: "
            f"{some(self.names)}; nothing was changed. Run the startup program before the load, or in another scope; if "
            "they are to start anew, say so: exe.run(startup, overwrite_loaded=True)"
        )


def some(names: Iterable[str], shown: int = 10) -> str:
    """Names for a message, not too many of them."""
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def check_overwriting(variables: Sequence[ScopeVariable]) -> None:
    """Refuse a run that fills variables anew which a load has filled.

    Raises:
        OverwriteError: there are such variables.
    """
    loaded = [v for v in variables if v.loaded_from is not None]
    if loaded:
        raise OverwriteError(loaded)


def update_operators(program: Program) -> dict[str, list[str]]:
    """The operators that change parameters when the program runs: their type → the parameters."""
    block = program.global_block()
    found: dict[str, list[str]] = {}
    for op in block.ops:
        if op.attrs.get("is_test"):
            continue  # batch_norm then gives back the statistics that it was given
        read = set(op.input_arg_names)
        changed = [n for n in op.output_arg_names if n in read and isinstance(block.vars.get(n), Parameter)]
        if changed:
            found.setdefault(op.type, []).extend(changed)
    return found


def warn_of_updates(program: Program, call: str) -> None:
    """Warn that running a program changes the parameters that were just loaded for prediction."""
    found = update_operators(program)
    if found:
        shown = "; ".join(f"{kind} changes {some(names, 4)}" for kind, names in found.items())
        warnings.warn(
            f"{call}: this program holds operators that change parameters at every run ({shown}). For prediction load into "
            "main_program.clone(for_test=True) and run that; for fine-tuning this is fine, and "
            "warnings.simplefilter('ignore', fluid.HazardWarning) silences it",
            HazardWarning,
            stacklevel=3,
        )


def warn_of_fresh_state(program: Program, scope: Scope, changed: Sequence[str]) -> None:
    """Warn that training goes on from loaded parameters with accumulators and counters that were not loaded."""
    if not any(op.role & OpRole.Optimize for op in program.global_block().ops):
        return
    block = program.global_block()
    loaded, fresh = [], []
    for name in changed:
        variable, held = block.find(name), scope.find_var(name)
        if variable is None or held is None or name == RANDOM_STATE:
            continue
        if isinstance(variable, Parameter):
            loaded += [held] if held.loaded_from is not None else []
        elif held.loaded_from is None:
            fresh.append(name)
    if loaded and fresh:
        warnings.warn(
            f"training goes on from parameters that were loaded from {loaded[0].loaded_from}, but these variables are at "
            f"their start, as no load has filled them: {some(fresh)}. To resume a run use save_checkpoint and "
            "load_checkpoint (or save_persistables and load_persistables); for fine-tuning this is fine, and "
            "warnings.simplefilter('ignore', fluid.HazardWarning) silences it",
            HazardWarning,
            stacklevel=5,
        )
