"""`import holdfast` loads no framework, nothing of the command line, and takes under 100 ms beyond NumPy's own time.

A clock must not decide a test on a busy machine, so the time is printed only. What decides is the list of modules:
anything heavy would have to be on it.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

# Everything else that is not in the standard library is foreign: frameworks, cloud clients, typer, rich, safetensors …
ALLOWED = {"holdfast", "numpy", "ml_dtypes", "xxhash", "msgspec"}
# What these load in their turn: msgspec and the compiled parts of numpy.random.
THEIRS = re.compile(r"typing_extensions|cython_runtime|_cython_[0-9_]+")
# In the standard library, but slow to import (5 to 30 ms each) and needed by none of the core.
SLOW = {"asyncio", "email", "http", "importlib.metadata", "multiprocessing", "ssl", "unittest", "urllib.request", "xml"}

PROBE = """
import json, sys, time
start = time.perf_counter()
import numpy
numpy_ready = time.perf_counter()
before = set(sys.modules)
{statement}
end = time.perf_counter()
after = sorted(set(sys.modules) - before)
print(json.dumps({{"modules": after, "numpy": numpy_ready - start, "holdfast": end - numpy_ready}}))
"""


def probe(statement: str) -> dict:
    """What the statement loads in a new process beyond `import numpy`, and the seconds that both take."""
    code = PROBE.format(statement=statement)
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def unwanted(modules: list[str]) -> set[str]:
    """Those modules that `import holdfast` must not load."""
    foreign = {name.partition(".")[0] for name in modules} - ALLOWED - sys.stdlib_module_names
    return {name for name in foreign if not THEIRS.fullmatch(name)} | (SLOW & set(modules))


def test_import_loads_only_the_core() -> None:
    assert unwanted(probe("import holdfast")["modules"]) == set()


@pytest.mark.parametrize("name", ["rich", "typer", "safetensors", "asyncio"])
def test_import_test_can_fail(name: str) -> None:
    assert name in unwanted(probe(f"import holdfast, {name}")["modules"])


def test_import_time_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [probe("import holdfast") for _ in range(5)]
    own, numpy = (statistics.median(run[name] for run in runs) * 1000 for name in ("holdfast", "numpy"))

    with capsys.disabled():
        print(f"\nimport holdfast: {own:.0f} ms beyond numpy's {numpy:.0f} ms (median of {len(runs)}; promised: < 100)")


@pytest.mark.parametrize("arguments", [["-c", "import holdfast.fluid"], ["-m", "holdfast.fluid", "train.py"]])
def test_fluid_without_jax_names_the_extra(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "holdfast.errors.MissingExtraError: holdfast.fluid needs JAX: pip install 'holdfast[fluid]'"
    )
