"""States of generators out of a checkpoint: what no generator can have is refused before any is changed."""

import random
from typing import Any

import numpy as np
import pytest

from holdfast.adapters.random import is_random, random_problem, random_value, set_random
from holdfast.format.values import Tagged


def changed(generator: Any, change: Any) -> Tagged:
    """The generator's own state, with something else in it."""
    value = random_value(generator)
    name, state = value.value
    return Tagged("$random", [name, change(state)])


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState, random.Random])
def test_state_of_its_own_fits(make: Any) -> None:
    one, two = make(1), make(2)

    assert random_problem(two, random_value(one)) is None
    set_random(two, random_value(one))
    assert random_problem(two, random_value(two)) is None
    assert one.random() == two.random() if hasattr(one, "random") else one.rand() == two.rand()


def test_is_random_knows_what_has_a_state() -> None:
    assert is_random(np.random.default_rng(0))
    assert is_random(random.Random(0))
    assert not is_random(random.SystemRandom())
    assert not is_random(np.random.PCG64(0))
    assert not is_random(3)


def test_look_at_a_state_changes_no_generator() -> None:
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state

    random_problem(generator, random_value(np.random.default_rng(1)))
    random_problem(generator, Tagged("$random", ["numpy.random.Generator", {"bit_generator": "PCG64"}]))

    assert generator.bit_generator.state == before


@pytest.mark.parametrize(
    "value",
    [
        3,
        None,
        Tagged("$variable", "w"),
        Tagged("$random", 3),
        Tagged("$random", []),
        Tagged("$random", ["numpy.random.Generator"]),
        Tagged("$random", ["random.Random", (3, (), None)]),
        Tagged("$random", ["numpy.random.Generator", None]),
        Tagged("$random", ["numpy.random.Generator", {}]),
        Tagged("$random", ["numpy.random.Generator", {"bit_generator": "MT19937", "state": {}}]),
        Tagged("$random", [["numpy.random.Generator"], {}]),
    ],
)
def test_what_is_no_state_of_this_generator_is_refused(value: Any) -> None:
    assert random_problem(np.random.default_rng(0), value)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {**s, "has_uint32": 7},
        lambda s: {**s, "uinteger": -1},
        lambda s: {**s, "state": {**s["state"], "inc": 1.5}},
        lambda s: {**s, "state": {**s["state"], "state": 2**200}},
        lambda s: {**s, "state": {}},
    ],
)
def test_states_that_no_pcg64_can_have_are_refused(change: Any) -> None:
    generator = np.random.default_rng(0)

    assert "random state" in (random_problem(generator, changed(generator, change)) or "")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (2, *s[1:]),
        lambda s: (s[0], s[1][:-1], s[2]),
        lambda s: (s[0], (*s[1][:-1], 10**6), s[2]),
        lambda s: (s[0], (*s[1][:-1], -1), s[2]),
        lambda s: (*s[:2], float("nan")),
        lambda s: (*s[:2], "text"),
        lambda s: s[:2],
    ],
)
def test_states_that_no_random_can_have_are_refused(change: Any) -> None:
    generator = random.Random(0)
    generator.gauss(0, 1)

    assert "random state" in (random_problem(generator, changed(generator, change)) or "")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {**s, "state": {**s["state"], "pos": 10**6}},
        lambda s: {**s, "state": {**s["state"], "pos": -1}},
        lambda s: {**s, "state": {**s["state"], "key": np.zeros(3, np.uint32)}},
        lambda s: {**s, "has_gauss": "yes"},
        lambda s: {},
    ],
)
def test_states_that_no_random_state_can_have_are_refused(change: Any) -> None:
    generator = np.random.RandomState(0)

    assert "random state" in (random_problem(generator, changed(generator, change)) or "")
