"""MNIST from its four idx files, or else scikit-learn's digits in MNIST's shape, announced by a warning."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import bundled, common
from holdfast.fluid.paddle.reader.decorator import Reader

TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
ORIGIN = "MNIST, http://yann.lecun.com/exdb/mnist/"

_IMAGES, _LABELS = 2051, 2049  # magic numbers: unsigned bytes in three dimensions and in one
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def train() -> Reader:
    """A reader of the training set: pixels as float32 (784,) in [-1, 1], label 0 to 9 as int.

    Raises:
        FileNotFoundError: some of MNIST's files are there and one of these is not, or none is and scikit-learn is not
            installed; the message says where to put them.
        FormatError: a file is no idx file, or images and labels do not belong together.
    """
    return _reader(*TRAIN, test=False)


def test() -> Reader:
    """A reader of the test set; see `train`."""
    return _reader(*TEST, test=True)


def fetch() -> None:
    """Check that all files are there; nothing is downloaded.

    Raises:
        FileNotFoundError: one is not.
    """
    for name in TRAIN + TEST:
        _path(name)


def _reader(images_name: str, labels_name: str, *, test: bool) -> Reader:
    # Only where none of the files is there: real training images beside other test images would be a silent mix.
    if not any(common.find("mnist", name, name.removesuffix(".gz")) for name in TRAIN + TEST):
        return _digits(test)
    images_path, labels_path = _path(images_name), _path(labels_name)
    images, labels = read_idx(images_path, _IMAGES), read_idx(labels_path, _LABELS)
    if len(images) != len(labels):
        raise FormatError(
            f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels; they do not belong together"
        )
    return _samples(images, labels)


def _path(name: str) -> Path:
    return common.need("mnist", name, name.removesuffix(".gz"), origin=ORIGIN)


def read_idx(path: Path, magic: int) -> _Bytes:
    """The bytes of an idx file, in its shape.

    Args:
        path: the file, compressed if its name ends in `.gz`.
        magic: 2051 for images, 2049 for labels.

    Raises:
        FormatError: the file has another kind or another length than its header says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except common.DAMAGED as error:
        raise FormatError(f"{path} is no complete gzip file: {error}") from error
    dimensions = magic % 256
    length = 4 + 4 * dimensions
    header = np.frombuffer(data, ">u4", count=1 + dimensions) if len(data) >= length else np.zeros(1)
    if header[0] != magic:
        raise FormatError(f"{path} is no idx file of this kind: it must begin with the number {magic}")
    shape = tuple(int(size) for size in header[1:])
    body = np.frombuffer(data, np.uint8, offset=length)
    if body.size != np.prod(shape):
        raise FormatError(f"{path} holds {body.size} bytes behind its header, expected {shape}; get it again")
    return body.reshape(shape)


def _digits(test: bool) -> Reader:
    digits = bundled.load("digits", "mnist", TRAIN[0], ORIGIN)
    warnings.warn(
        f"paddle.dataset.mnist: no MNIST in {Path(common.DATA_HOME) / 'mnist'}; serving scikit-learn's 1797 digits of 8 x 8"
        f" pixels, enlarged to 28 x 28 ({'every fifth' if test else 'four of five'}). For MNIST put {TRAIN[0]} and the other"
        f" three files there",
        stacklevel=4,
    )
    # Three by three pixels for one, and a border of two: the digit fills the middle 24 of 28, about as in MNIST.
    small = np.round(digits.data.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    chosen = bundled.part(len(images), test=test)
    return _samples(images[chosen], digits.target[chosen])


def _samples(images: _Bytes, labels: np.ndarray[Any, Any]) -> Reader:
    def samples() -> Iterator[tuple[np.ndarray[Any, Any], int]]:
        for start in range(0, len(images), 100):  # converted as they are read: all of them take four times the memory
            block = images[start : start + 100].reshape(-1, images[0].size).astype(np.float32)
            block = block / np.float32(255.0) * np.float32(2.0) - np.float32(1.0)
            for pixels, label in zip(block, labels[start : start + 100], strict=True):
                yield pixels, int(label)

    return samples
