"""Libraries that only some conversions need: loaded inside the function that needs them, and named if they are not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.errors import MissingExtraError


@contextlib.contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Around imports of a library: says what needs it and how it is installed.

    Args:
        extra: of this package, such as `"torch"`; the library has the same name.
        what: what needs it, such as `"m.pt"`.

    Raises:
        MissingExtraError: it is not installed. Any other failure of the import is passed on as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != extra:
            raise  # it is there, and broken
        raise MissingExtraError(f"{what} needs {extra}: pip install 'holdfast[{extra}]'") from error
