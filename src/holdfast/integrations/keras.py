"""Keras 3 on JAX and PyTorch: a callback that saves `fit` after every epoch, and begins with the epoch after the newest checkpoint.

Epochs only: `fit` has no way to begin in the middle of one, so a checkpoint from there would repeat batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.adapters.global_random import global_random
from holdfast.adapters.state import Marked
from holdfast.errors import CheckpointNotFoundError, MissingExtraError
from holdfast.integrations.common import finite
from holdfast.manager import CheckpointManager
from holdfast.variables import Kind

try:
    import keras
except ImportError as error:
    raise MissingExtraError(
        "holdfast.integrations.keras needs Keras 3 and its backend (KERAS_BACKEND=jax or torch): "
        "pip install 'holdfast[keras]'"
    ) from error

log = logging.getLogger(__name__)


class HoldfastBackup(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves `fit` after every epoch, beside training, and restores the newest checkpoint that is whole when `fit` begins.

    Saved are the model's weights, its seed generators, the optimizer's variables (moments, iterations, learning rate), the state of
    `callbacks`, the process's random generators (`fit` draws the order of arrays from them), and `extra`. Variables are
    named by their `path`.

    A run that is killed ends bit for bit where an undisturbed one ends, if its data are arrays or anything else whose order comes
    from those generators or from `extra`. Not saved: callbacks that are not named here, `History` of the epochs before, the
    hidden generator of `keras.random` functions that are called without `seed=`, and the place within an epoch.

    List it last in `fit(callbacks=)`: what is saved of an epoch is what the callbacks before it have made of it.

    Args:
        manager: says where to save, what to keep, and with `save_interval_steps` after how many epochs. Its `best` may name
            anything in the logs, such as `"val_loss"`.
        callbacks: others of the same `fit` that remember something: EarlyStopping, ReduceLROnPlateau, ModelCheckpoint,
            SwapEMAWeights, or of your own with `state_dict()` and `load_state_dict()`. Keras does not tell a callback of others.
        extra: a state of yours that belongs to the run, such as the generator of your data.

    After a signal of `manager.save_on_signal`, `fit` ends with the batch; the next one begins with the same epoch. A run that
    EarlyStopping, one of `callbacks`, has ended stays ended: `fit` returns at once and says so.

    Names are the same in another process that builds the same model. In the same process Keras counts on (`dense_1`): name your
    layers, or call `keras.utils.clear_session()` before you build a model again.

    Raises:
        NotImplementedError: the backend is neither JAX nor PyTorch.
        TypeError: nothing is known of the state of one of `callbacks`.
        ValueError: from `fit`: the model is not built, two variables have one path, or a callback comes after this one.
        As `CheckpointManager.restore` and `CheckpointManager.save`.
    """

    def __init__(
        self, manager: CheckpointManager, *, callbacks: Sequence[keras.callbacks.Callback] = (), extra: Any = None
    ) -> None:
        super().__init__()
        if keras.backend.backend() not in ("jax", "torch"):
            raise NotImplementedError(
                f"the backend is {keras.backend.backend()}; HoldfastBackup knows jax and torch: set KERAS_BACKEND before import"
            )
        self.manager = manager
        self._callbacks = _Callbacks(callbacks)
        self._extra = extra
        self._broken_off = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore."""
        model = self.model
        if not model.built:
            raise ValueError(f"the model {model.name!r} is not built: call it, or model.build(input_shape), before fit")
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._broken_off = False
        state = self._state()
        try:
            report = self.manager.restore(state)
        except CheckpointNotFoundError:
            log.info("no checkpoint in %s: training begins", self.manager.checkpoint_dir)
            return
        for part, variables in _variables(model).items():
            for path, variable in variables.items():
                variable.assign(state[part].tree[path])  # a JAX array is a new one; a tensor was written to already
        log.info("training goes on from %s, after epoch %s", report.path, report.step)
        # The way that keras.callbacks.BackupAndRestore takes too; `fit` looks at it next.
        model._initial_epoch = report.step
        if stopping := self._callbacks.stopped():
            log.warning(
                "EarlyStopping(%r) has ended the run of %s: fit ends too. Leave it out to train on",
                stopping.monitor,
                report.path,
            )
            model._initial_epoch = self.params["epochs"]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End if a signal asks for it."""
        if self.manager.preempted:
            self._broken_off = self._model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save."""
        if not self._broken_off:
            self._callbacks.check_order(epoch, logs or {})
            is_end = epoch + 1 >= self.params["epochs"] or self.model.stop_training  # saved whatever the interval says
            self.manager.save(self._state(), epoch + 1, metrics=finite(logs or {}), force=is_end, wait=False)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Return only when the last save is durable; what was said to this `fit` is not said to the next one."""
        self.model._initial_epoch = None
        self.manager.wait_until_finished()

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"random": global_random(), "callbacks": self._callbacks}
        for part, variables in _variables(self.model).items():
            # Said for every part: on PyTorch all that Keras holds are nn.Parameters, moments too.
            kind: Kind = "parameter" if part in ("model", "frozen") else "persistable"
            state[part] = Marked({path: variable.value for path, variable in variables.items()}, kind, part != "frozen")
        if self._extra is not None:
            state["extra"] = self._extra
        return state


# What callbacks of Keras remember from one epoch to the next.
_REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "best_weights", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "epochs_since_last_save"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


class _Callbacks:
    """The state of other callbacks, as one object; those that one side lacks are left alone."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._named: dict[str, Any] = {}
        for callback in callbacks:
            name = type(callback).__name__
            if not hasattr(callback, "state_dict") and not _remembered(callback):
                raise TypeError(
                    f"callbacks=: {name} has no state_dict() and load_state_dict(), and is none of those known here"
                )
            self._named[f"{name}_{len(self._named)}" if name in self._named else name] = callback

    def state_dict(self) -> dict[str, Any]:
        return {
            name: callback.state_dict()
            if hasattr(callback, "state_dict")
            else {field: getattr(callback, field) for field in _remembered(callback)}
            for name, callback in self._named.items()
        }

    def load_state_dict(self, states: dict[str, Any]) -> None:
        for name in states.keys() & self._named.keys():
            callback = self._named[name]
            if hasattr(callback, "load_state_dict"):
                callback.load_state_dict(states[name])
            else:
                for field in _remembered(callback):
                    setattr(callback, field, states[name][field])

    def stopped(self) -> Any:
        """The EarlyStopping that has ended training; None if there is none."""
        stoppings = (one for one in self._named.values() if isinstance(one, keras.callbacks.EarlyStopping))
        return next((one for one in stoppings if one.stopped_epoch), None)

    def check_order(self, epoch: int, logs: dict[str, Any]) -> None:
        """Refuse to save what a callback will change only after this one."""
        for name, callback in self._named.items():
            if isinstance(callback, keras.callbacks.EarlyStopping | keras.callbacks.ReduceLROnPlateau):
                looks = callback.monitor in logs and epoch >= getattr(callback, "start_from_epoch", 0)
                if looks and callback.best is None:
                    raise ValueError(f"{name} comes after HoldfastBackup in fit(callbacks=…); list HoldfastBackup last")


def _remembered(callback: Any) -> tuple[str, ...]:
    return next((fields for kind, fields in _REMEMBERED.items() if isinstance(callback, kind)), ())


def _variables(model: Any) -> dict[str, dict[str, Any]]:
    """The variables that a run consists of, by part and path. Metrics begin anew with every epoch."""
    left_out = {id(variable) for variable in [*model.weights, *model.metrics_variables]}
    return {
        "model": _by_path(model.trainable_weights),
        "frozen": _by_path(model.non_trainable_weights),
        "seeds": _by_path(variable for variable in model.variables if id(variable) not in left_out),
        "optimizer": _by_path(model.optimizer.variables),
    }


def _by_path(variables: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in variables:
        if found.setdefault(variable.path, variable) is not variable:
            raise ValueError(f"two variables have the path {variable.path!r}; give their layers names of their own")
    return found
