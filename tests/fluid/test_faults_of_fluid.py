"""The faults that the checkpoints of Fluid 0.14 had, each as a test that we must pass."""

import json
import shutil

import numpy as np
import pytest
from tests.fluid.models import batch, descend, regression, values

import holdfast
import holdfast.fluid as fluid


@pytest.fixture
def run(fresh, tmp_path):
    """(main, executor, run folder) of a small model that has been trained for a step."""
    main, startup, exe = fresh
    _, loss = regression()
    descend(loss)
    exe.run(startup)
    exe.run(main, feed=batch())
    return main, exe, tmp_path / "run"


def save(run, **options):
    main, exe, folder = run
    return fluid.io.save_checkpoint(exe, str(folder), 0, main_program=main, **options)


def test_a_trainer_other_than_the_first_does_not_land_in_another_serial(run):
    main, exe, folder = run
    save(run)
    with pytest.raises(ValueError, match="several trainers are not supported yet"):
        fluid.io.save_checkpoint(exe, str(folder), 1, {"step_id": 1}, main)

    assert holdfast.serials(folder) == [0]


@pytest.mark.parametrize("part", ["model.safetensors", "trainer_0.json", "manifest.json"])
def test_latest_looks_at_every_part(run, part):
    main, exe, folder = run
    save(run)
    save(run)
    (folder / "checkpoint_1" / part).unlink()

    if part == "manifest.json":
        assert fluid.io.get_latest_checkpoint_serial(str(folder)) == 0
    else:  # complete by its manifest, and found damaged by name
        with pytest.raises((holdfast.HoldfastError, OSError), match=part):
            fluid.io.load_checkpoint(exe, str(folder), 1, main)
    fluid.io.load_checkpoint(exe, str(folder), 0, main)


def test_looking_creates_nothing(run, tmp_path):
    main, exe, _ = run
    absent = tmp_path / "absent"
    assert fluid.io.get_latest_checkpoint_serial(str(absent)) == -1
    with pytest.raises(FileNotFoundError):
        fluid.io.load_checkpoint(exe, str(absent), 3, main)
    with pytest.raises(FileNotFoundError):
        fluid.io.load_trainer_args(str(absent), 3, 0, ["step_id"])

    assert not absent.exists()


@pytest.mark.parametrize("name", ["a_b_c", "noname", "backup_7", "checkpoint_x", "checkpoint_-1", "checkpoint_1_old"])
def test_foreign_folders_neither_stop_the_scan_nor_are_deleted(run, name):
    _, _, folder = run
    (folder / name).mkdir(parents=True)
    (folder / name / "mine").write_text("mine")
    serials = [save(run, max_num_checkpoints=1) for _ in range(3)]

    assert serials == [0, 1, 2]
    assert holdfast.serials(folder) == [2]
    assert (folder / name / "mine").read_text() == "mine"


def test_rotation_does_not_count_what_is_incomplete(run):
    _, _, folder = run
    save(run)
    shutil.copytree(folder / "checkpoint_0", folder / "checkpoint_8")
    (folder / "checkpoint_8" / "manifest.json").unlink()
    save(run, max_num_checkpoints=2)

    assert len(holdfast.serials(folder)) == 2
    assert 0 in holdfast.serials(folder)


def test_trainer_args_may_be_left_out(run):
    _, _, folder = run
    assert save(run) == 0
    assert holdfast.load_checkpoint({}, folder, strict="subset").trainer_args is None


def test_trainer_args_keep_their_types(run):
    _, _, folder = run
    given = {"epoch_id": 2, "rate": 0.1, "name": "digits", "done": False, "best": float("inf"), "shape": [1, 2]}
    save(run, trainer_args=given)

    assert fluid.io.load_trainer_args(str(folder), 0, 0, list(given)) == list(given.values())
    with pytest.raises(ValueError, match="lr"):
        fluid.io.load_trainer_args(str(folder), 0, 0, ["epoch_id", "lr"])


def test_a_program_that_does_not_match_loads_nothing_and_says_what_differs(run):
    _, exe, folder = run
    save(run)
    other, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(other, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        _, loss = regression(width=9)
        fluid.layers.fc(loss, 2)
        descend(loss)
        exe.run(startup)
        before = values(other)
        with pytest.raises(holdfast.MismatchError) as caught:
            fluid.io.load_checkpoint(exe, str(folder), 0, other)

        assert {p.name for p in caught.value.problems} >= {"fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_2.w_0", "fc_2.b_0"}
        for name, value in values(other).items():
            np.testing.assert_array_equal(before[name], value)


def test_a_crash_of_a_save_does_not_stop_later_ones(run):
    """In Fluid one folder without _SUCCESS makes every later save and resume a TypeError."""
    main, exe, folder = run
    save(run)
    (folder / "checkpoint_1" / "__model__").mkdir(parents=True)
    (folder / "checkpoint_1" / "__model__" / "fc_0.w_0").write_bytes(b"half")

    assert fluid.io.get_latest_checkpoint_serial(str(folder)) == 0
    serial = save(run)
    fluid.io.load_checkpoint(exe, str(folder), serial, main)
    assert json.loads((folder / f"checkpoint_{serial}" / "manifest.json").read_text())["serial"] == serial
