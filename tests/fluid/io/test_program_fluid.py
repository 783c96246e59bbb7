"""Programs in Fluid's bytes: conditions, gradients and roles come back; what does not fit together is refused by name."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.errors import FormatError
from holdfast.fluid.framework import OpRole
from holdfast.interop import program_wire
from holdfast.interop.program_desc import Attr, AttrCode


def again(program):
    return fluid.Program.parse_from_string(program.desc.serialize_to_string())


def test_condition_comes_back_with_what_it_keeps(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [1])
    rate = fluid.layers.fill_constant([1], "float32", 5.0)
    with fluid.layers.Switch() as switch, switch.case(fluid.layers.reduce_sum(x) > 1.0):
        fluid.layers.assign(fluid.layers.reduce_sum(x), rate)

    for program in (main, again(main), again(again(main))):
        for fed, expected in ((0.5, 5.0), (3.0, 3.0)):
            (found,) = exe.run(program, feed={"x": np.full((1, 1), fed, np.float32)}, fetch_list=[rate.name])
            assert found.item() == expected


def trained(fresh):
    loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 3, act="tanh"))
    fluid.optimizer.Adam(0.1).minimize(loss)
    return fresh[0]


def test_roles_and_kinds_come_back(fresh):
    main = trained(fresh)
    found = again(main)

    assert [op.role for op in found.all_ops()] == [op.role for op in main.all_ops()]
    assert {p.name for p in found.all_parameters()} == {"fc_0.w_0", "fc_0.b_0"}
    kept = {v.name for v in main.list_vars() if v.persistable}
    assert {v.name for v in found.list_vars() if v.persistable} == kept
    assert not any(op.role & (OpRole.Backward | OpRole.Optimize) for op in found.clone(for_test=True).all_ops())


def test_statistics_of_batch_norm_are_parameters_of_a_program_that_trains(fresh):
    hidden = fluid.layers.batch_norm(fluid.layers.fc(fluid.layers.data("x", [2]), 3))
    fluid.optimizer.SGD(0.1).minimize(fluid.layers.mean(hidden))

    assert {p.name for p in again(fresh[0]).all_parameters()} == {p.name for p in fresh[0].all_parameters()}


def test_startup_program_is_written_without_the_state_of_random_numbers(fresh):
    main, startup, exe = fresh
    x = fluid.layers.dropout(fluid.layers.data("x", [50]), 0.5)
    main.random_seed = startup.random_seed = 3
    found = again(main)

    assert any(op.type == "init_random_state" for op in startup.all_ops())
    assert not any(op.type == "init_random_state" for op in again(startup).all_ops())
    exe.run(again(startup))
    outs = [exe.run(found, feed={"x": np.ones((1, 50), np.float32)}, fetch_list=[x.name])[0] for _ in range(2)]
    assert not np.array_equal(*outs)


def test_gradient_of_a_condition_is_not_written(fresh):
    x = fluid.layers.data("x", [1])
    x.stop_gradient = False
    out = fluid.layers.cond(fluid.layers.reduce_sum(x) > 1.0, lambda: x * 2.0, lambda: x * 3.0)
    fluid.backward.append_backward(fluid.layers.mean(out))

    with pytest.raises(FormatError, match="conditional_block_grad has no form in Fluid's files"):
        fresh[0].desc.serialize_to_string()


def changed(program, change):
    desc = program_wire.from_bytes(program.desc.serialize_to_string())
    change(desc)
    return program_wire.to_bytes(desc)


def _drop_forward(desc):
    ops = desc.blocks[0].ops
    ops.remove(next(op for op in ops if op.type == "tanh"))


def _role(desc):
    op = desc.blocks[0].ops[0]
    op.attrs = [*(a for a in op.attrs if a.name != "op_role"), Attr.of("op_role", AttrCode.STRING, "x")]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_drop_forward, "tanh_grad: the operator tanh whose gradient it is does not stand before it"),
        (_role, "op_role = 'x'"),
        (lambda d: d.blocks[0].ops.__setitem__(0, _odd(d)), "operator 'mystery_grad' is not known"),
    ],
)
def test_training_program_that_does_not_fit_together_is_refused(fresh, change, match):
    data = changed(trained(fresh), change)

    with pytest.raises(FormatError, match=match) as caught:
        fluid.Program.parse_from_string(data)
    assert isinstance(caught.value, fluid.core.EnforceNotMet)


def _odd(desc):
    op = desc.blocks[0].ops[0]
    op.type = "mystery_grad"
    return op


def _block_of(number):
    def change(desc):
        op = next(op for op in desc.blocks[0].ops if op.type == "conditional_block")
        op.attrs = [*(a for a in op.attrs if a.name != "sub_block"), Attr.of("sub_block", AttrCode.BLOCK, number)]

    return change


def _without(slots):
    def change(desc):
        op = next(op for op in desc.blocks[0].ops if op.type == "conditional_block")
        getattr(op, slots).clear()

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_block_of(0), "its block 0 is none of block 0"),
        (_block_of(9), "its block 9 is none of block 0"),
        (_without("outputs"), "needs one variable in Cond and one in Scope"),
        (_without("inputs"), "needs one variable in Cond and one in Scope"),
        (lambda d: setattr(d.blocks[1], "parent_idx", 1), "block 1 stands in block 1"),
        (lambda d: setattr(d.blocks[1], "parent_idx", -1), "block 1 stands in block -1"),
    ],
)
def test_condition_that_does_not_fit_together_is_refused(fresh, change, match):
    x = fluid.layers.data("x", [1])
    fluid.layers.cond(fluid.layers.reduce_sum(x) > 1.0, lambda: x * 2.0, lambda: x * 3.0)

    with pytest.raises(FormatError, match=match):
        fluid.Program.parse_from_string(changed(fresh[0], change))


def test_ends_that_are_no_variables_are_refused(fresh):
    x = fluid.layers.data("x", [1])
    fluid.layers.scale(x, 2.0)
    fluid.io.append_fetch_ops(fresh[0], ["scale_0.tmp_0"])

    def rename(desc):
        desc.blocks[0].ops[-1].inputs[0].arguments[0] = "nowhere"

    with pytest.raises(FormatError, match="'nowhere' is fed or fetched, and no variable of it"):
        fluid.Program.parse_from_string(changed(fresh[0], rename))


def test_every_problem_is_listed(fresh):
    fresh[0].random_seed = 1
    loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 3))
    fluid.optimizer.SGD(fluid.layers.piecewise_decay([2, 4], [0.1, 0.05, 0.01])).minimize(loss)
    average = fluid.optimizer.ExponentialMovingAverage(0.9)
    average.update()

    with pytest.raises(FormatError, match=r"(?s)3 problem.*piecewise_rate.*moving_average.*moving_average"):
        fresh[0].desc.serialize_to_string()


def test_flushing_changes_nothing(fresh):
    main = trained(fresh)
    before = main.desc.serialize_to_string()
    main.desc.flush()
    main.desc._set_version()

    assert main.desc.serialize_to_string() == before
