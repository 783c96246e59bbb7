"""Errors of `fluid.io`: the core's, and each also a `core.EnforceNotMet`, which is what programs of Fluid catch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast import errors
from holdfast.fluid.core import EnforceNotMet


class CheckpointNotFoundError(errors.CheckpointNotFoundError, EnforceNotMet):
    """See the core's class."""


class ModelFolderError(CheckpointNotFoundError, ValueError):
    """`load_inference_model` was given a folder that does not exist; Fluid has a ValueError for that."""


class FormatError(errors.FormatError, EnforceNotMet):
    """See the core's class."""


class VersionError(errors.VersionError, EnforceNotMet):
    """See the core's class."""


class CorruptCheckpointError(errors.CorruptCheckpointError, EnforceNotMet):
    """See the core's class."""


class MismatchError(errors.MismatchError, EnforceNotMet):
    """See the core's class."""


class UnsupportedVariableError(errors.UnsupportedVariableError, EnforceNotMet):
    """See the core's class."""


class ForeignFolderError(errors.ForeignFolderError, EnforceNotMet):
    """See the core's class."""


class StorageError(errors.StorageError, EnforceNotMet):
    """See the core's class."""


class DiskFullError(errors.DiskFullError, EnforceNotMet):
    """See the core's class."""


_ENFORCED: dict[type, type[errors.HoldfastError]] = {
    kind.__bases__[0]: kind
    for kind in (
        CheckpointNotFoundError,
        FormatError,
        VersionError,
        CorruptCheckpointError,
        MismatchError,
        UnsupportedVariableError,
        ForeignFolderError,
        StorageError,
        DiskFullError,
    )
}


@contextlib.contextmanager
def enforced() -> Iterator[None]:
    """Let the core's errors leave the block as the classes of this module."""
    try:
        yield
    except errors.HoldfastError as error:
        # The same object: a new one raised from it would show everything twice.
        error.__class__ = _ENFORCED.get(type(error), type(error))
        raise
