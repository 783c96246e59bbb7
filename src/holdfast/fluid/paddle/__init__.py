"""What a program of the Fluid era finds under the name `paddle`; `python -m holdfast.fluid SCRIPT` serves it.

Here are `batch`, `reader`, `dataset`, `compat`, `utils.plot` and `version`; `paddle.fluid` is `holdfast.fluid` itself. Which
name maps to which module is decided in `serving.py`. Nothing here knows of a Program: readers yield plain samples.
"""

from __future__ import annotations

import importlib
from typing import Any

from holdfast.fluid.paddle import compat, dataset, reader, utils, version
from holdfast.fluid.paddle.batch import batch

__version__ = version.full_version
__git_commit__ = version.commit

__all__ = [
    "batch",
    "compat",
    "dataset",
    "disable_static",
    "enable_static",
    "in_dynamic_mode",
    "reader",
    "utils",
    "version",
]


def enable_static() -> None:
    """Does nothing: programs are static here. Programs written for 2.x call it first."""


def disable_static() -> None:
    """Refuses.

    Raises:
        NotImplementedError: always; there is no eager mode.
    """
    raise NotImplementedError(
        "paddle.disable_static() is not provided: Holdfast's Fluid front end has no eager (dygraph) mode"
    )


def in_dynamic_mode() -> bool:
    """False: programs are static here."""
    return False


def __getattr__(name: str) -> Any:
    if name == "fluid":  # `import paddle` alone was enough for paddle.fluid.layers …
        return importlib.import_module("holdfast.fluid")
    served = ", ".join(["fluid", *__all__])
    raise AttributeError(f"paddle.{name} is not provided by Holdfast's Fluid front end; it serves {served}", name=name)
