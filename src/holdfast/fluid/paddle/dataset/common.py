"""Where the files of a data set lie, and what is said when they do not.

Files keep the names that Paddle gave them, so the downloads of a Paddle of any version are found. Digests are not compared:
every parser checks what it reads.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import unquote

from holdfast.fluid.paddle.reader.decorator import Reader

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)
"""What reading a damaged archive raises."""

DATA_HOME = os.path.expanduser(os.environ.get("HOLDFAST_DATASETS") or "~/.cache/paddle/dataset")
"""The folder of all data sets. Programs may set it; it is looked at when a data set is asked for."""


def find(module: str, *names: str) -> Path | None:
    """The first of these files that is there, in the folder of a data set."""
    folder = Path(DATA_HOME) / module
    return next((folder / name for name in names if (folder / name).is_file()), None)


def need(module: str, *names: str, origin: str) -> Path:
    """The first of these files that is there.

    Args:
        module: the data set's folder below DATA_HOME.
        names: what the file may be called; the first is the one to tell people.
        origin: where people get the file.

    Raises:
        FileNotFoundError: none is there; the message says where to put it.
    """
    found = find(module, *names)
    if found is None:
        raise FileNotFoundError(
            f"paddle.dataset.{module} needs {Path(DATA_HOME) / module / names[0]}, which is not there, and Holdfast downloads"
            f" nothing: get {names[0]} ({origin}) and put it there, or set HOLDFAST_DATASETS to the folder that holds"
            f" {module}/{names[0]}"
        )
    return found


def spellings(name: str) -> tuple[str, ...]:
    """A file's name, and the names that its download address gave it in other versions of Paddle.

    Example:
        >>> spellings("imdb%2FaclImdb_v1.tar.gz")
        ('aclImdb_v1.tar.gz', 'imdb%2FaclImdb_v1.tar.gz')
    """
    plain = unquote(name).rpartition("/")[2]
    return (plain,) if plain == name else (plain, name)


def download(url: str, module_name: str, md5sum: str | None, save_name: str | None = None) -> str:
    """The path of a file that is there already; nothing is downloaded.

    Args:
        url: its last part is the file's name.
        module_name: the folder below DATA_HOME.
        md5sum: what the file must have; None for anything.
        save_name: the file's name, if it is another.

    Raises:
        FileNotFoundError: it is not there; the message says where to put it.
        ValueError: it has another digest.
    """
    names = (save_name,) if save_name is not None else spellings(url.rpartition("/")[2])
    path = need(module_name, *names, origin=url)
    if md5sum is not None and (found := md5file(path)) != md5sum:
        raise ValueError(f"{path} has the MD5 digest {found}, expected {md5sum}: get it again from {url}")
    return str(path)


def md5file(fname: str | Path) -> str:
    """The MD5 digest of a file, as hexadecimal digits."""
    with open(fname, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def must_mkdirs(path: str | Path) -> None:
    """Make a folder, unless it is there."""
    os.makedirs(path, exist_ok=True)


def split(
    reader: Reader,
    line_count: int,
    suffix: str = "%05d.pickle",
    dumper: Callable[[list[Any], BinaryIO], object] | None = None,
) -> None:
    """Write the samples of a reader to files of `line_count` samples each.

    Args:
        reader: what to write.
        line_count: samples in a file.
        suffix: the files' path, with a `%d` for their number.
        dumper: writes a list of samples to a binary file.

    Raises:
        NotImplementedError: no `dumper` was given: Paddle's own is pickle, which Holdfast neither writes nor reads.
    """
    if dumper is None:
        _no_pickle("split", "dumper")
    samples: list[Any] = []
    number = 0
    for sample in reader():
        samples.append(sample)
        if len(samples) == line_count:
            _write(suffix % number, samples, dumper)
            samples, number = [], number + 1
    if samples:
        _write(suffix % number, samples, dumper)


def cluster_files_reader(
    files_pattern: str,
    trainer_count: int,
    trainer_id: int,
    loader: Callable[[BinaryIO], Sequence[Any]] | None = None,
) -> Reader:
    """A reader of every `trainer_count`-th of the files that `split` wrote, from number `trainer_id` on.

    Args:
        files_pattern: a glob pattern.
        trainer_count: how many trainers share the files.
        trainer_id: which of them this is.
        loader: reads a list of samples from a binary file.

    Raises:
        NotImplementedError: no `loader` was given; see `split`.
    """
    if loader is None:
        _no_pickle("cluster_files_reader", "loader")

    def samples() -> Iterator[Any]:
        for path in sorted(glob.glob(files_pattern))[trainer_id::trainer_count]:
            with open(path, "rb") as file:
                loaded = loader(file)
            yield from loaded

    return samples


def convert(output_path: str, reader: Reader, line_count: int, name_prefix: str) -> NoReturn:
    """Refuses.

    Raises:
        NotImplementedError: always: RecordIO files of pickles are not written.
    """
    del output_path, reader, line_count, name_prefix
    raise NotImplementedError(
        "paddle.dataset.common.convert is not provided: RecordIO files of pickles are not written"
    )


def _write(path: str, samples: list[Any], dumper: Callable[[list[Any], BinaryIO], object]) -> None:
    with open(path, "wb") as file:
        dumper(samples, file)


def _no_pickle(function: str, argument: str) -> NoReturn:
    raise NotImplementedError(
        f"paddle.dataset.common.{function} without {argument}= would use pickle, which Holdfast neither writes nor reads;"
        f" pass {argument}=, such as json's or numpy's"
    )
