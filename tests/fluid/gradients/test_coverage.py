"""Every differentiable operator has a sample, and the harness finds a wrong gradient."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fluid.gradients.harness import Sample, check_gradient, normal
from holdfast.fluid import registry


def _sampled() -> set[str]:
    modules = sorted(path.stem for path in Path(__file__).parent.glob("samples_*.py"))
    return {s.type for name in modules for s in importlib.import_module(f"fluid.gradients.{name}").SAMPLES}


def test_every_differentiable_operator_has_a_sample():
    differentiable = {name for name in registry.names() if registry.find(name).differentiable}

    assert differentiable - _sampled() == set()


def test_check_fails_for_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(registry, "_ops", dict(registry._ops))

    @jax.custom_jvp
    def wrong(x):
        return x * x

    wrong.defjvp(lambda primals, tangents: (primals[0] ** 2, 2.1 * primals[0] * tangents[0]))
    registry.op("X -> Out", "wrongly_squared")(lambda x: wrong(x))
    sample = Sample("wrongly_squared", {"X": normal(2, 3)})

    with pytest.raises(AssertionError, match="differences say"):
        check_gradient(sample)


def test_check_fails_for_a_gradient_that_is_missing(monkeypatch):
    monkeypatch.setattr(registry, "_ops", dict(registry._ops))
    registry.op("X Y -> Out", "halfway")(lambda x, y: jax.lax.stop_gradient(x) + jnp.sin(y))
    sample = Sample("halfway", {"X": normal(2, 3), "Y": normal(2, 3)})

    with pytest.raises(AssertionError, match="X_0"):
        check_gradient(sample)
