"""A small network in training, for the tests of saving and loading: dropout and Momentum, so chance and accumulators."""

from __future__ import annotations

from typing import Any

import numpy as np

import holdfast.fluid as fluid


def network() -> tuple[Any, Any]:
    """(prediction, loss) in the default programs."""
    x = fluid.layers.data("x", [6])
    y = fluid.layers.data("y", [1], dtype="int64")
    hidden = fluid.layers.dropout(fluid.layers.fc(x, 8, act="relu"), 0.5)
    prediction = fluid.layers.fc(hidden, 3, act="softmax")
    return prediction, fluid.layers.mean(fluid.layers.cross_entropy(prediction, y))


def optimizer() -> Any:
    """Momentum: one accumulator for each parameter."""
    return fluid.optimizer.Momentum(0.05, momentum=0.9)


def batches(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds."""
    rng = np.random.default_rng(seed)
    return [
        {"x": rng.standard_normal((5, 6)).astype(np.float32), "y": rng.integers(0, 3, (5, 1)).astype(np.int64)}
        for _ in range(count)
    ]


class Trained:
    """The network with a scope of its own, after some steps.

    Attributes:
        main, startup, test: programs; `test` is for prediction.
        prediction, loss: variables of `main`.
        scope: the values.
    """

    def __init__(self, steps: int = 3, seed: int = 7) -> None:
        self.main, self.startup, self.scope = fluid.Program(), fluid.Program(), fluid.Scope()
        self.main.random_seed = self.startup.random_seed = seed
        with fluid.program_guard(self.main, self.startup), fluid.unique_name.guard():
            self.prediction, self.loss = network()
            self.test = self.main.clone(for_test=True)
            optimizer().minimize(self.loss)
        self.exe = fluid.Executor(fluid.CPUPlace())
        with fluid.scope_guard(self.scope):
            self.exe.run(self.startup)
        self.train(batches(steps))

    def train(self, feeds: list[dict[str, np.ndarray]]) -> list[bytes]:
        """The losses, every bit of them."""
        with fluid.scope_guard(self.scope):
            return [self.exe.run(self.main, feed=feed, fetch_list=[self.loss])[0].tobytes() for feed in feeds]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The prediction for rows."""
        feed = {"x": x, "y": np.zeros((len(x), 1), np.int64)}
        with fluid.scope_guard(self.scope):
            return self.exe.run(self.test, feed=feed, fetch_list=[self.prediction])[0]

    def values(self) -> dict[str, bytes]:
        """Every persistable of the scope, bit for bit."""
        return values(self.scope, self.main)


def values(scope: fluid.Scope, program: fluid.Program) -> dict[str, bytes]:
    """Every persistable of a program that has a value in a scope, bit for bit."""
    held = {v.name: scope.find_var(v.name) for v in program.list_vars() if v.persistable}
    return {n: np.asarray(v.held).tobytes() for n, v in held.items() if v is not None and v.held is not None}
