"""What is compared: one class for each library, each with the calls a user of it would write."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

State = dict[str, np.ndarray]
Listing = list[tuple[str, tuple[int, ...]]]


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Library:
    """A library under test. What it has no call of its own for is done with `read`, and marked in the tables."""

    name = ""
    module = ""  # that must be importable; imported in __init__, so that the driver needs none of them
    package = ""  # that has its version, if it is named otherwise
    suffix = ""
    slow = ()  # workloads that take it minutes
    only = ()  # workloads, if it is measured in some only

    @classmethod
    def is_there(cls) -> bool:
        """Whether it is installed."""
        return importlib.util.find_spec(cls.module) is not None

    @classmethod
    def takes(cls, workload: str) -> bool:
        """Whether it is measured in a workload."""
        return workload in cls.only if cls.only else workload != "train" or cls.has_own("save_beside")

    @classmethod
    def has_own(cls, method: str) -> bool:
        """Whether the library has a call for this."""
        return getattr(cls, method) is not getattr(Library, method)

    def save(self, state: State, path: Path) -> None:
        """Save to a path that does not exist."""
        raise NotImplementedError

    def read(self, path: Path) -> State:
        """All arrays, in memory of their own."""
        raise NotImplementedError

    def load_into(self, path: Path, state: State) -> None:
        """Load into arrays that exist."""
        for name, array in self.read(path).items():
            np.copyto(state[name], array)

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """One array of many."""
        return self.read(path)[name]

    def names(self, path: Path) -> Listing:
        """Names and shapes."""
        return [(name, array.shape) for name, array in self.read(path).items()]

    def save_in_rotation(self, state: State, folder: Path, step: int, keep: int) -> None:
        """Save step 0, 1, 2 … and keep the last few only."""
        self.save(state, folder / f"step-{step}{self.suffix}")
        remove(folder / f"step-{step - keep}{self.suffix}")

    def prepare(self, state: State, folder: Path) -> None:
        """What a program can do before its first save beside the loop."""

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """Save in the background; the state is changed when this returns. What is given back says whether the save is over."""
        raise NotImplementedError

    def save_next(self, state: State, folder: Path, step: int) -> None:
        """Save after an earlier step."""
        self.save(state, folder / f"step-{step}{self.suffix}")

    def save_frozen(self, base: State, rest: State, folder: Path, step: int) -> None:
        """Save a base that training leaves alone, and the rest; both at every step."""
        self.save_next({**base, **rest}, folder, step)

    def load_next(self, state: State, folder: Path, step: int) -> None:
        """Load what was saved at a step into arrays that exist."""
        self.load_into(folder / f"step-{step}{self.suffix}", state)


class Holdfast(Library):
    """The project's own, with every digest verified."""

    name = module = "holdfast"
    verify = True

    def __init__(self) -> None:
        import holdfast

        self.holdfast = holdfast

    def save(self, state: State, path: Path) -> None:
        """As a user saves a model."""
        self.holdfast.save_params(self.holdfast.parameters(state), path)

    def load_into(self, path: Path, state: State) -> None:
        """As a user loads it."""
        self.holdfast.load_params(self.holdfast.parameters(state), path, verify=self.verify)

    def read(self, path: Path) -> State:
        """Without a model to load it into."""
        with self.holdfast.open(path, verify=self.verify) as checkpoint:
            return checkpoint.read()

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """Lazily."""
        with self.holdfast.open(path, verify=self.verify) as checkpoint:
            return checkpoint[name][...]

    def names(self, path: Path) -> Listing:
        """From the manifest."""
        with self.holdfast.open(path, verify=self.verify) as checkpoint:
            return [(name, variable.shape) for name, variable in checkpoint.variables.items()]

    def save_in_rotation(self, state: State, folder: Path, step: int, keep: int) -> None:
        """With its own rotation; each save is durable when it returns."""
        marked = self.holdfast.parameters(state)
        self.holdfast.save_checkpoint(marked, folder / "run", step=step, max_num_checkpoints=keep)

    def prepare(self, state: State, folder: Path) -> None:
        """The memory of the snapshots, ready when it is needed."""
        self.manager = self.holdfast.CheckpointManager(folder / "run", max_to_keep=None)
        self.manager.prepare(state)

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """With the manager."""
        handle = self.manager.save(state, step, wait=False)

        def is_over() -> bool:
            return handle.done() and handle.result() is not None

        return is_over

    def save_next(self, state: State, folder: Path, step: int) -> None:
        """With the manager."""
        self.manager.save(state, step)

    def save_frozen(self, base: State, rest: State, folder: Path, step: int) -> None:
        """With a word about what is frozen, as `requires_grad=False` says it of a tensor."""
        self.manager.save({"base": self.holdfast.parameters(base, trainable=False), "rest": rest}, step)

    def load_next(self, state: State, folder: Path, step: int) -> None:
        """As a run is resumed."""
        if (found := self.manager.restore(state, verify=self.verify).step) != step:
            raise AssertionError(f"step {found} was restored instead of step {step}")


class HoldfastUnverified(Holdfast):
    """The same without looking at the digests."""

    name = "holdfast, verify=False"
    verify = False
    only = ("big", "many")  # its saves are the same
    slow = ("rotate",)  # nothing is read there


class Safetensors(Library):
    """safetensors.numpy; it does not sync, the benchmark does."""

    name, module, suffix = "safetensors", "safetensors", ".safetensors"

    def __init__(self) -> None:
        import safetensors.numpy

        self.open: Callable = safetensors.safe_open
        self.lib = safetensors.numpy

    def save(self, state: State, path: Path) -> None:
        """To one file."""
        self.lib.save_file(state, path)

    def read(self, path: Path) -> State:
        """All of it."""
        return self.lib.load_file(path)

    def load_into(self, path: Path, state: State) -> None:
        """Array by array."""
        with self.open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                np.copyto(state[name], file.get_tensor(name))

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """Lazily."""
        with self.open(path, framework="np") as file:
            return file.get_tensor(name)

    def names(self, path: Path) -> Listing:
        """From the header."""
        with self.open(path, framework="np") as file:
            return [(name, tuple(file.get_slice(name).get_shape())) for name in file.keys()]  # noqa: SIM118


class Tensorstore(Library):
    """tensorstore, one uncompressed zarr3 array of one chunk for each array."""

    name = module = "tensorstore"
    slow = ("many",)  # 100,000 folders

    def __init__(self) -> None:
        import tensorstore

        self.lib = tensorstore

    def _open(self, path: Path, names: list[str]) -> dict:
        spec = {n: {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/{n}/"}} for n in names}
        return {n: s.result() for n, s in {n: self.lib.open(spec[n], open=True) for n in names}.items()}

    def save(self, state: State, path: Path) -> None:
        """All arrays at once, as it likes it."""
        opened = {}
        for name, array in state.items():
            grid = {"name": "regular", "configuration": {"chunk_shape": array.shape}}
            metadata = {"shape": array.shape, "data_type": array.dtype.name, "chunk_grid": grid}
            store = {"driver": "file", "path": f"{path}/{name}/"}
            opened[name] = self.lib.open({"driver": "zarr3", "kvstore": store, "metadata": metadata}, create=True)
        for write in [opened[name].result().write(array) for name, array in state.items()]:
            write.result()

    def read(self, path: Path) -> State:
        """All of it."""
        reads = {name: store.read() for name, store in self._open(path, os.listdir(path)).items()}
        return {name: read.result() for name, read in reads.items()}

    def load_into(self, path: Path, state: State) -> None:
        """Straight into the arrays."""
        for write in [self.lib.array(state[n]).write(store) for n, store in self._open(path, list(state)).items()]:
            write.result()

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """Lazily."""
        return self._open(path, [name])[name].read().result()

    def names(self, path: Path) -> Listing:
        """One metadata file for each."""
        return [(name, tuple(store.shape)) for name, store in self._open(path, os.listdir(path)).items()]


class Savez(Library):
    """numpy.savez."""

    name, module, suffix = "numpy.savez", "numpy", ".npz"

    def save(self, state: State, path: Path) -> None:
        """One zip file."""
        np.savez(path, **state)

    def read(self, path: Path) -> State:
        """All of it."""
        with np.load(path) as file:
            return dict(file)

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """One member."""
        with np.load(path) as file:
            return file[name]


class TorchSave(Library):
    """torch.save and torch.load."""

    name, module, suffix = "torch.save", "torch", ".pt"

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def tensors(self, state: State) -> dict:
        """Tensors that share the arrays' memory."""
        return {name: self.torch.from_numpy(array) for name, array in state.items()}

    def save(self, state: State, path: Path) -> None:
        """One zip file."""
        self.torch.save(self.tensors(state), path)

    def read(self, path: Path) -> State:
        """All of it."""
        return {name: tensor.numpy() for name, tensor in self.torch.load(path, weights_only=True).items()}


class SafetensorsTorch(TorchSave):
    """safetensors.torch: its load_file, and a copy into the tensors that exist."""

    name, package, suffix = "safetensors.torch", "safetensors", ".safetensors"
    only = ("train",)  # elsewhere it is measured with NumPy's arrays

    def __init__(self) -> None:
        super().__init__()
        import safetensors.torch

        self.lib = safetensors.torch

    @classmethod
    def is_there(cls) -> bool:
        """It needs both."""
        return super().is_there() and Safetensors.is_there()

    def save(self, state: State, path: Path) -> None:
        """To one file."""
        self.lib.save_file(self.tensors(state), path)

    def read(self, path: Path) -> State:
        """All of it."""
        return {name: tensor.numpy() for name, tensor in self.lib.load_file(path).items()}

    def load_into(self, path: Path, state: State) -> None:
        """All of it, then tensor by tensor."""
        targets = self.tensors(state)
        for name, tensor in self.lib.load_file(path).items():
            targets[name].copy_(tensor)


class TorchDcp(TorchSave):
    """torch.distributed.checkpoint in one process."""

    name, suffix = "torch DCP", ""
    slow = ("many",)

    def __init__(self) -> None:
        super().__init__()
        import torch.distributed.checkpoint as dcp

        self.dcp = dcp

    def save(self, state: State, path: Path) -> None:
        """A folder."""
        self.dcp.save(self.tensors(state), storage_writer=self.dcp.FileSystemWriter(path), no_dist=True)

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """Its copy on the CPU, and a thread."""
        writer = self.dcp.FileSystemWriter(folder / f"step-{step}")
        future = self.dcp.async_save(self.tensors(state), storage_writer=writer, no_dist=True)

        def is_over() -> bool:
            return future.done() and future.result() is not None

        return is_over

    def load_into(self, path: Path, state: State) -> None:
        """Straight into the tensors."""
        self.dcp.load(self.tensors(state), storage_reader=self.dcp.FileSystemReader(path), no_dist=True)

    def names(self, path: Path) -> Listing:
        """From its metadata file."""
        metadata = self.dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        return [(name, tuple(of.size)) for name, of in metadata.items()]

    def read(self, path: Path) -> State:
        """All of it."""
        state = {name: np.empty(shape, np.float32) for name, shape in self.names(path)}
        self.load_into(path, state)
        return state

    def read_one(self, path: Path, name: str) -> np.ndarray:
        """Only what is asked for."""
        state = {name: np.empty(dict(self.names(path))[name], np.float32)}
        self.load_into(path, state)
        return state[name]


class Torchsnapshot(TorchSave):
    """torchsnapshot."""

    name = module = "torchsnapshot"
    suffix = ""
    only = ("train",)

    def __init__(self) -> None:
        super().__init__()
        import torchsnapshot

        self.lib = torchsnapshot

    def part(self, state: State) -> dict:
        """What it calls an app state."""
        return {"state": self.lib.StateDict(**self.tensors(state))}

    def save(self, state: State, path: Path) -> None:
        """A folder."""
        self.lib.Snapshot.take(str(path), self.part(state))

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """A thread of its own."""
        pending = self.lib.Snapshot.async_take(str(folder / f"step-{step}"), self.part(state))

        def is_over() -> bool:
            return pending.done() and pending.wait() is not None

        return is_over

    def load_into(self, path: Path, state: State) -> None:
        """Straight into the tensors."""
        self.lib.Snapshot(str(path)).restore(self.part(state))


class Orbax(Library):
    """orbax.checkpoint: asynchronous saves of a pytree."""

    name, module, package = "orbax", "orbax", "orbax-checkpoint"
    only = ("train",)

    def __init__(self) -> None:
        import orbax.checkpoint as ocp

        self.ocp = ocp
        self.saver = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save_beside(self, state: State, folder: Path, step: int) -> Callable[[], bool]:
        """It has a call that waits, and none that asks."""
        self.saver.save(folder / f"step-{step}", args=self.ocp.args.StandardSave(state))

        def is_over() -> bool:
            self.saver.wait_until_finished()
            return True

        return is_over

    def save_next(self, state: State, folder: Path, step: int) -> None:
        """And wait."""
        self.save_beside(state, folder, step)()

    def load_next(self, state: State, folder: Path, step: int) -> None:
        """New arrays of the same shapes, and a copy."""
        for name, array in self.saver.restore(
            folder / f"step-{step}", args=self.ocp.args.StandardRestore(state)
        ).items():
            np.copyto(state[name], array)


ALL = (
    Holdfast, HoldfastUnverified, Safetensors, SafetensorsTorch, Tensorstore, Savez, TorchSave, TorchDcp, Torchsnapshot,
    Orbax,
)  # fmt: skip
LIBRARIES = {c.name: c for c in ALL}
