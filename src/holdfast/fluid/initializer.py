"""`fluid.initializer`: operators that a startup program fills parameters with."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.fluid.core import VarType, is_floating, to_numpy

if TYPE_CHECKING:
    from holdfast.fluid.framework import Block, Operator, Variable

__all__ = [
    "MSRA", "Bilinear", "BilinearInitializer", "Constant", "ConstantInitializer", "MSRAInitializer", "Normal",
    "NormalInitializer", "NumpyArrayInitializer", "TruncatedNormal", "TruncatedNormalInitializer", "Uniform",
    "UniformInitializer", "Xavier", "XavierInitializer", "force_init_on_cpu", "init_on_cpu", "set_global_initializer",
]  # fmt: skip


class Initializer:
    """Base of the rules; calling one adds its operator to the block of the startup program, and returns that."""

    def __call__(self, variable: Variable, block: Block) -> Operator:
        raise NotImplementedError


class ConstantInitializer(Initializer):
    """Every element the same value.

    Args:
        value: the value.
        force_cpu: accepted as Fluid has it; without effect.
    """

    def __init__(self, value: float = 0.0, force_cpu: bool = False) -> None:
        self.value = value

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        return _fill(variable, block, "fill_constant", value=float(self.value))


class UniformInitializer(Initializer):
    """Uniform in [low, high).

    Args:
        low, high: the range.
        seed: 0: other values in every process, or by the program's `random_seed` if that is not 0; else the same values in
            every run.
        diag_num, diag_step, diag_val: set `diag_num` elements, each `diag_step` further along the diagonal, to a value.
    """

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        seed: int = 0,
        diag_num: int = 0,
        diag_step: int = 0,
        diag_val: float = 1.0,
    ) -> None:
        if not low <= high:
            raise ValueError(f"low={low} must not be above high={high}")
        if (diag_num > 0) != (diag_step > 0):
            raise ValueError(f"diag_num={diag_num} and diag_step={diag_step} must both be given, or none of them")
        self.low, self.high, self.seed = float(low), float(high), seed
        self._diagonal = {"diag_num": diag_num, "diag_step": diag_step, "diag_val": float(diag_val)} if diag_num else {}

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        return _draw(variable, block, "uniform_random", self.seed, min=self.low, max=self.high, **self._diagonal)


class NormalInitializer(Initializer):
    """Normally distributed.

    Args:
        loc: the mean.
        scale: the standard deviation.
        seed: see `UniformInitializer`.
    """

    _type = "gaussian_random"

    def __init__(self, loc: float = 0.0, scale: float = 1.0, seed: int = 0) -> None:
        self.loc, self.scale, self.seed = float(loc), float(scale), seed

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        return _draw(variable, block, self._type, self.seed, mean=self.loc, std=self.scale)


class TruncatedNormalInitializer(NormalInitializer):
    """Normally distributed, without what lies more than two standard deviations from the mean.

    Args:
        loc: the mean.
        scale: the standard deviation of the whole distribution.
        seed: see `UniformInitializer`.
    """

    _type = "truncated_gaussian_random"


class XavierInitializer(Initializer):
    """Glorot's: the variance is `2 / (fan_in + fan_out)`.

    Args:
        uniform: uniformly or normally distributed.
        fan_in, fan_out: None for those of the shape: `[in, out]`, or `[out, in, height, width]`.
        seed: see `UniformInitializer`.
    """

    def __init__(
        self, uniform: bool = True, fan_in: float | None = None, fan_out: float | None = None, seed: int = 0
    ) -> None:
        self.uniform, self.fan_in, self.fan_out, self.seed = uniform, fan_in, fan_out, seed

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        fan_in, fan_out = _fans(variable)
        total = (fan_in if self.fan_in is None else self.fan_in) + (fan_out if self.fan_out is None else self.fan_out)
        return _with_variance(variable, block, 2.0 / total, self.uniform, self.seed)


class MSRAInitializer(Initializer):
    """He's, for what goes into a relu: the variance is `2 / fan_in`.

    Args:
        uniform: uniformly or normally distributed.
        fan_in: None for that of the shape.
        seed: see `UniformInitializer`.
    """

    def __init__(self, uniform: bool = True, fan_in: float | None = None, seed: int = 0) -> None:
        self.uniform, self.fan_in, self.seed = uniform, fan_in, seed

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        fan_in = _fans(variable)[0] if self.fan_in is None else self.fan_in
        return _with_variance(variable, block, 2.0 / fan_in, self.uniform, self.seed)


class BilinearInitializer(Initializer):
    """Interpolation: makes a transposed convolution enlarge an image."""

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        shape = variable.shape
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(f"{variable.name}: Bilinear needs a shape of [out, in, n, n], not {list(shape)}")
        size = shape[3]
        half = math.ceil(size / 2.0)
        centre = (2 * half - 1 - half % 2) / (2.0 * half)
        # Whole rows and columns, as Fluid had it under Python 2; under Python 3 its rows went on by a fraction an element.
        place = np.arange(np.prod(shape))
        x, y = place % size, place // size % size
        weight = (1 - np.abs(x / half - centre)) * (1 - np.abs(y / half - centre))
        return NumpyArrayInitializer(weight.reshape(shape))(variable, block)


class NumpyArrayInitializer(Initializer):
    """The values of an array; they become part of the startup program.

    Args:
        value: the values, of the parameter's shape; they are converted to its dtype.
    """

    def __init__(self, value: np.ndarray) -> None:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"NumpyArrayInitializer needs a numpy array, not {value!r}")
        self.value = value

    def __call__(self, variable: Variable, block: Block) -> Operator:
        """See `Initializer`."""
        if tuple(variable.shape) != self.value.shape:
            raise ValueError(
                f"{variable.name} has the shape {list(variable.shape)}, but the array for it {list(self.value.shape)}"
            )
        slot = _VALUES.get(variable.dtype, "fp32_values")
        return _fill(variable, block, "assign_value", **{slot: self.value.astype(to_numpy(variable.dtype)).ravel()})


# The operator's attribute for values of a dtype.
_VALUES = {VarType.BOOL: "bool_values", VarType.INT32: "int32_values", VarType.INT64: "int64_values"}


def _fill(variable: Variable, block: Block, type: str, **attrs: Any) -> Operator:
    shape, dtype = list(variable.shape), int(variable.dtype)
    return block.append_op(type, outputs={"Out": [variable]}, attrs={"shape": shape, "dtype": dtype, **attrs})


def _draw(variable: Variable, block: Block, type: str, seed: int, **attrs: Any) -> Operator:
    if not is_floating(variable.dtype):
        raise ValueError(f"{variable.name}: random values are floating-point numbers, not {variable.dtype.name}")
    if seed:
        attrs["seed"] = seed
    return _fill(variable, block, type, **attrs)


def _with_variance(variable: Variable, block: Block, variance: float, uniform: bool, seed: int) -> Operator:
    if uniform:
        limit = math.sqrt(3.0 * variance)
        return _draw(variable, block, "uniform_random", seed, min=-limit, max=limit)
    return _draw(variable, block, "gaussian_random", seed, mean=0.0, std=math.sqrt(variance))


def _fans(variable: Variable) -> tuple[int, int]:
    """How many values go into an element of the output, and how many a value of the input goes to."""
    shape = variable.shape
    if len(shape) < 2:
        return shape[0], shape[0]
    if len(shape) == 2:
        return shape[0], shape[1]
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


Constant = ConstantInitializer
Uniform = UniformInitializer
Normal = NormalInitializer
TruncatedNormal = TruncatedNormalInitializer
Xavier = XavierInitializer
MSRA = MSRAInitializer
Bilinear = BilinearInitializer

_global: tuple[Initializer | None, Initializer | None] = (None, None)


def set_global_initializer(weight_init: Initializer | None, bias_init: Initializer | None = None) -> None:
    """Replace the choice of layers for parameters that are made from now on; a `ParamAttr` with an initializer goes before.

    Args:
        weight_init: for weights; None for the choice of layers.
        bias_init: for biases; None for the choice of layers.
    """
    for given in (weight_init, bias_init):
        if given is not None and not isinstance(given, Initializer):
            raise TypeError(f"set_global_initializer needs a rule such as Xavier(), not {given!r}")
    global _global
    _global = (weight_init, bias_init)


def global_initializer(is_bias: bool) -> Initializer | None:
    """What `set_global_initializer` has set for weights or biases."""
    return _global[is_bias]


def force_init_on_cpu() -> bool:
    """False: where a program runs is where its parameters are filled."""
    return False


@contextlib.contextmanager
def init_on_cpu() -> Iterator[None]:
    """Accepted as Fluid has it; without effect."""
    yield
