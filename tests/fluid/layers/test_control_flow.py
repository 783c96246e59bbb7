"""Blocks that run under a condition: which one runs, what it keeps, and gradients through it."""

import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers


def _number(value):
    return np.array([value], np.float32)


def test_switch_runs_the_first_case_that_holds(fresh):
    main, startup, exe = fresh
    step = layers.autoincreased_step_counter()
    rate = layers.create_global_var([1], 0.0, "float32", persistable=True, name="rate")
    with layers.Switch() as switch:
        for limit, value in ((3, 0.1), (5, 0.2)):
            with switch.case(layers.less_than(step, layers.fill_constant([1], "int64", limit))):
                layers.assign(layers.fill_constant([1], "float32", value), rate)
        with switch.default():
            layers.assign(layers.fill_constant([1], "float32", 0.3), rate)
    exe.run(startup)

    rates = [float(exe.run(main, fetch_list=[rate])[0][0]) for _ in range(6)]

    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_variable_keeps_its_value_where_no_case_holds(fresh):
    main, startup, exe = fresh
    kept = layers.create_global_var([1], 7.0, "float32", persistable=True, name="kept")
    chosen = layers.data("chosen", [1], append_batch_size=False, dtype="bool")
    with layers.Switch() as switch, switch.case(chosen):
        layers.increment(kept)
    exe.run(startup)

    first = exe.run(main, {"chosen": np.array([False])}, [kept])[0]
    second = exe.run(main, {"chosen": np.array([True])}, [kept])[0]

    assert (first, second) == (7.0, 8.0)


def test_cond_gives_the_chosen_branch_and_its_gradient(fresh):
    main, _, exe = fresh
    x = layers.data("x", [1], append_batch_size=False, stop_gradient=False)
    out = layers.cond(x < 0.0, lambda: x * 3.0, lambda: layers.square(x))
    (gradient,) = fluid.gradients([out], [x])

    found = {v: exe.run(main, {"x": _number(v)}, [out, gradient]) for v in (-2.0, 5.0)}

    np.testing.assert_allclose(np.ravel(found[-2.0]), [-6, 3])
    np.testing.assert_allclose(np.ravel(found[5.0]), [25, 10])


def test_cond_gives_the_structure_that_its_functions_return(fresh):
    main, _, exe = fresh
    x = layers.data("x", [1], append_batch_size=False)
    out = layers.cond(x < 0.0, lambda: {"a": x + 1.0, "b": [x]}, lambda: {"a": x, "b": [x + 2.0]})

    found = exe.run(main, {"x": _number(1.0)}, [out["a"], out["b"][0]])

    assert [float(v[0]) for v in found] == [1.0, 3.0]


def test_cond_refuses_other_structures_and_leaves_no_block_behind(fresh):
    main, *_ = fresh
    x = layers.data("x", [1], append_batch_size=False)

    with pytest.raises(ValueError, match="Incompatible return values"):
        layers.cond(x < 0.0, lambda: [x], lambda: x)
    with pytest.raises(ZeroDivisionError):
        layers.cond(x < 0.0, lambda: 1 / 0, lambda: x)
    with pytest.raises(TypeError, match="true_fn must be a function"):
        layers.cond(x < 0.0, 3)
    assert main.current_block_idx == 0


def test_nested_cond_reads_what_is_outside_both(fresh):
    main, _, exe = fresh
    x = layers.data("x", [1], append_batch_size=False)
    y = layers.data("y", [1], append_batch_size=False)
    out = layers.cond(
        x < 0.0, lambda: layers.cond(y < 0.0, lambda: x + y, lambda: x - y), lambda: layers.elementwise_mul(x, y)
    )

    def run(a, b):
        return float(exe.run(main, {"x": _number(a), "y": _number(b)}, [out])[0][0])

    assert [run(-1, -2), run(-1, 2), run(3, 4)] == [-3, -3, 12]


@pytest.mark.parametrize(("index", "expected"), [(1, 11.0), (2, 20.0), (5, 10.0)])
def test_switch_case_chooses_by_number(fresh, index, expected):
    main, _, exe = fresh
    number = layers.data("number", [1], append_batch_size=False, dtype="int32")
    x = layers.fill_constant([1], "float32", 10.0)
    out = layers.switch_case(number, {1: lambda: x + 1.0, 2: lambda: x * 2.0}, default=lambda: x)

    assert exe.run(main, {"number": np.array([index], np.int32)}, [out])[0] == expected


def test_switch_case_without_default_takes_the_highest_number(fresh):
    main, _, exe = fresh
    number = layers.fill_constant([1], "int64", 9)
    out = layers.switch_case(number, [(4, lambda: number + 4), (2, lambda: number + 2)])

    assert exe.run(main, fetch_list=[out])[0] == 13


def test_case_and_switch_case_refuse_what_is_no_function_of_a_condition(fresh):
    x = layers.fill_constant([1], "float32", 1.0)

    with pytest.raises(TypeError, match="tuples of a condition and a function"):
        layers.case([(x < 2.0, 3)])
    with pytest.raises(TypeError, match="default must be a function"):
        layers.case([(x < 2.0, lambda: x)], default=3)
    with pytest.raises(TypeError, match="int32 or int64"):
        layers.switch_case(x, [lambda: x])
    with pytest.raises(TypeError, match="each number once"):
        layers.switch_case(layers.cast(x, "int64"), [(1, lambda: x), (1, lambda: x)])
    with pytest.raises(ValueError, match="inside"), layers.Switch().case(x < 2.0):
        pass
    with pytest.raises(ValueError, match="after a case"), layers.Switch().default():
        pass


def test_clone_for_test_keeps_conditional_blocks(fresh):
    main, _, exe = fresh
    x = layers.data("x", [1], append_batch_size=False)
    out = layers.cond(x < 0.0, lambda: x * 3.0, lambda: x)

    assert exe.run(main.clone(for_test=True), {"x": _number(-1)}, [out])[0] == -3.0


def test_print_writes_the_tensor_in_every_run(fresh, capfd):
    main, _, exe = fresh
    x = layers.data("x", [3], append_batch_size=False)
    layers.Print(x, message="seen", summarize=2)
    layers.Print(x, message="once", first_n=1)

    for _ in range(2):
        exe.run(main, {"x": np.array([1, 2, 3], np.float32)}, [x])

    lines = capfd.readouterr().out.splitlines()
    assert lines.count("seen  dtype: float32  shape: [3]  data: [1.0, 2.0, ...]") == 2
    assert sum(line.startswith("once") for line in lines) == 1
