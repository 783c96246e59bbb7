"""DataFeeder: rows of samples to the arrays that a program is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from holdfast.fluid.core import Place, to_numpy
from holdfast.fluid.framework import Program, Variable, default_main_program

Rows = Iterable[Sequence[Any]]


class DataFeeder:
    """Makes feeds of samples, each a tuple with an entry for every data variable.

    Args:
        feed_list: the data variables, or their names, in the order of a sample's entries.
        place: accepted as Fluid has it; the executor moves the arrays.
        program: where names are looked up; None for the default main program.

    Raises:
        ValueError: a name is not in the program.

    Example:
        >>> import holdfast.fluid as fluid
        >>> with fluid.program_guard(fluid.Program(), fluid.Program()):
        ...     x, y = fluid.layers.data("x", [2]), fluid.layers.data("y", [1], dtype="int64")
        ...     feed = fluid.DataFeeder([x, y], fluid.CPUPlace()).feed([([1.0, 2.0], 0), ([3.0, 4.0], 1)])
        >>> feed["x"].shape, feed["y"].shape
        ((2, 2), (2, 1))
    """

    def __init__(self, feed_list: Sequence[Any], place: Place | None = None, program: Program | None = None) -> None:
        block = (program or default_main_program()).global_block()
        self.feed_vars: list[Variable] = [
            v if isinstance(v, Variable) else block._var_recursive(str(v)) for v in feed_list
        ]
        self.feed_names = [v.name for v in self.feed_vars]
        self.place = place

    def feed(self, iterable: Rows) -> dict[str, np.ndarray]:
        """One batch: a feed for `Executor.run`.

        Raises:
            ValueError: a sample has too few or too many entries, or an entry does not fit its variable.
        """
        rows = list(iterable)
        for number, row in enumerate(rows):
            if len(row) != len(self.feed_vars):
                raise ValueError(
                    f"sample {number} has {len(row)} entries, but feed_list has {len(self.feed_vars)} variables: "
                    f"{', '.join(self.feed_names)}"
                )
        return {v.name: column(v, [row[i] for row in rows]) for i, v in enumerate(self.feed_vars)}

    def feed_parallel(self, iterable: Iterable[Rows], num_places: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """A feed for each device, from a batch for each."""
        for count, rows in enumerate(iterable):
            if num_places is not None and count >= num_places:
                break
            yield self.feed(rows)

    def decorate_reader(
        self,
        reader: Callable[[], Iterable[Rows]],
        multi_devices: bool = False,
        num_places: int | None = None,
        drop_last: bool = True,
    ) -> Callable[[], Iterator[Any]]:
        """A reader of feeds, from a reader of batches.

        Args:
            reader: gives batches.
            multi_devices: True gives lists of feeds, one for each of `num_places` devices.
            num_places: how many devices; None for one.
            drop_last: whether batches at the end that do not suffice for every device are left out; else they are an error.
        """

        def feeds() -> Iterator[Any]:
            if not multi_devices:
                for rows in reader():
                    yield self.feed(rows)
                return
            count, group = num_places or 1, []
            for rows in reader():
                group.append(self.feed(rows))
                if len(group) == count:
                    yield group
                    group = []
            if group and not drop_last:
                raise ValueError(f"{len(group)} batches are left for {count} devices; drop_last=True leaves them out")

        return feeds


def column(variable: Variable, values: Sequence[Any]) -> np.ndarray:
    """The values of one variable over a batch, as an array of its dtype and shape.

    Raises:
        ValueError: the values do not fit.
    """
    dtype, shape = to_numpy(variable.dtype), list(variable.shape)
    try:
        found = np.asarray(values)
        if found.dtype.kind in "fc" and dtype.kind in "iub" and not np.array_equal(found, np.trunc(found)):
            raise ValueError(f"fractions would be lost in {dtype}")  # noqa: TRY301
        array = found.astype(dtype)
        if array.ndim != len(shape) or any(n != m for n, m in zip(array.shape, shape, strict=True) if m >= 0):
            array = array.reshape([len(values), *(n for n in shape[1:])] if shape and shape[0] < 0 else shape)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the samples do not fit the variable {variable.name!r} ({dtype} {shape}): {error}") from error
    return array
