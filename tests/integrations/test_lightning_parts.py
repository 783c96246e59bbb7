"""What else a Lightning run consists of: data modules, hooks, callbacks that change model, optimizers or when training ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import UnsupportedVariableError

pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

import torch  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    BaseFinetuning,
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from holdfast.integrations.lightning import HoldfastCheckpoint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning warns of

EPOCHS = 4
INPUTS = torch.linspace(-2, 2, 96).reshape(24, 4)


class Net(pl.LightningModule):
    """A body that may be frozen, and a head; one value is added by a hook."""

    def __init__(self, schedule: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
        self.schedule, self.seen = schedule, {"epochs": 0, "mean": torch.zeros(2)}

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = (self.head(torch.dropout(self.body(batch), 0.3, True)) - batch.sum(1, keepdim=True)).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_start(self) -> None:
        self.seen["epochs"] += 1
        self.seen["mean"] = self.seen["mean"] + torch.tensor([1.0, self.seen["epochs"]])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.05)
        return {"optimizer": optimizer, **(self.schedule(optimizer) if self.schedule else {})}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seen"] = self.seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert set(checkpoint["state_dict"]) == set(self.state_dict())
        self.seen = checkpoint["seen"]


class Data(pl.LightningDataModule):
    """Batches in an order drawn from the process's generator, and a count of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(INPUTS, 8, shuffle=True)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class Thaw(BaseFinetuning):
    """Trains the head alone for an epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.body)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.body, optimizer)


def halve(optimizer: Any) -> dict[str, Any]:
    """Halves the rate after every epoch: no loss is better by 1000."""
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=0, factor=0.5, threshold=1000.0, threshold_mode="abs"
    )
    return {"lr_scheduler": {"scheduler": plateau, "monitor": "loss"}}


def fit(run: Path, epochs: int = EPOCHS, *callbacks: Any, schedule: Any = None, loader: Any = None) -> Any:
    """A trainer that has trained up to so many epochs in all, as a program that is started again."""
    pl.seed_everything(len(holdfast.serials(run)) if run.is_dir() else 0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*callbacks, HoldfastCheckpoint(holdfast.CheckpointManager(run))],
    )  # fmt: skip
    trainer.fit(Net(schedule), loader, datamodule=Data() if loader is None else None)
    return trainer


def all_of(trainer: Any) -> list[Any]:
    """The state of a run that has ended, to be compared bit for bit."""
    module, optimizer = trainer.lightning_module, trainer.optimizers[0]
    named = [p for p in module.parameters() if p in optimizer.state]
    moments = [optimizer.state[p][slot].tolist() for p in named for slot in ("exp_avg", "exp_avg_sq")]
    weights = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    return [trainer.global_step, trainer.current_epoch, weights, moments, rates, torch.rand(1).item()]


@pytest.mark.parametrize(
    ("callbacks", "schedule"),
    [
        (list, None),
        (lambda: [EMAWeightAveraging(decay=0.5)], None),
        (lambda: [Thaw()], None),
        (list, halve),
    ],
    ids=["alone", "averaged weights", "finetuning", "rate by plateau"],
)
@pytest.mark.parametrize("first", [1, 3])
def test_run_in_two_parts_ends_where_one_in_one_part_ends(
    tmp_path: Path, callbacks: Callable[[], list[Any]], schedule: Any, first: int
) -> None:
    expected = fit(tmp_path / "one", EPOCHS, *callbacks(), schedule=schedule)
    expected_end = all_of(expected)

    fit(tmp_path / "two", first, *callbacks(), schedule=schedule)
    trainer = fit(tmp_path / "two", EPOCHS, *callbacks(), schedule=schedule)

    assert all_of(trainer) == expected_end
    assert trainer.lightning_module.seen["epochs"] == EPOCHS
    assert torch.equal(trainer.lightning_module.seen["mean"], expected.lightning_module.seen["mean"])


@pytest.mark.parametrize("size", [24, None], ids=["with a length", "without"])
def test_loader_that_keeps_its_order_goes_on_with_the_next_epoch(tmp_path: Path, size: int | None) -> None:
    data = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    samplers = pytest.importorskip("torchdata.stateful_dataloader.sampler", reason="torchdata is not installed")

    class Growing(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.epoch = 0

        def __iter__(self) -> Any:
            yield from INPUTS * (1 + self.epoch)
            self.epoch += 1

        def state_dict(self) -> dict[str, Any]:
            return {"epoch": self.epoch}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.epoch = state["epoch"]

    def loader() -> Any:
        if size is None:
            return data.StatefulDataLoader(Growing(), 8)
        order = samplers.RandomSampler(INPUTS, generator=torch.Generator().manual_seed(1))
        return data.StatefulDataLoader(INPUTS, 8, sampler=order)

    expected = all_of(fit(tmp_path / "one", EPOCHS, loader=loader()))
    fit(tmp_path / "two", 1, loader=loader())
    fit(tmp_path / "two", 2, loader=loader())

    assert all_of(fit(tmp_path / "two", EPOCHS, loader=loader())) == expected


@pytest.mark.parametrize("damaged", ["trainer_0.json", "model.safetensors"])
def test_finetuned_run_goes_on_from_an_older_checkpoint_if_the_newest_is_damaged(tmp_path: Path, damaged: str) -> None:
    expected = all_of(fit(tmp_path / "one", EPOCHS, Thaw()))
    fit(tmp_path / "two", 1, Thaw())
    fit(tmp_path / "two", 2, Thaw())
    file = tmp_path / "two" / "checkpoint_1" / damaged
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.unlink()
    file.write_bytes(content)

    assert all_of(fit(tmp_path / "two", EPOCHS, Thaw())) == expected


def test_generator_in_extra_goes_on_within_an_epoch(tmp_path: Path) -> None:
    data = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    class Break(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5:  # two batches after a save, in the middle of an epoch
                next(c for c in trainer.callbacks if isinstance(c, HoldfastCheckpoint)).manager.wait_until_finished()
                raise RuntimeError("enough")

    def run(path: Path, *callbacks: Any) -> Any:
        pl.seed_everything(0, verbose=False)
        order = torch.Generator().manual_seed(1)
        manager = holdfast.CheckpointManager(path, save_interval_steps=4)
        trainer = pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[*callbacks, HoldfastCheckpoint(manager, when="step", extra={"order": order})],
        )  # fmt: skip
        trainer.fit(Net(), data.StatefulDataLoader(INPUTS, 8, shuffle=True, generator=order))
        return all_of(trainer)

    expected = run(tmp_path / "one")
    with pytest.raises(RuntimeError, match="enough"):
        run(tmp_path / "two", Break())

    assert run(tmp_path / "two") == expected


class BreakOff(Callback):
    """Ends the run at the beginning of its last epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == EPOCHS - 1:
            raise RuntimeError("enough")


def test_run_whose_scheduler_a_callback_has_swapped_goes_on(tmp_path: Path) -> None:
    def averaging() -> Any:
        return StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=2)

    def cosine(optimizer: Any) -> dict[str, Any]:
        return {"lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}

    expected = all_of(fit(tmp_path / "one", EPOCHS, averaging(), schedule=cosine))

    with pytest.raises(RuntimeError, match="enough"):
        fit(tmp_path / "two", EPOCHS, averaging(), BreakOff(), schedule=cosine)
    trainer = fit(tmp_path / "two", EPOCHS, averaging(), schedule=cosine)

    assert all_of(trainer) == expected


def test_one_trainer_fits_twice(tmp_path: Path) -> None:
    expected = all_of(fit(tmp_path / "one"))
    trainer = fit(tmp_path / "two", 2)

    trainer.fit_loop.max_epochs = EPOCHS
    trainer.fit(trainer.lightning_module, datamodule=Data())

    assert all_of(trainer) == expected


def test_run_that_was_stopped_early_stays_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopping = lambda: EarlyStopping("loss", patience=1, min_delta=1000.0, check_on_train_epoch_end=True)  # noqa: E731
    ended = fit(tmp_path, EPOCHS, stopping())
    assert ended.current_epoch == 2

    with caplog.at_level(logging.WARNING, "holdfast"):
        again = fit(tmp_path, EPOCHS, stopping())

    assert all_of(again)[:5] == all_of(ended)[:5]
    assert "EarlyStopping('loss') has ended the run" in caplog.text
    assert fit(tmp_path, EPOCHS).current_epoch == EPOCHS, "without it the run goes on"


def test_checkpoints_of_lightning_are_made_beside(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path / "theirs", monitor="loss", save_top_k=1)
    fit(tmp_path / "ours", 2, callback)
    best = callback.best_model_path

    again = ModelCheckpoint(tmp_path / "theirs", monitor="loss", save_top_k=1)
    trainer = fit(tmp_path / "ours", 2, again)

    assert again.best_model_path == best
    trainer.fit(trainer.lightning_module, datamodule=Data())
    assert trainer.global_step == 2 * 3


def test_what_a_hook_adds_and_no_checkpoint_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    class Adds(Callback):
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint["thing"] = object()

    with pytest.raises(UnsupportedVariableError) as caught:
        fit(tmp_path, 1, Adds())

    assert list(caught.value.reasons) == ["callbacks.on_save_checkpoint.thing"]


@pytest.mark.parametrize(
    ("when", "options", "steps"),
    [
        ("epoch", {"max_epochs": 3}, [9]),
        ("step", {"max_epochs": 3}, [5, 9]),
        ("step", {"max_steps": 8}, [5, 8]),
        ("epoch", {"max_epochs": 9, "callbacks": [EarlyStopping("loss", patience=1, min_delta=1000.0)]}, [6]),
    ],
    ids=["epochs", "steps", "most steps", "stopped early"],
)
def test_end_of_training_is_saved_whatever_the_interval(
    tmp_path: Path, when: Any, options: dict[str, Any], steps: list[int]
) -> None:
    manager = holdfast.CheckpointManager(tmp_path, save_interval_steps=5)
    callbacks = [*options.pop("callbacks", []), HoldfastCheckpoint(manager, when=when)]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, **options
    )  # fmt: skip
    trainer.fit(Net(), datamodule=Data())

    assert manager.all_steps() == steps
