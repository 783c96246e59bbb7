import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid import initializer as init

L = fluid.layers


def filled(fresh, shape, *rules, dtype="float32", seed=0, runs=1):
    """What the startup program puts into a parameter for each rule; of several runs, the last."""
    _main, startup, exe = fresh
    startup.random_seed = seed
    names = [
        L.create_parameter(shape, dtype, attr=fluid.ParamAttr(name=f"p{i}", initializer=rule)).name
        for i, rule in enumerate(rules)
    ]
    for _ in range(runs):
        exe.run(startup)
    return [np.array(fluid.global_scope().find_var(n).get_tensor()) for n in names]


def test_distributions_have_the_moments_that_they_are_named_for(fresh):
    shape = (200, 300)  # fan_in 200, fan_out 300

    constant, uniform, normal, truncated, xavier, xavier_normal, msra, msra_normal, of_fans = filled(
        fresh, shape, init.Constant(2.5), init.Uniform(-1.0, 3.0), init.Normal(1.0, 2.0), init.TruncatedNormal(1.0, 2.0),
        init.Xavier(), init.Xavier(uniform=False), init.MSRA(), init.MSRA(uniform=False), init.Xavier(fan_in=3, fan_out=1),
        seed=5,
    )  # fmt: skip

    assert np.all(constant == 2.5)
    assert uniform.min() >= -1
    assert uniform.max() < 3
    assert [uniform.mean(), normal.mean(), truncated.mean()] == pytest.approx([1, 1, 1], abs=0.05)
    assert [uniform.std(), normal.std()] == pytest.approx([4 / 12**0.5, 2], rel=0.02)
    assert np.abs(truncated - 1).max() <= 4
    assert truncated.std() == pytest.approx(2 * 0.8796, rel=0.02)
    for values, variance in [
        (xavier, 2 / 500),
        (xavier_normal, 2 / 500),
        (msra, 2 / 200),
        (msra_normal, 2 / 200),
        (of_fans, 0.5),
    ]:
        assert values.mean() == pytest.approx(0, abs=0.02 * variance**0.5)
        assert values.var() == pytest.approx(variance, rel=0.03)
    assert np.abs(xavier).max() <= (6 / 500) ** 0.5
    assert np.abs(msra).max() <= (6 / 200) ** 0.5
    assert np.abs(msra_normal).max() > (6 / 200) ** 0.5


def test_fans_of_a_convolution_count_its_field(fresh):
    xavier, msra = filled(fresh, (64, 32, 5, 5), init.Xavier(uniform=False), init.MSRA(uniform=False), seed=5)

    assert xavier.var() == pytest.approx(2 / (32 * 25 + 64 * 25), rel=0.03)
    assert msra.var() == pytest.approx(2 / (32 * 25), rel=0.03)


def test_seeds_say_what_repeats(fresh):
    rules = init.Uniform(seed=3), init.Uniform(seed=3), init.Uniform(), init.Uniform()

    first = filled(fresh, (4, 5), *rules)
    again = [
        np.array(fluid.global_scope().find_var(f"p{i}").get_tensor()) for i in range(4) if not fresh[2].run(fresh[1])
    ]

    assert np.array_equal(first[0], first[1])
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[2], first[3])
    assert not np.array_equal(first[2], again[2])


def test_random_seed_of_the_program_repeats_all_of_it(fresh):
    first = filled(fresh, (4, 5), init.Uniform(), init.Normal(), seed=9)

    fresh[2].run(fresh[1])

    for i, value in enumerate(first):
        assert np.array_equal(value, np.array(fluid.global_scope().find_var(f"p{i}").get_tensor()))


def test_diagonal_of_uniform_has_its_value(fresh):
    (values,) = filled(fresh, (4, 4), init.Uniform(-0.5, 0.5, diag_num=4, diag_step=4, diag_val=7.0))

    assert np.array_equal(values == 7.0, np.eye(4, dtype=bool))


def test_bilinear_enlarges_an_image(fresh):
    main, startup, exe = fresh
    image = L.data("image", [1, 4, 4])
    attr = fluid.ParamAttr(initializer=init.Bilinear())
    large = L.conv2d_transpose(image, 1, filter_size=4, stride=2, padding=1, param_attr=attr, bias_attr=False)
    exe.run(startup)
    ramp = np.arange(4, dtype="float32") * np.ones((1, 1, 4, 1), "float32")

    (found,) = exe.run(main, feed={"image": ramp}, fetch_list=[large])

    # Inside, where no edge is near: a ramp of twice as many, half as high steps.
    np.testing.assert_allclose(found[0, 0, 3, 2:6], [0.75, 1.25, 1.75, 2.25], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "bool"])
def test_array_gives_its_values_in_the_parameters_dtype(dtype, fresh):
    values = np.array([[0.1, 1.0], [1 / 3, 0.0]])

    (found,) = filled(fresh, (2, 2), init.NumpyArrayInitializer(values), dtype=dtype)

    assert found.dtype == dtype
    assert np.array_equal(found, values.astype(dtype))


def test_global_initializers_replace_the_choice_of_layers_only(fresh):
    _main, startup, exe = fresh
    init.set_global_initializer(init.Constant(3.0), init.Constant(4.0))
    try:
        L.fc(L.data("x", [2]), 2)
        L.fc(L.data("x", [2]), 2, param_attr=fluid.ParamAttr(initializer=init.Constant(5.0)))
    finally:
        init.set_global_initializer(None)
    L.fc(L.data("x", [2]), 2)
    exe.run(startup)

    found = {n: np.array(fluid.global_scope().find_var(n).get_tensor()) for n in startup.global_block().vars}
    assert np.all(found["fc_0.w_0"] == 3)
    assert np.all(found["fc_0.b_0"] == 4)
    assert np.all(found["fc_1.w_0"] == 5)
    assert len(np.unique(found["fc_2.w_0"])) == 4
    assert np.all(found["fc_2.b_0"] == 0)


def test_what_does_not_fit_is_refused(fresh):
    with pytest.raises(ValueError, match="low=1.0 must not be above high=0.0"):
        init.Uniform(1.0, 0.0)
    with pytest.raises(ValueError, match="must both be given"):
        init.Uniform(diag_num=2)
    with pytest.raises(TypeError, match="needs a numpy array"):
        init.NumpyArrayInitializer([1.0])
    with pytest.raises(TypeError, match="needs a rule such as Xavier"):
        init.set_global_initializer(0.0)
    with pytest.raises(ValueError, match=r"p0 has the shape \[2, 2\], but the array for it \[2\]"):
        filled(fresh, (2, 2), init.NumpyArrayInitializer(np.zeros(2)))
    with pytest.raises(ValueError, match=r"Bilinear needs a shape of \[out, in, n, n\], not \[2, 2\]"):
        filled(fresh, (2, 2), init.Constant(0.0), init.Bilinear())
    with pytest.raises(ValueError, match="counts: random values are floating-point numbers, not INT64"):
        L.create_parameter([2], "int64", attr=fluid.ParamAttr(name="counts", initializer=init.Normal()))


def test_names_are_those_of_fluid():
    for name in ["Constant", "Uniform", "Normal", "TruncatedNormal", "Xavier", "MSRA", "Bilinear"]:
        assert getattr(init, name) is getattr(init, f"{name}Initializer")
    assert init.force_init_on_cpu() is False
    with init.init_on_cpu():
        pass
