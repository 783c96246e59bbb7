"""`paddle.batch`: samples of a reader, gathered into lists."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from holdfast.fluid.paddle.reader.decorator import Reader


def batch(reader: Reader, batch_size: int, drop_last: bool = False) -> Reader:
    """A reader of lists of `batch_size` samples each, in the order of `reader`.

    Args:
        reader: returns an iterator over samples each time it is called.
        batch_size: samples in a list; the last list of an epoch may be shorter.
        drop_last: leave that shorter list out.

    Raises:
        ValueError: `batch_size` is not positive.

    Example:
        >>> three = batch(lambda: iter(range(5)), batch_size=2)
        >>> list(three())
        [[0, 1], [2, 3], [4]]
    """
    size = int(batch_size)
    if size <= 0:
        raise ValueError(f"paddle.batch: batch_size must be positive, not {batch_size!r}")

    def batches() -> Iterator[list[Any]]:
        samples = iter(reader())
        while gathered := list(islice(samples, size)):
            if len(gathered) == size or not drop_last:
                yield gathered

    return batches
