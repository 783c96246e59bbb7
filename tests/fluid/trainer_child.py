"""Child of test_trainer: a real training with the Trainer, that says each loss; a kill leaves what it has saved.

    python trainer_child.py FOLDER EPOCHS KEPT

A line is `EPOCH STEP LOSS`, the loss as the hexadecimal text of its bits; `resumed SERIAL EPOCH STEP` comes first after a
resume.
"""

import os
import random
import sys

import numpy as np

import holdfast.fluid as fluid


def train_func():
    x = fluid.layers.data("x", [6])
    y = fluid.layers.data("y", [1], dtype="int64")
    hidden = fluid.layers.dropout(fluid.layers.fc(x, 16, act="relu"), 0.5)
    prediction = fluid.layers.fc(hidden, 3, act="softmax")
    return [fluid.layers.mean(fluid.layers.cross_entropy(prediction, y)), prediction]


def optimizer_func():
    return fluid.optimizer.Momentum(0.1, momentum=0.9)


def samples():
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(6).astype(np.float32), np.array([i % 3])) for i in range(28)]


def reader():
    """Shuffled anew in every epoch, by the global generator as `paddle.reader.shuffle` does it."""
    rows = samples()
    random.shuffle(rows)
    for at in range(0, len(rows), 4):
        yield rows[at : at + 4]


def trainer_of(folder, **config):
    options = {"max_num_checkpoints": 2, "step_interval": 3, **config}
    return fluid.Trainer(
        train_func,
        optimizer_func,
        place=fluid.CPUPlace(),
        checkpoint_config=fluid.CheckpointConfig(folder, **options),
    )


def main(folder, epochs, kept):
    random.seed(11)
    trainer = trainer_of(folder, max_num_checkpoints=kept)
    config = trainer.checkpoint_cfg
    if config.load_serial is not None:
        os.write(1, f"resumed {config.load_serial} {config.epoch_id} {config.step_id}\n".encode())

    def handler(event):
        if isinstance(event, fluid.EndStepEvent):
            os.write(1, f"{event.epoch} {event.step} {event.metrics[0].tobytes().hex()}\n".encode())

    trainer.train(epochs, handler, reader, ["x", "y"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
