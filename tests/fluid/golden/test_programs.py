"""Programs of real Fluid 1.8.5 with gradients and updates, read from its bytes; and ours, written as it writes them.

`record_programs.py` recorded them. What they compute is in nn185.json, and in fluid-1.8.5.json of the optimizers.
"""

import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import holdfast.fluid as fluid
from fluid.golden import cases_nn
from fluid.golden.test_nn import assert_same
from holdfast.errors import FormatError
from holdfast.interop import program_wire

HERE = Path(__file__).parent
OF_RULES = HERE.parent / "optimizer/golden"
_spec = importlib.util.spec_from_file_location("optimizer_cases", OF_RULES / "cases.py")
rules = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rules)
RULES = {**rules.RULES, **rules.AVERAGES, **rules.SCHEDULES}
TRAINED = json.loads((OF_RULES / "fluid-1.8.5.json").read_text())
COMPUTED = json.loads((HERE / "nn185.json").read_text())
# One operator of Holdfast's where Fluid has several.
OWN = ("lookahead", "moving_average", "piecewise", "warmup", "warmup_piecewise")
# A maximum instead of a block with a condition; names of apply()'s program that Fluid counts.
OTHERWISE = (*OWN, "polynomial_cycle", "model_average")
ALIKE = ("adam_named", "clip_set", "exponential_stairs", "inverse_time", "natural_exp", "noam_scaled", "ftrl_power")


@pytest.fixture(scope="module")
def recorded():
    with zipfile.ZipFile(HERE / "programs185.zip") as archive:
        yield archive


def parsed(archive, name):
    main, startup = (fluid.Program.parse_from_string(archive.read(f"{name}.{part}")) for part in ("main", "startup"))
    return main, startup, json.loads(archive.read("fetched.json"))[name]


def run_rule(main, startup, exe, recorded, fetched):
    """Six steps from the recorded state: what they gave, and the state afterwards."""
    scope = fluid.global_scope()
    exe.run(startup)
    for name, dtype, shape, values in recorded["before"]:
        scope.var(name).get_tensor().set(np.array(values, dtype).reshape(shape))
    steps = [[v.item() for v in exe.run(main, feed=feed, fetch_list=fetched)] for feed in rules.feeds()]
    return steps, {n: np.asarray(scope.find_var(n).get_tensor()) for n, *_ in recorded["after"]}


@pytest.mark.parametrize("name", sorted(set(RULES) - set(ALIKE)))
def test_training_program_of_fluid_trains_as_it_did_there(name, recorded, fresh):
    main, startup, fetched = parsed(recorded, f"optimizer/{name}")
    expected = TRAINED[name]

    steps, after = run_rule(main, startup, fresh[2], expected, fetched)

    np.testing.assert_allclose(steps, expected["steps"], rtol=2e-5, atol=1e-7)
    for variable, _, shape, values in expected["after"]:
        np.testing.assert_allclose(after[variable], np.reshape(values, shape), rtol=2e-5, atol=2e-6, err_msg=variable)
    assert {p.name for p in main.all_parameters()} <= {"fc_0.w_0", "fc_0.b_0"}
    assert "fc_0.w_0" in main.global_block().vars


@pytest.mark.parametrize("name", sorted(cases_nn.CASES))
def test_gradients_in_programs_of_fluid_are_what_they_were_there(name, recorded, fresh):
    main, startup, _ = parsed(recorded, f"nn/{name}")
    exe, scope, expected = fresh[2], fluid.global_scope(), COMPUTED[name]
    exe.run(startup)
    for variable, shape, kind, _, persistable in expected["variables"]:
        if persistable and kind == "float32" and variable != "centerloss_alpha":
            value = np.abs(cases_nn.values(variable, shape)) * 0.5 + 0.3
            scope.find_var(variable).get_tensor().set(value.astype(np.float32))
    block, produced = main.global_block(), {n for op in main.all_ops() for n in op.output_arg_names}
    read = dict.fromkeys(n for op in main.all_ops() for n in op.input_arg_names if n not in produced)
    data = [block.var(n) for n in read if not block.var(n).persistable]
    feed = {v.name: cases_nn.values(v.name, v.shape, cases_nn.kind(v.dtype)) for v in data}
    names = list(expected["fetched"])

    fetched = [exe.run(main, feed=feed, fetch_list=names) for _ in range(2)][1]

    assert_same({n: cases_nn.digest(n, a) for n, a in zip(names, fetched, strict=True)}, expected["fetched"])
    kept = {n: cases_nn.digest(n, scope.find_var(n).get_tensor()) for n in expected["kept"]}
    assert_same(kept, expected["kept"])


def operators(data):
    return [op for block in program_wire.from_bytes(data).blocks for op in block.ops]


def slots(given):
    return {var.parameter: var.arguments for var in given if var.arguments}


def assert_written_as(ours, theirs):
    """Every operator of Fluid's is there, with its names in its slots and its attributes; ours may have more of them."""
    assert [op.type for op in ours] == [op.type for op in theirs]
    for mine, its in zip(ours, theirs, strict=True):
        assert slots(mine.outputs) == slots(its.outputs), its.type
        assert slots(mine.inputs).items() >= slots(its.inputs).items(), its.type
        written = {a.name: (a.type, a.value) for a in mine.attrs if a.name != "use_cudnn"}
        for attr in its.attrs:
            if attr.name in written and isinstance(attr.value, float):
                assert written[attr.name][1] == pytest.approx(attr.value, rel=1e-6), (its.type, attr.name)
            elif attr.name in written:
                assert written[attr.name] == (attr.type, attr.value), (its.type, attr.name)


@pytest.mark.parametrize("name", sorted(set(RULES) - set(OTHERWISE)))
def test_training_program_is_written_as_fluid_writes_it(name, recorded, fresh):
    RULES[name](fluid, rules.network(fluid, name))

    assert_written_as(
        operators(fresh[0].desc.serialize_to_string()), operators(recorded.read(f"optimizer/{name}.main"))
    )


@pytest.mark.parametrize(
    "name", ["batch_norm", "composed", "conv2d", "embedding", "normalised", "rearranged", "vectors"]
)
def test_gradients_are_written_as_fluid_writes_them(name, recorded, fresh):
    outputs = cases_nn.CASES[name](fluid)
    weighted = []
    for k, v in enumerate(outputs):
        if cases_nn.kind(v.dtype) == "float32":
            seed = cases_nn.var(fluid, f"seed{k}", v.shape, stop=True)
            weighted.append(fluid.layers.reduce_sum(fluid.layers.elementwise_mul(v, seed)))
    fluid.backward.append_backward(fluid.layers.sums(weighted))

    ours, theirs = operators(fresh[0].desc.serialize_to_string()), operators(recorded.read(f"nn/{name}.main"))

    assert_written_as(ours, theirs)
    attributes = {op.type: {a.name for a in op.attrs} for op in ours}
    for op in theirs:  # Fluid has no defaults for gradients: whatever a kernel asks for must be there
        if op.type.endswith("_grad"):
            asked = {a.name for a in op.attrs} - {"op_role_var", "op_device", "op_namescope"}
            assert asked - attributes[op.type] <= {"epmap", "table_names", "height_sections"} | {
                "@ALL_KERNELS_MUST_COMPUTE_RUNTIME_SHAPE@"
            }


@pytest.mark.parametrize("name", ["adam", "clip_global", "exponential", "frozen", "model_average"])
def test_training_program_comes_back_from_its_bytes(name, fresh):
    main, startup, exe = fresh
    loss = rules.network(fluid, name)
    RULES[name](fluid, loss)
    again = [fluid.Program.parse_from_string(p.desc.serialize_to_string()) for p in (main, startup)]

    with fluid.scope_guard(fluid.Scope()):
        expected = run_rule(main, startup, exe, TRAINED[name], [loss])
    with fluid.scope_guard(fluid.Scope()):
        found = run_rule(*again, exe, TRAINED[name], [loss.name])

    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)  # attributes are float32 in Fluid's bytes
    for variable, value in expected[1].items():
        np.testing.assert_allclose(found[1][variable], value, rtol=2e-5, atol=1e-6)
    test = again[0].clone(for_test=True)
    assert [op.type for op in test.all_ops()] == [op.type for op in main.clone(for_test=True).all_ops()]


@pytest.mark.parametrize("name", OWN)
def test_operators_that_fluid_does_not_have_are_not_written(name, fresh):
    RULES[name](fluid, rules.network(fluid, name))

    with pytest.raises(FormatError, match="Holdfast's own"):
        fresh[0].desc.serialize_to_string()
