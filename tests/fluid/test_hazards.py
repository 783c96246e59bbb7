"""The hazards of docs/fluid/hazards.md, one by one: Fluid gave wrong results in silence, here each is told.

Tests are named by the numbers of that page.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.trained import Trained, batches, network, optimizer

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    UnsupportedVariableError,
)

PAGE = Path(__file__).parents[2] / "docs" / "fluid" / "hazards.md"
FORMATS = ["holdfast", "fluid"]


@pytest.fixture(scope="module")
def shared():
    """Not to be trained on."""
    return Trained()


def inside(net):
    return fluid.scope_guard(net.scope)


def test_page_and_tests_have_the_same_hazards():
    numbers = {int(n) for n in re.findall(r"^## (\d+)\. ", PAGE.read_text(), re.MULTILINE)}
    tested = {int(n) for n in re.findall(r"^def test_hazard_(\d+)_", Path(__file__).read_text(), re.MULTILINE)}

    assert numbers == tested == set(range(1, 18))


@pytest.mark.parametrize("file_format", FORMATS)
def test_hazard_01_another_dtype_or_shape_of_any_variable_is_an_error(tmp_path, file_format):
    net = Trained()
    with inside(net):
        fluid.io.save_persistables(net.exe, tmp_path / "p", net.main, file_format=file_format)
    accumulator = net.main.global_block().var("fc_0.w_0_velocity_0")
    accumulator.set_shape([6, 9])
    net.main.global_block().var("learning_rate_0").dtype = fluid.core.VarType.FP64
    before = net.values()

    with inside(net), pytest.raises(MismatchError) as caught:
        fluid.io.load_persistables(net.exe, tmp_path / "p", net.main)
    assert caught.value.named("shape") == ["fc_0.w_0_velocity_0"]
    assert caught.value.named("dtype") == ["learning_rate_0"]
    assert net.values() == before


@pytest.mark.parametrize("file_format", FORMATS)
def test_hazard_02_a_load_that_fails_leaves_the_scope_as_it_was(tmp_path, file_format):
    net = Trained()
    with inside(net):
        fluid.io.save_params(net.exe, tmp_path / "p", net.main, file_format=file_format)
    net.train(batches(1))
    before = net.values()

    with inside(net), pytest.raises(MismatchError, match="fc_0.b_0_velocity_0"):
        fluid.io.load_persistables(net.exe, tmp_path / "p", net.main)
    assert net.values() == before


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-4], lambda d: d + b"\0" * 4, lambda d: d[:10]], ids=["cut", "padded", "stub"]
)
def test_hazard_03_cut_and_padded_files_are_errors(shared, tmp_path, damage):
    before = shared.values()
    with inside(shared):
        fluid.io.save_params(shared.exe, tmp_path / "f", shared.main, file_format="fluid")
        fluid.io.save_params(shared.exe, tmp_path / "h", shared.main)
    for file in (tmp_path / "f/fc_0.w_0", tmp_path / "h/model.safetensors"):
        file.write_bytes(damage(file.read_bytes()))

    for folder in ("f", "h"):
        with inside(shared), pytest.raises((FormatError, CorruptCheckpointError, CheckpointNotFoundError)):
            fluid.io.load_params(shared.exe, tmp_path / folder, shared.test)
    assert shared.values() == before


def test_hazard_03_flipped_bits_are_found_in_our_own_files(shared, tmp_path):
    with inside(shared):
        fluid.io.save_params(shared.exe, tmp_path / "h", shared.main)
    file = tmp_path / "h/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 64
    file.write_bytes(data)

    with inside(shared), pytest.raises(CorruptCheckpointError, match="fc_"):
        fluid.io.load_params(shared.exe, tmp_path / "h", shared.test)


def test_hazard_04_combined_files_are_checked_by_count_shape_and_dtype(shared, tmp_path):
    before = shared.values()
    with inside(shared):
        fluid.io.save_params(shared.exe, tmp_path, shared.main, filename="all", file_format="fluid")
        with pytest.raises(MismatchError, match="4 variables, 2 names"):
            fluid.io.load_vars(shared.exe, tmp_path, shared.main, vars=["fc_0.b_0", "fc_0.w_0"], filename="all")
        names = ["fc_0.b_0", "fc_0.w_0", "fc_1.w_0_velocity_0", "learning_rate_0"]
        with pytest.raises(MismatchError, match=r"(?s)'fc_1.w_0_velocity_0'.*'learning_rate_0'"):
            fluid.io.load_vars(shared.exe, tmp_path, shared.main, vars=names, filename="all")
    assert shared.values() == before


def test_hazard_05_parameters_into_a_program_with_updates_warn_and_so_does_training_on(tmp_path):
    net = Trained()
    with inside(net):
        fluid.io.save_params(net.exe, tmp_path / "p", net.main)
        net.exe.run(net.startup)
        with pytest.warns(fluid.HazardWarning, match=r"momentum changes fc_0.*clone\(for_test=True\)"):
            fluid.io.load_params(net.exe, tmp_path / "p", net.main)
        with pytest.warns(fluid.HazardWarning, match="at their start.*fc_0.w_0_velocity_0"):
            net.exe.run(net.main, feed=batches(1)[0], fetch_list=[net.loss])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fluid.HazardWarning)  # fine-tuning: the user knows
            fluid.io.load_params(net.exe, tmp_path / "p", net.main)
            net.exe.run(net.main, feed=batches(1)[0], fetch_list=[net.loss])
        fluid.io.load_params(net.exe, tmp_path / "p", net.test)  # no warning


def test_hazard_06_a_startup_run_over_loaded_variables_is_refused(tmp_path):
    net = Trained()
    with inside(net):
        fluid.io.save_persistables(net.exe, tmp_path / "p", net.main)
        fluid.io.load_persistables(net.exe, tmp_path / "p", net.main)
        before = net.values()
        with pytest.raises(fluid.OverwriteError, match="overwrite_loaded=True"):
            net.exe.run(net.startup)
        assert net.values() == before
        net.exe.run(net.startup, overwrite_loaded=True)
    assert net.values() != before


def test_hazard_07_predicting_with_the_program_for_tests_changes_nothing(fresh):
    main, startup, exe = fresh
    x = fluid.layers.data("x", [4])
    hidden = fluid.layers.batch_norm(fluid.layers.fc(x, 3))
    test = main.clone(for_test=True)
    fluid.optimizer.SGD(0.1).minimize(fluid.layers.mean(hidden))
    exe.run(startup)
    feed = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}

    def values():
        return {v.name: np.asarray(fluid.global_scope().find_var(v.name).held).tobytes() for v in main.all_parameters()}

    before = values()
    exe.run(test, feed=feed, fetch_list=[hidden])
    assert values() == before
    exe.run(main, feed=feed, fetch_list=[hidden])  # whatever is fetched, the whole program runs
    assert values()["batch_norm_0.w_1"] != before["batch_norm_0.w_1"]


def test_hazard_08_shifted_names_are_told_with_the_way_out(shared, tmp_path):
    with inside(shared):
        fluid.io.save_params(shared.exe, tmp_path / "p", shared.main)
        fluid.io.save_params(shared.exe, tmp_path / "f", shared.main, file_format="fluid")
    again, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(again, startup), fluid.unique_name.guard():
        network()
        first = again.clone()
    with fluid.program_guard(again, startup), fluid.unique_name.guard():
        for _ in range(2):
            fluid.unique_name.generate("fc")
        shifted = fluid.Program()
        with fluid.program_guard(shifted, fluid.Program()):
            network()
    assert {p.name for p in first.all_parameters()} == {"fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_1.b_0"}

    for folder in ("p", "f"):
        with pytest.raises(MismatchError, match=r"'fc_2.b_0' is missing, and there is .*fluid\.unique_name\.guard\(\)"):
            fluid.io.load_params(shared.exe, tmp_path / folder, shifted)


def counters(*, swapped):
    """A program with two unnamed counters of one shape: the first counts by one, the second by two."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        one = fluid.layers.create_global_var([1], 0.0, "float32", persistable=True)
        two = fluid.layers.create_global_var([1], 0.0, "float32", persistable=True)
        if swapped:
            one, two = two, one
        fluid.layers.increment(one)
        fluid.layers.assign(fluid.layers.scale(two, 2.0, bias=1.0), two)
    return main, startup


def test_hazard_09_names_that_are_only_positions_are_compared_by_their_use(tmp_path):
    exe = fluid.Executor(fluid.CPUPlace())
    main, startup = counters(swapped=False)
    other, _ = counters(swapped=True)
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        fluid.io.save_checkpoint(exe, tmp_path / "run", 0, None, main)
        fluid.io.load_checkpoint(exe, tmp_path / "run", 0, main)
        with pytest.raises(MismatchError, match="'_generated_var_0': its name is only a position"):
            fluid.io.load_checkpoint(exe, tmp_path / "run", 0, other)
        fluid.io.save_persistables(exe, tmp_path / "p", main)
        with pytest.warns(fluid.HazardWarning, match="_generated_var_0, _generated_var_1 say only in which order"):
            fluid.io.load_persistables(exe, tmp_path / "p", main)


def test_hazard_10_names_that_are_no_files_stay_in_the_folder_or_are_refused(tmp_path):
    program, exe = fluid.Program(), fluid.Executor(fluid.CPUPlace())
    names = ["../out", "/etc/out", "a/../b", "W", "w", "manifest.json", "_SUCCESS", "__model__"]
    with fluid.scope_guard(fluid.Scope()):
        for i, name in enumerate(names):
            program.global_block().create_var(name=name, shape=[1], dtype="float32", persistable=True)
            fluid.global_scope().var(name).set(np.array([i], np.float32))
        fluid.io.save_persistables(exe, tmp_path / "h", program)
        assert fluid.io.saved_names(tmp_path / "h") == set(names)
        with pytest.raises(UnsupportedVariableError) as caught:
            fluid.io.save_persistables(exe, tmp_path / "f", program, file_format="fluid")
    assert {"../out", "/etc/out", "a/../b", "_SUCCESS", "__model__"} <= caught.value.reasons.keys()
    assert os.listdir(tmp_path) == ["h"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_hazard_11_a_save_over_another_leaves_nothing_stale(shared, tmp_path, file_format):
    with inside(shared):
        fluid.io.save_persistables(shared.exe, tmp_path / "p", shared.main, file_format=file_format)
        fluid.io.save_vars(shared.exe, tmp_path / "p", shared.main, vars=["fc_0.w_0"], file_format=file_format)

    assert fluid.io.saved_names(tmp_path / "p") == {"fc_0.w_0"}
    assert os.listdir(tmp_path) == ["p"]


def test_hazard_12_only_complete_checkpoints_count_and_looking_creates_nothing(shared, tmp_path):
    run = tmp_path / "run"
    for name in ("checkpoint_5/__model__", "backup_7", "a_b_c", "checkpoint_x"):
        (run / name).mkdir(parents=True)
    before = sorted(p.relative_to(run) for p in run.rglob("*"))

    assert fluid.io.get_latest_checkpoint_serial(run) == -1
    assert sorted(p.relative_to(run) for p in run.rglob("*")) == before
    with inside(shared):
        serials = [fluid.io.save_checkpoint(shared.exe, run, 0, None, shared.main, 2) for _ in range(3)]
    assert serials == [6, 7, 8]  # never that of the one that did not become complete
    assert holdfast.serials(run) == [7, 8]
    assert {"backup_7", "a_b_c", "checkpoint_x", "checkpoint_5"} < set(os.listdir(run))


def test_hazard_13_a_run_resumes_after_serial_0_with_the_readers_order(tmp_path):
    from tests.fluid.trainer_child import reader, trainer_of

    def steps(trainer, stop_after=None):
        seen = []

        def handler(event):
            if isinstance(event, fluid.EndStepEvent):
                seen.append((event.epoch, event.step, event.metrics[0].tobytes()))
                if len(seen) == stop_after:
                    trainer.stop()

        trainer.train(1, handler, reader, ["x", "y"])
        return seen

    first = trainer_of(tmp_path / "run", step_interval=100)
    whole = steps(first)
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "run") == 0
    resumed = trainer_of(tmp_path / "run", step_interval=100)
    assert (resumed.checkpoint_cfg.load_serial, resumed.checkpoint_cfg.step_id) == (0, 0)
    assert steps(resumed) == whole[1:]
    assert fluid.io.load_trainer_args(tmp_path / "run", 0, 0, ["epoch_id", "step_id"]) == [0, 0]


def test_hazard_14_variables_are_chosen_by_what_they_are_not_by_their_names(tmp_path):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.layers.data("x", [4])
        y = fluid.layers.fc(fluid.layers.fc(x, 3, name="my.block"), 3, name="a.trainer_b@GRAD")
        loss = fluid.layers.mean(y)
        optimizer().minimize(loss)
    gradient = main.global_block().var("my.block.w_0@GRAD")
    gradient.persistable = True
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        exe.run(main, feed={"x": np.ones((2, 4), np.float32)})
        fluid.io.save_checkpoint(exe, tmp_path / "run", 0, None, main)

    names = fluid.io.saved_names(tmp_path / "run")
    assert {"my.block.w_0", "my.block.w_0_velocity_0", "a.trainer_b@GRAD.w_0"} <= names
    assert gradient.name not in names


def test_hazard_15_missing_unknown_and_wrong_feeds_are_named(shared, tmp_path):
    with inside(shared):
        with pytest.raises(ValueError, match=r"(?s)'y' is missing.*'z' is unknown") as caught:
            shared.exe.run(shared.test, feed={"x": np.zeros((1, 6)), "z": np.zeros(1)}, fetch_list=[shared.loss])
        assert "'x': expected float32, found float64" in str(caught.value)
        with pytest.raises(ValueError, match="feed 'x' is missing"):
            fluid.io.save_inference_model(tmp_path / "m", [], [shared.prediction], shared.exe, shared.main)


def test_hazard_16_saving_a_model_changes_neither_the_program_nor_the_targets_names(shared, tmp_path):
    text = str(shared.main)
    with inside(shared):
        for _ in range(4):
            names = fluid.io.save_inference_model(tmp_path / "m", ["x"], [shared.prediction], shared.exe, shared.main)

    assert names == [shared.prediction.name]
    assert str(shared.main) == text


def test_hazard_17_nan_is_told_and_rotates_no_sound_checkpoint_out(tmp_path):
    net = Trained()
    run = tmp_path / "run"
    with inside(net):
        for epoch in range(2):
            fluid.io.save_checkpoint(net.exe, run, 0, {"epoch": epoch}, net.main, 1)
        net.scope.find_var("fc_0.b_0").set(np.array([0, np.nan] * 4, np.float32))
        for call, path in ((fluid.io.save_params, "p"), (fluid.io.save_persistables, "q")):
            with pytest.warns(fluid.HazardWarning, match="hold NaN.*fc_0.b_0"):
                call(net.exe, tmp_path / path, net.main)
        for _ in range(3):
            with pytest.warns(fluid.HazardWarning, match="hold NaN.*fc_0.b_0"):
                fluid.io.save_checkpoint(net.exe, run, 0, {"epoch": 9}, net.main, 1)

    assert holdfast.serials(run) == [1, 4]  # the last sound one is pinned, and those with NaN rotate


def test_hazard_17_infinities_are_no_nan(tmp_path):
    net = Trained()
    net.scope.find_var("fc_0.b_0").set(np.array([np.inf, -np.inf] * 4, np.float32))

    with inside(net):
        fluid.io.save_params(net.exe, tmp_path / "p", net.main)  # no warning


def test_hazard_17_bfloat16_of_paddle_is_known_by_the_program(tmp_path):
    import ml_dtypes

    from holdfast.interop import pdparams

    value = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    pdparams.write(tmp_path / "m.pdparams", {"w": value}, dialect="paddle")
    program, exe = fluid.Program(), fluid.Executor(fluid.CPUPlace())
    program.global_block().create_parameter(name="w", shape=[2], dtype="bfloat16")
    with fluid.scope_guard(fluid.Scope()):
        fluid.load(program, tmp_path / "m", exe)
        assert np.asarray(fluid.global_scope().find_var("w").held).tobytes() == value.tobytes()


def test_a_model_for_prediction_does_not_overwrite_one_in_training(tmp_path):
    net = Trained()
    with inside(net):
        fluid.io.save_inference_model(tmp_path / "m", ["x"], [net.prediction], net.exe, net.main)
        fluid.io.load_inference_model(tmp_path / "m", net.exe)  # the very same values: nothing is lost
        net.train(batches(1))
        with pytest.raises(fluid.io.ScopeConflictError, match="scope of its own") as caught:
            fluid.io.load_inference_model(tmp_path / "m", net.exe)
        assert "fc_0.w_0" in caught.value.names
        fluid.io.load_inference_model(tmp_path / "m", net.exe, overwrite=True)
        fluid.io.save_inference_model(tmp_path / "other", ["x"], [net.prediction], net.exe, net.main)
    other = Trained(steps=1, seed=9)
    with inside(other):
        fluid.io.save_inference_model(tmp_path / "m", ["x"], [other.prediction], other.exe, other.main)
    with inside(net):
        fluid.io.load_inference_model(tmp_path / "m", net.exe)  # a newer model of the same folder
        with pytest.raises(fluid.io.ScopeConflictError):
            fluid.io.load_inference_model(tmp_path / "other", net.exe)
