"""save_inference_model, in Holdfast's form and in Fluid's, and what is saved of whole and pruned programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.io.small_model import X, predicted, save
from tests.fluid.trained import Trained, batches

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import (
    CheckpointNotFoundError,
    ForeignFolderError,
    FormatError,
)

FIXTURES = Path(__file__).parents[2] / "fixtures/fluid-1.8.5"


@pytest.fixture(scope="module")
def shared():
    return Trained()


@pytest.mark.parametrize("file_format", ["holdfast", "fluid"])
@pytest.mark.parametrize("names", [(), ("model", "params"), (None, "params"), ("model",)], ids=str)
def test_loaded_model_predicts_the_same_bits(shared, tmp_path, file_format, names):
    assert save(shared, tmp_path / "m", *names, file_format=file_format) == [shared.prediction.name]

    np.testing.assert_array_equal(predicted(shared, tmp_path / "m", *names), shared.predict(X))
    np.testing.assert_array_equal(predicted(shared, tmp_path / "m", *names, x=X[:2]), shared.predict(X[:2]))


def test_the_training_program_is_not_changed(shared, tmp_path):
    text, version, values = str(shared.main), shared.main.version, shared.values()
    for _ in range(2):
        save(shared, tmp_path / "m")

    assert (str(shared.main), shared.main.version, shared.values()) == (text, version, values)


def test_model_holds_no_more_than_predicting_needs(shared, tmp_path):
    save(shared, tmp_path / "m")

    assert fluid.io.saved_names(tmp_path / "m") == {"fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_1.b_0"}
    text = (tmp_path / "m" / "__model__").read_text()
    assert "momentum" not in text
    assert "cross_entropy" not in text
    assert json.loads(text)["program"]["feeds"] == ["x"]


def test_loaded_parameters_are_parameters(shared, tmp_path):
    save(shared, tmp_path / "m")

    with fluid.scope_guard(fluid.Scope()):
        program, _, _ = fluid.io.load_inference_model(tmp_path / "m", shared.exe)
        fluid.io.save_params(shared.exe, tmp_path / "p", program)
    assert fluid.io.saved_names(tmp_path / "p") == fluid.io.saved_names(tmp_path / "m")


ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "holdfast":
            raise ImportError("holdfast is not here")
sys.meta_path.insert(0, Refuse())
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file
try:
    import holdfast
except ImportError:
    pass
else:
    raise SystemExit("holdfast could be imported")
folder = sys.argv[1]
with open(folder + "/model.stablehlo", "rb") as file:
    model = export.deserialize(bytearray(file.read()))
for name in sys.argv[2:]:
    (out,) = model.call(load_file(folder + "/model.safetensors"), {"x": np.load(name)})
    np.save(name, np.asarray(out))
"""


def test_stablehlo_runs_with_jax_and_safetensors_alone(shared, tmp_path):
    save(shared, tmp_path / "m")
    for rows in (1, 5):
        np.save(tmp_path / f"{rows}.npy", X[:rows])

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "m", tmp_path / "1.npy", tmp_path / "5.npy"], check=True, env=environment,
        cwd=tmp_path, timeout=200,
    )  # fmt: skip
    for rows in (1, 5):
        np.testing.assert_allclose(np.load(tmp_path / f"{rows}.npy"), shared.predict(X[:rows]), rtol=1e-6)


def test_program_that_draws_is_saved_without_stablehlo(fresh, tmp_path):
    main, startup, exe = fresh
    x = fluid.layers.data("x", [2])
    noise = fluid.layers.uniform_random([1, 2])
    y = fluid.layers.elementwise_add(x, noise)
    exe.run(startup)
    fluid.io.save_inference_model(tmp_path / "m", ["x"], [y], exe, main)

    record = json.loads((tmp_path / "m" / "__model__").read_text())["program"]["stablehlo"]
    assert record["file"] is None
    assert "random" in record["reason"]
    with fluid.scope_guard(fluid.Scope()):
        program, _, fetches = fluid.io.load_inference_model(tmp_path / "m", exe)
        outs = [exe.run(program, feed={"x": np.zeros((1, 2), np.float32)}, fetch_list=fetches)[0] for _ in range(2)]
    assert not np.array_equal(*outs)


@pytest.mark.parametrize(
    ("feeds", "targets", "match"),
    [
        ([], None, "feed 'x' is missing"),
        (["x", "z"], None, "feed 'z' is unknown"),
        (["x", "y"], None, "feed 'y' is not needed"),
        (["x"], ["nowhere"], "target 'nowhere' is unknown"),
        (["x"], ["fc_0.w_0@GRAD"], "'fc_0.w_0@GRAD' is not computed"),
        (["x"], [], "no target"),
    ],
)
def test_feeds_and_targets_that_do_not_fit_are_named(shared, tmp_path, feeds, targets, match):
    with fluid.scope_guard(shared.scope), pytest.raises(ValueError, match=match):
        fluid.io.save_inference_model(
            tmp_path / "m", feeds, [shared.prediction] if targets is None else targets, shared.exe, shared.main
        )
    assert not (tmp_path / "m").exists()


def test_intermediate_variable_may_be_fed(shared, tmp_path):
    hidden = next(op for op in shared.test.global_block().ops if op.type == "dropout").input("X")[0]
    with fluid.scope_guard(shared.scope):
        fluid.io.save_inference_model(tmp_path / "m", hidden, shared.prediction, shared.exe, shared.main)

    assert fluid.io.saved_names(tmp_path / "m") == {"fc_1.w_0", "fc_1.b_0"}
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(tmp_path / "m", shared.exe)
        assert feeds == [hidden]
        shared.exe.run(program, feed={hidden: np.zeros((2, 8), np.float32)}, fetch_list=fetches)


def test_two_models_lie_in_one_folder(shared, tmp_path):
    save(shared, tmp_path / "m", "a", "a_params")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    save(shared, tmp_path / "m", "b", "b_params")
    save(shared, tmp_path / "m", "b", "b_params")

    assert sorted(os.listdir(tmp_path / "m")) == [
        "a", "a.stablehlo", "a_params", "b", "b.stablehlo", "b_params", "notes.txt",
    ]  # fmt: skip
    for names in (("a", "a_params"), ("b", "b_params"), ("b",)):
        np.testing.assert_array_equal(predicted(shared, tmp_path / "m", *names), shared.predict(X))


def test_program_only_leaves_the_parameters_out(shared, tmp_path):
    save(shared, tmp_path / "m", program_only=True)

    assert sorted(os.listdir(tmp_path / "m")) == ["__model__", "model.stablehlo"]
    with pytest.raises(CheckpointNotFoundError, match="program_only"):
        predicted(shared, tmp_path / "m")


@pytest.mark.parametrize("file_format", ["holdfast", "fluid"])
@pytest.mark.parametrize("names", [(), ("model", "params")], ids=str)
def test_whole_program_is_saved_to_train_further(tmp_path, file_format, names):
    net, folder = Trained(), tmp_path / "m"
    with fluid.scope_guard(net.scope):
        made = fluid.io.save_inference_model(
            folder, [], [], net.exe, net.main, *names, export_for_deployment=False, file_format=file_format
        )
    before = net.values()

    assert made == []
    program = fluid.Program.parse_from_string(
        (folder / f"{names[0] if names else '__model__'}.main_program").read_bytes()
    )
    assert {p.name for p in program.all_parameters()} == {p.name for p in net.main.all_parameters()}
    with fluid.scope_guard(fluid.Scope()):
        fluid.io.load_persistables(net.exe, folder, program, filename=names[1] if names else None)
        feeds = batches(3, seed=1)
        losses = [net.exe.run(program, feed=feed, fetch_list=[net.loss.name])[0] for feed in feeds]
    assert net.values() == before
    np.testing.assert_allclose(losses, [np.frombuffer(v, np.float32) for v in net.train(feeds)], rtol=1e-6)


def test_whole_program_that_fluid_has_no_operators_for_is_refused(fresh, tmp_path):
    main, startup, exe = fresh
    loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 1))
    fluid.optimizer.SGD(fluid.layers.piecewise_decay([2], [0.1, 0.01])).minimize(loss)
    exe.run(startup)

    with pytest.raises(FormatError, match="operator piecewise_rate is Holdfast's own"):
        fluid.io.save_inference_model(tmp_path / "m", [], [], exe, main, export_for_deployment=False)
    assert not (tmp_path / "m").exists()


def test_foreign_folder_is_left_alone(shared, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")

    for file_format in ("holdfast", "fluid"):
        with pytest.raises(ForeignFolderError):
            save(shared, tmp_path / "m", file_format=file_format)
    assert os.listdir(tmp_path / "m") == ["notes.txt"]
    assert os.listdir(tmp_path) == ["m"]


def test_checkpoint_of_a_run_is_never_replaced(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        fluid.io.save_checkpoint(shared.exe, tmp_path / "run", 0, None, shared.main)
    for folder in ("run", "run/checkpoint_0"):
        with pytest.raises(ForeignFolderError):
            save(shared, tmp_path / folder)
    assert holdfast.verify(tmp_path / "run").serial == 0


def test_names_of_files_that_cannot_be_are_refused(shared, tmp_path):
    for names in (("same", "same"), ("manifest.json",), (None, "model.safetensors")):
        with pytest.raises(ValueError, match="cannot be used"):
            save(shared, tmp_path / "m", *names)


def test_counts_of_auc_are_warned_of_until_they_are_zeros(fresh, tmp_path):
    main, startup, exe = fresh
    x, y = fluid.layers.data("x", [2]), fluid.layers.data("y", [1], dtype="int64")
    prediction = fluid.layers.fc(x, 2, act="softmax")
    auc, _, states = fluid.layers.auc(prediction, y, num_thresholds=20)
    exe.run(startup)
    fed = {"x": np.ones((3, 2), np.float32), "y": np.array([[0], [1], [1]])}
    exe.run(main, feed=fed)

    with pytest.warns(fluid.HazardWarning, match="counts of auc in _generated_var_2, .*set them to zeros") as caught:
        fluid.io.save_inference_model(tmp_path / "m", ["x", "y"], [prediction, auc], exe, main)
    assert caught[0].filename == __file__
    fluid.io.save_inference_model(tmp_path / "m", ["x"], [prediction], exe, main)
    for state in states:
        tensor = fluid.global_scope().find_var(state.name).get_tensor()
        tensor.set(np.zeros_like(np.asarray(tensor)))
    fluid.io.save_inference_model(tmp_path / "m", ["x", "y"], [prediction, auc], exe, main)


def test_pruned_program_with_its_ends_is_saved_as_programs_of_the_era_do(shared, tmp_path):
    pruned = shared.main._prune_with_input(["x"], [shared.prediction])._inference_optimize(prune_read_op=True)
    fluid.io.prepend_feed_ops(pruned, ["x"])
    fluid.io.append_fetch_ops(pruned, [shared.prediction.name])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "__model__").write_bytes(pruned.desc.serialize_to_string())
    with fluid.scope_guard(shared.scope):
        fluid.io.save_persistables(shared.exe, tmp_path / "m" / "params", pruned)

    assert [op.type for op in pruned.all_ops()].count("momentum") == 0
    assert pruned.desc.get_feed_target_names() == ["x"]
    assert pruned.clone().desc.get_fetch_target_names() == [shared.prediction.name]
    np.testing.assert_array_equal(predicted(shared, tmp_path / "m", None, "params"), shared.predict(X))


def test_ends_of_a_program_are_variables_of_it(shared):
    program = shared.main.clone(for_test=True)
    fluid.io.prepend_feed_ops(program, [])
    for call in (fluid.io.prepend_feed_ops, fluid.io.append_fetch_ops):
        with pytest.raises(ValueError, match="var nope not in this block"):
            call(program, ["nope"])
    assert program.desc.get_feed_target_names() == program.desc.get_fetch_target_names() == []


def test_loaded_program_knows_its_ends_and_gives_its_bytes(shared, tmp_path):
    save(shared, tmp_path / "m")
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(tmp_path / "m", shared.exe)
    again = fluid.Program.parse_from_string(program.desc.serialize_to_string())

    assert again.desc.get_feed_target_names() == feeds
    assert again.desc.get_fetch_target_names() == [v.name for v in fetches]
    for found, expected in zip(again.all_ops(), program.all_ops(), strict=True):
        assert (found.type, found.inputs, found.outputs) == (expected.type, expected.inputs, expected.outputs)


def test_crash_between_two_saves_leaves_a_whole_model(shared, tmp_path, monkeypatch):
    """The old folder stays until the new one takes its place: stopped before that, nothing has changed."""
    save(shared, tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(holdfast.interop.files, "_take_place", stop)
    with pytest.raises(KeyboardInterrupt):
        save(shared, tmp_path / "m")
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == before
    assert os.listdir(tmp_path) == ["m"]
