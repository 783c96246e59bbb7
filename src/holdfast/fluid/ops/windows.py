"""Sizes of windows that move over an image: padding, and the size of what comes out. Shared by convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

Pads = list[tuple[int, int]]  # before and after, for each spatial dimension


def is_channel_last(data_format: str) -> bool:
    """Whether channels are the last dimension; Fluid writes NHWC for three dimensions, too."""
    return data_format in ("NHWC", "NDHWC")


def spatial(shape: Sequence[int], data_format: str) -> list[int]:
    """The sizes without batch and channels."""
    return list(shape[1:-1] if is_channel_last(data_format) else shape[2:])


def resolve_padding(
    algorithm: str, paddings: Sequence[int], sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Pads:
    """Padding of each dimension.

    Args:
        algorithm: `"EXPLICIT"`: as given; `"VALID"`: none; `"SAME"`: so that the output has `ceil(size / stride)`, the odd
            one at the end. Like Fluid's, SAME looks at the kernel without its dilation, which it takes as 1.
        paddings: one number for each dimension, or two.
        sizes, kernel, strides: of the input, the window and its steps.
    """
    rank = len(sizes)
    if algorithm == "VALID":
        return [(0, 0)] * rank
    if algorithm == "SAME":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, kernel, strides, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    if algorithm != "EXPLICIT":
        raise ValueError(f"padding_algorithm is EXPLICIT, SAME or VALID, not {algorithm!r}")
    if len(paddings) == rank:
        return [(p, p) for p in paddings]
    if len(paddings) == 2 * rank:
        return [(paddings[2 * i], paddings[2 * i + 1]) for i in range(rank)]
    raise ValueError(f"{rank} spatial dimensions need {rank} or {2 * rank} paddings, not {list(paddings)}")
