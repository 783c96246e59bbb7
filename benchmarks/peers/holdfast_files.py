"""Holdfast for a benchmark that measures many libraries, and finds their adapters in folders that it is told of.

Arrays alone go through `save_params`; a training state (the workload `adam`) through `CheckpointManager`. Each with the
arrays of NumPy, PyTorch, JAX and Paddle.
"""

import os
from types import SimpleNamespace

from adapters import Adapter


class Holdfast(Adapter):
    """What both have in common: saves are durable when they return, and every load verifies every digest."""

    framework = "numpy"
    core = True
    verify = True

    def __init__(self):
        import holdfast

        self.lib = holdfast

    def own(self, array):
        """One of the framework's arrays in the memory of a loaded one."""
        return array

    def load(self, path):
        with self.open(path) as checkpoint:
            return {name: self.own(array) for name, array in checkpoint.read().items()}

    def load_one(self, path, name):
        with self.open(path) as checkpoint:
            return self.own(checkpoint.read([name])[name])

    def names(self, path):
        with self.open(path) as checkpoint:
            return [(name, variable.shape) for name, variable in checkpoint.variables.items()]


class Params(Holdfast):
    """A folder of its own for each save."""

    name = "holdfast"
    workloads = frozenset({"big", "many", "rotate", "damage"})

    def save(self, state, path):
        self.lib.save_params(self.lib.parameters(state), path)

    def open(self, path):
        return self.lib.open(path, verify=self.verify)

    def load_into(self, path, state):
        self.lib.load_params(self.lib.parameters(state), path, verify=self.verify)


class ParamsUnverified(Params):
    """The same without looking at the digests: what verifying costs."""

    name = "holdfast unverified"
    core = False
    verify = False
    workloads = frozenset({"big", "many"})  # the saves are the same


class Run(Holdfast):
    """A training run: its checkpoints lie in one folder, and a manager saves beside the loop."""

    name = "holdfast manager"
    workloads = frozenset({"adam"})

    def __init__(self):
        super().__init__()
        self.saved = {}  # path -> the run folder that has it, and the handle of its save
        self.background = None

    def save(self, state, path):
        if self.background is None:
            run = os.path.join(os.path.dirname(path), "background")
            self.background = self.lib.CheckpointManager(run, max_to_keep=None)
        self.saved[path] = path, self.lib.CheckpointManager(path).save(state, 0)
        # For save_async, which the benchmark calls with the same state later: a script does it before its loop.
        self.background.prepare(state)

    def save_next(self, state, path, previous):
        run, _ = self.saved[previous]
        self.saved[path] = run, self.lib.CheckpointManager(run).save(state, 1)

    def save_async(self, state, path):
        handle = self.background.save(state, len(self.saved), wait=False)
        self.saved[path] = self.background.checkpoint_dir, handle
        return SimpleNamespace(wait=handle.result)

    def open(self, path):
        run, handle = self.saved[path]
        return self.lib.open(run, serial=handle.serial)

    def load_into(self, path, state):
        run, handle = self.saved[path]
        self.lib.load_checkpoint(state, run, serial=handle.serial)

    def close(self):
        self.background.close()


class Torch:
    """Tensors."""

    framework = "torch"

    def __init__(self):
        super().__init__()
        import torch

        self.own = torch.from_numpy


class Jax:
    """JAX arrays: those of a state are replaced, in its dict."""

    framework = "jax"

    def __init__(self):
        super().__init__()
        import jax

        self.own = jax.numpy.asarray


class Paddle:
    """Paddle's tensors."""

    framework = interpreter = "paddle"

    def __init__(self):
        super().__init__()
        import paddle

        self.own = paddle.from_dlpack


class TorchParams(Torch, Params):
    name = "holdfast, torch"


class TorchRun(Torch, Run):
    name = "holdfast manager, torch"


class JaxParams(Jax, Params):
    name = "holdfast, jax"


class JaxRun(Jax, Run):
    name = "holdfast manager, jax"


class PaddleParams(Paddle, Params):
    name = "holdfast, paddle"


class PaddleRun(Paddle, Run):
    name = "holdfast manager, paddle"
