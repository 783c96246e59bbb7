"""`layers.embedding` and `layers.one_hot`, for numbers of shape (..., 1), and the layer behind both embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid.core import VarType
from holdfast.fluid.framework import Variable
from holdfast.fluid.layer_helper import LayerHelper


def add_embedding(
    operator: str, input: Variable, size: Sequence[int], padding_idx: int | None, param_attr: Any, dtype: Any
) -> Variable:
    """Add a table and the operator that looks numbers up in it."""
    if input.dtype not in (VarType.INT64, VarType.INT32):
        raise ValueError(f"embedding: the ids must be int64, but {input.name} is {input.dtype.name.lower()}")
    rows = int(size[0])
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(f"embedding: padding_idx={padding_idx} is none of {rows} rows")
    helper = LayerHelper("embedding", param_attr=param_attr)
    table = helper.create_parameter(helper.param_attr, size, dtype)
    index = -1 if padding_idx is None else padding_idx if padding_idx >= 0 else rows + padding_idx
    return helper.op(operator, {"Ids": [input], "W": [table]}, {"padding_idx": index}, dtype=dtype)


def add_one_hot(operator: str, input: Variable, depth: Any, allow_out_of_range: bool) -> Variable:
    """Add the operator that makes vectors of numbers."""
    if isinstance(depth, Variable):
        raise NotImplementedError(
            f"{operator}: a depth that is a variable gives another shape in every run, which XLA does not compile; "
            "give a number"
        )
    attrs = {"depth": depth, "allow_out_of_range": allow_out_of_range}
    out = LayerHelper(operator).op(operator, {"X": [input]}, attrs, dtype="float32")
    out.stop_gradient = True
    return out


def embedding(
    input: Variable,
    size: Sequence[int],
    is_sparse: bool = False,
    is_distributed: bool = False,
    padding_idx: int | None = None,
    param_attr: Any = None,
    dtype: Any = "float32",
) -> Variable:
    """A row of a table for each number.

    Args:
        input: int64 (..., 1); `fluid.embedding` takes them without the 1.
        size: [rows, width] of the table, the Parameter `embedding_0.w_0`.
        is_sparse, is_distributed: accepted as Fluid has them; gradients are dense.
        padding_idx: the number whose row counts as zeros, and does not learn; negative ones count from the end.
        param_attr: see `ParamAttr`; layers whose attribute names the same table share it.
        dtype: of the table.

    Returns:
        (..., width). A number that is not in the table gives NaN; where it is fed, the run is refused.
    """
    return add_embedding("lookup_table", input, size, padding_idx, param_attr, dtype)


def one_hot(input: Variable, depth: int, allow_out_of_range: bool = False) -> Variable:
    """Vectors of zeros with a one where the number stands: float32.

    Args:
        input: integers (..., 1); `fluid.one_hot` takes them without the 1.
        depth: length of the vectors.
        allow_out_of_range: whether numbers out of range may be fed; they give zeros. In what is not fed they always may be there.
    """
    return add_one_hot("one_hot", input, depth, allow_out_of_range)
