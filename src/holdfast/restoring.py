"""Which checkpoint of a run is restored: the newest that is whole, or else the next older one that is."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection
from typing import Any

from holdfast.engine import catalog
from holdfast.engine.commit import storage_errors
from holdfast.engine.match import Cast, Rename, Strict
from holdfast.engine.progress import ProgressOption
from holdfast.engine.report import LoadReport
from holdfast.errors import (
    CastError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    RestoreError,
    StorageError,
    VersionError,
)
from holdfast.format import layout
from holdfast.loading import Verify, load_checkpoint
from holdfast.storage import Location

log = logging.getLogger(__name__)
_RELISTINGS = 20


def restore(
    state: Any,
    run: Location,
    *,
    step: int | None,
    serial: int | None,
    strict: Strict,
    rename: Rename,
    skip: Collection[str],
    cast: Cast,
    verify: Verify,
    progress: ProgressOption,
    damaged: set[int],
) -> LoadReport:
    """See `CheckpointManager.restore`.

    Args:
        state, step, serial, strict, rename, skip, cast, verify, progress: as there.
        run: the run folder.
        damaged: gets the serials of the checkpoints that turn out to be so.
    """
    if verify is True and strict == "superset":
        # What only the damaged one holds would stay as it was overwritten, if an older one is loaded after it.
        verify = "before"
    failures: list[tuple[int, Exception]] = []
    candidates = _candidates(run, step, serial)
    while candidates:
        candidate = candidates.pop(0)
        try:
            return load_checkpoint(
                state, run, serial=candidate, strict=strict, rename=rename, skip=skip, cast=cast, verify=verify,
                progress=progress,
            )  # fmt: skip
        except VersionError:
            raise  # it is sound: a newer Holdfast reads it
        except (CorruptCheckpointError, FormatError, CheckpointNotFoundError, StorageError) as error:
            damaged.add(candidate)
            if serial is not None or step is not None:
                raise
            if run.store.stat((run / layout.checkpoint_folder(candidate)).path) is None:
                # A rotation took it away meanwhile, so there is a newer one.
                candidates = candidates or _candidates(run, None, None)
                continue
            if isinstance(error, StorageError) and error.errno != errno.EIO:
                raise  # such as too many open files: that is no damage, and the checkpoint may be sound
            log.warning("checkpoint_%d cannot be restored, trying an older one: %s", candidate, error)
            failures.append((candidate, error))
        except (MismatchError, CastError) as error:
            if not failures:
                raise  # the state is untouched
            failures.append((candidate, error))
            break
    listed = "\n".join(f"  checkpoint_{number}: {error}" for number, error in failures)
    raise RestoreError(
        f"none of the {len(failures)} checkpoints in {run} can be restored, and the state may be overwritten in part; do not "
        f"train on from it:\n{listed}",
        failures,
    ) from failures[-1][1]


def _candidates(run: Location, step: int | None, serial: int | None) -> list[int]:
    """Serials to try, the newest first; never empty."""
    with storage_errors(f"cannot list {run}"):
        if serial is not None:
            return [serial]
        if step is not None:
            return [_serial_of(run, step)]
        # Whatever is named like a checkpoint and is not empty: an unreadable one must not look like "nothing saved".
        for _ in range(_RELISTINGS):
            named = [number for number, is_folder in catalog.candidates(run) if is_folder]
            started = {number: _is_started(run, number) for number in named}
            if any(started.values()):
                return [number for number, is_started in started.items() if is_started]
            if None not in started.values():
                catalog.check_run_folder(run)
                raise CheckpointNotFoundError(f"no checkpoint in {run}: {catalog.others(run)}")
        raise StorageError(f"the checkpoints in {run} are rotated out faster than they can be opened")


def _serial_of(run: Location, step: int) -> int:
    steps = []
    for found in catalog.complete(run):  # the newest first; a manifest takes some milliseconds
        if found.manifest.step == step:
            return found.serial
        steps.append(str(found.manifest.step))
    known = ", ".join(reversed(steps)) or "none"
    raise CheckpointNotFoundError(f"no complete checkpoint of step {step} in {run}; steps there: {known}")


def _is_started(run: Location, serial: int) -> bool | None:
    """Whether a checkpoint's folder holds anything; None if it is gone."""
    path = (run / layout.checkpoint_folder(serial)).path
    try:
        if run.store.list(path):
            return True
    except FileNotFoundError:
        return None
    # A rotation may have taken it away, and emptied it, while it was listed.
    return None if run.store.stat(path) is None else False
