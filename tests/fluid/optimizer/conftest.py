"""What the tests against recorded training have in common."""

import pytest

import holdfast.fluid as fluid


@pytest.fixture
def no_drawing():
    """Parameters take recorded values anyway, and random operators are what takes longest to compile."""
    zeros = fluid.initializer.Constant(0.0)
    fluid.initializer.set_global_initializer(zeros, zeros)
    yield
    fluid.initializer.set_global_initializer(None)
