"""Checkpoints of Orbax, through orbax-checkpoint: a tree of arrays, a step of several items, or a folder of such steps.

Arrays are read as NumPy's, whole, whatever devices they were spread over. Needs no device.

Source: orbax-checkpoint 0.12.8: PyTreeCheckpointer, StandardCheckpointer, CheckpointManager.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np

from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.interop import extras
from holdfast.interop.foreign import Held, flatten
from holdfast.interop.source import read_all

METADATA = "_METADATA"
STEP_METADATA = "_CHECKPOINT_METADATA"
_UNFINISHED = ".orbax-checkpoint-tmp"
_STEP = re.compile(r"(?:.*_)?(0|[1-9][0-9]{0,17})", re.DOTALL)
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
    found = {int(match[1]): name for name in names if (match := _STEP.fullmatch(name))}
    return {step: found[step] for step in sorted(found) if is_checkpoint(os.path.join(where, found[step]))}


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

    Where there are `params`, as in Flax's TrainState, only these and `batch_stats` are parameters. Texts, and items
    that are no trees of arrays, are left out, by name.

    Raises:
        CheckpointNotFoundError: the save was never finished, or there is no tree of arrays.
        FormatError: it is damaged.
        MissingExtraError: orbax-checkpoint is not installed.
    """
    where = os.path.abspath(path)
    if _UNFINISHED in where:
        raise CheckpointNotFoundError(f"{where} is a save of Orbax that was never finished")
    if os.path.isfile(os.path.join(where, METADATA)):
        return _tree(where)
    items = _items(where)
    if not items:
        raise CheckpointNotFoundError(f"{where} holds no tree of arrays: there is no {METADATA}")
    left_out = [
        f"item {name}"
        for name in sorted(os.listdir(where))
        if name not in items and os.path.isdir(os.path.join(where, name))
    ]
    if items == [_ONLY_ITEM]:
        only = _tree(os.path.join(where, _ONLY_ITEM))
        return Held(only.arrays, only.others, [*only.left_out, *left_out])
    made = Held({}, set(), [])
    for item in items:
        found = _tree(os.path.join(where, item))
        made.arrays.update({f"{item}.{name}": array for name, array in found.arrays.items()})
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
            wanted = _restore_args(described.tree, ocp.RestoreArgs) if described is not None else None
            tree = checkpointer.restore(where, restore_args=wanted)
    except Exception as error:  # what comes out of damaged files is of any class
        said = str(error).strip().partition("\n")[0][:300]
        raise FormatError(f"{where}: Orbax cannot read it: {type(error).__name__}: {said}") from error
    flat = flatten(
        tree, lambda leaf: np.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else None, _MOST, where
    )
    roots = {name.partition(".")[0] for name in flat.arrays}
    others = {n for n in flat.arrays if n.partition(".")[0] not in _PARAMETERS} if "params" in roots else set()
    return Held(flat.arrays, others, [f"value {name}" for name in flat.values])


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


def _restore_args(node: Any, make: Any) -> Any:
    """The tree of metadata with arguments in place of its leaves: whatever has a shape becomes an array of NumPy."""
    if isinstance(node, dict):
        return {key: _restore_args(item, make) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_restore_args(item, make) for item in node)
    if node is None:
        return None
    return make(restore_type=np.ndarray) if getattr(node, "shape", None) is not None else make()
