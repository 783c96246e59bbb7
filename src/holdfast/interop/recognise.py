"""What a path holds, told from its content: which of the readers is the one for it."""

from __future__ import annotations

import os
from itertools import islice
from typing import Literal

from holdfast.errors import FormatError, StorageError
from holdfast.interop import checkpoint_tree, distcp, fluid_folder, lodtensor, pir, program_wire
from holdfast.interop.fluid_names import MODEL
from holdfast.interop.source import opened

Kind = Literal[
    "fluid-checkpoints", "fluid-checkpoint", "fluid-model", "fluid-variables", "fluid-combined", "fluid-tensor",
    "pdparams", "paddle-distributed", "program", "pir-program",
]  # fmt: skip
"""
fluid-checkpoints   a tree of `checkpoint_N` (`checkpoint_tree.read`)
fluid-checkpoint    one of them by itself (`checkpoint_tree.read_folder`)
fluid-model         a folder with the program in `__model__` (`fluid_folder.read_variables`)
fluid-variables     a folder with a file per variable (the same)
fluid-combined      a combined file, or a folder of such (`combined.read`); needs names from elsewhere
fluid-tensor        a file with one LoDTensor or SelectedRows
pdparams            a pickle of protocol 2 to 4: `.pdparams`, `.pdopt` (`pdparams.read`)
paddle-distributed  a folder of `paddle.distributed.save_state_dict` (`distcp.read`)
program             a ProgramDesc (`program_wire.read_file`)
pir-program         a program of Paddle 3 as JSON (`pir.parameters`)
"""

_LOOKED_AT = 10_000  # files of a folder; if none of these is Fluid's, the folder is something else


def recognise(path: str | os.PathLike[str]) -> Kind | None:
    """The kind of file or folder at a path, damaged or not; None if it is none of these. Tensors are not read, only headers.

    Raises:
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    if os.path.isdir(where):
        return _folder(where)
    return _file(where) if os.path.isfile(where) else None


def _folder(where: str) -> Kind | None:
    if checkpoint_tree.is_tree(where):
        return "fluid-checkpoints"
    if checkpoint_tree.is_checkpoint(where):
        return "fluid-checkpoint"
    if distcp.is_distributed(where):
        return "paddle-distributed"
    if os.path.isfile(os.path.join(where, MODEL)):
        return "fluid-model"
    combined = False
    for name in islice(fluid_folder.walk(where), _LOOKED_AT):
        if (kind := _records(os.path.join(where, name))) == "fluid-tensor":
            return "fluid-variables"
        combined |= kind == "fluid-combined"
    return "fluid-combined" if combined else None


def combined_files(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the combined files in a folder."""
    where = os.fspath(folder)
    return [n for n in fluid_folder.variable_names(where) if _records(os.path.join(where, n)) == "fluid-combined"]


def _file(where: str) -> Kind | None:
    with opened(where) as source:
        head = source.take(min(4, source.size), "the file")
    try:
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04"):
            return "pdparams"
        if head[:1] == b"{":
            pir.parameters(where)
            return "pir-program"
        if head == bytes(4):
            return _records(where)
        program_wire.read_file(where)
    except StorageError:
        raise
    except FormatError:
        return None
    return "program"


def _records(where: str) -> Kind | None:
    """A file that begins as records do. Damaged ones too: their readers say what is wrong with them."""
    count = 0
    if not os.path.isfile(where):  # a link to nowhere, a pipe
        return None
    try:
        with opened(where) as source:
            if source.take(min(4, source.size), "the file") != bytes(4):
                return None
            source.rewind()
            for _ in lodtensor.headers(source):
                count += 1
    except FormatError:
        pass
    return "fluid-combined" if count > 1 else "fluid-tensor"
