"""A run as a whole: list, verify, pin, prune, clean, export; readers change nothing, writers only their own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignFolderError,
    FormatError,
    MemoryStore,
    StorageError,
    parameters,
)
from holdfast.format import manifest as manifests, safetensors
from holdfast.format.digests import file_digest, hexdigest
from support import WrappedStore, flip_bit, read_file, tree_of, write_file

STATE = {
    "model": parameters({"w": np.arange(6.0), "f": parameters([np.ones(2)], trainable=False)}),
    "m": np.zeros(3),
    "n": 1,
}
ID = "0123456789abcdef"


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Serials 0, 1 and 2, steps 0, 10 and 20."""
    for n in range(3):
        holdfast.save_checkpoint(STATE, tmp_path / "run", step=10 * n, metrics={"loss": 1.0 / (n + 1)})
    return tmp_path / "run"


# Listing


def add_foreign(run: Path) -> list[str]:
    """Everything that looks a little like a checkpoint and is none."""
    for name in (
        "checkpoint_9",
        "checkpoint_07",
        "checkpoint_1x",
        "checkpoint_-1",
        "checkpoint_",
        "Checkpoint_8",
        "7",
        f".attempt-30-{ID}",
    ):
        (run / name).mkdir()
    shutil.copytree(run / "checkpoint_2", run / "backup_7")
    shutil.copytree(run / "checkpoint_2", run / "checkpoint_08")
    shutil.copytree(run / "checkpoint_2", run / f".trash-40-{ID}")
    shutil.copytree(run / "checkpoint_2", run / f".previous-41-{ID}")
    (run / "checkpoint_11").write_text("a file")
    (run / "checkpoint_12").symlink_to("checkpoint_2")
    (run / "checkpoint_13").symlink_to("nowhere")
    os.mkfifo(run / "checkpoint_14")
    (run / "notes.txt").write_text("mine")
    return names(run)


def test_foreign_names_are_never_listed(run: Path) -> None:
    add_foreign(run)

    assert holdfast.serials(run) == [0, 1, 2]
    assert holdfast.latest_serial(run) == 2
    assert holdfast.load_checkpoint(STATE, run).serial == 2


def test_foreign_things_survive_saves_prunes_and_cleaning(run: Path) -> None:
    before = [
        name
        for name in add_foreign(run)
        if not name.startswith((".attempt-", ".trash-"))
        and name not in ("checkpoint_0", "checkpoint_1", "checkpoint_2")
    ]

    serial = holdfast.save_checkpoint(STATE, run, max_num_checkpoints=1)
    assert serial == 42  # above every name that is there, hidden ones too
    assert names(run) == sorted([*before, "checkpoint_42"])
    holdfast.prune(run, keep=1)
    holdfast.clean_checkpoint(run, delete_dir=True)

    assert names(run) == sorted(before)


def test_listing_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    assert holdfast.serials(tmp_path / "a" / "b") == []
    assert holdfast.latest_serial(tmp_path / "a") is None
    assert holdfast.clean_checkpoint(tmp_path / "a") == []
    assert holdfast.prune(tmp_path / "a", keep=1) == []
    assert names(tmp_path) == []


READERS: dict[str, Callable[[Path], Any]] = {
    "serials": holdfast.serials,
    "latest_serial": holdfast.latest_serial,
    "load_checkpoint": lambda run: holdfast.load_checkpoint(STATE, run),
    "load_params": lambda run: holdfast.load_params({"model": STATE["model"]}, run),
    "open": lambda run: holdfast.open(run).read(),
    "verify": holdfast.verify,
    "restore": lambda run: holdfast.CheckpointManager(run).restore(STATE),
    "steps": lambda run: holdfast.CheckpointManager(run).all_steps(),
    "latest_step": lambda run: holdfast.CheckpointManager(run).latest_step(),
}


@pytest.mark.parametrize("read", READERS)
def test_readers_change_nothing(run: Path, read: str) -> None:
    add_foreign(run)
    for path in [run, *run.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree_of(run)
    try:
        READERS[read](run)

        assert tree_of(run) == before
    finally:
        for path in [run, *run.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


@pytest.mark.parametrize("read", READERS)
def test_readers_ask_for_no_change(run: Path, read: str) -> None:
    store = WrappedStore()

    READERS[read](store.at(run))  # type: ignore[arg-type]

    assert {name for name, _ in store.calls} <= {"list", "stat", "open"}


@pytest.mark.parametrize(
    "call",
    [holdfast.serials, holdfast.latest_serial, holdfast.verify, lambda run: holdfast.load_checkpoint(STATE, run)],
)
def test_folder_that_cannot_be_listed_is_an_error_and_not_empty(run: Path, call: Callable[[Any], Any]) -> None:
    def refusing(path: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with pytest.raises(StorageError, match="Permission denied") as caught:
        call(WrappedStore(list=refusing).at(run))

    assert caught.value.errno == errno.EACCES


# Two processes

SAVER = """
import sys, numpy as np, holdfast
sys.stdin.readline()
for i in range(10):
    print(holdfast.save_checkpoint({"w": np.full(1000, int(sys.argv[2]))}, sys.argv[1], max_num_checkpoints=None), flush=True)
"""


def test_two_processes_that_save_at_once_get_serials_of_their_own(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, tmp_path, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in (1, 2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    got = [[int(line) for line in process.communicate()[0].split()] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(got[0]) | set(got[1])) == 20
    assert holdfast.serials(tmp_path) == sorted(got[0] + got[1])
    assert all(serials == sorted(serials) for serials in got)
    for number, serials in enumerate(got, 1):
        for serial in serials:
            with holdfast.open(tmp_path, serial=serial) as checkpoint:
                assert (checkpoint["w"][:] == number).all()
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_two_processes_that_rotate_at_once_delete_nothing_that_must_stay(tmp_path: Path) -> None:
    program = SAVER.replace("max_num_checkpoints=None", "max_num_checkpoints=2")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in (1, 2)
    ]
    for process in processes:
        process.communicate("go\n")

    assert [process.returncode for process in processes] == [0, 0]
    left = holdfast.serials(tmp_path)
    assert len(left) >= 2
    assert names(tmp_path) == sorted(f"checkpoint_{serial}" for serial in left)
    assert all(holdfast.verify(tmp_path, serial=serial) for serial in left)


# verify


def test_verify_reports_what_was_checked(run: Path) -> None:
    seen: list[holdfast.Progress] = []

    report = holdfast.verify(run, progress=seen.append)

    folder = run / "checkpoint_2"
    size = sum(p.stat().st_size for p in folder.iterdir() if p.name != "manifest.json")
    assert report == holdfast.VerifyReport(str(folder), 2, 5, 3, size)
    assert seen[-1].done_bytes == 48 + 16 + 24
    assert holdfast.verify(run, serial=0).serial == 0
    assert holdfast.verify(folder).serial == 2


def test_verify_finds_every_flipped_bit(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.arange(3, dtype=np.uint8), "n": 1}, tmp_path)
    folder = tmp_path / "checkpoint_0"
    for path in folder.iterdir():
        original = path.read_bytes()
        for at in [*range(0, len(original), 97), *range(-5, 0)]:
            flip_bit(path, at)
            with pytest.raises((CorruptCheckpointError, FormatError)):
                holdfast.verify(folder)
            path.write_bytes(original)
    holdfast.verify(folder)


def test_verify_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        holdfast.verify(tmp_path / "none")


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Replace the manifest by one that says something else, with every digest right."""
    raw = manifests.from_bytes((folder / "manifest.json").read_bytes(), "f")
    fields = {name: getattr(raw, name) for name in manifests.Manifest.__struct_fields__}
    change(fields)
    (folder / "manifest.json").write_bytes(manifests.to_bytes(manifests.Manifest(**fields)))


def test_verify_compares_the_digest_of_a_file_with_its_blocks(tmp_path: Path) -> None:
    import msgspec

    holdfast.save_params({"w": np.ones(3)}, tmp_path / "m")
    rewritten(tmp_path / "m", lambda f: f.update(files=(msgspec.structs.replace(f["files"][0], digest="0" * 32),)))

    with pytest.raises(FormatError, match="the manifest's digest of the file is not that of its blocks"):
        holdfast.verify(tmp_path / "m")


def crafted_header(folder: Path, header: bytes) -> None:
    """Another header in the data file, with every digest right."""
    import msgspec

    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(header + data[size:])

    def change(fields: dict[str, Any]) -> None:
        blocks = [b for v in fields["variables"] for c in v.chunks for b in c.blocks]
        digest = hexdigest(header)
        fields["files"] = (
            msgspec.structs.replace(fields["files"][0], header_digest=digest, digest=file_digest(digest, blocks)),
        )

    rewritten(folder, change)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (safetensors.build_header([("v", "F64", (3,), 24)]), "header and manifest disagree on 'v', 'w'"),
        (safetensors.build_header([("w", "I64", (3,), 24)]), "disagree on 'w'"),
        (safetensors.build_header([("w", "F64", (3, 1), 24)]), "disagree on 'w'"),
        ((4080).to_bytes(8, "little") + safetensors.build_header([("w", "F64", (3,), 24)])[8:], "another length"),
    ],
)
def test_verify_compares_the_header_with_the_manifest(header: bytes, words: str, tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(3)}, tmp_path / "m")
    crafted_header(tmp_path / "m", header)

    with pytest.raises(FormatError, match=words):
        holdfast.verify(tmp_path / "m")


# pin, unpin, prune, clean


def test_pinned_checkpoints_survive_rotation_until_they_are_unpinned(run: Path) -> None:
    holdfast.pin(run, 0)
    holdfast.pin(run, 0)
    holdfast.save_checkpoint(STATE, run, max_num_checkpoints=1)
    assert holdfast.serials(run) == [0, 3]

    holdfast.unpin(run, 0)
    holdfast.unpin(run, 0)
    holdfast.save_checkpoint(STATE, run, max_num_checkpoints=1)

    assert holdfast.serials(run) == [4]


def test_pin_is_synced(run: Path) -> None:
    store = WrappedStore()

    holdfast.pin(store.at(run), 1)
    holdfast.unpin(store.at(run), 1)

    changes = [name for name, _ in store.calls if name in ("create", "sync_folder", "remove")]
    assert changes == ["create", "sync_folder", "remove", "sync_folder"]


@pytest.mark.parametrize("call", [holdfast.pin, holdfast.unpin])
def test_pin_of_what_is_no_checkpoint_is_refused(call: Callable[[Path, int], None], run: Path) -> None:
    (run / "checkpoint_9").mkdir()
    before = tree_of(run)

    with pytest.raises(CheckpointNotFoundError, match="no checkpoint_5 in .*: the complete ones are 2, 1, 0"):
        call(run, 5)
    with pytest.raises(CheckpointNotFoundError, match="no manifest.json"):
        call(run, 9)
    assert tree_of(run) == before


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"keep": 3}, []),
        ({"keep": 2}, [0]),
        ({"keep": 1}, [0, 1]),
        ({"keep": 1, "keep_period": 20}, [1]),
        ({"keep": 99}, []),
    ],
)
def test_prune_deletes_what_no_rule_keeps(options: dict[str, int], gone: list[int], run: Path) -> None:
    assert holdfast.prune(run, **options) == gone
    assert holdfast.serials(run) == [s for s in range(3) if s not in gone]
    assert holdfast.verify(run).serial == 2


def test_prune_removes_what_dead_writers_left(run: Path) -> None:
    (run / f".attempt-3-{ID}").mkdir()
    (run / f".trash-3-{ID}").mkdir()

    assert holdfast.prune(run, keep=3) == []
    assert names(run) == ["checkpoint_0", "checkpoint_1", "checkpoint_2"]


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": -1}, {"keep": 1, "keep_period": 0}])
def test_prune_refuses_to_delete_everything(options: dict[str, int], run: Path) -> None:
    with pytest.raises(ValueError, match="whole number from 1"):
        holdfast.prune(run, **options)
    assert holdfast.serials(run) == [0, 1, 2]


def test_prune_counts_complete_checkpoints_only(run: Path) -> None:
    (run / "checkpoint_2" / "manifest.json").unlink()

    assert holdfast.prune(run, keep=1) == [0]
    assert names(run) == ["checkpoint_1", "checkpoint_2"]


def test_clean_deletes_every_checkpoint_and_nothing_else(run: Path) -> None:
    holdfast.pin(run, 1)
    (run / "checkpoint_7").mkdir()
    (run / "log.txt").write_text("mine")
    (run / f".trash-3-{ID}").mkdir()

    assert holdfast.clean_checkpoint(run, delete_dir=True) == [0, 1, 2]
    assert names(run) == ["checkpoint_7", "log.txt"]


def test_clean_deletes_an_empty_folder_on_request(run: Path) -> None:
    holdfast.clean_checkpoint(run)
    assert names(run.parent) == ["run"]

    assert holdfast.clean_checkpoint(run, delete_dir=True) == []
    assert names(run.parent) == []


@pytest.mark.parametrize("call", [lambda r: holdfast.clean_checkpoint(r), lambda r: holdfast.pin(r, 0)])
def test_refused_operations_are_storage_errors(call: Callable[[Any], Any], run: Path) -> None:
    def refusing(path: str, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", path)

    with pytest.raises(StorageError, match="Read-only file system") as caught:
        call(WrappedStore(rename=refusing, create=refusing).at(run))

    assert caught.value.errno == errno.EROFS
    assert holdfast.serials(run) == [0, 1, 2]


# export


def test_export_links_the_parameters(run: Path, tmp_path: Path) -> None:
    exported = holdfast.export(run, tmp_path / "out" / "model")

    assert exported == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert names(tmp_path / "out" / "model") == ["manifest.json", *exported]
    for name in exported:
        assert (tmp_path / "out" / "model" / name).samefile(run / "checkpoint_2" / name)
    target = {"model": parameters({"w": np.zeros(6), "f": parameters([np.zeros(2)], trainable=False)})}
    holdfast.load_params(target, tmp_path / "out" / "model")
    assert target["model"].tree["w"].tolist() == list(range(6))
    assert holdfast.verify(tmp_path / "out" / "model").variables == 2
    with holdfast.open(tmp_path / "out" / "model") as checkpoint:
        assert (checkpoint.serial, checkpoint.manifest.content) == (None, "params")


def test_export_survives_the_rotation_of_its_source(run: Path, tmp_path: Path) -> None:
    holdfast.export(run, tmp_path / "model", serial=0)

    holdfast.clean_checkpoint(run)

    assert holdfast.verify(tmp_path / "model").variables == 2


def test_export_copies_where_links_are_not_possible(run: Path, tmp_path: Path) -> None:
    store = WrappedStore(link=lambda *_: False)

    holdfast.export(store.at(run), store.at(tmp_path / "model"))

    assert holdfast.verify(tmp_path / "model").variables == 2
    assert (tmp_path / "model" / "model-00001-of-00002.safetensors").stat().st_nlink == 1


def test_export_goes_between_stores(run: Path) -> None:
    where = MemoryStore().at("models/m")

    holdfast.export(run, where)

    assert holdfast.verify(where).variables == 2


def test_export_replaces_an_earlier_one_and_nothing_foreign(run: Path, tmp_path: Path) -> None:
    holdfast.export(run, tmp_path / "model", serial=0)
    holdfast.export(run, tmp_path / "model", serial=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")

    with pytest.raises(ForeignFolderError, match="holds no save of Holdfast"):
        holdfast.export(run, tmp_path / "other")
    assert names(tmp_path) == ["model", "other", "run"]


def test_export_of_nothing_is_refused(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path / "run")

    with pytest.raises(ValueError, match=r"holds no parameters: mark them by holdfast.parameters\(\)"):
        holdfast.export(tmp_path / "run", tmp_path / "model")
    with pytest.raises(CheckpointNotFoundError):
        holdfast.export(tmp_path / "none", tmp_path / "model")
    assert names(tmp_path) == ["run"]


def test_runs_work_in_a_memory_store() -> None:
    run = MemoryStore().at("runs/a")
    for _ in range(4):
        holdfast.save_checkpoint(STATE, run)
    holdfast.pin(run, 1)

    assert holdfast.prune(run, keep=1) == [2]
    assert holdfast.serials(run) == [1, 3]
    assert holdfast.verify(run).serial == 3
    write_file(run / "checkpoint_3" / "trainer_0.json", read_file(run / "checkpoint_3" / "trainer_0.json") + b" ")
    assert holdfast.latest_serial(run) == 1
    assert holdfast.clean_checkpoint(run, delete_dir=True) == [1]
