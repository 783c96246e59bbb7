"""Gradients of arithmetic, activations, reductions and shape operators are what finite differences show."""

import pytest

from fluid.gradients.harness import check_gradient
from fluid.gradients.samples_math import SAMPLES


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_gradient_is_that_of_finite_differences(sample):
    check_gradient(sample, examples=1)
