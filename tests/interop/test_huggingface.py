"""Safetensors files and sharded folders."""

import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import holdfast
from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.interop import huggingface
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder that the library wrote."""
    return Path(shutil.copytree(HERE / "sharded", tmp_path / "sharded"))


def change(folder: Path, change: object) -> None:
    content = json.loads((folder / INDEX).read_text())
    change(content)
    (folder / INDEX).write_text(json.dumps(content))


def test_a_sharded_folder_is_read_bit_for_bit() -> None:
    wanted = {**model(), **narrow()}

    held = huggingface.read_folder(HERE / "sharded")

    assert recognise(HERE / "sharded") == "huggingface"
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[name], wanted[name]) for name in wanted)
    assert (held.left_out, held.others) == ([], set())


def test_a_file_of_the_library_is_read_bit_for_bit(tmp_path: Path) -> None:
    wanted = {**model(), "empty": np.zeros((0, 3), np.float16), "scalar": np.array(1.5, ml_dtypes.bfloat16)}
    wanted |= {
        str(d): np.arange(3).astype(d) for d in (np.uint8, np.int8, np.uint16, np.uint32, np.uint64, np.complex64)
    }
    safetensors.numpy.save_file(wanted, tmp_path / "any.name")

    held = huggingface.read_file(tmp_path / "any.name")

    assert recognise(tmp_path / "any.name") == "safetensors"
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[name], wanted[name]) for name in wanted)


def test_what_holdfast_saves_is_such_a_folder(tmp_path: Path) -> None:
    holdfast.save_params(model(), tmp_path / "m")

    held = huggingface.read_folder(tmp_path / "m")

    assert all(same(held.arrays[name], array) for name, array in model().items())
    assert held.left_out == ["file manifest.json"]


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_off_is_refused_and_still_recognised(size: int, folder: Path) -> None:
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:size])

    assert recognise(path) == "safetensors"
    with pytest.raises(FormatError, match="model-00001-of-00002"):
        huggingface.read_file(path)
    with pytest.raises(FormatError, match="model-00001-of-00002"):
        huggingface.read_folder(folder)


def test_all_that_an_index_lists_and_is_not_there_is_said_at_once(folder: Path) -> None:
    os.remove(folder / "model-00002-of-00002.safetensors")
    change(folder, lambda c: c["weight_map"].update({"ghost": "model-00001-of-00002.safetensors"}))

    with pytest.raises(FormatError) as caught:
        huggingface.read_folder(folder)
    assert "model-00002-of-00002.safetensors is not there, with 4 of its tensors" in str(caught.value)
    assert "model-00001-of-00002.safetensors does not hold 'ghost'" in str(caught.value)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "config.json", "..", ""])
def test_an_index_that_leaves_its_folder_is_refused_and_nothing_is_opened(name: str, folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder.parent / "x.safetensors")
    change(folder, lambda c: c["weight_map"].update({"enc.weight": name}))

    with pytest.raises(FormatError, match="only .safetensors files beside it can be meant"):
        huggingface.read_folder(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "b", "a": "c"}}']
)
def test_an_index_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / INDEX).write_text(text)

    with pytest.raises(FormatError, match="index"):
        huggingface.read_folder(folder)


def test_tensors_that_the_index_does_not_list_are_said(folder: Path) -> None:
    change(folder, lambda c: c["weight_map"].pop("bf16"))

    held = huggingface.read_folder(folder)

    assert "bf16" not in held.arrays
    assert held.left_out == ["tensor bf16 of model-00001-of-00002.safetensors, which the index does not list"]


def test_a_folder_of_files_without_an_index_is_refused(folder: Path) -> None:
    os.remove(folder / INDEX)

    with pytest.raises(CheckpointNotFoundError, match="name one file of it"):
        huggingface.read_folder(folder)


def test_files_that_are_links_are_read_as_the_cache_of_models_has_them(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for name in os.listdir(folder):
        (linked / name).symlink_to(folder / name)

    assert huggingface.read_folder(linked).arrays.keys() == {**model(), **narrow()}.keys()
