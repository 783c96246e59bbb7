"""Folders with `pytorch_model.bin`, or with several such files and an index, as PyTorch and huggingface_hub write them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from holdfast.errors import CheckpointNotFoundError, FormatError, UnsupportedVariableError
from holdfast.interop import huggingface
from holdfast.interop.recognise import recognise
from interop.golden import model
from interop.truth import same

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def tensors() -> dict[str, "torch.Tensor"]:
    torch.manual_seed(0)
    tied = torch.randn(8, 4)
    return {
        "emb.weight": tied, "fc.weight": torch.randn(4, 8).bfloat16(), "fc.bias": torch.randn(4), "n": torch.tensor(3),
        "turned": torch.randn(3, 5).t(), "head.weight": tied,
    }  # fmt: skip


@pytest.fixture
def folder(tensors: dict[str, "torch.Tensor"], tmp_path: Path) -> Path:
    """Several files and an index."""
    (tmp_path / "m").mkdir()
    hub.save_torch_state_dict(tensors, tmp_path / "m", safe_serialization=False, max_shard_size=70)
    (tmp_path / "m" / "config.json").write_text("{}")
    return tmp_path / "m"


def parts(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".bin"))


def change(folder: Path, name: str, file: str | None) -> None:
    content = json.loads((folder / INDEX).read_text())
    content["weight_map"].update({name: file}) if file is not None else content["weight_map"].pop(name)
    (folder / INDEX).write_text(json.dumps(content))


def check(found: dict[str, np.ndarray], tensors: dict[str, "torch.Tensor"]) -> None:
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        bits = tensor.contiguous()
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].tobytes() == bits.reshape(-1).view(torch.uint8).numpy().tobytes(), name


def test_parts_and_their_index_are_read_bit_for_bit(folder: Path, tensors: dict[str, "torch.Tensor"]) -> None:
    assert len(parts(folder)) > 1
    assert recognise(folder) == recognise(folder / INDEX) == "huggingface"

    held = huggingface.read_folder(folder)

    check(held.arrays, tensors)
    assert held.left_out == ["file config.json"]
    check(huggingface.read_index(folder / INDEX).arrays, tensors)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "diffusion_pytorch_model.fp16.bin"])
def test_a_single_file_is_read(name: str, tensors: dict[str, "torch.Tensor"], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / name)
    for other in ("training_args.bin", "optimizer.bin", "scheduler.pt"):
        (tmp_path / other).write_bytes(b"a pickle of its own")

    held = huggingface.read_folder(tmp_path)

    assert recognise(tmp_path) == "huggingface"
    check(held.arrays, tensors)
    assert held.left_out == ["file optimizer.bin", "file scheduler.pt", "file training_args.bin"]


def test_an_old_file_is_read(tensors: dict[str, "torch.Tensor"], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)

    check(huggingface.read_folder(tmp_path).arrays, tensors)


def test_where_both_forms_are_there_safetensors_are_read_and_it_is_said(folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder / "model.safetensors")

    held = huggingface.read_folder(folder)

    assert all(same(held.arrays[name], array) for name, array in model().items())
    because = ": model.safetensors is read, as safetensors come first where a folder has both"
    assert held.left_out == [
        "file config.json",
        *(f"file {name}{because}" for name in parts(folder)),
        f"file {INDEX}{because}",
    ]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "model.fp16.safetensors"])
def test_safetensors_of_another_model_are_no_guess(name: str, folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder / name)

    with pytest.raises(CheckpointNotFoundError, match=rf"{name} and {INDEX}: it is not clear"):
        huggingface.read_folder(folder)


def test_everything_in_which_index_and_files_differ_is_said_at_once(folder: Path) -> None:
    first, second, *_, last = parts(folder)
    held = torch.load(folder / first, weights_only=True)
    own = next(iter(held))
    other = next(iter(torch.load(folder / second, weights_only=True)))
    torch.save({**held, other: torch.ones(1), "stray": torch.ones(1)}, folder / first)
    change(folder, own, None)
    change(folder, "ghost", second)
    os.remove(folder / last)

    with pytest.raises(FormatError) as caught:
        huggingface.read_folder(folder)
    said = str(caught.value)
    for problem in (
        f"{INDEX} and its files do not fit together, in 5 places",
        f"{last} is not there, with",
        f"{second} does not hold 'ghost'",
        f"{first} holds {own!r}, which the index does not list",
        f"{first} holds 'stray', which the index does not list",
        f"{first} holds {other!r} too, which the index says is in {second}",
    ):
        assert problem in said


def test_every_part_that_cannot_be_read_is_said_at_once(folder: Path) -> None:
    first, second, third, *_ = parts(folder)
    (folder / first).write_bytes((folder / first).read_bytes()[:-30])
    (folder / second).write_bytes(b"<html>not found</html>")
    torch.save({"w": torch.ones(2).to_sparse()}, folder / third)

    with pytest.raises(FormatError) as caught:
        huggingface.read_folder(folder)
    assert f"{first} is cut off" in str(caught.value)
    assert f"{second} is no file of torch.save: it begins with b'<html>not fo'" in str(caught.value)
    assert f"{third} holds what no checkpoint can hold" in str(caught.value)
    assert "'w': is sparse" in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("executed",))


def test_nothing_of_a_hostile_part_is_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.save({"w": Evil()}, folder / parts(folder)[0])

    with pytest.raises(FormatError, match=r"refers to posix\.mkdir"):
        huggingface.read_folder(folder)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../x.bin",
        "/etc/x.bin",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b.bin",
        "config.json",
        "model.safetensors",
        "..",
        "",
    ],
)
def test_an_index_that_leaves_its_folder_is_refused_and_nothing_is_opened(name: str, folder: Path) -> None:
    shutil.copy(folder / parts(folder)[0], folder.parent / "x.bin")
    change(folder, "fc.bias", name)

    with pytest.raises(
        FormatError, match=r"index\.json names .*: only \.bin files beside it can be meant, and nothing else"
    ):
        huggingface.read_folder(folder)


def test_parts_that_hold_more_than_tensors_say_so(folder: Path) -> None:
    first = parts(folder)[0]
    held = torch.load(folder / first, weights_only=True)
    torch.save({**held, "version": 3, "kind": Path("x")}, folder / first)

    assert huggingface.read_folder(folder).left_out == [
        f"value kind: {Path('x').__class__.__module__}.PosixPath is no plain value of {first}",
        f"value version of {first}",
        "file config.json",
    ]


def test_a_part_of_which_nothing_can_be_held_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2).to_sparse()}, tmp_path / "pytorch_model.bin")

    with pytest.raises(UnsupportedVariableError, match=r"pytorch_model\.bin holds what no checkpoint can hold"):
        huggingface.read_folder(tmp_path)
