"""CIFAR-10 and CIFAR-100 from their archives of Python pickles, which are read without pickle."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import common, pickled
from holdfast.fluid.paddle.reader.decorator import Reader

CIFAR10 = "cifar-10-python.tar.gz"
CIFAR100 = "cifar-100-python.tar.gz"
ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar.html"


def train10(cycle: bool = False) -> Reader:
    """A reader of the training set of CIFAR-10: pixels as float32 (3072,) in [0, 1], channel by channel, and label as int.

    Args:
        cycle: begin again at the end, without end.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: while reading, when the archive holds something else.
    """
    return _reader(CIFAR10, "data_batch", cycle)


def test10(cycle: bool = False) -> Reader:  # noqa: PT028 - no test
    """A reader of the test set of CIFAR-10; see `train10`."""
    return _reader(CIFAR10, "test_batch", cycle)


def train100() -> Reader:
    """A reader of the training set of CIFAR-100, with its 100 fine labels; see `train10`."""
    return _reader(CIFAR100, "train", cycle=False)


def test100() -> Reader:
    """A reader of the test set of CIFAR-100, with its 100 fine labels; see `train10`."""
    return _reader(CIFAR100, "test", cycle=False)


def fetch() -> None:
    """Check that both archives are there; nothing is downloaded.

    Raises:
        FileNotFoundError: one is not.
    """
    for name in (CIFAR10, CIFAR100):
        common.need("cifar", name, origin=ORIGIN)


def convert(path: str) -> NoReturn:
    """Refuses; see `paddle.dataset.common.convert`."""
    common.convert(path, train10(), 1000, "cifar_train10")


def _reader(name: str, part: str, cycle: bool) -> Reader:
    path = common.need("cifar", name, origin=ORIGIN)

    def samples() -> Iterator[tuple[np.ndarray[Any, Any], int]]:
        while True:
            for images, labels in _batches(path, part):
                for pixels, label in zip(images, labels, strict=True):
                    yield (pixels / 255.0).astype(np.float32), int(label)
            if not cycle:
                return

    return samples


def _batches(path: Path, part: str) -> Iterator[tuple[np.ndarray[Any, Any], list[int]]]:
    """Images and labels of every member whose name has `part` in it, in the archive's order."""
    found = False
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if part not in member.name or (file := archive.extractfile(member)) is None:
                    continue
                yield _batch(file.read(), f"{path}:{member.name}")
                found = True
    except common.DAMAGED as error:
        raise FormatError(f"{path} is no complete tar archive: {error}") from error
    if not found:
        raise FormatError(f"{path} has no member named …{part}…; get it again from {ORIGIN}")


def _batch(data: bytes, source: str) -> tuple[np.ndarray[Any, Any], list[int]]:
    batch = pickled.loads(data, source)
    if not isinstance(batch, dict):
        raise FormatError(f"{source} holds a {type(batch).__name__}, expected a dictionary of data and labels")
    entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    images, labels = entries.get("data"), entries.get("labels", entries.get("fine_labels"))
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 2
        or not isinstance(labels, list)
    ):
        raise FormatError(f"{source} has no data of uint8 (images, 3072) with labels or fine_labels")
    if len(images) != len(labels):
        raise FormatError(f"{source} has {len(images)} images and {len(labels)} labels")
    return images, labels
