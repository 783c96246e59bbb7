"""`fluid.core`: types of variables, places, tensors and errors under the names that programs know."""

from __future__ import annotations

import enum
import importlib
from typing import Any

import jax
import ml_dtypes
import numpy as np


class VarType(enum.IntEnum):
    """What a variable holds, and the dtypes of tensors; the numbers are those of Fluid's `VarType.Type`."""

    BOOL = 0
    INT16 = 1
    INT32 = 2
    INT64 = 3
    FP16 = 4
    FP32 = 5
    FP64 = 6
    LOD_TENSOR = 7
    SELECTED_ROWS = 8
    FEED_MINIBATCH = 9
    FETCH_LIST = 10
    STEP_SCOPES = 11
    LOD_RANK_TABLE = 12
    LOD_TENSOR_ARRAY = 13
    PLACE_LIST = 14
    READER = 15
    RAW = 17
    TUPLE = 18
    SIZE_T = 19
    UINT8 = 20
    INT8 = 21
    BF16 = 22
    COMPLEX64 = 23
    COMPLEX128 = 24


class VarDesc:
    """Holds `VarType`, as `fluid.core.VarDesc.VarType` is how programs write it."""

    VarType = VarType


_NUMPY: dict[VarType, np.dtype] = {
    VarType.BOOL: np.dtype(np.bool_),
    VarType.INT16: np.dtype(np.int16),
    VarType.INT32: np.dtype(np.int32),
    VarType.INT64: np.dtype(np.int64),
    VarType.FP16: np.dtype(np.float16),
    VarType.FP32: np.dtype(np.float32),
    VarType.FP64: np.dtype(np.float64),
    VarType.UINT8: np.dtype(np.uint8),
    VarType.INT8: np.dtype(np.int8),
    VarType.BF16: np.dtype(ml_dtypes.bfloat16),
    VarType.COMPLEX64: np.dtype(np.complex64),
    VarType.COMPLEX128: np.dtype(np.complex128),
}
_FROM_NUMPY: dict[np.dtype, VarType] = {dtype: kind for kind, dtype in _NUMPY.items()}


def to_vartype(dtype: Any) -> VarType:
    """The `VarType` of a dtype, given as such, as its number, as a NumPy dtype or by name (`"float32"`).

    Raises:
        ValueError: no tensor of a program has this dtype.
    """
    if isinstance(dtype, VarType):
        return dtype
    try:
        return VarType(dtype) if isinstance(dtype, int) else _FROM_NUMPY[np.dtype(dtype)]
    except (TypeError, KeyError, ValueError) as error:
        known = ", ".join(str(d) for d in _FROM_NUMPY)
        raise ValueError(f"dtype {dtype!r} is none that a variable can have; these are: {known}") from error


def to_numpy(dtype: Any) -> np.dtype:
    """The NumPy dtype of what `to_vartype` takes."""
    kind = to_vartype(dtype)
    if kind not in _NUMPY:
        raise ValueError(f"{kind.name} is no dtype of a tensor")
    return _NUMPY[kind]


def is_floating(dtype: Any) -> bool:
    """Whether gradients can be of this dtype."""
    return to_vartype(dtype) in (VarType.FP16, VarType.FP32, VarType.FP64, VarType.BF16)


class Place:
    """Where a program runs."""

    def device(self) -> jax.Device:
        """JAX's device for it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return type(self).__name__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(vars(self).items())))


class CPUPlace(Place):
    """The processor."""

    def device(self) -> jax.Device:
        """JAX's first CPU device."""
        return jax.local_devices(backend="cpu")[0]


class CUDAPlace(Place):
    """A graphics processor.

    Args:
        device_id: its number among those that JAX sees.
    """

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id

    def __repr__(self) -> str:
        return f"CUDAPlace({self.device_id})"

    def device(self) -> jax.Device:
        """JAX's GPU of this number.

        Raises:
            RuntimeError: JAX sees no such device.
        """
        devices = _gpus()
        if not 0 <= self.device_id < len(devices):
            seen = ", ".join(str(d) for d in devices) or "none"
            raise RuntimeError(
                f"CUDAPlace({self.device_id}): JAX sees no such GPU (it sees: {seen}). Use fluid.CPUPlace(), or install "
                "a JAX that has the GPU: pip install 'jax[cuda12]'"
            )
        return devices[self.device_id]


class CUDAPinnedPlace(CPUPlace):
    """Memory of the processor: JAX pins it by itself where that helps."""


def _gpus() -> list[jax.Device]:
    try:
        return list(jax.local_devices(backend="gpu"))
    except RuntimeError:
        return []


def get_cuda_device_count() -> int:
    """How many GPUs JAX sees."""
    return len(_gpus())


def is_compiled_with_cuda() -> bool:
    """Whether JAX sees a GPU: programs ask this to choose their place."""
    return bool(_gpus())


class EOFException(Exception):
    """A reader of the program has come to its end; `reset()` it before the next pass."""


class EnforceNotMet(RuntimeError):
    """The class of Fluid's errors at run time; ours are subclasses where programs may catch it."""


# Programs know these as names of `core`, too; scope.py needs this module first.
_OF_SCOPE = ("LoDTensor", "Scope", "Tensor")


def __getattr__(name: str) -> Any:
    if name not in _OF_SCOPE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("holdfast.fluid.scope"), name)
