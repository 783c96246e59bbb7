"""DataFeeder and the readers that feed a program by themselves."""

import threading
import time

import numpy as np
import pytest
from tests.fluid.models import regression

import holdfast.fluid as fluid


def samples(count=10):
    def read():
        for i in range(count):
            yield np.full(4, i, "float32"), [float(i)]

    return read


def batches(size=4, count=10):
    def read():
        rows = list(samples(count)())
        for start in range(0, count, size):
            yield rows[start : start + size]

    return read


def test_rows_become_columns(fresh):
    x = fluid.layers.data("x", [2, 2])
    fluid.layers.data("label", [1], dtype="int64")
    feed = fluid.DataFeeder([x, "label"], fluid.CPUPlace()).feed([(np.arange(4), 3), ([4, 5, 6, 7], [2])][:1] * 2)

    assert feed["x"].shape == (2, 2, 2)
    assert feed["x"].dtype == np.float32
    np.testing.assert_array_equal(feed["label"], [[3], [3]])
    assert feed["label"].dtype == np.int64


def test_rows_that_do_not_fit_are_errors(fresh):
    x, label = fluid.layers.data("x", [2]), fluid.layers.data("label", [1], dtype="int64")
    feeder = fluid.DataFeeder([x, label], fluid.CPUPlace())
    with pytest.raises(ValueError, match="sample 0 has 1 entries, but feed_list has 2 variables: x, label"):
        feeder.feed([([1.0, 2.0],)])
    with pytest.raises(ValueError, match="do not fit the variable 'x'"):
        feeder.feed([([1.0, 2.0, 3.0], 1)])
    with pytest.raises(ValueError, match="fractions would be lost in int64"):
        feeder.feed([([1.0, 2.0], 1.5)])
    with pytest.raises(ValueError, match="var nothing is in no block"):
        fluid.DataFeeder(["nothing"])


def test_feeds_for_several_devices(fresh):
    x, y = fluid.layers.data("x", [4]), fluid.layers.data("y", [1])
    feeder = fluid.DataFeeder([x, y])
    groups = list(feeder.decorate_reader(batches(2), multi_devices=True, num_places=2)())

    assert [len(g) for g in groups] == [2, 2]
    with pytest.raises(ValueError, match="1 batches are left for 2 devices"):
        list(feeder.decorate_reader(batches(2), multi_devices=True, num_places=2, drop_last=False)())
    assert [f["x"].shape[0] for f in feeder.decorate_reader(batches())()] == [4, 4, 2]
    assert len(list(feeder.feed_parallel(batches(2)(), num_places=3))) == 3


def run_epochs(exe, program, reader, fetch, epochs=2):
    seen = []
    for _ in range(epochs):
        reader.start()
        try:
            while True:
                seen.append(exe.run(program, fetch_list=[fetch])[0])
        except fluid.core.EOFException:
            reader.reset()
    return seen


@pytest.mark.parametrize("kind", ["samples", "rows", "arrays"])
def test_py_reader_feeds_until_its_end(fresh, kind):
    main, _, exe = fresh
    reader = fluid.layers.py_reader(3, [[-1, 4], [-1, 1]], ["float32", "float32"])
    x, _ = fluid.layers.read_file(fluid.layers.double_buffer(reader))
    total = fluid.layers.mean(x)
    if kind == "samples":
        reader.decorate_sample_generator(samples(), batch_size=4, drop_last=False)
    elif kind == "rows":
        reader.decorate_paddle_reader(batches())
    else:
        reader.decorate_tensor_provider(
            lambda: ([np.array([r[i] for r in rows], "float32") for i in (0, 1)] for rows in batches()())
        )
    seen = run_epochs(exe, main, reader, total)

    np.testing.assert_allclose(np.concatenate(seen), [1.5, 5.5, 8.5] * 2)


def test_a_reader_trains(fresh):
    main, startup, exe = fresh
    reader = fluid.layers.py_reader(3, [[-1, 4], [-1, 1]], ["float32", "float32"])
    x, _ = fluid.layers.read_file(reader)
    out = fluid.layers.fc(x, 1)
    reader.decorate_paddle_reader(batches())
    exe.run(startup)

    assert [o.shape for o in run_epochs(exe, main, reader, out, 1)] == [(4, 1), (4, 1), (2, 1)]


def test_a_reader_that_is_not_started_says_so(fresh):
    main, _, exe = fresh
    reader = fluid.layers.py_reader(3, [[-1, 4]], ["float32"])
    out = fluid.layers.mean(fluid.layers.read_file(reader))
    with pytest.raises(RuntimeError, match="set a generator first"):
        reader.start()
    with pytest.raises(RuntimeError, match="is not started: call its start"):
        exe.run(main, fetch_list=[out])
    reader.decorate_sample_generator(samples(), 2)
    with pytest.raises(ValueError, match="gives 2 entries, but there are 1 variables"):
        run_epochs(exe, main, reader, out)


def test_an_error_in_the_generator_reaches_the_run(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [4])
    reader = fluid.io.PyReader([x], capacity=2, iterable=False)

    def broken():
        yield np.zeros((1, 4), "float32")
        raise OSError("the disk is gone")

    reader.decorate_batch_generator(broken)
    out = fluid.layers.mean(x)
    reader.start()
    exe.run(main, fetch_list=[out])
    with pytest.raises(OSError, match="the disk is gone"):
        exe.run(main, fetch_list=[out])
    with pytest.raises(RuntimeError, match="started already"):
        reader.start()
    reader.reset()
    reader.start()
    exe.run(main, fetch_list=[out])
    reader.reset()


def test_a_wrong_batch_of_a_reader_is_a_feed_error(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [4])
    reader = fluid.io.PyReader([x], capacity=2, iterable=False)
    reader.decorate_batch_generator(lambda: iter([np.zeros((1, 4), "float64")]))
    reader.start()
    with pytest.raises(ValueError, match="feed 'x': expected float32, found float64"):
        exe.run(main, fetch_list=[fluid.layers.mean(x)])
    reader.reset()


def test_an_iterable_loader_gives_feeds(fresh):
    main, _, exe = fresh
    x, y = fluid.layers.data("x", [4]), fluid.layers.data("y", [1])
    loader = fluid.io.DataLoader.from_generator(feed_list=[x, y], capacity=4)
    loader.set_sample_generator(samples(), batch_size=4)
    out = fluid.layers.mean(x)
    seen = [exe.run(main, feed=feed, fetch_list=[out])[0].item() for _ in range(2) for feed in loader()]
    assert seen == [1.5, 5.5] * 2

    lists = fluid.io.DataLoader.from_generator(feed_list=[x, y], capacity=4, return_list=True)
    lists.set_batch_generator(lambda: iter([{"y": np.ones((1, 1), "float32"), "x": np.zeros((1, 4), "float32")}]))
    assert [a.shape for a in next(iter(lists))] == [(1, 4), (1, 1)]
    with pytest.raises(ValueError, match="feed_list"):
        fluid.io.DataLoader.from_generator()
    with pytest.raises(NotImplementedError, match="from_dataset"):
        fluid.io.DataLoader.from_dataset(None, None)


def test_reading_ahead_is_bounded_and_its_thread_ends(fresh):
    x = fluid.layers.data("x", [4])
    loader = fluid.io.PyReader([x], capacity=2)
    read = []

    def endless():
        while True:
            read.append(1)
            yield np.zeros((1, 4), "float32")

    loader.decorate_batch_generator(endless)
    feeds = iter(loader)
    next(feeds)
    time.sleep(0.3)
    assert len(read) <= 5
    feeds.close()

    assert not [t for t in threading.enumerate() if t.name == "holdfast-reader"]


def test_a_pruned_program_does_not_need_the_reader(fresh):
    main, startup, exe = fresh
    reader = fluid.layers.py_reader(3, [[-1, 4], [-1, 1]], ["float32", "float32"])
    x, _ = fluid.layers.read_file(reader)
    out = fluid.layers.fc(x, 1)
    exe.run(startup)
    pruned = main._prune([out], feeds=[x.name])

    assert pruned.feeders == []
    exe.run(pruned, feed={x.name: np.ones((2, 4), "float32")}, fetch_list=[out])


def test_create_py_reader_by_data_feeds_existing_variables(fresh):
    main, startup, exe = fresh
    prediction, _ = regression()
    block = main.global_block()
    reader = fluid.layers.create_py_reader_by_data(2, [block.var("x"), block.var("y")])
    reader.decorate_paddle_reader(batches())
    exe.run(startup)

    assert len(run_epochs(exe, main, reader, prediction, 1)) == 3
