"""Arguments of layers that move a window over an image: sizes as lists, and the many forms of padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_list(value: Any, length: int, name: str) -> list[int]:
    """A number for every dimension.

    Raises:
        ValueError: it is neither a number nor as many of them.
    """
    if isinstance(value, int):
        return [value] * length
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != length or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"{name} must be a number or {length} of them, not {value!r}")
    return numbers


def channels_of(shape: Sequence[int], data_format: str, rank: int) -> int:
    """The number of channels of an input.

    Raises:
        ValueError: the data format is unknown, or the number is.
    """
    dims = "DHW"[-rank:]
    if data_format not in (f"NC{dims}", f"N{dims}C"):
        raise ValueError(f"data_format must be NC{dims} or N{dims}C, not {data_format!r}")
    if len(shape) != rank + 2:
        raise ValueError(f"the input must have {rank + 2} dimensions ({data_format}), but its shape is {list(shape)}")
    channels = shape[1 if data_format.startswith("NC") else -1]
    if channels < 0:
        raise ValueError(
            f"the number of channels must be known, but the input's shape is {list(shape)} ({data_format})"
        )
    return channels


def padding_of(padding: Any, rank: int, data_format: str, *, both: bool = False) -> tuple[list[int], str]:
    """Padding and its algorithm as attributes of an operator.

    Args:
        padding: `"SAME"`, `"VALID"`, a number, one or two for each dimension, or a pair for each dimension of the input.
        rank: of the window.
        data_format: such as `"NCHW"`.
        both: give two numbers for each dimension even where they are equal.

    Raises:
        ValueError: it is none of these, or pads batch or channels.
    """
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or numbers, not {padding!r}")
        return [0] * rank, padding.upper()
    if isinstance(padding, list | tuple) and len(padding) == rank + 2 and isinstance(padding[0], list | tuple):
        pairs = [list(pair) for pair in padding]
        last = not data_format.startswith("NC")
        if any(pairs[i] != [0, 0] for i in ((0, rank + 1) if last else (0, 1))):
            raise ValueError(f"batch and channels cannot be padded, as {padding!r} says for {data_format}")
        padding = [n for pair in (pairs[1:-1] if last else pairs[2:]) for n in pair]
    if isinstance(padding, list | tuple) and len(padding) == 2 * rank:
        numbers = as_list(padding, 2 * rank, "padding")
        if not both and numbers[::2] == numbers[1::2]:
            numbers = numbers[::2]
        return numbers, "EXPLICIT"
    numbers = as_list(padding, rank, "padding")
    return [n for n in numbers for _ in range(2)] if both else numbers, "EXPLICIT"
