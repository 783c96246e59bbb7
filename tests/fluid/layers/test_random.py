"""Random layers: their distributions, and what a seed fixes."""

import numpy as np
import pytest

from holdfast.fluid import layers

MANY = [20_000]


def _runs(fresh, *outs, times=1, feed=None):
    main, startup, exe = fresh
    exe.run(startup)
    return [exe.run(main, feed=feed, fetch_list=list(outs)) for _ in range(times)]


def test_distributions_have_their_moments(fresh):
    uniform = layers.uniform_random(MANY, min=2.0, max=4.0, seed=1)
    normal = layers.gaussian_random(MANY, mean=1.0, std=2.0, seed=2)
    whole = layers.randint(3, 6, MANY, seed=3)

    ((u, n, w),) = _runs(fresh, uniform, normal, whole)

    assert (u.min() >= 2, u.max() < 4, u.mean()) == (True, True, pytest.approx(3, abs=0.02))
    assert (n.mean(), n.std()) == (pytest.approx(1, abs=0.05), pytest.approx(2, abs=0.05))
    assert sorted(set(w.tolist())) == [3, 4, 5]
    assert (u.dtype, n.dtype, w.dtype) == (np.float32, np.float32, np.int64)


def test_seed_repeats_in_every_run_and_no_seed_does_not(fresh):
    seeded, free = layers.uniform_random([8], seed=7), layers.uniform_random([8])

    (first, other), (second, another) = _runs(fresh, seeded, free, times=2)

    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(other, another)


def test_randperm_has_every_number_once(fresh):
    ((found,),) = _runs(fresh, layers.randperm(50, dtype="int32"))

    assert sorted(found.tolist()) == list(range(50))
    assert found.dtype == np.int32


def test_sampling_id_draws_by_the_probabilities(fresh):
    x = layers.data("x", [3])
    probabilities = np.tile(np.array([[0.2, 0.0, 0.8]], np.float32), (5000, 1))

    ((found,),) = _runs(fresh, layers.sampling_id(x, seed=1), feed={"x": probabilities})

    assert found.dtype == np.int64
    np.testing.assert_allclose(np.bincount(found, minlength=3) / 5000, [0.2, 0, 0.8], atol=0.03)


def test_batch_size_like_takes_one_dimension(fresh):
    x = layers.data("x", [4])
    outs = [
        layers.uniform_random_batch_size_like(x, [-1, 5]),
        layers.gaussian_random_batch_size_like(x, [3, -1], output_dim_idx=1),
    ]

    (found,) = _runs(fresh, *outs, feed={"x": np.zeros((7, 4), np.float32)})

    assert [v.shape for v in found] == [(7, 5), (3, 7)]
    assert [v.shape for v in outs] == [(-1, 5), (3, -1)]


def test_random_crop_gives_blocks_of_the_input_at_other_places_each_run(fresh):
    x = layers.data("x", [9, 9])
    image = np.arange(81, dtype=np.float32).reshape(1, 9, 9).repeat(6, 0)

    (first,), (second,) = _runs(fresh, layers.random_crop(x, [3, 4], seed=5), times=2, feed={"x": image})

    for block in first:
        corner = int(block[0, 0])
        np.testing.assert_array_equal(block, corner + np.arange(4) + 9 * np.arange(3)[:, None])
    assert len({int(b[0, 0]) for b in first}) > 1
    assert not np.array_equal(first, second)


def test_impossible_ranges_are_refused(fresh):
    with pytest.raises(ValueError, match="low < high"):
        layers.randint(3, 3)
    with pytest.raises(ValueError, match="above 0"):
        layers.randperm(0)
