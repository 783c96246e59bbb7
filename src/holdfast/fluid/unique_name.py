"""Names that layers give to their variables: a counter per key, as in Fluid 1.8.5. Files and programs match by them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator


class UniqueNameGenerator:
    """Counters per key, and a prefix that every name gets."""

    def __init__(self, prefix: str = "") -> None:
        self.ids: Counter[str] = Counter()
        self.prefix = prefix

    def __call__(self, key: str) -> str:
        """The next name for a key."""
        number = self.ids[key]
        self.ids[key] += 1
        return f"{self.prefix}{key}_{number}"


_generator = UniqueNameGenerator()


def generate(key: str) -> str:
    """The next name for a key: `fc` gives `fc_0`, then `fc_1`."""
    return _generator(key)


def switch(new_generator: UniqueNameGenerator | None = None) -> UniqueNameGenerator:
    """Replace the counters of the process, by fresh ones if none are given; returns the old."""
    global _generator
    old = _generator
    _generator = new_generator or UniqueNameGenerator()
    return old


@contextlib.contextmanager
def guard(new_generator: UniqueNameGenerator | str | bytes | None = None) -> Iterator[None]:
    """Count from zero inside the block, so that the same code gives the same names every time.

    Args:
        new_generator: counters to go on with, or a prefix for fresh ones. Fluid puts the prefix twice before a layer's
            parameters (`A_A_fc_0.w_0`), and so does this.

    Example:
        >>> from holdfast.fluid import unique_name
        >>> with unique_name.guard():
        ...     unique_name.generate("fc"), unique_name.generate("fc")
        ('fc_0', 'fc_1')
    """
    if isinstance(new_generator, bytes):
        new_generator = new_generator.decode()
    if isinstance(new_generator, str):
        new_generator = UniqueNameGenerator(new_generator)
    old = switch(new_generator)
    try:
        yield
    finally:
        switch(old)
