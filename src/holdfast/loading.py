"""load_params, load_persistables, load_vars, load_checkpoint: open → plan → validate everything → read → assign."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Collection, Iterable
from typing import Any, Literal

from holdfast.adapters.state import Scan
from holdfast.adapters.tree import scan
from holdfast.engine import catalog, match
from holdfast.engine.commit import storage_errors
from holdfast.engine.match import Cast, Rename, Strict
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.reader import Wanted, raise_if_damaged, read_chunks, verify_header
from holdfast.engine.report import LoadReport, Outcome
from holdfast.engine.source import Source
from holdfast.errors import CastError, CheckpointNotFoundError, CorruptCheckpointError, FormatError
from holdfast.format import layout, manifest as manifests
from holdfast.format.manifest import Entry
from holdfast.load_plan import LoadPlan, plan_load
from holdfast.reading import Checkpoint, is_bare, open_whole, read_listed
from holdfast.storage import AnyPath, Location, resolve
from holdfast.variables import Predicate, Variable, is_checkpoint_variable, is_parameter, select

log = logging.getLogger(__name__)
Verify = bool | Literal["before"]


def load_params(
    state: Any,
    path: AnyPath,
    *,
    serial: int | None = None,
    strict: Strict = "exact",
    rename: Rename = None,
    skip: Collection[str] = (),
    cast: Cast = "forbid",
    verify: Verify = True,
    progress: ProgressOption = None,
) -> LoadReport:
    """Load parameters into the arrays of a state, in place; all of it matches, or nothing is changed.

    Args:
        state: as for `save_params`. Its arrays give the names, shapes and dtypes that are expected.
        path: a `save_params` folder, a checkpoint, a run folder (its newest complete checkpoint) or a `.safetensors` file. Of a
            checkpoint only the parameters count.
        serial: which checkpoint of a run.
        strict: `"exact"`: both sides hold the same names; `"subset"`: the target may hold fewer; `"superset"`: it may hold
            more, and these are left as they are.
        rename: name in the checkpoint → name in the target, if they differ: a mapping, in which a key that ends with `.` renames
            the beginning of names (`{"model.": ""}`), or a function.
        skip: names of the target, or patterns with `*` and `?`, that are left alone. Each must match something.
        cast: `"forbid"`: dtypes must be equal; `"widen"`: converted where every value is kept (float16 to float32);
            `"allow"`: to any dtype; numbers may be rounded, but one that would overflow or wrap is an error.
        verify: True checks every digest while reading; `"before"` reads everything once more in advance, so that damage too is
            found before anything is changed; False trusts the disk.
        progress: see `save_params`.

    Returns:
        What was loaded, and from where.

    Raises:
        CheckpointNotFoundError: there is no complete checkpoint.
        MismatchError: names, shapes or dtypes differ; it lists every difference. The state is untouched.
        CastError: a value would not survive the cast that was allowed. The state is untouched.
        CorruptCheckpointError: bytes are not those that were saved. Unless `verify="before"`, arrays may have been
            overwritten in part: load another checkpoint before the state is used.
        FormatError, VersionError: the checkpoint breaks the specification, or is of a newer version.
        StorageError: the system refused to read.
        ValueError: an option is not valid, or names what is not there.
    """
    found = scan(state, whole_is_model=True, is_target=True)
    rules = match.Rules(strict, rename, skip, cast)
    return _load(found, path, serial, is_parameter, None, rules, verify, progress)


def load_persistables(
    state: Any,
    path: AnyPath,
    *,
    serial: int | None = None,
    strict: Strict = "exact",
    rename: Rename = None,
    skip: Collection[str] = (),
    cast: Cast = "forbid",
    verify: Verify = True,
    progress: ProgressOption = None,
) -> LoadReport:
    """Load every array that lives across iterations; like `load_params` in everything else."""
    rules = match.Rules(strict, rename, skip, cast)
    return _load(scan(state, is_target=True), path, serial, is_checkpoint_variable, None, rules, verify, progress)


def load_vars(
    state: Any,
    path: AnyPath,
    *,
    predicate: Predicate | None = None,
    vars: Iterable[str | Variable] | None = None,
    serial: int | None = None,
    strict: Strict = "exact",
    rename: Rename = None,
    skip: Collection[str] = (),
    cast: Cast = "forbid",
    verify: Verify = True,
    progress: ProgressOption = None,
) -> LoadReport:
    """Load chosen arrays; like `load_params` in everything else.

    Args:
        state: as for `save_vars`.
        path: see `load_params`.
        predicate: chooses variables, on both sides.
        vars: names of variables of the target, or variables; the checkpoint may hold more. Not together with `predicate`.
        serial, strict, rename, skip, cast, verify, progress: see `load_params`.
    """
    if vars is not None and predicate is not None:
        raise ValueError("give predicate= or vars=, not both")
    rules = match.Rules(strict, rename, skip, cast)
    return _load(
        scan(state, is_target=True), path, serial, predicate or is_checkpoint_variable, vars, rules, verify, progress
    )


def load_checkpoint(
    state: Any,
    checkpoint_dir: AnyPath,
    *,
    serial: int | None = None,
    trainer_id: int = 0,
    strict: Strict = "exact",
    rename: Rename = None,
    skip: Collection[str] = (),
    cast: Cast = "forbid",
    verify: Verify = True,
    progress: ProgressOption = None,
) -> LoadReport:
    """Load all that `save_checkpoint` saved into a state: arrays in place, values, random generators and objects.

    Everything is compared first: on a mismatch nothing is changed. `CheckpointManager.restore` also falls back on an older
    checkpoint when the newest is damaged; this function raises.

    Args:
        state: as for `save_checkpoint`.
        checkpoint_dir: the run folder, or a checkpoint folder in it.
        serial: which checkpoint; None for the newest complete one.
        trainer_id: whose arguments and values are loaded.
        strict, rename, skip, cast, verify, progress: see `load_params`; they count for values too.

    Returns:
        What was loaded; `.trainer_args` is what the save was given, with its types.

    Raises:
        As `load_params`; and whatever an object's `load_state_dict()` raises.

    Example:
        >>> import numpy as np, holdfast
        >>> state = {"w": np.arange(3.0), "seen": [1, 2]}
        >>> serial = holdfast.save_checkpoint(state, "runs/b", trainer_args={"epoch_id": 2})
        >>> fresh = {"w": np.zeros(3), "seen": []}
        >>> holdfast.load_checkpoint(fresh, "runs/b").trainer_args, fresh["seen"]
        ({'epoch_id': 2}, [1, 2])
    """
    rules = match.Rules(strict, rename, skip, cast)
    found = scan(state, is_target=True)
    return _load(
        found, checkpoint_dir, serial, is_checkpoint_variable, None, rules, verify, progress, trainer_id=trainer_id
    )


def _load(
    found: Scan,
    path: AnyPath,
    serial: int | None,
    predicate: Predicate,
    vars: Iterable[str | Variable] | None,
    rules: match.Rules,
    verify: Verify,
    progress: ProgressOption,
    trainer_id: int | None = None,
) -> LoadReport:
    if verify not in (True, False, "before"):
        raise ValueError(f'verify={verify!r}: expected True, False or "before"')
    start = time.monotonic()
    variables = [item.variable for item in found.items]
    chosen = {v.name for v in select(variables, predicate=None if vars is not None else predicate, vars=vars)}
    only = None if vars is None else chosen
    items = [item for item in found.items if item.variable.name in chosen]
    targets = {item.variable.name for item in found.items} | {value.name for value in found.values}
    with open_whole(path, serial=serial, verify=bool(verify)) as checkpoint:
        verified = checkpoint.verified
        with storage_errors(f"cannot read {checkpoint.path}"):
            if serial is None and checkpoint.serial is not None:
                _warn_of_newer(resolve(path), checkpoint.serial)
            entries, rules = _entries(checkpoint, predicate, only, targets, rules, trainer_id)
            plan = plan_load(found, items, entries, checkpoint, rules, only, trainer_id)
        nbytes = sum(w.chunk.nbytes for w in plan.wanted)
        _check_in_advance(checkpoint.source, plan, trainer_id is not None, verified, verify == "before", progress)
        with metered("load", nbytes, progress) as meter:
            try:
                read_chunks(checkpoint.source, plan.wanted, verify=verified, meter=meter)
            except CorruptCheckpointError as error:
                raise CorruptCheckpointError(
                    f"{error}. Arrays may have been overwritten in part: load another checkpoint before the state is used "
                    '(verify="before" finds damage first)',
                    path=error.path,
                    variables=error.variables,
                ) from error
            except BaseException as error:
                error.add_note("arrays may have been overwritten in part: load again before the state is used")
                raise
        for assign in plan.assign:
            assign()
        found.finish()
        if found.copies and trainer_id is not None:
            warnings.warn(
                f"{', '.join(map(repr, found.copies))}: a dict such as the state_dict() of an optimizer or a scheduler. What was "
                "loaded is in the dict alone; give it to the object by load_state_dict(), or put the object itself into the state",
                RuntimeWarning,
                stacklevel=3,
            )
    report = LoadReport(
        path=checkpoint.path,
        serial=checkpoint.serial,
        step=checkpoint.step,
        trainer_args=plan.trainer_args,
        metrics=checkpoint.metrics,
        loaded=tuple(plan.loaded),
        values=(*plan.values.pairs, *plan.filled),
        skipped=(*plan.names.skipped, *plan.values.skipped),
        missing=(*plan.names.missing, *plan.values.missing),
        unexpected=(*plan.names.unexpected, *plan.values.unexpected),
        verified=verified,
        nbytes=nbytes,
        seconds=time.monotonic() - start,
        outcome=Outcome(found.state, found.replaced),
    )
    log.info("loaded %s: %d bytes in %.3f s", checkpoint.path, nbytes, report.seconds)
    return report


def _entries(
    checkpoint: Checkpoint,
    predicate: Predicate,
    only: set[str] | None,
    targets: Collection[str],
    rules: match.Rules,
    trainer_id: int | None,
) -> tuple[list[Entry], match.Rules]:
    """The variables of the checkpoint that the load is about, and the rules with their names checked."""
    manifest = checkpoint.manifest
    if not is_bare(manifest):
        manifests.check(manifest, f"{checkpoint.path}/{layout.MANIFEST}")
    if rules.rename is not None or rules.skip:
        names = {entry.name for entry in manifest.variables} | set(checkpoint.trainer(trainer_id or 0)[1])
        names |= set(manifest.aliases)
        rename = match.renaming(names, rules.rename)
        match.check_skip({*map(rename, names), *targets}, rules.skip)
        rules = dataclasses.replace(rules, rename=rename)
    if only is None:
        return [entry for entry in manifest.variables if predicate(entry.variable)], rules
    pairs = match.match_names([e.name for e in manifest.variables], sorted(only), rules).pairs
    wanted = set(pairs.values())
    if absent := sorted(only - set(pairs)):
        aliases = checkpoint.aliases(trainer_id or 0)
        wanted |= {aliases[second] for second in match.match_names(aliases, absent, rules).pairs.values()}
    return [entry for entry in manifest.variables if entry.name in wanted], rules


def _warn_of_newer(run: Location, serial: int) -> None:
    """A newer one that cannot be used is never passed over in silence."""
    for newer, is_folder in catalog.candidates(run):
        if newer > serial and is_folder:
            try:
                catalog.read_manifest(run / layout.checkpoint_folder(newer))
            except (CheckpointNotFoundError, FormatError) as error:
                log.warning("checkpoint_%d is passed over, checkpoint_%d is loaded: %s", newer, serial, error)


def _check_in_advance(
    source: Source, plan: LoadPlan, all_files: bool, verify: bool, everything: bool, progress: ProgressOption
) -> None:
    """Find what can be found before the target is changed: damaged headers, impossible casts, and, on request, all damage."""
    if verify:
        damaged: dict[int, dict[str, None]] = {}
        used = {w.chunk.file for w in plan.wanted}
        for number, file in enumerate(source.manifest.files):
            if not all_files and number not in used:
                continue
            if file.header_size is None:
                read_listed(source, number)
            elif not verify_header(source, number):
                damaged[number] = {}
        raise_if_damaged(source, damaged)
    if everything and verify:
        with metered("verify", sum(w.chunk.nbytes for w in plan.wanted), progress) as meter:
            read_chunks(source, [Wanted(w.entry, w.chunk) for w in plan.wanted], verify=True, meter=meter)
    losses = match.Losses()
    inspected = [
        Wanted(entry, chunk, None, losses.inspector(name, dtype))
        for entry, name, dtype in plan.narrowing
        for chunk in entry.chunks
    ]
    with metered("verify", sum(w.chunk.nbytes for w in inspected), None) as meter:
        read_chunks(source, inspected, verify=verify, meter=meter)
    if losses.found:
        lines = [f"  {name!r}: {reason}" for name, reason in losses.found.items()]
        raise CastError("\n".join(["these casts would change values beyond rounding; nothing was loaded:", *lines]))
