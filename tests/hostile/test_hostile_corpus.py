"""E5: whatever a file says, it is refused with one of our errors or exactly right, and nothing is executed.

Every case of the corpus goes through every call that reads, and each call is watched (watch.py).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import holdfast
from holdfast.errors import CheckpointNotFoundError, FormatError, HoldfastError, VersionError
from hostile import boxes, cases, datafiles, folders, manifests, trainers
from hostile.cases import OPERATIONS, Case
from hostile.operations import blank_state, outcome
from hostile.watch import watched
from spec.independent import write_folder

KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "manifest": manifests.manifest_cases,
    "boxes": boxes.box_cases,
    "text": manifests.text_cases,
    "header": datafiles.header_cases,
    "data": datafiles.data_cases,
    "trainer": trainers.trainer_cases,
    "folder": folders.folder_cases,
}


def _listed(run: Path) -> list[int]:
    found = holdfast.serials(run)
    assert holdfast.latest_serial(run) == (found[-1] if found else None)
    return found


@pytest.fixture(autouse=True)
def warm(tmp_path: Path) -> None:
    """Read something sound first: imports, buffers and threads are then no longer counted against a case."""
    write_folder(cases.chunked(), tmp_path / "warm" / "checkpoint_0")
    for operation in OPERATIONS:
        with watched():
            assert outcome(operation, tmp_path / "warm") == ("right", [])


@pytest.mark.parametrize("base", [cases.plain, cases.chunked])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_bases_of_the_corpus_are_sound(base: Callable[[], cases.Files], operation: str, tmp_path: Path) -> None:
    write_folder(base(), tmp_path / "checkpoint_0")

    with watched(tmp_path) as complaints:
        assert outcome(operation, tmp_path) == ("right", [])

    assert not complaints


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_checkpoint_is_refused_or_exactly_right(kind: str, tmp_path: Path) -> None:
    failures, count = [], 0
    for number, case in enumerate(KINDS[kind]()):
        run = tmp_path / str(number)
        case.write(run / "checkpoint_0")
        size = sum(map(len, case.files.values()))
        for operation in OPERATIONS:
            count += 1
            with watched(run, times_bytes=size) as complaints, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result, more = outcome(operation, run)
            allowed = ("refused",) if operation in case.must else ("refused", "right")
            if result not in allowed and not (operation in case.free and result.startswith("other")):
                complaints.append(f"expected {' or '.join(allowed)}, got {result}")
            if caught:
                complaints.append(f"warned: {caught[0].message}")
            failures += [f"{operation} of '{case.name}': {complaint}" for complaint in [*complaints, *more]]
        with watched(run, times_bytes=size) as complaints:
            listed = _listed(run)
        may_list = kind not in ("text", "folder") or "open" not in case.must or case.inside
        if listed not in ([], [0]) or (listed and not may_list):
            complaints.append(f"lists {listed}")
        failures += [f"listing of '{case.name}': {complaint}" for complaint in complaints]

    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures)
    print(f"{count} operations on {kind} cases")


def test_hostile_safetensors_file_is_refused(tmp_path: Path) -> None:
    failures = []
    path = tmp_path / "model.safetensors"
    for name, data in datafiles.bare_headers():
        path.write_bytes(data)
        for operation in ("open", "load_params"):
            state = blank_state()
            with watched(tmp_path, times_bytes=len(data)) as complaints:
                try:
                    if operation == "open":
                        holdfast.open(path).close()
                    else:
                        holdfast.load_params(state, path, strict="superset")
                    complaints.append("accepted")
                except HoldfastError:
                    pass
                except Exception as error:
                    complaints.append(f"{type(error).__name__}: {str(error)[:200]}")
            failures += [f"{operation} of '{name}': {complaint}" for complaint in complaints]

    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)


@pytest.mark.parametrize("what", ["folder", "FIFO", "dangling link", "link to /dev/zero", "1 TiB of zeros", "missing"])
def test_what_is_no_safetensors_file_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    {
        "folder": path.mkdir,
        "FIFO": lambda: os.mkfifo(path),
        "dangling link": lambda: path.symlink_to("nobody"),
        "link to /dev/zero": lambda: path.symlink_to("/dev/zero"),
        "1 TiB of zeros": lambda: folders.sparse(b"", 1 << 40)(path),
        "missing": lambda: None,
    }[what]()

    with watched(tmp_path) as complaints, pytest.raises(HoldfastError):
        holdfast.open(path)

    assert not complaints


def test_header_of_more_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    folders.sparse((100_000_001).to_bytes(8, "little") + b"{}", 1 << 30)(path)

    with watched(tmp_path) as complaints, pytest.raises(HoldfastError):
        holdfast.open(path)

    assert not complaints


@pytest.mark.parametrize("build", [boxes.staircase, boxes.many_rows])
@pytest.mark.parametrize("count", [100, 900, 5_000])
def test_unusual_boxes_that_cover_the_variable_are_read(
    build: Callable[[int], cases.Files], count: int, tmp_path: Path
) -> None:
    files = build(count)
    write_folder(files, tmp_path / "checkpoint_0")

    with (
        watched(tmp_path, times_bytes=len(files["manifest.json"])) as complaints,
        holdfast.open(tmp_path) as checkpoint,
    ):
        array = np.asarray(checkpoint["fc.w"])

    assert not array.any()
    assert not complaints


@pytest.mark.parametrize("field", manifests.TOP)
def test_missing_field_is_named(field: str, tmp_path: Path) -> None:
    files = cases.with_manifest(cases.plain(), lambda manifest: manifest.pop(field))
    folder = write_folder(files, tmp_path / "checkpoint_0")

    with pytest.raises(FormatError, match=field):
        holdfast.verify(folder)


@pytest.mark.parametrize("version", [[2, 0], [2, 7], [10**6, 0], [2**63, 0], [2, 0, 0], [2]])
def test_newer_major_version_is_refused_by_name(version: list[int], tmp_path: Path) -> None:
    files = cases.with_manifest(
        cases.plain(), lambda manifest: manifest.update(version=version, files="of another kind")
    )
    folder = write_folder(files, tmp_path / "checkpoint_0")

    with pytest.raises(VersionError, match=f"version {version[0]}.*upgrade"):
        holdfast.open(folder)


FOREIGN_NAMES = (
    "checkpoint_", "checkpoint_01", "checkpoint_00", "checkpoint_+1", "checkpoint_-1", "checkpoint_ 1", "checkpoint_1 ",
    "checkpoint_1\n", "checkpoint_1_0", "checkpoint_٣", "checkpoint_²", "checkpoint_1.0", "checkpoint_1e3", "checkpoint_0x1",
    "Checkpoint_1", "checkpoint-1", "checkpoint_1~", "checkpoint_1.tmp", "checkpoint_one", "checkpoints_1", "1", "step_1",
    ".attempt-1-0123456789abcdef", ".trash-1-0123456789abcdef", ".previous-1-0123456789abcdef", ".checkpoint_1",
)  # fmt: skip


def test_sound_checkpoints_under_foreign_names_are_never_listed(tmp_path: Path) -> None:
    for name in FOREIGN_NAMES:
        write_folder(cases.plain(), tmp_path / name)

    with watched(tmp_path) as complaints:
        assert _listed(tmp_path) == []
        with pytest.raises(CheckpointNotFoundError):
            holdfast.load_checkpoint(blank_state(), tmp_path)

    assert not complaints


def test_listing_passes_over_everything_that_is_no_checkpoint(tmp_path: Path) -> None:
    write_folder(cases.plain(), tmp_path / "checkpoint_3")
    (tmp_path / "checkpoint_4").mkdir()
    (tmp_path / "checkpoint_5").write_bytes(b"")
    os.mkfifo(tmp_path / "checkpoint_6")
    (tmp_path / "checkpoint_7").symlink_to("nobody")
    (tmp_path / "checkpoint_8").symlink_to("checkpoint_8")
    (tmp_path / "checkpoint_9").symlink_to("/dev/zero")
    (tmp_path / "checkpoint_10").symlink_to("..")
    folders.make_socket(tmp_path / "checkpoint_11")
    (tmp_path / "checkpoint_12" / "manifest.json").mkdir(parents=True)
    write_folder({"manifest.json": b""}, tmp_path / "checkpoint_13")
    write_folder({"manifest.json": cases.plain()["manifest.json"]}, tmp_path / f"checkpoint_{10**17}")
    write_folder({"model.safetensors": cases.plain()["model.safetensors"]}, tmp_path / f"checkpoint_{'9' * 240}")

    with watched(tmp_path) as complaints:
        assert _listed(tmp_path) == [3]

    assert not complaints
