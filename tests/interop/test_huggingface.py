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


def test_parts_that_pytorch_wrote_are_read_bit_for_bit() -> None:
    wanted = {**model(), **narrow()}

    held = huggingface.read_folder(HERE / "bins")

    assert recognise(HERE / "bins") == "huggingface"
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
    said = str(caught.value)
    assert "model.safetensors.index.json and its files do not fit together, in 2 places:" in said
    assert "model-00002-of-00002.safetensors is not there, with 4 of the tensors" in said
    assert "model-00001-of-00002.safetensors does not hold 'ghost'" in said


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "config.json", "..", ""])
def test_an_index_that_leaves_its_folder_is_refused_and_nothing_is_opened(name: str, folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder.parent / "x.safetensors")
    change(folder, lambda c: c["weight_map"].update({"enc.weight": name}))

    with pytest.raises(
        FormatError, match=r"index\.json names .*: only \.safetensors files beside it can be meant, and nothing"
    ):
        huggingface.read_folder(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "b", "a": "c"}}']
)
def test_an_index_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / INDEX).write_text(text)

    with pytest.raises(FormatError, match="index"):
        huggingface.read_folder(folder)


def test_everything_in_which_index_and_files_differ_is_said_at_once(folder: Path) -> None:
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    held = safetensors.numpy.load_file(folder / first)
    safetensors.numpy.save_file({**held, "count": np.array(7)}, folder / first)
    change(folder, lambda c: c["weight_map"].pop("bf16"))
    change(folder, lambda c: c["weight_map"].update({"ghost": second}))

    with pytest.raises(FormatError) as caught:
        huggingface.read_folder(folder)
    said = str(caught.value)
    assert "in 3 places" in said
    assert f"{first} holds 'bf16', which the index does not list" in said
    assert f"{first} holds 'count' too, which the index says is in {second}" in said
    assert f"{second} does not hold 'ghost'" in said
    (folder / second).write_bytes((folder / second).read_bytes()[:-1])
    with pytest.raises(FormatError, match=rf"(?s)in 3 places.*{second}: the data has"):
        huggingface.read_folder(folder)


def test_parts_without_an_index_are_refused_with_what_is_missing(folder: Path) -> None:
    os.remove(folder / INDEX)

    with pytest.raises(
        CheckpointNotFoundError, match=r"parts of a model, without the index that lists them \(….safetensors\.index"
    ):
        huggingface.read_folder(folder)


def test_an_index_is_read_by_its_own_name(folder: Path) -> None:
    assert recognise(folder / INDEX) == "huggingface"
    assert huggingface.read_index(folder / INDEX).arrays.keys() == {**model(), **narrow()}.keys()


def test_a_whole_model_beside_an_index_of_parts_is_no_guess(folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder / "model.safetensors")

    with pytest.raises(
        CheckpointNotFoundError, match=r"model\.safetensors and model\.safetensors\.index\.json: it is not clear"
    ):
        huggingface.read_folder(folder)
    assert huggingface.read_index(folder / INDEX).arrays.keys() == {**model(), **narrow()}.keys()


def test_a_file_beside_an_index_under_another_name_is_said(folder: Path) -> None:
    safetensors.numpy.save_file(model(), folder / "consolidated.safetensors")

    assert huggingface.read_folder(folder).left_out == ["file consolidated.safetensors"]


def test_several_models_in_a_folder_are_no_guess(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "model.safetensors"):
        safetensors.numpy.save_file(model(), tmp_path / name)

    with pytest.raises(CheckpointNotFoundError, match="not clear which of them is the model. Name one of them"):
        huggingface.read_folder(tmp_path)


def test_files_that_are_links_are_read_as_the_cache_of_models_has_them(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for name in os.listdir(folder):
        (linked / name).symlink_to(folder / name)

    assert huggingface.read_folder(linked).arrays.keys() == {**model(), **narrow()}.keys()
