"""Pooling."""

from __future__ import annotations

from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.windows import as_list, channels_of, padding_of


def _check_type(pool_type: str) -> None:
    if pool_type not in ("max", "avg"):
        raise ValueError(f"pool_type must be 'max' or 'avg', not {pool_type!r}")


def _pool(
    layer: str,
    rank: int,
    input: Variable,
    pool_size: Any,
    pool_type: str,
    pool_stride: Any,
    pool_padding: Any,
    global_pooling: bool,
    ceil_mode: bool,
    name: str | None,
    exclusive: bool,
    data_format: str,
) -> Variable:
    _check_type(pool_type)
    if pool_size == -1 and not global_pooling:
        raise ValueError(f"{layer} needs a pool_size, unless global_pooling=True")
    channels_of(input.shape, data_format, rank)
    numbers, algorithm = padding_of(pool_padding, rank, data_format)
    if algorithm == "VALID" and ceil_mode:
        raise ValueError(f"{layer}: pool_padding='VALID' has no ceil_mode")
    attrs = {
        "pooling_type": pool_type,
        "ksize": as_list(pool_size, rank, "pool_size"),
        "global_pooling": global_pooling,
        "strides": as_list(pool_stride, rank, "pool_stride"),
        "paddings": numbers,
        "padding_algorithm": algorithm,
        "ceil_mode": ceil_mode,
        "exclusive": exclusive,
        "data_format": data_format,
    }
    return LayerHelper(layer, name=name).op(layer, {"X": [input]}, attrs, dtype=input.dtype)


def pool2d(
    input: Variable,
    pool_size: Any = -1,
    pool_type: str = "max",
    pool_stride: Any = 1,
    pool_padding: Any = 0,
    global_pooling: bool = False,
    use_cudnn: bool = True,
    ceil_mode: bool = False,
    name: str | None = None,
    exclusive: bool = True,
    data_format: str = "NCHW",
) -> Variable:
    """The greatest or the mean of every window of images.

    Args:
        input: (N, C, H, W), or (N, H, W, C) for `data_format="NHWC"`.
        pool_size, pool_stride: a number, or one for height and one for width.
        pool_type: `"max"` or `"avg"`.
        pool_padding: as the padding of `conv2d`.
        global_pooling: one window over all; size and padding do not count.
        use_cudnn: accepted as Fluid has it.
        ceil_mode: a last window that is not full counts, too.
        name: key of the names.
        exclusive: the mean leaves the padding out.
        data_format: of input and output.
    """
    return _pool(
        "pool2d", 2, input, pool_size, pool_type, pool_stride, pool_padding, global_pooling, ceil_mode, name, exclusive,
        data_format,
    )  # fmt: skip


def pool3d(
    input: Variable,
    pool_size: Any = -1,
    pool_type: str = "max",
    pool_stride: Any = 1,
    pool_padding: Any = 0,
    global_pooling: bool = False,
    use_cudnn: bool = True,
    ceil_mode: bool = False,
    name: str | None = None,
    exclusive: bool = True,
    data_format: str = "NCDHW",
) -> Variable:
    """The greatest or the mean of every window of volumes; see `pool2d`."""
    return _pool(
        "pool3d", 3, input, pool_size, pool_type, pool_stride, pool_padding, global_pooling, ceil_mode, name, exclusive,
        data_format,
    )  # fmt: skip


def _adaptive(rank: int, input: Variable, pool_size: Any, pool_type: str, require_index: bool, name: str | None) -> Any:
    _check_type(pool_type)
    if pool_type == "avg" and require_index:
        raise ValueError("require_index: a mean stands nowhere; it needs pool_type='max'")
    sizes = as_list(pool_size, rank, "pool_size")
    if pool_type == "avg":
        attrs = {"pooling_type": "avg", "ksize": sizes, "adaptive": True}
        return LayerHelper(f"pool{rank}d", name=name).op(f"pool{rank}d", {"X": [input]}, attrs, dtype=input.dtype)
    layer = f"max_pool{rank}d_with_index"
    helper = LayerHelper(layer, name=name)
    out = helper.create_variable_for_type_inference(input.dtype)
    mask = helper.create_variable_for_type_inference()
    helper.append_op(layer, {"X": [input]}, {"Out": [out], "Mask": [mask]}, {"ksize": sizes, "adaptive": True})
    return (out, mask) if require_index else out


def adaptive_pool2d(
    input: Variable, pool_size: Any, pool_type: str = "max", require_index: bool = False, name: str | None = None
) -> Any:
    """The greatest or the mean of a given number of parts of images (N, C, H, W).

    Args:
        input: the images.
        pool_size: the output's size: a number, or height and width.
        pool_type: `"max"` or `"avg"`.
        require_index: return also where each greatest value stands in its plane (row · width + column).
        name: key of the names.

    Returns:
        The output; with `require_index` a tuple of it and the places.
    """
    return _adaptive(2, input, pool_size, pool_type, require_index, name)


def adaptive_pool3d(
    input: Variable, pool_size: Any, pool_type: str = "max", require_index: bool = False, name: str | None = None
) -> Any:
    """The greatest or the mean of a given number of parts of volumes (N, C, D, H, W); see `adaptive_pool2d`."""
    return _adaptive(3, input, pool_size, pool_type, require_index, name)


def maxout(x: Variable, groups: int, name: str | None = None, axis: int = 1) -> Variable:
    """The greatest of every `groups` channels that follow each other.

    Args:
        x: four dimensions.
        groups: how many channels become one.
        name: key of the names.
        axis: of the channels: 1, 3 or -1.
    """
    if axis not in (1, -1, 3):
        raise ValueError(f"axis must be 1, 3 or -1, not {axis!r}")
    attrs = {"groups": groups, "axis": 3 if axis == -1 else axis}
    return LayerHelper("maxout", name=name).op("maxout", {"X": [x]}, attrs, dtype=x.dtype)
