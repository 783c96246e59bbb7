"""`paddle.dataset`: readers over data sets that lie in a local folder; nothing is ever downloaded.

The folder is `HOLDFAST_DATASETS`, or else `~/.cache/paddle/dataset`, where Paddle keeps its own downloads. Each module is
imported at its first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from holdfast.fluid.paddle.dataset import common

_MODULES = (
    "cifar",
    "conll05",
    "image",
    "imdb",
    "imikolov",
    "mnist",
    "movielens",
    "sentiment",
    "uci_housing",
    "wmt14",
    "wmt16",
)
_UNPLANNED = ("flowers", "mq2007", "voc2012")

__all__ = ["common"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _UNPLANNED:
        from holdfast.fluid.paddle.serving import UNPLANNED
        from holdfast.fluid.paddle.unplanned import Unplanned

        return Unplanned(f"paddle.dataset.{name}", UNPLANNED[f"paddle.dataset.{name}"])
    raise AttributeError(f"there is no paddle.dataset.{name}; there are {', '.join(('common', *_MODULES))}", name=name)
