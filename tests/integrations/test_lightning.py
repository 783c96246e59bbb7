"""A Lightning run that was killed ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import holdfast
from frameworks.resuming import kill_at, result, start

pytest.importorskip("lightning", reason="Lightning is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

Undisturbed = Callable[..., dict[str, str]]
PROGRAM = "../integrations/digits_lightning.py"
BATCHES, STEPS = 8, 32


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ((), (3 * BATCHES + 2,)),
        (("--max-steps",), (2 * BATCHES + 3,)),
        (("--within-epochs",), (7, 2 * BATCHES + 6)),
    ],
    ids=["at the ends of epochs", "counted in steps", "within epochs"],
)
def test_killed_run_ends_where_an_undisturbed_one_ends(
    tmp_path: Path, undisturbed: Undisturbed, options: tuple[str, ...], kills: tuple[int, ...]
) -> None:
    expected = undisturbed(PROGRAM, *options)

    for step in kills:
        kill_at(PROGRAM, tmp_path / "killed", step, *options)
        assert holdfast.serials(tmp_path / "killed")
    killed = result(PROGRAM, tmp_path / "killed", *options)

    assert killed == expected
    assert killed["losses"].startswith(f"{STEPS} ")


def test_run_that_is_asked_to_end_saves_the_step_it_is_at(tmp_path: Path, undisturbed: Undisturbed) -> None:
    expected = undisturbed(PROGRAM, "--within-epochs")

    start(PROGRAM, tmp_path / "run", "--within-epochs", "--end-by-signal").communicate()
    with holdfast.open(tmp_path / "run") as checkpoint:
        assert checkpoint.step == BATCHES + 2, "no multiple of the 3 steps between saves"

    assert result(PROGRAM, tmp_path / "run", "--within-epochs") == expected


def test_callback_refuses_a_moment_that_it_does_not_know(tmp_path: Path) -> None:
    from holdfast.integrations.lightning import HoldfastCheckpoint

    with pytest.raises(ValueError, match="when must be .* not 'batch'"):
        HoldfastCheckpoint(holdfast.CheckpointManager(tmp_path), when="batch")


@pytest.mark.filterwarnings("ignore")  # what Lightning warns of
def test_fit_is_refused_before_it_begins_where_it_could_not_be_saved_or_restored(tmp_path: Path) -> None:
    import lightning.pytorch as pl

    from holdfast.integrations.lightning import HoldfastCheckpoint

    callback = HoldfastCheckpoint(holdfast.CheckpointManager(tmp_path))
    parallel = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_progress_bar=False)
    with pytest.raises(NotImplementedError, match="this run has 2 processes"):
        callback.on_fit_start(parallel, pl.LightningModule())

    holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path)
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    trainer.ckpt_path = "other.ckpt"
    with pytest.raises(ValueError, match=r"fit\(ckpt_path='other.ckpt'\) would overwrite"):
        callback.on_fit_start(trainer, pl.LightningModule())
