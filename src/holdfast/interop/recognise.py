"""What a path holds, told from its content: which of the readers is the one for it. Loads no library."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from itertools import islice
from typing import Literal

from holdfast.errors import FormatError, HoldfastError, StorageError
from holdfast.format import layout
from holdfast.format.safetensors import MAX_HEADER_BYTES
from holdfast.interop import (
    checkpoint_tree,
    dcp,
    distcp,
    fluid_folder,
    huggingface,
    lodtensor,
    orbax,
    pir,
    program_wire,
    safetensors_files,
    torch_archive,
)
from holdfast.interop.fluid_names import MODEL
from holdfast.interop.source import opened

Kind = Literal[
    "fluid-checkpoints", "fluid-checkpoint", "fluid-model", "fluid-variables", "fluid-combined", "fluid-tensor",
    "pdparams", "paddle-distributed", "program", "pir-program",
    "torch", "dcp", "safetensors", "huggingface", "npz", "npy", "orbax", "orbax-steps",
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
torch               a file of `torch.save` (`torch_files.read`)
dcp                 a folder of `torch.distributed.checkpoint` (`dcp.read`)
safetensors         a safetensors file (`huggingface.read_file`)
huggingface         a folder with such files or `pytorch_model.bin`, or an index of them (`huggingface.read_folder`, `read_index`)
npz                 a file of `numpy.savez` (`npz.read`)
npy                 a file of `numpy.save` (`npz.read_npy`)
orbax               a tree of arrays, or a step with several, of Orbax (`orbax.read`)
orbax-steps         a folder of such steps (`orbax.read_step`)
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
    if (kind := _marked(where)) is not None:
        return kind
    combined = False
    for name in islice(fluid_folder.walk(where), _LOOKED_AT):
        if (found := _records(os.path.join(where, name))) == "fluid-tensor":
            return "fluid-variables"
        combined |= found == "fluid-combined"
    return "fluid-combined" if combined else None


def _marked(where: str) -> Kind | None:
    """A folder that the names in it tell: no file is opened."""
    kinds: dict[Kind, Callable[[str], object]] = {
        "fluid-checkpoints": checkpoint_tree.is_tree,
        "fluid-checkpoint": checkpoint_tree.is_checkpoint,
        "dcp": dcp.is_dcp,  # before Paddle's, whose names are like its own
        "paddle-distributed": distcp.is_distributed,
        "huggingface": huggingface.is_folder,
        "orbax": orbax.is_checkpoint,
        "orbax-steps": orbax.steps,
        "fluid-model": lambda folder: os.path.isfile(os.path.join(folder, MODEL)),
    }
    return next((kind for kind, is_it in kinds.items() if is_it(where)), None)


def advice(path: str | os.PathLike[str]) -> str:
    """A sentence for one who took a file of others for one of ours, or nothing."""
    where = os.fspath(path)
    try:
        kind = _marked(where) if os.path.isdir(where) else recognise(where)
    except HoldfastError:
        return ""
    if kind is None or kind == "safetensors" or os.path.lexists(os.path.join(where, layout.MANIFEST)):
        return ""  # a damaged file of ours is not of others
    if kind == "huggingface" and layout.serial_of(os.path.basename(os.path.realpath(where))) is not None:
        return ""  # a save of ours that was never completed
    return f" ({where} is of another library: {kind}; 'holdfast convert {where} DST' makes a folder of it)"


def combined_files(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the combined files in a folder."""
    where = os.fspath(folder)
    return [n for n in fluid_folder.variable_names(where) if _records(os.path.join(where, n)) == "fluid-combined"]


def _file(where: str) -> Kind | None:
    with opened(where) as source:
        head = source.take(min(32, source.size), "the file")
    if where.endswith(safetensors_files.ENDING) or _is_safetensors(head):
        return "safetensors"
    if huggingface.is_index(where):
        return "huggingface"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _archive(where)
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if torch_archive.is_legacy(head):
        return "torch"
    try:
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04"):
            return "pdparams"
        if head[:1] == b"{":
            pir.parameters(where)
            return "pir-program"
        if head[:4] == bytes(4):
            return _records(where)
        program_wire.read_file(where)
    except StorageError:
        raise
    except FormatError:
        return None
    return "program"


def _is_safetensors(head: bytes) -> bool:
    """The length of the header, and a JSON object. Cut off or not."""
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def _archive(where: str) -> Kind | None:
    """A zip file by the names in it; by the first of them if the list at its end is missing."""
    try:
        with zipfile.ZipFile(where) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        with opened(where) as source:
            start = source.take(min(1024, source.size), "the file")
        length = int.from_bytes(start[26:28], "little")
        names = [start[30 : 30 + length].decode("utf-8", "replace")]
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if all(name.endswith(".npy") for name in names) else None


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
