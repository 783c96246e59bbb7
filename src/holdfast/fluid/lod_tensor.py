"""Tensors with the lengths of the sequences in them, made of lists and arrays. Only dense programs use them yet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.fluid.core import Place
from holdfast.fluid.scope import LoDTensor


def create_lod_tensor(data: Any, recursive_seq_lens: Sequence[Sequence[int]], place: Place | None = None) -> LoDTensor:
    """A tensor of sequences.

    Args:
        data: the rows of all sequences one after another, as an array or `LoDTensor`; or a list with a list of numbers for
            each sequence, which become rows of one number.
        recursive_seq_lens: lengths of the sequences, a list a level.
        place: where to; None leaves that to the next run.

    Returns:
        The tensor, with these levels of detail. It can be fed to data variables of `lod_level` 0, which take its rows.

    Raises:
        ValueError: the lengths do not fit the data.
        TypeError: `data` is none of these.

    Example:
        >>> import holdfast.fluid as fluid
        >>> words = fluid.create_lod_tensor([[211], [6, 96]], [[1, 2]], fluid.CPUPlace())
        >>> words.shape(), words.recursive_sequence_lengths()
        ([3, 1], [[1, 2]])
    """
    lengths = [[int(n) for n in level] for level in recursive_seq_lens]
    if isinstance(data, list):
        if lengths != [[len(row) for row in data]]:
            raise ValueError(
                f"data has sequences of the lengths {[len(row) for row in data]}, but recursive_seq_lens is {lengths}"
            )
        rows = np.array([value for row in data for value in row])
        data = rows.reshape(*rows.shape, 1)
    elif not isinstance(data, np.ndarray | LoDTensor):
        raise TypeError(f"data must be an array, a LoDTensor or a list of lists, not {type(data).__name__}")
    tensor = LoDTensor()
    tensor.set(np.asarray(data), place)
    sums = [sum(level) for level in lengths]
    counts = [len(level) for level in lengths[1:]] + ([len(tensor)] if tensor.shape() else [])
    if any(n < 0 for level in lengths for n in level) or not lengths or sums != counts:
        raise ValueError(
            f"recursive_seq_lens {lengths} does not fit data of the shape {tensor.shape()}: each level must add up to "
            "the number of entries below it, the last one to the number of rows"
        )
    tensor.set_recursive_sequence_lengths(lengths)
    return tensor


def create_random_int_lodtensor(
    recursive_seq_lens: Sequence[Sequence[int]], base_shape: Sequence[int], place: Place | None, low: int, high: int
) -> LoDTensor:
    """A tensor of sequences of random whole numbers, int64, drawn by NumPy's global generator.

    Args:
        recursive_seq_lens: lengths of the sequences, a list a level.
        base_shape: the shape of a row.
        place: where to.
        low, high: the smallest and the largest number.

    Raises:
        ValueError: the lengths do not fit each other.
    """
    rows = sum(itertools.chain.from_iterable(recursive_seq_lens[-1:]))
    data = np.random.randint(low, high + 1, [rows, *base_shape]).astype(np.int64)
    return create_lod_tensor(data, recursive_seq_lens, place)
