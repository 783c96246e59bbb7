"""An integration whose library is not installed says what to install, and `import holdfast` loads none of them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from holdfast.integrations.common import finite


@pytest.mark.parametrize("name", ["lightning", "transformers", "keras"])
def test_missing_library_is_named_with_the_command_that_installs_it(name: str) -> None:
    # None in sys.modules: importing it fails, wherever this runs.
    code = f"import sys; sys.modules[{name!r}] = None; import holdfast.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("holdfast.errors.MissingExtraError")
    assert f"pip install 'holdfast[{name}]'" in last


def test_finite_leaves_out_what_is_not_one_finite_number() -> None:
    metrics = {"loss": np.float32(0.5), "nan": float("nan"), "many": np.zeros(2), "text": "x", "count": 3}

    assert finite(metrics) == {"loss": 0.5, "count": 3.0}
