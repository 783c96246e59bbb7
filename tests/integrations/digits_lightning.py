"""A training program: Lightning on the digits. Usage: digits_lightning.py RUN [--within-epochs] [--max-steps] [--end-by-signal]."""

import json
import os
import random
import signal
import sys
import warnings

warnings.filterwarnings("ignore")

import lightning.pytorch as pl  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.callbacks import EarlyStopping  # noqa: E402
from resuming import digest, images  # noqa: E402
from torch import nn  # noqa: E402

import holdfast  # noqa: E402
from holdfast.integrations.lightning import HoldfastCheckpoint  # noqa: E402

EPOCHS, BATCH, BATCHES = 4, 64, 8
run, within = sys.argv[1], "--within-epochs" in sys.argv
torch.set_num_threads(1)


class Net(pl.LightningModule):
    """A norm with moving statistics, dropout, noise from NumPy and Python, a schedule by step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
        )

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        x, y = batch
        noise = torch.from_numpy(np.random.normal(0, 0.01, x.shape).astype(np.float32)) * random.random()
        loss = nn.functional.cross_entropy(self.layers(x + noise), y)
        record["losses"].append(loss.item())
        return loss

    def validation_step(self, batch: list, index: int) -> None:
        self.log("loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * BATCHES + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, *_: object) -> None:
        print(f"did {self.trainer.global_step}", flush=True)
        if "--end-by-signal" in sys.argv and self.trainer.global_step == BATCHES + 2:
            os.kill(os.getpid(), signal.SIGTERM)


class Resumable:
    """A data loader that can go on within an epoch, with a generator of its own."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.generator, self.at, self.order = torch.Generator().manual_seed(3), 0, None

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> "Resumable":
        torch.empty((), dtype=torch.int64).random_()  # as PyTorch's own, which draws a seed for its workers
        if self.order is None or self.at >= BATCHES:
            self.order, self.at = torch.randperm(len(self.x), generator=self.generator), 0
        return self

    def __next__(self) -> list:
        if self.at >= BATCHES:
            raise StopIteration
        rows = self.order[self.at * BATCH : (self.at + 1) * BATCH]
        self.at += 1
        return [self.x[rows], self.y[rows]]

    def state_dict(self) -> dict:
        return {"at": self.at, "order": self.order, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self.at, self.order = state["at"], state["order"]
        self.generator.set_state(state["generator"])


pl.seed_everything(7, verbose=False)
x, y = map(torch.from_numpy, images())
model = Net()
record: dict = {"losses": []}
if os.path.isdir(run):  # another one in a process that goes on: what counts comes from the checkpoint
    pl.seed_everything(os.getpid(), verbose=False)
    model = Net()
data = torch.utils.data.TensorDataset(x[: BATCH * BATCHES], y[: BATCH * BATCHES])
loader = Resumable(*data.tensors) if within else torch.utils.data.DataLoader(data, BATCH, shuffle=True)
manager = holdfast.CheckpointManager(run, max_to_keep=2, best=("loss", "min"), save_interval_steps=3 if within else 1)
if "--end-by-signal" in sys.argv:
    manager.save_on_signal(signal.SIGTERM)
stopping = EarlyStopping("loss", patience=50)
trainer = pl.Trainer(
    max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
    max_steps=EPOCHS * BATCHES if "--max-steps" in sys.argv else -1,
    callbacks=[stopping, HoldfastCheckpoint(manager, when="step" if within else "epoch", extra=record)],
)  # fmt: skip
trainer.fit(model, loader, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[-128:], y[-128:]), 64))

optimizer = trainer.optimizers[0]
moments = {
    f"{name} {slot}": value.numpy()
    for name, parameter in model.named_parameters()
    for slot, value in optimizer.state[parameter].items()
}
print("steps:", trainer.global_step, trainer.current_epoch)
print("weights:", digest({name: t.numpy() for name, t in model.state_dict().items()}))
print("moments:", digest(moments))
print("rate:", optimizer.param_groups[0]["lr"])
print("stopping:", float(stopping.best_score), stopping.wait_count)
print("random:", random.random(), np.random.random(), torch.rand(2).tolist())
print("losses:", len(record["losses"]), json.dumps(record["losses"]))
