"""load_params, load_persistables, load_vars, load_checkpoint: open → match → validate everything → read → assign."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from holdfast import dtypes
from holdfast.adapters import kinds
from holdfast.adapters.late import late_variables
from holdfast.adapters.objects import references
from holdfast.adapters.state import Item, Scan, Value
from holdfast.adapters.ties import aliases_of, names_of_tied
from holdfast.adapters.tree import scan
from holdfast.engine import catalog, match
from holdfast.engine.arrays import overlaps_itself
from holdfast.engine.commit import storage_errors
from holdfast.engine.devices import AnyArray, Remote
from holdfast.engine.match import Cast, Rename, Strict
from holdfast.engine.pause import collection_paused
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.reader import Source, Wanted, raise_if_damaged, read_chunks, verify_header
from holdfast.engine.report import LoadedVariable, LoadReport, Outcome
from holdfast.engine.sharing import Target, same_bytes, same_values, sharing_problems
from holdfast.errors import (
    CastError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    Problem,
)
from holdfast.format import layout, manifest as manifests
from holdfast.format.manifest import Entry
from holdfast.reading import Checkpoint, is_bare, open_whole, read_listed, wanted_chunks
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


@dataclass(slots=True)
class _Plan:
    """All that a load is going to do, before it does any of it."""

    wanted: list[Wanted] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    narrowing: list[tuple[Entry, str, str]] = field(default_factory=list)  # variable, name and dtype in the target
    loaded: list[LoadedVariable] = field(default_factory=list)
    assign: list[Callable[[], None]] = field(default_factory=list)
    names: match.Match = field(default_factory=lambda: match.Match({}, (), (), ()))
    values: match.Match = field(default_factory=lambda: match.Match({}, (), (), ()))
    numbers: dict[str, Value] = field(default_factory=dict)  # plain numbers that were saved as arrays, by name there
    filled: dict[str, tuple[Item, np.ndarray]] = field(default_factory=dict)  # arrays that were saved as plain numbers
    refused: dict[str, list[str]] = field(
        default_factory=dict
    )  # objects that get nothing, and the arrays meant for them
    moved: dict[str, str] = field(default_factory=dict)  # further renames, of what optimizers name after parameters
    trainer_args: Any = None


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
            plan = _plan(found, items, entries, checkpoint, rules, only, trainer_id)
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


@collection_paused()
def _plan(
    found: Scan,
    items: list[Item],
    entries: list[Entry],
    checkpoint: Checkpoint,
    rules: match.Rules,
    only: set[str] | None,
    trainer_id: int | None,
) -> _Plan:
    plan = _Plan(files=[file.name for file in checkpoint.manifest.files])
    problems: list[Problem] = []
    by_name = {entry.name: entry for entry in entries}
    renamed = match.renaming([], rules.rename) if callable(rules.rename) else (lambda name: name)
    pieces = _values_of(found, items, checkpoint, rules, renamed, by_name, trainer_id, plan, problems)
    if plan.moved:
        before = renamed
        renamed = lambda name: plan.moved.get(name) or before(name)  # noqa: E731
        rules = dataclasses.replace(rules, rename=renamed)

    # Arrays that an object makes only later, as optimizers do, are no mismatch: it is given all that it had when it was saved.
    owners = {item.owner for item in items if item.owner is not None}
    held_now = {item.variable.name for item in items if item.owner is not None}
    referred = {value.name: references(content) for value, content in pieces if value.is_object}
    for name, refs in referred.items():
        if absent := [r for r in refs if r not in by_name]:
            raise FormatError(
                f"{checkpoint.path}: the value {name!r} refers to {absent[0]!r}, which is not in the checkpoint"
            )
    taken = {ref for refs in referred.values() for ref in refs if renamed(ref) not in held_now}
    taken |= {ref for refs in plan.refused.values() for ref in refs}  # one reason for the object is enough
    offered = {renamed(name): name for name in by_name if name not in taken and name not in plan.numbers}
    replacing = {value.name for value, _ in pieces if value.replaces}
    items = [
        item
        for item in items
        if (item.owner not in replacing or item.variable.name in offered)
        and item.owner not in plan.refused
        and item.variable.name not in plan.filled
    ]
    read = lambda entry: checkpoint[entry.name][...]  # noqa: E731
    called, spare = names_of_tied(items, offered, by_name, lambda a, b: same_values(a, b, read), problems)
    plan.names = match.match_names(
        [name for target, name in offered.items() if target not in spare], list(called.values()), rules
    )
    if plan.names.missing:
        _find_tied(plan, checkpoint.aliases(trainer_id or 0), by_name, renamed, only)
    variables = {item.variable.name: item.variable for item in items}
    values = {value.name: value for value in found.values}
    held = checkpoint.trainer(trainer_id or 0)[1] if plan.values.unexpected else {}
    told, *rest = kinds.told_apart(plan.names, plan.values, held, by_name, values, variables, renamed)
    problems += told
    for names in rest:
        problems += match.name_problems(names, rules)

    arrays: dict[str, np.ndarray] = {}  # of objects, by name in the checkpoint
    own: dict[str, np.ndarray] = {}  # of objects, by name in the target
    sharing: list[Target] = []
    on_devices: dict[Hashable, list[Target]] = {}  # by the memory that they lie in
    slots: dict[tuple[int, Any], tuple[str, Entry]] = {}
    for item in items:
        variable = item.variable
        source = plan.names.pairs.get(called[variable.name])
        if source is None:
            continue
        entry = by_name[source]
        if problem := match.pair_problems(entry, variable, rules):
            problems.append(problem)
            continue
        if item.remote and isinstance(remote := item.source, Remote) and item.in_place and _is_whole(entry):
            if reason := remote.unwritable():
                problems.append(Problem("unwritable", variable.name, f"{variable.name!r}: the target's array {reason}"))
                continue
            storage, ghost = remote.place()
            on_devices.setdefault(storage, []).append(Target(variable.name, ghost, entry, variable.dtype))
            if item.owner is not None:
                arrays[source] = own[variable.name] = np.empty(0)  # its owner has it already; there is none to give
            _want(plan, entry, variable, remote)
            continue
        target = item.array
        if item.access is not None or not item.in_place:
            target = np.empty(variable.shape, dtypes.to_numpy(variable.dtype))
        elif reason := _unwritable(target):
            problems.append(Problem("unwritable", variable.name, f"{variable.name!r}: the target's array {reason}"))
            continue
        else:
            sharing.append(Target(variable.name, target, entry, variable.dtype))
        if item.owner is not None:
            arrays[source] = own[variable.name] = target
        if item.access is not None and item.in_place:
            if item.access.slot is not None and (text := _slot_problem(variable.name, entry, slots, item.access.slot)):
                problems.append(Problem("unwritable", variable.name, text))
            plan.assign.append(lambda put=item.access.put, target=target: put(target))  # type: ignore[misc]
        _want(plan, entry, variable, target)
    for source, value in plan.numbers.items():
        number = np.empty((), dtypes.to_numpy(by_name[source].dtype))
        _want(plan, by_name[source], by_name[source].variable, number)
        plan.assign.append(lambda put=value.put, number=number: put(number.item(), {}))  # type: ignore[misc]
    present = {item.variable.name: item for item in found.items if item.owner is not None}
    for item, array in plan.filled.values():
        plan.assign.append(lambda item=item, array=array: kinds.fill(item, array))  # type: ignore[misc]
    source_of = lambda name: offered.get(called.get(name, name))  # noqa: E731
    skipped = match.skipping({renamed(name) for name in by_name} | set(called), rules.skip)
    for value, content in pieces:
        refs = [ref for ref in referred.get(value.name, ()) if ref not in arrays]
        for ref in refs:
            if renamed(ref) in plan.names.skipped:
                arrays[ref] = present[renamed(ref)].fetched().array
        late = [ref for ref in refs if ref not in arrays]
        made, wrong = late_variables(value, content, late, by_name, source_of, renamed, skipped, rules)
        problems += wrong
        for ref, variable in made.items():
            arrays[ref] = np.empty(variable.shape, dtypes.to_numpy(variable.dtype))
            _want(plan, by_name[ref], variable, arrays[ref])
    problems += sharing_problems(sharing, read)
    problems += [p for targets in on_devices.values() if len(targets) > 1 for p in sharing_problems(targets, read)]
    if problems:
        hints = match.hints(plan.names, list(by_name), [i.variable.name for i in items])
        others = {e.name for e in checkpoint.manifest.variables if e.kind != "parameter"} - set(by_name)
        if others & set(plan.names.missing):
            hints.append(
                "The checkpoint has some of these names, but not as parameters: holdfast.parameters() marks those when they are "
                "saved; load_persistables or load_vars loads them as they are."
            )
        raise MismatchError(checkpoint.path, problems, hints)

    for value, content in pieces:
        plan.assign.append(lambda put=value.put, content=content: put(content, arrays))  # type: ignore[misc]
    if trainer_id is None:
        # Only variables are loaded: an object gets its present values back, with the loaded arrays.
        for value in found.values:
            if value.is_object and value.name in owners:
                for name in references(value.value):
                    if name not in own:
                        own[name] = present[name].fetched().array
                plan.assign.append(lambda put=value.put, content=value.value: put(content, own))  # type: ignore[misc]
    return plan


def _find_tied(
    plan: _Plan,
    aliases: Mapping[str, str],
    by_name: Mapping[str, Entry],
    renamed: Callable[[str], str],
    only: set[str] | None,
) -> None:
    """Names that the checkpoint holds as second names of other variables: arrays that were tied, and are no longer."""
    tied = {renamed(alias): first for alias, first in aliases.items() if first in by_name}
    found = {name: tied[name] for name in plan.names.missing if name in tied}
    missing = tuple(name for name in plan.names.missing if name not in found)
    # Of what was chosen by name nothing is unexpected: it is there for its second name.
    unexpected = tuple(name for name in plan.names.unexpected if only is None or name not in found.values())
    plan.names = dataclasses.replace(plan.names, pairs=plan.names.pairs | found, missing=missing, unexpected=unexpected)


def _slot_problem(
    name: str, entry: Entry, slots: dict[tuple[int, Any], tuple[str, Entry]], slot: tuple[int, Any]
) -> str | None:
    """Why a place in a dict, which may be in the state twice, cannot be given what it is to be given here too."""
    other, before = slots.setdefault(slot, (name, entry))
    if before is entry or same_bytes(before, entry):
        return None
    return f"{name!r} stands in the same dict or list as {other!r}, but the checkpoint has two values; copy one of them first"


def _unwritable(target: np.ndarray) -> str | None:
    if not target.flags.writeable:
        return "is read-only; copy it first"
    return "overlaps itself; copy it first" if overlaps_itself(target) else None


def _is_whole(entry: Entry) -> bool:
    """Whether a variable lies in one piece in a file."""
    return len(entry.chunks) == 1 and entry.chunks[0].offset is None


def _want(plan: _Plan, entry: Entry, variable: Variable, target: AnyArray) -> None:
    casts = entry.dtype != variable.dtype
    if casts and not match.can_widen(entry.dtype, variable.dtype):
        plan.narrowing.append((entry, variable.name, variable.dtype))
    if _is_whole(entry):
        plan.wanted.append(Wanted(entry, entry.chunks[0], target))
    else:
        assert isinstance(target, np.ndarray)
        plan.wanted += wanted_chunks(entry, target)
    plan.loaded.append(
        LoadedVariable(
            variable.name, entry.name, plan.files[entry.chunks[0].file], entry.nbytes, entry.dtype if casts else None
        )
    )


def _values_of(
    found: Scan,
    items: list[Item],
    checkpoint: Checkpoint,
    rules: match.Rules,
    renamed: Callable[[str], str],
    by_name: Mapping[str, Entry],
    trainer_id: int | None,
    plan: _Plan,
    problems: list[Problem],
) -> list[tuple[Value, Any]]:
    """The values of the target that are to be replaced, and what by."""
    if trainer_id is None:
        return []
    if checkpoint.manifest.content != "checkpoint" or is_bare(checkpoint.manifest):
        raise CheckpointNotFoundError(
            f"{checkpoint.path} holds variables only, no checkpoint to resume from; load_params or load_vars reads it"
        )
    if not 0 <= trainer_id < checkpoint.manifest.world_size:
        raise ValueError(
            f"trainer_id={trainer_id}: {checkpoint.path} was saved by {checkpoint.manifest.world_size} trainer(s), counted from 0"
        )
    plan.trainer_args, held = checkpoint.trainer(trainer_id)
    targets = {value.name: value for value in found.values}
    tied = aliases_of(held)
    held = {name: value for name, value in held.items() if name not in tied or renamed(name) in targets}
    plan.values = match.match_names(list(held), list(targets), rules)
    if plan.values.missing:
        plan.numbers, plan.values = kinds.arrays_into_numbers(plan.values, targets, by_name, renamed)
    if plan.values.unexpected:
        found_arrays = kinds.numbers_into_arrays(plan.values, held, items, by_name, renamed, problems)
        plan.filled, plan.values = found_arrays
    pieces: list[tuple[Value, Any]] = []
    given: dict[Hashable, tuple[str, Any]] = {}
    for name, source in plan.values.pairs.items():
        value, content = targets[name], held[source]
        if value.localize is not None:
            # Optimizers name their variables after their parameters: where these are renamed, so are those.
            content, moved = value.localize(content, renamed)
            plan.moved |= moved
        if value.identity is not None:
            other, before = given.setdefault(value.identity, (name, content))
            if not _same(before, content):
                text = f"{name!r} is the same thing as {other!r}, but the checkpoint has two values for them"
                problems.append(Problem("unwritable", name, text))
                plan.refused[name] = references(content)
                continue
        if reason := value.problem(content):
            problems.append(Problem("kind", name, f"{name!r}: {reason}"))
            plan.refused[name] = references(content)
        else:
            pieces.append((value, content))
    return pieces


def _same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)  # NaN is NaN here, and True is not 1


def _check_in_advance(
    source: Source, plan: _Plan, all_files: bool, verify: bool, everything: bool, progress: ProgressOption
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
