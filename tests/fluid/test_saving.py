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
    files = ["m"] if file_format == "holdfast" else ["m.pdmodel", "m.pdopt", "m.pdparams"]
    assert sorted(os.listdir(tmp_path)) == files


@pytest.mark.parametrize("end", [".pdparams", ".pdopt", ".pdmodel"])
def test_any_file_of_a_save_stands_for_all(shared, tmp_path, end):
    with fluid.scope_guard(shared.scope):
        fluid.save(shared.main, tmp_path / "m", file_format="fluid")

    with fluid.scope_guard(fluid.Scope()):
        fluid.load(shared.main, f"{tmp_path}/m{end}", shared.exe)
        assert values(fluid.global_scope(), shared.main) == shared.values()
    assert fluid.load_program_state(f"{tmp_path}/m{end}").keys() == shared.values().keys()


def test_saved_program_trains_on_without_the_code_that_built_it(tmp_path):
    net, feeds = Trained(), batches(3, seed=1)
    with fluid.scope_guard(net.scope):
        fluid.save(net.main, tmp_path / "m", file_format="fluid")
    program = fluid.Program.parse_from_string((tmp_path / "m.pdmodel").read_bytes())

    with fluid.scope_guard(fluid.Scope()):
        fluid.load(program, tmp_path / "m", net.exe)
        losses = [net.exe.run(program, feed=feed, fetch_list=[net.loss.name])[0] for feed in feeds]
    np.testing.assert_allclose(losses, [np.frombuffer(v, np.float32) for v in net.train(feeds)], rtol=1e-6)


def test_program_that_fluid_has_no_operators_for_is_left_out_with_a_warning(fresh, tmp_path):
    main, startup, exe = fresh
    loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 1))
    fluid.optimizer.SGD(fluid.layers.piecewise_decay([2], [0.1, 0.01])).minimize(loss)
    exe.run(startup)
    (tmp_path / "m.pdmodel").write_bytes(b"of another program")

    with pytest.warns(fluid.HazardWarning, match=r"(?s)there is no .*m\.pdmodel: .*piecewise_rate") as caught:
        fluid.save(main, tmp_path / "m", file_format="fluid")
    assert caught[0].filename == __file__
    assert sorted(os.listdir(tmp_path)) == ["m.pdopt", "m.pdparams"]


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
