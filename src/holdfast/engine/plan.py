"""Which variable goes into which file, and in which order. Pure: sizes in, file plans out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.dtypes import ITEMSIZE
from holdfast.engine.pause import collection_paused
from holdfast.format import layout, safetensors
from holdfast.variables import Variable

FILE_BYTES = 2 << 30
"""A file that has reached this size is followed by another (the size that Hugging Face tools and DCP users know)."""

UNCUT_BYTES = 16 << 20
"""A checkpoint up to this size is not cut for the sake of linking: all of it is written in a few milliseconds."""

MIN_CUT_BYTES = 256 << 10
"""Files are not cut smaller than this: making one more takes as long as writing about so much."""

MAX_FILES = 400
"""Cuts are made coarser until there are no more files than this: a reader holds all of them open, with two descriptors at most."""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One data file.

    Attributes:
        name: of the file.
        header: its first bytes, before the data.
        members: indices into the planned variables, in the order of their position.
        size: of the whole file.
        first: name of the first member.
    """

    name: str
    header: bytes
    members: tuple[int, ...]
    size: int
    first: str


def linkable_file_bytes(variables: Sequence[Variable]) -> int:
    """How large the files of a checkpoint may be, so that few bytes are written again when few variables change.

    A file is linked into the next checkpoint if nothing in it has changed (docs/design/007-linking.md). With files of up to twice
    the mean size of a variable, one percent of the variables, wherever they are, touch at most two percent of the bytes
    more than their own.
    """
    sizes = np.array([variable.nbytes for variable in variables], np.int64)
    total = int(sizes.sum())
    if total <= UNCUT_BYTES:
        return FILE_BYTES
    file_bytes = MIN_CUT_BYTES
    while file_bytes < FILE_BYTES and (file_bytes * len(sizes) < total or _count(sizes, file_bytes) > MAX_FILES):
        file_bytes *= 2
    return file_bytes


def _count(sizes: np.ndarray, file_bytes: int) -> int:
    """About how many files there would be."""
    together = sizes[sizes <= file_bytes // 2]
    return len(sizes) - len(together) + -(-int(together.sum()) // file_bytes)


@collection_paused()
def plan_files(variables: Sequence[Variable], file_bytes: int = FILE_BYTES) -> list[FilePlan]:
    """Cut variables into data files; the same variables give the same files, in whatever order they come.

    Parameters and others never share a file, nor do trainable and frozen parameters (docs/format.md, 2.2).
    Within a file the larger element sizes come first, so that every tensor is aligned to its own. A variable of more than
    half of `file_bytes` gets a file of its own.
    """
    sizes = [variable.nbytes for variable in variables]
    order = sorted(range(len(variables)), key=lambda i: (-ITEMSIZE[variables[i].dtype], variables[i].name))
    parameters = [i for i in order if variables[i].kind == "parameter"]
    trainable = [i for i in parameters if variables[i].trainable]
    frozen = [i for i in parameters if not variables[i].trainable]
    others = [i for i in order if variables[i].kind != "parameter"]
    model = [*_cut(trainable, sizes, file_bytes), *_cut(frozen, sizes, file_bytes)]
    state = _cut(others, sizes, file_bytes)
    return [
        *(_plan(layout.model_file(n, len(model)), part, variables, sizes) for n, part in enumerate(model, 1)),
        *(_plan(layout.state_file(n, len(state)), part, variables, sizes) for n, part in enumerate(state, 1)),
    ]


def _cut(members: Sequence[int], sizes: Sequence[int], file_bytes: int) -> list[list[int]]:
    """Files of these members: the large ones alone, the others together in the order in which they come."""
    files: list[list[int]] = []
    group: list[int] = []
    size = 0
    for i in members:
        if sizes[i] > file_bytes // 2:
            files.append([i])
            continue
        if not group or size + sizes[i] > file_bytes:
            group, size = [], 0
            files.append(group)
        group.append(i)
        size += sizes[i]
    return files


def _plan(name: str, members: list[int], variables: Sequence[Variable], sizes: Sequence[int]) -> FilePlan:
    header = safetensors.build_header(
        (v.name, v.dtype, v.shape, size) for v, size in ((variables[i], sizes[i]) for i in members)
    )
    size = len(header) + sum(map(sizes.__getitem__, members))
    return FilePlan(name, header, tuple(members), size, variables[members[0]].name)
