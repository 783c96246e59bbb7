"""Dropout: what is drawn, when it repeats, and what tests do."""

import numpy as np
import pytest

from holdfast.fluid import layers

ONES = np.ones((200, 100), "float32")


@pytest.mark.parametrize(("how", "kept"), [("downgrade_in_infer", 1.0), ("upscale_in_train", 1 / 0.7)])
def test_training_drops_the_share(fresh, how, kept):
    main, startup, exe = fresh
    main.random_seed = startup.random_seed = 3
    out = layers.dropout(layers.data("x", [100]), 0.3, dropout_implementation=how)
    exe.run(startup)

    (y,) = exe.run(main, feed={"x": ONES}, fetch_list=[out])

    np.testing.assert_allclose(np.unique(y), [0, kept], rtol=1e-6)
    assert abs((y == 0).mean() - 0.3) < 0.02


@pytest.mark.parametrize(("how", "factor"), [("downgrade_in_infer", 0.7), ("upscale_in_train", 1.0)])
def test_clone_for_test_lets_all_through(fresh, how, factor):
    main, startup, exe = fresh
    out = layers.dropout(layers.data("x", [100]), 0.3, dropout_implementation=how)
    test = main.clone(for_test=True)
    exe.run(startup)

    (y,) = exe.run(test, feed={"x": ONES}, fetch_list=[out])

    np.testing.assert_allclose(y, ONES * factor, rtol=1e-6)


def test_every_run_draws_anew_unless_there_is_a_seed(fresh):
    main, startup, exe = fresh
    x = layers.data("x", [100])
    free, fixed = layers.dropout(x, 0.5), layers.dropout(x, 0.5, seed=7)
    exe.run(startup)

    first, second = (exe.run(main, feed={"x": ONES}, fetch_list=[free, fixed]) for _ in range(2))

    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_startup_with_a_seed_repeats_the_draws(fresh):
    main, startup, exe = fresh
    main.random_seed = startup.random_seed = 5
    out = layers.dropout(layers.data("x", [100]), 0.5)

    draws = []
    for _ in range(2):
        exe.run(startup)
        draws.append(exe.run(main, feed={"x": ONES}, fetch_list=[out])[0])

    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout_prob": 1.5}, "from 0 to 1"),
        ({"dropout_prob": 0.5, "dropout_implementation": "x"}, "upscale_in_train"),
    ],
)
def test_dropout_refuses_what_has_no_meaning(fresh, options, message):
    with pytest.raises(ValueError, match=message):
        layers.dropout(layers.data("x", [3]), **options)
