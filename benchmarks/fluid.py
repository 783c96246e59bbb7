"""Measure the Fluid front end: what `Executor.run` adds to the compiled function, compile time, and saving a scope.

python -m benchmarks.fluid              # about two minutes
python -m benchmarks.fluid --quick      # seconds; tiny sizes: shows that it runs, its figures mean nothing
python -m benchmarks.fluid --publish    # and write the table into docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import numpy as np

import holdfast
import holdfast.fluid as fluid
from benchmarks.instruments import MIB, machine
from benchmarks.libraries import remove

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- fluid:begin -->", "<!-- fluid:end -->"
ROUNDS = 7


def seconds(action: Callable[[], object], times: int) -> float:
    """Seconds for one call of the action, of that many in a row."""
    start = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - start) / times


def counters(count: int) -> tuple[fluid.Program, fluid.Program, fluid.framework.Variable]:
    """A program that changes so many persistables in every run, and does next to nothing else."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.layers.data("x", [4])
        for number in range(count):
            held = fluid.layers.create_global_var([16], 1.0, "float32", persistable=True, name=f"held_{number}")
            main.global_block().append_op("scale", {"X": [held]}, {"Out": [held]}, {"scale": 1.5})
        out = fluid.layers.mean(x)
    return main, startup, out


def overhead(persistables: int, times: int) -> tuple[float, float]:
    """Microseconds of `Executor.run` and of the compiled function alone, with that many persistables: medians of rounds."""
    main, startup, out = counters(persistables)
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    feed = {"x": np.ones((8, 4), np.float32)}
    exe.run(startup, scope=scope)

    def run() -> object:
        return exe.run(main, feed=feed, fetch_list=[out], scope=scope)

    run()
    (compiled,) = exe._compiled[main].values()
    state = [np.array(v.held) for v in compiled.changed]
    chance = np.zeros(2, np.uint32)

    def bare() -> None:
        nonlocal state
        with jax.enable_x64(True):
            fetched, state = compiled.function(state, [], [feed["x"]], chance)
        np.array(fetched[0])

    bare()
    whole, alone = [], []
    for _ in range(ROUNDS):  # in turns, so that drift of the machine hits both
        whole.append(seconds(run, times))
        alone.append(seconds(bare, times))
    return median(whole) * 1e6, median(alone) * 1e6


def residual(layers: int) -> tuple[fluid.Program, fluid.Program, fluid.framework.Variable]:
    """A residual network of so many convolutions for 32 × 32 images, with batch_norm and Momentum."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        image = fluid.layers.data("image", [3, 32, 32])
        label = fluid.layers.data("label", [1], dtype="int64")

        def conv_bn(x, filters, stride=1, size=3, act=None):
            x = fluid.layers.conv2d(x, filters, size, stride=stride, padding=(size - 1) // 2, bias_attr=False)
            return fluid.layers.batch_norm(x, act=act)

        x, width, blocks = conv_bn(image, 16, act="relu"), 16, max((layers - 2) // 6, 1)
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                wider = width * 2 if stride == 2 else width
                short = x if stride == 1 else conv_bn(x, wider, stride, size=1)
                y = conv_bn(conv_bn(x, wider, stride, act="relu"), wider)
                x, width = fluid.layers.elementwise_add(short, y, act="relu"), wider
        x = fluid.layers.pool2d(x, pool_type="avg", global_pooling=True)
        prediction = fluid.layers.fc(x, 10, act="softmax")
        loss = fluid.layers.mean(fluid.layers.cross_entropy(prediction, label))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
    return main, startup, loss


def compile_time(layers: int) -> tuple[float, float, float]:
    """Seconds to build a residual network, to its first training step, and for a later one."""
    start = time.perf_counter()
    main, startup, loss = residual(layers)
    built = time.perf_counter() - start
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    exe.run(startup, scope=scope)
    random = np.random.default_rng(0)
    feed = {"image": random.random((8, 3, 32, 32), np.float32), "label": random.integers(0, 10, (8, 1))}
    first = seconds(lambda: exe.run(main, feed=feed, fetch_list=[loss], scope=scope), 1)
    return built, first, seconds(lambda: exe.run(main, feed=feed, fetch_list=[loss], scope=scope), 3)


def saving(mib: int, folder: Path) -> tuple[float, float]:
    """Seconds to save a scope through the front end, and the same arrays through the core: medians of rounds in turns."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        for number in range(mib // 4):
            fluid.layers.create_parameter([1024, 1024], "float32", name=f"w_{number}")
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    exe.run(startup, scope=scope)
    arrays = {p.name: np.array(scope.find_var(p.name).get_tensor()) for p in main.all_parameters()}
    through, core = [], []
    for _ in range(ROUNDS):
        with fluid.scope_guard(scope):
            through.append(seconds(lambda: fluid.io.save_params(exe, str(folder / "front"), main), 1))
        core.append(seconds(lambda: holdfast.save_params(arrays, folder / "core"), 1))
    return median(through), median(core)


def table(*, quick: bool, folder: Path) -> str:
    """Measure everything; returns the table as Markdown."""
    small, large, times = (5, 20, 20) if quick else (50, 1050, 300)
    few, few_alone = overhead(small, times)
    many, many_alone = overhead(large, times)
    each = ((many - many_alone) - (few - few_alone)) / (large - small)
    built, first, later = compile_time(8 if quick else 32)
    mib = 8 if quick else 512
    front, core = saving(mib, folder)
    rows = [
        ("work", "time", "to compare"),
        ("---", "---", "---"),
        (f"`Executor.run`, {small} persistables", f"{few:.0f} µs", f"compiled function alone: {few_alone:.0f} µs"),
        ("what it adds", f"{few - few_alone:.0f} µs", "asked: under 150 µs"),
        (f"what each further persistable adds (to {large})", f"{each:.2f} µs", "asked: under 1 µs"),
        (f"residual network of {8 if quick else 32} layers: build the program", f"{built:.1f} s", "–"),
        ("its first training step, compilation included", f"{first:.1f} s", f"a later step: {later:.3f} s"),
        (
            f"save a scope of {mib} MiB",
            f"{front:.3f} s",
            f"the same arrays through the core: {core:.3f} s ({mib * MIB / core / 1e9:.2f} GB/s)",
        ),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Measure, show, and publish if told to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fluid", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument(
        "--publish", nargs="?", type=Path, const=PAGE, metavar="PAGE", help="write the table into the page"
    )
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=ROOT))
    try:
        text = table(quick=args.quick, folder=folder)
        date = time.strftime("%Y-%m-%d", time.gmtime())
        found = "; ".join(f"{key} {value}" for key, value in machine(folder).items())
        text = f"{date}, medians of {ROUNDS} rounds. {found}; jax {jax.__version__}.\n\n{text}"
    finally:
        remove(folder)
    print(text)
    if args.publish:
        page = args.publish.read_text()
        head, tail = page.index(BEGIN) + len(BEGIN), page.index(END)
        args.publish.write_text(f"{page[:head]}\n{text}\n{page[tail:]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
