"""`holdfast verify`: read every byte of one checkpoint or of all in a run, and name what is damaged."""

from __future__ import annotations

from typing import Any

import holdfast
from holdfast.cli.exits import DONE, FAILED, FOUND, UsageError, described, status_of
from holdfast.cli.output import Output
from holdfast.cli.survey import newer_unusable
from holdfast.cli.targets import run_folder, target
from holdfast.cli.texts import count, located, reason, size, tidy
from holdfast.engine import catalog
from holdfast.engine.commit import storage_errors
from holdfast.errors import CheckpointNotFoundError, CorruptCheckpointError, HoldfastError
from holdfast.format import layout
from holdfast.runs import VerifyReport
from holdfast.storage import Location, resolve


def verify(path: str, every: bool, out: Output) -> int:
    """Verify and report; `every` takes all checkpoints of a run instead of the newest."""
    chosen = target(path)
    if chosen.kind == "file":
        raise UsageError(f"{path} is a file without digests; only what Holdfast saved can be verified")
    if every:
        run = resolve(run_folder(path, "verify --all"))
        checks = _check_all(run, out)
        if not any(checks):
            raise CheckpointNotFoundError(f"no checkpoints in {run}")
        return _end(run, checks, out)
    location = resolve(chosen.path)
    try:
        with storage_errors(f"cannot read {location}"):
            folder, serial = catalog.locate(location, chosen.serial)
    except CheckpointNotFoundError:
        # Checkpoints of which none can be used are damage; a script must not take them for a run that has saved nothing yet.
        checks = _check_all(location, out) if chosen.kind == "run" and chosen.serial is None else []
        if not any(checks):
            raise
        return _end(location, checks, out)
    if chosen.kind != "run" or serial is None:
        return _end(location, [_check(folder, None, out)], out)
    checks = [_check(location, serial, out)]
    if chosen.serial is None:
        # What is newer and cannot be used would be passed over by a load: whoever asks whether all is well must know.
        for bad in newer_unusable(location, serial):
            check = _Check(bad.serial, str(bad.folder), bad.error)
            check.say(out)
            checks.append(check)
    return _end(location, checks, out)


class _Check:
    """What came of verifying one checkpoint."""

    def __init__(self, serial: int | None, path: str, result: VerifyReport | HoldfastError) -> None:
        self.serial, self.path, self.result = serial, path, result

    @property
    def status(self) -> int:
        if not isinstance(self.result, HoldfastError):
            return DONE
        # A checkpoint that is there but incomplete is damage to this command.
        return FOUND if isinstance(self.result, CheckpointNotFoundError) else status_of(self.result)

    def document(self) -> dict[str, Any]:
        head = {"serial": self.serial, "path": self.path, "ok": self.status == DONE}
        if isinstance(self.result, HoldfastError):
            return {**head, "error": described(self.result)}
        return {**head, "files": self.result.files, "variables": self.result.variables, "bytes": self.result.nbytes}

    def say(self, out: Output) -> None:
        label = located(self.path, self.serial)
        if not isinstance(self.result, HoldfastError):
            out.line(f"{label}  ok  {count(self.result.variables, 'variable')}, {size(self.result.nbytes)}", "green")
            return
        incomplete = isinstance(self.result, CheckpointNotFoundError)
        word = "INCOMPLETE" if incomplete else "DAMAGED" if self.status == FOUND else "FAILED"
        names = self.result.variables if isinstance(self.result, CorruptCheckpointError) else ()
        if not names:
            out.line(f"{label}  {word}  {reason(self.result, self.path)}", "red")
            return
        out.line(f"{label}  {word}  {count(len(names), 'variable')}, use another checkpoint or a copy:", "red")
        for name in names:
            out.line(f"  {name}", "red")


def _check(location: Location, serial: int | None, out: Output) -> _Check | None:
    """The verdict on a checkpoint of a run, or on a folder that stands alone; None if rotation deleted it meanwhile."""
    folder = location if serial is None else location / layout.checkpoint_folder(serial)
    result: VerifyReport | HoldfastError
    try:
        with out.progress(f"verifying {folder.name}") as progress:
            result = holdfast.verify(location, serial=serial, progress=progress)
    except HoldfastError as error:
        if folder.store.stat(folder.path) is None:
            return None
        result = error
    check = _Check(serial, str(folder), result)
    check.say(out)
    return check


def _check_all(run: Location, out: Output) -> list[_Check | None]:
    """The verdicts on all that is named like a checkpoint of a run, the oldest first."""
    with storage_errors(f"cannot list {run}"):
        serials = [serial for serial, _ in reversed(catalog.candidates(run))]
    return [_check(run, serial, out) for serial in serials]


def _end(location: Location, found: list[_Check | None], out: Output) -> int:
    checks = [check for check in found if check is not None]
    if not checks:
        raise CheckpointNotFoundError(f"what was to be verified in {location} was deleted meanwhile")
    wrong = [check for check in checks if check.status != DONE]
    status = DONE if not wrong else FAILED if any(check.status == FAILED for check in wrong) else FOUND
    out.document({"path": str(location), "ok": not wrong, "checkpoints": [check.document() for check in checks]})
    if len(checks) > 1:
        sound = len(checks) - len(wrong)
        verb = "is" if sound == 1 else "are"
        out.line(f"{sound} of {count(len(checks), 'checkpoint')} in {tidy(str(location))} {verb} sound")
    return status
