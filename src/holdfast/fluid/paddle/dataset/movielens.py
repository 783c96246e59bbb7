"""A million ratings of films, with their users and films, from `ml-1m.zip`."""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import FormatError
from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.reader.decorator import Reader

NAMES = common.spellings("movielens%2Fml-1m.zip")
ORIGIN = "http://files.grouplens.org/datasets/movielens/ml-1m.zip"
age_table = [1, 18, 25, 35, 45, 50, 56]
_TITLE = re.compile(r"^(.*)\((\d+)\)$")  # the year stands behind


class MovieInfo:
    """A film.

    Attributes:
        index: its number.
        categories: their names.
        title: without the year.
    """

    def __init__(self, index: int | str, categories: list[str], title: str) -> None:
        self.index = int(index)
        self.categories = categories
        self.title = title

    def value(self) -> list[Any]:
        """The number, those of its categories, and those of its title's words."""
        meta = _meta(_path())
        words = [meta.title_words[word.lower()] for word in self.title.split()]
        return [self.index, [meta.categories[category] for category in self.categories], words]

    def __repr__(self) -> str:
        return f"<MovieInfo id({self.index}), title({self.title}), categories({self.categories})>"


class UserInfo:
    """A user.

    Attributes:
        index: its number.
        is_male: as the data set says.
        age: position in `age_table`.
        job_id: number of the occupation.
    """

    def __init__(self, index: int | str, gender: str, age: int | str, job_id: int | str) -> None:
        self.index = int(index)
        self.is_male = gender == "M"
        self.age = age_table.index(int(age))
        self.job_id = int(job_id)

    def value(self) -> list[int]:
        """The number, 0 or 1 for male or not, the age's position, the job's number."""
        return [self.index, 0 if self.is_male else 1, self.age, self.job_id]

    def __repr__(self) -> str:
        sex = "M" if self.is_male else "F"
        return f"<UserInfo id({self.index}), gender({sex}), age({age_table[self.age]}), job({self.job_id})>"


class _Meta:
    """Films, users, and the numbers of categories and of the words of titles."""

    def __init__(self, path: Path) -> None:
        self.movies: dict[int, MovieInfo] = {}
        self.users: dict[int, UserInfo] = {}
        for number, title, categories in _rows(path, "ml-1m/movies.dat", 3):
            found = _TITLE.match(title)
            if found is None:
                raise FormatError(
                    f"{path}: ml-1m/movies.dat has the title {title!r}, expected a year in brackets behind it"
                )
            self.movies[int(number)] = MovieInfo(number, categories.split("|"), found[1])
        for number, gender, age, job, _ in _rows(path, "ml-1m/users.dat", 5):
            self.users[int(number)] = UserInfo(number, gender, age, job)
        # Sorted, where Paddle numbers them in the order of a set: under Python 3 that is another one in each process, so a
        # model that was saved could not be used by the next.
        words = {word.lower() for movie in self.movies.values() for word in movie.title.split()}
        categories_found = {category for movie in self.movies.values() for category in movie.categories}
        self.title_words = {word: at for at, word in enumerate(sorted(words))}
        self.categories = {category: at for at, category in enumerate(sorted(categories_found))}


def train(rand_seed: int = 0, test_ratio: float = 0.1) -> Reader:
    """A reader of nine tenths of the ratings: user's number, gender, age, job; film's number, categories, title; [[rating]].

    The rating is scaled to -3 … 5, as in Paddle. Which ratings these are depends on `rand_seed` alone.

    Args:
        rand_seed: decides which ratings are for testing.
        test_ratio: share of those.

    Raises:
        FileNotFoundError: the archive is not there; the message says where to put it.
        FormatError: it is damaged.
    """
    return _reader(rand_seed, test_ratio, is_test=False)


def test(rand_seed: int = 0, test_ratio: float = 0.1) -> Reader:  # noqa: PT028 - no test
    """A reader of the other ratings; see `train`."""
    return _reader(rand_seed, test_ratio, is_test=True)


def get_movie_title_dict() -> dict[str, int]:
    """Word of a title → its number."""
    return _meta(_path()).title_words


def movie_categories() -> dict[str, int]:
    """Category → its number."""
    return _meta(_path()).categories


def movie_info() -> dict[int, MovieInfo]:
    """Number → film."""
    return _meta(_path()).movies


def user_info() -> dict[int, UserInfo]:
    """Number → user."""
    return _meta(_path()).users


def max_movie_id() -> int:
    """The highest number of a film."""
    return max(movie_info())


def max_user_id() -> int:
    """The highest number of a user."""
    return max(user_info())


def max_job_id() -> int:
    """The highest number of a job."""
    return max(user.job_id for user in user_info().values())


def fetch() -> None:
    """Check that the archive is there; nothing is downloaded.

    Raises:
        FileNotFoundError: it is not.
    """
    _path()


def _path() -> Path:
    return common.need("movielens", *NAMES, origin=ORIGIN)


_meta = functools.lru_cache(maxsize=1)(_Meta)


def _reader(rand_seed: int, test_ratio: float, *, is_test: bool) -> Reader:
    path = _path()
    meta = _meta(path)

    def samples() -> Iterator[list[Any]]:
        # A generator of its own: Paddle seeds NumPy's global one here, and with it whatever else the program draws.
        chance = np.random.RandomState(rand_seed)
        for user, movie, rating, _ in _rows(path, "ml-1m/ratings.dat", 4):
            if (chance.random_sample() < test_ratio) == is_test:
                score = float(rating) * 2 - 5.0
                yield [*meta.users[int(user)].value(), *meta.movies[int(movie)].value(), [score]]

    return samples


def _rows(path: Path, name: str, columns: int) -> Iterator[list[str]]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            for line in file:
                row = line.decode("latin-1").strip().split("::")
                if len(row) != columns:
                    raise FormatError(f"{path}: {name} has a line of {len(row)} columns, expected {columns}: {row}")
                yield row
    except (*common.DAMAGED, KeyError) as error:
        raise FormatError(f"{path} is no complete ml-1m archive: {error}") from error
