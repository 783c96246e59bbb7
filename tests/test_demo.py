"""The demo holds what it tells: `demo/story.py` ends with an error as soon as one of its claims does not hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).parents[1] / "demo"


def test_demo_tells_its_story_to_the_end() -> None:
    story = subprocess.run([sys.executable, DEMO / "story.py"], capture_output=True, text=True, timeout=240)

    assert story.returncode == 0, story.stdout + story.stderr
    assert story.stderr == ""
    chapters = [line.split()[0] for line in story.stdout.splitlines() if not line.startswith(" ")]
    assert chapters == ["Trained", "Killed", "Resumed", "Compared", "Predicted"]
    assert ".attempt-" in story.stdout


def test_demo_gradients_agree_with_finite_differences() -> None:
    import digits_numpy as digits  # here, since scikit-learn takes a second to import

    rng = np.random.default_rng(7)
    layers = [
        {name: array.astype(np.float64) for name, array in layer.items()} for layer in digits.new_layers(rng, (6, 5, 4))
    ]
    images, labels = rng.normal(size=(8, 6)), rng.integers(0, 4, 8)

    def loss() -> float:
        scores = digits.forward(layers, images)[-1]
        return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(8), labels]))

    for layer, gradient in zip(layers, digits.gradients(layers, images, labels), strict=True):
        for name, array in layer.items():
            for index in np.ndindex(array.shape):
                value, step = array[index], 1e-6
                array[index] = value + step
                above = loss()
                array[index] = value - step
                below = loss()
                array[index] = value

                assert gradient[name][index] == pytest.approx((above - below) / (2 * step), abs=1e-8)
