"""Hostile run folders: an older sound checkpoint is found beside hostile ones, and nothing outside is ever touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import CheckpointNotFoundError, HoldfastError, RestoreError, VersionError
from hostile import boxes, cases, datafiles, folders, manifests, trainers
from hostile.cases import MODEL, TRAINER_ARGS, Case, plain
from hostile.operations import arrays_of, blank_state
from hostile.watch import tree, watched
from spec.independent import write_folder

KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "manifest": manifests.manifest_cases,
    "boxes": boxes.box_cases,
    "text": manifests.text_cases,
    "data": datafiles.data_cases,
    "trainer": trainers.trainer_cases,
    "folder": folders.folder_cases,
}
ATTEMPT = "0123456789abcdef"


@pytest.mark.parametrize("kind", KINDS)
def test_restore_falls_back_from_a_hostile_checkpoint_to_a_sound_one(kind: str, tmp_path: Path) -> None:
    failures = []
    for number, case in enumerate(KINDS[kind]()):
        # A sound value of another kind is a mismatch: an older checkpoint would be no answer to that.
        if "load_checkpoint" not in case.must or "$variable" in case.name or "$random" in case.name:
            continue
        run = tmp_path / str(number)
        write_folder(plain(), run / "checkpoint_0")
        case.write(run / "checkpoint_1")
        state = blank_state()
        try:
            report = holdfast.CheckpointManager(run).restore(state)
        except HoldfastError as error:
            # A newer version is no damage: whoever went on from an older checkpoint would lose the newer one by rotation.
            if not isinstance(error, VersionError) or "version" not in case.name:
                failures.append(f"{case.name}: {error}")
            continue
        right = all(array.tobytes() == cases.ARRAYS[name].tobytes() for name, array in arrays_of(state).items())
        if report.serial != 0 or report.trainer_args != TRAINER_ARGS or not right:
            failures.append(f"{case.name}: restored {report.serial}, {'right' if right else 'wrong'}")
        shutil.rmtree(run)

    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)


def test_restore_of_hostile_checkpoints_only_says_so_and_changes_nothing(tmp_path: Path) -> None:
    broken = [case for case in trainers.trainer_cases() if "NaN" in case.name]
    for serial, case in enumerate(broken):
        case.write(tmp_path / f"checkpoint_{serial}")
    state = blank_state()

    with pytest.raises(RestoreError) as caught:
        holdfast.CheckpointManager(tmp_path).restore(state)

    assert [serial for serial, _ in caught.value.attempts] == list(reversed(range(len(broken))))
    assert state["epoch"] == blank_state()["epoch"]


def outside(folder: Path) -> Path:
    """A folder that belongs to somebody else, with something precious in it."""
    write_folder(plain(), folder / "theirs")
    (folder / "theirs" / "thesis.txt").write_text("the only copy")
    return folder / "theirs"


PLACES = (
    f".trash-1-{ATTEMPT}",
    f".attempt-1-{ATTEMPT}",
    f".previous-1-{ATTEMPT}",
    f".trash-model-{ATTEMPT}",
    f".attempt-model-{ATTEMPT}",
    f".previous-model-{ATTEMPT}",
    "checkpoint_1",
    "checkpoint_99",
)


def _do_everything(run: Path) -> None:
    """Every call that deletes, more than once."""
    state = blank_state()
    for _ in range(4):
        holdfast.save_checkpoint(state, run, max_num_checkpoints=1)
    holdfast.save_params({"fc": state["fc"]}, run / "model")
    holdfast.save_params({"fc": state["fc"]}, run / "model")
    holdfast.prune(run, keep=1)
    holdfast.clean_checkpoint(run)


@pytest.mark.parametrize("name", PLACES)
def test_deletion_never_follows_a_link(name: str, tmp_path: Path) -> None:
    theirs = outside(tmp_path)
    before = tree(theirs)
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(theirs)

    _do_everything(run)

    assert tree(theirs) == before


@pytest.mark.parametrize("name", PLACES)
def test_deletion_never_follows_a_link_inside_of_a_folder(name: str, tmp_path: Path) -> None:
    theirs = outside(tmp_path)
    before = tree(theirs)
    run = tmp_path / "run"
    write_folder(plain(), run / name)
    (run / name / "folder").symlink_to(theirs)
    (run / name / "file").symlink_to(theirs / "thesis.txt")
    (run / name / "trainer_1.json").symlink_to(theirs / "trainer_0.json")

    _do_everything(run)

    assert tree(theirs) == before


@pytest.mark.parametrize(
    "name", ["checkpoint_01", "checkpoint_1 ", ".attempt-x", ".trash-1", "notes", ".git", "checkpoint_1_0"]
)
def test_foreign_folders_are_never_deleted(name: str, tmp_path: Path) -> None:
    write_folder(plain(), tmp_path / name)
    before = tree(tmp_path / name)

    _do_everything(tmp_path)

    assert tree(tmp_path / name) == before


def test_run_that_is_a_link_is_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")

    holdfast.save_checkpoint(blank_state(), tmp_path / "run")

    assert holdfast.serials(tmp_path / "run") == holdfast.serials(tmp_path / "real") == [0]


def test_checkpoint_folder_that_is_a_link_is_not_listed(tmp_path: Path) -> None:
    theirs = outside(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint_5").symlink_to(theirs)

    with watched(tmp_path) as complaints:
        assert holdfast.serials(run) == []
        assert holdfast.latest_serial(run) is None
        with pytest.raises(CheckpointNotFoundError):
            holdfast.load_checkpoint(blank_state(), run)

    assert not complaints


@pytest.mark.parametrize("kind", ["manifest", "text", "data", "folder"])
def test_export_of_a_hostile_checkpoint_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    failures = []
    for number, case in enumerate(KINDS[kind]()):
        if not case.must >= cases.EVERY:
            continue
        run, out = tmp_path / str(number), tmp_path / f"out{number}"
        case.write(run / "checkpoint_0")
        try:
            holdfast.export(run / "checkpoint_0", out)
            failures.append(f"{case.name}: exported")
        except HoldfastError:
            pass
        except Exception as error:
            failures.append(f"{case.name}: {type(error).__name__}: {error!s:.200}")
        if out.exists() or list(tmp_path.glob(".attempt-*")):
            failures.append(f"{case.name}: left something behind")
        shutil.rmtree(run)

    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)


def test_save_beside_hostile_checkpoints_takes_a_higher_serial(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_3").mkdir()
    (tmp_path / "checkpoint_4").write_bytes(b"")
    (tmp_path / "checkpoint_5").symlink_to("nobody")
    write_folder(plain() | {"manifest.json": b"{}"}, tmp_path / "checkpoint_6")
    write_folder(plain() | {MODEL: b""}, tmp_path / "checkpoint_7")
    before = tree(tmp_path)

    serial = holdfast.save_checkpoint(blank_state(), tmp_path, max_num_checkpoints=1)

    assert serial == 8
    assert holdfast.serials(tmp_path) == [8]
    assert set(before) <= set(tree(tmp_path))
