"""WatchedStore: a store that knows which of its operations are under way, so that a wait that ends too early can say what hangs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from holdfast.storage.base import Location

_VERBS = {
    "list": "listing", "stat": "looking at", "make_folder": "making", "create": "creating", "open": "opening",
    "sync_folder": "syncing", "rename": "renaming", "exchange": "renaming", "link": "linking", "remove": "removing",
    "remove_folder": "removing", "claim": "locking", "free_bytes": "asking for free space in",
    "write_at": "writing", "truncate": "truncating", "sync": "syncing", "close": "closing",
    "read_into": "reading", "read_direct": "reading", "view": "reading",
}  # fmt: skip
_SHOWN = 3


class _Watched:
    """Something whose methods are noted while they run. Everything else is the original's."""

    def __init__(self, original: Any, under_way: dict[int, tuple[float, str, str]], path: str | None = None) -> None:
        self._original, self._under_way, self._path = original, under_way, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._original, name)
        verb = _VERBS.get(name)
        return found if verb is None else self._noted(found, verb)

    def _noted(self, operation: Callable[..., Any], verb: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            path = args[0] if self._path is None else self._path
            number = next(_numbers)
            self._under_way[number] = (
                time.monotonic(),
                verb,
                path,
            )  # one operation of a dict: no lock that a fork could catch
            try:
                result = operation(*args, **options)
            finally:
                self._under_way.pop(number, None)
            return _Watched(result, self._under_way, path) if verb in ("creating", "opening") else result

        return call


_numbers = itertools.count()


class WatchedStore(_Watched):
    """A store in front of another; it differs from that in nothing but what `under_way` tells."""

    def __init__(self, store: Any) -> None:
        super().__init__(store, {})

    def __eq__(self, other: object) -> bool:
        return bool(self._original == (other._original if isinstance(other, WatchedStore) else other))

    def __hash__(self) -> int:
        return hash(self._original)

    def under_way(self) -> str:
        """What it has been doing, and for how long, the longest first; empty if nothing is asked of it just now."""
        now = time.monotonic()
        held = [(now - since, verb, path) for since, verb, path in sorted(self._under_way.copy().values())]
        texts = [f"{verb} {path} for {seconds:.1f} s" for seconds, verb, path in held[:_SHOWN]]
        return ", ".join(texts) + (f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else "")

    def at(self, location: Location) -> Location:
        """The same place, in this store."""
        return Location(self, location.path)
