"""Readers that feed a program by themselves: py_reader, PyReader, DataLoader. A thread reads ahead of the training."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.fluid.core import EOFException, to_numpy
from holdfast.fluid.data_feeder import column
from holdfast.fluid.framework import Variable, default_main_program

Batch = list[np.ndarray]
_END = object()


class _Ahead:
    """An iterable, read by a thread into a queue of limited length."""

    def __init__(self, source: Callable[[], Iterable[Batch]], capacity: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(max(1, capacity))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(source,), name="holdfast-reader", daemon=True)
        self._thread.start()

    def _read(self, source: Callable[[], Iterable[Batch]]) -> None:
        try:
            for batch in source():
                if not self._put(batch):
                    return
            self._put(_END)
        except BaseException as error:  # noqa: BLE001 - raised where the batch would have been used
            self._put(error)

    def _put(self, entry: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def next(self) -> Batch | None:
        """The next batch; None at the end."""
        entry = self._queue.get()
        if entry is _END or isinstance(entry, BaseException):
            self._queue.put(entry)  # the next call finds the same
        if isinstance(entry, BaseException):
            raise entry
        return None if entry is _END else entry

    def stop(self) -> None:
        """End the thread; what was read ahead is dropped."""
        self._stopped.set()
        self._thread.join()


class _Feeder:
    """Batches for data variables, from a generator that the program sets.

    Attributes:
        variables: the data variables, in the order of a batch's entries.
    """

    def __init__(self, variables: Sequence[Variable], capacity: int | None) -> None:
        self.variables = list(variables)
        self._capacity = capacity or 2
        self._source: Callable[[], Iterable[Batch]] | None = None
        self._ahead: _Ahead | None = None

    @property
    def names(self) -> list[str]:
        return [v.name for v in self.variables]

    def set_sample_generator(
        self, reader: Callable[[], Iterable[Any]], batch_size: int, drop_last: bool = True, places: Any = None
    ) -> Any:
        """Read single samples: tuples with an entry for each variable."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")

        def batches() -> Iterator[Any]:
            rows: list[Any] = []
            for sample in reader():
                rows.append(sample if isinstance(sample, list | tuple) else (sample,))
                if len(rows) == batch_size:
                    yield rows
                    rows = []
            if rows and not drop_last:
                yield rows

        return self.set_sample_list_generator(batches, places)

    def set_sample_list_generator(self, reader: Callable[[], Iterable[Any]], places: Any = None) -> Any:
        """Read batches as lists of samples, as `paddle.batch` gives them."""

        def batches() -> Iterator[Batch]:
            for rows in reader():
                columns = list(zip(*rows, strict=True))
                self._check(columns)
                yield [column(v, values) for v, values in zip(self.variables, columns, strict=True)]

        self._source = batches
        return self

    def set_batch_generator(self, reader: Callable[[], Iterable[Any]], places: Any = None) -> Any:
        """Read batches as lists of arrays, one for each variable, or as dicts by name."""

        def batches() -> Iterator[Batch]:
            for given in reader():
                arrays = [given[n] for n in self.names] if isinstance(given, Mapping) else given
                arrays = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
                self._check(arrays)
                yield [np.asarray(a) for a in arrays]

        self._source = batches
        return self

    def _check(self, entries: Sequence[Any]) -> None:
        if len(entries) != len(self.variables):
            raise ValueError(
                f"the reader gives {len(entries)} entries, but there are {len(self.variables)} variables: "
                f"{', '.join(self.names)}"
            )

    def start(self) -> None:
        """Begin a pass: a thread reads ahead.

        Raises:
            RuntimeError: no generator is set, or the pass before has not been `reset()`.
        """
        if self._source is None:
            raise RuntimeError("set a generator first, such as set_sample_list_generator(reader)")
        if self._ahead is not None:
            raise RuntimeError("the reader is started already; reset() it first")
        self._ahead = _Ahead(self._source, self._capacity)

    def reset(self) -> None:
        """End the pass, as after `EOFException`; `start()` begins the next."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    def next_feed(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """The feed of the next run.

        Args:
            feed: what the program feeds by itself.

        Raises:
            EOFException: the pass is over.
            RuntimeError: the reader was not started.
        """
        if self._ahead is None:
            if all(name in feed for name in self.names):
                return {}
            raise RuntimeError(f"the reader of {', '.join(self.names)} is not started: call its start() before the run")
        batch = self._ahead.next()
        if batch is None:
            raise EOFException("the reader has come to its end; reset() it, and start() it for the next pass")
        return dict(zip(self.names, batch, strict=True))


class ReaderVariable(_Feeder):
    """What `layers.py_reader` gives: variables that `layers.read_file` returns, fed by a thread."""

    def __init__(self, variables: Sequence[Variable], capacity: int, name: str) -> None:
        super().__init__(variables, capacity)
        self.name = name

    decorate_paddle_reader = _Feeder.set_sample_list_generator
    decorate_sample_list_generator = _Feeder.set_sample_list_generator
    decorate_tensor_provider = _Feeder.set_batch_generator
    decorate_batch_generator = _Feeder.set_batch_generator
    decorate_sample_generator = _Feeder.set_sample_generator


class GeneratorLoader(_Feeder):
    """What `DataLoader.from_generator` gives, and the base of `PyReader`.

    Args:
        feed_list: data variables.
        capacity: how many batches are read ahead.
        iterable: True: iterate over it, and feed what it gives; False: `start()` it, and run the program without a feed.
        return_list: True gives lists of arrays instead of dicts.
    """

    def __init__(
        self,
        feed_list: Sequence[Variable] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = False,
        drop_last: bool = True,
    ) -> None:
        if not feed_list:
            raise ValueError("feed_list must name the data variables that are fed")
        super().__init__(feed_list, capacity)
        self.iterable = iterable
        self._return_list = return_list
        if not iterable:
            default_main_program().feeders.append(self)

    def __call__(self) -> Iterator[Any]:
        """A pass over the batches."""
        return iter(self)

    def __iter__(self) -> Iterator[Any]:
        if not self.iterable:
            raise RuntimeError("this reader is not iterable: start() it, and run the program without a feed")
        if self._source is None:
            raise RuntimeError("set a generator first, such as set_sample_list_generator(reader)")
        ahead = _Ahead(self._source, self._capacity)
        try:
            while (batch := ahead.next()) is not None:
                # A list with the feed of each device, as Fluid gives it; ours is for all of them.
                yield batch if self._return_list else [dict(zip(self.names, batch, strict=True))]
        finally:
            ahead.stop()


class PyReader(GeneratorLoader):
    """Feeds a program from a generator; see `GeneratorLoader` for the arguments.

    Example:
        >>> import numpy as np, holdfast.fluid as fluid
        >>> with fluid.program_guard(fluid.Program(), fluid.Program()):
        ...     x = fluid.layers.data("x", [2])
        ...     reader = fluid.io.PyReader(feed_list=[x], capacity=4)
        >>> reader.decorate_batch_generator(lambda: ([np.full((3, 2), i, np.float32)] for i in range(2)))
        >>> [feed[0]["x"].sum() for feed in reader()]
        [np.float32(0.0), np.float32(6.0)]
    """

    def decorate_sample_generator(
        self,
        sample_generator: Callable[[], Iterable[Any]],
        batch_size: int,
        drop_last: bool = True,
        places: Any = None,
    ) -> None:
        """Read single samples."""
        self.set_sample_generator(sample_generator, batch_size, drop_last, places)

    def decorate_sample_list_generator(self, reader: Callable[[], Iterable[Any]], places: Any = None) -> None:
        """Read batches as lists of samples."""
        self.set_sample_list_generator(reader, places)

    def decorate_batch_generator(self, reader: Callable[[], Iterable[Any]], places: Any = None) -> None:
        """Read batches as lists of arrays."""
        self.set_batch_generator(reader, places)


class DataLoader:
    """Makes loaders."""

    @staticmethod
    def from_generator(
        feed_list: Sequence[Variable] | None = None,
        capacity: int | None = None,
        use_double_buffer: bool = True,
        iterable: bool = True,
        return_list: bool = False,
        use_multiprocess: bool = False,
        drop_last: bool = True,
    ) -> GeneratorLoader:
        """A loader that is given a generator; see `GeneratorLoader`."""
        return GeneratorLoader(feed_list, capacity, use_double_buffer, iterable, return_list, drop_last)

    @staticmethod
    def from_dataset(dataset: Any, places: Any, drop_last: bool = True) -> Any:
        """Not planned: data sets of files that Fluid's own processes read."""
        raise NotImplementedError("DataLoader.from_dataset is not supported, and not planned; use from_generator")


def make_variables(
    shapes: Sequence[Sequence[int | None]], dtypes: Sequence[Any], names: Sequence[str]
) -> list[Variable]:
    """Data variables for a py_reader."""
    block = default_main_program().global_block()
    return [
        block.create_var(
            name=name, shape=[-1 if n is None else int(n) for n in shape], dtype=to_numpy(dtype), is_data=True,
            stop_gradient=True,
        )
        for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
    ]  # fmt: skip
