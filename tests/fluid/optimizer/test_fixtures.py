"""Training that real Fluid 1.8.5 began goes on here: its programs rebuilt, its values put into the scope, its further losses."""

import json
import pathlib

import numpy as np
import pytest

import holdfast.fluid as fluid

pytestmark = pytest.mark.usefixtures("no_drawing")
FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "fluid-1.8.5"
L = fluid.layers


def mlp():
    x = L.data("x", [-1, 13], append_batch_size=False)
    y = L.data("y", [-1, 1], append_batch_size=False, dtype="int64")
    hidden = L.fc(L.fc(x, size=16, act="relu"), size=8, act="tanh")
    prediction = L.fc(hidden, size=5, act="softmax")
    return prediction, L.mean(L.cross_entropy(prediction, y))


def convnet():
    image = L.data("img", [-1, 1, 8, 8], append_batch_size=False)
    label = L.data("label", [-1, 1], append_batch_size=False, dtype="int64")
    hidden = L.conv2d(image, num_filters=4, filter_size=3, padding=1, act=None, bias_attr=False)
    hidden = L.batch_norm(hidden, act="relu", momentum=0.9)
    hidden = L.pool2d(hidden, pool_size=2, pool_stride=2, pool_type="max")
    hidden = L.conv2d(hidden, num_filters=6, filter_size=3, act="relu")
    prediction = L.fc(hidden, size=5, act="softmax")
    return prediction, L.mean(L.cross_entropy(prediction, label))


def decayed_adam():
    rate = L.exponential_decay(0.01, decay_steps=3, decay_rate=0.5, staircase=True)
    return fluid.optimizer.Adam(rate, regularization=fluid.regularizer.L2Decay(1e-3))


CASES = {
    "save_params": (mlp, lambda: fluid.optimizer.SGD(0.1)),
    "save_persistables_adam_bn_decay": (convnet, decayed_adam),
    "save_persistables_momentum_combined": (
        mlp,
        lambda: fluid.optimizer.Momentum(L.piecewise_decay([3, 6], [0.1, 0.05, 0.01]), momentum=0.9),
    ),
    "fluid_save": (convnet, lambda: fluid.optimizer.Adam(L.noam_decay(16, 5))),
    "checkpoint_layout": (mlp, lambda: fluid.optimizer.Adam(L.exponential_decay(0.01, 3, 0.5))),
}


class Recorded:
    """A fixture's expected.json and expected.npz."""

    def __init__(self, case):
        self.json = json.loads((FIXTURES / case / "expected.json").read_text())
        self.arrays = np.load(FIXTURES / case / "expected.npz")

    def steps(self, tag):
        for step in self.json[tag]["steps"]:
            yield tuple({n: self.arrays[key] for n, key in step[side].items()} for side in ("feed", "fetch"))


def built(case):
    """The fixture's program: (prediction, loss, test program), with its optimizer."""
    build, optimizer = CASES[case]
    prediction, loss = build()
    test = fluid.default_main_program().clone(for_test=True)
    optimizer().minimize(loss)
    return prediction, loss, test


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_fluids_values(case, fresh):
    main, startup, exe = fresh
    recorded = Recorded(case)
    prediction, loss, test = built(case)
    late_test = main.clone(for_test=True)
    exe.run(startup)
    scope = fluid.global_scope()
    for name, entry in recorded.json["vars"].items():
        if main.global_block().has_var(name):  # checkpoint_layout has a sparse table beside the program
            scope.find_var(name).get_tensor().set(recorded.arrays[entry["npz"]])
    assert {v.name for v in main.list_vars() if v.persistable} - set(recorded.json["vars"]) <= {"learning_rate_0"}

    for program in (test, late_test):
        for feed, expected in recorded.steps("predict"):
            found = exe.run(program, feed=feed, fetch_list=[prediction, loss])
            np.testing.assert_allclose(found[0], expected[prediction.name], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(found[1], expected[loss.name], rtol=1e-5)
    for feed, expected in recorded.steps("continue"):
        np.testing.assert_allclose(exe.run(main, feed=feed, fetch_list=[loss])[0], expected[loss.name], rtol=1e-5)
    for name, key in recorded.json["after_continue"].items():
        value = np.asarray(scope.find_var(name).get_tensor())
        assert value.dtype == recorded.arrays[key].dtype
        # Adam divides small gradients by small roots, so their rounding is that of the step: 1e-6 of a rate of 0.1.
        np.testing.assert_allclose(value, recorded.arrays[key], rtol=2e-5, atol=2e-6, err_msg=name)


def is_block_of_fluids_switch(name):
    """A temporary of the blocks with conditions that Fluid makes of piecewise_decay; here that is one operator."""
    return name.startswith(("fill_constant_", "logical_", "_generated_var_")) or name in ("tmp_0", "tmp_1")


@pytest.mark.parametrize("case", [c for c in CASES if "list_vars" in Recorded(c).json])
def test_variables_are_fluids(case, fresh):
    main, _, _ = fresh
    built(case)
    expected = Recorded(case).json["list_vars"]
    if case == "save_persistables_momentum_combined":
        expected = [e for e in expected if not is_block_of_fluids_switch(e["name"])]

    found = {v.name: v for v in main.list_vars()}

    # Fluid's own list has the gradients in the order of a hash: only that they are there can be asked for.
    assert {e["name"] for e in expected} == set(found)
    assert [e["name"] for e in expected if "@GRAD" not in e["name"]] == [n for n in found if "@GRAD" not in n]
    for each in expected:
        variable = found[each["name"]]
        assert ("Parameter" if isinstance(variable, fluid.framework.Parameter) else "Variable") == each["kind"]
        assert variable.persistable == each["persistable"], variable
        assert variable.dtype.name == each["dtype"], variable
        if variable.name != "cross_entropy2_0.tmp_1":  # XShape: a note to Fluid's gradient that holds nothing
            assert list(variable.shape) == each["shape"], variable
        if each["kind"] == "Parameter":
            assert (variable.trainable, variable.stop_gradient) == (each["trainable"], each["stop_gradient"])
