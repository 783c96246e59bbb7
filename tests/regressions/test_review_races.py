"""Faults of concurrent use that a review found: readers beside savers, pins beside rotation, files laid beside a save."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.engine import retention
from holdfast.errors import (
    CheckpointNotFoundError,
    ForeignFolderError,
    MismatchError,
    RestoreError,
    StorageError,
    VersionError,
)
from holdfast.storage import LocalStore
from support import WrappedStore


def two_files(value: float) -> dict[str, Any]:
    return {
        "t": holdfast.parameters({"w": np.full((300, 300), value)}),
        "f": holdfast.parameters({"w": np.full((300, 300), value)}, trainable=False),
    }


def beside(work: Callable[[], None], other: Callable[[], None], times: int) -> None:
    """Run `work` so many times while `other` runs over and over in a thread; an error of either is raised."""
    stop, errors = threading.Event(), []

    def run() -> None:
        try:
            while not stop.is_set():
                other()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(times):
            work()
    finally:
        stop.set()
        thread.join()
    assert not errors, errors


def test_load_beside_a_save_to_the_same_path_gives_the_old_or_the_new(tmp_path: Path) -> None:
    path, step = tmp_path / "model", iter(range(1, 1_000_000))
    holdfast.save_params(two_files(0), path)

    def load() -> None:
        target = two_files(-1)
        holdfast.load_params(target, path)
        values = {*target["t"].tree["w"].flat, *target["f"].tree["w"].flat}
        assert len(values) == 1, values

    beside(load, lambda: holdfast.save_params(two_files(next(step)), path), 60)


@pytest.mark.parametrize("verify", [True, False])
def test_open_checkpoint_gives_what_was_saved_after_it_is_replaced(tmp_path: Path, verify: bool) -> None:
    path = tmp_path / "model"
    holdfast.save_params(two_files(1), path)

    with holdfast.open(path, verify=verify) as checkpoint:
        holdfast.save_params({"other": np.full(3, 2.0)}, path)
        assert (checkpoint["t.w"][...] == 1).all()
        assert (checkpoint["f.w"][0:2] == 1).all()
        read = checkpoint.read()

    assert sorted(read) == ["f.w", "t.w"]
    assert all((array == 1).all() for array in read.values())


def test_open_checkpoint_outlives_its_rotation_with_its_arguments(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(3)}, tmp_path, trainer_args={"epoch": 7})

    with holdfast.open(tmp_path) as checkpoint:
        holdfast.save_checkpoint({"w": np.zeros(3)}, tmp_path, max_num_checkpoints=1)
        assert holdfast.serials(tmp_path) == [1]
        assert checkpoint["w"][...].tolist() == [1, 1, 1]
        assert checkpoint.trainer_args == {"epoch": 7}


def test_readers_beside_a_rotation_that_keeps_one_always_find_one(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(50)}, tmp_path)
    step = iter(range(1, 1_000_000))
    manager = holdfast.CheckpointManager(tmp_path, max_to_keep=1)

    def read() -> None:
        assert holdfast.latest_serial(tmp_path) is not None
        target = {"w": np.full(50, -1.0)}
        assert manager.restore(target).serial is not None
        assert len(set(target["w"])) == 1
        holdfast.load_checkpoint(target, tmp_path)

    beside(read, lambda: manager.save({"w": np.full(50, float(next(step)))}, 0) and None, 80)


@pytest.mark.parametrize("pinned", [False, True])
def test_listing_that_has_neither_the_new_nor_the_old_checkpoint_is_not_believed(pinned: bool, tmp_path: Path) -> None:
    """A folder is not listed at one instant; "nothing was saved here" would begin a run anew, and a pinned one is too old."""
    for step in range(3):
        holdfast.save_checkpoint({"w": np.full(2, float(step))}, tmp_path)
    if pinned:
        holdfast.pin(tmp_path, 0)

    def listed(path: str) -> list[Any]:
        entries = LocalStore().list(path)
        if path != os.path.realpath(tmp_path) or next(missed, None) is None:
            return entries
        return [entry for entry in entries if pinned and entry.name == "checkpoint_0"]

    for read in (
        lambda run, target: holdfast.load_checkpoint(target, run).serial,
        lambda run, target: holdfast.CheckpointManager(run).restore(target).serial,
        lambda run, _: holdfast.latest_serial(run),
        lambda run, _: holdfast.CheckpointManager(run).latest_serial(),
    ):
        missed = iter([1])  # once
        assert read(WrappedStore(list=listed).at(tmp_path), {"w": np.zeros(2)}) == 2
        assert next(missed, None) is None


def test_checkpoint_that_is_emptied_while_it_is_listed_is_none_that_was_never_begun(tmp_path: Path) -> None:
    manager = holdfast.CheckpointManager(tmp_path, max_to_keep=1)
    manager.save({"w": np.full(2, 1.0)}, 1)

    def listed(path: str) -> list[Any]:
        if path == os.path.realpath(tmp_path / "checkpoint_0") and os.path.exists(path):
            manager.save({"w": np.full(2, 2.0)}, 2)  # takes its place
            return []
        return LocalStore().list(path)

    target = {"w": np.zeros(2)}
    assert holdfast.CheckpointManager(WrappedStore(list=listed).at(tmp_path)).restore(target).step == 2
    assert (target["w"] == 2).all()


def test_foreign_file_that_appears_during_a_save_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model"
    holdfast.save_params(two_files(1), path)

    holdfast.save_params(two_files(2), path, progress=lambda _: (path / "config.json").write_text("{}") and None)

    assert (path / "config.json").read_text() == "{}"
    assert holdfast.load_params(two_files(0), path).verified


def test_foreign_folder_that_appears_during_a_save_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    holdfast.save_params(two_files(1), path)

    with pytest.raises(ForeignFolderError, match="thesis"):
        holdfast.save_params(two_files(2), path, progress=lambda _: (path / "thesis").mkdir(exist_ok=True))

    assert (path / "thesis").is_dir()
    target = two_files(0)
    holdfast.load_params(target, path)
    assert target["t"].tree["w"][0, 0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_pin_that_comes_while_a_rotation_looks_around_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        holdfast.save_checkpoint({"w": np.zeros(2)}, tmp_path)
    keep = retention.keep

    def pin_meanwhile(*args: Any) -> set[int]:
        kept = keep(*args)
        holdfast.pin(tmp_path, 0)
        return kept

    monkeypatch.setattr(retention, "keep", pin_meanwhile)
    assert holdfast.prune(tmp_path, keep=1) == [1]

    assert holdfast.serials(tmp_path) == [0, 2]


def test_pin_of_a_checkpoint_that_is_deleted_meanwhile_is_an_error(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(2)}, tmp_path)
    store = WrappedStore()

    def deleted(path: str, *_: Any, **__: Any) -> Any:
        raise FileNotFoundError(errno.ENOENT, "gone", path)

    store.instead["create"] = deleted

    with pytest.raises(CheckpointNotFoundError, match="was deleted just now"):
        holdfast.pin(store.at(tmp_path), 0)


class Picky:
    """An object whose load_state_dict has an error of its own."""

    def state_dict(self) -> dict[str, Any]:
        return {"file": "x"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise FileNotFoundError("the vocabulary is missing")


def test_error_of_an_object_is_its_own_and_no_reason_to_step_back(tmp_path: Path) -> None:
    for _ in range(2):
        holdfast.save_checkpoint({"o": Picky()}, tmp_path)

    with pytest.raises(FileNotFoundError, match="vocabulary") as caught:
        holdfast.CheckpointManager(tmp_path).restore({"o": Picky()})

    assert not isinstance(caught.value, StorageError)


def test_error_of_a_progress_callback_is_its_own(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.zeros(10)}, tmp_path / "m")

    def broken(_: object) -> None:
        raise BrokenPipeError("the pipe")

    with pytest.raises(BrokenPipeError, match="the pipe") as caught:
        holdfast.load_params({"w": np.zeros(10)}, tmp_path / "m", progress=broken)

    assert not isinstance(caught.value, StorageError)


def test_restore_does_not_step_back_for_want_of_descriptors(tmp_path: Path) -> None:
    for value in range(2):
        holdfast.save_checkpoint({"w": np.full(2, float(value))}, tmp_path)
    store = WrappedStore()
    real = LocalStore().open

    def refusing(path: str) -> Any:
        if "checkpoint_1/" in path and path.endswith(".safetensors"):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return real(path)

    store.instead["open"] = refusing
    target = {"w": np.full(2, -1.0)}

    with pytest.raises(StorageError, match="Too many open files"):
        holdfast.CheckpointManager(store.at(tmp_path)).restore(target)
    assert target["w"].tolist() == [-1, -1]


def test_restore_does_not_step_back_from_a_newer_version(tmp_path: Path) -> None:
    from holdfast.format.digests import hexdigest

    for value in range(2):
        holdfast.save_checkpoint({"w": np.full(2, float(value))}, tmp_path)
    manifest = tmp_path / "checkpoint_1" / "manifest.json"
    body = manifest.read_bytes()[52:].replace(b'"version":[1,0]', b'"version":[2,0]')
    manifest.write_bytes(b'{"digest":"xxh3-128:' + hexdigest(body).encode() + body)

    with pytest.raises(VersionError, match="upgrade"):
        holdfast.CheckpointManager(tmp_path).restore({"w": np.zeros(2)})


def test_every_pair_of_overlapping_targets_is_seen(tmp_path: Path) -> None:
    holdfast.save_params({"a": np.zeros(100), "b": np.ones(40), "c": np.full(10, 2.0)}, tmp_path / "m")
    matrix = np.full((100, 2), 7.0)
    target = {"a": matrix[:, 0], "b": matrix[10:50, 1], "c": matrix[20:30, 1]}

    with pytest.raises(MismatchError, match=r"'c' shares memory with 'b'"):
        holdfast.load_params(target, tmp_path / "m")
    assert (matrix == 7).all()


def test_one_target_for_two_tensors_of_a_bare_file_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)}, tmp_path / "x.safetensors")
    shared = np.full(3, 7, np.float32)

    with pytest.raises(MismatchError, match="shares memory"):
        holdfast.load_params({"a": shared, "b": shared}, tmp_path / "x.safetensors")
    assert (shared == 7).all()


def test_run_folder_with_the_name_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForeignFolderError, match="has the name of a checkpoint"):
        holdfast.save_checkpoint({"w": np.zeros(2)}, tmp_path / "checkpoint_5")

    assert not (tmp_path / "checkpoint_5").exists()


def test_manifest_of_another_program_in_a_run_folder_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')

    holdfast.save_checkpoint({"w": np.ones(2)}, tmp_path)
    target = {"w": np.zeros(2)}
    holdfast.load_checkpoint(target, tmp_path)

    assert target["w"].tolist() == [1, 1]
    assert (tmp_path / "manifest.json").read_text() == '{"name": "my web app"}'


def test_load_params_does_not_mind_damage_in_what_it_does_not_read(tmp_path: Path) -> None:
    state = {"model": holdfast.parameters({"w": np.ones(3)}), "m": np.zeros(3)}
    holdfast.save_checkpoint(state, tmp_path, trainer_args={"epoch": 1})
    trainer = tmp_path / "checkpoint_0" / "trainer_0.json"
    trainer.write_bytes(trainer.read_bytes().replace(b"epoch", b"epocH"))

    assert holdfast.load_params(state, tmp_path).nbytes == 24
    with pytest.raises(holdfast.CorruptCheckpointError, match="trainer_0.json"):
        holdfast.load_checkpoint(state, tmp_path)


def test_names_that_are_there_but_no_parameters_are_explained(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(3)}, tmp_path)

    with pytest.raises(MismatchError, match=r"not as parameters: holdfast\.parameters\(\)"):
        holdfast.load_params({"w": np.zeros(3)}, tmp_path)


def test_older_one_that_does_not_fit_after_damage_is_a_restore_error(tmp_path: Path, caplog: Any) -> None:
    holdfast.save_checkpoint({"w": np.ones(4)}, tmp_path)
    holdfast.save_checkpoint({"w": np.ones(3)}, tmp_path)
    data = next((tmp_path / "checkpoint_1").glob("*.safetensors"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)

    with caplog.at_level(logging.WARNING), pytest.raises(RestoreError, match="do not train on"):
        holdfast.CheckpointManager(tmp_path).restore({"w": np.zeros(3)})
