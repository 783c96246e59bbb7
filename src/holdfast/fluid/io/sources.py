"""What a load reads from: Holdfast's own folders and files, and everything that Fluid and Paddle wrote, recognised by itself.

Every source compares all variables with the program before it reads one, and gives new arrays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import holdfast
from holdfast import dtypes
from holdfast.errors import CheckpointNotFoundError, FormatError, MismatchError, Problem
from holdfast.fluid import core
from holdfast.fluid.framework import Variable
from holdfast.fluid.io.held import described, shape_fits, shifted_names_hint
from holdfast.format import layout
from holdfast.interop import checkpoint_tree, combined, fluid_folder, fluid_names, pdparams
from holdfast.interop.expected import Expected, Value
from holdfast.interop.lodtensor import LoDTensor


class Source(Protocol):
    """Values by name.

    Attributes:
        path: the file or folder, for messages and for `loaded_from`.
        names: what is there; None for a combined file, which has no names.
        parameters: those of them that are known to be parameters.
    """

    path: str
    names: frozenset[str] | None
    parameters: frozenset[str]

    def read(self, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
        """The values of variables as new arrays; what else there is stays where it is.

        Raises:
            MismatchError: variables are missing, or have another dtype or shape; all are listed.
            FormatError, CorruptCheckpointError: a file is damaged.
            StorageError: the system refused to read.
        """

    def read_all(self) -> dict[str, LoDTensor]:
        """Every value as a new array.

        Raises:
            FormatError, CorruptCheckpointError: a file is damaged, or has no names in it.
            StorageError: the system refused to read.
        """


class OfHoldfast:
    """An open checkpoint, `save_params` folder or safetensors file of the core."""

    def __init__(self, checkpoint: holdfast.Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.path = checkpoint.path
        found = checkpoint.variables
        self.names: frozenset[str] | None = frozenset(found)
        self.parameters = frozenset(n for n, v in found.items() if v.kind == "parameter")

    def read(self, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
        """See `Source.read`."""
        found = self._checkpoint.variables
        check(
            self.path, wanted, {n: (dtypes.to_numpy(v.dtype), v.shape) for n, v in found.items()}
        )  # before a byte is read
        return {name: LoDTensor(a) for name, a in self._checkpoint.read([v.name for v in wanted]).items()}

    def read_all(self) -> dict[str, LoDTensor]:
        """See `Source.read_all`."""
        return {name: LoDTensor(array) for name, array in self._checkpoint.read().items()}

    def trainer(self, trainer_id: int) -> tuple[Any, dict[str, Any]]:
        """A trainer's arguments, and the values that were saved beside the variables."""
        return self._checkpoint.trainer(trainer_id)


class OfFolder:
    """A folder of Fluid with a file for every variable."""

    parameters: frozenset[str] = frozenset()

    def __init__(self, folder: str) -> None:
        self.path = folder
        self.names: frozenset[str] | None = frozenset(fluid_folder.variable_names(folder))

    def read(self, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
        """See `Source.read`."""
        with _hinted(self.names):
            names = [v.name for v in wanted]
            return _dense(fluid_folder.read_variables(self.path, names, expected=expectations(wanted)))

    def read_all(self) -> dict[str, LoDTensor]:
        """See `Source.read_all`."""
        return _dense(fluid_folder.read_variables(self.path, sorted(self.names or ())))


class OfCombined:
    """A combined file of Fluid. It has no names: what is wanted must be all that is in it."""

    parameters: frozenset[str] = frozenset()
    names: frozenset[str] | None = None

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
        """See `Source.read`."""
        return combined.read(self.path, [v.name for v in wanted], expected=expectations(wanted))

    def read_all(self) -> dict[str, LoDTensor]:
        """See `Source.read_all`."""
        raise FormatError(
            f"{self.path} is a combined file of Fluid: it has no names in it. Give the variables that it holds"
        )


class OfPickles:
    """`.pdparams` and `.pdopt` files: every file that is given, as one."""

    parameters: frozenset[str] = frozenset()

    def __init__(self, *paths: str) -> None:
        self.path = paths[0]
        self._arrays: dict[str, np.ndarray] = {}
        for path in paths:
            self._arrays |= pdparams.read(path).arrays
        self.names: frozenset[str] | None = frozenset(self._arrays)

    def read(self, wanted: Sequence[Variable]) -> dict[str, LoDTensor]:
        """See `Source.read`."""
        bfloat16 = core.to_numpy(core.VarType.BF16)
        for v in wanted:
            array = self._arrays.get(v.name)
            # Paddle writes bfloat16 as uint16, without a mark: the program is what knows.
            if array is not None and array.dtype == np.uint16 and v.dtype == core.VarType.BF16:
                self._arrays[v.name] = array.view(bfloat16)
        check(self.path, wanted, {n: (a.dtype, a.shape) for n, a in self._arrays.items()})
        return {v.name: LoDTensor(self._arrays[v.name]) for v in wanted}

    def read_all(self) -> dict[str, LoDTensor]:
        """See `Source.read_all`."""
        return {name: LoDTensor(array) for name, array in self._arrays.items()}


def check(path: str, wanted: Sequence[Variable], found: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
    """Compare what a program expects with what there is.

    Raises:
        MismatchError: variables are missing, or have another dtype or shape; all are listed.
    """
    problems = []
    for v in wanted:
        if v.name not in found:
            problems.append(Problem("missing", v.name, f"{v.name!r} is missing"))
            continue
        dtype, shape = found[v.name]
        expected = None if v.dtype is None else core.to_numpy(v.dtype)
        text = (
            f"{v.name!r}: the file holds {described(dtype, shape)}, the program expects {described(expected, v.shape)}"
        )
        if not shape_fits(shape, v.shape):
            problems.append(Problem("shape", v.name, text))
        elif expected is not None and dtype != expected:
            problems.append(Problem("dtype", v.name, text))
    if problems:
        asked = {v.name for v in wanted}
        missing = [p.name for p in problems if p.kind == "missing"]
        raise MismatchError(path, problems, _hints(missing, [n for n in found if n not in asked]))


def _hints(missing: Sequence[str], others: Sequence[str]) -> list[str]:
    if not missing:
        return []
    shown = ", ".join(map(repr, sorted(others)[:10])) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
    there = [f"There is also {shown}"] if others else []
    return [*there, *shifted_names_hint(missing, others)]


@contextlib.contextmanager
def _hinted(names: frozenset[str] | None) -> Iterator[None]:
    try:
        yield
    except MismatchError as error:
        hints = shifted_names_hint(error.named("missing"), names or ())
        if not hints:
            raise
        raise MismatchError(error.source, error.problems, [*error.hints, *hints]) from error


def expectations(wanted: Sequence[Variable]) -> dict[str, Expected]:
    """What a program says of its variables, for Fluid's files."""
    return {
        v.name: Expected(None if v.dtype is None else core.to_numpy(v.dtype), v.shape, "lod_tensor") for v in wanted
    }


def _dense(values: Mapping[str, Value]) -> dict[str, LoDTensor]:
    return {name: v for name, v in values.items() if isinstance(v, LoDTensor)}


def place_of(dirname: str | os.PathLike[str] | None, filename: str | None) -> str:
    """Where a save goes: the folder itself, or what `filename` names in it.

    Raises:
        ValueError: there is no name, or `filename` leads out of the folder.
    """
    where = "" if dirname is None else os.fspath(dirname)
    if filename is None:
        if not where:
            raise ValueError("dirname must name a folder")
        return where
    inside = fluid_names.relative_path(filename) if where else filename
    if inside is None:
        raise ValueError(f"filename={filename!r} leads out of {where}")
    return os.path.join(where, inside)


@contextlib.contextmanager
def opened(dirname: str | os.PathLike[str] | None, filename: str | None = None) -> Iterator[Source]:
    """The source at a place, whoever wrote it.

    Raises:
        CheckpointNotFoundError: there is nothing that could be read; the message says what there is.
    """
    path = place_of(dirname, filename)
    if _is_holdfast(path):
        with holdfast.open(path) as checkpoint:
            yield OfHoldfast(checkpoint)
    elif pickles := _pickles(path):
        yield OfPickles(*pickles)
    elif os.path.isfile(path):
        yield OfCombined(path)
    elif os.path.isdir(path):
        yield OfFolder(_fluid_folder(path))
    else:
        raise CheckpointNotFoundError(_nothing(path, dirname, filename))


def _is_holdfast(path: str) -> bool:
    if os.path.isfile(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return file.read(9)[8:] == b"{"  # a safetensors header; Fluid's files begin with zeros there
        return False
    if os.path.isfile(os.path.join(path, layout.MANIFEST)):
        return True
    return os.path.isdir(path) and bool(holdfast.serials(path))


def _pickles(path: str) -> list[str]:
    if path.endswith((".pdparams", ".pdopt")) and os.path.isfile(path):
        return [path]
    return [path + end for end in (".pdparams", ".pdopt") if os.path.isfile(path + end)] if path else []


def _fluid_folder(path: str) -> str:
    """The folder with the variables: in a tree of checkpoints that of the newest complete one."""
    if checkpoint_tree.is_checkpoint(path):
        return os.path.join(path, fluid_names.MODEL)
    if serials := checkpoint_tree.serials(path):
        return os.path.join(path, layout.checkpoint_folder(serials[-1]), fluid_names.MODEL)
    if not fluid_folder.variable_names(path):
        raise CheckpointNotFoundError(f"{path} holds no variables")
    return path


def _nothing(path: str, dirname: object, filename: str | None) -> str:
    text = f"{path} does not exist"
    if filename is not None and dirname and os.path.isdir(str(dirname)):
        there = sorted(os.listdir(str(dirname)))
        text += f"; {dirname} holds {', '.join(there[:10]) or 'nothing'}"
    return text


def saved_names(dirname: str | os.PathLike[str], filename: str | None = None) -> frozenset[str]:
    """The names of the variables in a folder or file, whoever wrote it: for predicates of `load_vars`.

    Raises:
        CheckpointNotFoundError: there is nothing that could be read.
        FormatError: it is a combined file of Fluid, which has no names.

    Example:
        >>> import holdfast
        >>> import numpy as np
        >>> import holdfast.fluid as fluid
        >>> holdfast.save_params({"fc_0.w_0": np.zeros((2, 3), np.float32)}, "pretrained")
        >>> sorted(fluid.io.saved_names("pretrained"))
        ['fc_0.w_0']
    """
    with opened(dirname, filename) as source:
        if source.names is None:
            raise FormatError(f"{source.path} is a combined file of Fluid: it has no names in it")
        return source.names
