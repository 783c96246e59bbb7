"""A training program: Keras on the digits, on the backend of KERAS_BACKEND. Usage: digits_keras.py RUN [--end-by-signal]."""

import os
import random
import signal
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from resuming import digest, images

import holdfast
from holdfast.integrations.keras import HoldfastBackup

run = sys.argv[1]
EPOCHS, BATCHES = 5, 16
keras.utils.set_random_seed(os.getpid() if os.path.isdir(run) else 5)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(10),
    ]
)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * BATCHES)),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)


class Telling(keras.callbacks.Callback):
    """Says what was done, and what it looked like."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if "--end-by-signal" in sys.argv and self.epoch == 2 and batch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch
        print(f"did {epoch}", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        record["logs"].append({name: float(value) for name, value in logs.items()})


x, y = images()
rows, record = 64 * BATCHES, {"logs": []}
manager = holdfast.CheckpointManager(run, max_to_keep=2, best=("val_loss", "min"))
if "--end-by-signal" in sys.argv:
    manager.save_on_signal(signal.SIGTERM)
model.fit(
    x[:rows], y[:rows], batch_size=64, epochs=EPOCHS, verbose=0, validation_data=(x[rows:], y[rows:]),
    callbacks=[Telling(), HoldfastBackup(manager, extra=record)],
)  # fmt: skip

print("steps:", int(model.optimizer.iterations))
print("weights:", digest({v.path: keras.ops.convert_to_numpy(v) for v in model.variables}))
print("moments:", digest({v.path: keras.ops.convert_to_numpy(v) for v in model.optimizer.variables}))
print("random:", random.random(), np.random.random())
print("logs:", len(record["logs"]), record["logs"])
