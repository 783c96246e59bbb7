"""Trainer and Inferencer; a training process is killed and resumed in earnest."""

import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tests.fluid import trainer_child
from tests.fluid.trainer_child import optimizer_func, reader, samples, train_func, trainer_of

import holdfast
import holdfast.fluid as fluid
from holdfast.errors import CheckpointNotFoundError, RestoreError

EPOCHS, STEPS = 3, 7


def run_child(folder, *, kept=2, kill_after=None):
    """The lines of a child, and whether it came to its end; it is killed once it has said so many."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen(
        [sys.executable, trainer_child.__file__, str(folder), str(EPOCHS), str(kept)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    lines = []
    with child.stdout:
        for line in child.stdout:
            lines.append(line.split())
            if kill_after is not None and len(lines) == kill_after:
                child.send_signal(signal.SIGKILL)
                break
    code = child.wait(120)
    assert code == 0 or (code == -signal.SIGKILL and kill_after is not None)
    return lines, code == 0


def test_killed_and_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    first, _ = run_child(tmp_path / "run", kept=99, kill_after=1)
    # From here on two runs go on from the same first checkpoint: one is left alone, the other killed twice.
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "run" / "checkpoint_0", tmp_path / name / "checkpoint_0")

    whole, _ = run_child(tmp_path / "a")
    lives, ended = [], False
    while not ended:
        # Every life gets past a checkpoint, which comes every three steps; a kill that comes late only makes it longer.
        lines, ended = run_child(tmp_path / "b", kill_after=7 if len(lives) < 3 else None)
        lives.append(lines)

    assert first[0][:2] == ["0", "0"]
    assert whole[0] == ["resumed", "0", "0", "0"]  # serial 0 counts, and its step is not repeated
    assert [line[:2] for line in whole[1:]] == [[str(e), str(s)] for e in range(EPOCHS) for s in range(STEPS)][1:]
    expected = {tuple(line[:2]): line[2] for line in whole[1:]}
    seen = {}
    for life in lives:
        assert life[0][0] == "resumed"
        for epoch, step, loss in life[1:]:
            assert expected[epoch, step] == loss, f"epoch {epoch}, step {step}"
            seen[epoch, step] = loss
    assert seen == expected


def steps_of(trainer, epochs=1, **kwargs):
    seen = []

    def handler(event):
        if isinstance(event, fluid.EndStepEvent):
            seen.append((event.epoch, event.step))

    trainer.train(epochs, handler, reader, ["x", "y"], **kwargs)
    return seen


def test_events_come_in_fluids_order_with_metrics(tmp_path):
    trainer = fluid.Trainer(train_func, optimizer_func, place=fluid.CPUPlace())
    events = []

    def handler(event):
        events.append(event)
        if isinstance(event, fluid.BeginStepEvent):
            event.fetch_metrics = event.step != 1

    trainer.train(1, handler, reader, ["x", "y"])
    assert [type(e).__name__ for e in events[:3]] == ["BeginEpochEvent", "BeginStepEvent", "EndStepEvent"]
    assert type(events[-1]).__name__ == "EndEpochEvent"
    ends = [e for e in events if isinstance(e, fluid.EndStepEvent)]
    assert [len(e.metrics) for e in ends] == [2, 0, 2, 2, 2, 2, 2]
    assert ends[0].metrics[0].shape == (1,)
    assert not any(tmp_path.iterdir())


def test_checkpoints_are_saved_at_multiples_of_the_intervals(tmp_path):
    trainer = trainer_of(tmp_path / "run", epoch_interval=2, step_interval=3, max_num_checkpoints=9)
    steps_of(trainer, 3)

    saved = [
        fluid.io.load_trainer_args(tmp_path / "run", s, 0, ["epoch_id", "step_id"])
        for s in holdfast.serials(tmp_path / "run")
    ]
    assert saved == [[0, 0], [0, 3], [0, 6], [2, 0], [2, 3], [2, 6]]


def test_neither_stop_nor_the_end_deletes_checkpoints(tmp_path):
    trainer = trainer_of(tmp_path / "run")

    def handler(event):
        if isinstance(event, fluid.EndStepEvent) and event.step == 4:
            trainer.stop()

    trainer.train(2, handler, reader, ["x", "y"])
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "run") == 1

    again = trainer_of(tmp_path / "run")
    assert steps_of(again) == [(0, 4), (0, 5), (0, 6)]
    assert holdfast.serials(tmp_path / "run") == [1, 2]
    assert steps_of(trainer_of(tmp_path / "run")) == []  # that epoch is done


def test_damaged_newest_checkpoint_is_passed_over(tmp_path, caplog):
    steps_of(trainer_of(tmp_path / "run"))
    newest = tmp_path / "run" / f"checkpoint_{fluid.io.get_latest_checkpoint_serial(tmp_path / 'run')}"
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)

    trainer = trainer_of(tmp_path / "run")
    assert (trainer.checkpoint_cfg.load_serial, trainer.checkpoint_cfg.step_id) == (1, 3)
    assert "cannot be restored, trying an older one" in caplog.text


def test_nothing_begins_anew_where_every_checkpoint_is_damaged(tmp_path):
    steps_of(trainer_of(tmp_path / "run"))
    for folder in (tmp_path / "run").glob("checkpoint_*"):
        (folder / "manifest.json").write_text("{}")

    with pytest.raises(RestoreError, match="none of the checkpoints"):
        trainer_of(tmp_path / "run")


def test_half_a_checkpoint_of_fluids_is_nothing_to_resume_from(tmp_path):
    (tmp_path / "run/checkpoint_0/__model__").mkdir(parents=True)
    (tmp_path / "run/checkpoint_0/__model__/fc_0.w_0").write_bytes(b"half")

    trainer = trainer_of(tmp_path / "run")
    assert trainer.checkpoint_cfg.load_serial is None
    assert steps_of(trainer)[0] == (0, 0)
    assert fluid.io.get_latest_checkpoint_serial(tmp_path / "run") > 0


def test_test_averages_over_batches_and_changes_nothing(tmp_path):
    trainer = fluid.Trainer(train_func, optimizer_func, place=fluid.CPUPlace())
    random.seed(1)
    means = trainer.test(reader, ["x", "y"])
    random.seed(1)
    again = trainer.test(reader, {"x": 0, "y": 1})

    assert means == again
    assert len(means) == 2
    with pytest.raises(ValueError, match="no batch"):
        trainer.test(list, ["x", "y"])


def test_saved_parameters_predict_in_an_inferencer_and_begin_another_training(tmp_path):
    trainer = fluid.Trainer(train_func, optimizer_func, place=fluid.CPUPlace())
    steps_of(trainer)
    trainer.save_params(tmp_path / "params")
    trainer.save_inference_model(tmp_path / "model", ["x"], [1])
    x = np.stack([row for row, _ in samples()])

    inferencer = fluid.Inferencer(prediction_only, str(tmp_path / "params"), fluid.CPUPlace())
    (out,) = inferencer.infer({"x": x})
    with pytest.raises(ValueError, match="map"):
        inferencer.infer([x])
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(tmp_path / "model", exe)
        np.testing.assert_array_equal(exe.run(program, feed={feeds[0]: x}, fetch_list=fetches)[0], out)
    other = fluid.Trainer(train_func, optimizer_func, param_path=tmp_path / "params", place=fluid.CPUPlace())
    for name in ("fc_0.w_0", "fc_1.b_0_velocity_0"):
        np.testing.assert_array_equal(trainer.scope.find_var(name).held, other.scope.find_var(name).held)


def prediction_only():
    x = fluid.layers.data("x", [6])
    hidden = fluid.layers.dropout(fluid.layers.fc(x, 16, act="relu"), 0.5)
    return fluid.layers.fc(hidden, 3, act="softmax")


def test_parallel_training_uses_every_device(tmp_path):
    trainer = fluid.Trainer(train_func, optimizer_func, place=fluid.CPUPlace(), parallel=True)

    assert len(steps_of(trainer)) == STEPS


def test_arguments_that_cannot_be_are_refused(tmp_path, monkeypatch):
    for name in ("epoch_interval", "step_interval", "max_num_checkpoints"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number from 1"):
            fluid.CheckpointConfig(tmp_path, **{name: 0})
    with pytest.raises(TypeError, match="CheckpointConfig"):
        fluid.Trainer(train_func, optimizer_func, checkpoint_config=str(tmp_path))
    with pytest.raises(TypeError, match="optimizer"):
        fluid.Trainer(train_func, lambda: 0.1)
    with pytest.raises(TypeError, match="place"):
        fluid.Trainer(train_func, optimizer_func, place="cpu")
    with pytest.raises(CheckpointNotFoundError):
        fluid.Trainer(train_func, optimizer_func, param_path=tmp_path / "nowhere", place=fluid.CPUPlace())
    trainer = fluid.Trainer(train_func, optimizer_func, place=fluid.CPUPlace())
    with pytest.raises(ValueError, match="reader"):
        trainer.train(1, print)
    with pytest.raises(ValueError, match="feed_order"):
        trainer.test(reader, {"x": 0, "y": 2})
    monkeypatch.setenv("PADDLE_TRAINING_ROLE", "TRAINER")
    with pytest.raises(NotImplementedError, match="several machines"):
        fluid.Trainer(train_func, optimizer_func)


def test_checkpoint_without_a_position_is_refused(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    with fluid.scope_guard(trainer.scope):
        fluid.io.save_checkpoint(trainer.exe, tmp_path / "run", 0, {"epoch": 1}, trainer.train_program)

    with pytest.raises(CheckpointNotFoundError, match="epoch_id and step_id"):
        trainer_of(tmp_path / "run")
