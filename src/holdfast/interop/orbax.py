"""Checkpoints of Orbax, through orbax-checkpoint: a tree of arrays, a step of several items, or a folder of such steps.

Arrays are read as NumPy's, whole, whatever devices they were spread over. Needs no device.

Source: orbax-checkpoint 0.12.8: PyTreeCheckpointer, StandardCheckpointer, CheckpointManager.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError, StorageError
from holdfast.interop import extras
from holdfast.interop.foreign import Held, collect
from holdfast.interop.source import check_memory, read_all

METADATA = "_METADATA"
STEP_METADATA = "_CHECKPOINT_METADATA"
_UNFINISHED = ".orbax-checkpoint-tmp"
_STEP = re.compile(r"(?:.*_)?([0-9]{1,18})", re.DOTALL)
_OTHER_ITEMS = (
    "ArrayCheckpointHandler",
    "RandomKeyCheckpointHandler",
    "JsonCheckpointHandler",
    "ProtoCheckpointHandler",
)
_ONLY_ITEM = "default"
_PARAMETERS = ("params", "batch_stats")
_MAX_METADATA_BYTES = 1 << 30
_MOST = 10_000_000  # leaves


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a tree of arrays, or a step with items, finished or not."""
    where = os.fspath(path)
    return any(os.path.isfile(os.path.join(where, name)) for name in (METADATA, STEP_METADATA)) or bool(_items(where))


def steps(path: str | os.PathLike[str]) -> dict[int, str]:
    """The finished steps of a folder of CheckpointManager, ascending, and the names of their folders."""
    where = os.fspath(path)
    try:
        names = os.listdir(where)
    except OSError:
        return {}
    found = [(int(match[1]), name) for name in names if (match := _STEP.fullmatch(name))]
    return {step: name for step, name in sorted(found) if is_checkpoint(os.path.join(where, name))}


def read_step(path: str | os.PathLike[str], step: int | None = None) -> tuple[int, Held]:
    """A step of a folder of CheckpointManager; None for the newest.

    Raises:
        CheckpointNotFoundError: there is no such step.
        FormatError, MissingExtraError, UnsupportedVariableError: as `read`.
    """
    where = os.fspath(path)
    there = steps(where)
    if not there or (step is not None and step not in there):
        raise CheckpointNotFoundError(f"{where} has no step {'' if step is None else step}; there are {list(there)}")
    chosen = max(there) if step is None else step
    return chosen, read(os.path.join(where, there[chosen]))


def read(path: str | os.PathLike[str]) -> Held:
    """A tree of arrays, or a step with its items; of several items the names begin with the item's.

    Where there are `params`, as in Flax's TrainState, only these and `batch_stats` are parameters. Items that are no trees of
    arrays are left out, by name.

    Raises:
        CheckpointNotFoundError: the save was never finished, or there is no tree of arrays.
        FormatError: it is damaged.
        MissingExtraError: orbax-checkpoint is not installed.
        StorageError: this machine has not the memory for it.
    """
    where = os.path.abspath(path)
    if _UNFINISHED in where:
        raise CheckpointNotFoundError(f"{where} is a save of Orbax that was never finished")
    if os.path.isfile(os.path.join(where, METADATA)):
        return _tree(where)
    items = _items(where)
    if not items:
        raise CheckpointNotFoundError(f"{where} holds no tree of arrays: there is no {METADATA}")
    # An array that stands alone, or the key of a generator, is saved in a form of its own.
    items = [name for name in items if not _handler(where, name).endswith(_OTHER_ITEMS)]
    left_out = [
        f"item {name}"
        for name in sorted(os.listdir(where))
        if name not in items and os.path.isdir(os.path.join(where, name))
    ]
    if items == [_ONLY_ITEM]:
        only = _tree(os.path.join(where, _ONLY_ITEM))
        return Held(only.arrays, only.others, [*only.left_out, *left_out], only.values)
    made = Held({})
    for item in items:
        found = _tree(os.path.join(where, item))
        made.arrays.update({f"{item}.{name}": array for name, array in found.arrays.items()})
        made.values.update({f"{item}.{name}": value for name, value in found.values.items()})
        made.others.update(f"{item}.{name}" for name in found.others)
        made.left_out.extend(f"{what} (of item {item})" for what in found.left_out)
    made.left_out.extend(left_out)
    return made


def _items(where: str) -> list[str]:
    try:
        names = sorted(os.listdir(where))
    except OSError:
        return []
    return [n for n in names if _UNFINISHED not in n and os.path.isfile(os.path.join(where, n, METADATA))]


def _tree(where: str) -> Held:
    with extras.needed("orbax", where):
        import orbax.checkpoint as ocp
    _check_names(where)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            described = checkpointer.metadata(where).item_metadata
            # TensorStore ends the process if it cannot have the memory.
            check_memory(0 if described is None else _nbytes(described.tree), where)
            wanted = _restore_args(described.tree, ocp.RestoreArgs) if described is not None else None
            tree = checkpointer.restore(where, restore_args=wanted)
    except StorageError:
        raise
    except Exception as error:  # what comes out of damaged files is of any class
        said = str(error).strip().partition("\n")[0][:300]
        raise FormatError(f"{where}: Orbax cannot read it: {type(error).__name__}: {said}") from error
    found = collect(tree, _MOST, where, array_of=_array)
    roots = {name.partition(".")[0] for name in found.arrays}
    others = {n for n in found.arrays if n.partition(".")[0] not in _PARAMETERS} if "params" in roots else set()
    # Orbax puts None where a tree has a part without leaves, such as a state of optax that is empty.
    values = {name: value for name, value in found.values.items() if not _is_empty(value)}
    return Held(found.arrays, others, found.left_out, values)


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None


def _handler(where: str, item: str) -> str:
    """The class that saved an item of a step, if the step says it."""
    path = os.path.join(where, STEP_METADATA)
    if not os.path.isfile(path):
        return ""
    try:
        found = json.loads(read_all(path, _MAX_METADATA_BYTES))["item_handlers"]
        return str(found.get(item, "")) if isinstance(found, dict) else ""
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is cut off or malformed: {error!r}") from error


def _array(leaf: Any) -> np.ndarray | None:
    return np.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else None


def _check_names(where: str) -> None:
    """Before Orbax sees them: a name can become a path."""
    path = os.path.join(where, METADATA)
    try:
        entries = json.loads(read_all(path, _MAX_METADATA_BYTES))["tree_metadata"].values()
        names = [str(key["key"]) for entry in entries for key in entry["key_metadata"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is cut off or malformed: {error!r}") from error
    for name in names:
        if ".." in name.split("/") or name.startswith("/") or "\0" in name:
            raise FormatError(f"{path}: the name {name[:100]!r} would leave the folder")


def _nbytes(node: Any) -> int:
    """What the arrays that a tree of metadata describes take."""
    if isinstance(node, dict | list | tuple):
        return sum(map(_nbytes, node.values() if isinstance(node, dict) else node))
    shape, dtype = getattr(node, "shape", None), getattr(node, "dtype", None)
    return 0 if shape is None or dtype is None else math.prod(shape) * np.dtype(dtype).itemsize


def _restore_args(node: Any, make: Any) -> Any:
    """The tree of metadata with arguments in place of its leaves: whatever has a shape becomes an array of NumPy."""
    if isinstance(node, dict):
        return {key: _restore_args(item, make) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_restore_args(item, make) for item in node)
    if node is None:
        return None
    return make(restore_type=np.ndarray) if getattr(node, "shape", None) is not None else make()
