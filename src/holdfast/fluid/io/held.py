"""Values between scopes and files: taken out as views, checked as a whole, and put in all at once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import holdfast
from holdfast.fluid import core
from holdfast.fluid.checks import HazardWarning, some
from holdfast.fluid.framework import RANDOM_STATE, Parameter, Variable
from holdfast.fluid.scope import Scope, ScopeVariable
from holdfast.interop.lodtensor import LoDTensor


class UnsavableError(core.EnforceNotMet):
    """Variables of a program cannot be saved: they have no value, or not the one that the program says; nothing was written.

    Attributes:
        reasons: name of the variable → why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        lines = [f"  {name!r} {reason}" for name, reason in self.reasons.items()]
        super().__init__("\n".join([f"{len(lines)} variable(s) cannot be saved; nothing was written:", *lines]))


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A variable with its value; the array is a view of the scope's where that is possible."""

    variable: Variable
    array: np.ndarray
    lod: tuple[tuple[int, ...], ...]


def shape_fits(shape: Sequence[int], wanted: Sequence[int] | None) -> bool:
    """Whether a value of a shape may be a variable's; -1 stands for any extent, None for any shape."""
    return wanted is None or (
        len(shape) == len(wanted) and all(m in (-1, n) for n, m in zip(shape, wanted, strict=True))
    )


def described(dtype: Any, shape: Sequence[int] | None) -> str:
    """`float32 (4, 3)`, for messages."""
    return f"{dtype} {tuple(shape) if shape is not None else 'of any shape'}"


def gather(variables: Iterable[Variable], scope: Scope, *, lod: bool = False) -> dict[str, Held]:
    """The values of variables, by name.

    Args:
        variables: which.
        scope: where they are.
        lod: whether levels of detail can be kept.

    Raises:
        UnsavableError: variables have no value, or not the program's dtype and shape; all of them are named.
    """
    found: dict[str, Held] = {}
    reasons: dict[str, str] = {}
    for variable in variables:
        name, place = variable.name, scope.find_var(variable.name)
        if place is None or place.held is None:
            reasons[name] = (
                "has no value in this scope: run the startup program in it first, after minimize()"
                if isinstance(variable, Parameter) or variable.op is None
                else "has no value in this scope: nothing has computed it yet"
            )
            continue
        array = np.asarray(place.held)
        wanted = None if variable.dtype is None else core.to_numpy(variable.dtype)
        if (wanted is not None and array.dtype != wanted) or not shape_fits(array.shape, variable.shape):
            reasons[name] = (
                f"is {described(array.dtype, array.shape)} in the scope, and {described(wanted, variable.shape)} in the program"
            )
        elif place.lod() and not lod:
            reasons[name] = 'has levels of detail (LoD), which only file_format="fluid" keeps'
        else:
            found[name] = Held(variable, array, tuple(tuple(level) for level in place.lod()))
    if reasons:
        raise UnsavableError(reasons)
    return found


def state_of(held: Mapping[str, Held]) -> dict[str, Any]:
    """The values as a flat state for the core, with parameters marked."""
    return {
        name: holdfast.parameters(h.array, trainable=h.variable.trainable)
        if isinstance(h.variable, Parameter)
        else h.array
        for name, h in held.items()
    }


def tensors_of(held: Mapping[str, Held]) -> dict[str, Any]:
    """The values as tensors for Fluid's own files."""
    return {name: LoDTensor(h.array, h.lod) for name, h in held.items()}


def put(scope: Scope, values: Mapping[str, LoDTensor], source: str, device: jax.Device) -> None:
    """Give loaded values to a scope: all of them, or none if the device has no room."""
    with jax.enable_x64(True):
        arrays = {name: jax.device_put(value.array, device) for name, value in values.items()}
    for name, array in arrays.items():
        variable: ScopeVariable = scope.find_var(name) or scope.var(name)
        variable.held, variable.loaded_from = array, source
        variable.set_lod(values[name].lod)
    scope.loads += 1


def device_of(executor: Any) -> jax.Device:
    """Where an executor runs; the CPU if it does not say."""
    place = getattr(executor, "place", None)
    return (place if isinstance(place, core.Place) else core.CPUPlace()).device()


def with_nan(held: Mapping[str, Held]) -> list[str]:
    """Names of the variables that hold a NaN."""
    # One thread looks at 13 GB/s, which is a tenth of the time that the save takes.
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda h: _has_nan(h.array), held.values()))
    return [name for name, bad in zip(held, found, strict=True) if bad]


def _has_nan(array: np.ndarray) -> bool:
    if array.dtype.kind not in "fcV" or not array.size:
        return False
    if array.dtype.itemsize >= 4:
        with np.errstate(all="ignore"):
            return bool(np.isnan(array.max()))  # of a NaN and others that is the NaN, found at the speed of memory
    return bool(np.isnan(array).any())


def warn_of_nan(names: Sequence[str], call: str, stacklevel: int) -> None:
    """Warn of NaN in what is saved."""
    if names:
        warnings.warn(
            f"{call}: these variables hold NaN, and are saved as they are: {some(names)}. The run has diverged; go back to "
            "an older checkpoint",
            HazardWarning,
            stacklevel=stacklevel + 1,
        )


_POSITIONAL = re.compile(r"_generated_var_[0-9]+")
_OLD_ACCUMULATOR = re.compile(
    r"(velocity|moment|moment1|moment2|beta1_pow_acc|beta2_pow_acc|mean_square|mean_grad|momentum|inf_norm|squared|linear"
    r"|_avg_squared_grad|_avg_squared_update)_[0-9]+"
)


def positional(names: Iterable[str]) -> list[str]:
    """Names that say only in which order variables were created: another program gives them to others."""
    return [n for n in names if _POSITIONAL.fullmatch(n) or _OLD_ACCUMULATOR.fullmatch(n)]


def shifted_names_hint(missing: Iterable[str], available: Iterable[str]) -> list[str]:
    """What to say if the file has the missing names with other numbers."""
    missing, there = list(missing), sorted(available)
    by_pattern: dict[str, str] = {}
    for name in there:
        by_pattern.setdefault(_pattern(name), name)
    pairs = [(name, by_pattern[_pattern(name)]) for name in missing if _pattern(name) in by_pattern]
    made = []
    if pairs:
        name, other = pairs[0]
        made.append(
            f"{name!r} is missing, and there is {other!r}: only the numbers differ, as they do if a program is built a "
            "second time in one process. Rebuild it inside fluid.unique_name.guard()"
        )
    if old := [n for n in there if _OLD_ACCUMULATOR.fullmatch(n)]:
        made.append(
            f"{some(old, 4)}: such names are those of Fluid 0.14, which numbers accumulators in the order of the "
            "parameters' names. load_params loads what is not of the optimizer"
        )
    return made


def _pattern(name: str) -> str:
    return re.sub(r"[0-9]+", "#", name)


def is_random_state(name: str) -> bool:
    """Whether this is the state of a program's random numbers, which older files lack."""
    return name == RANDOM_STATE
