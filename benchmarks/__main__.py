"""Measure Holdfast, the libraries beside it and the machine's own limits, in turns, each in a process of its own.

python -m benchmarks                     # about a quarter of an hour, if all libraries are there
python -m benchmarks --quick             # seconds; tiny sizes: shows that it runs, its figures mean nothing
python -m benchmarks --publish           # and write the tables into docs/benchmarks.md and README.md
python -m benchmarks --results FILE --publish        # tables of an earlier run; nothing is measured
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import report
from benchmarks.instruments import MIB, machine
from benchmarks.libraries import LIBRARIES, remove

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"  # not under version control
TIMEOUT = 300

FULL = {
    "limits": {"mib": 1024},
    "big": {"mib": 1024, "array_bytes": 16 * MIB},
    "many": {"count": 100_000, "array_bytes": 1024},
    "rotate": {"mib": 256, "array_bytes": 16 * MIB, "saves": 10, "keep": 3},
    "train": {"layers": 12, "width": 768, "vocab": 50257},
}
QUICK = {
    "limits": {"mib": 32},
    "big": {"mib": 32, "array_bytes": 2 * MIB},
    "many": {"count": 300, "array_bytes": 1024},
    "rotate": {"mib": 4, "array_bytes": MIB, "saves": 4, "keep": 2},
    "train": {"layers": 4, "width": 192, "vocab": 3000},
}
QUICK_LIBRARIES = ("holdfast", "safetensors")
WORKLOADS = ("big", "many", "rotate", "train")


class Driver:
    """Runs cells and collects what they say."""

    def __init__(self, folder: Path, sizes: dict) -> None:
        self.folder, self.sizes = folder, sizes
        self.cells: list[dict] = []

    def run(self, library: str, workload: str, number: int) -> None:
        """Run one cell; an error in it is noted, and the others go on."""
        folder = self.folder / "cell"
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.cell", library, workload, str(folder), "--seed", str(number)]
        command += ["--sizes", json.dumps(self.sizes[workload])]
        start = time.monotonic()
        metrics, error = {}, None
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
            if done.returncode == 0:
                metrics = json.loads(done.stdout.splitlines()[-1])
            else:
                error = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:300]
        except subprocess.TimeoutExpired:
            error = f"not done after {TIMEOUT} s"
        finally:
            remove(folder)
        self.cells.append(
            {"library": library, "workload": workload, "round": number, "metrics": metrics, "error": error}
        )
        print(f"round {number}  {workload:7} {library:24}{time.monotonic() - start:6.1f} s  {error or ''}", flush=True)

    def rounds(self, count: int, workloads: list[str], libraries: list[str], *, slow: bool) -> None:
        """All cells of a round, then the next round: drift of the machine hits all alike."""
        for number in range(count):
            # Every round begins with another library, so that none always runs behind the same one.
            turn = number % len(libraries)
            order = libraries[turn:] + libraries[:turn]
            for workload in workloads:
                self.run("limits", "limits", number)
                if workload == "train":
                    self.run("limits", workload, number)
                for library in order:
                    kind = LIBRARIES[library]
                    if kind.takes(workload) and (slow or workload not in kind.slow):
                        self.run(library, workload, number)
        self.run("limits", "limits", count)


def version(module: str) -> str:
    """Of an installed package; of one that runs from its sources, what it says itself."""
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return importlib.import_module(module).__version__


def measure(args: argparse.Namespace) -> dict:
    """The results of a whole run."""
    missing = [name for name in args.libraries if not LIBRARIES[name].is_there()]
    libraries = [name for name in args.libraries if name not in missing]
    if not libraries:
        raise SystemExit(f"none of these can be imported here: {', '.join(missing)}")
    modules = dict.fromkeys(
        [*(LIBRARIES[name].package or LIBRARIES[name].module for name in libraries), "numpy", "xxhash"]
    )
    sizes = QUICK if args.quick else FULL
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=args.folder))
    driver, start = Driver(folder, sizes), time.monotonic()
    try:
        driver.rounds(args.rounds or (1 if args.quick else 2), args.workloads, libraries, slow=args.slow)
    finally:
        remove(folder)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - start),
        "machine": machine(args.folder),
        "versions": {module: version(module) for module in modules},
        "missing": missing,
        "sizes": sizes,
        "cells": driver.cells,
    }


def main() -> int:
    """Measure or read results, show them, publish them if told to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it runs")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (2)")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="only these")
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), metavar="NAME", help="only these")
    parser.add_argument("--slow", action="store_true", help="also what takes a library minutes")
    parser.add_argument("--folder", type=Path, default=BUILD, help="where to write what is measured: chooses the disk")
    parser.add_argument("--out", type=Path, help="the results as JSON (build/benchmarks/<date>.json)")
    parser.add_argument("--results", type=Path, help="show these results; measure nothing")
    parser.add_argument(
        "--publish", nargs="?", type=Path, const=ROOT, metavar="ROOT", help="write the tables into the pages"
    )
    args = parser.parse_args()
    args.libraries = args.libraries or list(QUICK_LIBRARIES if args.quick else LIBRARIES)
    if args.results:
        results = json.loads(args.results.read_text())
    else:
        results = measure(args)
        out = args.out or BUILD / f"{results['date']}{'-quick' if args.quick else ''}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1))
        print(f"wrote {out}")
    print(report.full(results))
    if args.publish:
        for page in report.publish(results, args.publish):
            print(f"wrote {page}")
    return 1 if any(cell["error"] or report.is_wrong(cell) for cell in results["cells"]) else 0


if __name__ == "__main__":
    sys.exit(main())
