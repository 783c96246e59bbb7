"""What real Fluid 1.8.5 has after the same programs and feeds: golden/cases.py builds them, golden/record.py recorded them."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

import holdfast.fluid as fluid

pytestmark = pytest.mark.usefixtures("no_drawing")

GOLDEN = pathlib.Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("optimizer_cases", GOLDEN / "cases.py")
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
RECORDED = json.loads((GOLDEN / "fluid-1.8.5.json").read_text())
EVERY = {**cases.RULES, **cases.AVERAGES, **cases.SCHEDULES}

# Temporaries that differ, each with the reason; all persistables are Fluid's.
OTHER_TEMPORARIES = {
    "lookahead": "one operator instead of a block with a condition",
    "moving_average": "one operator instead of arithmetic; Fluid's also counts the names of apply()'s program",
    "piecewise": "one operator instead of blocks with conditions",
    "polynomial_cycle": "a maximum instead of a block with a condition",
    "warmup": "one operator instead of blocks with conditions",
    "warmup_piecewise": "one operator instead of blocks with conditions",
}


def put(recorded):
    """Recorded values into the scope."""
    for name, dtype, shape, values in recorded:
        fluid.global_scope().var(name).get_tensor().set(np.array(values, dtype).reshape(shape))


def agrees(main, recorded):
    """Every persistable of the program has the recorded name, place in list_vars, dtype, shape and value."""
    found = [v for v in main.list_vars() if v.persistable]
    assert [v.name for v in found] == [name for name, *_ in recorded]
    for variable, (name, dtype, shape, values) in zip(found, recorded, strict=True):
        value = np.asarray(fluid.global_scope().find_var(name).get_tensor())
        assert (str(value.dtype), list(value.shape)) == (dtype, shape), name
        assert list(variable.shape) == shape
        np.testing.assert_allclose(value.ravel(), values, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_program_trains_as_fluids_does(name, fresh):
    main, startup, exe = fresh
    recorded = RECORDED[name]
    loss = cases.network(fluid, name)
    made = EVERY[name](fluid, loss)
    exe.run(startup)
    names = {p.name for p in main.all_parameters()}
    put([each for each in recorded["before"] if each[0].removesuffix("@SLOW") in names])
    agrees(main, recorded["before"])  # what is no parameter comes from our own startup program
    fetches = [loss, made] if name in cases.SCHEDULES else [loss]

    steps = [[v.item() for v in exe.run(main, feed=feed, fetch_list=fetches)] for feed in cases.feeds()]

    np.testing.assert_allclose(steps, recorded["steps"], rtol=2e-5, atol=1e-7)
    agrees(main, recorded["after"])


@pytest.mark.parametrize("name", sorted(EVERY))
def test_variables_are_fluids_in_name_and_order(name, fresh):
    main, _, _ = fresh
    EVERY[name](fluid, cases.network(fluid, name))

    ours = [v.name for v in main.list_vars() if "@GRAD" not in v.name]

    if name in OTHER_TEMPORARIES:
        assert ours != RECORDED[name]["variables"]
        kept = {v.name for v in main.list_vars() if v.persistable}
        assert [n for n in ours if n in kept] == [n for n in RECORDED[name]["variables"] if n in kept]
    else:
        assert ours == RECORDED[name]["variables"]


@pytest.mark.parametrize("name", sorted(cases.AVERAGES))
def test_averages_are_fluids_and_are_taken_back(name, fresh):
    main, startup, exe = fresh
    recorded = RECORDED[name]
    average = EVERY[name](fluid, cases.network(fluid, name))
    exe.run(startup)
    put(recorded["after"])
    parameters = {p.name for p in main.all_parameters()}

    with average.apply(exe):
        # Of moving averages Fluid overwrites the averages too, which a second apply() would then correct again.
        for each in recorded["applied"]:
            if each[0] in parameters:
                value = np.asarray(fluid.global_scope().find_var(each[0]).get_tensor())
                np.testing.assert_allclose(value.ravel(), each[3], rtol=2e-5, err_msg=each[0])

    agrees(main, recorded["after"])


@pytest.mark.parametrize("name", ["piecewise", "warmup", "warmup_piecewise", "polynomial_cycle"])
def test_schedule_counts_names_of_unnamed_persistables_as_fluid_does(name, fresh):
    EVERY[name](fluid, cases.network(fluid, name))

    made = fluid.layers.create_global_var([1], 0.0, "float32", persistable=True)

    blocks = sum(n.startswith("_generated_var_") for n in RECORDED[name]["variables"])
    assert made.name == f"_generated_var_{blocks}"
