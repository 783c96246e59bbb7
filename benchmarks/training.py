"""Saves beside a training loop: GPT-2 with Adam, saved again and again while the loop goes on. Run by `benchmarks.cell`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.instruments import files_below, timed, warm_memory
from benchmarks.libraries import Library, State, remove

SAVES = 4  # the first, and those after it
STEPS = 12


def shapes(layers: int, width: int, vocab: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters of GPT-2; with 12 layers, a width of 768 and 50,257 tokens there are 124 million."""
    yield from (("wte.weight", (vocab, width)), ("wpe.weight", (1024, width)))
    for i in range(layers):
        for name, rows, columns in (("attn", width, 3), ("proj", width, 1), ("fc", width, 4), ("mlp", 4 * width, 1)):
            yield f"h.{i}.{name}.weight", (rows, columns * width)
            yield f"h.{i}.{name}.bias", (columns * width,)
        for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"):
            yield f"h.{i}.{name}", (width,)
    yield from (("ln_f.weight", (width,)), ("ln_f.bias", (width,)))


def make_state(seed: int, **sizes: int) -> State:
    """The parameters, both moments of Adam and a step counter for each, in memory that is in use."""
    random = np.random.default_rng(seed)
    parameters = dict(shapes(**sizes))
    state = {
        f"{slot}{name}": random.random(shape, dtype=np.float32)
        for slot in ("model.", "exp_avg.", "exp_avg_sq.")
        for name, shape in parameters.items()
    }
    return state | {f"step.{name}": np.zeros((), np.float32) for name in parameters}


class Training:
    """One library beside one loop."""

    def __init__(self, library: Library, folder: Path, seed: int, sizes: dict[str, int]) -> None:
        self.library, self.folder, self.seed = library, folder, seed
        self.state = make_state(seed, **sizes)
        self.nbytes = sum(array.nbytes for array in self.state.values())
        self.metrics: dict[str, float] = {"bytes": self.nbytes}

    def _change(self, names: list[str] | None = None) -> None:
        for name in names or self.state:
            self.state[name] += np.float32(1)

    def _written(self, kept: set[int]) -> int:
        """Bytes of files that were not there before, whatever their names; links are no new files."""
        found = {(info := os.lstat(file)).st_ino: info.st_size for file in files_below(self.folder)}
        return sum(size for inode, size in found.items() if inode not in kept)

    def _inodes(self) -> set[int]:
        return {os.lstat(file).st_ino for file in files_below(self.folder)}

    def beside(self) -> None:
        """How long the loop is held, until all is on the disk, and how much slower steps are meanwhile."""
        self.library.prepare(self.state, self.folder)
        stalls, durable = [], []
        for number in range(SAVES):
            self._change()
            os.sync()
            warm_memory(3 * self.nbytes // 2)
            start = time.perf_counter()
            done = self.library.save_beside(self.state, self.folder, number)
            stalls.append(time.perf_counter() - start)
            while not done():
                time.sleep(0.001)
            os.sync()
            durable.append(time.perf_counter() - start)
        self.metrics |= {"stall_first": stalls[0], "stall": statistics.median(stalls[1:])}
        self.metrics["beside"] = statistics.median(durable[1:])
        self._slowdown()

    def _slowdown(self) -> None:
        a = np.random.default_rng(1).random((1024, 1024), dtype=np.float32)

        def step() -> float:
            start = time.perf_counter()
            a @ a
            self._change(["model.wpe.weight"])
            return time.perf_counter() - start

        alone = [step() for _ in range(STEPS)]
        done = self.library.save_beside(self.state, self.folder, SAVES)
        meanwhile = [step()]
        while not done():
            meanwhile.append(step())
        alone += [step() for _ in range(STEPS)]
        self.metrics["slowdown"] = statistics.mean(meanwhile) / statistics.mean(alone) - 1

    def again(self) -> None:
        """What is written again when little has changed."""
        self.library.save_next(self.state, self.folder, SAVES + 1)
        self._change()
        os.sync()
        warm_memory(self.nbytes)
        with timed(self.metrics, "train_save"):
            self.library.save_next(self.state, self.folder, SAVES + 2)
            os.sync()
        before = self._inodes()
        # One percent of the variables, of those that hold no tenth of the state alone.
        names = [name for name in self.state if self.state[name].nbytes <= self.nbytes // 20]
        changed = np.random.default_rng(self.seed).choice(names, max(1, len(self.state) // 100), replace=False)
        self._change(list(changed))
        with timed(self.metrics, "again"):
            self.library.save_next(self.state, self.folder, SAVES + 3)
        self.metrics["again_part"] = self._written(before) / self.nbytes
        self.metrics["changed_part"] = sum(self.state[name].nbytes for name in changed) / self.nbytes


def measure(library: Library, folder: Path, seed: int, sizes: dict[str, int]) -> dict[str, float]:
    """All figures of a library."""
    training = Training(library, folder, seed, sizes)
    training.beside()
    training.again()
    remove(folder / "run")
    return training.metrics
