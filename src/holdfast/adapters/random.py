"""Random number generators as values of a state: NumPy's `Generator` and `RandomState`, the standard library's `Random`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from holdfast.format.values import Tagged

_GENERATOR = "numpy.random.Generator"
_RANDOM_STATE = "numpy.random.RandomState"
_RANDOM = "random.Random"
RandomNumbers = np.random.Generator | np.random.RandomState | random.Random


def _type_name(generator: RandomNumbers) -> str:
    if isinstance(generator, np.random.Generator):
        return _GENERATOR
    return _RANDOM_STATE if isinstance(generator, np.random.RandomState) else _RANDOM


def is_random(value: object) -> bool:
    """Whether the value is a random number generator that a checkpoint can hold."""
    # SystemRandom takes its numbers from outside and has no state.
    return isinstance(value, RandomNumbers) and not isinstance(value, random.SystemRandom)


def _state_of(generator: RandomNumbers) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def _set_state(generator: RandomNumbers, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def random_value(generator: RandomNumbers) -> Tagged:
    """The generator's whole state."""
    return Tagged("$random", [_type_name(generator), _state_of(generator)])


def random_problem(generator: RandomNumbers, value: Any) -> str | None:
    """Why a loaded value cannot be this generator's state; None if it can. Tried out on another generator of the same type."""
    if not (
        isinstance(value, Tagged) and value.tag == "$random" and isinstance(value.value, list) and len(value.value) == 2
    ):
        return "the checkpoint has a plain value there, the target a random number generator"
    name, state = value.value
    if name != _type_name(generator):
        return f"the checkpoint has the state of a {str(name)[:60]}, the target is a {_type_name(generator)}"
    try:
        if isinstance(generator, np.random.Generator):
            _set_state(np.random.Generator(type(generator.bit_generator)()), state)
        elif isinstance(generator, np.random.RandomState):
            _set_state(np.random.RandomState(type(generator._bit_generator)()), state)
        else:
            _set_state(random.Random(), state)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        return f"its random state does not fit: {error}"
    return None


def set_random(generator: RandomNumbers, value: Tagged) -> None:
    """Give the generator a state that `random_problem` has found good."""
    _set_state(generator, value.value[1])
