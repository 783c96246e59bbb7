"""Layers against what Fluid 1.8.5 made of the same calls: variables, operators, and the values that it computed."""

import json
from pathlib import Path

import numpy as np
import pytest

import holdfast.fluid as fluid
from fluid.golden.cases import CASES, feeds
from holdfast.fluid import registry
from holdfast.fluid.core import VarType

GOLDEN = json.loads((Path(__file__).parent / "fluid185.json").read_text())

# Where this front end means to differ, and how.
MEANT = {
    "swish_beta_2.0": "Fluid leaves beta out of account",
    "expand_as": "Fluid infers the shape [0, 0]",
    "has_inf": "Fluid declares float32 and gives bool",
    "sampling_id": "Fluid declares float32 and gives int64",
    "random_crop": "Fluid declares no shape for the seed, and leaves it out of the startup program",
    "operator_pow_larger": "Fluid takes the power of the wrong side where the left one is smaller",
    "where": "its shape depends on values",
}
NOT_IN_FLUID = {n for n, g in GOLDEN.items() if "error" in g}
# A batch of unknown size, or a whole number for a float, changes what is built, and not what is computed.
_SAME = ("index_batch", "_integer")
RUN = [n for n, g in GOLDEN.items() if "values" in g and n not in MEANT and not any(part in n for part in _SAME)]
BUILT = [n for n in GOLDEN if n not in MEANT and n not in NOT_IN_FLUID]


@pytest.fixture
def built(request, fresh):
    """(golden record, main, startup, executor, outputs) of a case."""
    main, startup, exe = fresh
    function, _ = CASES[request.param]
    return GOLDEN[request.param], main, startup, exe, function(fluid)


def _is_forward(name):
    return "@GRAD" not in name and not name.endswith("_shape")


def test_every_case_is_recorded():
    assert list(CASES) == list(GOLDEN)


@pytest.mark.parametrize("built", BUILT, ids=str, indirect=True)
def test_variables_and_operators_are_those_of_fluid(built):
    golden, main, *_ = built
    block = main.global_block()
    ours = {n: v for n, v in block.vars.items() if v.type == VarType.LOD_TENSOR and _is_forward(n)}
    theirs = {v[0]: v[1:] for v in golden["variables"] if _is_forward(v[0])}

    assert [n for n in ours if n != "@RANDOM_STATE@"] == list(theirs)
    for name, (shape, dtype, persistable, stop_gradient) in theirs.items():
        variable = ours[name]
        assert len(variable.shape) == len(shape), name
        # Ours may know a dimension that Fluid does not.
        assert all(n in (m, -1) for n, m in zip(shape, variable.shape, strict=True)), (name, variable.shape, shape)
        assert (int(variable.dtype), variable.persistable, variable.stop_gradient) == (
            dtype,
            persistable,
            stop_gradient,
        ), name
    if not any(op[0].endswith("_grad") for op in golden["operators"]):
        assert [op.type for op in block.ops] == [op[0] for op in golden["operators"]]
        for op, (kind, inputs, outputs, attrs) in zip(block.ops, golden["operators"], strict=True):
            _check_operator(op, kind, inputs, outputs, attrs)


def _check_operator(op, kind, inputs, outputs, attrs):
    if kind == "conditional_block":  # its inputs are all that the block reads
        assert op.inputs["Cond"] == inputs["Cond"]
        assert op.outputs["Out"] == outputs["Out"]
        return
    assert {slot: names for slot, names in op.inputs.items() if names} == inputs
    assert {slot: names for slot, names in op.outputs.items() if names} == outputs
    defaults = {
        n: d for n, d in registry.find(kind).attrs.items() if n not in ("is_test", "use_global_stats", "in_dtype")
    }
    assert set(defaults) <= set(attrs), "attributes that Fluid's operator does not have"
    for name, theirs in attrs.items():
        ours = op.attrs.get(name, defaults.get(name))
        if name in defaults and ours is not None:
            expected = pytest.approx(theirs, rel=1e-6) if isinstance(theirs, float) else theirs
            assert (list(ours) if isinstance(ours, tuple) else ours) == expected, f"{kind}.{name}"


@pytest.mark.parametrize("built", RUN, ids=str, indirect=True)
def test_values_are_those_of_fluid(built):
    golden, main, startup, exe, outputs = built
    exe.run(startup)

    found = exe.run(main, feed=feeds(main), fetch_list=outputs)

    for array, (dtype, shape, values) in zip(found, golden["values"], strict=True):
        assert (str(array.dtype), list(array.shape)) == (dtype, shape)
        np.testing.assert_allclose(array.astype(np.float64).ravel(), values, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(n for n in NOT_IN_FLUID if n.startswith("index") or n.endswith("int_float")))
def test_what_fluid_refuses_is_refused_or_done(fresh, name):
    function, _ = CASES[name]
    if name.startswith("index"):
        assert len(function(fluid)[0].shape) == 2
    else:
        with pytest.raises(ValueError, match="cut off"):
            function(fluid)
