"""Images resized, sampled and rearranged."""

from __future__ import annotations

from typing import Any

from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.windows import channels_of

_METHODS = {"BILINEAR": ("bilinear", 2), "NEAREST": ("nearest", 2), "TRILINEAR": ("trilinear", 3)}


def image_resize(
    input: Variable,
    out_shape: Any = None,
    scale: float | None = None,
    name: str | None = None,
    resample: str = "BILINEAR",
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCHW",
) -> Variable:
    """Images or volumes of another size.

    Args:
        input: four dimensions, or five for `"TRILINEAR"`.
        out_shape: the size: [height, width], or [depth, height, width].
        scale: instead of it, a factor of the size.
        name: key of the names.
        resample: `"BILINEAR"`, `"NEAREST"` or `"TRILINEAR"`.
        actual_shape: not supported; XLA compiles for one size.
        align_corners: let the middles of the outer pixels stay where they are.
        align_mode: without `align_corners`: 0 for pixels with an extent, 1 for points that begin at the same place.
        data_format: such as `"NCHW"`.

    Raises:
        NotImplementedError: the size is a variable.
    """
    if resample not in _METHODS:
        raise ValueError(f"resample must be one of {', '.join(_METHODS)}, not {resample!r}")
    method, rank = _METHODS[resample]
    channels_of(input.shape, data_format, rank)
    sizes = list(out_shape) if isinstance(out_shape, list | tuple) else [out_shape]
    if actual_shape is not None or any(isinstance(v, Variable) for v in (*sizes, scale)):
        raise NotImplementedError(
            "image_resize to a size that is a variable gives another shape in every run, which XLA does not compile; give "
            "out_shape as numbers"
        )
    if align_mode not in (0, 1):
        raise ValueError(f"align_mode must be 0 or 1, not {align_mode!r}")
    attrs: dict[str, Any] = {
        "interp_method": method,
        "align_corners": align_corners,
        "align_mode": align_mode,
        "data_layout": "NCHW" if data_format.startswith("NC") else "NHWC",
    }
    if out_shape is not None:
        if len(sizes) != rank or any(int(n) < 1 for n in sizes):
            raise ValueError(f"out_shape must be {rank} sizes, not {out_shape!r}")
        attrs |= dict(zip(("out_d", "out_h", "out_w")[-rank:], map(int, sizes), strict=True))
    elif scale is not None and scale > 0:
        attrs["scale"] = float(scale)
    else:
        raise ValueError(f"image_resize needs an out_shape or a scale above zero, not {scale!r}")
    layer = f"{method}_interp"
    return LayerHelper(layer, name=name).op(layer, {"X": [input]}, attrs, dtype=input.dtype)


def resize_bilinear(
    input: Variable,
    out_shape: Any = None,
    scale: float | None = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCHW",
) -> Variable:
    """Images of another size, linear in height and width; see `image_resize`."""
    return image_resize(input, out_shape, scale, name, "BILINEAR", actual_shape, align_corners, align_mode, data_format)


def resize_trilinear(
    input: Variable,
    out_shape: Any = None,
    scale: float | None = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCDHW",
) -> Variable:
    """Volumes of another size, linear in every dimension; see `image_resize`."""
    return image_resize(
        input, out_shape, scale, name, "TRILINEAR", actual_shape, align_corners, align_mode, data_format
    )


def resize_nearest(
    input: Variable,
    out_shape: Any = None,
    scale: float | None = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    data_format: str = "NCHW",
) -> Variable:
    """Images of another size, each pixel the nearest one; see `image_resize`."""
    return image_resize(input, out_shape, scale, name, "NEAREST", actual_shape, align_corners, 1, data_format)


def image_resize_short(input: Variable, out_short_len: int, resample: str = "BILINEAR") -> Variable:
    """Images made so large that the shorter side has a given length; height and width must be known."""
    channels_of(input.shape, "NCHW", 2)
    sides = list(input.shape[2:])
    if any(n < 0 for n in sides):
        raise ValueError(f"image_resize_short: height and width must be known, but the shape is {list(input.shape)}")
    short = sides.index(min(sides))
    sizes = [out_short_len] * 2
    sizes[1 - short] = int(sides[1 - short] * (out_short_len / sides[short]) + 0.5)
    return image_resize(input, sizes, resample=resample)


def affine_grid(theta: Variable, out_shape: Any, name: str | None = None) -> Variable:
    """Where each pixel of an output is in the input, for `grid_sampler`: (N, H, W, 2).

    Args:
        theta: (N, 2, 3), a matrix for each image.
        out_shape: [N, C, H, W] of the output.
        name: accepted as Fluid has it.
    """
    del name
    if (
        not isinstance(out_shape, list | tuple)
        or len(out_shape) != 4
        or any(isinstance(n, Variable) for n in out_shape)
    ):
        raise NotImplementedError(f"affine_grid: out_shape must be four numbers, not {out_shape!r}")
    attrs = {"output_shape": list(out_shape)}
    return LayerHelper("affine_grid").op("affine_grid", {"Theta": [theta]}, attrs, dtype=theta.dtype, slot="Output")


def grid_sampler(x: Variable, grid: Variable, name: str | None = None) -> Variable:
    """Values of images at the places of a grid, linear between pixels, zero outside.

    Args:
        x: (N, C, H, W).
        grid: (N, H', W', 2): across and down, from -1 to 1.
        name: key of the names.
    """
    inputs = {"X": [x], "Grid": [grid]}
    return LayerHelper("grid_sampler", name=name).op("grid_sampler", inputs, dtype=x.dtype, slot="Output")


def _rearranged(layer: str, x: Variable, name: str | None, **attrs: Any) -> Variable:
    return LayerHelper(layer, name=name).op(layer, {"X": [x]}, attrs, dtype=x.dtype)


def pixel_shuffle(x: Variable, upscale_factor: int) -> Variable:
    """(N, C · r², H, W) as (N, C, H · r, W · r)."""
    return _rearranged("pixel_shuffle", x, None, upscale_factor=upscale_factor)


def space_to_depth(x: Variable, blocksize: int, name: str | None = None) -> Variable:
    """(N, C, H, W) as (N, C · b², H / b, W / b), in the order of Darknet's `reorg`; C must be a multiple of b²."""
    return _rearranged("space_to_depth", x, name, blocksize=blocksize)


def shuffle_channel(x: Variable, group: int, name: str | None = None) -> Variable:
    """Channels dealt out: the first of every group, then the second of every group, and so on."""
    return _rearranged("shuffle_channel", x, name, group=group)


def temporal_shift(x: Variable, seg_num: int, shift_ratio: float = 0.25, name: str | None = None) -> Variable:
    """A share of the channels moved one step ahead in time, as many one step back.

    Args:
        x: (clips · seg_num, C, H, W).
        seg_num: steps of a clip.
        shift_ratio: the share.
        name: key of the names.
    """
    return _rearranged("temporal_shift", x, name, seg_num=seg_num, shift_ratio=shift_ratio)


def fsp_matrix(x: Variable, y: Variable) -> Variable:
    """How the channels of two layers of images go together: (N, channels of x, channels of y)."""
    return LayerHelper("fsp_matrix").op("fsp", {"X": [x], "Y": [y]}, dtype=x.dtype)
