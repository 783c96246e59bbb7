"""Numbers of rows and classes in feeds: those that there are not are refused before a run, as real Fluid refuses them in it."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers
from holdfast.fluid.feeding import FeedError

PROBABILITIES = np.full((2, 3), 1 / 3, np.float32)
TWOS = fluid.ParamAttr(initializer=fluid.initializer.Constant(2.0))


def _outcome(fresh, build, numbers, *, shape=(1,), dtype="int64"):
    main, startup, exe = fresh
    x = layers.data("x", [3])
    n = layers.data("n", list(shape), dtype=dtype)
    out = build(x, n)
    exe.run(startup)
    (found,) = exe.run(main, feed={"x": PROBABILITIES, "n": np.array(numbers, dtype)}, fetch_list=[out])
    return found


READERS = {
    "lookup_table": lambda x, n: layers.embedding(n, [3, 2], param_attr=TWOS),
    "lookup_table_v2": lambda x, n: fluid.embedding(n, [3, 2], param_attr=TWOS),
    "cross_entropy2": layers.cross_entropy,
    "softmax_with_cross_entropy": layers.softmax_with_cross_entropy,
    "one_hot": lambda x, n: layers.one_hot(n, 3),
    "one_hot_v2": lambda x, n: fluid.one_hot(n, 3),
}


@pytest.mark.parametrize("wrong", [3, -1, 2**62])
@pytest.mark.parametrize("operator", READERS)
def test_a_fed_number_without_a_row_or_class_is_an_error(fresh, operator, wrong):
    with pytest.raises(
        FeedError, match=f"feed 'n' holds {wrong}, and operator {operator} takes whole numbers from 0 to 2"
    ):
        _outcome(fresh, READERS[operator], [[0], [wrong]])


@pytest.mark.parametrize("operator", READERS)
def test_the_first_and_the_last_number_are_fed(fresh, operator):
    assert np.isfinite(_outcome(fresh, READERS[operator], [[0], [2]])).all()


def test_numbers_of_other_integer_types_are_looked_at(fresh):
    with pytest.raises(FeedError, match="feed 'n' holds -5, 7"):
        _outcome(fresh, READERS["one_hot"], [[7], [-5]], dtype="int32")


def test_every_operator_that_cannot_take_a_number_is_named(fresh):
    with pytest.raises(FeedError) as caught:
        _outcome(fresh, lambda x, n: layers.one_hot(n, 2) + layers.embedding(n, [3, 2]), [[2], [5]])

    assert [p.split(", and ")[0] for p in caught.value.problems] == ["feed 'n' holds 2, 5", "feed 'n' holds 5"]


def test_ignored_labels_and_padding_are_allowed(fresh):
    def both(x, n):
        loss = layers.softmax_with_cross_entropy(x, n, ignore_index=-1)
        return loss + layers.reduce_sum(layers.cross_entropy(x, n, ignore_index=-1))

    found = _outcome(fresh, both, [[-1], [1]])

    np.testing.assert_allclose(found, np.log(3) * np.array([[1], [2]]), rtol=1e-6)


def test_padding_is_no_way_around_the_end_of_the_table(fresh):
    with pytest.raises(FeedError, match="holds 3, and .* from 0 to 2$"):
        _outcome(fresh, lambda x, n: layers.embedding(n, [3, 2], padding_idx=0), [[0], [3]])


def test_one_hot_takes_any_number_where_the_program_allows_it(fresh):
    found = _outcome(fresh, lambda x, n: layers.one_hot(n, 3, allow_out_of_range=True), [[7], [1]])

    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 1, 0]])


def test_soft_labels_are_no_numbers_of_classes(fresh):
    found = _outcome(
        fresh,
        lambda x, n: layers.cross_entropy(x, n, soft_label=True),
        [[9, 0, 0], [0, 0, 0]],
        shape=(3,),
        dtype="float32",
    )

    np.testing.assert_allclose(found, [[9 * np.log(3)], [0]], rtol=1e-6)


@pytest.mark.parametrize(
    "operator", ["lookup_table", "lookup_table_v2", "cross_entropy2", "softmax_with_cross_entropy"]
)
def test_a_computed_number_without_a_row_or_class_gives_nan(fresh, operator):
    found = _outcome(fresh, lambda x, n: READERS[operator](x, layers.scale(n)), [[-1], [3]])

    assert np.isnan(found).all()
