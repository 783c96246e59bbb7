"""Saves beside a training loop: GPT-2 with Adam, saved again and again while the loop goes on. Run by `benchmarks.cell`."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import limits
from benchmarks.instruments import as_a_tensor, differing, files_below, make_warm, timed, warm_memory
from benchmarks.libraries import Library, State

SAVES = 4  # the first, and those after it
SLOWING_SAVES = 2
STEPS = 12
RANK = 8


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


def low_rank(layers: int, width: int, vocab: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Two thin matrices for each weight of a layer, as one tunes a model that stays as it is."""
    for name, shape in shapes(layers, width, vocab):
        if name.startswith("h.") and len(shape) == 2:
            yield f"{name}.a", (shape[0], RANK)
            yield f"{name}.b", (RANK, shape[1])


def with_adam(parameters: dict[str, tuple[int, ...]], seed: int) -> State:
    """Parameters, both moments of Adam and a step counter for each, in memory that is in use and lies as that of tensors does."""
    random = np.random.default_rng(seed)
    state = {
        f"{slot}{name}": random.random(dtype=np.float32, out=as_a_tensor(shape))
        for slot in ("model.", "exp_avg.", "exp_avg_sq.")
        for name, shape in parameters.items()
    }
    return state | {f"step.{name}": np.zeros((), np.float32) for name in parameters}


def add_one(state: State) -> None:
    """Change every array, in place."""
    for array in state.values():
        array += np.float32(1)


class Training:
    """One library beside one loop."""

    def __init__(self, library: Library, folder: Path, seed: int, sizes: dict[str, int]) -> None:
        self.library, self.folder, self.seed, self.sizes = library, folder, seed, sizes
        self.state = with_adam(dict(shapes(**sizes)), seed)
        self.nbytes = sum(array.nbytes for array in self.state.values())
        self.metrics: dict[str, float] = {"bytes": self.nbytes}
        self.steps = itertools.count()

    def _new_files(self, kept: set[int]) -> list[Path]:
        """Files that were not there before, whatever their names; links are no new files."""
        return [file for file in files_below(self.folder) if os.lstat(file).st_ino not in kept]

    def _written(self, kept: set[int]) -> int:
        return sum(os.lstat(file).st_size for file in self._new_files(kept))

    def _inodes(self) -> set[int]:
        return {os.lstat(file).st_ino for file in files_below(self.folder)}

    def _load(self, step: int, expected: State, *proven: str) -> float:
        """Load a step into the state, and say of the figures whether it holds what it should; returns the seconds."""
        for array in self.state.values():
            array.fill(-1)
        warm_memory(3 * self.nbytes // 2)
        start = time.perf_counter()
        self.library.load_next(self.state, self.folder, step)
        seconds = time.perf_counter() - start
        if wrong := differing(self.state, expected.items()):
            self.metrics |= {f"{key}_wrong": wrong for key in proven}
        return seconds

    def _copy(self) -> State:
        warm_memory(self.nbytes)
        return {name: array.copy() for name, array in self.state.items()}

    def warm_up(self) -> None:
        """Import what is imported late and start thread pools: nobody's figures should hold that."""
        folder, tiny = self.folder / "warm-up", {"a": np.zeros((2, 2), np.float32)}
        folder.mkdir()
        if self.library.has_own("save_beside"):
            done = self.library.save_beside(tiny, folder, next(self.steps))
            while not done():
                time.sleep(0.001)
        step = next(self.steps)
        self.library.save_next(tiny, folder, step)
        self.library.load_next(tiny, folder, step)

    def beside(self) -> None:
        """How long the loop is held, and until all is on the disk."""
        stalls, durable = [], []
        for _ in range(SAVES):
            add_one(self.state)
            os.sync()
            warm_memory(3 * self.nbytes // 2)
            start = time.perf_counter()
            done = self.library.save_beside(self.state, self.folder, next(self.steps))
            stalls.append(time.perf_counter() - start)
            while not done():
                time.sleep(0.001)
            os.sync()
            durable.append(time.perf_counter() - start)
        self.metrics |= {"stall_first": stalls[0], "stall": statistics.median(stalls[1:])}
        self.metrics["beside"] = statistics.median(durable[1:])

    def slowdown(self) -> float:
        """How much slower steps are during saves."""
        a = np.random.default_rng(1).random((1024, 1024), dtype=np.float32)

        def step() -> float:
            start = time.perf_counter()
            a @ a
            self.state["model.wpe.weight"] += np.float32(1)
            return time.perf_counter() - start

        alone, meanwhile = [step() for _ in range(STEPS)], []
        for _ in range(SLOWING_SAVES):
            add_one(self.state)  # else there is little to write, for who links what has not changed
            done = self.library.save_beside(self.state, self.folder, next(self.steps))
            meanwhile.append(step())
            while not done():
                meanwhile.append(step())
            alone += [step() for _ in range(STEPS)]
        return statistics.mean(meanwhile) / statistics.mean(alone) - 1

    def faithful(self) -> None:
        """Whether what was saved is the state at the call: here all of it changes as soon as the call returns."""
        expected, saved = self._copy(), next(self.steps)
        done = self.library.save_beside(self.state, self.folder, saved)
        add_one(self.state)
        while not done():
            time.sleep(0.001)
        self._load(saved, expected, "stall", "stall_first", "beside", "slowdown")

    def waiting(self) -> None:
        """A save that training waits for, and the load that resumes it."""
        self.library.save_next(self.state, self.folder, next(self.steps))
        add_one(self.state)
        before, expected, saved = self._inodes(), self._copy(), next(self.steps)
        os.sync()
        warm_memory(self.nbytes)
        with timed(self.metrics, "train_save"):
            self.library.save_next(self.state, self.folder, saved)
            os.sync()
        for file in self._new_files(before):
            make_warm(file)
        self.metrics["train_load"] = self._load(saved, expected, "train_load", "train_save")

    def little(self) -> None:
        """A save after another, when little has changed in between."""
        # One percent of the variables, of those that hold no tenth of the state alone.
        names = [name for name in self.state if self.state[name].nbytes <= self.nbytes // 20]
        chosen = np.random.default_rng(self.seed).choice(names, max(1, len(self.state) // 100), replace=False)
        add_one({name: self.state[name] for name in chosen})
        before, expected, saved = self._inodes(), self._copy(), next(self.steps)
        with timed(self.metrics, "again"):
            self.library.save_next(self.state, self.folder, saved)
            os.sync()
        self.metrics["again_part"] = self._written(before) / self.nbytes
        self._load(saved, expected, "again", "again_part")

    def frozen(self) -> None:
        """Bytes written when a base is frozen, and little is trained beside it: of the bytes that have changed."""
        base = {f"base.{name}": self.state[f"model.{name}"] for name, _ in shapes(**self.sizes)}
        rest = with_adam(dict(low_rank(**self.sizes)), self.seed)
        self.library.save_frozen(base, rest, self.folder, next(self.steps))
        add_one(rest)
        before = self._inodes()
        self.library.save_frozen(base, rest, self.folder, next(self.steps))
        self.metrics["frozen_part"] = self._written(before) / sum(array.nbytes for array in rest.values())


class PlainWrite(Library):
    """No library: threads that write as many bytes as the state has, from memory that nobody else uses."""

    def __init__(self, threads: int) -> None:
        self.threads, self.pool = threads, ThreadPoolExecutor(1)

    def prepare(self, state: State, folder: Path) -> None:
        """Memory in use, in whole blocks, as direct I/O wants it."""
        size = sum(array.nbytes for array in state.values())
        self.source = limits.memory(-(-size // limits.BLOCK) * limits.BLOCK)
        np.random.default_rng(1).random(out=np.frombuffer(self.source, np.float32), dtype=np.float32)

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """Past the page cache, until it is durable."""
        path = folder / f"plain-{self.threads}-{step}"
        write = self.pool.submit(limits.write, path, memoryview(self.source), self.threads, direct=True)
        return lambda: write.done() and write.result() is None


def limits_beside(folder: Path, seed: int, sizes: dict[str, int]) -> dict[str, float]:
    """How much slower the same steps are while nothing but bytes are written, by one thread and by two."""
    found = {}
    for threads in (1, 2):
        training = Training(PlainWrite(threads), folder, seed, sizes)
        training.library.prepare(training.state, folder)
        found[f"slowdown_{threads}"] = training.slowdown()
    return found


def measure(library: Library, folder: Path, seed: int, sizes: dict[str, int]) -> dict[str, float]:
    """All figures of a library."""
    training = Training(library, folder, seed, sizes)
    library.prepare(training.state, folder)
    training.warm_up()
    if library.has_own("save_beside"):
        training.beside()
        training.metrics["slowdown"] = training.slowdown()
        training.faithful()
    training.waiting()
    if library.has_own("save_beside"):  # the others write everything, and have nothing to show
        training.little()
        training.frozen()
    return training.metrics
