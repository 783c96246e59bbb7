"""Errors of fluid.io are the core's, what Python calls them, and what programs of Fluid catch."""

import pickle

import numpy as np
import pytest
from tests.fluid.trained import Trained

import holdfast.fluid as fluid
from holdfast import errors
from holdfast.fluid.io import failures
from holdfast.fluid.io.failures import enforced


@pytest.fixture(scope="module")
def net():
    return Trained()


def _other_shapes():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        fluid.layers.fc(fluid.layers.data("x", [5]), 8)
    return main


def _cut(folder):
    path = folder / "fc_0.w_0"
    path.write_bytes(path.read_bytes()[:-4])


REFUSED = {
    "no folder": (lambda n, d: fluid.io.load_params(n.exe, d / "nowhere", n.main), errors.CheckpointNotFoundError),
    "no file": (lambda n, d: fluid.io.load_params(n.exe, d, n.main, filename="all"), errors.CheckpointNotFoundError),
    "parameters only": (lambda n, d: fluid.io.load_persistables(n.exe, d / "p", n.main), errors.MismatchError),
    "another shape": (lambda n, d: fluid.io.load_params(n.exe, d / "p", _other_shapes()), errors.MismatchError),
    "cut": (lambda n, d: (_cut(d / "p"), fluid.io.load_params(n.exe, d / "p", n.main)), errors.FormatError),
    "a file": (lambda n, d: fluid.io.save_params(n.exe, d / "p" / "fc_0.w_0", n.main), errors.ForeignFolderError),
    "no model": (lambda n, d: fluid.io.load_inference_model(d, n.exe), errors.CheckpointNotFoundError),
    "no save": (lambda n, d: fluid.load(n.main, d / "nowhere"), errors.CheckpointNotFoundError),
    "no checkpoint": (
        lambda n, d: fluid.io.load_checkpoint(n.exe, d / "run", 3, n.main),
        errors.CheckpointNotFoundError,
    ),
    "no program": (lambda n, d: fluid.Program.parse_from_string(b"\x99"), errors.FormatError),
    "a dtype": (lambda n, d: fluid.set_program_state(n.main, {"fc_0.w_0": np.zeros(3)}), errors.MismatchError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_what_programs_of_fluid_catch(net, tmp_path, case):
    call, kind = REFUSED[case]
    with fluid.scope_guard(net.scope):
        fluid.io.save_params(net.exe, tmp_path / "p", net.main, file_format="fluid")
        with pytest.raises(fluid.core.EnforceNotMet) as caught:
            call(net, tmp_path)

    assert isinstance(caught.value, kind)
    assert type(caught.value).__name__ == kind.__name__ or kind is errors.CheckpointNotFoundError


EXAMPLES = [
    errors.CheckpointNotFoundError("a"),
    errors.FormatError("b"),
    errors.VersionError("c"),
    errors.CorruptCheckpointError("d", path="p", variables=["v"]),
    errors.MismatchError("e", [errors.Problem("missing", "v", "v is missing")]),
    errors.UnsupportedVariableError({"v": "why"}),
    errors.ForeignFolderError("f"),
    errors.StorageError.of(OSError(13, "no"), "cannot read"),
    errors.DiskFullError("g", needed_bytes=3),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_error_keeps_its_fields_its_traceback_and_is_pickled(error):
    kind, text, fields = type(error), str(error), vars(error).copy()

    with pytest.raises(fluid.core.EnforceNotMet) as caught, enforced():
        raise error

    assert caught.value is error
    assert isinstance(error, kind)
    assert (str(error), vars(error), error.__cause__) == (text, fields, None)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), text)


def test_every_class_of_a_load_or_save_has_its_own(net):
    named = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.HoldfastError)}
    elsewhere = {
        errors.HoldfastError,
        errors.CastError,
        errors.RestoreError,
        errors.ClosedError,
        errors.MissingExtraError,
    }

    assert named - elsewhere == set(failures._ENFORCED)


def test_other_errors_pass_as_they_are():
    for error in (ValueError("x"), errors.ClosedError("y")):
        with pytest.raises(type(error)) as caught, enforced():
            raise error
        assert type(caught.value) is type(error)
