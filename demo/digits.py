"""Train a convolutional network on handwritten digits, in a way that survives any crash.

    python demo/digits.py runs/digits

Run it again after a crash and it goes on from the newest complete checkpoint. The calls are those of the PaddlePaddle
Fluid guide; digits_numpy.py beside it does the same with plain NumPy arrays.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import holdfast.fluid as fluid

EPOCHS, BATCH = 12, 32


def build() -> tuple[fluid.Program, fluid.Program, fluid.Variable, fluid.Variable]:
    """The training program, the startup program, and in the former the probabilities (rows, 10) and the loss."""
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 1
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        image = fluid.layers.data("image", [1, 8, 8])
        label = fluid.layers.data("label", [1], dtype="int64")
        hidden = fluid.layers.conv2d(image, num_filters=32, filter_size=3, padding=1, bias_attr=False)
        hidden = fluid.layers.batch_norm(hidden, act="relu")
        hidden = fluid.layers.pool2d(hidden, pool_size=2, pool_stride=2, pool_type="max")
        hidden = fluid.layers.dropout(fluid.layers.fc(hidden, 256, act="relu"), 0.3)
        prediction = fluid.layers.fc(hidden, 10, act="softmax")
        loss = fluid.layers.mean(fluid.layers.cross_entropy(prediction, label))
        rate = fluid.layers.exponential_decay(0.002, decay_steps=44, decay_rate=0.85)
        fluid.optimizer.Adam(rate).minimize(loss)
    return main, startup, prediction, loss


def train(folder: Path) -> None:
    """Train until the last epoch, with a checkpoint after each; go on from the newest one if there is any."""
    main, startup, prediction, loss = build()
    exe, checkpoints = fluid.Executor(fluid.CPUPlace()), str(folder / "checkpoints")
    exe.run(startup)
    serial, first = fluid.io.get_latest_checkpoint_serial(checkpoints), 0
    if serial >= 0:
        fluid.io.load_checkpoint(exe, checkpoints, serial, main)
        (done,) = fluid.io.load_trainer_args(checkpoints, serial, 0, ["epoch_id"])
        print(f"going on from checkpoint_{serial}, after epoch {done}")
        first = done + 1
    else:
        print("starting with epoch 0")

    images, labels, _, _ = digits()
    for epoch in range(first, EPOCHS):
        # The order depends on the epoch alone, so a resumed epoch has the same.
        order = np.random.default_rng(epoch).permutation(len(labels))
        losses = [
            exe.run(main, feed={"image": images[rows], "label": labels[rows]}, fetch_list=[loss])[0].item()
            for rows in np.array_split(order, len(order) // BATCH)
        ]
        arguments = {"epoch_id": epoch, "losses": losses}
        fluid.io.save_checkpoint(exe, checkpoints, 0, arguments, main, max_num_checkpoints=3)

    fluid.io.save_inference_model(str(folder / "model"), ["image"], [prediction], exe, main)


def predict(folder: Path, images: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The most likely digit for each image, by the model that `train` has left."""
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, targets = fluid.io.load_inference_model(str(folder / "model"), exe)
        (scores,) = exe.run(program, feed={feeds[0]: images}, fetch_list=targets)
    labels: npt.NDArray[np.intp] = scores.argmax(axis=1)
    return labels


def digits() -> tuple[npt.NDArray[Any], ...]:
    """Images (rows, 1, 8, 8) float32 in [0, 1] and labels (rows, 1) to learn from; then images and labels to test on."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order] / 16).astype(np.float32)[:, None]
    labels, learn = data.target[order].reshape(-1, 1).astype(np.int64), len(images) * 4 // 5
    return images[:learn], labels[:learn], images[learn:], labels[learn:]


if __name__ == "__main__":
    warnings.simplefilter("error", fluid.HazardWarning)
    train(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits"))
