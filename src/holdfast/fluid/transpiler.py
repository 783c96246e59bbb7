"""`fluid.transpiler`: programs for parameter servers are not planned; what only saved memory does nothing."""

from __future__ import annotations

from typing import Any

from holdfast.fluid import unsupported

__all__ = ["memory_optimize", "release_memory", *unsupported.names("transpiler")]


def memory_optimize(
    input_program: Any, skip_opt_set: Any = None, print_log: bool = False, level: int = 0, skip_grads: bool = True
) -> None:
    """Does nothing: XLA decides which buffers are used again."""


def release_memory(input_program: Any, skip_opt_set: Any = None) -> None:
    """Does nothing: XLA gives buffers back by itself."""


globals().update(unsupported.stubs("transpiler"))
