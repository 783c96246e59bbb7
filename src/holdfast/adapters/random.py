"""Random number generators as values of a state: NumPy's `Generator` and `RandomState`, the standard library's `Random`."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.format.values import Tagged, encode

if TYPE_CHECKING:
    import random

    RandomNumbers = np.random.Generator | np.random.RandomState | random.Random

_GENERATOR = "numpy.random.Generator"
_RANDOM_STATE = "numpy.random.RandomState"
_RANDOM = "random.Random"
_LIMITS = {"has_uint32": 1, "has_gauss": 1, "pos": 624, "buffer_pos": 4}  # of MT19937 and Philox


def _type_name(value: object) -> str | None:
    # Whoever has such a generator has loaded its module; importing both here would take a fifth of `import holdfast`.
    if "numpy.random" in sys.modules:
        if isinstance(value, np.random.Generator):
            return _GENERATOR
        if isinstance(value, np.random.RandomState):
            return _RANDOM_STATE
    standard = sys.modules.get("random")
    # SystemRandom takes its numbers from outside and has no state.
    if standard and isinstance(value, standard.Random) and not isinstance(value, standard.SystemRandom):
        return _RANDOM
    return None


def is_random(value: object) -> bool:
    """Whether the value is a random number generator that a checkpoint can hold."""
    return _type_name(value) is not None


def _state_of(generator: Any) -> Any:
    kind = _type_name(generator)
    if kind == _GENERATOR:
        return generator.bit_generator.state
    return generator.get_state(legacy=False) if kind == _RANDOM_STATE else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    kind = _type_name(generator)
    if kind == _GENERATOR:
        generator.bit_generator.state = state
    elif kind == _RANDOM_STATE:
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
        trial = _another(generator)
        _set_state(trial, state)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        return f"its random state does not fit: {error}"
    if name == _RANDOM and not _is_finite(state[2]):
        return f"its random state does not fit: {state[2]!r} is no number"
    # NumPy takes 1.5 for an integer, and positions outside of a generator's own buffer.
    if _text(_state_of(trial)) != _text(state) or not _in_range(state):
        return "its random state is not one that such a generator can have"
    return None


def _another(generator: RandomNumbers) -> RandomNumbers:
    """A generator of the same type, to try a state on."""
    if _type_name(generator) == _GENERATOR:
        return np.random.Generator(type(generator.bit_generator)())  # type: ignore[union-attr]
    if _type_name(generator) == _RANDOM_STATE:
        return np.random.RandomState(type(generator._bit_generator)())  # type: ignore[union-attr]
    return sys.modules["random"].Random()  # type: ignore[no-any-return]


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
