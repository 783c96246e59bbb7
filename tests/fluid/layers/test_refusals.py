"""What neural-network layers refuse, and how they say it."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers, nets


def image():
    return layers.data("x", [4, 6, 6])


def number():
    return layers.data("n", [1], append_batch_size=False, dtype="int32")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.conv2d(image(), 6, 3, groups=3), "do not make 3 groups"),
        (lambda: layers.conv2d(image(), 6, 3, param_attr=False), "param_attr cannot be False"),
        (lambda: layers.conv2d(image(), 6, [3, 3, 3]), "filter_size must be a number or 2"),
        (lambda: layers.conv2d(image(), 6, 3, padding="HALF"), "'SAME', 'VALID' or numbers"),
        (lambda: layers.conv2d(image(), 6, 3, padding=[[1, 0], [0, 0], [0, 0], [0, 0]]), "cannot be padded"),
        (lambda: layers.conv2d(image(), 6, 3, data_format="CHWN"), "data_format must be NCHW or NHWC"),
        (lambda: layers.conv2d(layers.data("y", [4]), 6, 3), "must have 4 dimensions"),
        (lambda: layers.conv2d(layers.data("y", [-1, -1, 6, 6]), 6, 3), "number of channels must be known"),
        (lambda: layers.conv2d_transpose(image(), 6), "needs a filter_size or an output_size"),
        (lambda: layers.conv2d_transpose(layers.data("y", [2, 4, -1, 6]), 6, output_size=9), "not known"),
        (lambda: layers.conv2d_transpose(image(), 6, filter_size=3, output_size=20), "must be from"),
        (lambda: layers.unfold(image(), 2, paddings=[1, 2, 3]), "two or four"),
        (lambda: layers.pool2d(image(), 2, "min"), "'max' or 'avg'"),
        (lambda: layers.pool2d(image()), "needs a pool_size"),
        (lambda: layers.pool2d(image(), 2, pool_padding="VALID", ceil_mode=True), "no ceil_mode"),
        (lambda: layers.pool2d(image(), 9), "do not fit"),
        (lambda: layers.adaptive_pool2d(image(), 2, "avg", require_index=True), "needs pool_type='max'"),
        (lambda: layers.maxout(image(), 2, axis=2), "1, 3 or -1"),
        (lambda: layers.embedding(layers.data("i", [3], dtype="int64"), [5, 2]), "use fluid.embedding"),
        (lambda: layers.embedding(layers.data("i", [1]), [5, 2]), "must be int64"),
        (lambda: layers.embedding(layers.data("i", [1], dtype="int64"), [5, 2], padding_idx=5), "none of 5 rows"),
        (lambda: layers.one_hot(layers.data("i", [3], dtype="int64"), 5), "use fluid.one_hot"),
        (lambda: layers.topk(layers.data("s", [3]), 4), "have 3 values"),
        (lambda: layers.prelu(image(), "some"), "'all', 'channel' or 'element'"),
        (lambda: layers.prelu(layers.data("s", [3], append_batch_size=False), "channel"), "two dimensions"),
        (lambda: layers.image_resize(image(), [3, 3], resample="CUBIC"), "BILINEAR"),
        (lambda: layers.image_resize(image()), "out_shape or a scale"),
        (lambda: layers.image_resize(image(), [3]), "must be 2 sizes"),
        (lambda: layers.image_resize(image(), [3, 3], align_mode=2), "0 or 1"),
        (lambda: layers.image_resize_short(layers.data("y", [2, 4, -1, 6]), 3), "height and width must be known"),
        (lambda: layers.space_to_depth(image(), 4), "multiple of 16"),
        (lambda: layers.kldiv_loss(image(), image(), "max"), "batchmean"),
        (lambda: layers.label_smooth(image(), epsilon=2.0), "from 0 to 1"),
        (
            lambda: layers.npair_loss(layers.data("a", [2]), layers.data("p", [2]), layers.data("l", [1])),
            "batch must be known",
        ),
        (lambda: layers.auc(layers.data("s", [2]), layers.data("l", [1], dtype="int64"), curve="PR"), "only ROC"),
        (lambda: nets.img_conv_group(image(), [3, 4], 2, conv_padding=[1, 1, 1]), "3 values of conv_padding"),
        (lambda: nets.scaled_dot_product_attention(image(), image(), image()), "three dimensions"),
    ],
)
def test_layer_refuses_what_does_not_fit(fresh, call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.topk(layers.data("s", [3]), number()), "another shape in every run"),
        (lambda: layers.one_hot(layers.data("i", [1], dtype="int64"), number()), "another shape in every run"),
        (lambda: layers.image_resize(image(), number()), "another shape in every run"),
        (lambda: layers.affine_grid(layers.data("t", [2, 3]), number()), "four numbers"),
        (lambda: nets.sequence_conv_pool(image(), 3, 3), "pad them to one length"),
    ],
)
def test_layer_says_what_is_not_supported(fresh, call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


def test_number_without_a_row_is_refused_before_anything_runs(fresh):
    main, startup, exe = fresh
    out = fluid.embedding(layers.data("i", [2], dtype="int64"), [5, 3], padding_idx=1)
    exe.run(startup)

    (rows,) = exe.run(main, feed={"i": np.array([[1, 4]])}, fetch_list=[out])
    with pytest.raises(RuntimeError, match="'i' holds 5, and operator lookup_table_v2 takes whole numbers from 0 to 4"):
        exe.run(main, feed={"i": np.array([[1, 5]])}, fetch_list=[out])

    np.testing.assert_array_equal(rows[0, 0], np.zeros(3, "float32"))


def test_ignored_samples_have_no_gradient(fresh):
    main, _, exe = fresh
    x = layers.data("x", [3], stop_gradient=False)
    loss = layers.softmax_with_cross_entropy(x, layers.data("l", [1], dtype="int64"), ignore_index=2)
    fluid.append_backward(layers.mean(loss))
    feed = {"x": np.array([[0.5, 1.0, -1.0], [0.5, 1.0, -1.0]], "float32"), "l": np.array([[2], [0]])}

    value, gradient = exe.run(main, feed=feed, fetch_list=[loss, "x@GRAD"])

    assert value[0, 0] == 0
    assert value[1, 0] > 0
    np.testing.assert_array_equal(gradient[0], np.zeros(3))
    assert np.all(gradient[1] != 0)


def test_auc_over_all_runs_is_that_of_all_samples(fresh):
    main, startup, exe = fresh
    score, label = layers.data("s", [2]), layers.data("l", [1], dtype="int64")
    whole, recent, states = layers.auc(score, label, num_thresholds=1000)
    exe.run(startup)
    rng = np.random.RandomState(0)
    batches = [(rng.rand(40).astype("float32"), rng.randint(0, 2, (40, 1))) for _ in range(3)]

    for chance, truth in batches:
        feed = {"s": np.stack([1 - chance, chance], 1), "l": truth}
        found = exe.run(main, feed=feed, fetch_list=[whole, recent])

    def area(parts):
        scores, truths = np.concatenate([p[0] for p in parts]), np.concatenate([p[1][:, 0] for p in parts])
        above, below = scores[truths == 1], scores[truths == 0]
        return (above[:, None] > below).mean()

    np.testing.assert_allclose(found[0], [area(batches)], atol=2e-3)
    np.testing.assert_allclose(found[1], [area(batches[-1:])], atol=2e-3)
    assert all(s.persistable and s.name.startswith("_generated_var_") for s in states)
