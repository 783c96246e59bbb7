"""How a command ends: exit status, message, or the message as JSON. Knows no command.

0    done; nothing that was looked for was found wrong
1    found: `diff` found a difference, or damage was found (`verify`, or any command that met it)
2    usage: wrong arguments, nothing there of that name, or a target that would have to be overwritten
3    failed: the system refused an operation, or something else went wrong
130  interrupted
141  nobody reads the output any more
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from holdfast.cli.output import Output, OutputError
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignFolderError,
    FormatError,
    HoldfastError,
    MissingExtraError,
    VersionError,
)

DONE, FOUND, USAGE, FAILED, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141

_FIELDS = ("path", "variables", "errno", "filename", "needed_bytes", "free_bytes")


class UsageError(Exception):
    """The arguments make no sense together, or for what stands at the path."""


def status_of(error: BaseException) -> int:
    """The exit status for an error."""
    if isinstance(error, UsageError | CheckpointNotFoundError | ForeignFolderError | MissingExtraError):
        return USAGE
    if isinstance(error, VersionError):
        return FAILED  # nothing is wrong with the checkpoint
    if isinstance(error, CorruptCheckpointError | FormatError):
        return FOUND
    return FAILED


def described(error: BaseException) -> dict[str, Any]:
    """An error for programs: its type, its message, and those of its fields that are set."""
    fields = {name: getattr(error, name, None) for name in _FIELDS}
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
            if value is not None
        },
    }


def report(error: BaseException, out: Output) -> None:
    """Say what went wrong: in JSON on standard output if that was asked for, else on standard error."""
    if out.as_json:
        out.document({"error": described(error)})
    else:
        out.note(f"holdfast: {error}")


def _silence() -> None:
    """The interpreter flushes standard output once more at its end, and must find somebody who takes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def guarded(work: Callable[[Output], int], out: Output) -> int:
    """Run a command; returns the exit status. Expected errors end it with a message, all others with a traceback too."""
    try:
        status = work(out)
        out.flush()
    except BrokenPipeError:
        _silence()
        return UNREAD
    except OutputError as error:
        _silence()
        out.note(f"holdfast: {error}")
        return FAILED
    except KeyboardInterrupt:
        out.note("holdfast: interrupted")
        return INTERRUPTED
    except (HoldfastError, UsageError) as error:
        report(error, out)
        return status_of(error)
    except Exception as error:  # noqa: BLE001 - a traceback must not end with 1, which says "found"
        traceback.print_exc()
        if out.as_json:
            out.document({"error": described(error)})
        return FAILED
    return status
