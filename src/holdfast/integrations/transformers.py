"""Hugging Face Transformers: a TrainerCallback that saves the run through a CheckpointManager, and goes on from it.

The Trainer finds its place in the data only by the folder in `train(resume_from_checkpoint=)`. So that is a folder with the
trainer's state and nothing else; model, optimizer, scheduler and random states are loaded from Holdfast, into what exists.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from typing import Any

from holdfast.adapters.global_random import global_random
from holdfast.errors import MismatchError, MissingExtraError, Problem
from holdfast.integrations.common import finite, newest_whole, restore_random
from holdfast.manager import CheckpointManager
from holdfast.reading import open as open_checkpoint

try:
    from safetensors.torch import save_file
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
    from transformers.utils import SAFE_WEIGHTS_NAME
except ImportError as error:
    raise MissingExtraError(
        "holdfast.integrations.transformers needs Transformers and Accelerate: pip install 'holdfast[transformers]'"
    ) from error

log = logging.getLogger(__name__)
_trainer_log = logging.getLogger(Trainer.__module__)
_STATE_FILE = "trainer_state.json"  # the Trainer's name for it


class HoldfastCallback(TrainerCallback):  # type: ignore[misc]
    """Saves a Trainer's run beside training, and restores the newest checkpoint that is whole.

    Saved are the model, the optimizer (by the names of parameters), the scheduler, the gradient scaler, the process's random
    generators, the TrainerState with its log history and the states of exportable callbacks, and `extra`. Saves happen
    between steps, after logging and evaluation.

    A run that is killed ends bit for bit where an undisturbed one ends, weights and log history, as long as batches are made
    without random numbers: the Trainer fetches up to two of them ahead, and draws those anew. The first loss that is logged
    after a resume is the mean since the resume: save at multiples of `logging_steps` for the same log.

    Args:
        manager: says where to save, at which `global_step`, and what to keep. Its `best` may name a metric of the evaluation, such
            as `"eval_loss"`; checkpoints of steps that were not evaluated do not compete.
        extra: a state of yours that belongs to the run.

    After a signal of `manager.save_on_signal` the run is saved at the end of the step, and training ends.

    Example:
        See docs/integrations.md; in short, with `save_strategy="no"` in the arguments:
        `callback = HoldfastCallback(manager)`, `trainer = Trainer(…, callbacks=[callback])`,
        `trainer.train(resume_from_checkpoint=callback.resume_point(trainer))`.
    """

    def __init__(self, manager: CheckpointManager, *, extra: Any = None) -> None:
        self.manager = manager
        self._extra = extra
        self._trainer: Trainer | None = None
        self._serial: int | None = None
        self._resumed_step = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._waits_for_random = False
        self._offered: int | None = None  # steps that the manager was given last, and that it has saved last
        self._saved: int | None = None
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})

    def resume_point(self, trainer: Trainer) -> str | None:
        """What to give to `trainer.train(resume_from_checkpoint=)`: a folder, or None if nothing was saved yet.

        Every byte of the checkpoint is verified before; one that is damaged is passed over with a warning. Call this for every
        `train`, the first one too.

        Raises:
            NotImplementedError: the run has several processes, or uses DeepSpeed or FSDP.
            MismatchError: the folder has checkpoints of something else.
            RestoreError: there are checkpoints, and all of them are damaged. Do not begin at step 0.
        """
        if trainer.args.world_size > 1 or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            raise NotImplementedError("HoldfastCallback saves runs of one process without DeepSpeed and FSDP so far")
        self._trainer, self._serial, self._resumed_step = trainer, newest_whole(self.manager), 0
        if self._serial is None:
            return None
        with open_checkpoint(self.manager.checkpoint_dir, serial=self._serial) as checkpoint:
            values = checkpoint.trainer()[1]
        if "trainer" not in values:
            text = (
                "'trainer' is not in the checkpoint: HoldfastCallback did not save it; give the manager another folder"
            )
            raise MismatchError(checkpoint.path, [Problem("missing", "trainer", text)])
        progress = TrainerState(**values["trainer"])
        self._resumed_step = progress.global_step
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-")
        progress.save_to_json(os.path.join(self._folder.name, _STATE_FILE))
        # The Trainer insists on weights and takes what it finds.
        save_file({}, os.path.join(self._folder.name, SAFE_WEIGHTS_NAME))
        if not hasattr(trainer.model, "_keys_to_ignore_on_save"):
            # The Trainer asks every model for it, and only the library's own have it.
            trainer.model._keys_to_ignore_on_save = None
        _trainer_log.addFilter(_is_news)
        return self._folder.name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:  # fmt: skip
        """Restore: model, optimizer and scheduler exist by now."""
        if self._trainer is None or state.global_step != self._resumed_step:
            raise RuntimeError(
                "HoldfastCallback was not asked where training begins; "
                "call trainer.train(resume_from_checkpoint=callback.resume_point(trainer))"
            )
        _trainer_log.removeFilter(_is_news)
        self._offered, self._saved = state.global_step, None
        if self._serial is not None:
            self._saved = state.global_step
            report = self.manager.restore(self._state(), serial=self._serial, skip=["random.*", "trainer"])
            self._waits_for_random = True
            log.info("training goes on from %s, step %s", report.path, report.step)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:  # fmt: skip
        """Between two epochs: the order of the next one is drawn after this."""
        if not _is_within_epoch(state):
            self._set_random()
        self._save(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:  # fmt: skip
        """Between two steps: the batch is fetched, and those before it are skipped after a resume."""
        self._set_random()
        self._save(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:  # fmt: skip
        """The last moment to save if training is to end."""
        if self.manager.preempted:
            self._save(state, force=True)
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Remember the metrics for the save of this step."""
        self._evaluated = (state.global_step, finite(metrics or {}))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the end of the run, and return only when that is durable."""
        if not args.load_best_model_at_end:  # else these are older weights now
            self._save(state, force=True)
        self.manager.wait_until_finished()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _set_random(self) -> None:
        if self._waits_for_random and self._serial is not None:
            restore_random(self.manager, self._serial)
            self._waits_for_random = False

    def _save(self, state: TrainerState, *, force: bool = False) -> None:
        if state.global_step == (self._saved if force else self._offered):
            return
        self._offered = state.global_step
        step, metrics = self._evaluated
        metrics = metrics if step == state.global_step else {}
        handle = self.manager.save(
            self._state(), state.global_step, metrics=metrics, force=force, wait=self.manager.preempted
        )
        if not handle.reason:
            self._saved = state.global_step

    def _state(self) -> dict[str, Any]:
        trainer = self._trainer
        assert trainer is not None
        state = {
            "model": trainer.model,
            "optimizer": getattr(trainer.optimizer, "optimizer", trainer.optimizer),  # Accelerate wraps it
            "scheduler": trainer.lr_scheduler,
            "trainer": _Progress(trainer),
            "random": global_random(),
        }
        if trainer.accelerator.scaler is not None:
            state["scaler"] = trainer.accelerator.scaler
        if self._extra is not None:
            state["extra"] = self._extra
        return state


class _Progress:
    """The TrainerState as an object, so that it is looked at only when it is saved: its log grows long."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """With the states of the callbacks as they are now, as the Trainer's own saves have it."""
        held = [*self._trainer.callback_handler.callbacks, self._trainer.control]
        exported = TrainerState(stateful_callbacks=[one for one in held if isinstance(one, ExportableState)])
        return dataclasses.asdict(self._trainer.state) | {"stateful_callbacks": exported.stateful_callbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Never called: the Trainer reads it from the folder of `resume_point`."""
        raise NotImplementedError


def _is_news(record: logging.LogRecord) -> bool:
    """The Trainer warns that the folder lacks all weights. With `model_init` it loads them into a model of its own making."""
    return "missing keys in the checkpoint model" not in record.getMessage()


def _is_within_epoch(state: TrainerState) -> bool:
    return state.epoch is not None and state.epoch % 1 != 0
