"""Small data sets in the real formats, written into a folder as people's downloads lie there."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist(home: Path, *, images: np.ndarray, labels: np.ndarray, part: str = "train") -> None:
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        write(home / "mnist" / f"{part}-{kind}-ubyte.gz", gzip.compress(idx(array)))


def movielens(home: Path, ratings: int, name: str = "ml-1m.zip") -> None:
    movies = "1::Toy Story (1995)::Animation|Comedy\n2::Cité des enfants perdus, La (1995)::Comedy|Drama\n"
    users = "1::F::1::10::48067\n2::M::56::16::70072\n"
    lines = [f"{1 + at % 2}::{1 + at % 2}::{1 + at % 5}::97830{at}\n" for at in range(ratings)]
    path = home / "movielens" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/movies.dat", movies.encode("latin-1"))
        archive.writestr("ml-1m/users.dat", users)
        archive.writestr("ml-1m/ratings.dat", "".join(lines))
