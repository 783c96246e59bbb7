"""What a program may do with a checkpoint, done to a hostile one, and whether the outcome is one that may be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import holdfast
import holdfast.interop.recognise  # what an error is told by: imported late, which would count as executing
from holdfast.errors import CorruptCheckpointError, HoldfastError
from holdfast.storage import Location, MemoryStore
from hostile.cases import ARRAYS, PARAMETERS, TRAINER_ARGS, VALUES

Place = Path | Location
UNTOUCHED = 77


def blank_state() -> dict[str, Any]:
    """A state that fits the corpus, in which nothing is loaded yet."""
    blank = {name: np.full_like(array, UNTOUCHED) for name, array in ARRAYS.items()}
    model = {name.removeprefix("fc."): blank.pop(name) for name in PARAMETERS}
    return {"fc": holdfast.parameters(model), **blank, "epoch": UNTOUCHED}


def arrays_of(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of such a state by name."""
    flat = {f"fc.{name}": array for name, array in state["fc"].tree.items()}
    return flat | {name: state[name] for name in ARRAYS if name in state}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def put_in_memory(files: Mapping[str, bytes]) -> Location:
    """A run in memory whose `checkpoint_0` holds these files."""
    run = MemoryStore().at("run")
    run.store.make_folder(run.path)
    run.store.make_folder(f"{run.path}/checkpoint_0")
    for name, data in files.items():
        writer = run.store.create(f"{run.path}/checkpoint_0/{name}", len(data))
        writer.write_at(memoryview(data), 0)
        writer.close()
    return run


SOUND = ("right", "refused", "other")
"""What an outcome may begin with; everything else is an error that is not ours."""


def outcome(operation: str, run: Place) -> tuple[str, list[str]]:
    """Do an operation to `checkpoint_0` of a run.

    Returns:
        "right": everything is exactly what was saved; "other …": it is something else; "refused": one of Holdfast's
        errors; else what went wrong. And complaints.
    """
    state = blank_state()
    complaints: list[str] = []
    try:
        result = _do(operation, run, state, complaints)
    except HoldfastError as error:
        # Damage that only shows while the bytes are read may leave a target half loaded, unless "before" is asked for.
        late = operation == "load_params" and isinstance(error, CorruptCheckpointError)
        if not late and not _untouched(state):
            complaints.append("the target was touched")
        if len(str(error)) > 20_000:
            complaints.append(f"a message of {len(str(error))} characters")
        return "refused", complaints
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:200]}", complaints
    return result, complaints


def _do(operation: str, run: Place, state: dict[str, Any], complaints: list[str]) -> str:
    folder = run / "checkpoint_0"
    if operation == "verify":
        holdfast.verify(folder)
        return "right"
    if operation == "open":
        with holdfast.open(run, serial=0) as checkpoint:
            lazy = {name: np.array(checkpoint[name]) for name in checkpoint}
            rows = {name: checkpoint[name][1:3] for name in ("fc.w", "momentum") if name in checkpoint}
            read = checkpoint.read()
            described = {name: variable.shape for name, variable in checkpoint.variables.items()}
        if described.keys() != lazy.keys() or any(not _same(lazy[name], read[name]) for name in lazy):
            complaints.append("two ways to read disagree")
        if any(not _same(rows[name], lazy[name][1:3]) for name in rows):
            complaints.append("rows and the whole disagree")
        return _compare(lazy)
    if operation == "load_params":
        holdfast.load_params(state, folder)
        arrays = arrays_of(state)
        return _compare(arrays | {name: ARRAYS[name] for name in ARRAYS if name not in PARAMETERS})
    report = holdfast.load_checkpoint(state, run, serial=0, verify="before")
    if state["epoch"] != VALUES["epoch"] or report.trainer_args != TRAINER_ARGS:
        return f"other values: {state['epoch']!r:.60} {report.trainer_args!r:.100}"
    return _compare(arrays_of(state))


def _compare(arrays: dict[str, np.ndarray]) -> str:
    wrong = sorted(set(arrays) ^ set(ARRAYS)) + [n for n in ARRAYS if n in arrays and not _same(arrays[n], ARRAYS[n])]
    return f"other arrays: {wrong}" if wrong else "right"


def _untouched(state: dict[str, Any]) -> bool:
    return state["epoch"] == UNTOUCHED and all(_same(a, np.full_like(a, UNTOUCHED)) for a in arrays_of(state).values())
