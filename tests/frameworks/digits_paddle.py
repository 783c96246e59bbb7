"""A training program: Paddle on the digits. Usage: digits_paddle.py RUN."""

import sys

import numpy as np
import paddle
from resuming import EVERY, STEPS, digest, images

import holdfast

paddle.seed(0)
model = paddle.nn.Sequential(
    paddle.nn.Linear(64, 32),
    paddle.nn.BatchNorm1D(32),
    paddle.nn.ReLU(),
    paddle.nn.Dropout(0.2),
    paddle.nn.Linear(32, 32),
    paddle.nn.Tanh(),
    paddle.nn.Linear(32, 10),
)
scheduler = paddle.optimizer.lr.LinearWarmup(paddle.optimizer.lr.CosineAnnealingDecay(1e-2, STEPS), 5, 0.0, 1e-2)
optimizer = paddle.optimizer.AdamW(scheduler, parameters=model.parameters())
state = {
    "model": model,
    "optimizer": optimizer,
    "scheduler": scheduler,
    "order": np.random.default_rng(2),
    "random": holdfast.global_random(),
    "losses": [],
}
manager = holdfast.CheckpointManager(sys.argv[1], max_to_keep=2, save_interval_steps=EVERY)
try:
    first = manager.restore(state).step + 1
except holdfast.CheckpointNotFoundError:
    first = 1
inputs, labels = images()
for step in range(first, STEPS + 1):
    batch = state["order"].integers(len(inputs), size=64)
    loss = paddle.nn.functional.cross_entropy(model(paddle.to_tensor(inputs[batch])), paddle.to_tensor(labels[batch]))
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    scheduler.step()
    state["losses"].append(loss.item())
    manager.save(state, step)
    print(f"did {step}", flush=True)

moments = {
    f"{name} {slot}": held[parameter.name].numpy()
    for name, parameter in model.named_parameters()
    for slot, held in optimizer._accumulators.items()
    if parameter.name in held
}
print("began:", first)
print("weights:", digest({name: tensor.numpy() for name, tensor in model.state_dict().items()}))
print("moments:", len(moments), digest(moments))
print("rate:", optimizer.get_lr(), scheduler.last_epoch)
print("random:", paddle.randn([4]).tolist(), state["order"].random(4).tolist())
print("losses:", state["losses"])
