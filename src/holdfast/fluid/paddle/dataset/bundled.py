"""scikit-learn's bundled data sets, where one has the shape of a data set whose files are not there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.fluid.paddle.dataset import common


def load(bundle: str, module: str, name: str, origin: str) -> Any:
    """`sklearn.datasets.load_<bundle>()`: `.data` and `.target`.

    Args:
        bundle: what scikit-learn calls it.
        module: the data set of Paddle that it stands for.
        name: a file of that data set, and `origin` where people get it.

    Raises:
        FileNotFoundError: scikit-learn is not installed; the message says where to put the file.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise FileNotFoundError(
            f"paddle.dataset.{module} needs {Path(common.DATA_HOME) / module / name} ({origin}), which is not there, and Holdfast"
            f" downloads nothing: put it there, set HOLDFAST_DATASETS to the folder that holds {module}/{name}, or install"
            f" scikit-learn, whose {bundle} data have the same shape"
        ) from error
    return getattr(datasets, f"load_{bundle}")()


def part(count: int, *, test: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of `count` samples are for testing (every fifth) or for training (the others). They lie sorted, so no cut in two."""
    chosen: np.ndarray[Any, np.dtype[np.bool_]] = (np.arange(count) % 5 == 4) == test
    return chosen
