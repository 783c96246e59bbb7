"""Links under attack: the older checkpoint goes away, is edited, or cannot be linked to; the new one is whole all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from disks import AS_NOBODY, ext4, mounted, public_folder
from holdfast import CheckpointManager, CheckpointNotFoundError, CorruptCheckpointError, LocalStore, RestoreError
from holdfast.engine import plan
from support import contents


@pytest.fixture(autouse=True)
def small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for each variable."""
    monkeypatch.setattr(plan, "UNCUT_BYTES", 0)
    monkeypatch.setattr(plan, "MIN_CUT_BYTES", 1 << 10)


def layers(count: int = 10) -> dict[str, np.ndarray]:
    return {f"w{i}": np.full(1000, i + 0.5) for i in range(count)}


def files(folder: Path) -> dict[str, os.stat_result]:
    return {path.name: path.stat() for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}


def shared(a: Path, b: Path) -> int:
    return len({info.st_ino for info in files(a).values()} & {info.st_ino for info in files(b).values()})


def holds(run: Path, serial: int, state: dict[str, np.ndarray]) -> bool:
    target = {name: np.zeros_like(array) for name, array in state.items()}
    holdfast.load_checkpoint(target, run, serial=serial)
    return bool(contents(target) == contents(state))


class Meddled(LocalStore):
    """A local file system on which something happens before the n-th call of an operation."""

    def __init__(self, operation: str, number: int, meddle: Callable[[], Any]) -> None:
        self._operation, self._left, self._meddle = operation, number, meddle
        self.happened = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name != self._operation:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._meddle()
                self.happened = True
            return found(*args, **options)

        return call


def retired_by_another(run: Path) -> None:
    """As the rotation of another manager does it: renamed at first, its files deleted a moment later."""
    os.rename(run / "checkpoint_0", run / ".trash-0-0123456789abcdef")


MEDDLINGS: dict[str, Callable[[Path], Any]] = {
    "rm -rf": lambda run: shutil.rmtree(run / "checkpoint_0"),
    "rotation": retired_by_another,
    "clean": lambda run: holdfast.clean_checkpoint(run),
    "manifest first": lambda run: (run / "checkpoint_0" / "manifest.json").unlink(),
    "one file": lambda run: next((run / "checkpoint_0").glob("*00007*.safetensors")).unlink(),
    "all files but the manifest": lambda run: [p.unlink() for p in (run / "checkpoint_0").glob("*.safetensors")],
    "cut short": lambda run: os.truncate(run / "checkpoint_0" / "state-00003-of-00010.safetensors", 50),
    "edited": lambda run: edit(run / "checkpoint_0" / "state-00003-of-00010.safetensors"),
    "a folder instead of a file": lambda run: (
        (run / "checkpoint_0" / "state-00003-of-00010.safetensors").unlink(),
        (run / "checkpoint_0" / "state-00003-of-00010.safetensors").mkdir(),
    ),
    "a link instead of a file": lambda run: (
        (run / "checkpoint_0" / "state-00003-of-00010.safetensors").unlink(),
        (run / "checkpoint_0" / "state-00003-of-00010.safetensors").symlink_to("/etc/hostname"),
    ),
}


MOMENTS = [("list", 2), ("list", 4), ("open", 2), ("make_folder", 1), ("link", 1), ("link", 5), ("rename", 1)]
IN_PLACE = ("cut short", "edited")  # once a file is linked, that is done to both


@pytest.mark.parametrize(
    ("moment", "how", "wait"),
    [
        (moment, how, how != "rm -rf")
        for moment in MOMENTS
        for how in MEDDLINGS
        if how not in IN_PLACE or moment not in (("link", 5), ("rename", 1))
    ],
)
def test_older_checkpoint_that_goes_away_in_the_middle_costs_nothing_but_time(
    moment: tuple[str, int], how: str, wait: bool, tmp_path: Path
) -> None:
    state = layers()
    holdfast.save_checkpoint(state, tmp_path)
    state["w4"] += 1
    time.sleep(0.01)  # an edit in the same tick of the clock as the commit cannot be told from that
    store = Meddled(*moment, lambda: MEDDLINGS[how](tmp_path))

    CheckpointManager(store.at(tmp_path), max_to_keep=None).save(state, 1, wait=wait).result(60)

    assert store.happened or moment[0] == "open"
    newest = holdfast.latest_serial(tmp_path)
    assert newest is not None
    assert holds(tmp_path, newest, state)
    assert holdfast.verify(tmp_path, serial=newest)
    assert all(path.is_file() and not path.is_symlink() for path in (tmp_path / f"checkpoint_{newest}").iterdir())


SAVER = """
import sys
import numpy as np
import holdfast
from holdfast.engine import plan

plan.UNCUT_BYTES, plan.MIN_CUT_BYTES = 0, 1 << 10
run, first, wait = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
frozen = {f"w{i}": np.full(1000, i + 0.5) for i in range(10)}
with holdfast.CheckpointManager(run, max_to_keep=1) as manager:
    for step in range(first, first + 40):
        manager.save({"frozen": frozen, "live": np.full(1000, step)}, step, wait=wait)
"""


def test_two_processes_that_rotate_what_the_other_links_to(tmp_path: Path) -> None:
    """Each deletes the other's checkpoints, whose files its own next one shares; what there is, is whole at every moment."""
    savers = [
        subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path), str(first), str(first == 0)])
        for first in (0, 1000)
    ]
    seen, messages = 0, []
    while any(saver.poll() is None for saver in savers):
        try:
            report = holdfast.verify(tmp_path)
        except CheckpointNotFoundError:
            continue
        except holdfast.StorageError as error:
            messages.append(str(error))  # it was rotated out while it was being read
            continue
        seen += report.serial is not None
    assert [saver.wait() for saver in savers] == [0, 0]

    assert seen > 3
    assert all("was the checkpoint deleted meanwhile?" in message for message in messages)
    (last,) = holdfast.serials(tmp_path)
    assert holdfast.verify(tmp_path).serial == last > 70
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


# What cannot be linked, for real


def test_link_over_the_border_of_a_file_system_is_a_write(tmp_path: Path) -> None:
    """EXDEV: somebody has mounted the older checkpoint from elsewhere."""
    state = layers()
    run = tmp_path / "run"
    holdfast.save_checkpoint(state, run)
    shutil.copytree(run / "checkpoint_0", tmp_path / "elsewhere", copy_function=shutil.copy2)
    with mounted(run / "checkpoint_0", "--bind", tmp_path / "elsewhere"):
        holdfast.save_checkpoint(state, run, max_num_checkpoints=None)

        assert shared(run / "checkpoint_0", run / "checkpoint_1") == 0
        assert holds(run, 1, state)
    holdfast.save_checkpoint(state, run)
    assert shared(run / "checkpoint_1", run / "checkpoint_2") == 10


def test_file_that_takes_no_more_links_is_written_again(tmp_path: Path) -> None:
    """EMLINK: ext4 gives a file 65,000 names."""
    state = layers(3)
    with ext4(tmp_path / "disk", 64) as disk:
        run = disk / "run"
        holdfast.save_checkpoint(state, run)
        (disk / "links").mkdir()
        file = run / "checkpoint_0" / "state-00002-of-00003.safetensors"
        try:
            for number in range(70_000):
                os.link(file, disk / "links" / str(number))
        except OSError:
            pass
        else:
            pytest.skip("this file system has no such limit")

        holdfast.save_checkpoint(state, run)

        assert shared(run / "checkpoint_0", run / "checkpoint_1") == 2
        assert holds(run, 1, state)
        holdfast.save_checkpoint(state, run)
        assert shared(run / "checkpoint_1", run / "checkpoint_2") == 3


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    marked: list[Path] = []

    def mark(path: Path) -> None:
        try:
            done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no chattr here")
        if done.returncode:
            pytest.skip(done.stderr)
        marked.append(path)

    yield mark
    for path in marked:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def test_file_that_nobody_may_change_is_written_again(tmp_path: Path, immutable: Callable[[Path], None]) -> None:
    """EPERM, and its checkpoint cannot be deleted either: that is a warning."""
    state = layers(3)
    holdfast.save_checkpoint(state, tmp_path)
    immutable(tmp_path / "checkpoint_0" / "state-00002-of-00003.safetensors")

    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path, max_num_checkpoints=None)

    assert shared(tmp_path / "checkpoint_0", tmp_path / "checkpoint_1") == 2
    assert shared(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2") == 3
    assert holds(tmp_path, 2, state)


OTHER_USER = f"""
import os, sys
import numpy as np
import holdfast
from holdfast.engine import plan

plan.UNCUT_BYTES, plan.MIN_CUT_BYTES = 0, 1 << 10
state = {{f"w{{i}}": np.full(1000, i + 0.5) for i in range(10)}}
holdfast.save_checkpoint(state, sys.argv[1] + "/warm")
{AS_NOBODY}
print(holdfast.save_checkpoint(state, sys.argv[1] + "/run", max_num_checkpoints=1))
"""


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755])
def test_checkpoint_of_another_user_is_no_reason_to_fail(mode: int) -> None:
    """Its files cannot be read, or must not be linked (protected_hardlinks), and it cannot be deleted."""
    with public_folder() as folder:
        run = folder / "run"
        state = layers()
        holdfast.save_checkpoint(state, run)
        os.chown(run, 65534, 65534)
        (run / "checkpoint_0").chmod(mode)

        done = subprocess.run(
            [sys.executable, "-c", OTHER_USER, str(folder)], capture_output=True, text=True, timeout=60, check=False
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout == "1\n"
        assert holds(run, 1, state)


# Somebody edits an old checkpoint by hand


def edit(path: Path) -> None:
    """One byte, in place: the inode is that of the newer checkpoints too."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def test_edit_in_place_is_noticed_in_all_that_share_the_file_and_the_next_save_heals(tmp_path: Path) -> None:
    state = layers()
    manager = CheckpointManager(tmp_path)
    for step in range(2):
        manager.save(state, step)
    edit(tmp_path / "checkpoint_0" / "state-00004-of-00010.safetensors")

    for serial in (0, 1):
        with pytest.raises(
            CorruptCheckpointError, match=rf"checkpoint_{serial}/state-00004-of-00010.safetensors"
        ) as caught:
            holdfast.verify(tmp_path, serial=serial)
        assert caught.value.variables == ("w3",)
        with pytest.raises(CorruptCheckpointError, match="w3"):
            holds(tmp_path, serial, state)
        with holdfast.open(tmp_path, serial=serial) as checkpoint:
            assert (checkpoint["w4"][...] == state["w4"]).all(), "the other files are sound"
    target = {name: np.zeros_like(array) for name, array in state.items()}
    with pytest.raises(RestoreError, match="none of the 2 checkpoints"):
        manager.restore(target)

    for fresh in (manager, CheckpointManager(tmp_path)):
        fresh.save(state, 2, wait=False).result(60)
        newest = fresh.latest_serial()
        assert newest is not None
        assert holds(tmp_path, newest, state)


def test_new_process_after_an_edit_links_the_other_files(tmp_path: Path) -> None:
    state = layers()
    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path)
    edit(tmp_path / "checkpoint_0" / "state-00004-of-00010.safetensors")

    holdfast.save_checkpoint(state, tmp_path)

    assert shared(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2") == 9
    assert holds(tmp_path, 2, state)


def test_file_that_is_replaced_in_an_old_checkpoint_harms_only_that(tmp_path: Path) -> None:
    state = layers()
    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path)
    path = tmp_path / "checkpoint_0" / "state-00004-of-00010.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)

    with pytest.raises(CorruptCheckpointError):
        holdfast.verify(tmp_path, serial=0)
    assert holds(tmp_path, 1, state)
    holdfast.save_checkpoint(state, tmp_path)
    assert shared(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2") == 10


def test_truncated_shared_file_makes_both_incomplete_and_the_next_save_heals(tmp_path: Path) -> None:
    state = layers()
    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path)
    os.truncate(tmp_path / "checkpoint_0" / "state-00004-of-00010.safetensors", 100)

    assert holdfast.serials(tmp_path) == []
    with pytest.raises(CheckpointNotFoundError, match="has 100 bytes instead of"):
        holdfast.verify(tmp_path, serial=1)
    assert holdfast.save_checkpoint(state, tmp_path) == 2
    assert holds(tmp_path, 2, state)


def test_attempt_that_fails_after_its_links_leaves_the_older_checkpoint_its_files(tmp_path: Path) -> None:
    state = layers()
    holdfast.save_checkpoint(state, tmp_path)
    before = {
        name: (info.st_ino, info.st_nlink, info.st_mtime_ns) for name, info in files(tmp_path / "checkpoint_0").items()
    }
    state["w9"] += 1

    class Failing(LocalStore):
        def create(self, path: str, size: int, *, direct: bool = False) -> Any:
            raise OSError(28, "No space left on device", path)

    with pytest.raises(holdfast.DiskFullError):
        holdfast.save_checkpoint(state, Failing().at(tmp_path))

    after = {
        name: (info.st_ino, info.st_nlink, info.st_mtime_ns) for name, info in files(tmp_path / "checkpoint_0").items()
    }
    assert after == before
    assert os.listdir(tmp_path) == ["checkpoint_0"]


# What counts as unchanged


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.zeros(1000), -np.zeros(1000)),
        (np.full(1000, np.nan), np.full(1000, np.array(0x7FF8000000000001).view(np.float64))),
        (np.arange(1000), np.arange(1000).view(np.float64)),
        (np.arange(1000), np.arange(1000).reshape(10, 100)),
        (np.arange(1000, dtype=">i4"), np.arange(1000, dtype=">i4").view("<i4")),
    ],
)
def test_values_that_compare_equal_and_bytes_that_mean_something_else_are_written(
    old: np.ndarray, new: np.ndarray, tmp_path: Path
) -> None:
    holdfast.save_checkpoint({"x": old}, tmp_path)

    holdfast.save_checkpoint({"x": new}, tmp_path)

    assert shared(tmp_path / "checkpoint_0", tmp_path / "checkpoint_1") == 0
    with holdfast.open(tmp_path) as checkpoint:
        found = checkpoint["x"][...]
    assert (found.dtype, found.shape) == (new.dtype.newbyteorder("="), new.shape)
    assert found.tobytes() == new.astype(new.dtype.newbyteorder("=")).tobytes()


def test_same_values_in_another_layout_are_linked(tmp_path: Path) -> None:
    array = np.arange(6000.0).reshape(60, 100)
    holdfast.save_checkpoint({"x": array}, tmp_path)

    holdfast.save_checkpoint({"x": np.asfortranarray(array)}, tmp_path)
    holdfast.save_checkpoint({"x": array.astype(">f8")}, tmp_path)

    assert shared(tmp_path / "checkpoint_0", tmp_path / "checkpoint_1") == 1
    assert shared(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2") == 1


@pytest.mark.parametrize("shift", [-100_000, -1, 1, 100_000])
@pytest.mark.parametrize("which", ["manifest.json", "*.safetensors"])
def test_clock_that_was_set_meanwhile_makes_no_difference_to_what_is_saved(
    which: str, shift: int, tmp_path: Path
) -> None:
    """A data file may seem newer than its manifest then, which costs the link and nothing else."""
    state = layers()
    holdfast.save_checkpoint(state, tmp_path)
    for path in (tmp_path / "checkpoint_0").glob(which):
        info = path.stat()
        os.utime(path, (info.st_atime + shift, info.st_mtime + shift))
    state["w4"] += 1

    for _ in range(2):
        holdfast.save_checkpoint(state, tmp_path, max_num_checkpoints=2)

    assert holds(tmp_path, 1, state)
    assert holds(tmp_path, 2, state)
    assert holdfast.serials(tmp_path) == [1, 2]
    assert shared(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2") == 10 or (
        shift > 0 and which != "manifest.json"
    )


def test_rotation_beside_a_save_in_flight_and_a_reader(tmp_path: Path) -> None:
    """Somebody cleans up by `holdfast.prune` while saves are in flight and checkpoints are read."""
    stop, failures = threading.Event(), []

    def meddle() -> None:
        try:
            while not stop.is_set():
                holdfast.prune(tmp_path, keep=1)
                serial = holdfast.latest_serial(tmp_path)
                if serial is not None:
                    holdfast.verify(tmp_path)
        except CheckpointNotFoundError:
            pass  # not yet
        except BaseException as error:
            failures.append(error)

    state = layers()
    with CheckpointManager(tmp_path, max_to_keep=None) as manager:
        manager.save(state, 0)
        thread = threading.Thread(target=meddle)
        thread.start()
        for step in range(1, 40):
            state["w4"] += 1
            manager.save(state, step, wait=False)
        manager.wait_until_finished()
        stop.set()
        thread.join()

    assert failures == []
    newest = manager.latest_serial()
    assert newest == 39
    assert holds(tmp_path, newest, state)
