"""Which variable goes into which file, and in which order. Pure: sizes in, file plans out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.dtypes import ITEMSIZE
from holdfast.engine.pause import collection_paused
from holdfast.format import layout, safetensors
from holdfast.variables import Variable

FILE_BYTES = 2 << 30
"""A file that has reached this size is followed by another (the size that Hugging Face tools and DCP users know)."""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One data file.

    Attributes:
        name: of the file.
        header: its first bytes, before the data.
        members: indices into the planned variables, in the order of their position.
        size: of the whole file.
    """

    name: str
    header: bytes
    members: tuple[int, ...]
    size: int


@collection_paused()
def plan_files(variables: Sequence[Variable], file_bytes: int = FILE_BYTES) -> list[FilePlan]:
    """Cut variables into data files; the same variables give the same files, in whatever order they come.

    Parameters and others never share a file, nor do trainable and frozen parameters (docs/format.md, 2.2).
    Within a file the larger element sizes come first, so that every tensor is aligned to its own.
    """
    sizes = [variable.nbytes for variable in variables]
    order = sorted(range(len(variables)), key=lambda i: (-ITEMSIZE[variables[i].dtype], variables[i].name))
    parameters = [i for i in order if variables[i].kind == "parameter"]
    trainable = [i for i in parameters if variables[i].trainable]
    frozen = [i for i in parameters if not variables[i].trainable]
    others = [i for i in order if variables[i].kind != "parameter"]
    model = [*_cut(trainable, sizes, file_bytes), *_cut(frozen, sizes, file_bytes)]
    state = list(_cut(others, sizes, file_bytes))
    return [
        *(_plan(layout.model_file(n, len(model)), part, variables, sizes) for n, part in enumerate(model, 1)),
        *(_plan(layout.state_file(n, len(state)), part, variables, sizes) for n, part in enumerate(state, 1)),
    ]


def _cut(members: Iterable[int], sizes: Sequence[int], file_bytes: int) -> Iterable[list[int]]:
    part: list[int] = []
    size = 0
    for i in members:
        if part and size + sizes[i] > file_bytes:
            yield part
            part, size = [], 0
        part.append(i)
        size += sizes[i]
    if part:
        yield part


def _plan(name: str, members: list[int], variables: Sequence[Variable], sizes: Sequence[int]) -> FilePlan:
    header = safetensors.build_header(
        (v.name, v.dtype, v.shape, size) for v, size in ((variables[i], sizes[i]) for i in members)
    )
    return FilePlan(name, header, tuple(members), len(header) + sum(sizes[i] for i in members))
