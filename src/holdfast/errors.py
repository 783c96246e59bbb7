"""Every error that Holdfast raises, as one tree.

HoldfastError
├── CheckpointNotFoundError (FileNotFoundError)   there is no complete checkpoint where one was asked for
├── FormatError (ValueError)                      a manifest, header or trainer file breaks the specification
│   └── VersionError                              it was written by a newer major version
├── CorruptCheckpointError (ValueError)           the bytes are not the bytes that were saved
├── MismatchError (ValueError)                    names, shapes or dtypes of checkpoint and target differ
├── CastError (ValueError)                        a requested cast would change a value beyond rounding
├── UnsupportedVariableError (TypeError)          a state holds something that no checkpoint can hold
├── ForeignFolderError (FileExistsError)          a folder that is not Holdfast's own would be replaced
├── StorageError (OSError)                        the operating system refused an operation
│   └── DiskFullError                             there is not enough space
├── RestoreError (RuntimeError)                   checkpoints exist, and none of them can be restored
├── ClosedError (ValueError)                      a checkpoint is used after it was closed
└── MissingExtraError (ImportError)               an optional dependency is not installed

Each class is also the builtin that a caller would expect. Messages name the variable or file, what was expected, what was
found and what to do; the fields hold the same for programs.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_FIELDS_OF_BUILTINS = ("errno", "strerror", "filename", "filename2", "name", "path")  # of OSError and ImportError


class HoldfastError(Exception):
    """Root of all errors of this library. They can be pickled: process pools hang on errors that cannot."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by a call of the class with `args`, as exceptions do it: their arguments here are others than `args`.
        held = {field: getattr(self, field, None) for field in _FIELDS_OF_BUILTINS}
        known = {field: value for field, value in held.items() if value is not None}
        return _rebuilt, (type(self), self.args), {**known, **vars(self)}


def _rebuilt(kind: type[HoldfastError], args: tuple[Any, ...]) -> HoldfastError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class CheckpointNotFoundError(HoldfastError, FileNotFoundError):
    """There is no complete checkpoint at this place."""


class FormatError(HoldfastError, ValueError):
    """A file breaks the format's specification (docs/format.md)."""


class VersionError(FormatError):
    """A file was written by a newer major version of the format."""


class CorruptCheckpointError(HoldfastError, ValueError):
    """A digest does not match: the bytes are not those that were saved.

    Attributes:
        path: the damaged file.
        variables: names of the variables whose bytes are damaged; empty if none is.
    """

    def __init__(self, message: str, *, path: str, variables: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.variables = tuple(variables)


ProblemKind = Literal["missing", "unexpected", "shape", "dtype", "kind", "unwritable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference between a checkpoint and the target of a load."""

    kind: ProblemKind
    name: str
    message: str


class MismatchError(HoldfastError, ValueError):
    """Checkpoint and target differ; the target is as it was before the load.

    Attributes:
        problems: every difference found, not only the first.
    """

    SHOWN = 50  # a model under another name differs in every variable; the message shows the first of them

    def __init__(self, source: str, problems: Sequence[Problem], hints: Sequence[str] = ()) -> None:
        self.source = source
        self.problems = tuple(problems)
        self.hints = tuple(hints)
        count = len(self.problems)
        lines = [f"{source} does not match its target in {count} place{'s' * (count != 1)}; nothing was loaded:"]
        lines += [f"  {p.message}" for p in self.problems[: self.SHOWN]]
        if count > self.SHOWN:
            lines.append(f"  … and {count - self.SHOWN} more (all of them in .problems)")
        super().__init__("\n".join([*lines, *self.hints]))

    def named(self, kind: ProblemKind) -> list[str]:
        """Names of the variables with this kind of problem."""
        return [p.name for p in self.problems if p.kind == kind]


class CastError(HoldfastError, ValueError):
    """A cast that was asked for would lose more than precision: a value overflows or wraps."""


class UnsupportedVariableError(HoldfastError, TypeError):
    """A state or a file of others holds leaves that no checkpoint can hold; nothing was written, and no state changed.

    Attributes:
        reasons: name of the leaf → why.
    """

    def __init__(
        self, reasons: dict[str, str], source: str = "this state cannot be saved; nothing was written"
    ) -> None:
        self.reasons = dict(reasons)
        lines = [f"  {name!r}: {reason}" for name, reason in self.reasons.items()]
        super().__init__("\n".join([f"{source}:", *lines]))


class ForeignFolderError(HoldfastError, FileExistsError):
    """The target holds something that Holdfast did not write and would have to replace."""


class StorageError(HoldfastError, OSError):
    """An operation on files failed; `errno` is the system's, `__cause__` the original error."""

    def __str__(self) -> str:
        # OSError writes its number and file name in its own way, once these attributes are set.
        return str(self.args[0]) if self.args else ""

    @classmethod
    def of(cls, error: OSError, doing: str) -> StorageError:
        """The StorageError for `error`, which came up while `doing`; raise it `from` that error."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        made = (DiskFullError if full else cls)(f"{doing}: {error.strerror or error}")
        made.errno, made.filename = error.errno, error.filename
        return made


class DiskFullError(StorageError):
    """There is not enough space; older checkpoints are untouched.

    Attributes:
        needed_bytes: size of what was to be written; None if not known.
        free_bytes: free space when that was found out; None if not known.
    """

    def __init__(self, message: str, *, needed_bytes: int | None = None, free_bytes: int | None = None) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class RestoreError(HoldfastError, RuntimeError):
    """Checkpoints exist, and not one of them could be restored.

    Attributes:
        attempts: (serial, error) for every checkpoint that was tried, the newest first.
    """

    def __init__(self, message: str, attempts: Sequence[tuple[int, Exception]]) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)


class ClosedError(HoldfastError, ValueError):
    """The checkpoint was closed before this read."""


class MissingExtraError(HoldfastError, ImportError):
    """An optional dependency is needed; the message has the command that installs it."""
