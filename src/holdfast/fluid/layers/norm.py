"""Normalisation."""

from __future__ import annotations

import math
import warnings
from typing import Any

from holdfast.fluid.core import VarType
from holdfast.fluid.framework import Parameter, Variable
from holdfast.fluid.initializer import Constant, NormalInitializer
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.param_attr import ParamAttr


def _parameter_dtype(dtype: Any) -> Any:
    return VarType.FP32 if dtype == VarType.FP16 else dtype


def _channels(input: Variable, data_layout: str, layer: str) -> int:
    if data_layout not in ("NCHW", "NHWC"):
        raise ValueError(f"{layer}: data_layout must be NCHW or NHWC, not {data_layout!r}")
    channels = int(input.shape[1 if data_layout == "NCHW" else -1])
    if channels < 0:
        raise ValueError(f"{layer}: the number of channels must be known, but the input's shape is {list(input.shape)}")
    return channels


def _scale_and_bias(helper: LayerHelper, size: int, dtype: Any) -> tuple[Parameter | None, Parameter | None]:
    if helper.bias_attr is False or helper.param_attr is False:
        raise ValueError(f"{helper.layer_type}: param_attr and bias_attr cannot be False")
    scale = helper.create_parameter(helper.param_attr, [size], dtype, default_initializer=Constant(1.0))
    return scale, helper.create_parameter(helper.bias_attr, [size], dtype, is_bias=True)


def _batch_norm(helper: LayerHelper, input: Variable, arguments: dict[str, Any], in_place: bool) -> Variable:
    """Add a `batch_norm` or `inplace_abn` with its four parameters; `arguments` are those of the layer."""
    layout = arguments["data_layout"]
    channels = _channels(input, layout, helper.layer_type)
    dtype = _parameter_dtype(input.dtype)
    scale, bias = _scale_and_bias(helper, channels, dtype)
    moving = []
    for name, start in ((arguments["moving_mean_name"], 0.0), (arguments["moving_variance_name"], 1.0)):
        attr = ParamAttr(
            name=name,
            initializer=Constant(start),
            trainable=False,
            do_model_average=arguments["do_model_average_for_mean_and_var"],
        )
        moving.append(helper.create_parameter(attr, [channels], dtype))
    mean, variance = moving
    saved = [helper.create_variable_for_type_inference(dtype, stop_gradient=True) for _ in range(2)]
    out = input if in_place else helper.create_variable_for_type_inference(input.dtype)
    inputs = {"X": [input], "Scale": [scale], "Bias": [bias], "Mean": [mean], "Variance": [variance]}
    attrs = {
        "epsilon": arguments["epsilon"],
        "is_test": arguments["is_test"],
        "data_layout": layout,
        "use_global_stats": arguments["use_global_stats"],
    }
    momentum = arguments["momentum"]
    if isinstance(momentum, Variable):
        inputs["MomentumTensor"] = [momentum]
    else:
        attrs["momentum"] = momentum
    if helper.layer_type == "inplace_abn":
        attrs |= {"activation": arguments["act"] or "", "alpha": arguments["act_alpha"]}
    outputs = {
        "Y": [out], "MeanOut": [mean], "VarianceOut": [variance], "SavedMean": [saved[0]], "SavedVariance": [saved[1]],
    }  # fmt: skip
    helper.append_op(helper.layer_type, inputs, outputs, attrs)
    return out


def batch_norm(
    input: Variable,
    act: str | None = None,
    is_test: bool = False,
    momentum: Any = 0.9,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    data_layout: str = "NCHW",
    in_place: bool = False,
    name: str | None = None,
    moving_mean_name: str | None = None,
    moving_variance_name: str | None = None,
    do_model_average_for_mean_and_var: bool = True,
    use_global_stats: bool = False,
) -> Variable:
    """Every channel with mean 0 and variance 1 over the batch, scaled and moved.

    Four Parameters: scale `.w_0`, bias `.b_0`, and the moving mean `.w_1` and variance `.w_2`, which every run of the program
    changes that is no test; optimizers do not.

    Args:
        input: channels are dimension 1, or the last for `data_layout="NHWC"`.
        act: name of an activation.
        is_test: use the moving statistics and leave them as they are; `clone(for_test=True)` sets it.
        momentum: share of the old value in a moving one: a number, or a variable of shape [1].
        epsilon: added to the variance.
        param_attr, bias_attr: of scale and bias; see `ParamAttr`.
        data_layout: `"NCHW"` or `"NHWC"`, for inputs of any number of dimensions.
        in_place: let the output have the name of the input.
        name: key of the names.
        moving_mean_name, moving_variance_name: names instead of `.w_1` and `.w_2`.
        do_model_average_for_mean_and_var: whether `ModelAverage` takes part of the moving statistics.
        use_global_stats: use the moving statistics in training, too.
    """
    arguments = dict(locals())
    helper = LayerHelper("batch_norm", input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    return helper.append_activation(_batch_norm(helper, input, arguments, in_place))


def inplace_abn(
    input: Variable,
    act: str | None = None,
    is_test: bool = False,
    momentum: Any = 0.9,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    data_layout: str = "NCHW",
    name: str | None = None,
    moving_mean_name: str | None = None,
    moving_variance_name: str | None = None,
    do_model_average_for_mean_and_var: bool = True,
    use_global_stats: bool = False,
    act_alpha: float = 1.0,
) -> Variable:
    """`batch_norm` and an activation in one, whose output has the name of the input.

    Args:
        act: None, `"identity"`, `"leaky_relu"` or `"elu"`.
        act_alpha: the slope below zero of leaky_relu, or the depth of elu.
        input, is_test, momentum, epsilon, param_attr, bias_attr, data_layout, name, moving_mean_name, moving_variance_name,
            do_model_average_for_mean_and_var, use_global_stats: see `batch_norm`.
    """
    arguments = dict(locals())
    if act not in (None, "identity", "leaky_relu", "elu"):
        raise ValueError(f"inplace_abn: act must be None, 'identity', 'leaky_relu' or 'elu', not {act!r}")
    helper = LayerHelper("inplace_abn", input=input, param_attr=param_attr, bias_attr=bias_attr, name=name)
    return _batch_norm(helper, input, arguments, in_place=True)


def layer_norm(
    input: Variable,
    scale: bool = True,
    shift: bool = True,
    begin_norm_axis: int = 1,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: str | None = None,
    name: str | None = None,
) -> Variable:
    """Every sample with mean 0 and variance 1 over its dimensions from `begin_norm_axis` on, scaled and moved.

    Args:
        input: the dimensions from `begin_norm_axis` on must be known.
        scale, shift: whether there is a scale (`.w_0`) and a bias (`.b_0`), of one dimension each.
        begin_norm_axis: the first dimension that belongs to a sample.
        epsilon: added to the variance.
        param_attr, bias_attr: of scale and bias; see `ParamAttr`.
        act: name of an activation.
        name: key of the names.
    """
    helper = LayerHelper("layer_norm", input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    size = math.prod(input.shape[begin_norm_axis:])
    inputs: dict[str, Any] = {"X": [input]}
    for slot, wanted, attr, argument in (
        ("Scale", scale, helper.param_attr, "param_attr"),
        ("Bias", shift, helper.bias_attr, "bias_attr"),
    ):
        if wanted:
            if attr is False:
                raise ValueError(f"layer_norm: {argument}=False; leave it out by scale=False or shift=False")
            initializer = Constant(1.0) if slot == "Scale" else None
            inputs[slot] = [
                helper.create_parameter(
                    attr, [size], input.dtype, is_bias=slot == "Bias", default_initializer=initializer
                )
            ]
        elif helper.kwargs[argument]:
            warnings.warn(f"layer_norm: {argument} has no effect without {slot.lower()}", stacklevel=2)
    mean, variance = (helper.create_variable_for_type_inference(input.dtype, stop_gradient=True) for _ in range(2))
    out = helper.create_variable_for_type_inference(input.dtype)
    outputs = {"Y": [out], "Mean": [mean], "Variance": [variance]}
    helper.append_op("layer_norm", inputs, outputs, {"epsilon": epsilon, "begin_norm_axis": begin_norm_axis})
    return helper.append_activation(out)


def group_norm(
    input: Variable,
    groups: int,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: str | None = None,
    data_layout: str = "NCHW",
    name: str | None = None,
) -> Variable:
    """Every group of channels of a sample with mean 0 and variance 1, scaled and moved.

    As in Fluid 1.8.5 there is a scale and a bias only if their attribute is given and true, and the temporaries are called
    `_generated_var_<k>`.

    Args:
        input: channels are dimension 1, or the last for `data_layout="NHWC"`.
        groups: their number.
        epsilon: added to the variance.
        param_attr, bias_attr: of scale and bias; see `ParamAttr`.
        act: name of an activation.
        data_layout: `"NCHW"` or `"NHWC"`.
        name: key of the names.
    """
    helper = LayerHelper("group_norm", input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    channels = _channels(input, data_layout, "group_norm")
    inputs: dict[str, Any] = {"X": [input]}
    if param_attr:
        scale = helper.create_parameter(helper.param_attr, [channels], input.dtype, default_initializer=Constant(1.0))
        inputs["Scale"] = [scale]
    if bias_attr:
        inputs["Bias"] = [helper.create_parameter(helper.bias_attr, [channels], input.dtype, is_bias=True)]
    mean, variance = (helper.create_variable(dtype=input.dtype, stop_gradient=True) for _ in range(2))
    out = helper.create_variable(dtype=input.dtype)
    outputs = {"Y": [out], "Mean": [mean], "Variance": [variance]}
    helper.append_op("group_norm", inputs, outputs, {"epsilon": epsilon, "groups": groups, "data_layout": data_layout})
    return helper.append_activation(out)


def instance_norm(
    input: Variable, epsilon: float = 1e-5, param_attr: Any = None, bias_attr: Any = None, name: str | None = None
) -> Variable:
    """Every channel of a sample with mean 0 and variance 1, scaled and moved.

    Args:
        input: channels are dimension 1.
        epsilon: added to the variance.
        param_attr, bias_attr: of scale (`.w_0`) and bias (`.b_0`); see `ParamAttr`.
        name: key of the names.
    """
    helper = LayerHelper("instance_norm", input=input, param_attr=param_attr, bias_attr=bias_attr, name=name)
    dtype = _parameter_dtype(input.dtype)
    scale, bias = _scale_and_bias(helper, _channels(input, "NCHW", "instance_norm"), dtype)
    mean, variance = (helper.create_variable_for_type_inference(dtype, stop_gradient=True) for _ in range(2))
    out = helper.create_variable_for_type_inference(dtype)
    inputs = {"X": [input], "Scale": [scale], "Bias": [bias]}
    outputs = {"Y": [out], "SavedMean": [mean], "SavedVariance": [variance]}
    helper.append_op("instance_norm", inputs, outputs, {"epsilon": epsilon})
    return out


def spectral_norm(
    weight: Variable, dim: int = 0, power_iters: int = 1, eps: float = 1e-12, name: str | None = None
) -> Variable:
    """A weight divided by its greatest singular value, as a few power iterations find it.

    The vectors they begin with are Parameters (`.w_0`, `.w_1`) that nothing changes, as in Fluid 1.8.5.

    Args:
        weight: as a matrix with `dim` as its rows.
        dim: of the output channels: 0 for fc's and conv2d's, 1 for conv2d_transpose's.
        power_iters: number of iterations.
        eps: added to lengths that are divided by.
        name: key of the names.
    """
    helper = LayerHelper("spectral_norm", name=name)
    rows = weight.shape[dim]
    vectors = []
    for size in (rows, math.prod(weight.shape) // rows):
        vector = helper.create_parameter(
            ParamAttr(), [size], weight.dtype, default_initializer=NormalInitializer(0.0, 1.0)
        )
        assert vector is not None
        vector.stop_gradient = True
        vectors.append(vector)
    out = helper.create_variable(dtype=weight.dtype)
    inputs = {"Weight": [weight], "U": [vectors[0]], "V": [vectors[1]]}
    helper.append_op("spectral_norm", inputs, {"Out": [out]}, {"dim": dim, "power_iters": power_iters, "eps": eps})
    return out


def lrn(
    input: Variable,
    n: int = 5,
    k: float = 1.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Variable:
    """Local response normalisation: `x / (k + alpha * sum of squares of n channels around) ** beta`.

    Args:
        input: images.
        n, k, alpha, beta: see the formula.
        name: key of the names.
        data_format: `"NCHW"` or `"NHWC"`.
    """
    if len(input.shape) != 4:
        raise ValueError(f"lrn needs images of four dimensions, but the shape is {list(input.shape)}")
    _channels(input, data_format, "lrn")
    helper = LayerHelper("lrn", name=name)
    middle = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    out = helper.create_variable_for_type_inference(input.dtype)
    attrs = {"n": n, "k": k, "alpha": alpha, "beta": beta, "data_format": data_format}
    helper.append_op("lrn", {"X": [input]}, {"Out": [out], "MidOut": [middle]}, attrs)
    return out


def l2_normalize(x: Variable, axis: int | None, epsilon: float = 1e-12, name: str | None = None) -> Variable:
    """Everything along an axis divided by its length: `x / sqrt(sum(x * x) + epsilon)`.

    Args:
        x: any number of dimensions.
        axis: None for 1; 0 if there is one dimension only.
        epsilon: added to the square of the length.
        name: key of the names.
    """
    axis = 0 if len(x.shape) == 1 else 1 if axis is None else axis
    helper = LayerHelper("l2_normalize", name=name)
    out, length = (helper.create_variable_for_type_inference(x.dtype) for _ in range(2))
    helper.append_op("norm", {"X": [x]}, {"Out": [out], "Norm": [length]}, {"axis": axis, "epsilon": epsilon})
    return out


def affine_channel(
    x: Variable,
    scale: Variable | None = None,
    bias: Variable | None = None,
    data_layout: str = "NCHW",
    name: str | None = None,
    act: str | None = None,
) -> Variable:
    """Every channel scaled and moved by variables of shape [channels].

    Args:
        x: images.
        scale, bias: both are needed.
        data_layout: `"NCHW"` or `"NHWC"`.
        name: key of the names.
        act: name of an activation.
    """
    helper = LayerHelper("affine_channel", act=act, name=name)
    inputs = {"X": [x], "Scale": scale, "Bias": bias}
    return helper.append_activation(helper.op("affine_channel", inputs, {"data_layout": data_layout}, dtype=x.dtype))
