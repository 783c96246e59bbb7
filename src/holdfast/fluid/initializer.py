"""Initializers: operators that a startup program fills parameters with."""

from __future__ import annotations

from typing import Any


class Initializer:
    """Base of the rules; calling one adds its operator to the block of the startup program."""

    def __call__(self, variable: Any, block: Any) -> Any:
        raise NotImplementedError


class ConstantInitializer(Initializer):
    """Every element the same value."""

    def __init__(self, value: float = 0.0, force_cpu: bool = False) -> None:
        self.value = value

    def __call__(self, variable: Any, block: Any) -> Any:
        return block.append_op(
            "fill_constant",
            outputs={"Out": [variable]},
            attrs={"shape": list(variable.shape), "dtype": int(variable.dtype), "value": float(self.value)},
        )


class UniformInitializer(Initializer):
    """Uniform in [low, high)."""

    def __init__(self, low: float = -1.0, high: float = 1.0, seed: int = 0) -> None:
        self.low, self.high, self.seed = low, high, seed

    def __call__(self, variable: Any, block: Any) -> Any:
        return block.append_op(
            "uniform_random",
            outputs={"Out": [variable]},
            attrs={
                "shape": list(variable.shape), "dtype": int(variable.dtype), "min": self.low, "max": self.high,
                "seed": self.seed,
            },
        )  # fmt: skip


class XavierInitializer(UniformInitializer):
    """Placeholder until the whole module is written."""


Constant = ConstantInitializer
Uniform = UniformInitializer
