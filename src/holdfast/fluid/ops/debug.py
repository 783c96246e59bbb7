"""The operator that prints what goes through it."""

from __future__ import annotations

import itertools
import sys

import jax
import numpy as np
from jax import Array

from holdfast.fluid.registry import op


@op("In -> Out")
def print_(
    x: Array,
    *,
    first_n: int = -1,
    message: str = "",
    summarize: int = 20,
    print_tensor_name: bool = True,
    print_tensor_type: bool = True,
    print_tensor_shape: bool = True,
    print_tensor_lod: bool = True,
    print_phase: str = "BOTH",
    is_forward: bool = True,
) -> Array:
    """The tensor itself; every run writes it to standard output, as the program asked for."""
    counter = itertools.count()

    def show(value: Array) -> None:
        if first_n > 0 and next(counter) >= first_n:
            return
        array = np.asarray(value)
        parts = [message] if message else []
        parts += [f"dtype: {array.dtype}"] if print_tensor_type else []
        parts += [f"shape: {list(array.shape)}"] if print_tensor_shape else []
        shown = array.ravel() if summarize < 0 else array.ravel()[:summarize]
        more = "" if shown.size == array.size else ", ..."
        parts.append(f"data: [{', '.join(str(v) for v in shown)}{more}]")
        sys.stdout.write("  ".join(parts) + "\n")
        sys.stdout.flush()

    if print_phase.upper() != "BACKWARD":
        jax.debug.callback(show, x)
    return x
