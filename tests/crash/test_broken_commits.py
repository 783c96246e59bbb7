"""The proof can fail: a commit that forgets a sync, or does things in the wrong order, is found out.

Each test breaks the log of a correct save in one place, as a broken program would have written it, and demands that the
enumeration reports a violation. A checker that lets one of these pass proves nothing in `test_enumeration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

import holdfast

from .disk import Entries, Note, Operation, Sync, Tree, Write
from .promise import RunNote, Violation, in_memory, state_of
from .scenario import Check, Scenario, check_the_model, check_the_run, judge

Log = list[Operation]
Break = Callable[[Log, Tree], Log]


def violations(scenario: Scenario, log: Log, check: Check) -> None:
    """Check every state of a log; a `Violation` comes from the first that is wrong."""
    # Before that, a program that reads the folder sees what it held at the start.
    first = min(position(log, start) for start in ("checkpoint_", ".trash-", "pinned", "digits"))
    for state in scenario.states(log, first=first):
        judge(state, check, in_memory(state.snapshot, exchange=scenario.exchange))


@pytest.fixture
def rotation(scenario: Scenario) -> Scenario:
    """A recorded save that retires serial 0 and makes serial 2."""
    note = scenario.given(1, 2).saving(3, retires=(0,))
    with scenario.recording(note) as recorder:
        scenario.save(3, keep=2)
        recorder.note(note.done())
    return scenario


@pytest.fixture
def first_save(scenario: Scenario) -> Scenario:
    """A recorded save into an absent folder."""
    note = RunNote(saved={}).saving(1)
    with scenario.recording(note) as recorder:
        scenario.save(1)
        recorder.note(note.done())
    return scenario


def named(log: Sequence[Operation], start: str, end: str = "") -> set[int]:
    """The inodes that got a name with this beginning and end."""
    changes = [change for operation in log if isinstance(operation, Entries) for change in operation.changes]
    return {inode for name, inode in changes if inode and name.startswith(start) and name.endswith(end)}


def position(log: Sequence[Operation], start: str) -> int:
    """Where the first change of a folder stands that gives or takes a name with this beginning; else the log's end."""
    for place, operation in enumerate(log):
        if isinstance(operation, Entries) and any(name.startswith(start) for name, _ in operation.changes):
            return place
    return len(log)


def concerns(operation: Operation, inodes: set[int]) -> bool:
    """Whether an operation changes, names or syncs one of these files."""
    if isinstance(operation, Entries):
        return any(inode in inodes for _, inode in operation.changes)
    return not isinstance(operation, Note) and operation.inode in inodes


def without_syncs_of(inodes: Callable[[Log, Tree], set[int]]) -> Break:
    return lambda log, start: [o for o in log if not (isinstance(o, Sync) and o.inode in inodes(log, start))]


def parent_of(name: str) -> Callable[[Log, Tree], set[int]]:
    return lambda log, _: {
        o.folder for o in log if isinstance(o, Entries) and any(n.startswith(name) for n, _ in o.changes)
    }


def moved(log: Log, source: int, target: int) -> Log:
    """The log with one operation at another place."""
    log = list(log)
    log.insert(target, log.pop(source))
    return log


def reordered(log: Log, which: Callable[[Operation], bool], target: int) -> Log:
    """The log with some operations, in their order, at another place."""
    rest = [[o for o in part if not which(o)] for part in (log[:target], log[target:])]
    return [*rest[0], *(o for o in log if which(o)), *rest[1]]


DAMAGED, LOST, TOO_EARLY = "CorruptCheckpointError", "not listed", "retired before 2 was durable"
BREAKS: dict[str, tuple[str, Break]] = {
    "no file is synced": (DAMAGED, without_syncs_of(lambda log, _: {o.inode for o in log if isinstance(o, Write)})),
    "the parameters are not synced": (DAMAGED, without_syncs_of(lambda log, _: named(log, "model"))),
    "the state is not synced": (DAMAGED, without_syncs_of(lambda log, _: named(log, "state-"))),
    "the trainer's file is not synced": (DAMAGED, without_syncs_of(lambda log, _: named(log, "trainer_"))),
    "the manifest is not synced": (TOO_EARLY, without_syncs_of(lambda log, _: named(log, "manifest.json"))),
    "the attempt's folder is not synced": (TOO_EARLY, without_syncs_of(lambda log, _: named(log, ".attempt-"))),
    "the run folder is not synced": (TOO_EARLY, without_syncs_of(parent_of("checkpoint_"))),
    "the files are synced after the rename": (
        DAMAGED,
        lambda log, _: reordered(
            log,
            lambda o: isinstance(o, Sync) and o.inode in named(log, "", ".safetensors"),
            position(log, "checkpoint_2") + 1,
        ),
    ),
    # A rename that comes early is harmless alone, as a checkpoint without a manifest is none.
    "rename and manifest come before the data": (
        DAMAGED,
        lambda log, _: reordered(
            moved(log, position(log, "checkpoint_2"), position(log, ".attempt-") + 1),
            lambda o: concerns(o, named(log, "manifest.json")),
            position(log, ".attempt-") + 1,
        ),
    ),
    "the report comes before the commit": (
        LOST,
        lambda log, _: moved(log, len(log) - 1, position(log, "checkpoint_2")),
    ),
    "the old one is retired before the commit": (
        TOO_EARLY,
        lambda log, _: moved(log, position(log, ".trash-0"), position(log, "checkpoint_2")),
    ),
    "the old one is retired before the commit is durable": (
        TOO_EARLY,
        lambda log, _: moved(log, position(log, ".trash-0"), position(log, "checkpoint_2") + 1),
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_broken_save_is_found_out(rotation: Scenario, how: str):
    found, break_it = BREAKS[how]
    broken = break_it(rotation.recorder.log, rotation.recorder.start)
    assert broken != rotation.recorder.log

    with pytest.raises(Violation, match=found):
        violations(rotation, broken, check_the_run)


@pytest.mark.parametrize("folder", ["runs", "digits"])
def test_first_save_that_does_not_sync_a_parent_of_the_run_folder_is_found_out(first_save: Scenario, folder: str):
    log, start = first_save.recorder.log, first_save.recorder.start
    broken = without_syncs_of(parent_of(folder))(log, start)
    assert broken != log

    with pytest.raises(Violation, match="not listed"):
        violations(first_save, broken, check_the_run)


def test_pin_that_does_not_sync_the_folder_is_found_out(scenario: Scenario):
    note = replace(scenario.given(1, 2, 3), recovery_keeps=1)
    with scenario.recording(note) as recorder:
        holdfast.pin(scenario.run, 1)
        recorder.note(replace(note, pinned=frozenset({1})))
    broken = without_syncs_of(parent_of("pinned"))(recorder.log, recorder.start)
    assert broken != recorder.log

    with pytest.raises(Violation, match="lost"):
        violations(scenario, broken, check_the_run)


def replaced_by_exchange(scenario: Scenario) -> Log:
    note = scenario.given_model(1)
    with scenario.recording(replace(note, allowed=frozenset({1, 2}))) as recorder:
        holdfast.save_params(state_of(2), scenario.model)
        recorder.note(replace(note, allowed=frozenset({2})))
    return recorder.log


def test_replacing_parameters_by_delete_and_rename_is_found_out(scenario: Scenario):
    log = replaced_by_exchange(scenario)
    place = position(log, "digits")
    exchange = log[place]
    assert isinstance(exchange, Entries)
    (attempt, _), (name, new) = sorted(exchange.changes)
    broken: Log = [
        *log[:place],
        Entries(exchange.folder, ((name, None),)),
        Entries(exchange.folder, ((attempt, None), (name, new))),
        *log[place + 1 :],
    ]

    with pytest.raises(Violation, match="no parameters are found"):
        violations(scenario, broken, check_the_model)


def test_deleting_the_old_parameters_before_the_exchange_is_durable_is_found_out(scenario: Scenario):
    log = replaced_by_exchange(scenario)
    place = position(log, "digits")
    broken = [*log[:place], *(o for o in log[place:] if not isinstance(o, Sync))]

    with pytest.raises(Violation):
        violations(scenario, broken, check_the_model)


def test_parameters_that_are_not_synced_before_the_exchange_are_found_out(scenario: Scenario):
    log = replaced_by_exchange(scenario)
    broken = without_syncs_of(lambda log, _: {o.inode for o in log if isinstance(o, Write)})(log, Tree())

    with pytest.raises(Violation, match=r"do not load|are not those|are found"):
        violations(scenario, broken, check_the_model)
