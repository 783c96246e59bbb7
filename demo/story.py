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

import numpy as np

import holdfast
from digits import EPOCHS, digits, predict

SCRIPT = Path(__file__).with_name("digits.py")
# One thread for the matrix products: their sums are then added up in the same order in every process.
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}


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
        tell("Compared", "every loss, parameter, moment and random state of the two runs: equal, bit for bit")
        tell("", f"SHA-256 of all of it: {found[:32]}…")

        _, _, images, labels = digits()
        right = int(np.sum(predict(stormy, images) == labels[:, 0]))
        check(right >= 0.97 * len(labels), f"only {right} of {len(labels)} predictions are right")
        tell("Predicted", f"by the saved inference model: {right} of {len(labels)} unseen digits right")


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
                if any(folder.glob("checkpoints/checkpoint_5")) and half_written(folder):  # from the seventh epoch on
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
    digest = hashlib.sha256()
    with holdfast.open(folder / "checkpoints") as checkpoint:
        arguments = checkpoint.trainer_args
        check(arguments["epoch_id"] == EPOCHS - 1, f"the newest checkpoint is of epoch {arguments['epoch_id']}")
        digest.update(repr(arguments).encode())
        for name, variable in sorted(checkpoint.variables.items()):
            digest.update(f"{name} {variable.dtype} {variable.shape}".encode() + checkpoint[name][...].tobytes())
    return digest.hexdigest()


def check(holds: bool, otherwise: str) -> None:
    """End the demo with an error unless this holds."""
    if not holds:
        raise SystemExit(f"FAILED: {otherwise}")


def tell(what: str, result: str) -> None:
    """Print one line of the story."""
    print(f"{what:<10} {result}", flush=True)


if __name__ == "__main__":
    main()
