"""A training program: PyTorch on the digits, with all that a run remembers. Usage: digits_torch.py RUN [--layers-turned]."""

import sys

import torch
from resuming import EVERY, STEPS, digest, images
from torch import nn

import holdfast

run, turned = sys.argv[1], "--layers-turned" in sys.argv
torch.manual_seed(len(sys.argv))  # another in each kind of process: what counts comes from the checkpoint
torch.set_num_threads(1)


class Net(nn.Module):
    """Two layers of one shape, a norm with moving statistics, dropout, a tied output."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(64, 32)
        for name in ("second", "first") if turned else ("first", "second"):
            setattr(self, name, nn.Linear(32, 32))
        self.norm, self.drop = nn.BatchNorm1d(32), nn.Dropout(0.2)
        self.outward = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.inward(x)))
        return self.outward(self.drop(torch.tanh(self.second(torch.tanh(self.first(x))))))


if not turned:
    torch.manual_seed(0)
model = Net()
ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS + 1)
order = torch.Generator().manual_seed(1)
state = {
    "model": model,
    "ema": ema,
    "optimizer": optimizer,
    "scheduler": scheduler,
    "order": order,
    "random": holdfast.global_random(),
    "losses": [],
}
manager = holdfast.CheckpointManager(run, max_to_keep=2, save_interval_steps=EVERY)
try:
    first = manager.restore(state).step + 1
except holdfast.CheckpointNotFoundError:
    first = 1
inputs, labels = map(torch.from_numpy, images())
for step in range(first, STEPS + 1):
    batch = torch.randint(len(inputs), (64,), generator=order)
    loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    ema.update_parameters(model)
    state["losses"].append(loss.item())
    manager.save(state, step)
    print(f"did {step}", flush=True)

moments = {
    f"{name} {slot}": value.numpy()
    for name, parameter in model.named_parameters()
    for slot, value in optimizer.state[parameter].items()
}
print("began:", first)
print("weights:", digest({name: t.numpy() for name, t in model.state_dict().items()}))
print("averages:", digest({name: t.numpy() for name, t in ema.state_dict().items()}))
print("moments:", digest(moments))
print("rates:", scheduler.get_last_lr(), optimizer.param_groups[0]["lr"])
print("random:", torch.rand(4).tolist(), torch.rand(4, generator=order).tolist())
print("losses:", state["losses"])
