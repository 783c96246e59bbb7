"""save_checkpoint, load_checkpoint and what belongs to them."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.trained import Trained, batches

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import CheckpointNotFoundError, MismatchError, UnsupportedVariableError

TREE = Path(__file__).parents[2] / "fixtures/fluid-1.8.5/checkpoint_layout/model"


@pytest.fixture(scope="module")
def shared():
    return Trained()


def save(net, run, *args, **kwargs):
    with fluid.scope_guard(net.scope):
        return fluid.io.save_checkpoint(net.exe, run, 0, *args, main_program=net.main, **kwargs)


@pytest.mark.parametrize("steps", [0, 4])
def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path, steps):
    net = Trained(steps)
    save(net, tmp_path / "run", {"epoch_id": 1})
    losses = net.train(batches(4, seed=1))

    other = Trained(steps=1, seed=99)
    with fluid.scope_guard(other.scope):
        fluid.io.load_checkpoint(other.exe, tmp_path / "run", 0, other.main)
    assert other.train(batches(4, seed=1)) == losses
    assert other.values() == net.values()


def test_checkpoint_holds_every_persistable_and_the_state_of_chance(shared, tmp_path):
    save(shared, tmp_path / "run")

    with holdfast.open(tmp_path / "run") as checkpoint:
        assert set(checkpoint) == shared.values().keys()
        assert "@RANDOM_STATE@" in checkpoint


ARGUMENTS = [None, {"epoch_id": 2, "step_id": 20}, [1, "two", (3.0, None)], {"loss": math.inf}, "text", 0]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_trainer_args_may_be_any_json(shared, tmp_path, arguments):
    serial = save(shared, tmp_path / "run", arguments)

    with holdfast.open(tmp_path / "run", serial=serial) as checkpoint:
        assert checkpoint.trainer_args == arguments


def test_load_trainer_args_gives_values_with_their_types(shared, tmp_path):
    save(shared, tmp_path / "run", {"epoch_id": 2, "rate": 0.5, "done": False})

    assert fluid.io.load_trainer_args(tmp_path / "run", 0, 0, ["rate", "epoch_id", "done"]) == [0.5, 2, False]
    with pytest.raises(ValueError, match="no argument 'step_id'.*it has 'epoch_id', 'rate', 'done'"):
        fluid.io.load_trainer_args(tmp_path / "run", 0, 0, ["epoch_id", "step_id"])


def test_what_is_no_json_is_refused(shared, tmp_path):
    with pytest.raises(UnsupportedVariableError, match="trainer_args"):
        save(shared, tmp_path / "run", {"handler": print})
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "run") == -1


def test_other_trainers_are_refused(shared, tmp_path):
    with fluid.scope_guard(shared.scope), pytest.raises(ValueError, match="only trainer 0"):
        fluid.io.save_checkpoint(shared.exe, tmp_path / "run", 1, {}, shared.main)
    with pytest.raises(ValueError, match="'checkpoint_dir' should not be None"):
        save(shared, None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file_format", ["holdfast", "fluid"])
def test_rotation_keeps_the_newest(shared, tmp_path, file_format):
    serials = [
        save(shared, tmp_path / "run", {"i": i}, max_num_checkpoints=2, file_format=file_format) for i in range(4)
    ]

    assert serials == [0, 1, 2, 3]
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint_2", "checkpoint_3"]
    with pytest.raises(ValueError, match="whole number from 1"):
        save(shared, tmp_path / "run", max_num_checkpoints=0, file_format=file_format)


def test_latest_serial_is_minus_one_where_nothing_is(tmp_path):
    assert fluid.io.get_latest_checkpoint_serial(None) == -1
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "nowhere") == -1
    assert fluid.io.get_latest_checkpoint_serial(tmp_path) == -1
    assert os.listdir(tmp_path) == []


def test_clean_checkpoint_deletes_checkpoints_of_both_formats_and_nothing_else(shared, tmp_path):
    run = tmp_path / "run"
    save(shared, run)
    save(shared, run, {"epoch_id": 1}, file_format="fluid")
    (run / "notes.txt").write_text("mine")

    fluid.io.clean_checkpoint(run, delete_dir=True)
    assert os.listdir(run) == ["notes.txt"]
    (run / "notes.txt").unlink()
    fluid.io.clean_checkpoint(str(run), delete_dir=True)
    assert not run.exists()
    fluid.io.clean_checkpoint(run)


def test_load_of_an_absent_serial_creates_nothing(shared, tmp_path):
    save(shared, tmp_path / "run")

    with fluid.scope_guard(shared.scope), pytest.raises(CheckpointNotFoundError):
        fluid.io.load_checkpoint(shared.exe, tmp_path / "run", 9, shared.main)
    with pytest.raises(ValueError, match="'serial'"):
        fluid.io.load_checkpoint(shared.exe, tmp_path / "run", -1, shared.main)
    assert os.listdir(tmp_path / "run") == ["checkpoint_0"]


def test_load_without_serial_takes_the_newest_of_both_formats(shared, tmp_path):
    save(shared, tmp_path / "run", {"epoch_id": 1}, file_format="fluid")
    assert save(shared, tmp_path / "run", {"epoch_id": 2}) == 1

    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "run") == 1
    assert fluid.io.load_trainer_args(tmp_path / "run", None, 0, ["epoch_id"]) == [2]
    assert fluid.io.load_trainer_args(tmp_path / "run", 0, 0, ["epoch_id"]) == ["1"]


def test_folder_of_variables_is_no_checkpoint(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        fluid.io.save_persistables(shared.exe, tmp_path / "p", shared.main)
        with pytest.raises(CheckpointNotFoundError):
            fluid.io.load_checkpoint(shared.exe, tmp_path / "p", None, shared.main)


def test_tree_of_fluids_is_loaded_with_a_warning_about_chance(tmp_path):
    net = Trained()
    fluid_tree = tmp_path / "fluid"
    save(net, fluid_tree, {"epoch_id": 3}, file_format="fluid")
    os.unlink(fluid_tree / "checkpoint_0/__model__/@RANDOM_STATE@")
    expected = {n: v for n, v in net.values().items() if n != "@RANDOM_STATE@"}
    net.train(batches(1))

    with fluid.scope_guard(net.scope), pytest.warns(fluid.HazardWarning, match="no state of random numbers"):
        fluid.io.load_checkpoint(net.exe, fluid_tree, 0, net.main)
    assert {n: v for n, v in net.values().items() if n != "@RANDOM_STATE@"} == expected


def test_real_checkpoint_of_fluid_is_loaded(fresh, tmp_path):
    main, startup, exe = fresh
    shutil.copytree(TREE, tmp_path / "tree")
    x = fluid.layers.data("x", [13])
    y = fluid.layers.data("y", [1], dtype="int64")
    hidden = fluid.layers.fc(fluid.layers.fc(x, 16, act="relu"), 8, act="tanh")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(fluid.layers.fc(hidden, 5, act="softmax"), y))
    fluid.optimizer.Adam(fluid.layers.exponential_decay(0.01, decay_steps=3, decay_rate=0.5)).minimize(loss)
    exe.run(startup)

    # checkpoint_2 never got its _SUCCESS, so 1 is the newest.
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "tree") == 1
    fluid.io.load_checkpoint(exe, tmp_path / "tree", 1, main)
    file = (tmp_path / "tree/checkpoint_1/__model__/fc_0.w_0_moment1_0").read_bytes()
    assert file.endswith(np.asarray(fluid.global_scope().find_var("fc_0.w_0_moment1_0").held).tobytes())
    arguments = fluid.io.load_trainer_args(tmp_path / "tree", 1, 0, ["epoch_id", "step_id"])
    assert all(isinstance(value, str) for value in arguments)
    with pytest.raises(CheckpointNotFoundError):
        fluid.io.load_checkpoint(exe, tmp_path / "tree", 2, main)
    assert fluid.io.save_checkpoint(exe, tmp_path / "tree", 0, None, main) == 3


def test_mismatch_leaves_the_scope_alone(shared, tmp_path):
    save(shared, tmp_path / "run")
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [6]), 5))
        fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
    with fluid.scope_guard(fluid.Scope()):
        shared.exe.run(startup)
        before = np.asarray(fluid.global_scope().find_var("fc_0.w_0").held).tobytes()
        with pytest.raises(MismatchError) as caught:
            fluid.io.load_checkpoint(shared.exe, tmp_path / "run", 0, main)
        assert {"fc_0.w_0", "fc_0.w_0_velocity_0"} <= set(caught.value.named("shape"))
        assert np.asarray(fluid.global_scope().find_var("fc_0.w_0").held).tobytes() == before


def test_persist_vars_without_grad_go_through_the_model_folder(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        fluid.io.save_persist_vars_without_grad(shared.exe, tmp_path / "d", shared.main)
    assert os.listdir(tmp_path / "d") == ["__model__"]

    with fluid.scope_guard(fluid.Scope()) as _:
        fluid.io.load_persist_vars_without_grad(shared.exe, tmp_path / "d", shared.main, has_model_dir=True)
        fluid.io.load_persist_vars_without_grad(shared.exe, tmp_path / "d" / "__model__", shared.main)
