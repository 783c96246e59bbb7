"""The operators, as small pure functions of JAX arrays; importing this registers all of them."""

from holdfast.fluid.ops import math, random, tensor, update

__all__ = ["math", "random", "tensor", "update"]
