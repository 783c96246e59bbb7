"""Layers that draw random numbers; a seed other than 0 gives the same in every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.core import to_vartype
from holdfast.fluid.framework import Variable
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.given import add_numbers, say


def _drawn(type: str, key: str, shape: Any, dtype: Any, attrs: dict[str, Any], name: str | None = None) -> Variable:
    helper = LayerHelper(key, name=name)
    inputs: dict[str, Any] = {}
    sizes = add_numbers(helper, inputs, attrs, shape, "shape", "ShapeTensor", "ShapeTensorList", as_layer=True)
    attrs["dtype"] = int(to_vartype(dtype))
    return say(helper.op(type, inputs, attrs, dtype=dtype), sizes)


def uniform_random(shape: Any, dtype: Any = "float32", min: float = -1.0, max: float = 1.0, seed: int = 0) -> Variable:
    """Uniform in [min, max)."""
    attrs = {"min": float(min), "max": float(max), "seed": seed}
    return _drawn("uniform_random", "uniform_random", shape, dtype, attrs)


def gaussian_random(shape: Any, mean: float = 0.0, std: float = 1.0, seed: int = 0, dtype: Any = "float32") -> Variable:
    """Normal of a mean and standard deviation."""
    attrs = {"mean": float(mean), "std": float(std), "seed": seed}
    return _drawn("gaussian_random", "gaussian_random", shape, dtype, attrs)


def randn(
    shape: Any,
    out: Variable | None = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Variable:
    """Normal of mean 0 and standard deviation 1, float32 if no dtype is given."""
    kind = "float32" if dtype is None else dtype
    attrs = {"mean": 0.0, "std": 1.0, "seed": 0}
    found = _drawn("gaussian_random", "randn", shape, kind, attrs, name)
    found.stop_gradient = stop_gradient
    return found if out is None else _put(found, out)


def _put(value: Variable, out: Variable) -> Variable:
    LayerHelper("assign").append_op("assign", {"X": [value]}, {"Out": [out]})
    return out


def randint(
    low: int,
    high: int | None = None,
    shape: Any = None,
    out: Variable | None = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> Variable:
    """Whole numbers in [low, high), or in [0, low) if only that is given; shape [1] and int64 if not said otherwise."""
    low, high = (0, low) if high is None else (low, high)
    if low >= high:
        raise ValueError(f"randint needs low < high, not {low} and {high}")
    attrs = {"low": low, "high": high, "seed": seed}
    found = _drawn(
        "randint", "randint", [1] if shape is None else shape, "int64" if dtype is None else dtype, attrs, name
    )
    found.stop_gradient = stop_gradient
    return found if out is None else _put(found, out)


def randperm(
    n: int,
    out: Variable | None = None,
    dtype: Any = "int64",
    device: str | None = None,
    stop_gradient: bool = True,
    seed: int = 0,
) -> Variable:
    """The numbers below n in some order."""
    if n < 1:
        raise ValueError(f"randperm needs a number above 0, not {n}")
    kind = to_vartype(dtype)
    found = LayerHelper("randperm").op("randperm", {}, {"n": n, "seed": seed, "dtype": int(kind)}, dtype=kind)
    found.stop_gradient = stop_gradient
    return found if out is None else _put(found, out)


def _like_batch(
    type: str, input: Variable, shape: Sequence[int], dtype: Any, dims: tuple[int, int], attrs: dict[str, Any]
) -> Variable:
    whole = {
        "shape": [int(n) for n in shape],
        "input_dim_idx": dims[0],
        "output_dim_idx": dims[1],
        "dtype": int(to_vartype(dtype)),
        **attrs,
    }
    return LayerHelper(type).op(type, {"Input": [input]}, whole, dtype=dtype)


def uniform_random_batch_size_like(
    input: Variable,
    shape: Sequence[int],
    dtype: Any = "float32",
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    min: float = -1.0,
    max: float = 1.0,
    seed: int = 0,
) -> Variable:
    """Uniform in [min, max); dimension `output_dim_idx` is the input's `input_dim_idx`."""
    attrs = {"min": float(min), "max": float(max), "seed": seed}
    return _like_batch("uniform_random_batch_size_like", input, shape, dtype, (input_dim_idx, output_dim_idx), attrs)


def gaussian_random_batch_size_like(
    input: Variable,
    shape: Sequence[int],
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    dtype: Any = "float32",
) -> Variable:
    """Normal; dimension `output_dim_idx` is the input's `input_dim_idx`."""
    attrs = {"mean": float(mean), "std": float(std), "seed": seed}
    return _like_batch("gaussian_random_batch_size_like", input, shape, dtype, (input_dim_idx, output_dim_idx), attrs)


def sampling_id(x: Variable, min: float = 0.0, max: float = 1.0, seed: int = 0, dtype: Any = "float32") -> Variable:
    """For each row of probabilities the number of a class that is drawn by them, int64."""
    return LayerHelper("sampling_id").op(
        "sampling_id", {"X": [x]}, {"min": float(min), "max": float(max), "seed": seed}
    )


def random_crop(x: Variable, shape: Sequence[int], seed: Any = None) -> Variable:
    """A block of the last dimensions at a random place, another for each row of those before.

    Args:
        x: the tensor.
        shape: of the block.
        seed: where the row of places begins: a number, an int64 variable of shape [1], or None for a number by chance. It is
            kept in a persistable `random_crop_seed_k`, so it is saved and goes on.
    """
    import random as chance

    helper = LayerHelper("random_crop")
    start = seed if isinstance(seed, int) else chance.randint(0, 65535)
    out = helper.create_variable_for_type_inference(x.dtype)
    if not isinstance(seed, Variable):
        name = unique_name.generate("random_crop_seed")
        seed = helper.main_program.global_block().create_var(name=name, shape=[1], dtype="int64", persistable=True)
        helper.set_variable_initializer(seed, Constant(float(start)))
    helper.append_op(
        "random_crop",
        {"X": [x], "Seed": [seed]},
        {"Out": [out], "SeedOut": [seed]},
        {"shape": [int(n) for n in shape], "startup_seed": start},
    )
    return out
