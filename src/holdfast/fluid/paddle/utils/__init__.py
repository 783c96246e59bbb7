"""`paddle.utils`: of it, `plot` only."""

from holdfast.fluid.paddle.utils import plot

__all__ = ["plot"]
