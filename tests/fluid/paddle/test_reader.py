"""Readers made of readers."""

import random
import threading
import time

import numpy as np
import pytest

from holdfast.fluid import paddle
from holdfast.fluid.paddle import reader
from holdfast.fluid.paddle.reader import creator


def counting(count: int, start: int = 0) -> reader.Reader:
    return lambda: iter(range(start, start + count))


def failing(after: int) -> reader.Reader:
    def samples():
        yield from range(after)
        raise OSError("the disk is gone")

    return samples


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("paddle.reader", "xmap_readers"))]


def settled() -> bool:
    """Whether all threads of readers end by themselves, within seconds."""
    for _ in range(100):
        if not reader_threads():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("drop_last", "expected"), [(False, [[0, 1, 2], [3, 4, 5], [6]]), (True, [[0, 1, 2], [3, 4, 5]])]
)
def test_batch_keeps_or_drops_the_last_list(drop_last: bool, expected: list[list[int]]) -> None:
    batches = paddle.batch(counting(7), 3, drop_last=drop_last)

    assert list(batches()) == expected
    assert list(batches()) == expected  # a reader can be read again


def test_batch_of_a_multiple_has_no_empty_list() -> None:
    assert list(paddle.batch(counting(4), batch_size=2)()) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("size", [0, -1])
def test_batch_refuses_a_size_that_is_not_positive(size: int) -> None:
    with pytest.raises(ValueError, match=rf"must be positive, not {size}"):
        paddle.batch(counting(3), size)


def test_map_readers_ends_with_the_shortest() -> None:
    assert list(reader.map_readers(lambda a, b: a * b, counting(3), counting(9, start=1))()) == [0, 2, 6]


def test_shuffle_stays_within_its_windows_and_follows_the_seed() -> None:
    shuffled = reader.shuffle(counting(10), 4)

    random.seed(1)
    first = list(shuffled())
    random.seed(1)
    again = list(shuffled())

    assert first == again
    assert first != list(range(10))
    assert [sorted(first[:4]), sorted(first[4:8]), sorted(first[8:])] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_shuffle_draws_as_paddle_does() -> None:
    """One random.shuffle for each full window, and one for the rest: an old run's order can be repeated."""
    random.seed(7)
    expected = []
    for window in ([0, 1, 2], [3, 4]):
        random.shuffle(window)
        expected += window

    random.seed(7)

    assert list(reader.shuffle(counting(5), 3)()) == expected


def test_chain_joins_in_order() -> None:
    assert list(reader.chain(counting(2), counting(2, start=10))()) == [0, 1, 10, 11]


def test_compose_joins_tuples_and_single_samples() -> None:
    pairs = reader.map_readers(lambda at: (at, -at), counting(2))

    assert list(reader.compose(pairs, counting(2, start=7))()) == [(0, 0, 7), (1, -1, 8)]


def test_compose_holds_arrays_and_none() -> None:
    arrays = creator.np_array(np.zeros((1, 2)))

    ((array, nothing),) = reader.compose(arrays, lambda: iter([None]))()

    assert array.shape == (2,)
    assert nothing is None


def test_compose_rejects_readers_of_different_length() -> None:
    rows = reader.compose(counting(3), counting(2))()

    assert [next(rows), next(rows)] == [(0, 0), (1, 1)]
    with pytest.raises(reader.ComposeNotAligned, match=r"readers \[1\] of 2 ended after 2 samples"):
        next(rows)


def test_compose_without_check_ends_with_the_shortest() -> None:
    assert list(reader.compose(counting(3), counting(2), check_alignment=False)()) == [(0, 0), (1, 1)]


def test_firstn_reads_no_further() -> None:
    assert list(reader.firstn(failing(after=2), 2)()) == [0, 1]


def test_cache_reads_once() -> None:
    calls = []
    cached = reader.cache(lambda: iter([calls.append(1) or 5]))

    assert [list(cached()), list(cached())] == [[5], [5]]
    assert len(calls) == 1


def test_fake_repeats_the_first_sample() -> None:
    repeated = reader.Fake()(counting(3, start=4), 5)

    assert [list(repeated()), list(repeated())] == [[4] * 5, [4] * 5]


@pytest.mark.parametrize("size", [1, 3, 100, 0])
def test_buffered_keeps_the_order(size: int) -> None:
    assert list(reader.buffered(counting(50), size)()) == list(range(50))
    assert settled()


def test_buffered_yields_arrays() -> None:
    """Paddle compares each sample with its end mark, which an array cannot be compared with."""
    assert len(list(reader.buffered(creator.np_array(np.ones((3, 2))), 2)())) == 3


def test_buffered_raises_the_reader_s_error_where_it_is_read() -> None:
    samples = reader.buffered(failing(after=2), 10)()

    assert [next(samples), next(samples)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(samples)
    assert settled()


def test_buffered_reader_that_is_left_early_ends_its_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    samples = reader.buffered(endless, 2)()
    next(samples)
    assert reader_threads()
    samples.close()

    assert settled()
    assert closed.is_set()


@pytest.mark.parametrize("order", [False, True])
def test_xmap_readers_maps_in_order_in_several_threads(order: bool) -> None:
    both = threading.Barrier(2, timeout=20)

    def square(value: int) -> int:
        both.wait()  # nothing goes on until two threads are here
        return value * value

    mapped = reader.xmap_readers(square, counting(10), process_num=2, buffer_size=4, order=order)

    assert list(mapped()) == [value * value for value in range(10)]
    assert settled()


def test_xmap_readers_raises_the_mapper_s_error() -> None:
    def fragile(value: int) -> int:
        if value == 3:
            raise ZeroDivisionError("three")
        return value

    samples = reader.xmap_readers(fragile, counting(10), 2, 4)()

    with pytest.raises(ZeroDivisionError, match="three"):
        list(samples)
    assert settled()


def test_xmap_readers_refuses_no_threads() -> None:
    with pytest.raises(ValueError, match="process_num must be positive"):
        reader.xmap_readers(abs, counting(3), 0, 4)


@pytest.mark.parametrize("use_pipe", [False, True])
def test_multiprocess_reader_gives_all_samples_and_keeps_each_order(use_pipe: bool) -> None:
    merged = list(reader.multiprocess_reader([counting(20), counting(20, start=100)], use_pipe, queue_size=3)())

    assert [value for value in merged if value < 100] == list(range(20))
    assert [value for value in merged if value >= 100] == list(range(100, 120))


def test_multiprocess_reader_keeps_tuples_and_arrays() -> None:
    """Paddle's pipe makes JSON of a sample: tuples come out as lists, and arrays not at all."""
    (sample,) = reader.multiprocess_reader([lambda: iter([(np.arange(2), 1)])])()

    assert isinstance(sample, tuple)
    np.testing.assert_array_equal(sample[0], [0, 1])


def test_multiprocess_reader_raises_an_error_of_any_reader() -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        list(reader.multiprocess_reader([counting(3), failing(after=1)])())
    assert settled()


def test_multiprocess_reader_refuses_no_readers() -> None:
    with pytest.raises(ValueError, match="at least one reader"):
        reader.multiprocess_reader([])


def test_np_array_yields_rows_elements_or_the_scalar() -> None:
    assert [row.tolist() for row in creator.np_array(np.arange(4).reshape(2, 2))()] == [[0, 1], [2, 3]]
    assert list(creator.np_array(np.arange(3))()) == [0, 1, 2]
    assert [value.item() for value in creator.np_array(np.array(5))()] == [5]


def test_text_file_yields_lines_without_their_ends(tmp_path) -> None:
    (tmp_path / "lines.txt").write_text("one\n二 \n\nlast", encoding="utf-8")

    assert list(creator.text_file(tmp_path / "lines.txt")()) == ["one", "二 ", "", "last"]


def test_recordio_refuses_and_says_why() -> None:
    with pytest.raises(NotImplementedError, match=r"recordio\('a,b'\).*pickles"):
        creator.recordio("a,b")


def test_pipe_reader_refuses_when_called() -> None:
    with pytest.raises(NotImplementedError, match=r"paddle\.reader\.PipeReader is not provided"):
        paddle.reader.PipeReader("cat file")
