"""save_inference_model and load_inference_model, in Holdfast's form and in Fluid's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.fluid.trained import Trained, batches

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignFolderError,
    FormatError,
    VersionError,
)

FIXTURES = Path(__file__).parents[2] / "fixtures/fluid-1.8.5"
X = batches(1, seed=5)[0]["x"]


@pytest.fixture(scope="module")
def shared():
    return Trained()


def save(net, path, *args, **kwargs):
    with fluid.scope_guard(net.scope):
        return fluid.io.save_inference_model(path, ["x"], [net.prediction], net.exe, net.main, *args, **kwargs)


def predicted(net, path, *args, x=X):
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(path, net.exe, *args)
        assert feeds == ["x"]
        assert [v.name for v in fetches] == [net.prediction.name]
        return net.exe.run(program, feed={"x": x}, fetch_list=fetches)[0]


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


def test_whole_programs_are_not_exported(shared, tmp_path):
    with pytest.raises(NotImplementedError, match="save_checkpoint"):
        save(shared, tmp_path / "m", export_for_deployment=False)


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


def test_absent_model_says_what_is_there(shared, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        predicted(shared, tmp_path / "m")
    save(shared, tmp_path / "m", "net")
    with pytest.raises(CheckpointNotFoundError, match="perhaps model_filename='net'"):
        predicted(shared, tmp_path / "m")


def changed(path, change):
    """The document after a change of its program, without its digest."""
    document = json.loads(path.read_text())
    del document["digest"]
    change(document)
    path.write_text(json.dumps(document))


def variable(program, name):
    return next(v for v in program["blocks"][0]["variables"] if v["name"] == name)


HOSTILE = {
    "unknown operator": (lambda p: p["blocks"][0]["operators"][0].update(type="os_system"), "no operator 'os_system'"),
    "unknown attribute": (
        lambda p: p["blocks"][0]["operators"][0].update(attrs={"x_num_col_dims": 1, "command": "rm"}),
        "(?s)operator mul.*no attribute 'command'",
    ),
    "unknown slot": (lambda p: p["blocks"][0]["operators"][0]["inputs"].update(W=["x"]), "no input slot 'W'"),
    "unknown variable": (lambda p: p["blocks"][0]["operators"][0]["inputs"].update(X=["q"]), "variable 'q'"),
    "unknown output": (lambda p: p["blocks"][0]["operators"][0]["outputs"].update(Out=["q"]), "no variable.*q"),
    "unknown dtype": (lambda p: p["blocks"][0]["variables"][0].update(dtype="FP128"), "FP128"),
    "variable twice": (lambda p: p["blocks"][0]["variables"].append(p["blocks"][0]["variables"][0]), "twice"),
    "unknown field": (lambda p: p.update(code="print()"), "unknown field `code`"),
    "no block": (lambda p: p.update(blocks=[]), "no global block"),
    "loop of blocks": (
        lambda p: p["blocks"].append({"parent": 1, "variables": [], "operators": []}),
        "block 1 stands in",
    ),
    "unknown feed": (lambda p: p.update(feeds=["q"]), "'q' is fed or fetched"),
    "parameters outside": (lambda p: p.update(params=".."), "outside of the folder"),
    "bad shapes": (lambda p: variable(p, "fc_0.w_0").update(shape=[7, 8]), "operator mul does not fit its inputs"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_malformed_program_is_refused(shared, tmp_path, case):
    change, match = HOSTILE[case]
    save(shared, tmp_path / "m")
    changed(tmp_path / "m" / "__model__", lambda document: change(document["program"]))

    with fluid.scope_guard(fluid.Scope()), pytest.raises(ValueError, match=match):
        fluid.io.load_inference_model(tmp_path / "m", shared.exe)


def test_every_problem_of_a_program_is_listed(shared, tmp_path):
    save(shared, tmp_path / "m")

    def change(document):
        for op in document["program"]["blocks"][0]["operators"][:2]:
            op["type"] = "no_" + op["type"]

    changed(tmp_path / "m" / "__model__", change)
    with pytest.raises(FormatError, match=r"(?s)2 problem.*no_mul.*no_elementwise_add"):
        predicted(shared, tmp_path / "m")


def test_flipped_byte_in_the_program_is_found(shared, tmp_path):
    save(shared, tmp_path / "m")
    path = tmp_path / "m" / "__model__"
    text = path.read_text()
    path.write_text(text.replace('"x_num_col_dims":1', '"x_num_col_dims":2', 1))

    with pytest.raises(FormatError, match="digest"):
        predicted(shared, tmp_path / "m")


def test_flipped_byte_in_the_parameters_is_found(shared, tmp_path):
    save(shared, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptCheckpointError):
        predicted(shared, tmp_path / "m")


def test_newer_version_is_told_apart(shared, tmp_path):
    save(shared, tmp_path / "m")
    changed(tmp_path / "m" / "__model__", lambda document: document.update(version=2, more="of it"))

    with pytest.raises(VersionError, match="version 2"):
        predicted(shared, tmp_path / "m")


@pytest.mark.parametrize("data", [b"{}", b"{", b'{"format": "x", "version": 1}', b"\x00" * 40, b"[" * 9000, b"{\xff}"])
def test_what_is_no_program_is_refused(shared, tmp_path, data):
    save(shared, tmp_path / "m")
    (tmp_path / "m" / "__model__").write_bytes(data)

    with pytest.raises(FormatError):
        predicted(shared, tmp_path / "m")


def test_attributes_that_json_lacks_come_back(tmp_path):
    from holdfast.fluid.io import program_json

    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()), fluid.unique_name.guard():
        x = fluid.layers.data("x", [2])
        fluid.layers.scale(x, scale=float("inf"), bias=-0.0)
    record = program_json.ProgramRecord(
        ["x"], ["scale_0.tmp_0"], "", program_json.StableHLO(None), program_json.blocks_of(program)
    )
    again = program_json.program_of(program_json.from_bytes(program_json.to_bytes(record), "m"), "m")

    attrs = again.global_block().ops[0].attrs
    assert attrs["scale"] == float("inf")
    assert str(attrs["bias"]) == "-0.0"
    assert msgspec.json.decode(program_json.to_bytes(record))["program"]["blocks"]


OLD = [
    ("save_inference_model", ()),
    ("save_inference_model_combined", ("model.pb", "weights.bin")),
    ("save_inference_model_embedding", ()),
]


@pytest.mark.parametrize(("name", "files"), OLD, ids=[name for name, _ in OLD])
def test_real_models_of_fluid_give_the_recorded_predictions(name, files, tmp_path):
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    exe = fluid.Executor(fluid.CPUPlace())
    with np.load(FIXTURES / name / "expected.npz") as arrays, fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(FIXTURES / name / "model", exe, *files)
        feed = {n: arrays[key] for n, key in expected["predict"]["feed"].items()}
        outs = exe.run(program, feed=feed, fetch_list=fetches)

        assert feeds == expected["feed_target_names"]
        assert [v.name for v in fetches] == expected["fetch_target_names"]
        for variable, out in zip(fetches, outs, strict=True):
            np.testing.assert_allclose(out, arrays[expected["predict"]["fetch"][variable.name]], rtol=2e-5, atol=1e-6)
        for file_format in ("holdfast", "fluid"):  # and once more through our own files
            fluid.io.save_inference_model(tmp_path / file_format, feeds, fetches, exe, program, file_format=file_format)
            with fluid.scope_guard(fluid.Scope()):
                program2, _, fetches2 = fluid.io.load_inference_model(tmp_path / file_format, exe)
                for a, b in zip(outs, exe.run(program2, feed=feed, fetch_list=fetches2), strict=True):
                    np.testing.assert_array_equal(a, b)


def test_attribute_of_fluid_that_changes_values_is_refused_by_name(tmp_path):
    from holdfast.interop import program_wire
    from holdfast.interop.program_desc import Attr, AttrCode

    desc = program_wire.read_file(FIXTURES / "save_inference_model" / "model" / "__model__")
    conv = next(op for op in desc.blocks[0].ops if op.type == "conv2d")
    next(a for a in conv.attrs if a.name == "fuse_relu").b = True
    conv.attrs.append(Attr.of("mystery", AttrCode.INT, 3))
    (tmp_path / "__model__").write_bytes(program_wire.to_bytes(desc))

    exe = fluid.Executor(fluid.CPUPlace())
    with pytest.raises(FormatError, match=r"(?s)conv2d: attribute 'fuse_relu' = True.*conv2d: attribute 'mystery' = 3"):
        fluid.io.load_inference_model(tmp_path, exe)


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
