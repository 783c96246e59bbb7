"""Holdfast saves the variables of a model or a training run, and gives them back exactly."""

from holdfast._version import __version__
from holdfast.adapters.global_random import global_random
from holdfast.adapters.state import parameters, temporary
from holdfast.engine.handle import SaveHandle
from holdfast.engine.progress import Progress
from holdfast.engine.report import LoadedVariable, LoadReport
from holdfast.errors import (
    CastError,
    CheckpointNotFoundError,
    ClosedError,
    CorruptCheckpointError,
    DiskFullError,
    ForeignFolderError,
    FormatError,
    HoldfastError,
    MismatchError,
    MissingExtraError,
    RestoreError,
    StorageError,
    UnsupportedVariableError,
    VersionError,
)
from holdfast.loading import load_checkpoint, load_params, load_persistables, load_vars
from holdfast.manager import CheckpointManager
from holdfast.reading import Checkpoint, LazyVariable, open
from holdfast.runs import VerifyReport, clean_checkpoint, export, latest_serial, pin, prune, serials, unpin, verify
from holdfast.saving import save_checkpoint, save_params, save_persistables, save_vars
from holdfast.storage import LocalStore, Location, MemoryStore
from holdfast.variables import Variable, is_checkpoint_variable, is_parameter, is_persistable, select

__all__ = [
    "CastError",
    "Checkpoint",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "ClosedError",
    "CorruptCheckpointError",
    "DiskFullError",
    "ForeignFolderError",
    "FormatError",
    "HoldfastError",
    "LazyVariable",
    "LoadReport",
    "LoadedVariable",
    "LocalStore",
    "Location",
    "MemoryStore",
    "MismatchError",
    "MissingExtraError",
    "Progress",
    "RestoreError",
    "SaveHandle",
    "StorageError",
    "UnsupportedVariableError",
    "Variable",
    "VerifyReport",
    "VersionError",
    "__version__",
    "clean_checkpoint",
    "export",
    "global_random",
    "is_checkpoint_variable",
    "is_parameter",
    "is_persistable",
    "latest_serial",
    "load_checkpoint",
    "load_params",
    "load_persistables",
    "load_vars",
    "open",
    "parameters",
    "pin",
    "prune",
    "save_checkpoint",
    "save_params",
    "save_persistables",
    "save_vars",
    "select",
    "serials",
    "temporary",
    "unpin",
    "verify",
]
