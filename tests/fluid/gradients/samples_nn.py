"""Inputs on which the gradients of neural-network operators are tried."""

from fluid.gradients.harness import Sample, distinct, fixed, ints, normal, probabilities, uniform

IMAGE, VOLUME = normal(2, 4, 5, 6), normal(1, 2, 4, 3, 5)
_CHANNELS = {"Scale": normal(4), "Bias": normal(4)}
_MOVING = {"Mean": normal(4), "Variance": uniform(0.5, 2, 4)}
_BATCH = {"X": normal(3, 4, 2, 3), **_CHANNELS, **_MOVING}
_STEP = {"strides": [2, 1], "paddings": [1, 0]}

CONVOLUTIONS = [
    Sample("conv2d", {"Input": IMAGE, "Filter": normal(6, 2, 3, 2)}, {**_STEP, "dilations": [1, 2], "groups": 2}),
    Sample(
        "conv2d",
        {"Input": normal(2, 5, 6, 4), "Filter": normal(3, 4, 3, 3)},
        {"padding_algorithm": "SAME", "strides": [2, 2], "data_format": "NHWC"},
        name="same",
    ),
    Sample("depthwise_conv2d", {"Input": IMAGE, "Filter": normal(4, 1, 3, 3)}, {**_STEP, "groups": 4}),
    Sample("conv3d", {"Input": VOLUME, "Filter": normal(3, 2, 2, 2, 3)}, {"paddings": [0, 1, 1, 0, 0, 1]}),
    Sample(
        "conv2d_transpose",
        {"Input": IMAGE, "Filter": normal(4, 3, 3, 2)},
        {**_STEP, "groups": 2, "dilations": [1, 2], "output_size": [10, 8]},
    ),
    Sample("depthwise_conv2d_transpose", {"Input": IMAGE, "Filter": normal(4, 1, 3, 3)}, {**_STEP, "groups": 4}),
    Sample("conv3d_transpose", {"Input": VOLUME, "Filter": normal(2, 3, 2, 2, 3)}, {"strides": [1, 2, 1]}),
    Sample(
        "unfold",
        {"X": IMAGE},
        {"kernel_sizes": [3, 2], "strides": [2, 1], "paddings": [1, 0, 2, 1], "dilations": [1, 2]},
    ),
    Sample(
        "bilinear_tensor_product",
        {"X": normal(3, 2), "Y": normal(3, 4), "Weight": normal(5, 2, 4), "Bias": normal(1, 5)},
    ),
    Sample("fsp", {"X": normal(2, 3, 2, 4), "Y": normal(2, 2, 2, 4)}),
]

_WINDOW = {"ksize": [3, 2], "strides": [2, 2], "paddings": [1, 0]}
POOLING = [
    Sample("pool2d", {"X": distinct(1, 2, 5, 6)}, {"pooling_type": "max", **_WINDOW}, name="max"),
    Sample("pool2d", {"X": IMAGE}, {"pooling_type": "avg", "ceil_mode": True, **_WINDOW}, name="mean"),
    Sample("pool2d", {"X": IMAGE}, {"pooling_type": "avg", "exclusive": False, **_WINDOW}, name="mean-with-padding"),
    Sample("pool2d", {"X": IMAGE}, {"pooling_type": "avg", "ksize": [3, 4], "adaptive": True}, name="adaptive"),
    Sample(
        "pool2d",
        {"X": distinct(2, 2, 3, 4)},
        {"pooling_type": "max", "ksize": [2, 3], "adaptive": True},
        name="adaptive-max",
    ),
    Sample("pool3d", {"X": VOLUME}, {"pooling_type": "avg", "ksize": [2, 2, 3], "global_pooling": True}),
    Sample("max_pool2d_with_index", {"X": distinct(1, 2, 5, 6)}, _WINDOW),
    Sample("max_pool3d_with_index", {"X": distinct(1, 2, 4, 3, 5)}, {"ksize": [2, 3, 2], "adaptive": True}),
    Sample("maxout", {"X": distinct(2, 4, 2, 3)}, {"groups": 2}),
]

NORMALISATION = [
    Sample("batch_norm", _BATCH, outputs=("Y", "SavedMean", "SavedVariance")),
    Sample("batch_norm", _BATCH, {"is_test": True}, name="test"),
    Sample("batch_norm", {**_BATCH, "X": normal(5, 4)}, {"use_global_stats": True}, outputs=("Y",), name="global"),
    Sample(
        "batch_norm", {**_BATCH, "X": normal(2, 3, 2, 4)}, {"data_layout": "NHWC"}, outputs=("Y",), name="channels-last"
    ),
    Sample("inplace_abn", _BATCH, {"activation": "elu", "alpha": 0.7}, outputs=("Y",)),
    Sample("layer_norm", {"X": normal(2, 3, 4), "Scale": normal(12), "Bias": normal(12)}),
    Sample("layer_norm", {"X": normal(2, 3, 4)}, {"begin_norm_axis": 2}, name="plain"),
    Sample("group_norm", {"X": normal(2, 4, 3, 2), **_CHANNELS}, {"groups": 2}),
    Sample("group_norm", {"X": normal(2, 3, 2, 4)}, {"groups": 2, "data_layout": "NHWC"}, name="plain"),
    Sample("instance_norm", {"X": normal(2, 4, 3, 2), **_CHANNELS}),
    # Without iterations the vectors do not depend on the weight, so that differences, too, take them as constants.
    Sample(
        "spectral_norm",
        {"Weight": normal(3, 2, 2), "U": uniform(1, 2, 2), "V": uniform(1, 2, 6)},
        {"dim": 1, "power_iters": 0},
        constant=("U", "V"),
    ),
    Sample("lrn", {"X": IMAGE}, {"n": 3, "alpha": 0.3}),
    Sample("norm", {"X": normal(3, 4, 2)}, {"axis": 1}),
    Sample("cos_sim", {"X": normal(4, 3), "Y": normal(1, 3)}),
    Sample("affine_channel", {"X": IMAGE, **_CHANNELS}),
    Sample("prelu", {"X": distinct(2, 4, 3), "Alpha": normal(1, 4, 1, 1)}, {"mode": "channel"}),
    Sample("prelu", {"X": distinct(2, 4, 3), "Alpha": normal(1, 4, 3)}, {"mode": "element"}, name="element"),
    Sample("dropout", {"X": normal(4, 5)}, {"seed": 3, "dropout_prob": 0.4}),
    Sample(
        "dropout",
        {"X": normal(4, 5)},
        {"seed": 3, "dropout_prob": 0.4, "dropout_implementation": "upscale_in_train"},
        name="upscale",
    ),
]

TABLES = [
    Sample("lookup_table", {"W": normal(5, 3), "Ids": ints(5, 4, 2, 1)}, {"padding_idx": 2}),
    Sample("lookup_table_v2", {"W": normal(5, 3), "Ids": ints(5, 4, 2)}),
    Sample("top_k", {"X": distinct(3, 5)}, {"k": 2}),
]

_PAIR = {"X": normal(4, 3), "Y": normal(4, 3)}
LOSSES = [
    Sample(
        "cross_entropy", {"X": probabilities(4, 3), "Label": probabilities(4, 3)}, {"soft_label": True}, name="soft"
    ),
    Sample("cross_entropy", {"X": probabilities(4, 3), "Label": ints(3, 4, 1)}),
    Sample("cross_entropy2", {"X": probabilities(4, 3), "Label": ints(3, 4, 1)}, {"ignore_index": 2}),
    Sample("softmax_with_cross_entropy", {"Logits": normal(4, 3), "Label": ints(3, 4, 1)}, {"ignore_index": 1}),
    Sample(
        "softmax_with_cross_entropy",
        {"Logits": normal(2, 3, 4), "Label": probabilities(2, 3, 4)},
        {"soft_label": True, "axis": 1},
        name="soft",
    ),
    Sample(
        "sigmoid_cross_entropy_with_logits",
        {"X": normal(2, 2), "Label": fixed([[0.0, 1.0], [-100.0, 0.3]])},
        {"normalize": True},
        constant=("Label",),
    ),
    Sample("bpr_loss", {"X": normal(4, 3), "Label": ints(3, 4, 1)}),
    Sample(
        "smooth_l1_loss",
        {**_PAIR, "InsideWeight": uniform(0.5, 1, 4, 3), "OutsideWeight": uniform(0.5, 1, 4, 3)},
        {"sigma": 1.3},
    ),
    Sample("huber_loss", _PAIR, {"delta": 0.8}),
    Sample("log_loss", {"Predicted": uniform(0.1, 0.9, 4, 1), "Labels": uniform(0, 1, 4, 1)}),
    Sample("kldiv_loss", {"X": normal(4, 3), "Target": probabilities(4, 3)}, {"reduction": "batchmean"}),
    Sample("kldiv_loss", {"X": normal(4, 3), "Target": probabilities(4, 3)}, {"reduction": "none"}, name="none"),
    Sample(
        "margin_rank_loss",
        {"X1": normal(4, 1), "X2": normal(4, 1), "Label": fixed([[1.0], [-1.0], [1.0], [-1.0]])},
        {"margin": 0.3},
        outputs=("Out",),
    ),
    Sample("rank_loss", {"Label": uniform(0, 1, 4, 1), "Left": normal(4, 1), "Right": normal(4, 1)}),
    Sample("hinge_loss", {"Logits": normal(4, 1), "Labels": fixed([[1.0], [0.0], [1.0], [0.0]])}),
    Sample(
        "teacher_student_sigmoid_loss",
        {"X": normal(4, 1), "Label": fixed([[-2.0], [-1.0], [0.3], [1.4]])},
        constant=("Label",),
    ),
    Sample(
        "center_loss",
        {"X": normal(4, 3), "Label": ints(2, 4, 1), "Centers": normal(2, 3), "CenterUpdateRate": fixed([0.1])},
        {"cluster_num": 2},
        outputs=("Loss", "SampleCenterDiff"),
        constant=("Centers", "CenterUpdateRate"),
    ),
    Sample("label_smooth", {"X": probabilities(4, 3), "PriorDist": probabilities(1, 3)}, {"epsilon": 0.2}),
]

_SIZE = {"out_h": 8, "out_w": 3}
IMAGES = [
    Sample("bilinear_interp", {"X": IMAGE}, _SIZE),
    Sample("bilinear_interp", {"X": IMAGE}, {**_SIZE, "align_corners": False, "align_mode": 0}, name="extents"),
    Sample("nearest_interp", {"X": IMAGE}, {**_SIZE, "interp_method": "nearest"}),
    Sample("trilinear_interp", {"X": VOLUME}, {"scale": 1.5, "interp_method": "trilinear"}),
    Sample("affine_grid", {"Theta": normal(2, 2, 3)}, {"output_shape": [2, 1, 3, 4]}),
    Sample("grid_sampler", {"X": IMAGE, "Grid": uniform(-1.1, 1.1, 2, 3, 2, 2)}),
    Sample("pixel_shuffle", {"X": normal(2, 8, 2, 3)}, {"upscale_factor": 2}),
    Sample("space_to_depth", {"X": normal(2, 4, 2, 4)}, {"blocksize": 2}),
    Sample("shuffle_channel", {"X": normal(2, 6, 2, 2)}, {"group": 3}),
    Sample("temporal_shift", {"X": normal(6, 4, 2, 2)}, {"seg_num": 3}),
    Sample("add_position_encoding", {"X": normal(2, 3, 6)}, {"alpha": 0.7, "beta": 1.2}),
]

SAMPLES = CONVOLUTIONS + POOLING + NORMALISATION + TABLES + LOSSES + IMAGES
