"""`make demo`: the training of digits.py, killed in the middle of a save, must end as if nothing had happened.

Every line that this prints is the result of a check; a check that fails ends it with an error.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import holdfast
from digits import EPOCHS, digits, new_state, predict

SCRIPT = Path(__file__).with_name("digits.py")
# One thread for the matrix products: their sums are then added up in the same order in every process.
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    """Tell the story in five parts."""
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
        calm, stormy = Path(folder, "calm"), Path(folder, "stormy")

        start = time.monotonic()
        train(calm)
        tell(
            "Trained",
            f"{EPOCHS} epochs without interruption, a checkpoint after each: {time.monotonic() - start:.1f} s",
        )

        attempt, left = kill_in_the_middle_of_a_save(stormy)
        tell("Killed", f"another run, by SIGKILL in the middle of a save; left behind half-written: {attempt}/")
        for file in left:
            tell("", f"    {file.name}, {file.stat().st_size:,} bytes")
        complete = holdfast.serials(stormy / "checkpoints")
        for serial in complete:
            holdfast.verify(stormy / "checkpoints", serial=serial)
        tell("", f"complete, and every digest right: {', '.join(f'checkpoint_{serial}' for serial in complete)}")

        tell("Resumed", f"in a new process, {train(stormy)}, to the end")

        expected, found = fingerprint(calm), fingerprint(stormy)
        check(expected == found, f"the runs differ: {expected} and {found}")
        check(not list(stormy.glob("checkpoints/.attempt-*")), "the half-written checkpoint is still there")
        tell("Compared", f"parameters, optimizer and random state of the two runs: equal, bit for bit ({found[:16]}…)")

        fresh = new_state(seed=1)
        report = holdfast.load_params(fresh, stormy / "model")
        _, _, images, labels = digits()
        right = int(np.sum(predict(fresh["model"].tree, images) == labels))
        check(right >= 0.9 * len(labels), f"only {right} of {len(labels)} predictions are right")
        tell("Predicted", f"from {len(report.loaded)} saved parameters: {right} of {len(labels)} unseen digits right")


def train(folder: Path) -> str:
    """Run the training to its end in a new process; return what it says."""
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True).stdout.strip()


def kill_in_the_middle_of_a_save(folder: Path) -> tuple[str, list[Path]]:
    """Run the training and kill it while a save has written data and not yet committed.

    Whether the kill came in time is not a matter of luck or of belief: the attempt's folder, and the data in it, are
    still there afterwards. Where it came too late the training is started again, and goes on from where it was.
    """
    for _ in range(20):
        with subprocess.Popen([sys.executable, SCRIPT, folder], env=ENVIRONMENT, stdout=subprocess.DEVNULL) as child:
            while child.poll() is None:
                if any(folder.glob("checkpoints/checkpoint_1?")) and half_written(folder):  # from the eleventh epoch on
                    child.kill()
                    break
        if left := half_written(folder):
            return left[0].parent.name, left
    raise SystemExit("no kill came in the middle of a save")


def half_written(folder: Path) -> list[Path]:
    """The files with data in them of the save that is going on, or that was."""
    try:
        return sorted(file for file in folder.glob("checkpoints/.attempt-*/*") if file.stat().st_size)
    except FileNotFoundError:  # committed while we looked
        return []


def fingerprint(folder: Path) -> str:
    """A SHA-256 of everything that the newest checkpoint of a run holds."""
    state = new_state(seed=1)
    report = holdfast.load_checkpoint(state, folder / "checkpoints")
    check(report.step == EPOCHS, f"the newest checkpoint is of step {report.step}")
    whole = [state["model"].tree, state["optimizer"].state_dict(), state["rng"].bit_generator.state, state["epoch"]]
    digest = hashlib.sha256()
    add(digest, whole)
    return digest.hexdigest()


def add(digest: Any, value: Any) -> None:
    """Add a nested value to a digest: bytes of arrays, text of the rest."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, dict | list):
        for key, item in sorted(value.items()) if isinstance(value, dict) else enumerate(value):
            digest.update(f"{key}:".encode())
            add(digest, item)
    else:
        digest.update(repr(value).encode())


def check(holds: bool, otherwise: str) -> None:
    """End the demo with an error unless this holds."""
    if not holds:
        raise SystemExit(f"FAILED: {otherwise}")


def tell(what: str, result: str) -> None:
    """Print one line of the story."""
    print(f"{what:<10} {result}", flush=True)


if __name__ == "__main__":
    main()
