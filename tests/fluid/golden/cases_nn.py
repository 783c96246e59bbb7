"""Neural-network layers that real Fluid 1.8.5 and this front end are both asked for; `record_nn.py` keeps what Fluid made of them.

Every case is a program of several layers. Runs under Python 3.7 as well, as Fluid does: no newer syntax here.
"""

# ruff: noqa: B905, E741, N806, RUF005, UP031

import zlib

import numpy as np

CASES = {}
# Where Fluid 1.8.5 has no gradient, or a wrong one: spectral_norm, group_norm without scale, shuffle_channel, ignore_index of
# softmax_with_cross_entropy.
FORWARD_ONLY = ("batch_norm_for_tests", "measures", "places_of_maxima", "without_gradient")


def case(function):
    CASES[function.__name__] = function
    return function


def values(name, shape, dtype="float32"):
    """Numbers that follow from a name: labels for l…, probabilities for p…, 0 or 1 for b…, else normal ones."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFF)
    if "int" in dtype:
        return rng.randint(0, 4, shape).astype(dtype)
    if name.startswith("b"):
        return (rng.rand(*shape) > 0.5).astype(dtype)
    if name.startswith("p"):
        odds = np.exp(rng.randn(*shape))
        return (odds / odds.sum(-1, keepdims=True)).astype(dtype)
    return rng.randn(*shape).astype(dtype)


def var(f, name, shape, dtype="float32", stop=False):
    v = f.layers.data(name, list(shape), append_batch_size=False, dtype=dtype)
    v.stop_gradient = stop
    return v


def image(f):
    return var(f, "x", (2, 4, 5, 6))


def image_last(f):
    return var(f, "x", (2, 5, 6, 4))


def volume(f):
    return var(f, "x", (2, 2, 5, 6, 4))


def rows(f, name="x", stop=False):
    return var(f, name, (5, 6), stop=stop)


def label(f, *shape):
    return var(f, "l", shape or (5, 1), "int64", stop=True)


@case
def conv2d(f):
    x, L = image(f), f.layers
    return [
        L.conv2d(x, 6, 3),
        L.conv2d(x, 6, 3, stride=2, padding=1, act="relu"),
        L.conv2d(x, 6, [3, 2], dilation=2, padding=[2, 1], bias_attr=False),
        L.conv2d(x, 6, 3, groups=2, name="mine"),
        L.conv2d(x, 6, 3, padding="SAME", stride=2),
        L.conv2d(x, 6, 3, padding="SAME", dilation=2),
        L.conv2d(x, 6, 3, padding="VALID"),
        L.conv2d(x, 6, 3, padding=[1, 0, 2, 1]),
        L.conv2d(x, 6, 3, padding=[[0, 0], [0, 0], [1, 2], [0, 1]]),
        L.conv2d(x, 8, 3, groups=4, use_cudnn=False),
    ]


@case
def conv2d_channels_last(f):
    x = image_last(f)
    return [f.layers.conv2d(x, 6, 3, stride=[1, 2], padding=[[0, 0], [1, 0], [2, 1], [0, 0]], data_format="NHWC")]


@case
def conv3d(f):
    x, L = volume(f), f.layers
    return [
        L.conv3d(x, 4, 3, stride=[1, 2, 1], padding=1, groups=2),
        L.conv3d(x, 4, [2, 3, 1], padding=[1, 0, 2, 1, 0, 0], act="tanh"),
        L.conv3d_transpose(x, 4, filter_size=3, stride=[1, 2, 1], padding=[1, 0, 1]),
    ]


@case
def conv2d_transpose(f):
    x, L = image(f), f.layers
    return [
        L.conv2d_transpose(x, 6, filter_size=3),
        L.conv2d_transpose(x, 6, filter_size=3, stride=2, act="relu"),
        L.conv2d_transpose(x, 6, filter_size=[3, 2], padding=[1, 0]),
        L.conv2d_transpose(x, 6, filter_size=3, stride=2, padding=1, groups=2),
        L.conv2d_transpose(x, 6, filter_size=3, dilation=2),
        L.conv2d_transpose(x, 6, filter_size=3, stride=2, output_size=[12, 13]),
        L.conv2d_transpose(x, 6, stride=2, output_size=[12, 14]),
        L.conv2d_transpose(x, 6, filter_size=3, padding=[1, 0, 0, 1]),
        L.conv2d_transpose(x, 6, filter_size=3, padding="SAME", stride=2),
        L.conv2d_transpose(x, 4, filter_size=3, groups=4, use_cudnn=False),
    ]


def pools(f, kind):
    x, L = image(f), f.layers
    return [
        L.pool2d(x, 2, kind),
        L.pool2d(x, 3, kind, 2, ceil_mode=True),
        L.pool2d(x, 3, kind, 2, pool_padding=1),
        L.pool2d(x, 3, kind, 2, pool_padding=1, ceil_mode=True),
        L.pool2d(x, 3, kind, 2, pool_padding=1, exclusive=False),
        L.pool2d(x, 3, kind, 2, pool_padding=1, exclusive=False, ceil_mode=True),
        L.pool2d(x, pool_type=kind, global_pooling=True),
        L.pool2d(x, [3, 2], kind, 2, pool_padding="SAME"),
        L.pool2d(x, 3, kind, 3, pool_padding="VALID"),
        L.pool2d(x, 2, kind, 2, pool_padding=[1, 0, 0, 1]),
        L.adaptive_pool2d(x, [3, 4], kind),
    ]


@case
def pool2d_max(f):
    return pools(f, "max")


@case
def pool2d_mean(f):
    return pools(f, "avg")


@case
def pool2d_channels_last(f):
    x = image_last(f)
    return [f.layers.pool2d(x, 3, kind, 2, pool_padding=1, data_format="NHWC") for kind in ("max", "avg")]


@case
def pool3d(f):
    x, L = volume(f), f.layers
    made = [L.pool3d(x, [2, 3, 2], kind, 2, pool_padding=[1, 0, 1]) for kind in ("max", "avg")]
    return made + [L.adaptive_pool3d(x, [3, 4, 2], kind) for kind in ("max", "avg")]


@case
def places_of_maxima(f):
    return [f.layers.adaptive_pool2d(image(f), [3, 4], require_index=True)[1]]


@case
def maxout(f):
    return [f.layers.maxout(image(f), 2)]


@case
def batch_norm(f):
    x, L = image(f), f.layers
    return [
        L.batch_norm(x),
        L.batch_norm(x, act="relu"),
        L.batch_norm(x, use_global_stats=True),
        L.batch_norm(x, momentum=0.3, epsilon=1e-3, moving_mean_name="mm", moving_variance_name="mv", name="bn"),
        L.batch_norm(var(f, "y", (5, 6))),
        L.batch_norm(var(f, "one", (1, 3))),
        L.batch_norm(var(f, "z", (2, 5, 6, 4)), data_layout="NHWC"),
    ]


@case
def batch_norm_for_tests(f):
    return [f.layers.batch_norm(image(f), is_test=True)]


@case
def normalised(f):
    x, L, given = image(f), f.layers, f.ParamAttr()
    return [
        L.instance_norm(x),
        L.layer_norm(x),
        L.layer_norm(x, begin_norm_axis=2, shift=False, act="tanh"),
        L.layer_norm(x, begin_norm_axis=3, scale=False),
        L.group_norm(x, 2, param_attr=given, bias_attr=f.ParamAttr(), act="relu"),
        L.lrn(x, n=3, alpha=0.1),
        L.l2_normalize(x, axis=1),
        L.l2_normalize(x, axis=-1),
        L.l2_normalize(x, axis=None),
        L.affine_channel(x, var(f, "s", (4,)), var(f, "t", (4,)), act="relu"),
        L.prelu(x, "all"),
        L.prelu(x, "channel"),
        L.prelu(x, "element"),
        L.dropout(x, 0.0),
    ]


@case
def without_gradient(f):
    x, L = var(f, "x", (2, 4, 5, 6), stop=True), f.layers
    return [
        L.spectral_norm(x, dim=1, power_iters=2),
        L.group_norm(x, 2),
        L.shuffle_channel(x, 2),
        L.dropout(x, 0.3, is_test=True),
        L.dropout(x, 0.3, is_test=True, dropout_implementation="upscale_in_train"),
        L.dropout(x, 1.0, dropout_implementation="upscale_in_train"),
        L.softmax_with_cross_entropy(rows(f, "q", stop=True), label(f), ignore_index=2),
        L.one_hot(var(f, "l2", (3, 1), "int64"), 8),
        f.one_hot(var(f, "l3", (3, 2), "int64"), 8),
    ]


@case
def embedding(f):
    ids = label(f, 3, 4, 1)
    return [
        f.layers.embedding(ids, [7, 3]),
        f.layers.embedding(ids, [7, 3], padding_idx=1),
        f.layers.embedding(ids, [7, 3], padding_idx=-5, param_attr="shared"),
        f.layers.embedding(ids, [7, 3], param_attr="shared"),
        f.embedding(ids, [7, 3], padding_idx=3),
    ]


@case
def vectors(f):
    x, y, L = rows(f), rows(f, "y"), f.layers
    return [
        L.fc([x, y], 3, act="relu"),
        L.fc(image_like(f), 3, num_flatten_dims=2, act="tanh"),
        L.bilinear_tensor_product(x, y, 3, act="tanh"),
        L.cos_sim(x, y),
        L.cos_sim(x, var(f, "z", (1, 6))),
        L.add_position_encoding(var(f, "u", (2, 3, 6)), 0.7, 1.3),
    ]


def image_like(f):
    return var(f, "v", (2, 3, 4))


@case
def resized(f):
    x, L = image(f), f.layers
    made = []
    for options in (
        {"out_shape": [11, 4]},
        {"out_shape": [11, 4], "align_corners": False},
        {"scale": 2.0},
        {"scale": 0.6, "align_corners": False},
        {"out_shape": [1, 1]},
    ):
        made += [L.resize_bilinear(x, **options), L.resize_nearest(x, **options)]
    return made + [
        L.resize_bilinear(x, out_shape=[11, 4], align_corners=False, align_mode=0),
        L.image_resize_short(x, 9),
        L.resize_bilinear(var(f, "y", (2, 5, 6, 4)), out_shape=[9, 9], data_format="NHWC"),
        L.resize_trilinear(var(f, "z", (2, 2, 5, 6, 4)), scale=1.5, align_corners=False, align_mode=0),
    ]


@case
def rearranged(f):
    x, L = image(f), f.layers
    return [
        L.grid_sampler(x, var(f, "g", (2, 5, 6, 2))),
        L.pixel_shuffle(x, 2),
        L.space_to_depth(var(f, "y", (2, 8, 4, 6)), 2),
        L.temporal_shift(var(f, "z", (6, 8, 3, 2)), 3, 0.25),
        L.fsp_matrix(x, var(f, "w", (2, 3, 5, 6))),
        L.unfold(x, [3, 2], strides=2, paddings=[1, 0, 2, 1]),
        L.unfold(x, 2, paddings=[1, 2], dilations=2),
    ]


@case
def classification_losses(f):
    p, soft, l, x, L = rows(f, "p"), rows(f, "p2", stop=True), label(f), rows(f), f.layers
    return [
        L.cross_entropy(p, l),
        L.cross_entropy(p, l, ignore_index=2),
        L.cross_entropy(p, soft, soft_label=True),
        L.softmax_with_cross_entropy(x, l),
        L.softmax_with_cross_entropy(x, soft, soft_label=True),
        L.softmax_with_cross_entropy(image_of(f), var(f, "l4", (2, 1, 3), "int64", True), axis=1),
        L.sigmoid_cross_entropy_with_logits(x, rows(f, "b", stop=True)),
        L.sigmoid_cross_entropy_with_logits(x, rows(f, "b2", stop=True), ignore_index=0, normalize=True),
        L.bpr_loss(x, l),
        L.dice_loss(p, l),
        L.label_smooth(rows(f, "p3"), epsilon=0.2),
    ]


def image_of(f):
    return var(f, "w", (2, 4, 3))


@case
def regression_losses(f):
    x, y, p, L = rows(f), rows(f, "y", stop=True), rows(f, "p2", stop=True), f.layers
    made = [
        L.square_error_cost(x, y),
        L.mse_loss(x, y),
        L.smooth_l1(x, y),
        L.smooth_l1(x, y, rows(f, "p3", stop=True), rows(f, "p4", stop=True), sigma=1.7),
        L.huber_loss(x, y, 0.7),
        L.log_loss(L.sigmoid(var(f, "z", (5, 1))), var(f, "b", (5, 1), stop=True)),
    ]
    return made + [L.kldiv_loss(x, p, reduction=how) for how in ("none", "mean", "sum", "batchmean")]


@case
def ranking_losses(f):
    one, two, L = var(f, "x", (5, 1)), var(f, "y", (5, 1)), f.layers
    truth = var(f, "b", (5, 1), stop=True)
    return [
        L.margin_rank_loss(truth, one, two, 0.3),
        L.rank_loss(truth, one, two),
        L.teacher_student_sigmoid_loss(one, var(f, "t", (5, 1), stop=True)),
    ]


@case
def center_loss(f):
    return [f.layers.center_loss(rows(f), label(f), 7, 0.3, f.ParamAttr())]


@case
def measures(f):
    p, l, L = rows(f, "p", stop=True), label(f), f.layers
    values, indices = L.topk(p, 3)
    total, recent, _ = L.auc(
        var(f, "p2", (9, 2), stop=True), var(f, "l5", (9, 1), "int64"), num_thresholds=31, slide_steps=2
    )
    classes = [var(f, name, (3, 4), "int32") for name in ("l6", "l7")]
    return [
        values,
        indices,
        L.accuracy(p, l),
        L.accuracy(p, l, k=3),
        total,
        recent,
        *L.mean_iou(classes[0], classes[1], 5),
    ]


@case
def composed(f):
    x, n = image(f), f.nets
    q = var(f, "q", (3, 5, 6))
    return [
        n.simple_img_conv_pool(x, 3, 3, 2, 2, act="relu"),
        n.img_conv_group(x, [3, 4], 2, conv_act="relu", conv_with_batchnorm=[True, False], pool_stride=2),
        n.glu(rows(f, "y")),
        n.scaled_dot_product_attention(q, q, q),
        n.scaled_dot_product_attention(q, q, q, num_heads=2),
    ]


def kind(dtype):
    return {2: "int32", 3: "int64", 5: "float32", 6: "float64", 20: "uint8"}.get(int(dtype))


def digest(name, array):
    """A few numbers that any change of an array changes: its shape, its length, and two products with random vectors."""
    array = np.array(array).astype("float64")
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFF)
    products = [float(array.ravel().dot(rng.randn(array.size))) for _ in range(2)]
    return [list(array.shape), float(np.sqrt((array**2).sum())), products]


def observe(f, build):
    """Build a case's program with a loss and its gradients, run it twice, and tell all that is seen of it."""
    main, startup = f.Program(), f.Program()
    with f.program_guard(main, startup), f.unique_name.guard(), f.scope_guard(f.Scope()):
        outputs = build(f)
        forward = [v for v in main.list_vars() if v.name != "@RANDOM_STATE@"]
        described = [
            [v.name, list(v.shape), kind(v.dtype), isinstance(v, f.framework.Parameter), bool(v.persistable)]
            for v in forward
        ]
        feed = {v.name: values(v.name, v.shape, kind(v.dtype)) for v in forward if getattr(v, "is_data", False)}
        weighted = []
        for k, v in enumerate(outputs):
            if kind(v.dtype) == "float32" and build.__name__ not in FORWARD_ONLY:
                seed = var(f, "seed%d" % k, v.shape, stop=True)
                feed[seed.name] = values(seed.name, v.shape)
                weighted.append(f.layers.reduce_sum(f.layers.elementwise_mul(v, seed)))
        gradients = []
        if weighted:
            f.backward.append_backward(f.layers.sums(weighted))
            named = main.global_block().vars
            gradients = [v.name + "@GRAD" for v in forward if v.name + "@GRAD" in named]
            gradients = [n for n in gradients if ".tmp_" not in n and "_generated_var" not in n]
        exe = f.Executor(f.CPUPlace())
        exe.run(startup)
        scope = f.global_scope()
        kept = [v for v in forward if v.persistable]
        for v in kept:
            if kind(v.dtype) == "float32" and v.name != "centerloss_alpha":
                filled = np.abs(values(v.name, v.shape)) * 0.5 + 0.3
                scope.find_var(v.name).get_tensor().set(filled.astype("float32"), f.CPUPlace())
        names = [v.name for v in outputs] + gradients
        fetched = [exe.run(main, feed=feed, fetch_list=names) for _ in range(2)][1]
        return {
            "variables": described,
            "outputs": [v.name for v in outputs],
            "fetched": {n: digest(n, a) for n, a in zip(names, fetched)},
            "kept": {v.name: digest(v.name, scope.find_var(v.name).get_tensor()) for v in kept},
        }
