"""Programs, blocks, variables and names."""

import numpy as np
import pytest
from tests.fluid.models import descend, regression

import holdfast.fluid as fluid
from holdfast.fluid.core import VarType
from holdfast.fluid.framework import OpRole, Parameter


def names(program):
    return [v.name for v in program.list_vars()]


def test_layer_names_are_fluids(fresh):
    main, startup, _ = fresh
    x = fluid.layers.data("x", [4])
    z = fluid.layers.data("z", [4])
    fluid.layers.fc([x, z], 3, act="relu")
    fluid.layers.fc(x, 3, name="my")

    assert names(main) == [
        "x", "z", "fc_0.w_0", "fc_0.tmp_0", "fc_0.w_1", "fc_0.tmp_1", "fc_0.tmp_2", "fc_0.b_0", "fc_0.tmp_3", "fc_0.tmp_4",
        "my.w_0", "my.tmp_0", "my.b_0", "my.tmp_1",
    ]  # fmt: skip
    assert names(startup) == ["fc_0.w_0", "fc_0.w_1", "fc_0.b_0", "my.w_0", "my.b_0"]


def test_a_guard_makes_names_repeat_and_without_one_they_run_on(fresh):
    x = fluid.layers.data("x", [4])
    first = fluid.layers.fc(x, 3).name
    second = fluid.layers.fc(x, 3).name
    with fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        again = fluid.layers.fc(fluid.layers.data("x", [4]), 3).name

    assert (first, second, again) == ("fc_0.tmp_1", "fc_1.tmp_1", "fc_0.tmp_1")


def test_a_prefix_stands_twice_before_parameters_as_in_fluid(fresh):
    with fluid.unique_name.guard("A_"):
        fluid.layers.fc(fluid.layers.data("x", [4]), 3)

    assert fresh[0].all_parameters()[0].name == "A_A_fc_0.w_0"


def test_kinds_of_variables_are_nested(fresh):
    main, _, _ = fresh
    _, loss = regression()
    descend(loss)
    by_name = {v.name: v for v in main.list_vars()}

    assert isinstance(by_name["fc_0.w_0"], Parameter)
    assert by_name["fc_0.w_0"].persistable
    assert by_name["learning_rate_0"].persistable
    assert not isinstance(by_name["learning_rate_0"], Parameter)
    assert not by_name["fc_0.tmp_0"].persistable
    assert by_name["x"].shape == (-1, 4)
    assert by_name["x"].dtype == VarType.FP32


def test_a_parameter_says_how_it_is_made(fresh):
    main, startup, _ = fresh
    decay = fluid.regularizer.L2Decay(0.1) if hasattr(fluid.regularizer, "L2Decay") else None
    attr = fluid.ParamAttr(
        name="w", initializer=fluid.initializer.Constant(2.0), learning_rate=0.5, regularizer=decay, trainable=False
    )
    fluid.layers.fc(fluid.layers.data("x", [4]), 3, param_attr=attr)
    parameter = main.global_block().var("w")

    assert parameter.optimize_attr == {"learning_rate": 0.5}
    assert parameter.regularizer is decay
    assert not parameter.trainable
    assert parameter.stop_gradient
    assert parameter.initializer is attr.initializer
    assert next(op.type for op in startup.global_block().ops) == "fill_constant"


def test_a_shared_name_shares_the_parameter(fresh):
    main, startup, _ = fresh
    x = fluid.layers.data("x", [4])
    for _ in range(2):
        fluid.layers.fc(x, 4, param_attr=fluid.ParamAttr(name="w"), bias_attr=False)

    assert [p.name for p in main.all_parameters()] == ["w"]
    assert sum("w" in op.output_arg_names for op in startup.global_block().ops) == 1


def test_a_shared_name_of_another_shape_is_an_error(fresh):
    x = fluid.layers.data("x", [4])
    fluid.layers.fc(x, 2, param_attr=fluid.ParamAttr(name="w"))

    with pytest.raises(ValueError, match=r"previous shape is \(4, 2\); the new shape is \(4, 3\)"):
        fluid.layers.fc(x, 3, param_attr=fluid.ParamAttr(name="w"))


def test_two_data_of_one_name_must_agree(fresh):
    assert fluid.layers.data("x", [4]) is fluid.layers.data("x", [4])
    with pytest.raises(ValueError, match="previous shape"):
        fluid.layers.data("x", [5])
    with pytest.raises(ValueError, match="previous data type is FP32; the new data type is INT64"):
        fluid.layers.data("x", [4], dtype="int64")


def test_clone_for_test_drops_training_whenever_it_is_called(fresh):
    main, _, _ = fresh
    _, loss = regression()
    before = main.clone(for_test=True)
    descend(loss)
    after = main.clone(for_test=True)

    assert [o.type for o in before.global_block().ops] == [o.type for o in after.global_block().ops]
    assert names(before) == names(after)
    assert loss.name in names(after)
    assert not any(o.role & (OpRole.Backward | OpRole.Optimize) for o in after.all_ops())
    assert all(isinstance(after.global_block().var(p.name), Parameter) for p in main.all_parameters())


def test_a_clone_is_a_program_of_its_own(fresh):
    main, _, _ = fresh
    regression()
    copied = main.clone()
    copied.global_block().create_var(name="more", shape=[1], dtype="float32")
    copied.global_block().ops.pop()

    assert "more" not in names(main)
    assert len(main.global_block().ops) == len(copied.global_block().ops) + 1
    assert copied.global_block().var("x").block.program is copied


def test_prune_keeps_what_the_targets_need(fresh):
    main, _, _ = fresh
    prediction, loss = regression()
    descend(loss)
    pruned = main._prune([prediction])

    assert [o.type for o in pruned.global_block().ops] == ["mul", "elementwise_add", "tanh", "mul", "elementwise_add"]
    assert "y" not in names(pruned)
    assert len(main.global_block().ops) > 10


def test_a_program_reads_well(fresh):
    main, _, _ = fresh
    regression()
    text = str(main)

    assert "parameter fc_0.w_0 : fp32[4, 8]" in text
    assert "{Out=['fc_0.tmp_0']} = mul(X=['x'], Y=['fc_0.w_0'])" in text
    assert "0x" not in text


def test_version_changes_with_every_change(fresh):
    main, _, _ = fresh
    seen = {main.version}
    regression()
    seen.add(main.version)
    main.random_seed = 5
    seen.add(main.version)
    main.global_block().var("fc_0.tmp_0").persistable = True
    seen.add(main.version)

    assert len(seen) == 4


def test_name_scope_changes_no_name(fresh):
    with fluid.name_scope("encoder"):
        assert fluid.layers.fc(fluid.layers.data("x", [4]), 3).name == "fc_0.tmp_1"
    with pytest.raises(ValueError, match="without '/'"), fluid.name_scope("a/b"):
        pass


def test_operators_are_checked_when_they_are_added(fresh):
    main, _, _ = fresh
    block = main.global_block()
    x = fluid.layers.data("x", [4])
    with pytest.raises(NotImplementedError, match="no operator 'nonsense'"):
        block.append_op("nonsense")
    with pytest.raises(ValueError, match="no input slot 'Z'") as caught:
        block.append_op("mul", {"X": [x], "Z": [x]}, {"Out": ["x"]}, {"color": 1})
    assert "input slot 'Y' is missing" in str(caught.value)
    assert "no attribute 'color'" in str(caught.value)
    with pytest.raises(ValueError, match="'absent' is in no block"):
        block.append_op("relu", {"X": ["absent"]}, {"Out": ["x"]})


def test_shapes_that_do_not_fit_name_the_variables(fresh):
    main, _, _ = fresh
    x, w = fluid.layers.data("x", [4]), fluid.layers.create_parameter([5, 3], "float32", name="w")
    out = main.global_block().create_var(name="out")

    with pytest.raises(ValueError, match=r"operator mul does not fit its inputs \(x fp32\[-1, 4\], w fp32\[5, 3\]\)"):
        main.global_block().append_op("mul", {"X": [x], "Y": [w]}, {"Out": [out]})


def test_lookups_that_fail_say_what_there_is(fresh):
    main, _, _ = fresh
    regression()
    with pytest.raises(ValueError, match="var w not in this block; it has x, y, fc_0.w_0"):
        main.global_block().var("w")


@pytest.mark.parametrize("given", ["float32", np.float32, VarType.FP32, 5, np.dtype("float32")])
def test_dtypes_are_taken_in_every_form(fresh, given):
    assert fluid.layers.data("x", [1], dtype=given).dtype == VarType.FP32


def test_an_unknown_dtype_is_an_error(fresh):
    with pytest.raises(ValueError, match="dtype 'float7' is none"):
        fluid.layers.data("x", [1], dtype="float7")


def test_program_guard_takes_programs_only():
    with pytest.raises(TypeError, match="fluid.Program"), fluid.program_guard("main"):
        pass
