"""Lightning: a callback that saves the run through a CheckpointManager, and begins every `fit` where the newest checkpoint ends.

A callback, no `CheckpointIO`: that one is handed a dict without names for the optimizers' state, must answer for every file that
`ModelCheckpoint` invents, and cannot load into what exists. The live objects go by name, in place, and beside training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from holdfast.adapters.global_random import global_random
from holdfast.errors import CheckpointNotFoundError, MissingExtraError
from holdfast.integrations.common import finite, restore_random
from holdfast.manager import CheckpointManager

try:
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, Checkpoint
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning_utilities.core.apply_func import apply_to_collection
except ImportError as error:
    raise MissingExtraError(
        "holdfast.integrations.lightning needs Lightning: pip install 'holdfast[lightning]'"
    ) from error

from holdfast.adapters.torch import native

log = logging.getLogger(__name__)
When = Literal["epoch", "step"]


class HoldfastCheckpoint(Checkpoint):  # type: ignore[misc]
    """Saves a `fit` beside training, and restores the newest checkpoint that is whole at the beginning of the next one.

    Saved are the module, its optimizers and schedulers, the precision's scaler, the loops' counters and the state of resumable
    data loaders, the state of other callbacks and of the data module, the process's random generators, and `extra`. The
    optimizers' state goes by the names of parameters. Loads write into the tensors that exist.

    A run that is killed ends bit for bit where an undisturbed one ends
        - from a checkpoint at an epoch's end, with any data loader that draws from the process's random generators;
        - from one within an epoch, if the data loader has `state_dict()` and `load_state_dict()`. Lightning begins the order of any
          other one anew, and warns of it.

    Not saved: what `on_save_checkpoint` hooks would add (a warning names them), running averages of logged metrics within an
    epoch, and a plateau scheduler's step at the end of the very epoch that was saved, which Lightning takes only later.

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
        _warn_of_hooks(trainer, pl_module)
        self._random_of = None
        try:
            report = self.manager.restore(self._state(trainer, pl_module))
        except CheckpointNotFoundError:
            log.info("no checkpoint in %s: training begins", self.manager.checkpoint_dir)
        else:
            log.info("training goes on from %s, step %s", report.path, report.step)
            if report.trainer_args["within_epoch"]:
                self._random_of = report.serial
            else:
                # With max_steps Lightning would end the epoch, which is complete, a second time.
                trainer.fit_loop._restarting = trainer.fit_loop.epoch_loop.restarting = False
        self._step = self._saved = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Within an epoch the order was drawn long ago; that of a data loader which was made anew just now must not count."""
        if self._random_of is not None:
            restore_random(self.manager, self._random_of)
            self._random_of = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        """Save, unless gradients are being accumulated, or this is the last batch: validation may still come then."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        ends = self.manager.preempted or trainer.global_step == trainer.max_steps
        if not trainer.is_last_batch and (ends or self._when == "step"):
            self._save(trainer, pl_module, within_epoch=True)
        if self.manager.preempted:
            trainer.should_stop = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lightning ends at the end of the batch itself when SIGTERM comes, maybe before it gets to the hook above."""
        is_asked = isinstance(exception, SIGTERMException) and self.manager.preempted
        if is_asked and not trainer.is_last_batch and self._saved != trainer.global_step:
            self._save(trainer, pl_module, within_epoch=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the epoch was broken off: Lightning would take it for a complete one."""
        if trainer.is_last_batch:
            self._save(trainer, pl_module, within_epoch=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Return only when the last save is durable."""
        self.manager.wait_until_finished()

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, within_epoch: bool) -> None:
        if trainer.fast_dev_run:
            return
        handle = self.manager.save(
            self._state(trainer, pl_module),
            trainer.global_step,
            metrics=finite(trainer.callback_metrics),
            trainer_args={"epoch": trainer.current_epoch, "within_epoch": within_epoch},
            wait=self.manager.preempted,
        )
        if not handle.reason:
            self._saved = trainer.global_step

    def _state(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        state = {
            "model": pl_module,
            "optimizers": list(trainer.optimizers),
            "schedulers": [config.scheduler for config in trainer.lr_scheduler_configs],
            "loop": _Part(trainer.fit_loop.state_dict, trainer.fit_loop.load_state_dict),
            "callbacks": _callbacks(trainer),
            "random": global_random(),
        }
        if trainer.precision_plugin.state_dict():
            state["precision"] = trainer.precision_plugin
        if trainer.datamodule is not None:
            state["data"] = _Part(trainer.datamodule.state_dict, trainer.datamodule.load_state_dict)
        if self._extra is not None:
            state["extra"] = self._extra
        return state


class _Part:
    """A part of Lightning's state as an object; arrays that the target does not know yet come back as tensors too."""

    def __init__(self, save: Callable[[], dict[str, Any]], load: Callable[[dict[str, Any]], object]) -> None:
        self.state_dict, self._load = save, load

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load(apply_to_collection(state, np.ndarray, native))


def _callbacks(trainer: pl.Trainer) -> _Part:
    """The other callbacks; as everywhere in Lightning, those that one side lacks are left alone."""
    known = {callback.state_key: callback for callback in trainer.callbacks}

    def load(states: dict[str, Any]) -> None:
        for key in states.keys() & known.keys():
            known[key].load_state_dict(states[key])

    return _Part(lambda: {key: state for key, callback in known.items() if (state := callback.state_dict())}, load)


def _warn_of_hooks(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    holders = [(pl_module, pl.LightningModule), *((callback, Callback) for callback in trainer.callbacks)]
    if trainer.datamodule is not None:
        holders.append((trainer.datamodule, pl.LightningDataModule))
    for holder, base in holders:
        if type(holder).on_save_checkpoint is not base.on_save_checkpoint:
            log.warning(
                "%s.on_save_checkpoint is not called: what it adds is not saved; put it into state_dict(), a buffer or extra=",
                type(holder).__name__,
            )
