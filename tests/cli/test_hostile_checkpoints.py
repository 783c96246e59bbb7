"""The corpus of hostile checkpoints, shown: never a traceback, never a control character, bounded in time and memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from cli.test_output import CONTROLS
from holdfast.cli.diff import diff
from holdfast.cli.exits import guarded
from holdfast.cli.ls import ls
from holdfast.cli.output import Output
from holdfast.cli.show import show
from holdfast.cli.verify import verify
from hostile import boxes, cases, datafiles, folders, manifests, trainers
from hostile.watch import watched
from spec.independent import write_folder

# Of the large kinds a part: the library itself is tested with all of them (tests/hostile).
KINDS: dict[str, tuple[Callable[[], Iterator[cases.Case]], int]] = {
    "manifest": (manifests.manifest_cases, 7),
    "boxes": (boxes.box_cases, 3),
    "text": (manifests.text_cases, 3),
    "header": (datafiles.header_cases, 1),
    "data": (datafiles.data_cases, 1),
    "trainer": (trainers.trainer_cases, 5),
    "folder": (folders.folder_cases, 1),
}


def operations(sound: Path, run: Path) -> Iterator[tuple[str, bool, Callable[[Output], int]]]:
    """Everything that reads. Called without typer, which executes the annotations of commands, and that would be noticed."""
    one = str(run / "checkpoint_0")
    for as_json in (False, True):
        yield "ls", as_json, lambda out: ls(str(run), out)
        yield "show", as_json, lambda out: show(one, out)
        yield "verify", as_json, lambda out: verify(str(run), True, out)
        yield "diff", as_json, lambda out: diff(str(sound), one, False, out)
    yield "diff", False, lambda out: diff(one, str(sound), False, out)


def done(as_json: bool, work: Callable[[Output], int]) -> tuple[int, str, str]:
    """The exit status, and what was written."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = guarded(work, Output(as_json))
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_checkpoint_gets_a_message(kind: str, tmp_path: Path) -> None:
    sound = write_folder(cases.plain(), tmp_path / "sound" / "checkpoint_0")
    for name, as_json, work in operations(sound, tmp_path / "sound"):
        with watched():
            assert done(as_json, work)[0] == 0, name
    make, step = KINDS[kind]
    failures = []
    for number, case in enumerate(islice(make(), 0, None, step)):
        run = tmp_path / str(number)
        case.write(run / "checkpoint_0")
        for name, as_json, work in operations(sound, run):
            with watched(run, times_bytes=sum(map(len, case.files.values()))) as complaints:
                status, out, err = done(as_json, work)
            if status not in (0, 1, 2, 3) or "Traceback" in err:
                complaints.append(f"{status}: {err[-500:]}")
            if CONTROLS.search(out + err):
                complaints.append("unescaped")
            failures += [f"{name} of '{case.name}': {complaint}" for complaint in complaints]

    assert not failures, f"{len(failures)}:\n" + "\n".join(failures[:20])
