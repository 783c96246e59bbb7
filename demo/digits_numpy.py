"""Train a small neural network on handwritten digits, in a way that survives any crash.

    python demo/digits_numpy.py runs/digits

Run it again after a crash and it goes on from the newest complete checkpoint. All that Holdfast needs of a training
script is in `new_state` and `train`; the rest is ordinary NumPy.
"""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import holdfast

EPOCHS, BATCH = 30, 32
Layers = list[dict[str, npt.NDArray[np.float32]]]


def new_state(seed: int = 0) -> dict[str, Any]:
    """Everything that the training remembers from one epoch to the next, and nothing else."""
    rng = np.random.default_rng(seed)
    layers = new_layers(rng)
    return {"model": holdfast.parameters(layers), "optimizer": Adam(layers), "rng": rng, "epoch": 0}


def train(folder: Path) -> None:
    """Train until the last epoch, with a checkpoint after each; go on from the newest one if there is any."""
    state = new_state()
    manager = holdfast.CheckpointManager(folder / "checkpoints", max_to_keep=3)
    try:
        report = manager.restore(state)
        print(f"going on from {Path(report.path).name}, after epoch {report.step}")
    except holdfast.CheckpointNotFoundError:
        print("starting with epoch 1")

    layers, optimizer = state["model"].tree, state["optimizer"]
    images, labels, test_images, test_labels = digits()
    while state["epoch"] < EPOCHS:
        for rows in np.array_split(state["rng"].permutation(len(labels)), len(labels) // BATCH):
            optimizer.update(layers, gradients(layers, images[rows], labels[rows]))
        state["epoch"] += 1
        accuracy = float(np.mean(predict(layers, test_images) == test_labels))
        manager.save(state, step=state["epoch"], metrics={"accuracy": accuracy})

    holdfast.save_params(state, folder / "model")  # the parameters alone: all that prediction needs


def digits() -> tuple[npt.NDArray[Any], ...]:
    """Images (rows, 64) float32 in [0, 1] and labels (rows,) to learn from; then images and labels to test on."""
    data = load_digits()
    images, labels, learn = (data.data / 16).astype(np.float32), data.target, len(data.target) * 4 // 5
    return images[:learn], labels[:learn], images[learn:], labels[learn:]


def new_layers(rng: np.random.Generator, sizes: tuple[int, ...] = (64, 256, 128, 10)) -> Layers:
    """The layers of a perceptron with random weights."""
    return [
        {
            "weight": rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32),
            "bias": np.zeros(columns, np.float32),
        }
        for rows, columns in pairwise(sizes)
    ]


def forward(layers: Layers, images: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """What goes into each layer, and last the scores (rows, 10) that come out."""
    values = [images]
    for layer in layers:
        values.append(values[-1] @ layer["weight"] + layer["bias"])
        if layer is not layers[-1]:
            np.maximum(values[-1], 0, out=values[-1])
    return values


def predict(layers: Layers, images: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The most likely digit for each image."""
    labels: npt.NDArray[np.intp] = forward(layers, images)[-1].argmax(axis=1)
    return labels


def gradients(layers: Layers, images: npt.NDArray[np.float32], labels: npt.NDArray[np.intp]) -> Layers:
    """The gradient of the mean cross-entropy, by backpropagation; shaped like the layers."""
    *inputs, scores = forward(layers, images)
    error = np.exp(scores - scores.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    grads: Layers = []
    for layer, value in zip(reversed(layers), reversed(inputs), strict=True):
        grads.insert(0, {"weight": value.T @ error, "bias": error.sum(axis=0)})
        error = (error @ layer["weight"].T) * (value > 0)
    return grads


class Adam:
    """Adam under a cosine schedule. `state_dict` and `load_state_dict` are what makes it part of a state."""

    def __init__(self, layers: Layers, rate: float = 0.002, steps: int = 44 * EPOCHS) -> None:
        self.rate, self.steps, self.step = rate, steps, 0
        self.mean: Layers = [{name: np.zeros_like(array) for name, array in layer.items()} for layer in layers]
        self.square: Layers = [{name: np.zeros_like(array) for name, array in layer.items()} for layer in layers]

    def update(self, layers: Layers, grads: Layers) -> None:
        """Move the layers one step, in place."""
        rate = self.rate * (1 + np.cos(np.pi * self.step / self.steps)) / 2
        self.step += 1
        rate *= np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        for layer, grad, mean, square in zip(layers, grads, self.mean, self.square, strict=True):
            for name, array in layer.items():
                mean[name] += 0.1 * (grad[name] - mean[name])
                square[name] += 0.001 * (grad[name] ** 2 - square[name])
                array -= (float(rate) * mean[name] / (np.sqrt(square[name]) + 1e-8)).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "mean": self.mean, "square": self.square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.mean, self.square = state["step"], state["mean"], state["square"]


if __name__ == "__main__":
    train(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits"))
