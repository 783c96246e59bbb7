"""Readers of simple things: arrays and text files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from holdfast.fluid.paddle.reader.decorator import Reader


def np_array(x: np.ndarray[Any, Any]) -> Reader:
    """A reader of the rows of `x`: of its elements if it has one dimension, of `x` itself if it has none."""
    return lambda: iter(x) if x.ndim else iter([x])


def text_file(path: str | Path) -> Reader:
    """A reader of the lines of a text file, without their ends. The file is opened each time the reader is called."""

    def lines() -> Iterator[str]:
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")

    return lines


def recordio(paths: str | Sequence[str], buf_size: int = 100) -> NoReturn:
    """Refuses.

    Raises:
        NotImplementedError: always.
    """
    del buf_size
    raise NotImplementedError(
        f"paddle.reader.creator.recordio({paths!r}) is not provided: the records are pickles, which Holdfast does not execute;"
        " write the samples to .npy or text files and read those"
    )
