"""`fluid.average`: a running mean of what a program computed, on the host."""

from __future__ import annotations

from typing import Any

from holdfast.fluid.metrics import number, number_or_array

__all__ = ["WeightedAverage"]


class WeightedAverage:
    """The mean of the values added since the last reset, each with its weight.

    Example:
        >>> mean = WeightedAverage()
        >>> mean.add(value=2.0, weight=1)
        >>> mean.add(value=4.0, weight=3)
        >>> mean.eval()
        3.5
    """

    def __init__(self) -> None:
        self.numerator: Any = None
        self.denominator: Any = None

    def reset(self) -> None:
        """Forget all values."""
        self.numerator = self.denominator = None

    def add(self, value: Any, weight: Any) -> None:
        """Add a value: a number or an array, with a number as its weight.

        Raises:
            ValueError: one of them is neither.
        """
        weighted = number_or_array("WeightedAverage.add: value", value) * number("WeightedAverage.add: weight", weight)
        self.numerator = weighted if self.numerator is None else self.numerator + weighted
        self.denominator = weight if self.denominator is None else self.denominator + weight

    def eval(self) -> Any:
        """The mean: a number, or an array if arrays were added.

        Raises:
            ValueError: nothing was added, or all weights were zero.
        """
        if self.denominator is None or not self.denominator:
            raise ValueError(
                "WeightedAverage has no data: add() was not called since the last reset(), or all weights are 0"
            )
        return self.numerator / self.denominator
