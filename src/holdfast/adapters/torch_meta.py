"""PyTorch tensors on the meta device: they get memory when they are loaded, and stay the same objects for whoever holds them.

The memory is on the default device, or on that of a DTensor's mesh.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from holdfast.adapters.torch_tensors import from_array, local_part

_REFERENCES = 2  # to what a tensor stands for: itself, and the node that its gradient is added up in


def held_problem(tensor: torch.Tensor) -> str | None:
    """Why a tensor of the meta device cannot be given memory and stay the same object; None if it can."""
    if weakref.getweakrefs(tensor) or tensor._use_count() > _REFERENCES:
        return (
            "is on the meta device, and something else refers to it, so that it cannot be given memory in place: call "
            "to_empty() of the module first"
        )
    return None


class Empty:
    """A tensor of the meta device, as the way to an array."""

    slot = None

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def fetch(self) -> np.ndarray:
        """Impossible."""
        raise ValueError("is on the meta device and has no values")

    def put(self, array: np.ndarray) -> None:
        """Give it memory."""
        old: Any = self._tensor
        local: Any = local_part(old)
        if local is not old:
            made = from_array(array, local, _device_of_mesh(old.device_mesh))
            made = type(old).from_local(made, old.device_mesh, old.placements, run_check=False)
        else:
            made = from_array(array, old, _default_device())
        if isinstance(old, torch.nn.Parameter) and (type(old) is torch.nn.Parameter or local is not old):
            made = torch.nn.Parameter(made, requires_grad=old.requires_grad)
        elif type(old) is not type(made):
            made = torch.Tensor._make_subclass(type(old), made, old.requires_grad)
        else:
            made.requires_grad_(old.requires_grad)
        made.__dict__.update(old.__dict__)
        if old.requires_grad and old.is_leaf:
            made._backward_hooks = old._backward_hooks
            made._post_accumulate_grad_hooks = old._post_accumulate_grad_hooks
        torch.utils.swap_tensors(old, made)


def _default_device() -> torch.device:
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def _device_of_mesh(mesh: Any) -> torch.device:
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())
