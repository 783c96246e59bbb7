"""save_vars, save_params, save_persistables and their loads."""

import inspect
import os

import numpy as np
import pytest
from tests.fluid.trained import Trained, batches, values

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import CheckpointNotFoundError, CorruptCheckpointError, ForeignFolderError, MismatchError

SIGNATURES = {
    "save_vars": "executor dirname main_program vars predicate filename",
    "load_vars": "executor dirname main_program vars predicate filename",
    "save_params": "executor dirname main_program filename",
    "load_params": "executor dirname main_program filename",
    "save_persistables": "executor dirname main_program filename",
    "load_persistables": "executor dirname main_program filename",
    "save_inference_model": "dirname feeded_var_names target_vars executor main_program model_filename params_filename "
    "export_for_deployment program_only",
    "load_inference_model": "dirname executor model_filename params_filename pserver_endpoints",
    "save_checkpoint": "executor checkpoint_dir trainer_id trainer_args main_program max_num_checkpoints",
    "load_checkpoint": "executor checkpoint_dir serial main_program",
    "load_trainer_args": "checkpoint_dir serial trainer_id trainer_args",
    "clean_checkpoint": "checkpoint_dir delete_dir",
    "get_latest_checkpoint_serial": "checkpoint_dir",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_fluids(name):
    parameters = inspect.signature(getattr(fluid.io, name)).parameters.values()

    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert positional == SIGNATURES[name].split()


@pytest.fixture
def net():
    return Trained()


def saved(net, call, path, *args, **kwargs):
    with fluid.scope_guard(net.scope):
        getattr(fluid.io, call)(net.exe, path, net.main, *args, **kwargs)


FORMATS = [{}, {"filename": "all"}, {"file_format": "fluid"}, {"file_format": "fluid", "filename": "all"}]


@pytest.mark.parametrize("kwargs", FORMATS, ids=str)
def test_persistables_come_back_bit_for_bit_and_training_goes_on(net, tmp_path, kwargs):
    saved(net, "save_persistables", tmp_path / "p", **kwargs)
    expected, losses = net.values(), net.train(batches(3, seed=1))

    other = Trained(steps=1, seed=8)
    with fluid.scope_guard(other.scope):
        fluid.io.load_persistables(other.exe, tmp_path / "p", other.main, filename=kwargs.get("filename"))
    assert other.values() == expected
    assert other.train(batches(3, seed=1)) == losses


@pytest.mark.parametrize("kwargs", FORMATS, ids=str)
def test_params_predict_in_the_program_for_tests(net, tmp_path, kwargs):
    saved(net, "save_params", tmp_path / "p", **kwargs)

    other = Trained(steps=0, seed=8)
    with fluid.scope_guard(other.scope):
        fluid.io.load_params(other.exe, str(tmp_path / "p"), other.test, filename=kwargs.get("filename"))
    x = batches(1)[0]["x"]
    np.testing.assert_array_equal(other.predict(x), net.predict(x))


def test_save_params_saves_the_moving_statistics_too(fresh, tmp_path):
    main, startup, exe = fresh
    fluid.layers.batch_norm(fluid.layers.fc(fluid.layers.data("x", [6]), 8))
    exe.run(startup)
    fluid.io.save_params(exe, tmp_path / "p", main)

    assert {"batch_norm_0.w_1", "batch_norm_0.w_2"} < fluid.io.saved_names(tmp_path / "p")
    with holdfast.open(tmp_path / "p") as checkpoint:
        assert not checkpoint.variables["batch_norm_0.w_1"].trainable
        assert checkpoint.variables["fc_0.w_0"].kind == "parameter"
    fluid.io.load_params(exe, tmp_path / "p", main.clone(for_test=True))  # no warning: nothing changes there


def test_vars_without_a_choice_are_all_persistables(net, tmp_path):
    saved(net, "save_vars", tmp_path / "p")

    assert fluid.io.saved_names(tmp_path / "p") == net.values().keys()


def test_predicate_is_asked_about_persistables_only(net, tmp_path):
    saved(
        net,
        "save_vars",
        tmp_path / "p",
        vars=None,
        predicate=lambda var: "fc_0" in var.name and "velocity" not in var.name,
    )

    names = fluid.io.saved_names(tmp_path / "p")
    assert {"fc_0.w_0", "fc_0.b_0"} <= names
    assert not any("tmp" in name for name in names)


def test_vars_take_variables_and_names(net, tmp_path):
    saved(net, "save_vars", tmp_path / "p", vars=[net.main.global_block().var("fc_0.w_0"), "fc_0.b_0"])

    assert fluid.io.saved_names(tmp_path / "p") == {"fc_0.w_0", "fc_0.b_0"}


def test_vars_refuse_temporaries_and_unknown_names(net, tmp_path):
    with pytest.raises(ValueError, match=r"temporaries.*fc_0.tmp_0"):
        saved(net, "save_vars", tmp_path / "p", vars=["fc_0.tmp_0", "fc_0.w_0"])
    with pytest.raises(ValueError, match="does not have: nowhere"):
        saved(net, "save_vars", tmp_path / "p", vars=["nowhere"])
    with pytest.raises(ValueError, match="not both"):
        saved(net, "save_vars", tmp_path / "p", vars=["fc_0.w_0"], predicate=fluid.io.is_parameter)
    assert not (tmp_path / "p").exists()


def test_save_names_every_variable_without_a_value(net, tmp_path):
    with fluid.scope_guard(fluid.Scope()), pytest.raises(fluid.io.UnsavableError) as caught:
        fluid.io.save_params(net.exe, tmp_path / "p", net.main)

    assert {"fc_0.w_0", "fc_1.b_0"} < caught.value.reasons.keys()
    assert "run the startup program" in str(caught.value)
    assert isinstance(caught.value, fluid.core.EnforceNotMet)
    assert not (tmp_path / "p").exists()


def test_save_refuses_a_value_that_is_not_the_programs(net, tmp_path):
    net.scope.find_var("fc_0.b_0").set(np.zeros(3, np.float32))
    net.scope.find_var("fc_0.w_0").set(np.zeros((6, 8)))

    with pytest.raises(fluid.io.UnsavableError) as caught:
        saved(net, "save_params", tmp_path / "p")
    assert caught.value.reasons.keys() == {"fc_0.b_0", "fc_0.w_0"}
    assert "float64 (6, 8) in the scope, and float32 (6, 8) in the program" in str(caught.value)


def test_save_of_nothing_is_an_error(fresh, tmp_path):
    main, _, exe = fresh

    with pytest.raises(ValueError, match="nothing to save"):
        fluid.io.save_params(exe, tmp_path / "p", main)


def test_unknown_format_is_an_error(net, tmp_path):
    with pytest.raises(ValueError, match="file_format='paddle'"):
        saved(net, "save_params", tmp_path / "p", file_format="paddle")


def test_a_second_save_replaces_the_first_whole(net, tmp_path):
    saved(net, "save_persistables", tmp_path / "p")
    saved(net, "save_params", tmp_path / "p")

    assert fluid.io.saved_names(tmp_path / "p") == {v.name for v in fluid.io.get_program_parameter(net.main)}


def test_save_leaves_a_foreign_folder_alone(net, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("mine")

    for kwargs in FORMATS[::2]:
        with pytest.raises(ForeignFolderError):
            saved(net, "save_params", tmp_path / "p", **kwargs)
    assert os.listdir(tmp_path / "p") == ["notes.txt"]


def test_filename_may_not_leave_the_folder(net, tmp_path):
    for call in ("save_params", "load_params"):
        with pytest.raises(ValueError, match="leads out of"):
            saved(net, call, tmp_path / "p", filename="../q")


def test_load_checks_everything_before_anything_changes(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.layers.data("x", [6])
        fluid.layers.fc(fluid.layers.fc(x, 8), 4)
        fluid.layers.fc(x, 2)
    with fluid.scope_guard(scope):
        net.exe.run(startup)
        before = values(scope, main)
        with pytest.raises(MismatchError) as caught:
            fluid.io.load_params(net.exe, tmp_path / "p", main)

        assert set(caught.value.named("shape")) == {"fc_1.w_0", "fc_1.b_0"}
        assert set(caught.value.named("missing")) == {"fc_2.w_0", "fc_2.b_0"}
        assert "the file holds float32 (8, 3), the program expects float32 (8, 4)" in str(caught.value)
        assert values(scope, main) == before


def test_load_leaves_the_scope_alone_if_a_byte_is_wrong(net, tmp_path):
    saved(net, "save_persistables", tmp_path / "p")
    file = tmp_path / "p" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    net.train(batches(1))
    before = net.values()

    with fluid.scope_guard(net.scope), pytest.raises(CorruptCheckpointError):
        fluid.io.load_persistables(net.exe, tmp_path / "p", net.main)
    assert net.values() == before


def test_load_persistables_of_parameters_only_says_what_to_do(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")

    with fluid.scope_guard(net.scope), pytest.raises(MismatchError, match="load_params loads those") as caught:
        fluid.io.load_persistables(net.exe, tmp_path / "p", net.main)
    assert "fc_0.w_0_velocity_0" in caught.value.named("missing")


def test_load_params_out_of_a_checkpoint(net, tmp_path):
    with fluid.scope_guard(net.scope):
        fluid.io.save_checkpoint(net.exe, tmp_path / "run", 0, None, net.main)

    with fluid.scope_guard(fluid.Scope()) as _:
        fluid.io.load_params(net.exe, tmp_path / "run", net.test)
        assert fluid.global_scope().find_var("fc_0.w_0").loaded_from


def test_load_of_nothing_there_says_so(net, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        fluid.io.load_params(net.exe, tmp_path / "p", net.test)
    (tmp_path / "p").mkdir()
    with pytest.raises(CheckpointNotFoundError, match="no variables"):
        fluid.io.load_params(net.exe, tmp_path / "p", net.test)
    (tmp_path / "p" / "weights").write_bytes(b"")
    with pytest.raises(CheckpointNotFoundError, match="holds weights"):
        fluid.io.load_params(net.exe, tmp_path / "p", net.test, filename="weight")


def exists_in(folder):
    """The predicate that programs of the era use."""
    return lambda var: os.path.exists(os.path.join(folder, var.name))


def test_value_of_a_parameter_is_a_copy_or_refused(net):
    with fluid.scope_guard(net.scope):
        weight = net.main.global_block().var("fc_0.w_0")
        value = fluid.io.get_parameter_value(weight, net.exe)
        assert value.tobytes() == net.values()["fc_0.w_0"]
        value[:] = 0
        assert fluid.io.get_parameter_value_by_name("fc_0.w_0", net.exe, net.main).any()
        with pytest.raises(AssertionError, match="x is no parameter"):
            fluid.io.get_parameter_value(net.main.global_block().var("x"), net.exe)
        with pytest.raises(ValueError, match="var nope not in this block"):
            fluid.io.get_parameter_value_by_name("nope", net.exe, net.main)


def test_predicate_of_existing_files_loads_what_is_there_and_names_the_rest(net, tmp_path):
    saved(net, "save_vars", tmp_path / "p", vars=["fc_0.w_0", "fc_0.b_0"], file_format="fluid")
    expected = np.asarray(net.scope.find_var("fc_0.w_0").held).tobytes()

    other = Trained(steps=0, seed=8)
    with fluid.scope_guard(other.scope), pytest.warns(fluid.HazardWarning, match="keep their values: .*fc_1.w_0"):
        fluid.io.load_vars(other.exe, tmp_path / "p", other.main, predicate=exists_in(tmp_path / "p"))
    assert other.values()["fc_0.w_0"] == expected


def test_predicate_of_existing_files_is_an_error_for_holdfasts_folders(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")

    with fluid.scope_guard(net.scope), pytest.raises(ValueError, match=r"fluid\.io\.saved_names"):
        fluid.io.load_vars(net.exe, tmp_path / "p", net.main, predicate=exists_in(tmp_path / "p"))


def test_predicate_of_saved_names_loads_what_is_there(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")
    names = fluid.io.saved_names(tmp_path / "p")

    other = Trained(steps=0, seed=8)
    with fluid.scope_guard(other.scope):
        fluid.io.load_vars(other.exe, tmp_path / "p", other.main, predicate=lambda var: var.name in names)
    assert {n: other.values()[n] for n in names} == {n: net.values()[n] for n in names}


def test_loaded_values_survive_the_training_of_the_saved_ones(net, tmp_path):
    """Saving gives out views of the scope's buffers; the next step, which donates them, must not change a file or a load."""
    saved(net, "save_persistables", tmp_path / "a")
    before = net.values()
    net.train(batches(4, seed=2))

    with fluid.scope_guard(net.scope):
        fluid.io.load_persistables(net.exe, tmp_path / "a", net.main)
        assert net.values() == before
        net.train(batches(2, seed=3))
        fluid.io.load_persistables(net.exe, tmp_path / "a", net.main)
    assert net.values() == before


def test_a_leftover_parameter_is_named(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        fluid.layers.fc(fluid.layers.data("x", [6]), 8)

    with fluid.scope_guard(fluid.Scope()), pytest.warns(fluid.HazardWarning, match="also holds parameters.*fc_1.w_0"):
        fluid.io.load_params(net.exe, tmp_path / "p", main)


def test_bare_safetensors_file_is_loaded_by_filename(net, tmp_path):
    saved(net, "save_params", tmp_path / "p")

    with fluid.scope_guard(fluid.Scope()) as _:
        fluid.io.load_params(net.exe, tmp_path / "p", net.test, filename="model.safetensors")
        assert values(fluid.global_scope(), net.test)["fc_0.w_0"] == net.values()["fc_0.w_0"]


def test_the_guides_calls_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = Trained()
    with fluid.program_guard(net.main, net.startup), fluid.scope_guard(net.scope):
        exe = fluid.Executor(fluid.CPUPlace())
        param_path = "./my_paddle_model"
        prog = fluid.default_main_program()
        fluid.io.save_params(executor=exe, dirname=param_path, main_program=None)
        path = "./checkpoints"
        trainer_args = {"epoch_id": 200, "step_id": 20}
        for _ in range(10):
            fluid.io.save_checkpoint(
                executor=exe, checkpoint_dir=path, trainer_id=0, trainer_args=trainer_args, main_program=prog,
                max_num_checkpoints=3,
            )  # fmt: skip
        expected = net.values()
        net.train(batches(1))
        with pytest.warns(fluid.HazardWarning, match="clone"):
            fluid.io.load_params(executor=exe, dirname=param_path, main_program=prog)
        fluid.io.load_checkpoint(executor=exe, checkpoint_dir=path, serial=9, main_program=prog)

    assert net.values() == expected
    assert holdfast.serials(path) == [7, 8, 9]
