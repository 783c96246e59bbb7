"""Folders of torch.distributed.checkpoint."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from holdfast.interop import dcp  # noqa: E402

METADATA = "torch.distributed.checkpoint.metadata"

# Each rank has its rows of a DTensor; `spread` of 5 rows is uneven, `same` is on both.
TWO_RANKS = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[3]), world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.arange(20.0).reshape(5, 4)
state = {
    "spread": distribute_tensor(whole, mesh, [Shard(0)]),
    "columns": distribute_tensor(whole.bfloat16(), mesh, [Shard(1)]),
    "few": distribute_tensor(torch.ones(1, 3), mesh, [Shard(0)]),
    "same": distribute_tensor(whole[1], mesh, [Replicate()]),
    "plain": torch.tensor(7),
    "epoch": 4,
}
dcp.save(state, checkpoint_id=sys.argv[1])
dist.destroy_process_group()
"""


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("executed",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden folder."""
    return Path(shutil.copytree(HERE / "dcp", tmp_path / "dcp"))


def test_the_golden_folder_is_read_bit_for_bit() -> None:
    wanted = {f"model.{n}": a for n, a in {**model(), **narrow()}.items()}
    wanted["optimizer.state.0.step"] = np.array(4, np.float32)

    held = dcp.read(HERE / "dcp")

    assert recognise(HERE / "dcp") == "dcp"
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[n], a) for n, a in wanted.items())
    assert held.others == {"optimizer.state.0.step"}
    assert held.values == {"optimizer.param_groups": [{"lr": 0.1, "params": [0]}], "epoch": 3}
    assert held.left_out == []


def test_pieces_of_two_ranks_are_put_together(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", TWO_RANKS, str(tmp_path / "saved"), str(tmp_path / "meet")]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    whole = np.arange(20, dtype=np.float32).reshape(5, 4)

    found = dcp.read(tmp_path / "saved").arrays

    assert same(found["spread"], whole)
    assert same(found["columns"], whole.astype(narrow()["bf16"].dtype))
    assert same(found["few"], np.ones((1, 3), np.float32))
    assert same(found["same"], whole[1])
    assert same(found["plain"], np.array(7))
    assert found.keys() == {"spread", "columns", "few", "same", "plain"}
    assert dcp.read(tmp_path / "saved").values == {"epoch": 4}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_empty_and_strided_tensors(tmp_path: Path) -> None:
    import torch.distributed.checkpoint

    base = torch.arange(12.0).reshape(3, 4)
    state = {"empty": torch.zeros(0, 3, dtype=torch.float16), "turned": base.t(), "part": base[1:, ::2]}
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "saved")

    found = dcp.read(tmp_path / "saved").arrays

    assert all(same(found[n], t.contiguous().numpy()) for n, t in state.items())


# Numbers of parameters, names of DCP's own, and names of DCP's own that are flattened; sharded by FSDP and whole.
TRAINED = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
where, rank, world = sys.argv[1], int(sys.argv[3]), int(sys.argv[4])
if world > 1:
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=world)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 3))
if world > 1:
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
for _ in range(2):
    optimizer.zero_grad()
    net(torch.arange(20.0).reshape(4, 5)).square().sum().backward()
    optimizer.step()
model, state = get_state_dict(net, optimizer)
dcp.save({"model": model, "optim": state, "args": {"lr": 0.01, "dims": (5, 7)}}, checkpoint_id=where + "/named")
_, state = get_state_dict(net, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
dcp.save({"model": model, "optim": state}, checkpoint_id=where + "/flat")
dcp.save({"model": net.state_dict(), "optim": optimizer.state_dict()}, checkpoint_id=where + "/counted")
_, whole = get_state_dict(net, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
if rank == 0:
    torch.save(whole, where + "/whole.pt")
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [1, 2])
def test_optimizers_of_sharded_training_have_the_names_that_dcp_gives_them(world: int, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", TRAINED, str(tmp_path), str(tmp_path / "meet")]
    ranks = [subprocess.Popen([*command, str(rank), str(world)]) for rank in range(world)]
    assert [rank.wait(200) for rank in ranks] == [0] * world
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)["state"]
    parameters = [f"{layer}.{name}" for layer in (0, 1, 2) for name in ("weight", "bias")]

    held = {kind: dcp.read(tmp_path / kind) for kind in ("named", "flat", "counted")}

    for kind, names in (("named", [parameters]), ("flat", [[name] for name in parameters]), ("counted", None)):
        (optimizer,) = held[kind].optimizers
        assert (optimizer.name, optimizer.count, optimizer.names) == ("optim", 6, names)
        assert held[kind].left_out == []
        for number, name in enumerate(parameters):
            slots = optimizer.state[number if kind == "counted" else name]
            assert slots.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(same(slots[slot], whole[name][slot].numpy()) for slot in slots), name
    assert held["named"].values["args"] == {"lr": 0.01, "dims": (5, 7)}
    assert held["named"].others == {f"optim.state.{n}.{slot}" for n in parameters for slot in whole[n]}


def test_values_that_would_execute_something_are_refused_and_objects_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    def point_at(value: object) -> None:
        file = folder / "__0_0.distcp"
        torch.save(value, folder / "other")
        start, data = file.stat().st_size, (folder / "other").read_bytes()
        file.write_bytes(file.read_bytes() + data)

        def point(held: object) -> None:
            for index, place in held.storage_data.items():
                if index.fqn == "epoch":
                    place.offset, place.length = start, len(data)

        changed(folder, point)

    point_at(Path("x"))
    assert dcp.read(folder).left_out == ["value epoch: pathlib.PosixPath is no plain value"]
    point_at(Evil())
    with pytest.raises(FormatError, match=r"the value 'epoch', data\.pkl: it refers to posix\.mkdir"):
        dcp.read(folder)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "paths",
    [
        {"epoch": ("model", "enc.weight")},
        {"epoch": ("model", "enc.weight", "x")},
        {"epoch": ()},
        {"epoch": "x"},
        {"epoch": (1.5,)},
    ],
)
def test_metadata_that_put_two_parts_in_one_place_are_refused(paths: dict, folder: Path) -> None:
    changed(folder, lambda held: held.planner_data.update(paths))

    with pytest.raises(FormatError, match=r"\.metadata"):
        dcp.read(folder)


def test_metadata_that_would_execute_something_is_refused_and_nothing_is_executed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / ".metadata").write_bytes(pickle.dumps({"a": Evil()}))

    with pytest.raises(FormatError, match=r"refers to posix\.mkdir.*nothing of it was executed"):
        dcp.read(folder)
    assert not Path("executed").exists()


def test_a_save_that_never_finished_and_missing_or_short_data(folder: Path) -> None:
    data = (folder / "__0_0.distcp").read_bytes()
    (folder / "__0_0.distcp").write_bytes(data[:-1])
    with pytest.raises(FormatError, match=r"__0_0\.distcp has .* bytes, its pieces reach to"):
        dcp.read(folder)
    os.rename(folder / "__0_0.distcp", folder / "__1_0.distcp")
    with pytest.raises(FormatError, match=r"__0_0\.distcp is not there"):
        dcp.read(folder)
    os.remove(folder / ".metadata")
    assert recognise(folder) == "dcp"
    with pytest.raises(CheckpointNotFoundError, match="never completed"):
        dcp.read(folder)


def test_metadata_that_is_cut_off_or_flipped_never_gives_other_values(folder: Path) -> None:
    data = (folder / ".metadata").read_bytes()
    wanted = dcp.read(folder).arrays
    for size in range(0, len(data), 331):
        (folder / ".metadata").write_bytes(data[:size])
        with pytest.raises(FormatError):
            dcp.read(folder)
    for old, new in ((b"__0_0.distcp", b"../_0.distcp"), (b"__0_0.distcp", b"__0_1.distcp"), (b"Size", b"Sise")):
        (folder / ".metadata").write_bytes(data.replace(old, new))
        with pytest.raises(FormatError):
            dcp.read(folder)
    (folder / ".metadata").write_bytes(data)
    assert dcp.read(folder).arrays.keys() == wanted.keys()


def changed(folder: Path, change: object) -> None:
    """Change the metadata through DCP's own classes."""
    path = folder / ".metadata"
    held = pickle.loads(path.read_bytes())
    change(held)
    path.write_bytes(pickle.dumps(held))


def chunk(held: object, offsets: tuple, sizes: tuple) -> object:
    kind = type(held.state_dict_metadata["model.enc.weight"].chunks[0])
    return kind(offsets=torch.Size(offsets), sizes=torch.Size(sizes))


def test_pieces_that_would_execute_something_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    file = folder / "__0_0.distcp"
    start = file.stat().st_size
    torch.save(Evil(), folder / "evil")
    evil = (folder / "evil").read_bytes()
    file.write_bytes(file.read_bytes() + evil)

    def point(held: object) -> None:
        for index, place in held.storage_data.items():
            if index.fqn == "model.enc.weight":
                place.offset, place.length = start, len(evil)

    changed(folder, point)

    with pytest.raises(FormatError, match=r"refers to posix\.mkdir\. .*nothing of it was executed"):
        dcp.read(folder)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.state_dict_metadata["model.enc.weight"].chunks.clear(), "do not make up"),
        (lambda m: m.state_dict_metadata["model.enc.weight"].chunks.append(chunk(m, (0, 0), (2, 3))), "do not make up"),
        (
            lambda m: m.state_dict_metadata["model.enc.weight"].chunks.__setitem__(0, chunk(m, (1, 0), (2, 3))),
            "do not make up",
        ),
        (lambda m: m.storage_data.clear(), "does not say where"),
        (lambda m: [setattr(p, "offset", 0) for p in m.storage_data.values()], r"is not \(|piece of"),
        (lambda m: [setattr(p, "length", 1 << 40) for p in m.storage_data.values()], "its pieces reach to"),
        (
            lambda m: [setattr(p, "transform_descriptors", ["zstd"]) for p in m.storage_data.values()],
            "compressed or encrypted",
        ),
        (
            lambda m: [setattr(p, "relative_path", "/etc/passwd") for p in m.storage_data.values()],
            "no name of a data file",
        ),
    ],
)
def test_pieces_that_do_not_make_up_the_tensors_are_refused(change: object, said: str, folder: Path) -> None:
    changed(folder, change)

    with pytest.raises(FormatError, match=said):
        dcp.read(folder)


def test_a_shape_that_was_made_up_takes_no_memory(folder: Path) -> None:
    def grow(held: object) -> None:
        tensor = held.state_dict_metadata["model.enc.weight"]
        tensor.size = torch.Size((1 << 20, 1 << 20))
        tensor.chunks[:] = [chunk(held, (0, 0), (1, 1 << 20)), chunk(held, (1, 0), ((1 << 20) - 1, 1 << 20))]

    changed(folder, grow)

    with pytest.raises(FormatError, match=r"is shorter than|does not say where"):
        dcp.read(folder)
