"""The random states that libraries keep for the whole process, as a part of a state. Imports no framework."""

from __future__ import annotations

import sys
from typing import Any


def global_random() -> dict[str, Any]:
    """The generators behind `random`, `numpy.random`, and PyTorch or Paddle if the program has loaded them, for a state.

    What it returns are the generators themselves: a save holds their state at that time, and a load sets it.

    Returns:
        `{"python": …, "numpy": …}`, with `"torch"`, `"cuda"`, `"paddle"` and `"paddle_cuda"` where there are such.

    Example:
        >>> import random, holdfast
        >>> state = {"random": holdfast.global_random()}
        >>> serial = holdfast.save_checkpoint(state, "runs/random")
        >>> number = random.random()
        >>> report = holdfast.load_checkpoint(state, "runs/random")
        >>> random.random() == number
        True
    """
    import random

    import numpy.random

    # The module-level functions are methods of hidden generators.
    found: dict[str, Any] = {
        "python": random.getstate.__self__,  # type: ignore[attr-defined]
        "numpy": numpy.random.get_state.__self__,  # type: ignore[attr-defined]
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = torch.default_generator
        if torch.cuda.is_available():
            torch.cuda.init()
            found["cuda"] = {str(i): generator for i, generator in enumerate(torch.cuda.default_generators)}
    if "paddle" in sys.modules:
        core = sys.modules["paddle"].framework.core
        found["paddle"] = core.default_cpu_generator()
        if core.is_compiled_with_cuda():
            count = core.get_cuda_device_count()
            found["paddle_cuda"] = {str(i): core.default_cuda_generator(i) for i in range(count)}
    return found
