"""Saves and loads of tensors on an accelerator: GPT-2 with Adam, beside what its bus and the disk can do, and beside PyTorch's DCP.

python -m benchmarks.accelerator                 # GPT-2 small: 124 M parameters, 1.5 GB; two minutes or so
python -m benchmarks.accelerator --quick         # tiny: shows that it runs, its figures mean nothing

It needs a PyTorch that finds an accelerator. Everything that a figure stands for is compared bit for bit with what it should be;
what was saved beside the loop has to be the state at the call, although all of it changes as soon as the call returns.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import limits
from benchmarks.instruments import MIB, files_below, machine, make_warm
from benchmarks.libraries import remove
from benchmarks.training import shapes

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"layers": 12, "width": 768, "vocab": 50257}
QUICK = {"layers": 2, "width": 64, "vocab": 500}
SAVES = 4  # the first, and those after it
SLOTS = ("model.", "exp_avg.", "exp_avg_sq.")

State = dict[str, Any]


class Subject:
    """The state on the device, which is known at every step: whole numbers, and one more with each step."""

    def __init__(self, torch: Any, device: Any, sizes: dict[str, int]) -> None:
        self.torch, self.device = torch, device
        self.shapes = {f"{slot}{name}": shape for slot in SLOTS for name, shape in shapes(**sizes)}
        self.steps = [f"step.{name}" for name, _ in shapes(**sizes)]
        self.step = 0
        self.state: State = {name: self._initial(name).to(device) for name in self.shapes}
        self.state |= {name: torch.zeros(()) for name in self.steps}  # Adam counts on the host
        self.nbytes = sum(tensor.nbytes for tensor in self.state.values())

    def _initial(self, name: str) -> Any:
        made = self.torch.Generator().manual_seed(sum(name.encode()))
        return self.torch.randint(1 << 20, self.shapes[name], generator=made).to(self.torch.float32)

    def synchronize(self) -> None:
        """Return when the device has nothing to do."""
        self.torch.accelerator.synchronize(self.device)

    def advance(self) -> None:
        """A step of training: all of the state changes, in place."""
        for tensor in self.state.values():
            tensor.add_(1)
        self.step += 1

    def spoil(self) -> None:
        """Make all of it wrong, before it is loaded."""
        for tensor in self.state.values():
            tensor.fill_(-1)
        self.synchronize()

    def check(self, step: int, what: str) -> None:
        """Compare every number with what it was at a step."""
        wrong = [
            name
            for name, tensor in self.state.items()
            if not self.torch.equal(
                tensor.cpu(), self._initial(name) + step if name in self.shapes else tensor.cpu() * 0 + step
            )
        ]
        self.step = step
        if wrong:
            raise AssertionError(
                f"{what}: {len(wrong)} of {len(self.state)} tensors are wrong, the first is {wrong[0]}"
            )


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Bus:
    """What the bus can do: all of the state copied to and from one piece of page-locked memory."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        torch = subject.torch
        tensors = [subject.state[name] for name in subject.shapes]
        memory = torch.empty(sum(t.nbytes for t in tensors), dtype=torch.uint8, pin_memory=True)
        self.pairs, at = [], 0
        for tensor in tensors:
            self.pairs.append((memory[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape), tensor))
            at += tensor.nbytes

    def out(self) -> None:
        """From the device."""
        for host, tensor in self.pairs:
            host.copy_(tensor, non_blocking=True)
        self.subject.synchronize()

    def back(self) -> None:
        """To the device."""
        for host, tensor in self.pairs:
            tensor.copy_(host, non_blocking=True)
        self.subject.synchronize()

    def pageable(self) -> None:
        """Into new memory that is not page-locked: what `tensor.cpu()` does."""
        for _, tensor in self.pairs:
            tensor.cpu()


class Holdfast:
    """This library."""

    title = "holdfast"

    def __init__(self, subject: Subject, folder: Path) -> None:
        import holdfast

        self.subject, self.folder = subject, folder
        self.manager = holdfast.CheckpointManager(folder / "run", max_to_keep=2)

    def prepare(self) -> None:
        """Make what the first save needs ahead, and wait until it is there."""
        self.manager.prepare(self.subject.state)
        self.manager._pool.memory(0)

    def beside(self) -> Callable[[], object]:
        """Save beside the loop; the result waits until it is durable."""
        return self.manager.save(self.subject.state, self.subject.step, wait=False).result

    def save(self) -> None:
        """Save while the loop waits."""
        self.manager.save(self.subject.state, self.subject.step)

    def load(self) -> None:
        """The newest, into the tensors that there are."""
        self.manager.restore(self.subject.state)

    def close(self) -> None:
        """Give its memory back."""
        self.manager.close()


class Dcp:
    """PyTorch's distributed checkpoints, in one process."""

    title = "DCP"

    def __init__(self, subject: Subject, folder: Path) -> None:
        import torch.distributed.checkpoint as dcp

        self.dcp, self.subject, self.folder = dcp, subject, folder
        self.options: dict[str, Any] = {}

    def beside(self) -> Callable[[], object]:
        """See `Holdfast`."""
        future = self.dcp.async_save(self.subject.state, storage_writer=self._writer(), no_dist=True, **self.options)
        return getattr(future, "upload_completion", future).result

    def _writer(self) -> Any:
        self.path = self.folder / f"step-{self.subject.step}"
        return self.dcp.FileSystemWriter(self.path)

    def save(self) -> None:
        """See `Holdfast`."""
        self.dcp.save(self.subject.state, storage_writer=self._writer(), no_dist=True)

    def load(self) -> None:
        """See `Holdfast`."""
        self.dcp.load(self.subject.state, storage_reader=self.dcp.FileSystemReader(self.path), no_dist=True)

    def close(self) -> None:
        """See `Holdfast`."""


class PinnedDcp(Dcp):
    """The same with its own page-locked staging, kept from save to save."""

    title = "DCP, pinned staging"

    def __init__(self, subject: Subject, folder: Path) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        super().__init__(subject, folder)
        stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=True, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=True
            )
        )
        self.options = {"async_stager": stager}
        self.close = stager.close  # type: ignore[method-assign]


def measure(library: Any, subject: Subject) -> dict[str, float]:
    """All figures of a library."""
    figures: dict[str, float] = {}
    stalls, durable = [], []
    if hasattr(library, "prepare"):
        figures["prepare"] = seconds(library.prepare)
    for _ in range(SAVES):
        subject.advance()
        subject.synchronize()
        os.sync()
        start = time.perf_counter()
        done = library.beside()
        stalls.append(time.perf_counter() - start)
        saved = subject.step
        subject.advance()
        done()
        os.sync()
        durable.append(time.perf_counter() - start)
    figures |= {"stall_first": stalls[0], "stall": statistics.median(stalls[1:])}
    figures["beside"] = statistics.median(durable[1:])
    subject.spoil()
    library.load()
    subject.check(saved, f"{library.title}, saved beside the loop")
    subject.advance()
    subject.synchronize()
    os.sync()
    figures["save"] = seconds(lambda: (library.save(), os.sync()))
    for file in files_below(library.folder):
        make_warm(file)
    saved = subject.step
    subject.spoil()
    figures["load"] = seconds(lambda: (library.load(), subject.synchronize()))
    subject.check(saved, f"{library.title}, loaded")
    library.close()
    return figures


ROWS = {
    "prepare": ("memory made ahead", None),
    "stall_first": ("save beside the loop: it is held, the first time", "out"),
    "stall": ("it is held, later", "out"),
    "beside": ("until durable", "write"),
    "save": ("save while the loop waits", "write"),
    "load": ("load into the tensors, page cache warm", "back"),
}


def table(figures: dict[str, dict[str, float]], best: dict[str, float], nbytes: int) -> str:
    """The figures in Markdown: seconds, and how many times the limit they are."""
    lines = [f"| | {' | '.join(figures)} | limit |", "|---" * (len(figures) + 2) + "|"]
    for key, (title, limit) in ROWS.items():
        cells = []
        for numbers in figures.values():
            if key not in numbers:
                cells.append("–")
                continue
            times = f" ({numbers[key] / best[limit]:.2f} ×)" if limit else ""
            cells.append(f"{numbers[key]:.3f} s{times}")
        known = "–" if limit is None else f"{best[limit]:.3f} s, {nbytes / best[limit] / 1e9:.1f} GB/s"
        lines.append(f"| {title} | {' | '.join(cells)} | {known} |")
    return "\n".join(lines)


def accelerator() -> tuple[Any, Any]:
    """PyTorch and the device; the program ends with a sentence where there is none."""
    try:
        import torch
    except ImportError:
        raise SystemExit("PyTorch is not installed: pip install torch, in a build for the accelerator") from None
    found = getattr(torch, "accelerator", None) and torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        raise SystemExit(
            f"no accelerator: PyTorch {torch.__version__} finds none on this machine; run this on one with a GPU"
        )
    return torch, torch.device(found.type, torch.accelerator.current_device_index())


def name_of(torch: Any, device: Any) -> str:
    """What the device is called."""
    module = torch.get_device_module(device)
    return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else str(device)


def run(torch: Any, device: Any, sizes: dict[str, int], rounds: int, folder: Path) -> str:
    """Measure everything in turns; the report."""
    subject = Subject(torch, device, sizes)
    plain = limits.measure(folder, max(min(subject.nbytes, 1 << 30) // MIB, 8) * MIB, 0)
    best = {"write": subject.nbytes / max(plain[key] for key in limits.WRITE)}
    bus = Bus(subject)
    bus.out()
    best |= {"out": min(seconds(bus.out) for _ in range(5)), "back": min(seconds(bus.back) for _ in range(5))}
    pageable = seconds(bus.pageable)
    del bus
    gc.collect()
    figures: dict[str, list[dict[str, float]]] = {}
    notes = []
    for number in range(rounds):
        for library in (Holdfast, Dcp, PinnedDcp):
            place = folder / f"{number}-{library.title.replace(' ', '-')}"
            place.mkdir()
            try:
                figures.setdefault(library.title, []).append(measure(library(subject, place), subject))
            except BaseException as error:  # DCP's own errors are no Exception
                if library is Holdfast or isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                notes.append(f"{library.title}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            finally:
                remove(place)
    medians = {
        name: {key: statistics.median(one[key] for one in all_rounds) for key in all_rounds[0]}
        for name, all_rounds in figures.items()
        if all_rounds
    }
    facts = machine(folder)
    about = [
        f"{name_of(torch, device)}; {', '.join(f'{key} {value}' for key, value in facts.items())}; PyTorch {torch.__version__}.",
        f"{subject.nbytes / 1e9:.2f} GB in {len(subject.state)} tensors; median of {rounds} round(s).",
        f"Copied with .cpu(), tensor by tensor: {pageable:.3f} s, {subject.nbytes / pageable / 1e9:.1f} GB/s.",
    ]
    return "\n".join([*about, "", table(medians, best, subject.nbytes), *[f"\nnot measured: {note}" for note in notes]])


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="chooses the disk")
    args = parser.parse_args()
    torch, device = accelerator()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-accelerator-", dir=args.folder))
    try:
        print(run(torch, device, QUICK if args.quick else SIZES, 1 if args.quick else args.rounds, folder))
    finally:
        remove(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
