"""Child of test_sigkill: lives again and again, each life a process that resumes a run and saves until it is killed.

One process imports Holdfast and forks a life for each line it reads, since a hundred starts of Python would cost more
than a hundred lives. Everything is said in whole lines, written at once, so a kill cannot cut one in half.

    born <pid>                  a life has begun
    resumed <step>              it has loaded the newest checkpoint (-1: there was none)
    saving <step>               it calls save_checkpoint, or a manager's save(wait=False)
    committed <serial> <step>   the call, or the handle's result(), has returned
    dead                        the life has ended
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import numpy as np

import holdfast

ROWS = 512


def state_of(step: int) -> dict[str, object]:
    """5 MiB of which every 8 bytes tell the step and the place."""
    place = np.arange(ROWS * 1024, dtype=np.int64).reshape(ROWS, 1024)
    return {
        "model": holdfast.parameters({"w": place + step * 1_000_003, "b": np.full(100, step, np.float32)}),
        "frozen": holdfast.parameters({"e": np.arange(200_000)}, trainable=False),  # linked from save to save
        "optimizer": {"m": np.full((256, 1024), step, np.int32), "step": step},
    }


def say(line: str) -> None:
    """Write a line to standard output, all of it or nothing."""
    os.write(1, f"{line}\n".encode())


def live(folder: str, asynchronous: bool) -> NoReturn:
    """Resume, and save without end."""
    manager = holdfast.CheckpointManager(folder, max_to_keep=2)
    say(f"born {os.getpid()}")
    state = state_of(-1)
    step = -1
    if holdfast.serials(folder):
        report = holdfast.load_checkpoint(state, folder)
        step = report.trainer_args["step"]
        assert np.array_equal(state["model"].tree["w"], state_of(step)["model"].tree["w"])  # type: ignore[attr-defined]
    say(f"resumed {step}")
    while True:
        step += 1
        state = state_of(step)
        say(f"saving {step}")
        args = {"step": step}
        if asynchronous:
            handle = manager.save(state, step, trainer_args=args, wait=False)
            state["model"].tree["w"][...] = -1  # type: ignore[attr-defined]
            state["optimizer"]["m"][...] = -1  # type: ignore[index]
            serial = handle.result()
        else:
            serial = holdfast.save_checkpoint(state, folder, trainer_args=args, max_num_checkpoints=2)
        say(f"committed {serial} {step}")


def main() -> None:
    """Fork a life for every line of standard input."""
    for _ in sys.stdin:
        life = os.fork()
        if life == 0:
            try:
                live(sys.argv[1], sys.argv[2] == "asynchronous")
            finally:
                sys.stderr.flush()
                os._exit(1)
        os.waitpid(life, 0)
        say("dead")


if __name__ == "__main__":
    main()
