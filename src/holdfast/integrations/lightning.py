"""Lightning: a callback that saves the run through a CheckpointManager, and begins every `fit` where the newest checkpoint ends.

A callback, no `CheckpointIO`: that one is handed a dict without names for the optimizers' state, must answer for every file that
`ModelCheckpoint` invents, and cannot load into what exists. The live objects go by name, in place, and beside training.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np

from holdfast.adapters.global_random import global_random
from holdfast.engine.report import LoadReport
from holdfast.errors import CheckpointNotFoundError, MissingExtraError
from holdfast.integrations.common import finite, newest_whole, restore_random
from holdfast.manager import CheckpointManager
from holdfast.reading import open as open_checkpoint

try:
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import (
        BaseFinetuning,
        Callback,
        Checkpoint,
        EarlyStopping,
        StochasticWeightAveraging,
    )
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning_utilities.core.apply_func import apply_to_collection
except ImportError as error:
    raise MissingExtraError(
        "holdfast.integrations.lightning needs Lightning: pip install 'holdfast[lightning]'"
    ) from error

from holdfast.adapters.torch import native

log = logging.getLogger(__name__)
When = Literal["epoch", "step"]

_SAVING, _LOADING = "on_save_checkpoint", "on_load_checkpoint"  # hooks; the first is a key among those of callbacks too
_WEIGHTS = "state_dict"  # Lightning's name for them in a checkpoint


class HoldfastCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves a `fit` beside training, and restores the newest checkpoint that is whole at the beginning of the next one.

    Saved are the module, its optimizers and schedulers, the precision's scaler, the loops' counters and the state of resumable
    data loaders, the state of other callbacks and of the data module, what `on_save_checkpoint` hooks add, the process's
    random generators, and `extra`. The optimizers' state goes by the names of parameters. Loads write into the tensors that exist.

    A run that is killed ends bit for bit where an undisturbed one ends
        - from a checkpoint at an epoch's end, with any data loader that draws from the process's random generators;
        - from one within an epoch, if the data loader has `state_dict()` and `load_state_dict()`. Lightning begins the order of any
          other one anew, and warns of it.

    Not saved: running averages of logged metrics within an epoch, and what `on_save_checkpoint` hooks delete or change in place. A
    run that `EarlyStopping` has ended stays ended: `fit` returns at once and says so.

    Args:
        manager: says where to save, at which `trainer.global_step`, and what to keep. Its `best` may name any logged metric.
        when: `"epoch"` saves at the end of every epoch, `"step"` after every optimizer step too, if it is one to be saved.
        extra: a state of yours that belongs to the run, such as `{"order": generator}` for the generator of a data loader.

    After a signal of `manager.save_on_signal` the run is saved at the end of the batch, and `fit` ends.

    Raises:
        ValueError: from `fit`: `ckpt_path=` was given too, though the folder has checkpoints.
        NotImplementedError: from `fit`: there are several processes.
        As `CheckpointManager.restore` and `CheckpointManager.save`.
    """

    def __init__(self, manager: CheckpointManager, *, when: When = "epoch", extra: Any = None) -> None:
        if when not in get_args(When):
            raise ValueError(f'when must be "epoch" or "step", not {when!r}')
        self.manager = manager
        self._when, self._extra = when, extra
        self._step = self._saved = 0  # the optimizer's, when it was last looked at, and when it was last saved
        self._random_of: int | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore. Optimizers exist by now, and the data loaders' order is not drawn yet."""
        if trainer.fast_dev_run:
            return
        if trainer.world_size > 1:
            raise NotImplementedError(
                f"this run has {trainer.world_size} processes; HoldfastCheckpoint saves runs of one process so far"
            )
        if trainer.ckpt_path and self.manager.latest_serial() is not None:
            raise ValueError(
                f"fit(ckpt_path={str(trainer.ckpt_path)!r}) would overwrite what is restored from {self.manager.checkpoint_dir}; "
                "leave ckpt_path out, or give the manager an empty folder"
            )
        self._random_of = None
        serial = _unfreeze_again(trainer, pl_module, self.manager)
        state = self._state(trainer, pl_module)
        try:
            report = self.manager.restore(state, serial=serial)
        except CheckpointNotFoundError:
            log.info("no checkpoint in %s: training begins", self.manager.checkpoint_dir)
        else:
            log.info("training goes on from %s, step %s", report.path, report.step)
            if report.trainer_args["within_epoch"]:
                self._random_of = report.serial
            else:
                # With max_steps Lightning would end the epoch, which is complete, a second time.
                trainer.fit_loop._restarting = trainer.fit_loop.epoch_loop.restarting = False
                _step_plateaus(trainer, pl_module, report.trainer_args)
                if trainer.fit_loop._combined_loader_states_to_load:
                    self._random_of = report.serial
            state["callbacks"].call_loading_hooks()
            _stay_stopped(trainer, report)
        self._step = self._saved = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Within an epoch the order was drawn long ago; that of a data loader which was made anew just now must not count."""
        if self._random_of is not None:
            is_at_end = _load_loaders(trainer)
            restore_random(self.manager, self._random_of, self._extra)
            self._random_of = None
            if is_at_end:
                iter(trainer.fit_loop._data_fetcher)  # as at the beginning of every epoch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        """Save, unless gradients are being accumulated, or this is the last batch: validation may still come then."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        is_asked = self.manager.preempted  # once: a signal that comes after the save is for the next batch
        ends = is_asked or trainer.global_step == trainer.max_steps
        if not trainer.is_last_batch and (ends or self._when == "step"):
            self._save(trainer, pl_module, within_epoch=True, force=ends)
        if is_asked:
            trainer.should_stop = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning ends at the end of the batch itself when SIGTERM comes, maybe before it gets to the hook above."""
        is_asked = isinstance(exception, SIGTERMException) and self.manager.preempted
        if is_asked and not trainer.is_last_batch and self._saved != trainer.global_step:
            self._save(trainer, pl_module, within_epoch=True, force=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the epoch was broken off: Lightning would take it for a complete one."""
        if trainer.is_last_batch:
            self._save(trainer, pl_module, within_epoch=False, force=_is_end(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Return only when the last save is durable."""
        self.manager.wait_until_finished()

    def _save(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, within_epoch: bool, force: bool
    ) -> None:  # fmt: skip
        if trainer.fast_dev_run:
            return
        handle = self.manager.save(
            self._state(trainer, pl_module),
            trainer.global_step,
            metrics=finite(trainer.callback_metrics),
            trainer_args={
                "epoch": trainer.current_epoch,
                "within_epoch": within_epoch,
                "monitored": _monitored(trainer),
            },
            force=force,
            wait=self.manager.preempted,
        )
        if not handle.reason:
            self._saved = trainer.global_step

    def _state(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        state = {
            "model": pl_module,
            "optimizers": list(trainer.optimizers),
            "schedulers": _schedulers(trainer),
            "loop": _Part(trainer.fit_loop.state_dict, trainer.fit_loop.load_state_dict),
            "callbacks": _Callbacks(trainer, pl_module),
            "random": global_random(),
        }
        if trainer.precision_plugin.state_dict():
            state["precision"] = trainer.precision_plugin
        if trainer.datamodule is not None:
            state["data"] = _Part(trainer.datamodule.state_dict, trainer.datamodule.load_state_dict)
        if self._extra is not None:
            state["extra"] = self._extra
        return state


def _is_end(trainer: pl.Trainer) -> bool:
    """Whether training ends with this epoch: its end is saved whatever the interval says."""
    is_last = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    return is_last or bool(trainer.should_stop) or 0 <= trainer.max_steps <= trainer.global_step


class _Part:
    """A part of Lightning's state as an object; arrays that the target does not know yet come back as tensors too."""

    def __init__(self, save: Callable[[], dict[str, Any]], load: Callable[[dict[str, Any]], object]) -> None:
        self.state_dict, self._load = save, load

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load(apply_to_collection(state, np.ndarray, native))


class _Scheduler(_Part):
    """A scheduler that is given the state of one of another kind too."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler.state_dict, scheduler.load_state_dict)
        self.optimizer = scheduler.optimizer  # what it counts the groups of


def _schedulers(trainer: pl.Trainer) -> list[Any]:
    found = [config.scheduler for config in trainer.lr_scheduler_configs]
    # It puts a scheduler of its own in the place of the module's, and does so again after a load, with the state that it has saved.
    swaps = any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks)
    return [_Scheduler(scheduler) for scheduler in found] if swaps else found


class _Callbacks:
    """The other callbacks; as everywhere in Lightning, those that one side lacks are left alone.

    With them goes what the hooks of callbacks and module add to the dict that a checkpoint of Lightning's own would be.
    """

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer, self._module = trainer, pl_module
        self._known = {callback.state_key: callback for callback in trainer.callbacks}
        self._added: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        states = {key: state for key, callback in self._known.items() if (state := callback.state_dict())}
        if any(self._hooks(_SAVING)):
            checkpoint = self._as_checkpoint()
            before = dict(checkpoint)
            for hook in self._hooks(_SAVING):
                hook(checkpoint)
            added = {key: value for key, value in checkpoint.items() if value is not before.get(key)}
            # WeightAveraging moves the weights to a name of its own; they need not be saved twice.
            states[_SAVING] = {key: _WEIGHTS if value is before[_WEIGHTS] else value for key, value in added.items()}
        return states

    def load_state_dict(self, states: dict[str, Any]) -> None:
        states = apply_to_collection(states, np.ndarray, native)
        for key in states.keys() & self._known.keys():
            self._known[key].load_state_dict(states[key])
        self._added = states.get(_SAVING, {})

    def call_loading_hooks(self) -> None:
        """For when all else is restored."""
        if any(self._hooks(_LOADING)):
            checkpoint = self._as_checkpoint()
            weights = checkpoint[_WEIGHTS]
            checkpoint |= {key: weights if value == _WEIGHTS else value for key, value in self._added.items()}
            for hook in self._hooks(_LOADING):
                hook(checkpoint)

    def _hooks(self, name: str) -> Iterator[Callable[[dict[str, Any]], object]]:
        for callback in self._trainer.callbacks:
            if getattr(type(callback), name) is not getattr(Callback, name):
                yield functools.partial(getattr(callback, name), self._trainer, self._module)
        if getattr(type(self._module), name) is not getattr(pl.LightningModule, name):
            yield getattr(self._module, name)

    def _as_checkpoint(self) -> dict[str, Any]:
        """What hooks may look at; not the whole of Lightning's, which copies much."""
        return {
            "epoch": self._trainer.current_epoch,
            "global_step": self._trainer.global_step,
            "pytorch-lightning_version": pl.__version__,
            _WEIGHTS: self._module.state_dict(),
            "hyper_parameters": dict(self._module.hparams),
        }


def _unfreeze_again(trainer: pl.Trainer, pl_module: pl.LightningModule, manager: CheckpointManager) -> int | None:
    """Let finetuning callbacks thaw what they had thawed: the optimizers have the same parameters as saved ones only then.

    Returns:
        The checkpoint for which that is so, and no other; None if there are no such callbacks, or nothing was saved yet.
    """
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, BaseFinetuning)]
    serial = newest_whole(manager) if callbacks else None
    if serial is None:
        return None
    with open_checkpoint(manager.checkpoint_dir, serial=serial) as checkpoint:
        last = checkpoint.trainer()[0]["epoch"]
    for callback in callbacks:
        for epoch in range(last + 1):
            for optimizer in trainer.optimizers:
                callback.finetune_function(pl_module, epoch, optimizer)
    return serial


def _monitored(trainer: pl.Trainer) -> dict[str, float]:
    """What schedulers such as ReduceLROnPlateau look at; also where it is NaN, which is no metric of a checkpoint."""
    names = {config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau}
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name in names}


def _step_plateaus(trainer: pl.Trainer, pl_module: pl.LightningModule, saved: dict[str, Any]) -> None:
    """Do what Lightning does with these schedulers at the very end of an epoch, after it was saved."""
    for config in trainer.lr_scheduler_configs if pl_module.automatic_optimization else ():
        is_due = config.interval == "epoch" and (saved["epoch"] + 1) % config.frequency == 0
        if config.reduce_on_plateau and is_due and config.monitor in saved["monitored"]:
            pl_module.lr_scheduler_step(config.scheduler, torch.tensor(saved["monitored"][config.monitor]))


def _load_loaders(trainer: pl.Trainer) -> bool:
    """Give data loaders the state that they had at an epoch's end; Lightning does so only within an epoch, and has done it then."""
    loop = trainer.fit_loop
    states, loop._combined_loader_states_to_load = loop._combined_loader_states_to_load, []
    if not states:
        return False
    loop._combined_loader._load_state_dicts(states)
    for loader in loop._combined_loader.flattened:
        if getattr(loader, "next_iter_state", None):
            iter(loader)  # torchdata's takes a state up only now, and that of an epoch that has ended is no new one's
    return True


def _stay_stopped(trainer: pl.Trainer, report: LoadReport) -> None:
    """Lightning forgets that a run was stopped: started again, as jobs are, it would train for another epoch each time."""
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason.value:
            trainer.should_stop = True
            progress = trainer.fit_loop.epoch_progress.current
            progress.completed = progress.processed
            log.warning(
                "EarlyStopping(%r) has ended the run of %s: fit ends too. Leave it out to train on, or set min_epochs=",
                callback.monitor,
                report.path,
            )
