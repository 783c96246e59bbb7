"""PyTorch tensors as arrays: the very memory where that is the host's, a way to copy where it is not.

bfloat16, the float8 types and complex64 are looked at as what NumPy (with ml_dtypes) makes of the same bits. What has no
such form (quantized, sparse, nested tensors, wrappers) is refused with a reason.
"""

from __future__ import annotations

import numpy as np
import torch

from holdfast import dtypes
from holdfast.adapters.numpy import dtype_problem
from holdfast.adapters.state import Leaf
from holdfast.adapters.torch_devices import OnDevice, device_of

_NAMES: dict[torch.dtype, str] = {
    getattr(torch, name): ours
    for name, ours in {
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
        "float8_e8m0fnu": "F8_E8M0",
        "float8_e4m3fnuz": "F8_E4M3FNUZ",
        "float8_e5m2fnuz": "F8_E5M2FNUZ",
    }.items()
    if hasattr(torch, name)  # the float8 types came one by one
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_BITS = {1: torch.uint8, 2: torch.int16}  # what the types that NumPy lacks are looked at as
_FOREIGN = {dtype for dtype, name in _NAMES.items() if dtypes.to_numpy(name).isbuiltin != 1}
_ORDINARY = (
    torch.Tensor,
    torch.nn.Parameter,
)  # known to be no wrappers: a state has thousands, and is scanned while training waits


def describe(tensor: torch.Tensor) -> Leaf | str:
    """A tensor as an array of a state; the reason if no checkpoint can hold it."""
    if (local := local_part(tensor)) is None:
        return "is sharded over several processes, which is not supported yet"
    if reason := _refusal(local):
        return reason
    name = _NAMES.get(local.dtype)
    if name is None:
        return dtype_problem(local.dtype)
    shape = tuple(local.shape)
    if local.is_meta:
        from holdfast.adapters.torch_meta import Empty, held_problem  # it imports this module

        return held_problem(tensor) or Leaf(name, shape, None, Empty(tensor))
    plain = local.detach()
    if type(plain) is not torch.Tensor:
        plain = plain.as_subclass(torch.Tensor)
    if not plain.is_cpu and (device := device_of(plain.device)) is not None:
        return Leaf(name, shape, None, OnDevice(plain, dtypes.to_numpy(name), device))
    if not plain.is_cpu or plain.is_conj() or plain.is_neg():
        return Leaf(name, shape, None, _Elsewhere(plain))
    return Leaf(name, shape, _as_array(plain, name))


def local_part(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor that this process has of a DTensor, if it is the whole; any other tensor itself."""
    if type(tensor) in _ORDINARY:
        return tensor
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None or not hasattr(tensor, "_local_tensor"):
        return tensor
    return tensor._local_tensor if mesh.size() == 1 else None


def identity(tensor: torch.Tensor, described: Leaf | str | None = None) -> tuple[object, ...]:
    """The same for tensors that are the same memory seen in the same way.

    Args:
        tensor: any.
        described: what `describe` has said of it, for who knows.
    """
    local = local_part(tensor)
    if local is None or isinstance(described, str) or (described is None and _refusal(local)):
        return (id(tensor),)
    if local.is_meta or local.numel() == 0:
        return (id(tensor),)
    return (local.device, local.data_ptr(), local.dtype, local.shape, local.stride(), local.is_conj(), local.is_neg())


def from_array(array: np.ndarray, like: torch.Tensor | None = None, device: torch.device | None = None) -> torch.Tensor:
    """A new tensor around an array's memory.

    Args:
        array: a loaded one, which is nobody else's.
        like: has the strides that are wanted.
        device: where it is to be; None for the host.
    """
    dtype = _DTYPES[dtypes.from_numpy(array.dtype)]  # type: ignore[index]
    tensor = torch.from_numpy(array.view(f"u{array.itemsize}" if array.itemsize == 1 else f"i{array.itemsize}")
                              if dtype in _FOREIGN else array)  # fmt: skip
    tensor = tensor.view(dtype) if dtype in _FOREIGN else tensor
    if device is not None and device.type != "cpu":
        tensor = tensor.to(device)
    if like is not None and like.shape == tensor.shape and not like.is_contiguous():
        tensor = torch.empty_like(like, dtype=dtype, device=tensor.device).copy_(tensor)
    return tensor


def _as_array(tensor: torch.Tensor, name: str) -> np.ndarray:
    """The tensor's own memory, which must be the host's."""
    if tensor.dtype in _FOREIGN:
        return tensor.view(_BITS[tensor.element_size()]).numpy().view(dtypes.to_numpy(name))  # type: ignore[no-any-return]
    return tensor.numpy()  # type: ignore[no-any-return]


def _refusal(tensor: torch.Tensor) -> str | None:
    is_ordinary = type(tensor) in _ORDINARY
    if not is_ordinary and isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        return "is not initialized yet: run the model once first"
    if tensor.is_nested:
        return "is a nested tensor, which no checkpoint can hold; save its .values() and .offsets()"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "is part of a computation of torch.func: save and load outside of vmap, grad and the like"
    if tensor.layout == torch._mkldnn:
        return "has oneDNN's own layout, which no checkpoint can hold; save its .to_dense()"
    if tensor.layout != torch.strided:
        return f"is a sparse tensor ({tensor.layout}), which no checkpoint can hold; save its indices and values"
    if tensor.is_quantized:
        return "is a quantized tensor, which no checkpoint can hold; save .int_repr() with its scale and zero point"
    if not is_ordinary and type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"is a {type(tensor).__name__}, a wrapper whose parts only its own library knows"
    if tensor._is_zerotensor():
        return "is a zero that PyTorch's autograd keeps without memory; save a .clone()"
    if tensor.numel() and not tensor.is_meta and tensor.untyped_storage().nbytes() == 0:
        return "has no memory at present (a sharded module that is not gathered)"
    return None


class _Elsewhere:
    """A tensor in the memory of a device without streams, or one that shows other numbers than it has (conjugated, negated)."""

    slot = None

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def fetch(self) -> np.ndarray:
        """The values of now."""
        there = self._tensor.resolve_conj().resolve_neg()
        return _as_array(there.to("cpu", copy=True), _NAMES[there.dtype])

    def put(self, array: np.ndarray) -> None:
        """Into the tensor's own memory."""
        with torch.no_grad():
            self._tensor.copy_(from_array(array))
