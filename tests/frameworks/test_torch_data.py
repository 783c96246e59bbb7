"""Loaders of torchdata: they go on where they were, and looking at them changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from frameworks.resuming import ROOT
from holdfast import MemoryStore

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
nodes = pytest.importorskip("torchdata.nodes", reason="torchdata is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


class Numbers(torch.utils.data.Dataset):
    """As many numbers, in their order."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> int:
        return index


class Stream(torch.utils.data.IterableDataset):
    """The same without an index."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Any:
        while self.at < 16:
            self.at += 1
            yield self.at - 1
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def shuffled() -> Any:
    return stateful.StatefulDataLoader(Numbers(), batch_size=2, shuffle=True)


def by_node() -> Any:
    order = torch.utils.data.RandomSampler(Numbers(), generator=torch.Generator().manual_seed(3))
    return nodes.Loader(nodes.Batcher(nodes.MapStyleWrapper(Numbers(), order), 2))


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": lambda: stateful.StatefulDataLoader(Numbers(), batch_size=2),
    "shuffled": shuffled,
    "stream": lambda: stateful.StatefulDataLoader(Stream(), batch_size=2),
    "nodes": by_node,
}


def epoch(loader: Any) -> list[Any]:
    return [list(map(int, batch)) for batch in loader]


@pytest.mark.parametrize("taken", [0, 3])
@pytest.mark.parametrize("name", LOADERS)
def test_loader_goes_on_within_its_epoch(name: str, taken: int) -> None:
    run = MemoryStore().at("run")
    torch.manual_seed(1)
    saved = LOADERS[name]()
    batches = iter(saved) if taken else None
    for _ in range(taken):
        next(batches)
    holdfast.save_checkpoint({"data": saved, "random": holdfast.global_random()}, run)
    rest = epoch(saved if batches is None else batches)
    torch.manual_seed(2)
    target = LOADERS[name]()

    holdfast.load_checkpoint({"data": target, "random": holdfast.global_random()}, run)

    assert epoch(target) == rest
    assert len(rest) == 8 - taken


def go_on_with_workers() -> None:
    """What the test below does, in a process of its own."""
    LOADERS["workers"] = lambda: stateful.StatefulDataLoader(Numbers(), batch_size=2, num_workers=1)
    for taken in (0, 3):
        test_loader_goes_on_within_its_epoch("workers", taken)
    test_save_and_load_draw_no_random_numbers("workers")


def test_loader_with_workers_goes_on() -> None:
    """Not in this process, which may have loaded JAX: its threads and fork() do not go together."""
    code = "from frameworks.test_torch_data import go_on_with_workers; go_on_with_workers()"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}

    done = subprocess.run(
        [sys.executable, "-c", code], env=paths, capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == 0, done.stderr


def test_order_of_later_epochs_follows_from_the_global_random_state() -> None:
    run = MemoryStore().at("run")
    torch.manual_seed(1)
    saved = shuffled()
    batches = iter(saved)
    next(batches)
    holdfast.save_checkpoint({"data": saved, "random": holdfast.global_random()}, run)
    expected = [epoch(batches), epoch(saved), epoch(saved)]
    torch.manual_seed(2)
    target = shuffled()

    holdfast.load_checkpoint({"data": target, "random": holdfast.global_random()}, run)

    assert [epoch(target), epoch(target), epoch(target)] == expected
    assert expected[1] != expected[2]


@pytest.mark.parametrize("name", LOADERS)
def test_save_and_load_draw_no_random_numbers(name: str) -> None:
    """A loader that is asked for its state before its first epoch draws some, and may start processes."""
    run = MemoryStore().at("run")
    loader = LOADERS[name]()
    before = torch.get_rng_state()

    holdfast.save_checkpoint({"data": loader}, run)
    holdfast.load_checkpoint({"data": loader}, run)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", LOADERS)
def test_loader_that_was_at_its_beginning_is_there_again(name: str) -> None:
    run = MemoryStore().at("run")
    loader = LOADERS[name]()
    holdfast.save_checkpoint({"data": loader}, run)
    batches = iter(loader)
    next(batches)
    next(batches)

    holdfast.load_checkpoint({"data": loader}, run)

    assert len(epoch(loader)) == 8


def test_loader_that_was_loaded_can_be_saved_before_it_is_used() -> None:
    run, again = MemoryStore().at("run"), MemoryStore().at("again")
    saved = LOADERS["in order"]()
    batches = iter(saved)
    next(batches)
    holdfast.save_checkpoint({"data": saved}, run)
    between, target = LOADERS["in order"](), LOADERS["in order"]()

    holdfast.load_checkpoint({"data": between}, run)
    holdfast.save_checkpoint({"data": between}, again)
    holdfast.load_checkpoint({"data": target}, again)

    assert epoch(target) == epoch(batches)
