"""Write the golden files, by the libraries themselves: `python -m interop.golden.make` in a new folder, with tests on the path.

They were made with PyTorch 2.13.0, safetensors 0.8.0, transformers' layout of an index, huggingface_hub 2.4.0, NumPy 2.4.6 and
orbax-checkpoint 0.12.8. What a newer version writes belongs beside them, not in their place.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from interop.golden import model, narrow


def main() -> None:
    import orbax.checkpoint as ocp
    import safetensors.torch
    import torch
    import torch.distributed.checkpoint as dcp
    from huggingface_hub import save_torch_state_dict

    def tensor(array: np.ndarray) -> torch.Tensor:
        kinds = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
        if array.dtype.name not in kinds:
            return torch.from_numpy(array.copy())
        return torch.from_numpy(array.reshape(-1).view(np.uint8).copy()).view(kinds[array.dtype.name]).view(array.shape)

    tensors = {name: tensor(array) for name, array in {**model(), **narrow()}.items()}
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    optimizer = {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    whole = {
        "model": {
            **tensors,
            "tied": tensors["enc.weight"],
            "turned": base.t(),
            "row": base[1],
            "many": base[0, :1].expand(3),
        },
        "optimizer": optimizer,
        "epoch": 3,
    }
    torch.save(whole, "new.pt")
    for name in ("f8", "f8b"):  # the old way to save has no name for these
        del whole["model"][name]
    torch.save(whole, "legacy.pt", _use_new_zipfile_serialization=False)
    dcp.save({"model": dict(tensors), "optimizer": optimizer, "epoch": 3}, checkpoint_id="dcp")
    training(torch)
    os.mkdir("bins")
    save_torch_state_dict(tensors, "bins", safe_serialization=False, max_shard_size=40)
    np.savez("plain.npz", **model())
    np.savez_compressed("packed.npz", **model(), bf16=narrow()["bf16"])
    os.mkdir("sharded")
    parts = [
        {n: tensors[n] for n in names} for names in (["enc.weight", "mask", "bf16"], ["enc.bias", "count", "f8", "f8b"])
    ]
    table = {}
    for number, part in enumerate(parts, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file(part, f"sharded/{file}", metadata={"format": "pt"})
        table |= dict.fromkeys(part, file)
    with open("sharded/model.safetensors.index.json", "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": table}, file)
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = {"params": {**model(), **narrow()}, "opt_state": [{"mu": np.ones(2)}], "note": "text"}
        checkpointer.save(os.path.abspath("orbax"), tree)
    Path("orbax/commit_success.txt").write_text("Checkpoint commit was successful to orbax")  # no path of this machine


def training(torch: Any) -> None:
    """What a training script saves, with names in its optimizer, numbers of NumPy, a Namespace and a path."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(net.named_parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4, 4])
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.arange(12.0).reshape(4, 3)).square().sum().backward()
        optimizer.step()
        schedule.step()
    whole = {
        "model": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": 3,
        "best": np.float64(0.25), "args": Namespace(lr=0.1, dims=(3, 2), out=Path("runs")),
        "rng": np.random.RandomState(1).get_state(),
    }  # fmt: skip
    torch.save(whole, "training.pt")


if __name__ == "__main__":
    main()
