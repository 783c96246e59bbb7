"""Tensors on an accelerator: what is saved is the state at the call, what is loaded goes into the tensors' own memory.

They run on the accelerator that PyTorch finds. Without one, HOLDFAST_SIMULATED_DEVICE=1 has them build one (`simulated_device.cpp`:
g++ and ninja, a minute), whose streams, events, allocator and page-locked memory show what a real one would. The tests that take
`simulator` need its controls.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from frameworks import simulated_device
from frameworks.test_torch_tensors import TYPES, anything, bits
from holdfast import CheckpointManager, CorruptCheckpointError, MemoryStore, MismatchError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*sim.*:UserWarning")  # of operators that it leaves to the processor


@pytest.fixture(scope="session")
def controls() -> Any:
    """Of the simulated accelerator; None if there is a real one."""
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is None:
        pytest.skip("this PyTorch has no torch.accelerator: tensors of devices are fetched one by one")
    if accelerator.current_accelerator(check_available=True) is not None:
        return None
    if not simulated_device.is_wanted() or not all(map(shutil.which, ("g++", "ninja"))):
        pytest.skip("no accelerator here; HOLDFAST_SIMULATED_DEVICE=1 simulates one (it needs g++, ninja and a minute)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulated_device.load()


@pytest.fixture
def device(controls: Any) -> Iterator[Any]:
    """The accelerator."""
    if controls is not None:
        controls.pause(0.0005)
    yield torch.device(torch.accelerator.current_accelerator().type, 0)
    if controls is not None:
        controls.pause(0)
        controls.allow_pinning(True)
        controls.limit_memory(None)


@pytest.fixture
def simulator(controls: Any, device: Any) -> Any:
    """What only the simulated one has."""
    if controls is None:
        pytest.skip("this needs the controls of the simulated accelerator")
    return controls


def saved_in(folder: Any, state: Any, way: str) -> None:
    """Save in one of the ways there are."""
    if way == "save_params":
        holdfast.save_params(state, folder)
        return
    with CheckpointManager(folder) as manager:
        manager.save(state, 0, wait=way == "wait", snapshot="stream" if way == "stream" else "copy").result()


WAYS = ["wait", "copy", "stream", "save_params"]


def layouts(dtype: Any, device: str | Any, *, blank: bool = False) -> dict[str, Any]:
    """Tensors of every layout, each in memory of its own."""

    def whole() -> Any:
        made = anything(dtype, 3000)
        return (torch.zeros_like(made) if blank else made).to(device)

    made = {
        "flat": whole(),
        "scalar": whole()[3],
        "empty": whole()[:0],
        "offset": whole()[7:1234],
        "turned": whole().reshape(50, 60).T,
        "stepped": whole().reshape(30, 100)[::3, 5::7],
        "cube": whole().reshape(10, 15, 20).permute(2, 0, 1),
    }
    if dtype.is_complex:
        made |= {"conjugated": whole().conj(), "negated": whole().conj().imag}
    return made if blank else made | {"expanded": whole()[:20].expand(5, 20)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_and_layout_comes_back_bit_for_bit_into_the_same_memory(dtype: Any, way: str, device: Any) -> None:
    run = MemoryStore().at("run")
    saved_in(run, layouts(dtype, device), way)
    target = layouts(dtype, device, blank=True)
    places = {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in target.items()}

    load = holdfast.load_params if way == "save_params" else holdfast.load_checkpoint
    load(target, run, strict="subset")

    expected = {name: bits(tensor.resolve_conj().resolve_neg()) for name, tensor in layouts(dtype, "cpu").items()}
    for name, tensor in target.items():
        assert bits(tensor.cpu().resolve_conj().resolve_neg()) == expected[name], name
    assert {name: (tensor.data_ptr(), tensor.stride()) for name, tensor in target.items()} == places
    with holdfast.open(run) as checkpoint:
        assert np.ascontiguousarray(checkpoint["expanded"]).tobytes() == expected["expanded"]


def streams_of(device: Any) -> list[Any]:
    return [torch.accelerator.current_stream(device), torch.Stream(device=device), torch.Stream(device=device)]


@pytest.mark.parametrize("snapshot", ["copy", "stream"])
def test_what_is_saved_is_the_state_at_the_call_whatever_any_stream_does_next(
    snapshot: Any, device: Any, tmp_path: Path
) -> None:
    large, small = torch.zeros(3 << 20, device=device), [torch.zeros(100 + i, device=device) for i in range(30)]
    turned = torch.zeros(1000, 700, device=device).T
    state = {"large": large, "small": small, "turned": turned}
    every = [large, turned, *small]
    streams = streams_of(device)

    with CheckpointManager(tmp_path, max_to_keep=None) as manager:
        for step in range(1, 13):
            for tensor in every:
                tensor.add_(1)  # under way, perhaps, when the save begins
            handle = manager.save(state, step, wait=False, snapshot=snapshot)
            with streams[step % 3]:
                for tensor in every:
                    tensor.mul_(-3)
            torch.accelerator.synchronize(device)
            handle.result()
            for tensor in every:
                tensor.fill_(step)

    for number in range(12):
        with holdfast.open(tmp_path / f"checkpoint_{number}") as checkpoint:
            for name in checkpoint:
                assert np.array_equal(np.unique(checkpoint[name]), [number + 1]), (number, name)


def test_a_hundred_steps_under_load_never_reach_what_was_saved_before_them(device: Any) -> None:
    tensors = [torch.zeros(1 + 977 * i, device=device) for i in range(12)]
    streams = streams_of(device)
    run = MemoryStore().at("run")

    with CheckpointManager(run, max_to_keep=2) as manager:
        for step in range(100):
            manager.save({"x": tensors}, step, wait=False)
            with streams[step % 3]:
                for tensor in tensors:
                    tensor.fill_(step + 1)
            if step % 10 == 9:
                manager.wait_until_finished()
                with holdfast.open(run) as checkpoint:
                    assert {float(v) for name in checkpoint for v in np.unique(checkpoint[name])} == {float(step)}
            torch.accelerator.synchronize(device)


@pytest.mark.parametrize("way", WAYS)
def test_step_in_another_stream_that_began_before_the_save_is_in_it_as_a_whole(
    way: str, device: Any, controls: Any
) -> None:
    tensors = [torch.zeros(300_000, device=device) for _ in range(20)]
    torch.accelerator.synchronize(device)
    run = MemoryStore().at("run")

    with torch.Stream(device=device):
        if controls is not None:
            controls.pause(0.01)
        for tensor in tensors:
            tensor.add_(1)
    saved_in(run, {"x": tensors}, way)

    with holdfast.open(run) as checkpoint:
        assert {float(v) for name in checkpoint for v in np.unique(checkpoint[name])} == {1.0}


@pytest.mark.parametrize("snapshot", ["copy", "stream"])
def test_tensors_may_be_freed_as_soon_as_the_save_returns(snapshot: Any, device: Any, tmp_path: Path) -> None:
    with CheckpointManager(tmp_path) as manager:
        state = {"x": [torch.full((2 << 20,), 7.0, device=device), torch.full((50, 40), 7.0, device=device).T]}
        handle = manager.save(state, 0, wait=False, snapshot=snapshot)
        del state
        others = [torch.full((2 << 20,), -1.0, device=device), torch.full((50, 40), -1.0, device=device)]
        torch.accelerator.synchronize(device)
        handle.result()

    with holdfast.open(tmp_path) as checkpoint:
        assert all((np.array(checkpoint[name]) == 7).all() for name in checkpoint)
    assert len(others) == 2


@pytest.mark.parametrize("way", WAYS)
def test_large_tensors_are_copied_in_pieces_of_any_size(way: str, device: Any, tmp_path: Path) -> None:
    count = (21 << 20) // 4 + 3
    tensors = {
        "flat": torch.arange(count, dtype=torch.float32),
        "turned": torch.arange(count // 1001 * 1001, dtype=torch.float32).reshape(1001, -1).T,
        "odd": torch.arange((9 << 20) + 1, dtype=torch.int64).to(torch.uint8),
        "host": torch.arange(3 << 20, dtype=torch.float32),
    }
    there = {name: tensor.to(device) if name != "host" else tensor for name, tensor in tensors.items()}
    assert not there["turned"].is_contiguous()

    saved_in(tmp_path / "run", there, way)
    target = {name: torch.zeros_like(tensor) for name, tensor in there.items()}
    (holdfast.load_params if way == "save_params" else holdfast.load_checkpoint)(target, tmp_path / "run")

    assert {name for name, tensor in target.items() if not torch.equal(tensor.cpu(), tensors[name])} == set()


@pytest.mark.parametrize("way", WAYS)
def test_several_devices_and_the_host_are_one_state(way: str, device: Any, tmp_path: Path) -> None:
    if torch.accelerator.device_count() < 2:
        pytest.skip("there is one device only")
    other = torch.device(device.type, 1)
    state = {"a": torch.arange(5.0), "b": torch.arange(700_000.0).to(device), "c": torch.arange(9.0).to(other)}
    saved_in(tmp_path / "run", state, way)
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    (holdfast.load_params if way == "save_params" else holdfast.load_checkpoint)(target, tmp_path / "run")

    assert [str(tensor.device) for tensor in target.values()] == ["cpu", str(device), str(other)]
    assert all(torch.equal(target[name].cpu(), state[name].cpu()) for name in state)
    assert torch.accelerator.current_device_index() == 0


def test_many_small_tensors_are_few_copies_and_all_from_page_locked_memory(simulator: Any, tmp_path: Path) -> None:
    state = {f"x{i}": torch.full((i % 300,), float(i), device="sim") for i in range(3000)}
    before = simulator.copies()

    with CheckpointManager(tmp_path) as manager:
        manager.save(state, 0, wait=False).result()
    between = simulator.copies()
    holdfast.save_checkpoint(state, tmp_path)
    after = simulator.copies()
    holdfast.load_checkpoint(state, tmp_path)

    nbytes = sum(t.nbytes for t in state.values())
    assert between["bytes_out"] - before["bytes_out"] == nbytes
    assert between["out"] - before["out"] <= 4
    assert after["out"] - between["out"] <= 4
    assert after["pageable_out"] == before["pageable_out"]
    assert simulator.copies()["pageable_in"] == after["pageable_in"]
    assert simulator.copies()["bytes_in"] - after["bytes_in"] == nbytes


def test_arena_is_page_locked_and_given_back_by_close(simulator: Any, tmp_path: Path) -> None:
    state = {"x": torch.zeros(5 << 20, device="sim")}
    before = simulator.pinned_bytes()

    with CheckpointManager(tmp_path) as manager:
        manager.prepare(state)
        manager.save(state, 0, wait=False).result()
        first = simulator.pinned_bytes() - before
        manager.save(state, 1, wait=False).result()
        assert simulator.pinned_bytes() - before == first
        assert 20 << 20 <= first <= 23 << 20

    assert simulator.pinned_bytes() == before


@pytest.mark.parametrize("way", WAYS)
def test_without_page_locked_memory_all_is_the_same_but_for_one_warning(
    way: str, simulator: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.adapters import torch_devices
    from holdfast.engine import buffers

    monkeypatch.setattr(buffers, "_free", {})
    monkeypatch.setattr(torch_devices.device_of(torch.device("sim", 0)), "_refused_bytes", None)
    simulator.allow_pinning(False)
    state = {"x": torch.arange(5_000_000.0).to("sim"), "y": torch.arange(10.0).to("sim")}
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    with caplog.at_level(logging.WARNING):
        saved_in(tmp_path / "run", state, way)
        (holdfast.load_params if way == "save_params" else holdfast.load_checkpoint)(target, tmp_path / "run")

    assert all(torch.equal(target[name].cpu(), state[name].cpu()) for name in state)
    (record,) = caplog.records
    assert "cannot be page-locked for sim:0 (sim cannot lock pages): copies are slower" in record.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spare", [30 << 20, 100 << 10])
def test_save_takes_little_memory_of_the_device_and_makes_do_with_less(
    spare: int, way: str, simulator: Any, tmp_path: Path
) -> None:
    simulator.pause(0)
    tensors = {f"x{i}": torch.randn(40_000) for i in range(300)} | {"turned": torch.randn(2000, 1500).T}
    there = {name: tensor.to("sim") for name, tensor in tensors.items()}
    simulator.limit_memory(spare)
    used = simulator.memory_used()

    saved_in(tmp_path / "run", there, way)
    peak = simulator.memory_peak() - used
    simulator.limit_memory(None)
    target = {name: torch.zeros_like(tensor) for name, tensor in there.items()}
    (holdfast.load_params if way == "save_params" else holdfast.load_checkpoint)(target, tmp_path / "run")

    assert 0 < peak <= min(spare, 24 << 20)
    assert all(torch.equal(target[name].cpu(), tensors[name]) for name in tensors)


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


@pytest.mark.parametrize("way", ["wait", "stream"])
def test_memory_above_the_state_is_bounded(way: str, simulator: Any, tmp_path: Path) -> None:
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("measured by Linux's /proc")
    simulator.pause(0)
    state = {f"x{i}": torch.ones((48 << 20) // 4, device="sim") for i in range(8)}
    saved_in(tmp_path / "warm", {"x": torch.ones(9 << 20, device="sim")}, way)

    def peak(work: Callable[[], object]) -> int:
        clear.write_text("5")
        before = resident("VmRSS")
        work()
        return resident("VmHWM") - before

    assert peak(lambda: saved_in(tmp_path / "run", state, way)) < 128 << 20
    assert peak(lambda: holdfast.load_checkpoint(state, tmp_path / "run")) < 128 << 20


def test_unchanged_files_are_linked_and_changed_ones_written(device: Any, tmp_path: Path) -> None:
    state = {f"x{i}": torch.full((3 << 20,), float(i), device=device) for i in range(6)}
    holdfast.save_checkpoint(state, tmp_path)
    state["x3"][1 << 20] = 9.5

    holdfast.save_checkpoint(state, tmp_path)
    with CheckpointManager(tmp_path) as manager:
        state["x5"][7] = 9.5
        manager.save(state, 2, wait=False).result()

    def numbers(serial: int) -> dict[str, int]:
        files = (tmp_path / f"checkpoint_{serial}").glob("*.safetensors")
        return {file.name: file.stat().st_ino for file in files}

    one, two, three = map(numbers, range(3))
    assert sum(one[name] != two[name] for name in one) == 1
    assert sum(two[name] != three[name] for name in one) == 1
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    holdfast.load_checkpoint(target, tmp_path)
    assert all(torch.equal(target[name].cpu(), state[name].cpu()) for name in state)


@pytest.mark.parametrize("count", [10, 5_000_000])
@pytest.mark.parametrize("verify", [True, "before"])
def test_damaged_bytes_never_reach_the_device(verify: Any, count: int, device: Any, tmp_path: Path) -> None:
    holdfast.save_checkpoint({"x": torch.ones(count, device=device)}, tmp_path)
    (file,) = (tmp_path / "checkpoint_0").glob("*.safetensors")
    with file.open("r+b") as data:
        data.seek(-3, 2)
        data.write(b"\x55")
    target = {"x": torch.zeros(count, device=device)}

    with pytest.raises(CorruptCheckpointError, match="'x'"):
        holdfast.load_checkpoint(target, tmp_path, verify=verify)

    assert set(target["x"].cpu().unique().tolist()) <= ({0.0, 1.0} if verify is True else {0.0})
    assert target["x"][-1].item() == 0


def test_casts_follow_the_rules_of_the_core(device: Any) -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"x": torch.arange(-900_000.0, 900_000.0).to(device), "t": torch.ones(300, 200)}, run)
    wide = {
        "x": torch.zeros(1_800_000, dtype=torch.float64, device=device),
        "t": torch.zeros(200, 300, dtype=torch.float64, device=device).T,
    }
    narrow = {
        "x": torch.zeros(1_800_000, dtype=torch.bfloat16, device=device),
        "t": torch.zeros(200, 300, dtype=torch.int8, device=device).T,
    }

    with pytest.raises(MismatchError, match='cast="widen" converts it'):
        holdfast.load_checkpoint(wide, run)
    holdfast.load_checkpoint(wide, run, cast="widen")
    holdfast.load_checkpoint(narrow, run, cast="allow")

    assert torch.equal(wide["x"].cpu(), torch.arange(-900_000.0, 900_000.0).double())
    assert torch.equal(narrow["x"].cpu(), torch.arange(-900_000.0, 900_000.0).bfloat16())
    assert wide["t"].cpu().sum() == narrow["t"].cpu().sum() == 60_000


def test_targets_that_overlap_are_refused_before_anything_is_changed(device: Any) -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"a": torch.ones(4), "b": torch.arange(4.0)}, run)
    memory = torch.zeros(8, device=device)

    with pytest.raises(MismatchError, match="'b' shares memory with 'a', but the checkpoint has two values for them"):
        holdfast.load_checkpoint({"a": memory[:4], "b": memory[3:7]}, run)
    with pytest.raises(MismatchError, match="'b': the target's array overlaps itself; copy it first"):
        holdfast.load_checkpoint({"a": memory[:4], "b": memory[:1].expand(4)}, run)
    assert memory.cpu().tolist() == [0] * 8

    holdfast.load_checkpoint({"a": memory[::2], "b": memory[1::2]}, run)
    assert memory.cpu().tolist() == [1, 0, 1, 1, 1, 2, 1, 3]


def test_inference_tensors_are_saved_and_loaded(device: Any) -> None:
    run = MemoryStore().at("run")
    with torch.inference_mode():
        x = torch.arange(5.0).to(device)
    holdfast.save_checkpoint({"x": x}, run)
    with torch.inference_mode():
        x.zero_()

    holdfast.load_checkpoint({"x": x}, run)

    assert x.cpu().tolist() == [0, 1, 2, 3, 4]


def test_module_and_optimizer_go_on_bit_for_bit(device: Any, tmp_path: Path) -> None:
    data = torch.randn(16, 8)

    def made() -> dict[str, Any]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)).to(device)
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1, foreach=False)}

    def steps(state: dict[str, Any], count: int) -> None:
        for _ in range(count):
            state["optimizer"].zero_grad()
            state["model"](data.to(device)).square().sum().backward()
            state["optimizer"].step()

    through, fresh, used = made(), made(), made()
    steps(through, 3)
    with CheckpointManager(tmp_path) as manager:
        manager.save(through, 3, wait=False)
        steps(through, 3)
    steps(used, 2)
    moments = [slot.data_ptr() for slots in used["optimizer"].state.values() for slot in slots.values()]

    for state in (fresh, used):
        holdfast.load_checkpoint(state, tmp_path)
        steps(state, 3)

        for name, tensor in state["model"].state_dict().items():
            assert bits(tensor.cpu()) == bits(through["model"].state_dict()[name].cpu()), name
    assert [slot.data_ptr() for slots in used["optimizer"].state.values() for slot in slots.values()] == moments
