"""Running programs: feeds, fetches, persistables, random numbers, errors."""

import gc
import subprocess
import sys
import textwrap
import warnings
import weakref

import numpy as np
import pytest
from tests.fluid.models import batch, descend, regression, values

import holdfast.fluid as fluid
from holdfast.fluid.feeding import FeedError
from holdfast.fluid.framework import RANDOM_STATE
from holdfast.fluid.layer_helper import LayerHelper


@pytest.fixture
def trained(fresh):
    main, startup, exe = fresh
    main.random_seed = startup.random_seed = 3
    prediction, loss = regression()
    descend(loss)
    exe.run(startup)
    return main, startup, exe, prediction, loss


def test_training_lowers_the_loss(trained):
    main, _, exe, _, loss = trained
    losses = [exe.run(main, feed=batch(), fetch_list=[loss])[0].item() for _ in range(30)]

    assert losses[-1] < losses[0] / 10


def test_one_step_is_what_numpy_computes(trained):
    main, _, exe, _, _ = trained
    before, feed = values(main), batch()
    (gradient,) = exe.run(main, feed=feed, fetch_list=["fc_1.w_0@GRAD"])
    hidden = np.tanh(feed["x"] @ before["fc_0.w_0"] + before["fc_0.b_0"])
    error = hidden @ before["fc_1.w_0"] + before["fc_1.b_0"] - feed["y"]
    expected = hidden.T @ (2 * error / len(error))

    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values(main)["fc_1.w_0"], before["fc_1.w_0"] - 0.1 * gradient, rtol=1e-6)


def test_temporaries_do_not_outlive_a_run_and_can_be_fetched_by_name(trained):
    main, _, exe, _, _ = trained
    (hidden,) = exe.run(main, feed=batch(), fetch_list=["fc_0.tmp_2"])

    assert hidden.shape == (16, 8)
    assert fluid.global_scope().find_var("fc_0.tmp_2") is None


def test_the_whole_program_runs_whatever_is_fetched(trained):
    main, _, exe, prediction, _ = trained
    before = values(main)
    exe.run(main, feed=batch(), fetch_list=[prediction])

    assert not np.array_equal(before["fc_0.w_0"], values(main)["fc_0.w_0"])


def test_use_prune_runs_only_what_is_fetched(trained):
    main, _, exe, prediction, _ = trained
    before = values(main)
    (out,) = exe.run(main, feed={"x": batch()["x"]}, fetch_list=[prediction], use_prune=True)

    assert out.shape == (16, 1)
    np.testing.assert_array_equal(before["fc_0.w_0"], values(main)["fc_0.w_0"])


def test_what_was_fetched_stays_as_it_was(trained):
    main, _, exe, _, _ = trained
    (weight,) = exe.run(main, feed=batch(), fetch_list=["fc_0.w_0"])
    kept = weight.copy()
    for _ in range(3):
        exe.run(main, feed=batch())
    np.testing.assert_array_equal(weight, kept)
    weight += 1  # its own memory, and writable

    assert not np.array_equal(weight, values(main)["fc_0.w_0"])


def test_a_tensor_of_the_scope_is_a_copy_and_set_replaces(trained):
    main, _, exe, prediction, _ = trained
    tensor = fluid.global_scope().find_var("fc_1.w_0").get_tensor()
    held = np.array(tensor)
    exe.run(main, feed=batch())
    assert not np.array_equal(held, np.array(tensor))
    for name in ("fc_1.w_0", "fc_1.b_0"):
        tensor = fluid.global_scope().find_var(name).get_tensor()
        tensor.set(np.zeros(tensor.shape(), "float32"), fluid.CPUPlace())

    (out,) = exe.run(main.clone(for_test=True), feed=batch(), fetch_list=[prediction])
    assert not out.any()


def test_every_wrong_feed_is_named_at_once(trained):
    main, _, exe, _, loss = trained
    before = values(main)
    with pytest.raises(FeedError) as caught:
        exe.run(main, feed={"x": batch()["x"].astype("float64"), "lable": batch()["y"]}, fetch_list=[loss])

    assert len(caught.value.problems) == 3
    assert "feed 'x': expected float32, found float64" in str(caught.value)
    assert "feed 'y' is missing" in str(caught.value)
    assert "feed 'lable' is unknown" in str(caught.value)
    for name, value in values(main).items():
        np.testing.assert_array_equal(before[name], value)


@pytest.mark.parametrize(
    ("fed", "message"),
    [
        (np.zeros((16, 5), "float32"), r"expected the shape \[-1, 4\] \(-1: any\), found \[16, 5\]"),
        (np.zeros(16, "float32"), r"found \[16\]"),
        (np.zeros((16, 4), "int32"), "expected float32, found int32"),
        ([["a"] * 4], "expected float32"),
        ([[1.0, 2.0], [3.0]], "is no array"),
        (fluid.LoDTensor(), "found nothing"),
    ],
)
def test_a_feed_that_does_not_fit_is_an_error(trained, fed, message):
    main, _, exe, _, _ = trained
    with pytest.raises(FeedError, match=message):
        exe.run(main, feed={"x": fed, "y": batch()["y"]})


def test_lists_and_tensors_are_fed_where_nothing_is_lost(trained):
    main, _, exe, prediction, _ = trained
    test = main.clone(for_test=True)
    x = np.arange(8, dtype="float32").reshape(2, 4)
    y = np.zeros((2, 1), "float32")
    (expected,) = exe.run(test, feed={"x": x, "y": y}, fetch_list=[prediction])
    for fed in (x.tolist(), x.astype(int).tolist(), fluid.LoDTensor(x)):
        (out,) = exe.run(test, feed={"x": fed, "y": y}, fetch_list=[prediction])
        np.testing.assert_array_equal(out, expected)


def test_a_list_of_fractions_for_integers_is_an_error(fresh):
    main, _, exe = fresh
    n = fluid.layers.data("n", [1], dtype="int64")
    out = LayerHelper("copy").op("assign", {"X": [n]})
    (got,) = exe.run(main, feed={"n": [[1], [2]]}, fetch_list=[out])
    assert got.dtype == np.int64
    with pytest.raises(FeedError, match="expected int64, found float64"):
        exe.run(main, feed={"n": [[1.5]]}, fetch_list=[out])


def test_running_before_the_startup_program_names_every_variable(fresh):
    main, _, exe = fresh
    _, loss = regression()
    with pytest.raises(RuntimeError, match="run the startup program") as caught:
        exe.run(main, feed=batch(), fetch_list=[loss])

    assert caught.value.names == ("fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_1.b_0")


def test_an_unknown_fetch_is_an_error(trained):
    main, _, exe, _, _ = trained
    with pytest.raises(ValueError, match="fetch_list names what is not in the program: nonsense"):
        exe.run(main, feed=batch(), fetch_list=["nonsense"])


def test_a_closed_executor_does_not_run(trained):
    main, _, exe, _, _ = trained
    exe.close()
    with pytest.raises(RuntimeError, match="closed"):
        exe.run(main, feed=batch())


def test_what_is_no_program_is_refused(fresh):
    with pytest.raises(TypeError, match="runs a fluid.Program"):
        fresh[2].run("main")
    with pytest.raises(TypeError, match="feed must be a dict"):
        fresh[2].run(fresh[0], feed="x")


def test_a_changed_program_is_compiled_again(trained):
    main, _, exe, prediction, _ = trained
    test = main.clone(for_test=True)
    exe.run(test, feed=batch(), fetch_list=[prediction])
    more = test.global_block().create_var(name="more")
    test.global_block().append_op("scale", {"X": [prediction.name]}, {"Out": [more]}, {"scale": 2.0})
    out, doubled = exe.run(test, feed=batch(), fetch_list=[prediction, "more"])

    np.testing.assert_array_equal(doubled, 2 * out)


def test_a_temporary_that_is_made_persistable_stays(trained):
    main, _, exe, _, _ = trained
    main.global_block().var("fc_0.tmp_2").persistable = True
    (hidden,) = exe.run(main, feed=batch(), fetch_list=["fc_0.tmp_2"])

    np.testing.assert_array_equal(np.array(fluid.global_scope().find_var("fc_0.tmp_2").get_tensor()), hidden)


def test_scopes_keep_values_apart(trained):
    main, startup, exe, _, loss = trained
    other = fluid.Scope()
    exe.run(startup, scope=other)
    start = values(main, other)
    exe.run(main, feed=batch(), fetch_list=[loss])

    for name, value in values(main, other).items():
        np.testing.assert_array_equal(value, start[name])


def test_an_executor_keeps_no_program_and_no_scope_alive(fresh):
    _, _, exe = fresh
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    with fluid.program_guard(main, startup):
        _, loss = regression()
    exe.run(startup, scope=scope)
    exe.run(main, feed=batch(), fetch_list=[loss], scope=scope)
    gone = weakref.ref(main), weakref.ref(scope)
    del main, startup, scope, loss, _
    gc.collect()

    assert [ref() for ref in gone] == [None, None]


# Random numbers


def noise(shape=(4, 3), **attrs):
    helper = LayerHelper("noise")
    return helper.op("uniform_random", {}, {"shape": list(shape), "dtype": 5, **attrs})


def test_initial_values_repeat_with_a_seed(fresh):
    main, startup, exe = fresh
    startup.random_seed = 7
    regression()
    exe.run(startup)
    first = values(main)
    exe.run(startup)
    second = values(main)

    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert not np.array_equal(first["fc_0.w_0"][:, :1], first["fc_1.w_0"][:4])  # no two layers begin alike


def test_initial_values_differ_without_a_seed(fresh):
    main, startup, exe = fresh
    regression()
    exe.run(startup)
    first = values(main)
    exe.run(startup)

    assert not np.array_equal(first["fc_0.w_0"], values(main)["fc_0.w_0"])


def test_noise_moves_on_and_its_state_is_a_persistable(fresh):
    main, startup, exe = fresh
    main.random_seed = startup.random_seed = 7
    out = noise()
    exe.run(startup)
    first, second = (exe.run(main, fetch_list=[out])[0] for _ in range(2))
    state = values(main)[RANDOM_STATE]
    (third,) = exe.run(main, fetch_list=[out])
    fluid.global_scope().find_var(RANDOM_STATE).get_tensor().set(state)
    (again,) = exe.run(main, fetch_list=[out])

    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    np.testing.assert_array_equal(third, again)
    assert main.global_block().var(RANDOM_STATE).persistable
    assert state.dtype == np.int64


def test_an_operator_with_a_seed_repeats(fresh):
    main, startup, exe = fresh
    out = noise(seed=5)
    exe.run(startup)
    first, second = (exe.run(main, fetch_list=[out])[0] for _ in range(2))

    np.testing.assert_array_equal(first, second)
    assert RANDOM_STATE not in main.global_block().vars


def test_two_random_operators_differ(fresh):
    main, startup, exe = fresh
    a, b = noise(), noise()
    exe.run(startup)
    first, second = exe.run(main, fetch_list=[a, b])

    assert not np.array_equal(first, second)


def test_random_numbers_are_the_same_in_every_process():
    script = textwrap.dedent(
        """
        import numpy as np, holdfast.fluid as fluid
        from holdfast.fluid.layer_helper import LayerHelper
        main, startup = fluid.Program(), fluid.Program()
        main.random_seed = startup.random_seed = 11
        with fluid.program_guard(main, startup):
            fluid.layers.fc(fluid.layers.data("x", [4]), 3)
            out = LayerHelper("noise").op("uniform_random", {}, {"shape": [3], "dtype": 5})
        exe = fluid.Executor()
        exe.run(startup)
        w, o = exe.run(main, feed={"x": np.ones((1, 4), "float32")}, fetch_list=["fc_0.w_0", out])
        print(w.tobytes().hex(), o.tobytes().hex())
        """
    )
    outputs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }

    assert len(outputs) == 1


# Loads, as the executor sees them


def test_a_startup_run_over_loaded_variables_is_refused(trained):
    main, startup, exe, _, _ = trained
    before = values(main)
    for name in ("fc_0.w_0", "fc_1.w_0"):
        fluid.global_scope().find_var(name).loaded_from = "model"
    with pytest.raises(fluid.OverwriteError, match="loaded from model: fc_0.w_0, fc_1.w_0") as caught:
        exe.run(startup)

    assert caught.value.names == ("fc_0.w_0", "fc_1.w_0")
    for name, value in values(main).items():
        np.testing.assert_array_equal(before[name], value)
    exe.run(startup, overwrite_loaded=True)
    exe.run(startup)  # and now nothing is loaded any more


def test_training_on_does_not_forget_that_a_variable_was_loaded(trained):
    main, startup, exe, _, _ = trained
    fluid.global_scope().find_var("fc_0.w_0").loaded_from = "model"
    exe.run(main, feed=batch())
    with pytest.raises(fluid.OverwriteError):
        exe.run(startup)


def test_a_program_that_computes_a_persistable_anew_in_every_run_may_do_so_after_a_load(trained):
    main, _, exe, _, loss = trained
    kept = main.global_block().create_var(name="kept", shape=[1], dtype="float32", persistable=True)
    main.global_block().append_op("assign", {"X": [loss]}, {"Out": [kept]})
    fluid.global_scope().var("kept").loaded_from = "model"
    (seen,) = exe.run(main, feed=batch(), fetch_list=[loss])

    np.testing.assert_array_equal(np.array(fluid.global_scope().find_var("kept").get_tensor()), seen)


def test_plain_descent_has_no_state_to_warn_of(trained):
    main, _, exe, _, _ = trained
    fluid.global_scope().find_var("fc_0.w_0").loaded_from = "model"
    fluid.global_scope().loads += 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exe.run(main, feed=batch())


def test_places_are_devices_or_clear_errors():
    assert fluid.Executor(fluid.CPUPlace()).place == fluid.CPUPlace()
    with pytest.raises(TypeError, match="runs on a place such as fluid.CPUPlace"):
        fluid.Executor("cpu")
    if not fluid.is_compiled_with_cuda():
        with pytest.raises(RuntimeError, match=r"CUDAPlace\(0\): JAX sees no such GPU"):
            fluid.Executor(fluid.CUDAPlace(0))


def test_a_failing_operator_is_named(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [-1, -1], append_batch_size=False)
    y = fluid.layers.data("y", [-1, -1], append_batch_size=False)
    out = LayerHelper("add").op("elementwise_add", {"X": [x], "Y": [y]})
    with pytest.raises(
        fluid.core.EnforceNotMet, match=r"operator elementwise_add\(x \[2, 3\], y \[2, 4\]\) -> .*shapes"
    ):
        exe.run(main, feed={"x": np.ones((2, 3), "float32"), "y": np.ones((2, 4), "float32")}, fetch_list=[out])


def test_a_failing_operator_of_an_inner_block_is_named_once(fresh):
    main, _, exe = fresh
    x = fluid.layers.data("x", [-1, -1], append_batch_size=False)
    y = fluid.layers.data("y", [-1, -1], append_batch_size=False)
    less = fluid.layers.less_than(fluid.layers.reduce_sum(x), fluid.layers.reduce_sum(y))
    out = fluid.layers.cond(less, lambda: fluid.layers.matmul(x, y), lambda: fluid.layers.scale(x, 2.0))
    with pytest.raises(fluid.core.EnforceNotMet, match=r"^operator matmul\(") as caught:
        exe.run(main, feed={"x": np.ones((2, 3), "float32"), "y": np.ones((2, 4), "float32")}, fetch_list=[out])

    assert str(caught.value).count("operator ") == 1


@pytest.mark.parametrize("case", ["startup", "feed", "fetch", "shapes"])
def test_what_fluid_raises_in_a_run_is_caught_as_programs_of_fluid_catch_it(fresh, case):
    main, startup, exe = fresh
    _, loss = regression()
    caught = False
    try:
        if case != "startup":
            exe.run(startup)
        fed = {"x": batch()["x"]} if case == "feed" else batch()
        if case == "shapes":
            fed["y"] = fed["y"][:3]
        exe.run(main, feed=fed, fetch_list=["nonsense" if case == "fetch" else loss])
    except fluid.core.EnforceNotMet:
        caught = True

    assert caught
