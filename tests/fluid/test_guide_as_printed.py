"""The Fluid guide's own code blocks, run as they are printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("guide_as_printed.py")
DONE = "the guide's four blocks did what the guide says"


@pytest.mark.parametrize("way", ["runner", "import changed"])
def test_the_four_blocks_run_as_printed(way, tmp_path):
    if way == "runner":
        command = [sys.executable, "-m", "holdfast.fluid", str(SCRIPT)]
    else:
        changed = tmp_path / "guide.py"
        changed.write_text(SCRIPT.read_text().replace("import paddle.fluid as fluid", "import holdfast.fluid as fluid"))
        command = [sys.executable, str(changed)]
    done = subprocess.run(
        [*command], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(DONE)
    folders = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert folders == ["checkpoint_7", "checkpoint_8", "checkpoint_9"]
