"""Film reviews and their sentiment, from NLTK's `corpora/movie_reviews`, read without NLTK."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from holdfast.fluid.paddle.dataset import common

NUM_TRAINING_INSTANCES = 1600
NUM_TOTAL_INSTANCES = 2000
ORIGIN = "NLTK's corpus movie_reviews, unpacked"
_WORD = re.compile(r"\w+|[^\w\s]+")  # what NLTK takes for a word in this corpus

_Sample = tuple[list[int], int]


def get_word_dict() -> list[tuple[str, int]]:
    """(word, number), the most frequent first.

    Raises:
        FileNotFoundError: the corpus is not there; the message says where to put it.
    """
    counts = Counter(word for words, _ in _reviews(_folder()) for word in words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [(word, number) for number, word in enumerate(ranked)]


def train() -> Iterator[_Sample]:
    """The first 1600 reviews, bad and good in turn: the numbers of the words, and 0 for bad, 1 for good.

    This is a reader itself: pass `train`, not `train()`, to `paddle.batch`.

    Raises:
        FileNotFoundError: the corpus is not there; the message says where to put it.
    """
    return iter(_samples(_folder())[:NUM_TRAINING_INSTANCES])


def test() -> Iterator[_Sample]:
    """The other reviews; see `train`."""
    return iter(_samples(_folder())[NUM_TRAINING_INSTANCES:])


def fetch() -> None:
    """Check that the corpus is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    _folder()


def convert(path: str) -> NoReturn:
    """Refuses; see `paddle.dataset.common.convert`."""
    common.convert(path, train, 1000, "sentiment_train")


def _folder() -> Path:
    folder = Path(common.DATA_HOME) / "corpora" / "movie_reviews"
    if not all((folder / kind).is_dir() for kind in ("neg", "pos")):
        raise FileNotFoundError(
            f"paddle.dataset.sentiment needs {folder}/neg and {folder}/pos ({ORIGIN}), which are not there, and Holdfast"
            f" downloads nothing: put them there, or set HOLDFAST_DATASETS to the folder that holds corpora/movie_reviews"
        )
    return folder


@functools.lru_cache(maxsize=1)
def _reviews(folder: Path) -> list[tuple[list[str], int]]:
    bad, good = (sorted((folder / kind).glob("*.txt")) for kind in ("neg", "pos"))
    files = [(path, label) for pair in zip(bad, good, strict=False) for label, path in enumerate(pair)]
    return [(_WORD.findall(path.read_text("utf-8", "replace").lower()), label) for path, label in files]


@functools.lru_cache(maxsize=1)
def _samples(folder: Path) -> list[_Sample]:
    numbers = dict(get_word_dict())
    return [([numbers[word] for word in words], label) for words, label in _reviews(folder)]
