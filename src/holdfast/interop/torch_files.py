"""`.pt`, `.pth`, `.ckpt`, `.bin`: what `torch.save` writes, read by PyTorch's restricted unpickler, and dicts of tensors written.

A file that refers to anything but tensors and plain values is refused, and nothing of it is executed.

Source: torch.serialization of PyTorch 2.13.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from holdfast import dtypes
from holdfast.errors import FormatError, MissingExtraError, UnsupportedVariableError
from holdfast.interop import extras, files
from holdfast.interop.foreign import Held, flatten, of_optimizers
from holdfast.interop.source import opened

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that `torch.save` wrote before PyTorch 1.6, or with `_use_new_zipfile_serialization=False`."""

_SAFE_SINCE = (2, 6)  # before, a file could make the restricted unpickler execute it (CVE-2025-32434)
_ROOM = 1 << 30
_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def read(path: str | os.PathLike[str]) -> Held:
    """All tensors of a file, by the keys on the way, joined with `.`; plain values are left out, by name.

    Tensors that share memory are there under each of their names. Those of optimizers are no parameters.

    Raises:
        FormatError: the file is cut off or malformed, or holds more than tensors and plain values.
        UnsupportedVariableError: a tensor has no form as an array (sparse, quantized, nested, on no device).
        MissingExtraError: PyTorch is not installed, or too old to be safe.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    torch = library(where)
    with opened(where) as source:
        size = source.size
    with open(where, "rb") as file:
        held = load(file, where)
    flat = flatten(held, Arrays(torch, size).array_of, size, where)
    left_out = [f"value {name}" for name in flat.values]
    return Held(flat.arrays, of_optimizers(flat.arrays, flat.values), left_out)


def library(where: str) -> Any:
    """PyTorch, if it is there and safe.

    Raises:
        MissingExtraError: it is not.
    """
    with extras.needed("torch", where):
        import torch
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_SINCE:
        raise MissingExtraError(
            f"{where} needs PyTorch 2.6 or later: in {torch.__version__} a file can execute what it likes "
            "(CVE-2025-32434). pip install 'torch>=2.6'"
        )
    return torch


def load(file: IO[bytes], where: str) -> Any:
    """What `torch.save` was given, if it is of tensors and plain values.

    Args:
        file: open for reading, at its beginning.
        where: its name, for messages.
    """
    torch = library(where)
    _check_archive(file, where)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about PyTorch's own old formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what comes out of damaged files is of any class
        text = str(error)
        if name := re.search(r"\b(?:GLOBAL|class) ([\w.]+)", text):
            raise FormatError(
                f"{where} refers to {name[1]}: only tensors, containers and plain values are read, and nothing of it was "
                "executed. If you trust it, load it where it was made and save its state_dict() alone"
            ) from error
        said = text.strip().partition("\n")[0][:200] or type(error).__name__
        raise FormatError(f"{where} is cut off or malformed, or no file of torch.save: {said}") from error


def _check_archive(file: IO[bytes], where: str) -> None:
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{where} is cut off or malformed: {error}") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise FormatError(f"{where} is a TorchScript program: save torch.jit.load(…).state_dict(), and convert that")
    if packed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
        # PyTorch never compresses; a few kilobytes could become any amount of memory.
        raise FormatError(f"{where} holds compressed parts ({packed[0]}), which torch.save never writes")


class Arrays:
    """Makes arrays of tensors, of the same memory where that is possible; copies only so much.

    Args:
        torch: the library.
        size: of the file in bytes.
    """

    def __init__(self, torch: Any, size: int) -> None:
        self._torch = torch
        self._names = {getattr(torch, theirs): ours for ours, theirs in _NAMES.items() if hasattr(torch, theirs)}
        self._room = _ROOM + 16 * size  # an expanded tensor shows one element any number of times

    def array_of(self, value: Any) -> np.ndarray | str | None:
        """A tensor as an array; a text, if it has no such form; None if it is no tensor."""
        torch = self._torch
        if not isinstance(value, torch.Tensor):
            return None
        if value.is_nested or value.layout != torch.strided:
            return "is sparse or nested: save what it is made of, or to_dense()"
        if value.is_quantized:
            return f"is quantized ({value.dtype}): save its int_repr(), scale and zero point, or dequantize()"
        if value.is_meta:
            return "is on the meta device: the file has its shape, and no elements"
        if value.dtype not in self._names and value.dtype != torch.complex128:
            return f"has dtype {value.dtype}, which NumPy has no form for"
        tensor = value.detach().resolve_conj().resolve_neg()
        if not tensor.is_contiguous():
            self._room -= tensor.numel() * tensor.element_size()
            if self._room < 0:
                return "is a few elements shown very often (expanded): save it before it is expanded"
            tensor = tensor.contiguous()
        ours = dtypes.to_numpy(self._names[value.dtype]) if value.dtype in self._names else np.dtype(np.complex128)
        if ours.isbuiltin != 1:  # what NumPy lacks is looked at as bits
            tensor = tensor.view({1: torch.uint8, 2: torch.int16}[tensor.element_size()])
        made: np.ndarray = tensor.numpy()
        return made.view(ours)


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a dict of tensors that `torch.load(path, weights_only=True)` gives back; whole or not at all.

    Raises:
        UnsupportedVariableError: PyTorch has no such dtype; nothing was written.
        MissingExtraError: PyTorch is not installed.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    where = os.fspath(path)
    torch = library(where)
    reasons, made = {}, {}
    for name, array in arrays.items():
        theirs = getattr(torch, _NAMES.get(dtypes.from_numpy(array.dtype) or "", "-"), None)
        if theirs is None and array.dtype == np.complex128:
            theirs = torch.complex128
        if theirs is None:
            reasons[name] = f"PyTorch {torch.__version__} has no {array.dtype}"
            continue
        # As bytes, because NumPy's dtypes and PyTorch's are not all each other's; a copy, as PyTorch wants memory to write to.
        flat = np.array(array, array.dtype.newbyteorder("="), order="C").reshape(-1).view(np.uint8)
        made[name] = torch.from_numpy(flat).view(theirs).reshape(array.shape)
    if reasons:
        raise UnsupportedVariableError(reasons)
    with files.new_file(where) as file:
        torch.save(made, file)
