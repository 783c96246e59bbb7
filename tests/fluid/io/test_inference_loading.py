"""load_inference_model: of our models and of real Fluid's, from folders and from memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.io.small_model import X, predicted, save
from tests.fluid.trained import Trained

import holdfast.fluid as fluid
from holdfast.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
)

FIXTURES = Path(__file__).parents[2] / "fixtures/fluid-1.8.5"


@pytest.fixture(scope="module")
def shared():
    return Trained()


def test_absent_model_says_what_is_there(shared, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        predicted(shared, tmp_path / "m")
    save(shared, tmp_path / "m", "net")
    with pytest.raises(CheckpointNotFoundError, match="perhaps model_filename='net'"):
        predicted(shared, tmp_path / "m")


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, CheckpointNotFoundError, fluid.core.EnforceNotMet])
def test_absent_folder_is_what_programs_catch(shared, tmp_path, kind):
    with pytest.raises(kind, match="the folder does not exist"):
        predicted(shared, tmp_path / "m")


def in_memory(shared, path):
    """A model in Fluid's form as (program, parameters)."""
    save(shared, path, "model", "params", file_format="fluid")
    return (path / "model").read_bytes(), (path / "params").read_bytes()


def test_model_is_loaded_from_memory(shared, tmp_path):
    model, params = in_memory(shared, tmp_path / "m")

    np.testing.assert_array_equal(predicted(shared, None, model, params), shared.predict(X))
    save(shared, tmp_path / "json", program_only=True)
    ours = (tmp_path / "json" / "__model__").read_bytes()
    np.testing.assert_array_equal(predicted(shared, None, ours, params), shared.predict(X))


def test_parameters_are_saved_to_memory(shared, tmp_path):
    model, params = in_memory(shared, tmp_path / "m")
    program = fluid.Program.parse_from_string(model)

    with fluid.scope_guard(shared.scope), pytest.warns(fluid.HazardWarning, match="nothing is written") as caught:
        found = fluid.io.save_persistables(shared.exe, None, program)
    assert found == params
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda m, p: (m, None), ValueError, "those of the parameters|bytes of the parameters"),
        (lambda m, p: (None, p), ValueError, "must be the bytes of the program"),
        (lambda m, p: ("model", p), ValueError, "must be the bytes of the program"),
        (lambda m, p: (m, p[:-1]), FormatError, "the given bytes"),
        (lambda m, p: (m, p + p), MismatchError, "there are 8 variables in them, and the program has 4"),
        (lambda m, p: (m[:-1], p), FormatError, "the given bytes"),
        (lambda m, p: (m, b"\x08" + b"\0" * 7 + b"{}      "), FormatError, "safetensors"),
    ],
)
def test_bytes_that_do_not_fit_change_nothing(shared, tmp_path, change, kind, match):
    model, params = change(*in_memory(shared, tmp_path / "m"))
    with fluid.scope_guard(fluid.Scope()):
        with pytest.raises(kind, match=match):
            fluid.io.load_inference_model(None, shared.exe, model, params)
        assert not fluid.global_scope().local_var_names()


def test_names_of_files_are_no_bytes(shared, tmp_path):
    with pytest.raises(TypeError, match="dirname=None"):
        fluid.io.load_inference_model(tmp_path, shared.exe, b"model")


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


def test_flipped_byte_in_the_parameters_is_found(shared, tmp_path):
    save(shared, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptCheckpointError):
        predicted(shared, tmp_path / "m")
