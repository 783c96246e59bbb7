"""fluid.save and fluid.load, load_program_state and set_program_state."""

import inspect
import os
from pathlib import Path

import numpy as np
import pytest
from tests.fluid.trained import Trained, batches, values

import holdfast.fluid as fluid
from holdfast.errors import CheckpointNotFoundError, FormatError, MismatchError

FIXTURES = Path(__file__).parents[1] / "fixtures/fluid-1.8.5"


@pytest.fixture(scope="module")
def shared():
    return Trained()


def test_signatures_are_fluids():
    expected = {
        "save": "program model_path",
        "load": "program model_path executor var_list",
        "load_program_state": "model_path var_list",
        "set_program_state": "program state_dict",
    }
    for name, parameters in expected.items():
        found = inspect.signature(getattr(fluid, name)).parameters.values()
        assert [p.name for p in found if p.kind is not p.KEYWORD_ONLY] == parameters.split()


@pytest.mark.parametrize("file_format", ["holdfast", "fluid"])
def test_saved_program_goes_on_bit_for_bit(tmp_path, file_format):
    net = Trained()
    with fluid.scope_guard(net.scope):
        fluid.save(net.main, str(tmp_path / "m"), file_format=file_format)
    expected, losses = net.values(), net.train(batches(2, seed=1))

    with fluid.scope_guard(net.scope):
        fluid.load(net.main, str(tmp_path / "m"), net.exe)
    assert net.values() == expected
    assert net.train(batches(2, seed=1)) == losses
    assert sorted(os.listdir(tmp_path)) == (["m"] if file_format == "holdfast" else ["m.pdopt", "m.pdparams"])


def test_load_takes_what_fluid_io_saved(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        fluid.io.save_params(shared.exe, tmp_path / "one", shared.main, file_format="fluid")
        fluid.io.save_params(shared.exe, tmp_path, shared.main, filename="all", file_format="fluid")
    parameters = fluid.io.get_program_parameter(shared.main)

    for path in ("one", "all"):
        with fluid.scope_guard(fluid.Scope()) as _:
            fluid.load(shared.main, tmp_path / path, shared.exe, var_list=parameters)
            loaded = values(fluid.global_scope(), shared.main)
            assert loaded == {p.name: shared.values()[p.name] for p in parameters}
            state = fluid.load_program_state(tmp_path / path, parameters)
            assert {n: a.tobytes() for n, a in state.items()} == loaded


def test_load_of_parameters_only_names_the_accumulators(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        fluid.save(shared.main, tmp_path / "m", file_format="fluid")
        os.unlink(tmp_path / "m.pdopt")
        with pytest.raises(MismatchError, match="fc_0.w_0_velocity_0"):
            fluid.load(shared.main, tmp_path / "m", shared.exe)


def test_program_state_of_real_files_is_exact():
    with np.load(FIXTURES / "fluid_save" / "expected.npz") as arrays:
        known = {arrays[key].tobytes() for key in arrays.files}
    state = fluid.load_program_state(FIXTURES / "fluid_save/model/m")

    assert "conv2d_0.w_0_moment1_0" in state
    assert all(array.tobytes() in known for array in state.values())


def test_state_is_set_as_a_whole_or_not_at_all(tmp_path):
    net = Trained()
    with fluid.scope_guard(net.scope):
        fluid.save(net.main, tmp_path / "m")
        state = fluid.load_program_state(tmp_path / "m")
        net.train(batches(1))
        before = net.values()
        with pytest.raises(MismatchError, match="fc_0.w_0"):
            fluid.set_program_state(net.main, {**state, "fc_0.w_0": np.zeros((2, 2), np.float32)})
        assert net.values() == before
        with pytest.warns(fluid.HazardWarning, match="no variables of these names: elsewhere"):
            fluid.set_program_state(net.main, {**state, "elsewhere": np.zeros(1)})
        assert net.values() == {n: a.tobytes() for n, a in state.items()}
        state["fc_0.b_0"][:] = 9  # the scope has a copy
        assert net.values()["fc_0.b_0"] != state["fc_0.b_0"].tobytes()


def test_what_cannot_be_is_refused(shared, tmp_path):
    with fluid.scope_guard(shared.scope):
        with pytest.raises(ValueError, match="slash"):
            fluid.save(shared.main, f"{tmp_path}/")
        with pytest.raises(ValueError, match="no persistables"):
            fluid.save(fluid.Program(), tmp_path / "m")
        fluid.io.save_params(shared.exe, tmp_path, shared.main, filename="all", file_format="fluid")
        with pytest.raises(FormatError, match="no names in it"):
            fluid.load_program_state(tmp_path / "all")
        with pytest.raises(CheckpointNotFoundError):
            fluid.load(shared.main, tmp_path / "nowhere", shared.exe)
