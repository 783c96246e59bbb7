"""`holdfast prune`, `pin` and `unpin`: which checkpoints of a run stay."""

from __future__ import annotations

import holdfast
from holdfast.cli.exits import DONE, FAILED
from holdfast.cli.output import Output
from holdfast.cli.targets import one_of_run, run_folder
from holdfast.cli.texts import count, size, tidy
from holdfast.engine import retention
from holdfast.errors import CheckpointNotFoundError
from holdfast.runs import checkpoints, serials
from holdfast.storage import resolve


def prune(path: str, keep: int, keep_period: int | None, dry_run: bool, out: Output) -> int:
    """Delete all but the newest checkpoints."""
    run = run_folder(path, "prune")
    before = checkpoints(run)
    if not before:
        raise CheckpointNotFoundError(f"no complete checkpoint in {run}")
    kept = retention.keep(before, retention.Rules(newest=keep, period=keep_period))
    gone = [f.serial for f in before if f.serial not in kept]
    if not dry_run:
        gone = holdfast.prune(run, keep=keep, keep_period=keep_period)
    # By looking, not by reckoning: a save may have come between, and a deletion may have failed (it is logged then).
    there = [f.serial for f in before if f.serial not in kept] if dry_run else serials(run)
    undeleted = [] if dry_run else [f.serial for f in before if f.serial not in kept and f.serial in there]
    stay = sorted(kept) if dry_run else there
    freed = sum(f.manifest.nbytes for f in before if f.serial in gone)
    pinned = [f.serial for f in before if f.pinned]
    out.document(
        {
            "path": str(resolve(run)),
            "dry_run": dry_run,
            "deleted": gone,
            "kept": stay,
            "not_deleted": undeleted,
            "bytes": freed,
        }
    )
    if gone:
        out.line(
            f"{'would delete' if dry_run else 'deleted'} {count(len(gone), 'checkpoint')} ({size(freed)}): {_listed(gone)}"
        )
    elif not undeleted:
        out.line("nothing to delete")
    out.line(f"{'would keep' if dry_run else 'kept'} {count(len(stay), 'checkpoint')}: {_listed(stay, pinned)}")
    if undeleted:
        out.note(f"holdfast: could not delete {_listed(undeleted)}")
        return FAILED
    return DONE


def _listed(numbers: list[int], pinned: list[int] | None = None) -> str:
    return ", ".join(f"{number} (pinned)" if pinned and number in pinned else str(number) for number in numbers)


def pin(path: str, pinned: bool, out: Output) -> int:
    """Pin a checkpoint, or let rotation have it again."""
    command = "pin" if pinned else "unpin"
    run, serial = one_of_run(path, command)
    (holdfast.pin if pinned else holdfast.unpin)(run, serial)
    out.document({"path": str(resolve(run)), "serial": serial, "pinned": pinned})
    label = f"{tidy(str(resolve(run)))}@{serial}"
    if pinned:
        out.line(f"{label} is pinned: neither rotation nor prune deletes it")
    else:
        out.line(f"{label} is not pinned: rotation and prune may delete it")
    return DONE
