"""What a load is going to do, all of it, before it does any of it: every difference is found here, and nothing is changed.

Reads no values, but of variables that share memory in the target and so have to agree.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.adapters import kinds
from holdfast.adapters.late import late_variables
from holdfast.adapters.objects import references
from holdfast.adapters.state import Item, Scan, Value
from holdfast.adapters.ties import aliases_of, names_of_tied
from holdfast.engine import match
from holdfast.engine.arrays import overlaps_itself
from holdfast.engine.devices import AnyArray, Remote
from holdfast.engine.pause import collection_paused
from holdfast.engine.reader import Wanted
from holdfast.engine.report import LoadedVariable
from holdfast.engine.sharing import Target, same_bytes, same_values, sharing_problems
from holdfast.errors import CheckpointNotFoundError, FormatError, MismatchError, Problem
from holdfast.format.manifest import Entry
from holdfast.format.values import encode
from holdfast.reading import Checkpoint, is_bare, wanted_chunks
from holdfast.variables import Variable

_NO_MATCH = match.Match({}, (), (), ())


@dataclass(slots=True)
class LoadPlan:
    """What is read into what, and what is to be done after that.

    Attributes:
        wanted: chunks to read, and their targets.
        assign: to be called in this order once all is read.
        narrowing: variables whose values may not survive their cast; their name and dtype in the target.
        loaded: for the report.
        names, values: which variables and which values go where.
        filled: names of arrays that were saved as plain numbers.
        trainer_args: what the save was given.
    """

    wanted: list[Wanted] = field(default_factory=list)
    assign: list[Callable[[], None]] = field(default_factory=list)
    narrowing: list[tuple[Entry, str, str]] = field(default_factory=list)
    loaded: list[LoadedVariable] = field(default_factory=list)
    names: match.Match = _NO_MATCH
    values: match.Match = _NO_MATCH
    filled: tuple[str, ...] = ()
    trainer_args: Any = None


@collection_paused()
def plan_load(
    found: Scan,
    items: list[Item],
    entries: list[Entry],
    checkpoint: Checkpoint,
    rules: match.Rules,
    only: set[str] | None,
    trainer_id: int | None,
) -> LoadPlan:
    """Match a checkpoint with its target.

    Args:
        found: the target.
        items: those of its arrays that are meant.
        entries: those of the checkpoint's variables that are meant.
        checkpoint: is open.
        rules: how strictly all must match.
        only: names of variables that were chosen by name.
        trainer_id: whose arguments and values are loaded; None for variables only.

    Raises:
        MismatchError: with every difference.
        CheckpointNotFoundError: there are variables only, and a trainer's values are asked for.
        CorruptCheckpointError, FormatError, StorageError: as it is read.
    """
    planner = _Planner(found, items, entries, checkpoint, rules, only, trainer_id)
    planner.match_values()
    planner.match_variables()
    planner.plan_variables()
    planner.plan_late_variables()
    planner.check()
    planner.plan_values()
    return planner.plan


class _Planner:
    """One load, worked out step by step in the order of `plan_load`."""

    def __init__(
        self,
        found: Scan,
        items: list[Item],
        entries: list[Entry],
        checkpoint: Checkpoint,
        rules: match.Rules,
        only: set[str] | None,
        trainer_id: int | None,
    ) -> None:
        self.found, self.items, self.checkpoint, self.rules = found, items, checkpoint, rules
        self.only, self.trainer_id = only, trainer_id
        self.plan = LoadPlan()
        self.problems: list[Problem] = []
        self.by_name = {entry.name: entry for entry in entries}
        self.owners = {item.owner for item in items if item.owner is not None}
        self.files = [file.name for file in checkpoint.manifest.files]
        self.renamed = match.renaming([], rules.rename) if callable(rules.rename) else (lambda name: name)
        self.pieces: list[tuple[Value, Any]] = []  # values of the target that are replaced, and what by
        self.numbers: dict[str, Value] = {}  # plain numbers that were saved as arrays, by name in the checkpoint
        self.filled: dict[str, tuple[Item, np.ndarray]] = {}  # arrays that were saved as plain numbers
        self.refused: dict[str, list[str]] = {}  # objects that get nothing, and the arrays meant for them
        self.referred: dict[str, list[str]] = {}  # objects, and the arrays meant for them, by name in the checkpoint
        self.offered: dict[str, str] = {}  # name in the target's naming → name in the checkpoint
        self.called: dict[str, str] = {}  # name in the target → the one of its names that the checkpoint has
        self.arrays: dict[str, np.ndarray] = {}  # of objects, by name in the checkpoint
        self.own: dict[str, np.ndarray] = {}  # of objects, by name in the target
        self.sharing: list[Target] = []
        self.on_devices: dict[Hashable, list[Target]] = {}  # by the memory that they lie in
        self.slots: dict[tuple[int, Any], tuple[str, Entry]] = {}

    def match_values(self) -> None:
        """Pair the values of both sides, and look at each pair."""
        if self.trainer_id is None:
            return
        checkpoint, plan = self.checkpoint, self.plan
        if checkpoint.manifest.content != "checkpoint" or is_bare(checkpoint.manifest):
            raise CheckpointNotFoundError(
                f"{checkpoint.path} holds variables only, no checkpoint to resume from; load_params or load_vars reads it"
            )
        if not 0 <= self.trainer_id < checkpoint.manifest.world_size:
            raise ValueError(
                f"trainer_id={self.trainer_id}: {checkpoint.path} was saved by {checkpoint.manifest.world_size} trainer(s), "
                "counted from 0"
            )
        plan.trainer_args, held = checkpoint.trainer(self.trainer_id)
        targets = {value.name: value for value in self.found.values}
        tied = aliases_of(held)
        held = {name: value for name, value in held.items() if name not in tied or self.renamed(name) in targets}
        plan.values = match.match_names(list(held), list(targets), self.rules)
        if plan.values.missing:
            self.numbers, plan.values = kinds.arrays_into_numbers(plan.values, targets, self.by_name, self.renamed)
        if plan.values.unexpected:
            self.filled, plan.values = kinds.numbers_into_arrays(
                plan.values, held, self.items, self.by_name, self.renamed, self.problems
            )
            plan.filled = tuple(self.filled)
        moved: dict[str, str] = {}
        given: dict[Hashable, tuple[str, Any]] = {}
        for name, source in plan.values.pairs.items():
            value, content = targets[name], held[source]
            if value.localize is not None:
                # Optimizers name their variables after their parameters: where these are renamed, so are those.
                content, along = value.localize(content, self.renamed)
                moved |= along
            if value.identity is not None:
                other, before = given.setdefault(value.identity, (name, content))
                if not _same(before, content):
                    self._refuse_second(name, other)
                    self.refused[name] = references(content)
                    continue
            if reason := value.problem(content):
                self.problems.append(Problem("kind", name, f"{name!r}: {reason}"))
                self.refused[name] = references(content)
            else:
                self.pieces.append((value, content))
        self._numbers_of_one_thing(given)
        if moved:
            before_that = self.renamed
            self.renamed = lambda name: moved.get(name) or before_that(name)
            self.rules = dataclasses.replace(self.rules, rename=self.renamed)

    def _numbers_of_one_thing(self, given: dict[Hashable, tuple[str, Any]]) -> None:
        """What stands at two places of the target takes one value only, also where the checkpoint has it as arrays or numbers."""
        times = Counter(value.identity for value in self.numbers.values())
        for source, value in self.numbers.items():
            if value.identity is None or (times[value.identity] == 1 and value.identity not in given):
                continue  # most are: nothing is read for them
            content = self._read(self.by_name[source]).item()
            other, before = given.setdefault(value.identity, (value.name, content))
            if not _same(before, content):
                self._refuse_second(value.name, other)

    def _check_filled(self) -> None:
        """An array without dimensions that stands at two places of the target takes one value only, if it is given numbers."""
        given: dict[Hashable, tuple[str, Any]] = {}
        for name, (item, array) in self.filled.items():
            other, before = given.setdefault(_place(item), (name, array.item()))
            if not _same(before, array.item()):
                self._refuse_second(name, other)
        for item in self.items if given else ():
            name, source = item.variable.name, self.plan.names.pairs.get(self.called[item.variable.name])
            if source is not None and item.variable.shape == () and _place(item) in given:
                other, before = given[_place(item)]
                if not _same(before, self._read(self.by_name[source]).item()):
                    self._refuse_second(name, other)

    def _refuse_second(self, name: str, other: str) -> None:
        text = f"{name!r} is the same thing as {other!r}, but the checkpoint has two values for them"
        self.problems.append(Problem("unwritable", name, text))

    def match_variables(self) -> None:
        """Pair the names of both sides."""
        # Arrays that an object makes only later, as optimizers do, are no mismatch: it is given all that it had when it was saved.
        held_now = {item.variable.name for item in self.items if item.owner is not None}
        self.referred = {value.name: references(content) for value, content in self.pieces if value.is_object}
        for name, refs in self.referred.items():
            if absent := [r for r in refs if r not in self.by_name]:
                raise FormatError(
                    f"{self.checkpoint.path}: the value {name!r} refers to {absent[0]!r}, which is not in the checkpoint"
                )
        taken = {ref for refs in self.referred.values() for ref in refs if self.renamed(ref) not in held_now}
        taken |= {ref for refs in self.refused.values() for ref in refs}  # one reason for the object is enough
        self.offered = {
            self.renamed(name): name for name in self.by_name if name not in taken and name not in self.numbers
        }
        replacing = {value.name for value, _ in self.pieces if value.replaces}
        self.items = [
            item
            for item in self.items
            if (item.owner not in replacing or item.variable.name in self.offered)
            and item.owner not in self.refused
            and item.variable.name not in self.filled
        ]
        plan = self.plan
        self.called, spare = names_of_tied(
            self.items, self.offered, self.by_name, lambda a, b: same_values(a, b, self._read), self.problems
        )
        plan.names = match.match_names(
            [name for target, name in self.offered.items() if target not in spare],
            list(self.called.values()),
            self.rules,
        )
        if plan.names.missing:
            self._find_tied(self.checkpoint.aliases(self.trainer_id or 0))
        variables = {item.variable.name: item.variable for item in self.items}
        values = {value.name: value for value in self.found.values}
        held = self.checkpoint.trainer(self.trainer_id or 0)[1] if plan.values.unexpected else {}
        told, *rest = kinds.told_apart(plan.names, plan.values, held, self.by_name, values, variables, self.renamed)
        self.problems += told
        for names in rest:
            self.problems += match.name_problems(names, self.rules)

    def _find_tied(self, aliases: Mapping[str, str]) -> None:
        """Names that the checkpoint holds as second names of other variables: arrays that were tied, and are no longer."""
        names, only = self.plan.names, self.only
        tied = {self.renamed(alias): first for alias, first in aliases.items() if first in self.by_name}
        found = {name: tied[name] for name in names.missing if name in tied}
        missing = tuple(name for name in names.missing if name not in found)
        # Of what was chosen by name nothing is unexpected: it is there for its second name.
        unexpected = tuple(name for name in names.unexpected if only is None or name not in found.values())
        self.plan.names = dataclasses.replace(names, pairs=names.pairs | found, missing=missing, unexpected=unexpected)

    def plan_variables(self) -> None:
        """Compare each variable with its target, and say what is read into that."""
        for item in self.items:
            source = self.plan.names.pairs.get(self.called[item.variable.name])
            if source is None:
                continue
            entry = self.by_name[source]
            if problem := match.pair_problems(entry, item.variable, self.rules):
                self.problems.append(problem)
            else:
                self._plan_variable(item, entry)
        for source, value in self.numbers.items():
            number = np.empty((), dtypes.to_numpy(self.by_name[source].dtype))
            self._want(self.by_name[source], self.by_name[source].variable, number)
            self.plan.assign.append(lambda put=value.put, number=number: put(number.item(), {}))  # type: ignore[misc]
        self._check_filled()
        for item, array in self.filled.values():
            self.plan.assign.append(lambda item=item, array=array: kinds.fill(item, array))  # type: ignore[misc]

    def _plan_variable(self, item: Item, entry: Entry) -> None:
        variable = item.variable
        if item.remote and isinstance(remote := item.source, Remote) and item.in_place and _is_whole(entry):
            if reason := remote.unwritable():
                self._refuse(variable.name, f"the target's array {reason}")
                return
            storage, ghost = remote.place()
            self.on_devices.setdefault(storage, []).append(Target(variable.name, ghost, entry, variable.dtype))
            if item.owner is not None:
                # Its owner has it already; there is none to give.
                self.arrays[entry.name] = self.own[variable.name] = np.empty(0)
            self._want(entry, variable, remote)
            return
        target = item.array
        if item.access is not None or not item.in_place:
            target = np.empty(variable.shape, dtypes.to_numpy(variable.dtype))
        elif reason := _unwritable(target):
            self._refuse(variable.name, f"the target's array {reason}")
            return
        else:
            self.sharing.append(Target(variable.name, target, entry, variable.dtype))
        if item.owner is not None:
            self.arrays[entry.name] = self.own[variable.name] = target
        if item.access is not None and item.in_place:
            if item.access.slot is not None and (text := self._slot_problem(variable.name, entry, item.access.slot)):
                self.problems.append(Problem("unwritable", variable.name, text))
            self.plan.assign.append(lambda put=item.access.put, target=target: put(target))  # type: ignore[misc]
        self._want(entry, variable, target)

    def _refuse(self, name: str, reason: str) -> None:
        self.problems.append(Problem("unwritable", name, f"{name!r}: {reason}"))

    def _slot_problem(self, name: str, entry: Entry, slot: tuple[int, Any]) -> str | None:
        """Why a place in a dict, which may be in the state twice, cannot be given what it is to be given here too."""
        other, before = self.slots.setdefault(slot, (name, entry))
        if before is entry or same_bytes(before, entry):
            return None
        return (
            f"{name!r} stands in the same place as {other!r}, but the checkpoint has two values; copy one of them first"
        )

    def plan_late_variables(self) -> None:
        """What objects are given that they do not have yet."""
        names = {self.renamed(name) for name in self.by_name} | set(self.called)
        skipped = match.skipping(names, self.rules.skip)
        present = self._present()
        for value, content in self.pieces:
            refs = [ref for ref in self.referred.get(value.name, ()) if ref not in self.arrays]
            for ref in refs:
                if self.renamed(ref) in self.plan.names.skipped:
                    self.arrays[ref] = present[self.renamed(ref)].fetched().array
            late = [ref for ref in refs if ref not in self.arrays]
            made, wrong = late_variables(
                value, content, late, self.by_name, self._source_of, self.renamed, skipped, self.rules
            )
            self.problems += wrong
            for ref, variable in made.items():
                self.arrays[ref] = np.empty(variable.shape, dtypes.to_numpy(variable.dtype))
                self._want(self.by_name[ref], variable, self.arrays[ref])

    def _source_of(self, name: str) -> str | None:
        return self.offered.get(self.called.get(name, name))

    def _present(self) -> dict[str, Item]:
        """The arrays that objects have now."""
        return {item.variable.name: item for item in self.found.items if item.owner is not None}

    def check(self) -> None:
        """Raise all that was found."""
        problems = [*self.problems, *sharing_problems(self.sharing, self._read)]
        for targets in self.on_devices.values():
            if len(targets) > 1:
                problems += sharing_problems(targets, self._read)
        if not problems:
            return
        names, values = self.plan.names, self.plan.values
        sources, wanted = list(self.by_name), [item.variable.name for item in self.items]
        hints = match.hints(names, sources, wanted) or match.part_hints(
            names.missing + values.missing,
            names.unexpected + values.unexpected,
            [self.renamed(name) for name in (*sources, *values.pairs.values())],
            [*wanted, *values.pairs],
        )
        others = {e.name for e in self.checkpoint.manifest.variables if e.kind != "parameter"} - set(self.by_name)
        if others & set(self.plan.names.missing):
            hints.append(
                "The checkpoint has some of these names, but not as parameters: holdfast.parameters() marks those when they are "
                "saved; load_persistables or load_vars loads them as they are."
            )
        raise MismatchError(self.checkpoint.path, problems, hints)

    def plan_values(self) -> None:
        """What is assigned once all is read."""
        arrays, own, assign = self.arrays, self.own, self.plan.assign
        for value, content in self.pieces:
            assign.append(lambda put=value.put, content=content: put(content, arrays))  # type: ignore[misc]
        if self.trainer_id is not None:
            return
        # Only variables are loaded: an object gets its present values back, with the loaded arrays.
        present = self._present()
        for value in self.found.values:
            if value.is_object and value.name in self.owners:
                for name in references(value.value):
                    if name not in own:
                        own[name] = present[name].fetched().array
                assign.append(lambda put=value.put, content=value.value: put(content, own))  # type: ignore[misc]

    def _read(self, entry: Entry) -> np.ndarray:
        return self.checkpoint[entry.name][...]

    def _want(self, entry: Entry, variable: Variable, target: AnyArray) -> None:
        plan, casts = self.plan, entry.dtype != variable.dtype
        if casts and not match.can_widen(entry.dtype, variable.dtype):
            plan.narrowing.append((entry, variable.name, variable.dtype))
        if _is_whole(entry):
            plan.wanted.append(Wanted(entry, entry.chunks[0], target))
        else:
            assert isinstance(target, np.ndarray)
            plan.wanted += wanted_chunks(entry, target)
        file = self.files[entry.chunks[0].file]
        plan.loaded.append(
            LoadedVariable(variable.name, entry.name, file, entry.nbytes, entry.dtype if casts else None)
        )


def _unwritable(target: np.ndarray) -> str | None:
    if not target.flags.writeable:
        return "is read-only; copy it first"
    return "overlaps itself; copy it first" if overlaps_itself(target) else None


def _place(item: Item) -> Hashable:
    """Where an array without dimensions is, as something to compare."""
    if item.access is None:
        return item.array.ctypes.data
    return object() if item.access.slot is None else item.access.slot


def _is_whole(entry: Entry) -> bool:
    """Whether a variable lies in one piece in a file."""
    return len(entry.chunks) == 1 and entry.chunks[0].offset is None


def _same(a: Any, b: Any) -> bool:
    return repr(encode(a)) == repr(encode(b))  # NaN is NaN here, True is not 1, and no long array is cut short
