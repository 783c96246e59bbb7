"""OneValue: what fetched arrays of single values are, so that these still count as numbers. It knows no program."""

from __future__ import annotations

from typing import Any

import numpy as np


class OneValue(np.ndarray):
    """A NumPy array of one value, or of rows of one value, each of which also counts as a number: `"%f" % loss`.

    Fluid has no scalars, so every loss is fetched as an array `[1]` and every prediction of a number as `[n, 1]`, and programs
    print them as numbers. NumPy took any array of one value for one until 2.3, and refuses since 2.4. In all else this is an
    array as any other, and is printed and pickled as one.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What a computation with it gives: values that count as numbers again."""
        del context
        plain = np.asarray(array)
        return plain[()] if return_scalar and not plain.ndim else counting(plain)

    def _number(self) -> Any:
        if self.size != 1:
            raise TypeError(f"an array of the shape {list(self.shape)} is no number; only one of a single value is")
        return self.item()

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __complex__(self) -> complex:
        return complex(self._number())

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


def counting(array: np.ndarray) -> np.ndarray:
    """The same array; a `OneValue` if it has one value, or one in each row."""
    return array.view(OneValue) if array.size == 1 or (array.ndim > 1 and array.size == len(array)) else array
