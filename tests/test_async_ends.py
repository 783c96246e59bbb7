"""How programs end beside an asynchronous save: by `atexit`, exceptions and signals in each phase of it, and with children."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import holdfast

SIZE = 300_000

HEAD = """
import atexit, gc, multiprocessing, os, signal, sys, threading, time
import numpy as np
import holdfast

run, *options = sys.argv[1:]
state = {"w": np.zeros(300_000), "n": -1}

def at(step):
    state["w"][...] = step
    state["n"] = step
    return state
"""

PHASES = {"copied": "list", "begun": "make_folder", "made": "create", "writing": "write_at", "synced": "sync"} | {
    "committing": "rename", "committed": "sync_folder", "rotating": "remove",
}  # fmt: skip

SLOW = """
class Slow(holdfast.LocalStore):
    '''Tells of a phase as it is reached, and takes its time there.'''
    def __init__(self, phase):
        self._phase, self.armed = phase, False
    def _reach(self):
        if self.armed:
            self.armed = False
            print("reached", flush=True)
            time.sleep(0.4)
    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or name != self._phase:
            return found
        def call(*args, **options):
            self._reach()
            return found(*args, **options)
        return call
    def create(self, path, size, *, direct=False):
        writer = super().create(path, size, direct=direct)
        if self._phase in ("write_at", "sync"):
            real = getattr(writer, self._phase)
            setattr(writer, self._phase, lambda *args: (self._reach(), real(*args))[1])
        return writer

store = Slow(options[0])
run = holdfast.Location(store, run)
"""


def start(program: str, run: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(program), str(run), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out.splitlines(), err


def saved(run: Path) -> dict[int, int]:
    """The steps of the checkpoints, each of which holds what it held at the call, by serial."""
    steps = {}
    for serial in holdfast.serials(run):
        state = {"w": np.zeros(SIZE), "n": -1}
        steps[serial] = holdfast.load_checkpoint(state, run, serial=serial).step
        assert (state["w"] == state["n"]).all()
        assert state["n"] == steps[serial]
    return steps  # type: ignore[return-value]


def hidden(run: Path) -> list[str]:
    return [name for name in os.listdir(run) if name.startswith(".")]


# The end of the interpreter


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("wait=False", ""),
        ("wait=False", "manager.close()"),
        ("wait=False", "handle.result(30)"),
        ("wait=False", "manager.restore(state)"),
        ("wait=False, snapshot='stream'", ""),
        ("wait=True", ""),
    ],
)
def test_save_of_an_atexit_function_is_not_lost(call: str, after: str, tmp_path: Path) -> None:
    """Nobody waits for threads that begin so late."""
    program = f"""
    manager = holdfast.CheckpointManager(run)
    manager.save(at(1), 1, wait=False)
    at(2)
    def last():
        handle = manager.save(state, 2, {call})
        {after or "at(-1)"}
    atexit.register(last)
    """
    code, _, err = finish(start(program, tmp_path))

    if "can't create new thread at interpreter shutdown" in err:  # Python 3.12 and later: it says so
        assert saved(tmp_path) == {0: 1}
    else:
        assert (code, err) == (0, "")
        assert saved(tmp_path) == {0: 1, 1: 2}
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("threading.Thread(target=train, daemon=True)", {0: 1, 1: 2}),
        ("threading.Thread(target=train)", {0: 1, 1: 2}),
    ],
)
def test_training_thread_that_has_begun_a_save_gets_it(trainer: str, expected: dict[int, int], tmp_path: Path) -> None:
    program = f"""
    manager = holdfast.CheckpointManager(run)
    saved = threading.Event()
    def train():
        manager.save(at(1), 1, wait=False)
        manager.save(at(2), 2, wait=False)
        at(3)
        saved.set()
    {trainer}.start()
    saved.wait(30)
    """
    code, _, err = finish(start(program, tmp_path))

    assert (code, err) == (0, "")
    assert saved(tmp_path) == expected
    assert hidden(tmp_path) == []


def test_training_thread_that_outlives_the_main_thread_goes_on_saving(tmp_path: Path) -> None:
    program = """
    manager = holdfast.CheckpointManager(run)
    def train():
        threading.main_thread().join()
        for step in range(3):
            manager.save(at(step), step, wait=False)
            at(-1)
    threading.Thread(target=train).start()
    """
    code, _, err = finish(start(program, tmp_path))

    assert (code, err) == (0, "")
    assert saved(tmp_path) == {0: 0, 1: 1, 2: 2}


def test_error_of_the_last_save_is_told_although_nobody_asks(tmp_path: Path) -> None:
    program = """
    class Broken(holdfast.LocalStore):
        def rename(self, source, target):
            raise OSError(5, "Input/output error", source)
    manager = holdfast.CheckpointManager(holdfast.Location(Broken(), run))
    def last():
        manager.save(at(1), 1, wait=False)
    atexit.register(last)
    """
    _, _, err = finish(start(program, tmp_path))

    assert (
        "the save of step 1 failed: StorageError: cannot commit" in err or "new thread at interpreter shutdown" in err
    )
    assert hidden(tmp_path) == []


# Exceptions and signals in each phase


@pytest.mark.parametrize(
    ("phase", "end"),
    [(phase, "sys.exit(4)") for phase in PHASES]
    + [("committing", end) for end in ("raise KeyboardInterrupt", "1 / 0", "SystemExit in a thread")],
)
def test_end_in_any_phase_finishes_the_save(phase: str, end: str, tmp_path: Path) -> None:
    action = "threading.Thread(target=sys.exit).start()" if end.endswith("thread") else end
    program = SLOW + textwrap.dedent(f"""
    manager = holdfast.CheckpointManager(run, max_to_keep=1)
    manager.save(at(1), 1)
    store.armed = True
    manager.save(at(2), 2, wait=False)
    at(3)
    while store.armed:
        time.sleep(0.001)
    {action}
    """)
    code, _, _ = finish(start(program, tmp_path, PHASES[phase]))

    assert code == {"sys.exit(4)": 4, "raise KeyboardInterrupt": -signal.SIGINT, "1 / 0": 1}.get(end, 0)
    assert saved(tmp_path) == {1: 2}
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "phase"), [(signal.SIGKILL, "writing"), *((signal.SIGTERM, phase) for phase in PHASES)]
)
def test_death_in_any_phase_leaves_what_was_committed(number: int, phase: str, tmp_path: Path) -> None:
    program = SLOW + textwrap.dedent("""
    manager = holdfast.CheckpointManager(run, max_to_keep=2)
    manager.save(at(0), 0)
    manager.save(at(1), 1)
    store.armed = True
    manager.save(at(2), 2, wait=False)
    at(3)
    time.sleep(30)
    """)
    process = start(program, tmp_path, PHASES[phase])
    assert process.stdout is not None
    assert process.stdout.readline() == "reached\n"
    process.send_signal(number)
    code, _, _ = finish(process)

    assert code == -number
    steps = saved(tmp_path)
    assert {1}.issubset(steps), steps
    assert set(steps) <= {0, 1, 2}
    holdfast.save_checkpoint({"w": np.full(SIZE, 9.0), "n": 9}, tmp_path, step=9, max_num_checkpoints=1)
    assert list(saved(tmp_path).values()) == [9]
    assert hidden(tmp_path) == [], "what the dead one left is removed by the next"


@pytest.mark.parametrize(
    ("signals", "phase"), [(3, "writing"), (3, "rotating"), *((1, phase) for phase in [*PHASES, "between"])]
)
def test_preemption_in_any_phase_ends_with_the_newest_state_saved(phase: str, signals: int, tmp_path: Path) -> None:
    """However many signals come: the save in flight ends well, another one saves what came since, and the loop ends itself."""
    program = SLOW + textwrap.dedent("""
    manager = holdfast.CheckpointManager(run, max_to_keep=1, save_interval_steps=1000)
    manager.save_on_signal(signal.SIGTERM)
    manager.save(at(0), 0)
    store.armed = True
    handle = manager.save(at(1000), 1000, wait=False)
    if options[0] == "none":
        handle.result()
        print("reached", flush=True)
    step = 1000
    with manager:
        while True:
            step += 1
            at(step)
            stop = manager.preempted
            handle = manager.save(state, step, force=stop, wait=False)
            if stop:
                break
            time.sleep(0.001)
        at(-1)
    print(step, handle.result(), flush=True)
    """)
    process = start(program, tmp_path, PHASES.get(phase, "none"))
    assert process.stdout is not None
    assert process.stdout.readline() == "reached\n"
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)

    assert code == 0, err
    step = int(out[0].split()[0])
    ((_, newest),) = saved(tmp_path).items()
    assert newest == step
    assert newest > 1000
    assert hidden(tmp_path) == []


LOOP = """
import sys
from types import FrameType

class Preempting:
    '''SIGTERM comes at a certain line of the loop, or of what Holdfast does in this thread.'''
    def __init__(self, at):
        self.lines, self.at = 0, at
    def __call__(self, frame, event, _):
        name = frame.f_code.co_filename
        if "/holdfast/" not in name and frame.f_code.co_name != "train":
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                signal.raise_signal(signal.SIGTERM)
        return self

def train(manager):
    for step in range(1, 8):
        at(step)
        stop = manager.preempted
        manager.save(state, step, force=stop, wait=False)
        if stop:
            break

lines = int(options[0])
total = 10**9
number = lines
while number < total:
    folder = f"{run}/{number}"
    manager = holdfast.CheckpointManager(folder, save_interval_steps=1000)
    manager.save_on_signal(signal.SIGTERM)
    preempting = Preempting(number)
    sys.settrace(preempting)
    try:
        train(manager)
    finally:
        sys.settrace(None)
    manager.close()
    if preempting.lines < number:
        break
    steps = manager.all_steps()
    if state["n"] < 7:
        assert steps[-1] == state["n"], (number, state["n"], steps)
    number += int(options[1])
print(number)
"""


def test_signal_at_any_line_of_the_guides_loop_is_saved_for(tmp_path: Path) -> None:
    """Wherever it comes, the last step of the loop is saved: the loop asks first, then saves, and then ends."""
    code, out, err = finish(start(LOOP, tmp_path, "1", "7"))

    assert code == 0, err
    assert int(out[0]) > 150


# Children


@pytest.mark.parametrize(
    ("mode", "end"),
    [
        ("copy", "sys.exit(0)"),
        ("stream", "sys.exit(0)"),
        ("copy", "os._exit(0)"),
        ("stream", "del handle, manager; gc.collect(); sys.exit(0)"),
        ("copy", "1 / 0"),
    ],
)
def test_forked_child_that_ends_takes_nothing_of_the_save_with_it(mode: str, end: str, tmp_path: Path) -> None:
    program = SLOW + textwrap.dedent(f"""
    manager = holdfast.CheckpointManager(run)
    store.armed = True
    handle = manager.save(at(1), 1, wait=False, snapshot={mode!r})
    at(2)
    while store.armed:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        {end}
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), handle.result(30))
    """)
    code, out, err = finish(start(program, tmp_path, "rename"))

    assert code == 0, err
    assert out[-1] == f"{int(end == '1 / 0')} 0"
    assert saved(tmp_path) == {0: 1}
    assert hidden(tmp_path) == []


def test_child_that_is_forked_in_a_callback_and_ends_there_does_not_discard_the_save(tmp_path: Path) -> None:
    program = """
    children = []
    def progress(_):
        if not children:
            children.append(os.fork())
            if children == [0]:
                sys.exit(6)  # through all that the save would do for an error
            print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
    print(holdfast.save_checkpoint(at(1), run, step=1, progress=progress))
    """
    code, out, err = finish(start(program, tmp_path))

    assert code == 0, err
    assert out == ["6", "0"]
    assert saved(tmp_path) == {0: 1}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_start_and_end_beside_saves_harm_none(method: str, tmp_path: Path) -> None:
    """As a data loader's do; a pool of them is also made and joined while a save is in flight."""
    if method == "spawn":
        (tmp_path / "worker.py").write_text("def work(n):\n    return n * n\n")
    program = f"""
    sys.path.insert(0, {str(tmp_path)!r})
    if {method!r} == "spawn":
        from worker import work
    else:
        def work(n):
            return n * n
    context = multiprocessing.get_context({method!r})
    manager = holdfast.CheckpointManager(run + "/run", max_to_keep=None)
    manager.save_on_signal(signal.SIGTERM)
    for step in range({6 if method == "fork" else 2}):
        handle = manager.save(at(step), step, wait=False)
        at(-1)
        with context.Pool(2) as pool:  # ends its workers by SIGTERM
            assert pool.map(work, range(10)) == [n * n for n in range(10)]
        assert handle.result(30) == step
    manager.close()
    print(manager.preempted)
    """
    code, out, err = finish(start(program, tmp_path))

    assert code == 0, err
    assert out == ["False"]
    count = 6 if method == "fork" else 2
    assert saved(tmp_path / "run") == {step: step for step in range(count)}


def test_program_that_hangs_in_its_storage_can_be_asked_why(tmp_path: Path) -> None:
    program = """
    class Hanging(holdfast.LocalStore):
        def sync_folder(self, path):
            if "attempt" in path:
                time.sleep(1000)
            super().sync_folder(path)
    manager = holdfast.CheckpointManager(holdfast.Location(Hanging(), run))
    manager.save_on_signal(signal.SIGTERM)
    manager.save(at(1), 1, wait=False)
    try:
        manager.close(0.3)
    except TimeoutError as error:
        print(error, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # closed: it ends the program again, whatever hangs
    """
    code, out, _ = finish(start(program, tmp_path))

    assert code == -signal.SIGTERM
    assert re.fullmatch(
        rf"the save of step 1 is not done after 0\.3 s; it goes on: syncing {tmp_path}/\.attempt-0-\w+ for 0\.\d s",
        out[0],
    )
