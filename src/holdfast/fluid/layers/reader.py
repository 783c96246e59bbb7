"""Layers that give data variables a reader of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.framework import Variable, default_main_program
from holdfast.fluid.reader import ReaderVariable, make_variables


def py_reader(
    capacity: int,
    shapes: Sequence[Sequence[int | None]],
    dtypes: Sequence[Any],
    lod_levels: Sequence[int] | None = None,
    name: str | None = None,
    use_double_buffer: bool = True,
) -> ReaderVariable:
    """A reader that feeds the program by itself; `read_file` gives its variables.

    Args:
        capacity: how many batches a thread reads ahead.
        shapes: of every variable, with the batch (-1).
        dtypes: of every variable.
        lod_levels: zeros; sequences are not supported yet.
        name: of the reader.
        use_double_buffer: accepted as Fluid has it.

    Returns:
        The reader: set a generator, `start()` it, run the program until `fluid.core.EOFException`, `reset()` it.

    Raises:
        NotImplementedError: a level of detail is not 0.
        ValueError: there are not as many dtypes as shapes.
    """
    if any(lod_levels or ()):
        raise NotImplementedError("py_reader: sequences (lod_levels) are planned and not supported yet")
    if len(shapes) != len(dtypes):
        raise ValueError(f"py_reader: {len(shapes)} shapes need as many dtypes, not {len(dtypes)}")
    key = unique_name.generate("read_file")
    variables = make_variables(shapes, dtypes, [unique_name.generate(f"{key}.tmp") for _ in shapes])
    return _registered(variables, capacity, name)


def create_py_reader_by_data(
    capacity: int, feed_list: Sequence[Variable], name: str | None = None, use_double_buffer: bool = True
) -> ReaderVariable:
    """A reader, as `py_reader` makes it, for data variables that there are already."""
    return _registered(list(feed_list), capacity, name)


def _registered(variables: list[Variable], capacity: int, name: str | None) -> ReaderVariable:
    reader = ReaderVariable(variables, capacity, name or unique_name.generate("create_py_reader"))
    default_main_program().feeders.append(reader)
    return reader


def read_file(reader: ReaderVariable) -> Variable | list[Variable]:
    """The variables that a reader feeds; a single one as such."""
    return reader.variables[0] if len(reader.variables) == 1 else list(reader.variables)


def double_buffer(reader: ReaderVariable, place: Any = None, name: str | None = None) -> ReaderVariable:
    """The reader itself: it reads ahead already."""
    return reader
