"""Inputs on which the gradients of arithmetic, activations, reductions and shape operators are tried."""

from fluid.gradients.harness import Sample, distinct, fixed, ints, normal, uniform

X = distinct(2, 3, 4)  # apart from each other and from zero: no kink or tie within a difference
_SMOOTH = (
    "sigmoid",
    "logsigmoid",
    "tanh",
    "tanh_shrink",
    "softplus",
    "softsign",
    "exp",
    "square",
    "sin",
    "cos",
    "atan",
    "erf",
)

# 0.1 apart and offset by 0.05: none of these numbers is a threshold below.
ACTIVATIONS = [
    *(Sample(name, {"X": normal(2, 3)}) for name in _SMOOTH),
    *(Sample(name, {"X": X}) for name in ("relu", "abs", "sign")),
    *(Sample(name, {"X": uniform(0.1, 0.4, 2, 3)}) for name in ("ceil", "floor", "round")),
    *(Sample(name, {"X": uniform(0.5, 2, 2, 3)}) for name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal")),
    *(Sample(name, {"X": uniform(-0.8, 0.8, 2, 3)}) for name in ("asin", "acos")),
    Sample("relu6", {"X": X}, {"threshold": 0.7}),
    Sample("leaky_relu", {"X": X}, {"alpha": 0.3}),
    Sample("elu", {"X": X}, {"alpha": 0.6}),
    Sample("selu", {"X": X}),
    Sample("gelu", {"X": normal(2, 3)}),
    Sample("gelu", {"X": normal(2, 3)}, {"approximate": True}, name="tanh"),
    Sample("brelu", {"X": X}, {"t_min": -0.4, "t_max": 0.7}),
    Sample("soft_relu", {"X": X}, {"threshold": 0.9}),
    Sample("thresholded_relu", {"X": X}, {"threshold": 0.3}),
    Sample("hard_shrink", {"X": X}, {"threshold": 0.3}),
    Sample("softshrink", {"X": X}, {"lambda": 0.3}),
    Sample("hard_sigmoid", {"X": X}, {"slope": 0.7, "offset": 0.4}),
    Sample("hard_swish", {"X": X}, {"threshold": 1.2, "scale": 2.0, "offset": 0.5}),
    Sample("swish", {"X": normal(2, 3)}, {"beta": 1.5}),
    Sample("mish", {"X": normal(2, 3)}),
    Sample("stanh", {"X": normal(2, 3)}),
    Sample("pow", {"X": uniform(0.5, 2, 2, 3)}, {"factor": 2.5}),
    Sample("clip", {"X": X}, {"min": -0.4, "max": 0.6}),
    Sample("softmax", {"X": normal(2, 3, 4)}, {"axis": 1}),
    Sample("cumsum", {"X": normal(2, 3, 4)}, {"axis": 1, "exclusive": True, "reverse": True}),
]


def _apart(name: str) -> list[Sample]:
    """With numbers of which no two are equal in both inputs."""
    return [
        Sample(
            f"elementwise_{name}", {"X": distinct(2, 3, 4), "Y": fixed([0.01, -0.42, 0.33])}, {"axis": 1}, name="middle"
        ),
        Sample(f"elementwise_{name}", {"X": distinct(3), "Y": fixed([[0.01, -0.42, 0.33], [1.0, 2.0, -3.0]])}),
    ]


ARITHMETIC = [
    *(s for name in ("add", "sub", "mul", "max", "min") for s in _apart(name)),
    Sample("elementwise_div", {"X": normal(2, 3), "Y": uniform(0.5, 2, 2)}, {"axis": 0}),
    Sample("elementwise_pow", {"X": uniform(0.5, 2, 2, 3), "Y": normal(2, 3)}),
    Sample("mul", {"X": normal(2, 3, 4), "Y": normal(2, 2, 5)}, {"x_num_col_dims": 2, "y_num_col_dims": 2}),
    Sample(
        "matmul", {"X": normal(2, 4, 3), "Y": normal(2, 5, 4)}, {"transpose_X": True, "transpose_Y": True, "alpha": 0.5}
    ),
    Sample("matmul", {"X": normal(4), "Y": normal(2, 4, 3)}, name="vector"),
    Sample("bmm", {"X": normal(2, 3, 4), "Y": normal(2, 4, 2)}),
    Sample("addmm", {"Input": normal(2, 4), "X": normal(2, 3), "Y": normal(3, 4)}, {"Alpha": 0.5, "Beta": 2.0}),
    Sample("dot", {"X": normal(2, 3), "Y": normal(2, 3)}),
    Sample("dist", {"X": normal(2, 3), "Y": normal(2, 3)}),
    Sample("cross", {"X": normal(2, 3), "Y": normal(2, 3)}),
    Sample("kron", {"X": normal(2, 3), "Y": normal(3, 2)}),
    Sample("sum", {"X": [normal(2, 3), normal(2, 3), normal(2, 3)]}),
    Sample("scale", {"X": normal(2, 3)}, {"scale": 2.0, "bias": 1.0, "bias_after_scale": False}),
    Sample("scale", {"X": normal(2, 3), "ScaleTensor": normal(1)}, name="tensor"),
    Sample("increment", {"X": normal(1)}, {"step": 2.0}),
]

REDUCTIONS = [
    Sample("mean", {"X": normal(2, 3)}),
    *(Sample(f"reduce_{n}", {"X": X}, {"dim": [0, -1]}) for n in ("sum", "mean", "max", "min", "prod")),
    Sample("reduce_sum", {"X": X}, {"reduce_all": True, "keep_dim": True}, name="all"),
    Sample("argsort", {"X": X}, {"axis": 1, "descending": True}),
    Sample("trace", {"Input": normal(3, 4, 2)}, {"offset": 1, "dim1": 1, "dim2": 0}),
    Sample("select_input", {"X": [normal(2, 3), normal(2, 3)], "Mask": fixed([1], dtype="int32")}),
    Sample("where", {"Condition": fixed([[True, False]], dtype="bool"), "X": normal(2, 2), "Y": normal(2, 2)}),
    Sample("print", {"In": normal(2)}, {"print_phase": "BACKWARD"}),
]

_SHAPE = normal(2, 3, 4)
SHAPES = [
    Sample("assign", {"X": normal(2, 3)}),
    Sample("cast", {"X": normal(2, 3)}, {"out_dtype": 6, "in_dtype": 6}),
    Sample("diag_embed", {"Input": normal(2, 3)}, {"offset": -1, "dim1": 0, "dim2": 2}),
    Sample("tril_triu", {"X": normal(3, 4)}, {"diagonal": 1, "lower": False}),
    Sample("meshgrid", {"X": [normal(2), normal(3)]}),
    Sample("reshape2", {"X": _SHAPE}, {"shape": [0, -1, 2]}),
    Sample("squeeze2", {"X": normal(2, 1, 3)}, {"axes": [-2]}),
    Sample("unsqueeze2", {"X": _SHAPE}, {"axes": [0, 2]}),
    Sample("flatten2", {"X": _SHAPE}, {"axis": 2}),
    Sample("transpose2", {"X": _SHAPE}, {"axis": [2, 0, 1]}),
    Sample("concat", {"X": [normal(2, 3), normal(2, 2)]}, {"axis": -1}),
    Sample("stack", {"X": [normal(2, 3), normal(2, 3)]}, {"axis": 1}),
    Sample("unstack", {"X": _SHAPE}, {"axis": 1, "num": 3}, count=3),
    Sample("split", {"X": _SHAPE}, {"axis": 2, "sections": [1, -1]}),
    Sample("slice", {"Input": _SHAPE}, {"axes": [0, 2], "starts": [1, -3], "ends": [2, 100], "decrease_axis": [0]}),
    Sample("strided_slice", {"Input": _SHAPE}, {"axes": [1, 2], "starts": [0, 3], "ends": [3, 0], "strides": [2, -1]}),
    Sample("expand", {"X": _SHAPE}, {"expand_times": [1, 2, 3]}),
    Sample("expand_as", {"X": normal(1, 3), "target_tensor": normal(4, 3)}, constant=("target_tensor",)),
    Sample("reverse", {"X": _SHAPE}, {"axis": [0, 2]}),
    Sample("flip", {"X": _SHAPE}, {"dims": [1]}),
    Sample("roll", {"X": _SHAPE}, {"shifts": [1], "dims": [2]}),
    Sample("pad", {"X": normal(2, 3)}, {"paddings": [0, 1, 2, 0], "pad_value": 0.5}),
    *(
        Sample("pad2d", {"X": normal(1, 2, 3, 4)}, {"paddings": [1, 2, 0, 3], "mode": m}, name=m)
        for m in ("reflect", "edge")
    ),
    Sample("pad2d", {"X": normal(1, 3, 4, 2)}, {"paddings": [1, 2, 0, 3], "data_format": "NHWC"}),
    Sample("pad_constant_like", {"X": normal(2, 3), "Y": normal(1, 2)}),
    Sample("crop", {"X": _SHAPE}, {"shape": [1, 2, 3], "offsets": [1, 0, 1]}),
    Sample("crop_tensor", {"X": _SHAPE}, {"shape": [1, 2, -1], "offsets": [1, 0, 1]}),
    Sample("gather", {"X": _SHAPE, "Index": ints(2, 5)}),
    Sample("gather_nd", {"X": _SHAPE, "Index": ints(2, 4, 2)}),
    Sample("scatter", {"X": normal(4, 3), "Ids": fixed([2, 0], dtype="int64"), "Updates": normal(2, 3)}),
    Sample(
        "scatter", {"X": normal(4, 3), "Ids": ints(4, 5), "Updates": normal(5, 3)}, {"overwrite": False}, name="added"
    ),
    Sample("scatter_nd_add", {"X": _SHAPE, "Index": ints(2, 5, 2), "Updates": normal(5, 4)}),
    Sample("index_select", {"X": _SHAPE, "Index": ints(3, 2)}, {"dim": 1}),
    Sample("index_sample", {"X": normal(2, 4), "Index": ints(4, 2, 3)}),
    Sample("multiplex", {"Ids": ints(2, 3, 1, dtype="int32"), "X": [normal(3, 2), normal(3, 2)]}),
]

SAMPLES = [*ACTIVATIONS, *ARITHMETIC, *REDUCTIONS, *SHAPES]
