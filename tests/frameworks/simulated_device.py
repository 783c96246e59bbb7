"""The simulated accelerator of `simulated_device.cpp`: built by PyTorch's own means, and then `torch.device("sim")`.

Only where HOLDFAST_SIMULATED_DEVICE=1 asks for it: it takes g++ (with ninja) a minute, and PyTorch keeps what it made.
"""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

NAME = "sim"


def is_wanted() -> bool:
    """Whether the tests are to make it and use it."""
    return os.environ.get("HOLDFAST_SIMULATED_DEVICE") == "1"


def load() -> Any:
    """Build it if need be, and make it PyTorch's accelerator; returns its controls."""
    import torch
    import torch.utils.cpp_extension

    source = Path(__file__).with_suffix(".cpp")
    built = torch.utils.cpp_extension.load("holdfast_simulated_device", [str(source)], extra_cflags=["-O1", "-g0"])
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    module.__dict__.update(
        device_count=built.device_count,
        current_device=built.current_device,
        set_device=built.set_device,
        current_stream=lambda device=None: torch.accelerator.current_stream(device),
        stream=lambda stream: stream,  # it is a context itself
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        _lazy_init=lambda: None,
        manual_seed_all=lambda seed: None,
        init=lambda: None,
    )
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return built
