"""Paddle tensors as arrays: the very memory where that is the host's, a way to copy where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from holdfast import dtypes
from holdfast.adapters.numpy import dtype_problem
from holdfast.adapters.state import Leaf

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_PADDLE = {ours: name for name, ours in _NAMES.items()}
_BITS = {"BF16": "int16", "F8_E4M3": "uint8", "F8_E5M2": "uint8"}  # what DLPack lacks is looked at as these


def describe(tensor: Any) -> Leaf | str:
    """A tensor as an array of a state; the reason if no checkpoint can hold it."""
    if not isinstance(tensor, paddle.Tensor):
        return "is a variable of a static program: put the program into the state instead"
    if tensor.is_dist():
        return "is spread over several processes, which is not supported yet"
    if not tensor.is_dense():
        return "is a sparse tensor, which no checkpoint can hold; save its indices and values"
    if not tensor._is_initialized() and 0 not in tensor.shape:
        return "is not initialized yet"
    name = name_of(tensor.dtype)
    if name is None:
        return dtype_problem(tensor.dtype)
    shape = tuple(tensor.shape)
    if not tensor.place.is_cpu_place():
        return Leaf(name, shape, None, _Elsewhere(tensor, name))
    plain = tensor.detach()
    array = np.from_dlpack(plain.view(_BITS[name]) if name in _BITS else plain)
    return Leaf(name, shape, array.view(dtypes.to_numpy(name)))


def name_of(dtype: Any) -> str | None:
    """The format's name of a dtype of Paddle; None if the format cannot hold it."""
    return _NAMES.get(str(dtype).rpartition(".")[2])


def from_array(array: np.ndarray) -> Any:
    """A new tensor with an array's values, on the host."""
    name = dtypes.from_numpy(array.dtype)
    assert name is not None
    made = paddle.to_tensor(plain(array), place="cpu")
    return made.view(_PADDLE[name]) if name in _BITS else made


def plain(array: np.ndarray) -> np.ndarray:
    """An array of a type that NumPy has itself: the same bits where it is of another."""
    name = dtypes.from_numpy(array.dtype)
    return array.view(_BITS[name]) if name in _BITS else array


class _Elsewhere:
    """A tensor in a device's memory."""

    slot = None

    def __init__(self, tensor: Any, name: str) -> None:
        self._tensor, self._name = tensor, name

    def fetch(self) -> np.ndarray:
        """The values of now."""
        return self._tensor.numpy().view(dtypes.to_numpy(self._name))  # type: ignore[no-any-return]

    def put(self, array: np.ndarray) -> None:
        """Into the tensor's own memory."""
        self._tensor.set_value(from_array(array))


class InScope:
    """A variable of a static program: a tensor in a scope."""

    slot = None

    def __init__(self, tensor: Any, name: str) -> None:
        self._tensor, self._name = tensor, name

    def fetch(self) -> np.ndarray:
        """The values of now."""
        return np.array(self._tensor).view(dtypes.to_numpy(self._name))

    def put(self, array: np.ndarray) -> None:
        """Into the tensor in the scope."""
        bits = array.view(np.uint16) if self._name == "BF16" else array  # Paddle's own way to hand over a bfloat16
        place = self._tensor._place()
        device = paddle.CPUPlace() if place.is_cpu_place() else paddle.CUDAPlace(place.gpu_device_id())
        self._tensor.set(bits, device)
