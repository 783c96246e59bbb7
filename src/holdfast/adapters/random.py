"""Random number generators as values of a state: NumPy's `Generator` and `RandomState`, the standard library's `Random`."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np

from holdfast.format.values import Tagged, encode

_GENERATOR = "numpy.random.Generator"
_RANDOM_STATE = "numpy.random.RandomState"
_RANDOM = "random.Random"
_LIMITS = {"has_uint32": 1, "has_gauss": 1, "pos": 624, "buffer_pos": 4}  # of MT19937 and Philox
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
            trial: RandomNumbers = np.random.Generator(type(generator.bit_generator)())
        elif isinstance(generator, np.random.RandomState):
            trial = np.random.RandomState(type(generator._bit_generator)())
        else:
            trial = random.Random()
        _set_state(trial, state)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        return f"its random state does not fit: {error}"
    if isinstance(generator, random.Random) and not _is_finite(state[2]):
        return f"its random state does not fit: {state[2]!r} is no number"
    # NumPy takes 1.5 for an integer, and positions outside of a generator's own buffer.
    if _text(_state_of(trial)) != _text(state) or not _in_range(state):
        return "its random state is not one that such a generator can have"
    return None


def _is_finite(pending: Any) -> bool:
    """Whether this can be the second of two normal numbers, which `Random` keeps without a look at it."""
    return pending is None or (type(pending) is float and math.isfinite(pending))


def _text(state: Any) -> str:
    return json.dumps(encode(state), sort_keys=True)


def _in_range(state: Any) -> bool:
    if not isinstance(state, dict):
        return True
    return all(0 <= item <= _LIMITS[key] if key in _LIMITS else _in_range(item) for key, item in state.items())


def set_random(generator: RandomNumbers, value: Tagged) -> None:
    """Give the generator a state that `random_problem` has found good."""
    _set_state(generator, value.value[1])
