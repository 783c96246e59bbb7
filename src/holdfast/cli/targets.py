"""What the paths on a command line mean: `DIR`, `DIR@SERIAL`, a checkpoint's own folder, or a `.safetensors` file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from holdfast.cli.exits import UsageError
from holdfast.engine.catalog import meant
from holdfast.errors import CheckpointNotFoundError
from holdfast.format import layout
from holdfast.storage import resolve

_WITH_SERIAL = re.compile(r"(.+)@(0|[1-9][0-9]{0,17})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A path and, if one was given, a serial.

    Attributes:
        path: without the serial.
        serial: which checkpoint of a run.
        kind: what stands there: a run folder (or any other), a folder that is a checkpoint itself, a file, or nothing.
    """

    path: str
    serial: int | None
    kind: Literal["run", "checkpoint", "file", "nothing"]


def target(text: str) -> Target:
    """The target that a command line means.

    A trailing `@` and digits are a serial, unless something of exactly this name exists.

    Raises:
        UsageError: it can be no path, or a serial within what is no run.
    """
    path_of(text)
    match = _WITH_SERIAL.fullmatch(text)
    path, serial = (match[1], int(match[2])) if match and not os.path.lexists(text) else (text, None)
    kind = _kind(path)
    if serial is None and kind in ("run", "checkpoint"):
        # A run's checkpoint by its own path is the same as by its serial, also if it lacks its manifest.
        folder = os.path.realpath(path)
        own = layout.serial_of(os.path.basename(folder))
        if own is not None and not _holds_checkpoints(folder):
            return Target(os.path.dirname(folder), own, "run")
    if serial is not None and kind == "file":
        raise UsageError(f"{path} is a file; only the checkpoints of a run have serials")
    if serial is not None and kind == "checkpoint":
        raise UsageError(f"{path} is a single checkpoint; only the checkpoints of a run have serials")
    return Target(path, serial, kind)


def path_of(text: str) -> str:
    """The text, if it can be a path.

    Raises:
        UsageError: it is empty, such as `"$RUN"` where nothing is set, or a URL.
    """
    try:
        resolve(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return text


def _kind(path: str) -> Literal["run", "checkpoint", "file", "nothing"]:
    if os.path.isfile(path):
        return "file"
    if os.path.lexists(os.path.join(path, layout.MANIFEST)):
        return "checkpoint"
    return "run" if os.path.isdir(path) else "nothing"


def _holds_checkpoints(folder: str) -> bool:
    try:
        return any(layout.serial_of(name) is not None for name in os.listdir(folder))
    except OSError:
        return False


def run_folder(text: str, command: str) -> str:
    """The path of a run folder, for a command that is about all of its checkpoints.

    Raises:
        UsageError: it is a single checkpoint or a file, or a serial was given.
        CheckpointNotFoundError: there is nothing.
    """
    found = target(text)
    if found.kind == "nothing":
        raise CheckpointNotFoundError(f"{found.path} does not exist{meant(resolve(found.path))}")
    if found.serial is not None or found.kind != "run":
        raise UsageError(
            f"{command} takes a run folder; {text} is {'a file' if found.kind == 'file' else 'one checkpoint'}"
        )
    return found.path


def one_of_run(text: str, command: str) -> tuple[str, int]:
    """The run folder and the serial, for a command that changes one checkpoint of a run and must not guess which.

    Raises:
        UsageError: no serial was given, and the path is not that of a run's checkpoint.
        CheckpointNotFoundError: there is nothing.
    """
    found = target(text)
    if found.kind == "nothing":
        raise CheckpointNotFoundError(f"{found.path} does not exist{meant(resolve(found.path))}")
    if found.serial is None:
        raise UsageError(
            f"which checkpoint? Say holdfast {command} {text}@SERIAL; 'holdfast ls' lists the serials of a run"
        )
    return found.path, found.serial
