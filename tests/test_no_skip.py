"""Where nothing may be skipped a skip is a failure: of one test, of a file, and for a library that is not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONFTEST = HERE / "conftest.py"
ABSENT = 'pytest.importorskip("no_such_library")'
FILES = {
    "test_by_the_test.py": f"def test_claim():\n    {ABSENT}\n",
    "test_by_the_file.py": f"{ABSENT}\n\ndef test_claim():\n    pass\n",
    "test_by_a_mark.py": '@pytest.mark.skipif(True, reason="no_such_library")\ndef test_claim():\n    pass\n',
    "test_by_a_fixture.py": f"@pytest.fixture\ndef library():\n    {ABSENT}\n\ndef test_claim(library):\n    pass\n",
    "test_expected_to_fail.py": "@pytest.mark.xfail\ndef test_claim():\n    assert False\n",
    "test_that_passes.py": "def test_claim():\n    pass\n",
}


def run(folder: Path, no_skip: str) -> tuple[int, list[str]]:
    """Exit status of these tests beside this project's conftest.py, and the lines that pytest ends with."""
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in FILES.items():
        (folder / name).write_text(f"import pytest\n\n{text}")
    command = [sys.executable, "-m", "pytest", "-ra", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    environment = {**os.environ, "HOLDFAST_NO_SKIP": no_skip, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return done.returncode, done.stdout.splitlines()


def test_skip_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    status, said = run(tmp_path, "1")

    assert status == 1
    assert "1 failed, 1 passed, 1 xfailed, 3 errors" in said[-1]
    failed = {found[1] for line in said if (found := re.match(r"(?:FAILED|ERROR) (test_by_\w+\.py)", line))}
    assert failed == {name for name in FILES if name.startswith("test_by_")}
    assert sum("no_such_library" in line for line in said) >= 4
    assert sum("`make test-frameworks` makes" in line for line in said) >= 4


def test_skip_is_none_elsewhere(tmp_path: Path) -> None:
    status, said = run(tmp_path, "")

    assert status == 0
    assert "1 passed, 4 skipped, 1 xfailed" in said[-1]


def test_what_is_optional_is_imported_in_the_way_that_make_test_frameworks_looks_for() -> None:
    texts = {path.relative_to(HERE).as_posix(): path.read_text(encoding="utf-8") for path in HERE.rglob("test_*.py")}
    other_way = re.compile(r"skip(if)?\(.*(is not installed|find_spec)")

    assert [name for name, text in texts.items() if other_way.search(text) and "importorskip" not in text] == []
