"""One measurement in a process of its own: `python -m benchmarks.cell LIBRARY WORKLOAD FOLDER …`, started by the driver."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import limits, training
from benchmarks.instruments import (
    MIB,
    differing,
    files_below,
    make_cold,
    make_warm,
    peak_memory,
    same_bits,
    timed,
    warm_memory,
)
from benchmarks.libraries import LIBRARIES, Library, State, remove

PAGE_FLOATS = 1024
PART_MEMORY = 256 * MIB


def contents(count: int, floats: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of noise, the same for the same seed; an array is made when it is asked for."""
    random = np.random.default_rng(seed)
    shape = (floats,) if floats < PAGE_FLOATS else (floats // PAGE_FLOATS, PAGE_FLOATS)
    for i in range(count):
        yield f"layers.{i // 100}.part.{i % 100}.weight", random.random(shape, dtype=np.float32)


class Cell:
    """A library at one workload, once."""

    def __init__(self, library: Library, folder: Path, count: int, floats: int, seed: int) -> None:
        self.library, self.folder = library, folder
        self.count, self.floats, self.seed = count, floats, seed
        self.nbytes = 4 * count * floats
        self.spare = 3 * self.nbytes // 2  # for page cache and copies: the same for all, whether they take it or not
        self.metrics: dict[str, float] = {"bytes": self.nbytes}
        self.path = folder / f"saved{library.suffix}"

    def make_state(self) -> State:
        """The state to save, all of it in memory."""
        return dict(contents(self.count, self.floats, self.seed))

    def check(self, loaded: State, what: str) -> None:
        """Compare every bit with what was saved."""
        if wrong := differing(loaded, contents(self.count, self.floats, self.seed)):
            # A save that nothing proves right deserves no time either.
            self.metrics[f"{what}_wrong"] = self.metrics["save_wrong"] = wrong

    def warm_up(self) -> None:
        """Import what is imported late and start thread pools: nobody's figures should hold that."""
        path, tiny = self.folder / f"warm-up{self.library.suffix}", dict(contents(3, 2 * PAGE_FLOATS, 1))
        self.library.save(tiny, path)
        self.library.read(path)
        self.library.load_into(path, tiny)
        self.library.read_one(path, next(iter(tiny)))
        self.library.names(path)
        remove(path)

    def save(self, state: State) -> None:
        """Until the data is on the disk: the call and a sync of everything after it."""
        os.sync()
        warm_memory(self.spare)
        with timed(self.metrics, "save"):
            with timed(self.metrics, "save_call"), peak_memory(self.metrics, "save_memory"):
                self.library.save(state, self.path)
            os.sync()
        self.metrics["disk"] = sum(os.lstat(file).st_blocks * 512 for file in files_below(self.path))

    def load_into(self, key: str, state: State, prepare: Callable[[Path], None]) -> None:
        """Into arrays that exist and are in use."""
        for array in state.values():
            array.fill(-1)
        prepare(self.path)
        warm_memory(self.spare)
        with timed(self.metrics, key), peak_memory(self.metrics, f"{key}_memory"):
            self.library.load_into(self.path, state)
        self.check(state, key)

    def read(self) -> None:
        """Into new memory, page cache warm; one element of every page is read, so that lazy libraries do their work."""
        make_warm(self.path)
        warm_memory(self.spare)
        with peak_memory(self.metrics, "read_memory", wanted=self.nbytes), timed(self.metrics, "read"):
            loaded = self.library.read(self.path)
            for array in loaded.values():
                array.reshape(-1)[::PAGE_FLOATS].sum()
        self.check(loaded, "read")

    def parts(self, name: str, expected: np.ndarray) -> None:
        """One array by name, and the list of all, each with the file just opened."""
        make_warm(self.path)
        warm_memory(min(self.spare, PART_MEMORY) if self.library.has_own("read_one") else self.spare)
        with timed(self.metrics, "one"):
            one = self.library.read_one(self.path, name)
            one.reshape(-1)[::PAGE_FLOATS].sum()
        if not same_bits(one, expected):
            self.metrics["one_wrong"] = 1
        del one
        with timed(self.metrics, "names"):
            names = self.library.names(self.path)
        assert len(names) == self.count, f"{len(names)} names"

    def whole(self, *, cold: bool) -> None:
        """Save, load in every way, and list."""
        state = self.make_state()
        self.warm_up()
        name = list(state)[self.count // 2]
        expected = state[name].copy()
        self.save(state)
        self.load_into("load", state, make_warm)
        if cold:
            self.load_into("load_cold", state, make_cold)
        del state
        self.parts(name, expected)
        self.read()

    def rotate(self, saves: int, keep: int) -> None:
        """Many saves of a state that changes, of which the last few are kept."""
        state = self.make_state()
        self.warm_up()
        os.sync()
        warm_memory((keep + 1) * self.nbytes)
        spent, longest = 0.0, 0.0
        for step in range(saves):
            for array in state.values():
                array += np.float32(1)
            start = time.perf_counter()
            self.library.save_in_rotation(state, self.folder, step, keep)
            took = time.perf_counter() - start
            spent, longest = spent + took, max(longest, took)
        start = time.perf_counter()
        os.sync()
        self.metrics |= {"rotate": spent + time.perf_counter() - start, "longest": longest, "saves": saves}


def main() -> None:
    """Measure, and print the figures as the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("workload", choices=["limits", "big", "many", "rotate", "train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    signal.alarm(600)  # never outlive a driver that is gone
    sizes = args.sizes
    if args.workload == "limits":
        print(json.dumps(limits.measure(args.folder, sizes["mib"] * MIB, args.seed)))
        return
    if args.workload == "train":
        if args.library == "limits":
            print(json.dumps(training.limits_beside(args.folder, args.seed, sizes)))
        else:
            print(json.dumps(training.measure(LIBRARIES[args.library](), args.folder, args.seed, sizes)))
        return
    floats = sizes["array_bytes"] // 4
    count = sizes["count"] if "count" in sizes else sizes["mib"] * MIB // sizes["array_bytes"]
    cell = Cell(LIBRARIES[args.library](), args.folder, count, floats, args.seed)
    if args.workload == "rotate":
        cell.rotate(sizes["saves"], sizes["keep"])
    else:
        cell.whole(cold=args.workload == "big")
    print(
        json.dumps(
            cell.metrics | {"own_one": cell.library.has_own("read_one"), "own_names": cell.library.has_own("names")}
        )
    )


if __name__ == "__main__":
    main()
