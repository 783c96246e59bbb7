"""A Hugging Face Trainer's run that was killed ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from frameworks.resuming import kill_at, result, start
from support import flip_bit

pytest.importorskip("transformers", reason="Transformers is not installed")
pytest.importorskip("accelerate", reason="Accelerate is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

Undisturbed = Callable[..., dict[str, str]]
PROGRAM = "../integrations/digits_transformers.py"
STEPS = 30  # of 3 epochs; a save after every fourth


@pytest.mark.parametrize("kill", [10, 21], ids=["within the first epoch", "at an epoch's end"])
def test_killed_run_ends_where_an_undisturbed_one_ends(tmp_path: Path, undisturbed: Undisturbed, kill: int) -> None:
    expected = undisturbed(PROGRAM)

    kill_at(PROGRAM, tmp_path / "killed", kill)
    assert holdfast.serials(tmp_path / "killed")
    killed = result(PROGRAM, tmp_path / "killed")

    assert killed == expected
    assert killed["steps"].startswith(f"{STEPS} ")


def test_run_that_is_asked_to_end_saves_the_step_it_is_at_and_a_damaged_save_is_passed_over(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    run = tmp_path / "run"
    expected = undisturbed(PROGRAM, "--accumulate")

    process = start(PROGRAM, run, "--accumulate", "--end-by-signal")
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    with holdfast.open(run) as checkpoint:
        assert checkpoint.step == 11, "no multiple of the 4 steps between saves"
        files = sorted(Path(checkpoint.path).glob("*.safetensors"))
    flip_bit(files[0])

    again = result(PROGRAM, run, "--accumulate")
    assert {**again, "history": ""} == {**expected, "history": ""}
    assert json.loads(again["history"]) == json.loads(expected["history"])


def test_run_that_was_not_given_its_resume_point_does_not_begin(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import holdfast, torch\n"
        "from transformers import TrainerControl, TrainerState, TrainingArguments\n"
        "from holdfast.integrations.transformers import HoldfastCallback\n"
        "arguments = TrainingArguments(sys.argv[1], use_cpu=True, report_to=[])\n"
        "callback = HoldfastCallback(holdfast.CheckpointManager(sys.argv[1]))\n"
        "callback.on_train_begin(arguments, TrainerState(), TrainerControl())\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True)

    assert done.returncode == 1
    assert "call trainer.train(resume_from_checkpoint=callback.resume_point(trainer))" in done.stderr


@pytest.mark.filterwarnings("ignore")  # what Transformers warns of
def test_resume_point_refuses_what_it_cannot_go_on_from(tmp_path: Path) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    from holdfast.integrations.transformers import HoldfastCallback

    run = tmp_path / "run"
    callback = HoldfastCallback(holdfast.CheckpointManager(run))
    trainer = Trainer(
        torch.nn.Linear(1, 1), TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]), callbacks=[callback]
    )
    assert callback.resume_point(trainer) is None
    holdfast.save_checkpoint({"w": np.zeros(1)}, run)
    with pytest.raises(holdfast.MismatchError, match="HoldfastCallback did not save it"):
        callback.resume_point(trainer)
    for file in run.glob("*/*.safetensors"):
        flip_bit(file)
    with pytest.raises(holdfast.RestoreError, match="all checkpoints in .* are damaged"):
        callback.resume_point(trainer)
    trainer.is_fsdp_enabled = True
    with pytest.raises(NotImplementedError, match="without DeepSpeed and FSDP"):
        callback.resume_point(trainer)


@pytest.mark.filterwarnings("ignore")  # what Transformers warns of
def test_end_of_training_is_saved_whatever_the_interval_and_once(tmp_path: Path) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    from holdfast.integrations.transformers import HoldfastCallback

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            return {"loss": (self.line(x) - labels).square().mean()}

    rows = [{"x": torch.ones(2), "labels": torch.ones(1)}] * 14
    arguments = TrainingArguments(
        str(tmp_path / "theirs"), use_cpu=True, report_to=[], save_strategy="no", num_train_epochs=1,
        per_device_train_batch_size=2, disable_tqdm=True,
    )  # fmt: skip
    for _ in range(2):
        manager = holdfast.CheckpointManager(tmp_path / "run", save_interval_steps=5)
        callback = HoldfastCallback(manager)
        trainer = Trainer(Net(), arguments, train_dataset=rows, callbacks=[callback])
        trainer.train(resume_from_checkpoint=callback.resume_point(trainer))

        assert manager.all_steps() == [5, 7]
