"""Convolutions."""

from __future__ import annotations

import math
from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.initializer import NormalInitializer
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.windows import as_list, channels_of, padding_of


def _finish(helper: LayerHelper, out: Variable, data_format: str) -> Variable:
    """Add a bias for each channel, and the activation."""
    channel = 1 if data_format.startswith("NC") else len(out.shape) - 1
    return helper.append_activation(helper.append_bias_op(out, dim_start=channel, dim_end=channel + 1))


def _check(use_cudnn: bool, param_attr: Any, layer: str) -> None:
    if not isinstance(use_cudnn, bool):
        raise TypeError(f"{layer}: use_cudnn must be True or False, not {use_cudnn!r}")
    if param_attr is False:
        raise ValueError(f"{layer}: param_attr cannot be False, there is no convolution without a filter")


def _windows(
    rank: int, stride: Any, padding: Any, dilation: Any, groups: int | None, data_format: str
) -> dict[str, Any]:
    """The attributes that every convolution has."""
    numbers, algorithm = padding_of(padding, rank, data_format)
    return {
        "strides": as_list(stride, rank, "stride"),
        "paddings": numbers,
        "padding_algorithm": algorithm,
        "dilations": as_list(dilation, rank, "dilation"),
        "groups": groups or 1,
    }


def _conv(
    layer: str,
    rank: int,
    input: Variable,
    num_filters: int,
    filter_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int | None,
    param_attr: Any,
    bias_attr: Any,
    use_cudnn: bool,
    act: str | None,
    name: str | None,
    data_format: str,
) -> Variable:
    _check(use_cudnn, param_attr, layer)
    channels = channels_of(input.shape, data_format, rank)
    if groups is not None and (groups < 1 or channels % groups or num_filters % groups):
        raise ValueError(f"{layer}: {channels} channels and {num_filters} filters do not make {groups} groups")
    if rank == 2 and channels == groups and num_filters % channels == 0 and not use_cudnn:
        layer = "depthwise_conv2d"
    helper = LayerHelper(layer, input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    dtype = helper.input_dtype()
    kernel = as_list(filter_size, rank, "filter_size")
    attrs = _windows(rank, stride, padding, dilation, groups, data_format)
    weight = helper.create_parameter(
        helper.param_attr,
        [num_filters, channels // (groups or 1), *kernel],
        dtype,
        default_initializer=NormalInitializer(0.0, math.sqrt(2.0 / (math.prod(kernel) * channels)), 0),
    )
    attrs["data_format"] = data_format
    out = helper.op(layer, {"Input": [input], "Filter": [weight]}, attrs, dtype=dtype, slot="Output")
    return _finish(helper, out, data_format)


def conv2d(
    input: Variable,
    num_filters: int,
    filter_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: str | None = None,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Variable:
    """A convolution of images with a filter for every output channel, a bias and an activation.

    Args:
        input: (N, C, H, W), or (N, H, W, C) for `data_format="NHWC"`.
        num_filters: number of output channels.
        filter_size, stride, dilation: a number, or one for height and one for width.
        padding: `"SAME"`, `"VALID"`, a number, [height, width], [top, bottom, left, right], or a pair for each dimension.
        groups: output channels of a group see input channels of that group only.
        param_attr, bias_attr: see `ParamAttr`; `bias_attr=False` for no bias.
        use_cudnn: accepted; False with as many groups as channels makes it a `depthwise_conv2d`, also in the names.
        act: name of an activation.
        name: key of the names; `conv2d_0`, `conv2d_1`, … if None.
        data_format: of input and output; filters are (output channels, input channels / groups, height, width) in both.
    """
    return _conv(
        "conv2d", 2, input, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
        act, name, data_format,
    )  # fmt: skip


def conv3d(
    input: Variable,
    num_filters: int,
    filter_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: str | None = None,
    name: str | None = None,
    data_format: str = "NCDHW",
) -> Variable:
    """A convolution of volumes (N, C, D, H, W), or (N, D, H, W, C) for `data_format="NDHWC"`; see `conv2d`."""
    return _conv(
        "conv3d", 3, input, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
        act, name, data_format,
    )  # fmt: skip


def _conv_transpose(
    layer: str,
    rank: int,
    input: Variable,
    num_filters: int,
    output_size: Any,
    filter_size: Any,
    padding: Any,
    stride: Any,
    dilation: Any,
    groups: int | None,
    param_attr: Any,
    bias_attr: Any,
    use_cudnn: bool,
    act: str | None,
    name: str | None,
    data_format: str,
) -> Variable:
    _check(use_cudnn, param_attr, layer)
    channels = channels_of(input.shape, data_format, rank)
    if rank == 2 and channels == groups == num_filters and not use_cudnn:
        layer = "depthwise_conv2d_transpose"
    helper = LayerHelper(layer, input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    attrs = _windows(rank, stride, padding, dilation, groups, data_format)
    numbers = attrs["paddings"]
    sizes = [] if output_size is None else as_list(output_size, rank, "output_size")
    if filter_size is not None:
        kernel = as_list(filter_size, rank, "filter_size")
    elif sizes:
        around = (
            [2 * n for n in numbers]
            if len(numbers) == rank
            else [sum(numbers[i : i + 2]) for i in range(0, 2 * rank, 2)]
        )
        inside = input.shape[2:] if data_format.startswith("NC") else input.shape[1:-1]
        if any(n < 0 for n in inside):
            raise ValueError(f"{layer} needs a filter_size: the size of the input is not known, {list(input.shape)}")
        kernel = [
            (size - (n - 1) * s + p - 1) // d + 1
            for size, n, s, p, d in zip(sizes, inside, attrs["strides"], around, attrs["dilations"], strict=True)
        ]
    else:
        raise ValueError(f"{layer} needs a filter_size or an output_size")
    weight = helper.create_parameter(helper.param_attr, [channels, num_filters // (groups or 1), *kernel], input.dtype)
    attrs["output_size"] = sizes
    attrs["data_format"] = "NCHW" if data_format.startswith("NC") else "NHWC"  # Fluid's operators know these two only
    out = helper.op(layer, {"Input": [input], "Filter": [weight]}, attrs, dtype=input.dtype, slot="Output")
    return _finish(helper, out, data_format)


def conv2d_transpose(
    input: Variable,
    num_filters: int,
    output_size: Any = None,
    filter_size: Any = None,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: str | None = None,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Variable:
    """A transposed convolution: images made larger, with a bias and an activation.

    Args:
        input: (N, C, H, W), or (N, H, W, C) for `data_format="NHWC"`.
        num_filters: number of output channels.
        output_size: a number, or height and width; it says which of the sizes that fit the stride is meant, and gives the
            filter's size if that is None.
        filter_size: a number, or height and width; the filter is (input channels, output channels / groups, *window).
        padding, stride, dilation, groups, param_attr, bias_attr, use_cudnn, act, name, data_format: see `conv2d`.
    """
    return _conv_transpose(
        "conv2d_transpose", 2, input, num_filters, output_size, filter_size, padding, stride, dilation, groups, param_attr,
        bias_attr, use_cudnn, act, name, data_format,
    )  # fmt: skip


def conv3d_transpose(
    input: Variable,
    num_filters: int,
    output_size: Any = None,
    filter_size: Any = None,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: str | None = None,
    name: str | None = None,
    data_format: str = "NCDHW",
) -> Variable:
    """A transposed convolution of volumes; see `conv2d_transpose`."""
    return _conv_transpose(
        "conv3d_transpose", 3, input, num_filters, output_size, filter_size, padding, stride, dilation, groups, param_attr,
        bias_attr, use_cudnn, act, name, data_format,
    )  # fmt: skip


def unfold(
    x: Variable,
    kernel_sizes: Any,
    strides: Any = 1,
    paddings: Any = 0,
    dilations: Any = 1,
    name: str | None = None,
) -> Variable:
    """Every window of images (N, C, H, W) as a column: (N, C · height · width of the window, number of windows).

    Args:
        x: the images.
        kernel_sizes, strides, dilations: a number, or height and width.
        paddings: a number, [height, width], or [top, left, bottom, right].
        name: key of the names.
    """
    pads = [paddings] * 4 if isinstance(paddings, int) else list(paddings)
    pads = pads * 2 if len(pads) == 2 else pads
    if len(pads) != 4:
        raise ValueError(f"paddings must be a number, two or four of them, not {paddings!r}")
    attrs = {
        "kernel_sizes": as_list(kernel_sizes, 2, "kernel_sizes"),
        "strides": as_list(strides, 2, "strides"),
        "paddings": pads,
        "dilations": as_list(dilations, 2, "dilations"),
    }
    return LayerHelper("unfold", name=name).op("unfold", {"X": [x]}, attrs, dtype=x.dtype, slot="Y")
