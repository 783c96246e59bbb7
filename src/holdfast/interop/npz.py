"""`.npz` and `.npy`, NumPy's archives of arrays and single arrays. Pickled objects in them are refused.

NumPy has no name for bfloat16 and float8 in its files: it writes `|V2` and `|V1`, from which nobody can tell what they are.

Source: numpy.lib.format and `numpy.savez` of NumPy 2.4.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import IO, Literal

import ml_dtypes
import numpy as np

from holdfast.errors import FormatError, StorageError, UnsupportedVariableError
from holdfast.interop import files
from holdfast.interop.foreign import Held
from holdfast.interop.source import check_memory, opened

_ENDING = ".npy"
# What NumPy raises of headers, which it gives to Python's own parser. They are short: it is no memory that is missing.
_OF_HEADERS = (ValueError, TypeError, tokenize.TokenError, RecursionError, MemoryError)
_MAX_NAME_BYTES = 60_000  # a zip file has 65,535 for it


def read(path: str | os.PathLike[str], *, bfloat16: Collection[str] | Literal["all"] = ()) -> Held:
    """All arrays of a file. Text is left out, by name.

    An archive may be compressed: the memory that it takes can be a thousand times its size.

    Args:
        path: the file.
        bfloat16: names of arrays that are bfloat16, of which NumPy wrote bare bits; `"all"`: every array of `|V2`.

    Raises:
        FormatError: the file is cut off or malformed, or holds pickled objects.
        UnsupportedVariableError: nobody can tell what an array is.
        ValueError: a name of `bfloat16` is not there, or has other than 2 bytes per element.
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    with opened(where):  # a regular file, that may be read
        pass
    members: dict[str, np.ndarray | None] = {}
    objects: list[str] = []
    try:
        with zipfile.ZipFile(where) as archive:
            _check_count(archive, where)
            check_memory(sum(member.file_size for member in archive.infolist()), where)
            for member in archive.infolist():
                _add(members, objects, archive, member, where)
    except (FormatError, StorageError):
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{where} is cut off or malformed: {error}") from error
    if objects:
        raise _pickled(where, f"{', '.join(map(repr, objects[:50]))} hold{'s' * (len(objects) == 1)}")
    arrays = {name: array for name, array in members.items() if array is not None}
    left_out = [f"value {name}" for name, array in members.items() if array is None]
    return Held(_marked(arrays, bfloat16, where), set(), left_out)


def read_npy(path: str | os.PathLike[str], *, bfloat16: Collection[str] | Literal["all"] = ()) -> Held:
    """The array of a `.npy` file, under the file's name before the dot.

    Args:
        path: the file.
        bfloat16: that name, if the array is bfloat16; or `"all"`.

    Raises:
        FormatError, UnsupportedVariableError, ValueError, StorageError: as from `read`; an array of text too is unsupported.
    """
    where = os.fspath(path)
    name = os.path.basename(where).removesuffix(_ENDING)
    with opened(where) as source:
        try:
            dtype = _checked_header(source.file, source.size, where)
            if dtype.hasobject:
                raise _pickled(where, "it holds")
            source.rewind()
            array = np.lib.format.read_array(source.file, allow_pickle=False)
        except (FormatError, StorageError):
            raise
        except (ValueError, EOFError) as error:
            raise FormatError(f"{where} is cut off or malformed: {error}") from error
    return Held(_marked({name: _plain(array)}, bfloat16, where))


def _pickled(where: str, what: str) -> FormatError:
    return FormatError(
        f"{where}: {what} pickled objects, which are not read: nothing of it was executed. If you trust it, load it with "
        "allow_pickle=True, and save what is in there as arrays of numbers"
    )


def _check_count(archive: zipfile.ZipFile, where: str) -> None:
    """Python reads the table of contents as far as its size says, and does not look at the number of its entries."""
    assert archive.fp is not None
    archive.fp.seek(-22, os.SEEK_END)
    end = archive.fp.read(22)
    count = int.from_bytes(end[10:12], "little")
    if sum(member.compress_size for member in archive.infolist()) > archive.fp.tell():
        raise FormatError(f"{where} is malformed: its parts overlap, together they are longer than the file")
    if end[:4] != b"PK\x05\x06" or count not in (len(archive.infolist()), 0xFFFF):
        raise FormatError(
            f"{where} is cut off or malformed: it holds {len(archive.infolist())} parts, its end says {count}"
        )


def _add(
    members: dict[str, np.ndarray | None],
    objects: list[str],
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    where: str,
) -> None:
    """Add an array, or None for what is none; the names of those that are pickled objects too."""
    name = member.filename.removesuffix(_ENDING)
    if name in members:
        raise FormatError(f"{where}: two arrays have the name {name!r}")
    array = _array(objects, archive, member, where) if name != member.filename else None
    members[name] = None if array is None or array.dtype.kind in "SU" else array


def _array(objects: list[str], archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray | None:
    what = f"{where}: {member.filename!r}"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"{what} is compressed in a way that NumPy never uses")
    with archive.open(member) as file:
        dtype = _checked_header(file, member.file_size, what)
    if dtype.hasobject:
        objects.append(member.filename)
        return None
    with archive.open(member) as file:
        return _plain(np.lib.format.read_array(file, allow_pickle=False))


def _checked_header(file: IO[bytes], size: int, what: str) -> np.dtype:
    """The dtype of the array in a file of `size` bytes, which is there whole and nothing after it."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except _OF_HEADERS as error:
        raise FormatError(f"{what} is no array as NumPy writes it: {str(error) or type(error).__name__}") from error
    if dtype.hasobject:
        return dtype
    count = 1
    for extent in shape:  # Python's integers do not overflow
        count *= extent
    # Before the memory is taken: a header can say anything.
    if any(type(n) is not int or n < 0 for n in shape) or file.tell() + count * dtype.itemsize != size:
        raise FormatError(f"{what} has {size:,} bytes, its header says {dtype} {shape}")
    return dtype


def _plain(array: np.ndarray) -> np.ndarray:
    """Numbers in this machine's order and C's; other arrays as they are."""
    return np.asarray(array, array.dtype.newbyteorder("="), order="C") if array.dtype.kind in "iufcb" else array


def _marked(
    arrays: dict[str, np.ndarray], bfloat16: Collection[str] | Literal["all"], where: str
) -> dict[str, np.ndarray]:
    two = {name for name, array in arrays.items() if array.dtype in (np.dtype("V2"), np.dtype(np.uint16))}
    chosen = {name for name in two if arrays[name].dtype.kind == "V"} if bfloat16 == "all" else set(bfloat16)
    if wrong := sorted(chosen - two):
        raise ValueError(f"bfloat16= names what {where} does not hold in 2 bytes each: {', '.join(wrong)}")
    made = {
        name: np.ascontiguousarray(array).view(ml_dtypes.bfloat16).reshape(array.shape) if name in chosen else array
        for name, array in arrays.items()
    }
    reasons = {
        name: f"is {array.dtype} in the file, and NumPy does not say of what. If it is bfloat16, name it (--bfloat16 NAME)"
        if array.dtype == np.dtype("V2")
        else f"is {array.dtype}: not numbers"
        for name, array in made.items()
        if array.dtype.kind not in "iufcb" and name not in chosen
    }
    if reasons:
        raise UnsupportedVariableError(reasons, f"{where} holds what no checkpoint can hold")
    return made


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that `numpy.load(path)` reads, uncompressed; whole or not at all.

    Raises:
        UnsupportedVariableError: NumPy's format cannot hold a dtype or a name; nothing was written.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    reasons = {name: reason for name, array in arrays.items() if (reason := _problem(name, array))}
    if reasons:
        raise UnsupportedVariableError(
            reasons, f"{os.fspath(path)} was not written: a file of NumPy cannot hold all of it"
        )
    with (
        files.new_file(os.fspath(path)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, array in arrays.items():
            # Of one date, so that the same arrays make the same file.
            with archive.open(zipfile.ZipInfo(name + _ENDING), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _problem(name: str, array: np.ndarray) -> str | None:
    if np.dtype(array.dtype.type).isbuiltin != 1 or array.dtype.kind not in "iufcb":
        return f"NumPy's files cannot hold {array.dtype}: it would be read as bare bits. Use --to pt"
    if name.endswith(_ENDING) or "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
        return f"a name in an npz file must not end with {_ENDING}, hold a zero character or be longer than {_MAX_NAME_BYTES:,}"
    return None
