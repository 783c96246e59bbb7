"""Loaders of torchdata: looked at without making them begin. Imports no torchdata.

`state_dict()` of a loader that nobody has iterated over yet makes an iterator: that starts worker processes, draws random numbers,
and in `torchdata.nodes` even takes the place of the state that is loaded next.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch


class _Kind(NamedTuple):
    origin: str
    name: str
    iterator: str  # what it holds its iterator as
    pending: str  # the state that its next iterator is to have
    early: str  # whether its iterator was only made for a state
    is_asked: bool  # whether its state at its beginning holds something


_KINDS = (
    _Kind(
        "torchdata.stateful_dataloader.stateful_dataloader",
        "StatefulDataLoader",
        "_iterator",
        "next_iter_state",
        "_initial_iter_for_state_dict",
        True,  # that of a dataset that keeps where it is
    ),
    _Kind("torchdata.nodes.loader", "Loader", "_it", "_next_iter_state_dict", "_iter_for_state_dict", False),
)


class Loader:
    """A loader as an object with a state, which is empty where nothing has begun.

    Args:
        loader: the loader.
        kind: what is known of its type.
        is_target: whether its state is only going to be replaced.
    """

    def __init__(self, loader: Any, kind: _Kind, *, is_target: bool) -> None:
        self._loader, self._kind, self._is_target = loader, kind, is_target

    def state_dict(self) -> Any:
        """Its state."""
        loader, kind = self._loader, self._kind
        if getattr(loader, kind.iterator) is not None:
            return loader.state_dict()
        if (pending := getattr(loader, kind.pending)) is not None:
            return pending
        if self._is_target or not kind.is_asked:
            return {}
        # The iterator that this makes is not the one that will be used: so the same numbers are drawn for that, here and in a
        # run that goes on from here.
        found = [torch.default_generator, loader.generator, getattr(loader.sampler, "generator", None)]
        generators = [generator for generator in found if generator is not None]
        before = [generator.get_state() for generator in generators]
        try:
            return loader.state_dict()
        finally:
            setattr(loader, kind.iterator, None)
            setattr(loader, kind.early, False)
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give it a state."""
        setattr(self._loader, self._kind.pending, None)
        setattr(self._loader, self._kind.early, False)
        if state:
            self._loader.load_state_dict(state)
        else:
            setattr(self._loader, self._kind.iterator, None)


def as_object(node: Any, *, is_target: bool) -> Loader | None:
    """A loader of torchdata as such an object; None if it is none."""
    for kind in _KINDS:
        known = getattr(sys.modules.get(kind.origin), kind.name, None)
        if known is not None and isinstance(node, known):
            parts = (kind.iterator, kind.pending, kind.early)  # which another version of torchdata may not have
            return Loader(node, kind, is_target=is_target) if all(hasattr(node, part) for part in parts) else None
    return None
