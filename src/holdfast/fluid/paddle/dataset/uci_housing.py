"""Housing prices from `housing.data`, or else scikit-learn's wines, which have the same shape, announced by a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import bundled, common
from holdfast.fluid.paddle.reader.decorator import Reader

NAME = "housing.data"
ORIGIN = "https://archive.ics.uci.edu/ml/machine-learning-databases/housing/"
feature_names = ["CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT"]

UCI_TRAIN_DATA: np.ndarray[Any, Any] | None = None
UCI_TEST_DATA: np.ndarray[Any, Any] | None = None


def train() -> Reader:
    """A reader of the first four fifths: features as float64 (13,), centred and divided by their range, and price (1,).

    Raises:
        FileNotFoundError: the file is not there, and scikit-learn is not installed; the message says where to put it.
        FormatError: the file does not hold rows of 14 numbers.
    """
    return _reader(_parts()[0])


def test() -> Reader:
    """A reader of the last fifth; see `train`."""
    return _reader(_parts()[1])


def predict_reader() -> tuple[np.ndarray[Any, Any]]:
    """The features of the first test sample, in a tuple."""
    return (_parts()[1][0, :-1],)


def load_data(filename: str | Path, feature_num: int = 14, ratio: float = 0.8) -> None:
    """Read a file of numbers into UCI_TRAIN_DATA and UCI_TEST_DATA, unless they are there already.

    Args:
        filename: text, the numbers separated by white space.
        feature_num: numbers in a row; the last one is not scaled.
        ratio: share of the rows that is for training.

    Raises:
        FormatError: the file does not hold rows of `feature_num` numbers.
    """
    global UCI_TRAIN_DATA, UCI_TEST_DATA  # programs read these two
    if UCI_TRAIN_DATA is not None and UCI_TEST_DATA is not None:
        return
    try:
        numbers = np.array(Path(filename).read_text(encoding="ascii").split(), dtype=np.float64)
    except ValueError as error:
        raise FormatError(f"{filename} holds something that is no number: {error}") from error
    if numbers.size == 0 or numbers.size % feature_num:
        raise FormatError(
            f"{filename} holds {numbers.size} numbers, expected rows of {feature_num}; get it again from {ORIGIN}"
        )
    rows = scaled(numbers.reshape(-1, feature_num))
    cut = int(len(rows) * ratio)
    UCI_TRAIN_DATA, UCI_TEST_DATA = rows[:cut], rows[cut:]


def scaled(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rows, all columns but the last minus their mean and divided by their range."""
    features = rows[:, :-1]
    spread = features.max(axis=0) - features.min(axis=0)
    # A constant column would give 0/0, as it does in Paddle; it carries nothing, and becomes zero.
    return np.hstack([(features - features.mean(axis=0)) / np.where(spread == 0, 1, spread), rows[:, -1:]])


def fetch() -> None:
    """Check that the file is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    common.need("uci_housing", NAME, origin=ORIGIN)


def fluid_model() -> NoReturn:
    """Refuses.

    Raises:
        NotImplementedError: always: Paddle downloaded a trained model here.
    """
    raise NotImplementedError("paddle.dataset.uci_housing.fluid_model is not provided: there is no model to download")


def _parts() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    path = common.find("uci_housing", NAME)
    if path is None and UCI_TRAIN_DATA is None:
        return _wines()
    if path is not None:
        load_data(path)
    if UCI_TRAIN_DATA is None or UCI_TEST_DATA is None:
        raise ValueError("paddle.dataset.uci_housing: set both UCI_TRAIN_DATA and UCI_TEST_DATA, or none")
    return UCI_TRAIN_DATA, UCI_TEST_DATA


def _wines() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    wines = bundled.load("wine", "uci_housing", NAME, ORIGIN)
    warnings.warn(
        f"paddle.dataset.uci_housing: no {Path(common.DATA_HOME) / 'uci_housing' / NAME}; serving scikit-learn's 178 wines"
        f" instead: 13 measurements, and in the place of the price the number of the cultivar (0, 1, 2). For prices put"
        f" {NAME} there",
        stacklevel=4,
    )
    rows = scaled(np.column_stack([wines.data, wines.target]))
    test_rows = bundled.part(len(rows), test=True)
    return rows[~test_rows], rows[test_rows]


def _reader(rows: np.ndarray[Any, Any]) -> Reader:
    def samples() -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        for row in rows:
            yield row[:-1], row[-1:]

    return samples
