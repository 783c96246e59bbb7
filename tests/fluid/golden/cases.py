"""Calls of layers that real Fluid 1.8.5 and this front end are both asked for; `record.py` writes what Fluid made of them.

Runs under Python 3.7 as well, as Fluid does: no newer syntax here.
"""

# ruff: noqa: SIM905 - a line of names reads better than a list of them
import numpy as np


def x(f, name="x", shape=(2, 3, 4), dtype="float32", stop=True):
    """A data variable; `feeds` fills it by its name's first letter."""
    v = f.layers.data(name, list(shape), append_batch_size=False, dtype=dtype)
    v.stop_gradient = stop
    return v


def ints(f, name="i", shape=(2, 3), dtype="int64"):
    """Small whole numbers, 0 to 2."""
    return x(f, name, shape, dtype)


def bools(f, name="b", shape=(2, 3)):
    """True and False."""
    return x(f, name, shape, "bool")


def feeds(program):
    """Values for every data variable of a program: the same wherever this runs."""
    found = {}
    for v in program.list_vars():
        if not getattr(v, "is_data", False):
            continue
        shape = [2 if n < 0 else n for n in v.shape]
        count = int(np.prod(shape))
        steps = np.arange(count)
        dtype = {0: "bool", 2: "int32", 3: "int64", 5: "float32", 6: "float64"}[int(v.dtype)]
        if dtype == "bool":
            value = (steps * 7 + len(v.name)) % 3 != 0
        elif dtype.startswith("int"):
            value = (steps * 5 + 1 + len(v.name)) % 3
        else:
            value = np.sin(steps * 1.7 + ord(v.name[0])) * 1.5
            if v.name[0] == "p":
                value = np.abs(value) + 0.3
            if v.name[0] == "u":
                value = value * 0.6
        found[v.name] = np.asarray(value, dtype).reshape(shape)
    return found


CASES = {}


def case(name, **options):
    """Register a case; `values=False` where the numbers are random."""

    def register(function):
        CASES[name] = (function, options)
        return function

    return register


def _unary(layer, var="x", **kwargs):
    label = layer + "".join(f"_{key}_{value}" for key, value in sorted(kwargs.items()))
    case(label)(lambda f: [getattr(f.layers, layer)(x(f, var), **kwargs)])


for _name in (
    "sigmoid logsigmoid exp tanh atan tanh_shrink abs ceil floor cos sin round square softplus softsign softshrink "
    "hard_shrink thresholded_relu gelu erf relu selu elu relu6 stanh hard_sigmoid swish brelu leaky_relu soft_relu "
    "hard_swish mish sign mean softmax log_softmax cumsum"
).split():
    _unary(_name)
for _name in "sqrt rsqrt log reciprocal log1p".split():
    _unary(_name, "p")
for _name in "acos asin".split():
    _unary(_name, "u")
_unary("softshrink", alpha=0.3)
_unary("hard_shrink", threshold=0.3)
_unary("thresholded_relu", threshold=0.3)
_unary("gelu", approximate=True)
_unary("elu", alpha=0.5)
_unary("relu6", threshold=1.0)
_unary("leaky_relu", alpha=0.1)
_unary("swish", beta=2.0)
_unary("selu", scale=1.1, alpha=1.2)
_unary("brelu", t_min=-0.5, t_max=0.5)
_unary("soft_relu", threshold=1.0)
_unary("hard_swish", threshold=2.0, scale=3.0, offset=1.0)
_unary("pow", "p", factor=2.5)
_unary("cumsum", axis=1)
_unary("cumsum", axis=1, exclusive=True)
_unary("cumsum", axis=-1, reverse=True)
_unary("scale", scale=2.0, bias=1.0)
_unary("scale", scale=2.0, bias=1.0, bias_after_scale=False)
_unary("scale", scale=2.0, act="relu")
_unary("tanh", name="my")
_unary("softmax", axis=1)
_unary("log_softmax", axis=1)
_unary("clip", min=-0.5, max=0.5)
_unary("clip_by_norm", max_norm=1.0)
_unary("clamp", min=-0.5, max=0.5)
_unary("clamp", min=0.0)
_unary("cast", dtype="int32")
_unary("cast", dtype="float64")
_unary("l2_normalize", axis=1)

for _name in "reduce_sum reduce_mean reduce_max reduce_min reduce_prod".split():
    _unary(_name)
    _unary(_name, dim=1)
    _unary(_name, dim=[0, -1])
    _unary(_name, dim=[1], keep_dim=True)
_unary("reduce_sum", keep_dim=True)
for _name in "reduce_all reduce_any".split():
    case(_name)(lambda f, n=_name: [getattr(f.layers, n)(bools(f))])
    case(_name + "_dim")(lambda f, n=_name: [getattr(f.layers, n)(bools(f), dim=1)])
_unary("logsumexp")
_unary("logsumexp", dim=1, keepdim=True)

for _name in "add sub mul div max min".split():
    _name = "elementwise_" + _name
    case(_name)(lambda f, n=_name: [getattr(f.layers, n)(x(f), x(f, "p"))])
    case(_name + "_axis")(lambda f, n=_name: [getattr(f.layers, n)(x(f), x(f, "p", (3,)), axis=1)])
    case(_name + "_axis0")(lambda f, n=_name: [getattr(f.layers, n)(x(f), x(f, "p", (2, 3)), axis=0)])
case("elementwise_add_trailing")(lambda f: [f.layers.elementwise_add(x(f), x(f, "p", (3, 1)), axis=1)])
case("elementwise_add_last")(lambda f: [f.layers.elementwise_add(x(f), x(f, "p", (4,)))])
case("elementwise_add_one")(lambda f: [f.layers.elementwise_add(x(f), x(f, "p", (1,)))])
case("elementwise_add_act")(lambda f: [f.layers.elementwise_add(x(f), x(f, "p"), act="relu", name="sum_up")])
case("elementwise_add_int")(lambda f: [f.layers.elementwise_add(ints(f), ints(f, "ii"))])
case("elementwise_pow")(lambda f: [f.layers.elementwise_pow(x(f, "p"), x(f, "y"))])
case("elementwise_mod")(lambda f: [f.layers.elementwise_mod(ints(f), ints(f, "ii") + 1)])
case("elementwise_floordiv")(lambda f: [f.layers.elementwise_floordiv(ints(f), ints(f, "ii") + 1)])
case("elementwise_div_int")(lambda f: [f.layers.elementwise_div(ints(f) - 2, ints(f, "ii") + 1)])
case("sum")(lambda f: [f.layers.sum([x(f), x(f, "y")])])
case("sums")(lambda f: [f.layers.sums([x(f), x(f, "y"), x(f, "z")])])
case("mul")(lambda f: [f.layers.mul(x(f), x(f, "y", (4, 5)), x_num_col_dims=2)])
case("mul_flat")(lambda f: [f.layers.mul(x(f, shape=(-1, 3, 4)), x(f, "y", (12, 5)))])
case("matmul")(lambda f: [f.layers.matmul(x(f), x(f, "y", (2, 4, 5)))])
case("matmul_transposed")(lambda f: [f.layers.matmul(x(f), x(f, "y", (2, 5, 4)), transpose_y=True, alpha=0.5)])
case("matmul_2d")(lambda f: [f.layers.matmul(x(f, shape=(3, 2)), x(f, "y", (3, 4)), transpose_x=True)])
case("matmul_vectors")(lambda f: [f.layers.matmul(x(f, shape=(3,)), x(f, "y", (3,)))])
case("matmul_outer")(lambda f: [f.layers.matmul(x(f, shape=(3,)), x(f, "y", (2,)), transpose_x=True, transpose_y=True)])
case("matmul_vector")(lambda f: [f.layers.matmul(x(f), x(f, "y", (4,)))])
case("matmul_broadcast")(lambda f: [f.layers.matmul(x(f), x(f, "y", (4, 5)))])
case("bmm")(lambda f: [f.layers.bmm(x(f), x(f, "y", (2, 4, 5)))])
case("dot")(lambda f: [f.layers.dot(x(f, shape=(2, 3)), x(f, "y", (2, 3)))])
case("addmm")(lambda f: [f.layers.addmm(x(f, shape=(2, 5)), x(f, "y", (2, 3)), x(f, "z", (3, 5)), alpha=2.0, beta=0.5)])
case("addcmul")(lambda f: [f.layers.addcmul(x(f), x(f, "y"), x(f, "z"), value=0.5)])
case("dist")(lambda f: [f.layers.dist(x(f), x(f, "y"), p=2)])
case("cross")(lambda f: [f.layers.cross(x(f), x(f, "y"))])
case("kron")(lambda f: [f.layers.kron(x(f, shape=(2, 3)), x(f, "y", (3, 2)))])
case("trace")(lambda f: [f.layers.trace(x(f, shape=(3, 4)), offset=1)])
case("tril")(lambda f: [f.layers.tril(x(f)), f.layers.triu(x(f), diagonal=1)])
case("t")(lambda f: [f.layers.t(x(f, shape=(2, 3)))])
case("allclose")(lambda f: [f.layers.allclose(x(f), x(f, "y"))])
case("elementwise_equal")(lambda f: [f.layers.elementwise_equal(ints(f), ints(f, "ii"))])

for _name in "less_than less_equal greater_than greater_equal equal not_equal".split():
    case(_name)(lambda f, n=_name: [getattr(f.layers, n)(ints(f), ints(f, "ii"))])
for _name in "logical_and logical_or logical_xor".split():
    case(_name)(lambda f, n=_name: [getattr(f.layers, n)(bools(f), bools(f, "bb"))])
case("logical_not")(lambda f: [f.layers.logical_not(bools(f))])
case("less_than_out")(lambda f: [f.layers.less_than(x(f), x(f, "y"), cond=f.layers.create_tensor("bool"))])
case("is_empty")(lambda f: [f.layers.is_empty(x(f))])
case("has_inf")(lambda f: [f.layers.has_inf(x(f)), f.layers.has_nan(x(f)), f.layers.isfinite(x(f))])

case("fill_constant")(lambda f: [f.layers.fill_constant([2, 3], "float32", 1.5)])
case("fill_constant_int")(lambda f: [f.layers.fill_constant([2, 3], "int64", 7)])
case("fill_constant_out")(
    lambda f: [f.layers.fill_constant([1], "int64", 7, out=f.layers.create_tensor("int64", name="mine"))]
)
case("fill_constant_batch_size_like")(
    lambda f: [f.layers.fill_constant_batch_size_like(x(f, shape=(-1, 4)), [-1, 5], "float32", 0.5)]
)
case("fill_constant_batch_size_like_idx")(
    lambda f: [f.layers.fill_constant_batch_size_like(x(f), [7, -1, 5], "int64", 3, input_dim_idx=1, output_dim_idx=1)]
)
case("zeros")(lambda f: [f.layers.zeros([2, 3], "float32"), f.layers.ones([3], "int32")])
case("zeros_like")(lambda f: [f.layers.zeros_like(x(f)), f.layers.ones_like(x(f, "y"))])
case("full_like")(lambda f: [f.layers.full_like(x(f), 2.5)])
case("full")(lambda f: [f.layers.full([2, 2], 2.5)])
case("assign")(lambda f: [f.layers.assign(x(f))])
case("assign_out")(lambda f: [f.layers.assign(x(f), f.layers.create_tensor("float32"))])
case("assign_numpy")(
    lambda f: [
        f.layers.assign(np.arange(6, dtype="float32").reshape(2, 3)),
        f.layers.assign(np.arange(3, dtype="int32")),
        f.layers.assign(np.array([True, False])),
    ]
)
case("assign_int64")(lambda f: [f.layers.assign(np.arange(3, dtype="int64"))])
case("eye")(lambda f: [f.layers.eye(3), f.layers.eye(2, 3, dtype="int32"), f.layers.eye(2, batch_shape=[3])])
case("diag")(lambda f: [f.layers.diag(x(f, shape=(3,)))])
case("diag_embed")(lambda f: [f.layers.diag_embed(x(f), offset=1)])
case("linspace")(lambda f: [f.layers.linspace(0, 10, 5, "float32")])
case("range")(lambda f: [f.layers.range(0, 10, 2, "int32"), f.layers.range(0.0, 1.0, 0.25, "float32")])
case("arange")(lambda f: [f.layers.arange(0, 5)])
case("create_tensor")(lambda f: [f.layers.assign(x(f), f.layers.create_tensor("float32", "t", persistable=True))])
case("create_global_var")(lambda f: [f.layers.create_global_var([2], 1.5, "float32", persistable=True)])
case("create_global_var_named")(
    lambda f: [f.layers.create_global_var([1], 3, "int64", persistable=True, force_cpu=True, name="count")]
)
case("create_parameter", values=False)(
    lambda f: [f.layers.create_parameter([2, 3], "float32"), f.layers.create_parameter([3], "float32", is_bias=True)]
)
case("create_parameter_named", values=False)(
    lambda f: [
        f.layers.create_parameter([2, 3], "float32", name="w", default_initializer=f.initializer.Constant(2.0)),
        f.layers.create_parameter([3], "float32", attr=f.ParamAttr(name="v")),
    ]
)
case("argmax")(lambda f: [f.layers.argmax(x(f)), f.layers.argmin(x(f), axis=-1)])
case("argsort")(lambda f: list(f.layers.argsort(x(f))) + list(f.layers.argsort(x(f), axis=1, descending=True)))
case("reverse")(lambda f: [f.layers.reverse(x(f), 1), f.layers.reverse(x(f), [0, 2])])
case("flip")(lambda f: [f.layers.flip(x(f), [0, 2])])
case("roll")(lambda f: [f.layers.roll(x(f), 1, 1)])
case("concat")(lambda f: [f.layers.concat([x(f), x(f, "y")], axis=1)])
case("concat_batch")(lambda f: [f.layers.concat([x(f, shape=(-1, 4)), x(f, "y", (-1, 5))], axis=-1)])
case("index_select")(lambda f: [f.layers.index_select(x(f), ints(f, shape=(2,)), dim=1)])
case("index_sample")(lambda f: [f.layers.index_sample(x(f, shape=(2, 4)), ints(f, shape=(2, 3)))])
case("meshgrid")(lambda f: list(f.layers.meshgrid([x(f, shape=(2,)), x(f, "y", (3,))])))
case("multiplex")(
    lambda f: [
        f.layers.multiplex(
            [x(f, shape=(2, 3)), x(f, "y", (2, 3)), x(f, "z", (2, 3))], ints(f, shape=(2, 1), dtype="int32")
        )
    ]
)

case("reshape")(lambda f: [f.layers.reshape(x(f), [0, -1])])
case("reshape_batch")(lambda f: [f.layers.reshape(x(f, shape=(-1, 3, 4)), [-1, 12])])
case("reshape_copy")(lambda f: [f.layers.reshape(x(f, shape=(-1, 3, 4)), [0, 2, -1])])
case("reshape_act")(lambda f: [f.layers.reshape(x(f), [6, 4], act="relu", name="r")])
case("reshape_inplace")(lambda f: [f.layers.reshape(x(f), [6, 4], inplace=True)])
case("squeeze")(lambda f: [f.layers.squeeze(x(f, shape=(2, 1, 3, 1)), [1])])
case("squeeze_all")(lambda f: [f.layers.squeeze(x(f, shape=(2, 1, 3, 1)), [])])
case("unsqueeze")(lambda f: [f.layers.unsqueeze(x(f), [1]), f.layers.unsqueeze(x(f, "y"), [0, -1])])
case("unsqueeze_int")(lambda f: [f.layers.unsqueeze(x(f), 1)])
case("transpose")(lambda f: [f.layers.transpose(x(f), [2, 0, 1])])
case("flatten")(lambda f: [f.layers.flatten(x(f), axis=2), f.layers.flatten(x(f, "y"), axis=0)])
case("expand")(lambda f: [f.layers.expand(x(f), [1, 2, 3])])
case("expand_as")(lambda f: [f.layers.expand_as(x(f, shape=(1, 3)), x(f, "y", (4, 3)))])
case("stack")(lambda f: [f.layers.stack([x(f), x(f, "y")], axis=1), f.layers.stack([x(f)])])
case("stack_last")(lambda f: [f.layers.stack([x(f), x(f, "y")], axis=-1)])
case("unstack")(lambda f: list(f.layers.unstack(x(f), axis=1)))
case("split")(lambda f: list(f.layers.split(x(f), 2, dim=-1)))
case("split_sections")(lambda f: list(f.layers.split(x(f), [1, 2], dim=1)))
case("split_rest")(lambda f: list(f.layers.split(x(f), [1, -1], dim=2)))
case("slice")(lambda f: [f.layers.slice(x(f), axes=[0, 2], starts=[0, -3], ends=[1, 100])])
case("slice_negative")(lambda f: [f.layers.slice(x(f), axes=[1], starts=[-2], ends=[-1])])
case("strided_slice")(lambda f: [f.layers.strided_slice(x(f), [1, 2], [0, 3], [3, 0], [2, -1])])
case("gather")(lambda f: [f.layers.gather(x(f), ints(f, shape=(3,)) % 2)])
case("gather_plain")(lambda f: [f.layers.gather(x(f, shape=(3, 4)), ints(f, shape=(5,)))])
case("gather_nd")(lambda f: [f.layers.gather_nd(x(f, shape=(3, 3, 2)), ints(f, shape=(4, 2)))])
case("scatter")(lambda f: [f.layers.scatter(x(f, shape=(3, 4)), ints(f, shape=(2,)), x(f, "y", (2, 4)))])
case("scatter_add")(
    lambda f: [f.layers.scatter(x(f, shape=(3, 4)), ints(f, shape=(4,)), x(f, "y", (4, 4)), overwrite=False)]
)
case("scatter_nd")(lambda f: [f.layers.scatter_nd(ints(f, shape=(3, 1)), x(f, shape=(3, 4)), [5, 4])])
case("scatter_nd_add")(
    lambda f: [f.layers.scatter_nd_add(x(f, shape=(3, 4)), ints(f, shape=(2, 1)), x(f, "y", (2, 4)))]
)
case("pad")(lambda f: [f.layers.pad(x(f, shape=(2, 3)), [0, 1, 2, 0], pad_value=0.5)])
for _mode in "constant reflect edge".split():
    case("pad2d_" + _mode)(
        lambda f, m=_mode: [f.layers.pad2d(x(f, shape=(1, 2, 3, 4)), [1, 2, 0, 3], mode=m, pad_value=0.5)]
    )
case("pad2d_nhwc")(lambda f: [f.layers.pad2d(x(f, shape=(1, 3, 4, 2)), [1, 0, 2, 1], data_format="NHWC")])
case("pad_constant_like")(lambda f: [f.layers.pad_constant_like(x(f), x(f, "y", (1, 3, 2)), pad_value=0.5)])
case("crop")(lambda f: [f.layers.crop(x(f), shape=[1, 2, 3], offsets=[1, 0, 1])])
case("crop_tensor")(lambda f: [f.layers.crop_tensor(x(f), shape=[1, 2, -1], offsets=[1, 0, 1])])
case("shape")(lambda f: [f.layers.shape(x(f)), f.layers.rank(x(f)), f.layers.size(x(f))])
case("where", values=False)(lambda f: [f.layers.where(bools(f))])
case("shard_index")(lambda f: [f.layers.shard_index(ints(f, shape=(4, 1)), 4, 2, 1)])
case("increment")(lambda f: [f.layers.increment(f.layers.fill_constant([1], "float32", 3.0), 2.0)])
case("increment_new")(lambda f: [f.layers.increment(f.layers.fill_constant([1], "int64", 3), 2, in_place=False)])
case("step_counter")(lambda f: [f.layers.autoincreased_step_counter(begin=5, step=2)])
case("step_counter_named")(lambda f: [f.layers.autoincreased_step_counter("mine")])
case("space_to_depth")(lambda f: [f.layers.space_to_depth(x(f, shape=(1, 4, 4, 4)), 2)])
case("shuffle_channel")(lambda f: [f.layers.shuffle_channel(x(f, shape=(1, 4, 2, 2)), 2)])
case("pixel_shuffle")(lambda f: [f.layers.pixel_shuffle(x(f, shape=(1, 8, 2, 2)), 2)])
case("temporal_shift")(lambda f: [f.layers.temporal_shift(x(f, shape=(4, 4, 2, 2)), 2, 0.25)])
case("unfold")(lambda f: [f.layers.unfold(x(f, shape=(1, 2, 4, 4)), [2, 2])])
case("add_position_encoding")(lambda f: [f.layers.add_position_encoding(x(f), 0.5, 1.5)])
case("affine_channel")(lambda f: [f.layers.affine_channel(x(f, shape=(1, 2, 2, 3)), x(f, "s", (2,)), x(f, "o", (2,)))])
case("fsp_matrix")(lambda f: [f.layers.fsp_matrix(x(f, shape=(1, 2, 3, 3)), x(f, "y", (1, 4, 3, 3)))])
case("maxout")(lambda f: [f.layers.maxout(x(f, shape=(1, 4, 2, 2)), 2)])

case("uniform_random", values=False)(lambda f: [f.layers.uniform_random([2, 3], min=0.0, max=2.0)])
case("gaussian_random", values=False)(lambda f: [f.layers.gaussian_random([2, 3], mean=1.0, std=2.0, seed=3)])
case("uniform_random_batch_size_like", values=False)(
    lambda f: [f.layers.uniform_random_batch_size_like(x(f, shape=(-1, 4)), [-1, 5])]
)
case("gaussian_random_batch_size_like", values=False)(
    lambda f: [f.layers.gaussian_random_batch_size_like(x(f, shape=(-1, 4)), [-1, 5], std=2.0)]
)
case("sampling_id", values=False)(lambda f: [f.layers.sampling_id(x(f, "p", (2, 4)))])
case("randint", values=False)(lambda f: [f.layers.randint(2, 7, [3, 2])])
case("randn", values=False)(lambda f: [f.layers.randn([3, 2])])
case("randperm", values=False)(lambda f: [f.layers.randperm(5)])
case("random_crop", values=False)(lambda f: [f.layers.random_crop(x(f), [2, 2])])

for _label, _function in {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}.items():
    case(f"operator_{_label}")(lambda f, g=_function: [g(x(f, "p"), x(f, "pp"))])
    case(f"operator_{_label}_scalar")(lambda f, g=_function: [g(x(f, "p"), 2.0)])
    case(f"operator_{_label}_integer")(lambda f, g=_function: [g(x(f, "p"), 2)])
    case(f"operator_{_label}_reflected")(lambda f, g=_function: [g(2.0, x(f, "p"))])
    case(f"operator_{_label}_int")(lambda f, g=_function: [g(ints(f) + 1, 2)])
    case(f"operator_{_label}_int_float")(lambda f, g=_function: [g(ints(f) + 1, 1.5)])
    case(f"operator_{_label}_broadcast")(lambda f, g=_function: [g(x(f, "p"), x(f, "pp", (4,)))])
    case(f"operator_{_label}_larger")(lambda f, g=_function: [g(x(f, "p", (4,)), x(f, "pp"))])
case("operator_mod")(lambda f: [ints(f) % (ints(f, "ii") + 1)])
case("operator_floordiv")(lambda f: [ints(f) // (ints(f, "ii") + 1)])
case("operator_mod_scalar")(lambda f: [ints(f) % 2])
case("operator_floordiv_scalar")(lambda f: [ints(f) // 2])
case("operator_neg")(lambda f: [-x(f)])
case("operator_astype")(lambda f: [x(f).astype("int64")])
case("operator_mixed")(lambda f: [ints(f) + x(f, shape=(2, 3))])
case("operator_in_place")(lambda f: [sum([x(f), x(f, "y"), x(f, "z")])])

for _label, _index in {
    "int": 1,
    "last": -1,
    "colon": slice(None),
    "range": slice(0, 1),
    "tuple": (slice(None), 1),
    "ranges": (slice(0, 2), slice(1, None)),
    "negative": (slice(None), slice(-2, None)),
    "end": (slice(None), slice(0, -1)),
    "step": (slice(None), slice(0, 3, 2)),
    "backwards": (slice(None), slice(None, None, -1)),
    "ellipsis": (Ellipsis, 0),
    "ellipsis_first": (0, Ellipsis),
    "all": (0, 1, 2),
    "beyond": (slice(None), slice(1, 100)),
}.items():
    case("index_" + _label)(lambda f, i=_index: [x(f)[i]])
    case("index_batch_" + _label)(lambda f, i=_index: [x(f, shape=(-1, 3, 4))[i]])


def _signed(f, name="i"):
    return ints(f, name) - 1


case("elementwise_mod_negative")(lambda f: [f.layers.elementwise_mod(_signed(f) * 5, ints(f, "ii") * 2 - 3)])
case("elementwise_floordiv_negative")(lambda f: [f.layers.elementwise_floordiv(_signed(f) * 5, ints(f, "ii") * 2 - 3)])
case("elementwise_div_negative")(lambda f: [f.layers.elementwise_div(_signed(f) * 5, ints(f, "ii") * 2 - 3)])
case("round_halves")(lambda f: [f.layers.round(f.layers.cast(_signed(f), "float32") * 1.5)])
case("cast_cut_off")(lambda f: [f.layers.cast(x(f) * 3.0, "int64"), f.layers.cast(x(f, "y"), "bool")])
case("operator_batch_add")(lambda f: [x(f, shape=(-1, 3)) + x(f, "y", (-1, 3))])
case("operator_batch_rows")(lambda f: [x(f, shape=(-1, 3)) * x(f, "y", (-1,))])
case("operator_batch_reflected")(lambda f: [1.0 / x(f, "p", (-1, 3)), 2.0 ** x(f, "y", (-1, 3))])
case("index_variable")(lambda f: [x(f)[f.layers.fill_constant([1], "int32", 1)]])
case("slice_variable")(lambda f: [f.layers.slice(x(f), [0, 1], [0, f.layers.fill_constant([1], "int32", 1)], [1, 3])])
case("reshape_variable")(lambda f: [f.layers.reshape(x(f), [f.layers.fill_constant([1], "int32", 6), -1])])
case("reshape_actual")(lambda f: [f.layers.reshape(x(f), [-1, 4], actual_shape=f.layers.shape(x(f, "y", (3, 8))))])
case("fill_constant_variable")(
    lambda f: [f.layers.fill_constant([2, f.layers.fill_constant([1], "int32", 3)], "float32", 1.5)]
)
case("expand_variable")(lambda f: [f.layers.expand(x(f), [1, f.layers.fill_constant([1], "int32", 2), 1])])
case("split_variable")(lambda f: list(f.layers.split(x(f), [1, f.layers.fill_constant([1], "int32", 2)], dim=1)))
case("scale_variable")(lambda f: [f.layers.scale(x(f), scale=f.layers.fill_constant([1], "float32", 3.0))])
case("pow_variable")(lambda f: [f.layers.pow(x(f, "p"), f.layers.fill_constant([1], "float32", 2.0))])
case("unsqueeze_variable")(lambda f: [f.layers.unsqueeze(x(f), [f.layers.fill_constant([1], "int32", 1), 0])])
case("crop_tensor_variable")(
    lambda f: [f.layers.crop_tensor(x(f), [1, f.layers.fill_constant([1], "int32", 2), 2], [0, 1, 1])]
)
case("strided_slice_variable")(
    lambda f: [f.layers.strided_slice(x(f), [2], [0], [f.layers.fill_constant([1], "int32", 4)], [2])]
)


def _grad(f, build):
    v = x(f, stop=False)
    return list(f.gradients([f.layers.mean(build(v))], [v]))


for _label, _function in {
    "operator": lambda f, v: v * v + 2.0 * v - 1.0,
    "reshape": lambda f, v: f.layers.reshape(v, [0, -1]) * 2.0,
    "slice": lambda f, v: v[:, 1:],
    "concat": lambda f, v: f.layers.concat([v, f.layers.square(v)], axis=1),
    "scale_chain": lambda f, v: (1.0 - v) / 2.0,
}.items():
    case("gradient_" + _label)(lambda f, g=_function: _grad(f, lambda v: g(f, v)))


@case("switch")
def _switch(f):
    layers = f.layers
    rate = layers.create_global_var([1], 0.0, "float32", persistable=True, name="rate")
    step = layers.fill_constant([1], "float32", 3.0)
    with layers.Switch() as switch:
        with switch.case(layers.less_than(step, layers.fill_constant([1], "float32", 1.0))):
            layers.assign(layers.fill_constant([1], "float32", 1.0), rate)
        with switch.case(layers.less_than(step, layers.fill_constant([1], "float32", 5.0))):
            layers.assign(layers.fill_constant([1], "float32", 2.0), rate)
        with switch.default():
            layers.assign(layers.fill_constant([1], "float32", 3.0), rate)
    return [rate]


@case("cond")
def _cond(f):
    layers = f.layers
    a, b = x(f, "a", (1,)), x(f, "p", (1,))
    return [layers.cond(layers.less_than(a, b), lambda: a + b, lambda: a * b)]


@case("case")
def _case(f):
    layers = f.layers
    a, b = x(f, "a", (1,)), x(f, "p", (1,))
    return [
        layers.case(
            [(layers.less_than(b, a), lambda: a + b), (layers.less_than(a, b), lambda: a * b)],
            default=lambda: a - b,
        )
    ]


@case("switch_case")
def _switch_case(f):
    layers = f.layers
    index = layers.fill_constant([1], "int32", 2)
    a = x(f, "a", (1,))
    return [layers.switch_case(index, {1: lambda: a + 1.0, 2: lambda: a * 2.0}, default=lambda: a)]


case("print", values=False)(lambda f: [f.layers.Print(x(f), message="seen")])
