"""OneValue: what a fetched array of one value is, so that it still counts as a number. It knows no program."""

from __future__ import annotations

from typing import Any

import numpy as np


class OneValue(np.ndarray):
    """A NumPy array with one value in it that also counts as this number: `float(loss)`, `"%f" % loss`.

    Fluid has no scalars, so every loss is fetched as an array `[1]`, and programs print it as a number. NumPy did that for any
    array of one value until 2.3, and refuses since 2.4. In all else this is an array as any other, and is pickled as one.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What a computation with it gives: again one that counts as a number, if it has one value."""
        del context
        plain = np.asarray(array)
        return plain[()] if return_scalar and not plain.ndim else counting(plain)

    def _number(self) -> Any:
        if self.size != 1:
            raise TypeError("only arrays of one value can be converted to Python scalars")
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
    """The same array; one that counts as a number, if it has one value."""
    return array.view(OneValue) if array.ndim and array.size == 1 else array
