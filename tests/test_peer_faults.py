"""Faults that were seen in other checkpoint libraries, one test for each, named after its number in the list of them.

E1 silent corruption · E2 no sync, modes ignore the umask · E4 a mixture of old and new after a kill · E5 code in a checkpoint ·
E6 casts that overflow in silence · E7 foreign names taken for steps, saves skipped in silence · E13 a file for each small array

E3, E8, E9, E10 and E11 are in test_peer_faults_async.py.
"""

# ruff: noqa: N802  the names of the faults are part of the tests' names

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CastError, CorruptCheckpointError, FormatError, MismatchError
from holdfast.format import manifest as manifests, values
from holdfast.format.digests import hexdigest
from holdfast.storage import local
from support import flip_bit

# E1


@pytest.mark.parametrize("name", ["model.safetensors", "state-00001-of-00001.safetensors"])
@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_E1_one_flipped_bit_never_loads(name: str, size: int, tmp_path: Path) -> None:
    state = {"model": holdfast.parameters([np.ones(size, np.float32)]), "m": np.ones(size, np.float32)}
    holdfast.save_checkpoint(state, tmp_path)
    path = tmp_path / "checkpoint_0" / name
    header = path.stat().st_size - 4 * size
    variable = "model.0" if name.startswith("model") else "m"

    for at in (header, header + 2 * size, -1):
        flip_bit(path, at)
        for load in (
            lambda: holdfast.load_checkpoint(state, tmp_path),
            lambda: holdfast.load_checkpoint(state, tmp_path, verify="before"),
            lambda: holdfast.load_persistables(state, tmp_path),
            lambda: holdfast.verify(tmp_path),
            lambda: holdfast.open(tmp_path).read(),
            lambda at=at: holdfast.open(tmp_path)[variable][(at - header) // 4 if at > 0 else -1],
        ):
            with pytest.raises(CorruptCheckpointError) as caught:
                load()
            assert caught.value.variables == (variable,)
        flip_bit(path, at)
    assert holdfast.verify(tmp_path).serial == 0


# E2


class Recorder:
    """The module `os`, with a list of what was written, synced and renamed, by path."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, *mode: int) -> int:
        fd = os.open(path, flags, *mode)
        self._paths[fd] = str(path)
        if flags & os.O_CREAT:
            self.events.append(("create", str(path)))
        return fd

    def mkdir(self, path: str) -> None:
        os.mkdir(path)
        self.events.append(("create", path))

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        self.events.append(("write", self._paths[fd]))
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self.events.append(("write", self._paths[fd]))
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        self.events.append(("sync", self._paths[fd]))
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)
        self.events.append(("rename", f"{source}→{target}"))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records what the local store does."""
    recorder = Recorder()
    monkeypatch.setattr(local, "os", recorder)
    real = local.renameat2

    def exchange(source: str, target: str, flags: int) -> None:
        real(source, target, flags)
        recorder.events.append(("rename", f"{source}→{target}"))

    monkeypatch.setattr(local, "renameat2", exchange)
    return recorder


SAVES: dict[str, Callable[[Path], Any]] = {
    "checkpoint": lambda path: holdfast.save_checkpoint(
        {"w": np.ones(5), "p": holdfast.parameters([np.ones(2)])}, path / "run"
    ),
    "params": lambda path: holdfast.save_params({"w": np.ones(5)}, path / "model"),
    "params again": lambda path: (SAVES["params"](path), holdfast.save_params({"w": np.zeros(5)}, path / "model")),
}


@pytest.mark.parametrize("save", SAVES)
def test_E2_everything_is_synced_before_the_rename_and_the_rename_too(
    save: str, tmp_path: Path, recorder: Recorder
) -> None:
    SAVES[save](tmp_path)

    events = recorder.events
    renames = [
        i
        for i, (what, path) in enumerate(events)
        if what == "rename" and "/.attempt-" in path and "/.trash-" not in path
    ]
    assert len(renames) == (2 if save == "params again" else 1)
    for at in renames:
        source, target = events[at][1].split("→")
        before = events[:at]
        written = {path for what, path in before if what in ("create", "write") and path.startswith(f"{source}/")}
        assert f"{source}/manifest.json" in written
        for path in written:
            last = max(i for i, (what, p) in enumerate(before) if what in ("create", "write") and p == path)
            assert ("sync", path) in before[last:], path
            entry = next(i for i, (what, p) in enumerate(before) if (what, p) == ("create", path))
            assert ("sync", source) in before[entry:]  # the folder that has its name
        assert ("sync", str(Path(target).parent)) in events[at:]
        manifest = max(i for i, event in enumerate(before) if event == ("create", f"{source}/manifest.json"))
        assert not [
            p for what, p in before[manifest:] if what in ("create", "write") and p != f"{source}/manifest.json"
        ]  # it comes last


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_E2_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        for save in ("checkpoint", "params"):
            SAVES[save](tmp_path)
    finally:
        os.umask(old)

    found = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {0o666 & ~umask}
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_dir()} == {0o777 & ~umask}


# E4

OVERWRITER = """
import os, signal, sys
import numpy as np
import holdfast
from holdfast.storage import local

path, moment = sys.argv[1:]
state = {f"w{i}": np.full(200_000, 2.0) for i in range(20)}

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at(share):
    return lambda progress: die() if progress.done_bytes >= share * progress.total_bytes else None

real = local.renameat2
if moment == "before":
    local.renameat2 = die
elif moment == "after":
    local.renameat2 = lambda *args: (real(*args), die())
holdfast.save_params(state, path, progress=at(float(moment)) if moment[0].isdigit() else None)
"""


@pytest.mark.parametrize("moment", ["0.01", "0.3", "0.7", "1.0", "before", "after"])
def test_E4_killed_overwrite_leaves_the_old_or_the_new_and_no_mixture(moment: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    holdfast.save_params({f"w{i}": np.full(200_000, 1.0) for i in range(20)}, path)

    done = subprocess.run([sys.executable, "-c", OVERWRITER, path, moment], check=False)

    assert done.returncode == -signal.SIGKILL
    target = {f"w{i}": np.zeros(200_000) for i in range(20)}
    holdfast.load_params(target, path)
    assert {float(v) for array in target.values() for v in np.unique(array)} == ({2.0} if moment == "after" else {1.0})
    holdfast.save_params(target, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]  # and the next save removes what the dead one left


# E5


class Bomb:
    """Pickled, this makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def crafted(folder: Path, value: Any) -> None:
    """A checkpoint, sound in every digest, whose trainer file says what it likes."""
    import msgspec

    data = values.to_bytes(
        {
            "format": "holdfast-trainer",
            "version": [1, 0],
            "trainer_id": 0,
            "trainer_args": None,
            "values": {"rng": value},
        }
    )
    (folder / "trainer_0.json").write_bytes(data)
    raw = manifests.from_bytes((folder / "manifest.json").read_bytes(), "f")
    fields = {name: getattr(raw, name) for name in manifests.Manifest.__struct_fields__}
    fields["files"] = tuple(
        msgspec.structs.replace(f, size=len(data), digest=hexdigest(data)) if f.name == "trainer_0.json" else f
        for f in raw.files
    )
    (folder / "manifest.json").write_bytes(manifests.to_bytes(manifests.Manifest(**fields)))


@pytest.mark.parametrize(
    "value",
    [
        {"$random": ["os.system", "mkdir bomb"]},
        {
            "$random": [
                "numpy.random.Generator",
                {"bit_generator": "os.mkdir", "state": {"state": 1, "inc": 1}, "has_uint32": 0, "uinteger": 0},
            ]
        },
        {"$random": ["numpy.random.RandomState", {"$tuple": ["MT19937", "__import__('os').mkdir('bomb')", 0, 0, 0.0]}]},
        {"$object": ["os.mkdir", "bomb"]},
        {"$reduce": ["posix.mkdir", ["bomb"]]},
        {"py/object": "os.mkdir"},
    ],
)
def test_E5_crafted_values_are_errors_and_run_nothing(
    value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    holdfast.save_checkpoint({"w": np.ones(1), "rng": np.random.default_rng(0)}, tmp_path / "run")
    crafted(tmp_path / "run" / "checkpoint_0", value)
    target = {"w": np.zeros(1), "rng": np.random.default_rng(0)}

    with pytest.raises((FormatError, MismatchError)):
        holdfast.load_checkpoint(target, tmp_path / "run")

    assert target["w"].tolist() == [0]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


AUDITED = """
import sys
import numpy as np
import holdfast
import holdfast.interop.recognise  # as below: importing executes, whatever is loaded

bad = []
FORBIDDEN = ("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "os.mkdir")
FORBIDDEN += ("pickle.find_class", "marshal.loads")
folders = sys.argv[1:]
state = {"w": np.zeros(1)}
holdfast.load_checkpoint(state, folders[0])  # whatever is imported late, is imported now
armed = True
sys.addaudithook(lambda event, args: bad.append(event) if armed and event in FORBIDDEN else None)
for folder in folders:
    for call in (lambda: holdfast.load_checkpoint(state, folder), lambda: holdfast.load_params(state, folder),
                 lambda: holdfast.verify(folder), lambda: holdfast.open(folder).read()):
        try:
            call()
        except holdfast.HoldfastError:
            pass
armed = False
print(bad)
"""


def test_E5_pickles_in_a_checkpoint_are_never_loaded(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(str(tmp_path / "bomb")))
    folders = []
    for number, name in enumerate(
        ["", ".metadata", "manifest.json", "trainer_0.json", "state-00001-of-00001.safetensors"]
    ):
        holdfast.save_checkpoint({"w": np.ones(1)}, tmp_path / str(number))
        folders.append(tmp_path / str(number))
        if name:
            (tmp_path / str(number) / "checkpoint_0" / name).write_bytes(bomb)
    (tmp_path / "x.safetensors").write_bytes(bomb)
    folders.append(tmp_path / "x.safetensors")

    done = subprocess.run([sys.executable, "-c", AUDITED, *folders], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not (tmp_path / "bomb").exists()
    with pytest.raises(TypeError):  # the test would see one that goes off
        pickle.loads(pickle.dumps(Bomb(3)))  # type: ignore[arg-type]


# E6


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (np.array([1e10], np.float32), np.float16),
        (np.array([300.0], np.float32), np.int8),
        (np.array([-1], np.int64), np.uint8),
        (np.array([2**53 + 1], np.int64), np.float64),
        (np.array([0.5]), np.int32),
    ],
)
def test_E6_no_cast_overflows_or_wraps_in_silence(held: np.ndarray, wanted: Any, tmp_path: Path) -> None:
    holdfast.save_checkpoint({"x": held}, tmp_path)
    target = {"x": np.full(1, 7, wanted)}

    for cast in ("forbid", "widen"):
        with pytest.raises(MismatchError, match="'x'"):
            holdfast.load_checkpoint(target, tmp_path, cast=cast)  # type: ignore[arg-type]
    if np.dtype(wanted) != np.float64:  # what `allow` allows is rounding
        with pytest.raises(CastError, match="'x'"):
            holdfast.load_checkpoint(target, tmp_path, cast="allow")

    assert target["x"].tolist() == [7]


# E7


def test_E7_a_folder_that_somebody_makes_is_no_step(tmp_path: Path) -> None:
    manager = holdfast.CheckpointManager(tmp_path)
    manager.save({"w": np.ones(1)}, 5)

    for name in ("9", "checkpoint_9", "checkpoint_07", "step_12"):
        (tmp_path / name).mkdir()

    assert (manager.latest_step(), manager.all_steps(), manager.serials()) == (5, [5], [0])
    assert holdfast.latest_serial(tmp_path) == 0
    assert manager.restore({"w": np.zeros(1)}).step == 5


def test_E7_saving_a_step_again_saves_it(tmp_path: Path) -> None:
    manager = holdfast.CheckpointManager(tmp_path)
    manager.save({"w": np.ones(1)}, 5)

    handle = manager.save({"w": np.full(1, 2.0)}, 5)

    assert handle.committed()
    target = {"w": np.zeros(1)}
    assert manager.restore(target, step=5).serial == handle.serial == 1
    assert target["w"].tolist() == [2]


def test_E7_a_save_that_is_left_out_says_why(tmp_path: Path) -> None:
    handle = holdfast.CheckpointManager(tmp_path, save_interval_steps=10).save({"w": np.ones(1)}, 5)

    assert not handle.committed()
    assert handle.reason


# E13


def test_E13_a_thousand_small_arrays_take_a_handful_of_files_and_syncs(tmp_path: Path, recorder: Recorder) -> None:
    few, many = {"w0": np.ones(65)}, {f"w{i}": np.full(65, float(i)) for i in range(1000)}
    counts = []
    for number, state in enumerate((few, many)):
        recorder.events.clear()
        holdfast.save_checkpoint(state, tmp_path / str(number))
        counts.append(
            {kind: sum(what == kind for what, _ in recorder.events) for kind in ("create", "write", "sync", "rename")}
        )

    assert counts[0] == counts[1]
    above = len(tmp_path.parts)  # the first save of a run syncs the folders above it too
    assert counts[1]["sync"] <= 8 + above
    assert len(list((tmp_path / "1" / "checkpoint_0").iterdir())) == 3
    target = {name: np.zeros(65) for name in many}
    holdfast.load_checkpoint(target, tmp_path / "1")
    assert all((target[name] == many[name]).all() for name in many)


def test_E13_a_thousand_small_arrays_are_read_in_a_handful_of_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {f"w{i}": np.full(64, float(i)) for i in range(1000)}
    holdfast.save_checkpoint(state, tmp_path)
    reads: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def preadv(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
            reads.append(len(buffers))
            return os.preadv(fd, buffers, offset, *flags)

    monkeypatch.setattr(local, "os", Counting())
    target = {name: np.zeros(64) for name in state}
    holdfast.load_checkpoint(target, tmp_path)

    assert len(reads) <= 10
    assert all((target[name] == state[name]).all() for name in state)
