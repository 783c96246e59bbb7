"""Trainer: the training loop of 2018's high-level interface, which saves checkpoints and resumes from them by itself."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from holdfast.errors import CheckpointNotFoundError
from holdfast.fluid import core, unique_name
from holdfast.fluid.compiler import CompiledProgram
from holdfast.fluid.data_feeder import DataFeeder
from holdfast.fluid.executor import Executor
from holdfast.fluid.framework import Program, Variable, program_guard
from holdfast.fluid.io import checkpoints, inference, variables
from holdfast.fluid.io.selecting import is_parameter, is_persistable, select
from holdfast.fluid.io.sources import opened
from holdfast.fluid.scope import Scope, scope_guard

__all__ = ["BeginEpochEvent", "BeginStepEvent", "CheckpointConfig", "EndEpochEvent", "EndStepEvent", "Trainer"]

Reader = Callable[[], Iterable[Any]]
_CHANCE = "@READER_RANDOM@"  # a value of the checkpoint: the state of Python's and NumPy's chance when the epoch began


class BeginEpochEvent:
    """An epoch begins.

    Attributes:
        epoch: its number, from 0.
    """

    def __init__(self, epoch_id: int) -> None:
        self.epoch = epoch_id


class EndEpochEvent:
    """An epoch has ended.

    Attributes:
        epoch: its number, from 0.
    """

    def __init__(self, epoch_id: int) -> None:
        self.epoch = epoch_id


class BeginStepEvent:
    """A step begins.

    Attributes:
        epoch, step: their numbers, from 0.
        fetch_metrics: set it to False, and this step's `EndStepEvent` has no metrics.
    """

    def __init__(self, epoch_id: int, step_id: int) -> None:
        self.epoch = epoch_id
        self.step = step_id
        self.fetch_metrics = True


class EndStepEvent:
    """A step has ended.

    Attributes:
        epoch, step: their numbers, from 0.
        metrics: values of what `train_func` returned, the loss first.
    """

    def __init__(self, epoch_id: int, step_id: int, metrics: list[Any]) -> None:
        self.epoch = epoch_id
        self.step = step_id
        self.metrics = metrics


class CheckpointConfig:
    """When a Trainer saves, and where.

    Args:
        checkpoint_dir: the run folder; None for the working directory.
        max_num_checkpoints: how many of the newest stay, from 1.
        epoch_interval, step_interval: it saves after a step if the numbers of the epoch and of the step are multiples of these, 0
            among them.

    Attributes:
        load_serial: the checkpoint that the Trainer resumed from; None if it began anew.
        epoch_id, step_id: the last step that this checkpoint has seen.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        max_num_checkpoints: int = 3,
        epoch_interval: int = 1,
        step_interval: int = 10,
    ) -> None:
        for name, value in (
            ("max_num_checkpoints", max_num_checkpoints),
            ("epoch_interval", epoch_interval),
            ("step_interval", step_interval),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        self.checkpoint_dir = os.getcwd() if checkpoint_dir is None else os.fspath(checkpoint_dir)
        self.max_num_checkpoints = max_num_checkpoints
        self.epoch_interval = epoch_interval
        self.step_interval = step_interval
        self.epoch_id = 0
        self.step_id = 0
        self.load_serial: int | None = None


@dataclass(frozen=True, slots=True)
class _Position:
    """The last step that was taken, and chance as it was when its epoch began."""

    epoch: int
    step: int
    chance: Any


class Trainer:
    """Builds a program, trains it, and saves checkpoints. Made again after a crash, it goes on where the newest one was saved.

    No call deletes the newest checkpoint: neither `stop()` nor a normal end. So a run that came to its end, started again,
    only repeats what came after its last checkpoint; `fluid.io.clean_checkpoint` lets it begin anew.

    Args:
        train_func: builds the program; returns the loss, or a list that begins with it.
        optimizer_func: returns the optimizer.
        param_path: a folder of parameters or persistables to begin with; not looked at if there is a checkpoint to resume from.
        place: None for a GPU if there is one, else the CPU.
        parallel: whether to use all devices of the place's kind.
        checkpoint_config: None for no checkpoints.

    Attributes:
        train_program, test_program, startup_program: what it built.
        scope: the values.
        train_func_outputs: what `train_func` returned, as a list.

    Raises:
        CheckpointNotFoundError: there is nothing at `param_path`.
        MismatchError: the newest checkpoint, or what is at `param_path`, does not fit the program.
        RestoreError: there are checkpoints, and none of them can be used.
        TypeError: an argument is none of its kind.
        NotImplementedError: the environment asks for several machines.
    """

    def __init__(
        self,
        train_func: Callable[[], Any],
        optimizer_func: Callable[[], Any],
        param_path: str | os.PathLike[str] | None = None,
        place: core.Place | None = None,
        parallel: bool = False,
        checkpoint_config: CheckpointConfig | None = None,
    ) -> None:
        if checkpoint_config is not None and not isinstance(checkpoint_config, CheckpointConfig):
            raise TypeError(f"checkpoint_config must be a fluid.CheckpointConfig, not {checkpoint_config!r}")
        if asked := [name for name in ("PADDLE_TRAINING_ROLE", "PADDLE_TRAINER_IPS") if os.environ.get(name)]:
            raise NotImplementedError(f"{asked[0]} is set: a Trainer on several machines is not supported yet")
        self.parallel = parallel
        self.trainer_id = 0
        self.checkpoint_cfg = checkpoint_config
        self.scope = Scope()
        self.startup_program, self.train_program = Program(), Program()
        self.place = check_and_get_place(place)
        self.exe = Executor(self.place)
        self._stopped = False
        self._resumed: _Position | None = None

        # Names count from zero: so they are those of the checkpoint, whatever the process has built before.
        with program_guard(self.train_program, self.startup_program), unique_name.guard():
            outputs = train_func()
            self.train_func_outputs: list[Variable] = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
            self.test_program = self.train_program.clone(for_test=True)
            optimizer = optimizer_func()
            if not callable(getattr(optimizer, "minimize", None)):
                raise TypeError(f"optimizer_func must return an optimizer, not {optimizer!r}")
            optimizer.minimize(self.train_func_outputs[0])
        with self._guard():
            self.exe.run(self.startup_program)
            if not self._resume() and param_path is not None:
                self._load(os.fspath(param_path))

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        with program_guard(self.train_program, self.startup_program), scope_guard(self.scope):
            yield

    def _resume(self) -> bool:
        config = self.checkpoint_cfg
        if config is None:
            return False
        found = checkpoints.restore_newest(self.exe, config.checkpoint_dir, self.train_program)
        if found is None:
            return False
        arguments = found.trainer_args if isinstance(found.trainer_args, Mapping) else {}
        try:
            # Fluid's own trees have them as text.
            config.epoch_id, config.step_id = int(arguments["epoch_id"]), int(arguments["step_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointNotFoundError(
                f"checkpoint_{found.serial} in {config.checkpoint_dir} does not say after which epoch_id and step_id it was "
                f"saved; its arguments are {found.trainer_args!r}"
            ) from error
        config.load_serial = found.serial
        self._resumed = _Position(config.epoch_id, config.step_id, found.values.get(_CHANCE))
        return True

    def _load(self, path: str) -> None:
        with opened(path) as source:
            names = source.names
        wanted = {v.name for v in select(self.train_program, is_persistable) if not is_parameter(v)}
        if names is not None and not wanted & names:
            variables.load_vars(self.exe, path, self.train_program, vars=select(self.train_program, is_parameter))
        else:
            variables.load_persistables(self.exe, path, self.train_program)

    def stop(self) -> None:
        """End the training before the next step. Checkpoints stay."""
        self._stopped = True

    def train(
        self,
        num_epochs: int,
        event_handler: Callable[[Any], None],
        reader: Reader | None = None,
        feed_order: Sequence[str] | Mapping[str, int] | None = None,
    ) -> None:
        """Train up to an epoch, from the beginning or from where the checkpoint was saved.

        The steps of the resumed epoch that the checkpoint has seen are passed over: the reader gives their batches, and nothing
        is computed. Python's and NumPy's global chance are set to what they were when that epoch began, so that a reader
        which shuffles by them gives the same order.

        Args:
            num_epochs: how many epochs in all.
            event_handler: is given every event.
            reader: gives an iterable over batches, which are lists of samples.
            feed_order: names of the data variables in the order of a sample's entries, or their positions by name; None for the
                order of their definition.

        Raises:
            ValueError: there is no reader, or feeds do not fit.
        """
        if reader is None:
            raise ValueError("train() needs a reader: a function that gives an iterable over batches")
        self._stopped = False
        resumed, self._resumed = self._resumed, None
        feeder = DataFeeder(feed_variables(self.train_program, feed_order), self.place, self.train_program)
        program: Any = self.train_program
        with self._guard():
            if self.parallel:
                program = on_all_devices(program, self.place)
            for epoch in range(resumed.epoch if resumed else 0, num_epochs):
                seen = resumed.step if resumed is not None and epoch == resumed.epoch else -1
                event_handler(BeginEpochEvent(epoch))
                if resumed is not None and seen >= 0 and resumed.chance is not None:
                    _set_chance(resumed.chance)
                if not self._epoch(program, epoch, seen, reader, feeder, event_handler):
                    return
                event_handler(EndEpochEvent(epoch))

    def _epoch(
        self,
        program: Any,
        epoch: int,
        seen: int,
        reader: Reader,
        feeder: DataFeeder,
        event_handler: Callable[[Any], None],
    ) -> bool:
        """One epoch; False if it was stopped."""
        chance = _chance()
        for step, batch in enumerate(reader()):
            if self._stopped:
                return False
            if step <= seen:
                continue
            begin = BeginStepEvent(epoch, step)
            event_handler(begin)
            fetches = self.train_func_outputs if begin.fetch_metrics else []
            metrics = self.exe.run(program, feed=feeder.feed(batch), fetch_list=fetches)
            self._save(epoch, step, chance)
            event_handler(EndStepEvent(epoch, step, metrics))
        return True

    def _save(self, epoch: int, step: int, chance: Any) -> None:
        config = self.checkpoint_cfg
        if config is None or epoch % config.epoch_interval or step % config.step_interval:
            return
        arguments = {"epoch_id": epoch, "step_id": step}
        checkpoints.commit(
            config.checkpoint_dir,
            self.train_program,
            arguments,
            config.max_num_checkpoints,
            {_CHANCE: chance},
            stacklevel=5,
        )

    def test(self, reader: Reader, feed_order: Sequence[str] | Mapping[str, int] | None = None) -> list[Any]:
        """The means over all batches of what `train_func` returned, by the program for tests: nothing is changed.

        Raises:
            ValueError: the reader gives no batch.
        """
        feeder = DataFeeder(feed_variables(self.test_program, feed_order), self.place, self.test_program)
        fetches = [v.name for v in self.train_func_outputs]
        totals, count = [0.0] * len(fetches), 0
        with scope_guard(self.scope):
            for batch in reader():
                values = self.exe.run(self.test_program, feed=feeder.feed(batch), fetch_list=fetches)
                totals = [total + value.reshape(-1)[0] for total, value in zip(totals, values, strict=True)]
                count += 1
        if not count:
            raise ValueError("test(): the reader gives no batch, so there is no mean")
        return [total / count for total in totals]

    def save_params(self, param_path: str | os.PathLike[str]) -> None:
        """Save all persistables, as `fluid.io.save_persistables` does: for `Inferencer`, or as a `param_path`."""
        with self._guard():
            variables.save_persistables(self.exe, param_path, self.train_program)

    def save_inference_model(
        self, param_path: str | os.PathLike[str], feeded_var_names: Sequence[str], target_var_indexes: Sequence[int]
    ) -> None:
        """Save a model for prediction, as `fluid.io.save_inference_model` does.

        Args:
            param_path: the folder.
            feeded_var_names: names of what will be fed.
            target_var_indexes: positions in what `train_func` returned.
        """
        targets = [self.train_func_outputs[index] for index in target_var_indexes]
        with self._guard():
            inference.save_inference_model(param_path, feeded_var_names, targets, self.exe, self.train_program)


def check_and_get_place(place: core.Place | None) -> core.Place:
    """The place itself; if it is None, a GPU if there is one, else the CPU.

    Raises:
        TypeError: it is no place.
    """
    if place is None:
        return core.CUDAPlace(0) if core.is_compiled_with_cuda() else core.CPUPlace()
    if not isinstance(place, core.Place):
        raise TypeError(f"place must be a fluid.CPUPlace or fluid.CUDAPlace, not {place!r}")
    return place


def on_all_devices(program: Program, place: core.Place) -> CompiledProgram:
    """A program for all devices of a place's kind."""
    made = CompiledProgram(program)
    made.devices = list(jax.local_devices(backend=place.device().platform))
    return made


def feed_variables(program: Program, feed_order: Sequence[str] | Mapping[str, int] | None) -> list[Variable]:
    """The data variables of a program in the order of a sample's entries.

    Raises:
        ValueError: there is no such variable, or the positions are not 0, 1, 2, …
    """
    block = program.global_block()
    if feed_order is None:
        return [v for v in block.vars.values() if v.is_data]
    if isinstance(feed_order, Mapping):
        if sorted(feed_order.values()) != list(range(len(feed_order))):
            raise ValueError(
                f"the values of feed_order must be 0 to {len(feed_order) - 1}, each once, not {feed_order!r}"
            )
        feed_order = sorted(feed_order, key=feed_order.__getitem__)
    return [block.var(name) for name in feed_order]


def _chance() -> dict[str, Any]:
    """The state of the global generators that readers shuffle by."""
    # Not as an array: that would be a variable of the checkpoint.
    name, words, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": (name, [int(n) for n in words], *rest)}


def _set_chance(chance: Mapping[str, Any]) -> None:
    random.setstate(chance["python"])
    np.random.set_state(chance["numpy"])
