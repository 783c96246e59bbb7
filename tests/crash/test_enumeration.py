"""Promise 1 by enumeration: a crash at every prefix of every call that changes a run folder or a folder of parameters.

Each scenario does its call for real with the recorder in place of `os`, and then checks every state that the disk model
can make of the log. `test_broken_commits.py` does the opposite: it breaks the logs and demands that the checks notice.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

import pytest

import holdfast

from .promise import HIDDEN, ParamsNote, RunNote, state_of
from .scenario import Scenario, check_both, check_the_model, check_the_run

# --- run folders -------------------------------------------------------------------------------------------------


def test_crash_in_the_first_save_into_an_absent_folder(scenario: Scenario):
    note = RunNote(saved={}).saving(1)
    with scenario.recording(note) as recorder:
        assert scenario.save(1) == 0
        recorder.note(note.done())

    scenario.prove("first save, into an absent folder", check_the_run)


def test_crash_in_a_save_that_rotates(scenario: Scenario):
    note = scenario.given(1, 2).saving(3, retires=(0,))
    with scenario.recording(note) as recorder:
        assert scenario.save(3, keep=2) == 2
        recorder.note(note.done())

    assert holdfast.serials(scenario.run) == [1, 2]
    scenario.prove("third save, with rotation", check_the_run)


@pytest.mark.parametrize("mode", ["copy", "stream"])
def test_crash_in_an_asynchronous_save_that_rotates(scenario: Scenario, mode: Literal["copy", "stream"]):
    note = scenario.given(1, 2).saving(3, retires=(0,))
    with scenario.recording(note) as recorder:
        assert scenario.save_beside(3, keep=2, mode=mode) == 2
        recorder.note(note.done())

    scenario.prove(f"asynchronous save, snapshot={mode}, with rotation", check_the_run)


def test_crash_in_a_save_that_links_to_the_checkpoint_it_retires(scenario: Scenario):
    """The frozen file outlives every name but the newest: the link must be durable before the older name may go."""
    note = scenario.given(1).saving(2, retires=(0,))
    with scenario.recording(note) as recorder:
        assert scenario.save(2, keep=1) == 1
        recorder.note(note.done())
    assert recorder.calls.count("link") == 1

    scenario.prove("save that links, and retires what it links to", check_the_run)
    second = note.done().saving(3, retires=(1,))
    with scenario.recording(replace(second, required=frozenset())) as recorder:
        assert scenario.save_beside(3, keep=1) == 2
        recorder.note(second.done())
    assert recorder.calls.count("link") == 1
    scenario.prove("the next one, asynchronous", check_the_run)


def test_power_cut_after_a_killed_save_and_one_that_links_to_it(scenario: Scenario):
    """The second save links to what the killed one renamed into place: its data were synced before, whatever its name was."""
    with scenario.recording(scenario.given(1)):
        scenario.save(2)

    for second, recorder in scenario.after_kills():
        committed = 1 in holdfast.serials(second.run)
        saved = {0: 1, 1: 2, 2: 3} if committed else {0: 1, 1: 3}
        first = len(recorder.log)
        for manifest in second.run.glob("*/manifest.json"):
            os.utime(manifest)  # the last file of a save, which this disk was not filled by
        with second.recording(RunNote(saved, frozenset({0})), recorder):
            assert second.save(3) == max(saved)
            recorder.note(RunNote(saved, frozenset({0, max(saved)})))
        assert recorder.calls.count("link") == 1
        second.prove("save that links to a killed one", check_the_run, first=first + 1, subsets=1, singles=2)


def test_crash_in_a_save_of_a_manager_with_keep_rules(scenario: Scenario):
    manager = holdfast.CheckpointManager(scenario.run, max_to_keep=1, keep_period=10, best=("loss", "min"))
    losses = {10: 5.0, 11: 1.0, 12: 4.0}  # the period keeps 10, the metric 11, being the newest 12
    for step, loss in losses.items():
        manager.save(state_of(step), step, metrics={"loss": loss}, trainer_args={"step": step})
    assert manager.all_steps() == [10, 11, 12]
    note = RunNote(saved={0: 10, 1: 11, 2: 12}, required=frozenset({0, 1, 2})).saving(13, retires=(2,))
    with scenario.recording(note) as recorder:
        assert manager.save(state_of(13), 13, metrics={"loss": 2.0}, trainer_args={"step": 13}).result() == 3
        recorder.note(note.done())

    assert manager.all_steps() == [10, 11, 13]
    scenario.prove("save of a manager with keep rules", check_the_run)


def test_crash_in_pin(scenario: Scenario):
    note = replace(scenario.given(1, 2, 3), recovery_keeps=1)
    with scenario.recording(note) as recorder:
        holdfast.pin(scenario.run, 1)
        recorder.note(replace(note, pinned=frozenset({1})))

    scenario.prove("pin", check_the_run)


def test_crash_in_unpin(scenario: Scenario):
    note = replace(scenario.given(1, 2, 3), recovery_keeps=1)
    holdfast.pin(scenario.run, 1)
    with scenario.recording(note) as recorder:
        holdfast.unpin(scenario.run, 1)
        recorder.note(note)

    scenario.prove("unpin", check_the_run)


def test_crash_in_prune(scenario: Scenario):
    note = scenario.given(1, 2, 3, 4)
    holdfast.pin(scenario.run, 0)
    with scenario.recording(replace(note, required=frozenset({0, 3}))) as recorder:
        holdfast.prune(scenario.run, keep=1)
        recorder.note(replace(note, required=frozenset({0, 3}), pinned=frozenset({0})))

    assert holdfast.serials(scenario.run) == [0, 3]
    scenario.prove("prune", check_the_run)


@pytest.mark.parametrize("delete_dir", [False, True])
def test_crash_in_clean_checkpoint(scenario: Scenario, delete_dir: bool):
    note = replace(scenario.given(1, 2, 3), required=frozenset())
    with scenario.recording(note):
        holdfast.clean_checkpoint(scenario.run, delete_dir=delete_dir)

    assert holdfast.serials(scenario.run) == []
    scenario.prove("clean_checkpoint", check_the_run)


def test_crash_in_export(scenario: Scenario):
    run = scenario.given(1, 2)
    model = ParamsNote(allowed=frozenset({1}), required=False)
    with scenario.recording((run, model)) as recorder:
        holdfast.export(scenario.run, scenario.model, serial=0)
        recorder.note((run, replace(model, required=True)))

    scenario.prove("export", check_both)


# --- folders of parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", [True, False])
def test_crash_in_the_first_save_params(request: pytest.FixtureRequest, exchange: bool):
    scenario: Scenario = request.getfixturevalue("scenario" if exchange else "plain_scenario")
    note = ParamsNote(allowed=frozenset({1}), required=False)
    with scenario.recording(note) as recorder:
        holdfast.save_params(state_of(1), scenario.model)
        recorder.note(replace(note, required=True))

    scenario.prove("first save_params", check_the_model)


def test_crash_in_save_params_by_exchange(scenario: Scenario):
    note = scenario.given_model(1)
    with scenario.recording(replace(note, allowed=frozenset({1, 2}))) as recorder:
        holdfast.save_params(state_of(2), scenario.model)
        recorder.note(replace(note, allowed=frozenset({2})))

    assert "renameat2" in recorder.calls
    scenario.prove("save_params over an older one, exchanged", check_the_model)


def test_crash_in_save_params_by_two_renames(plain_scenario: Scenario):
    scenario = plain_scenario
    note = scenario.given_model(1)
    with scenario.recording(replace(note, allowed=frozenset({1, 2}))) as recorder:
        holdfast.save_params(state_of(2), scenario.model)
        recorder.note(replace(note, allowed=frozenset({2})))

    assert any(".previous-" in str(operation) for operation in recorder.log)
    scenario.prove("save_params over an older one, two renames", check_the_model)


# --- one crash after another -------------------------------------------------------------------------------------


def test_crash_in_the_save_after_a_crash(scenario: Scenario):
    """The save that cleans up is itself cut off: attempts and trash of the first crash are there, all durable."""
    note = scenario.given(1, 2).saving(3, retires=(0,))
    with scenario.recording(note):
        scenario.save(3, keep=2)
    dirty = [s for s in scenario.states() if any(name in path for path in s.snapshot for name in HIDDEN)]
    trash = [s for s in dirty if any(".trash-" in path for path in s.snapshot)]

    for state in [*dirty[:: len(dirty) // 2 + 1], *trash[:: len(trash) // 2 + 1]]:
        second = scenario.another(state.snapshot)
        listed = holdfast.serials(second.run)
        saved = {serial: note.saved[serial] for serial in listed}
        after = RunNote(saved, required=frozenset(listed)).saving(4, retires=tuple(listed[:-1]))
        with second.recording(after) as recorder:
            assert second.save(4, keep=2) == max(after.saved)
            recorder.note(replace(after, until=(), required=frozenset(sorted(after.saved)[-2:])))
        second.prove("save after a crash", check_the_run, subsets=1, singles=2)


# A process is killed, and what it had not synced lives on in the page cache: the next call builds on it, and then the
# power fails. No call may take anything for durable because it is visible, be it the run folder that the dead process
# made, a checkpoint that it had renamed, or the trash that it had not yet deleted.


def test_power_cut_after_a_killed_first_save_and_another_save(scenario: Scenario):
    with scenario.recording(RunNote(saved={})):
        scenario.save(1)

    for second, recorder in scenario.after_kills():
        with second.recording(RunNote(saved={}), recorder):
            serial = second.save(2, keep=1)
            recorder.note(RunNote(saved={0: 1} | {serial: 2}, required=frozenset({serial})))
        second.prove("save after a killed first save", check_the_run, first=len(recorder.log))


def test_power_cut_after_a_killed_rotation_and_another_save(scenario: Scenario):
    with scenario.recording(scenario.given(1, 2)):
        scenario.save(3, keep=2)

    for second, recorder in scenario.after_kills():
        committed = 2 in holdfast.serials(second.run)
        saved = {0: 1, 1: 2, 2: 3, 3: 4} if committed else {0: 1, 1: 2, 2: 4}
        until = ((0, 2), (1, 3)) if committed else ((0, 2),)
        note = RunNote(saved, frozenset() if committed else frozenset({1}), until)
        first = len(recorder.log)
        with second.recording(note, recorder):
            assert second.save(4, keep=2) == max(saved)
            recorder.note(RunNote(saved, required=frozenset({max(saved) - 1, max(saved)})))
        second.prove("save after a killed rotation", check_the_run, first=first + 1, subsets=1, singles=2)


def test_power_cut_after_a_killed_save_and_a_prune(scenario: Scenario):
    with scenario.recording(scenario.given(1)):
        scenario.save(2)

    for second, recorder in scenario.after_kills():
        note = RunNote({0: 1, 1: 2}, until=((0, 1),))
        first = len(recorder.log)
        with second.recording(note, recorder):
            holdfast.prune(second.run, keep=1)
        second.prove("prune after a killed save", check_the_run, first=first + 1, subsets=1, singles=4)


@pytest.mark.parametrize("exchange", [True, False])
def test_power_cut_after_a_killed_save_params_and_another(request: pytest.FixtureRequest, exchange: bool):
    scenario: Scenario = request.getfixturevalue("scenario" if exchange else "plain_scenario")
    with scenario.recording(scenario.given_model(1)):
        holdfast.save_params(state_of(2), scenario.model)

    for second, recorder in scenario.after_kills():
        first = len(recorder.log)
        with second.recording(ParamsNote(allowed=frozenset({1, 2, 3})), recorder):
            holdfast.save_params(state_of(3), second.model)
            recorder.note(ParamsNote(allowed=frozenset({3})))
        second.prove("save_params after a killed one", check_the_model, first=first + 1, subsets=1, singles=2)
