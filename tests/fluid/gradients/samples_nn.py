"""Inputs on which the gradients of neural-network operators are tried."""

from fluid.gradients.harness import Sample, normal

SAMPLES = [
    Sample("mul", {"X": normal(3, 4), "Y": normal(4, 2)}),
]
