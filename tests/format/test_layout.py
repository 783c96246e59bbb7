"""File names: what is a checkpoint's, what is hidden, what is foreign."""

import pytest
from hypothesis import given, strategies as st

from holdfast.format import layout


@pytest.mark.parametrize("serial", [0, 1, 9, 10, 41, 10**17])
def test_checkpoint_folder_and_serial_of_are_inverse(serial: int) -> None:
    assert layout.serial_of(layout.checkpoint_folder(serial)) == serial


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint_",
        "checkpoint_07",
        "checkpoint_1x",
        "checkpoint_-1",
        "checkpoint_+1",
        "checkpoint_1 ",
        " checkpoint_1",
        "checkpoint_1\n",
        "backup_7",
        "checkpoint-7",
        "Checkpoint_7",
        "checkpoint_7.bak",
        "checkpoint_٧",
        "checkpoint_²",
        "checkpoint_1_0",
        "checkpoint_00",
        "checkpoint_1e3",
        "checkpoint_0x1",
        ".attempt-7-0123456789abcdef",
        "7",
        "",
        "checkpoint_" + "9" * 200,
    ],
)
def test_serial_of_takes_no_other_name(name: str) -> None:
    assert layout.serial_of(name) is None


@given(st.sampled_from([layout.ATTEMPT_PREFIX, layout.TRASH_PREFIX, layout.PREVIOUS_PREFIX]), st.text(min_size=1))
def test_hidden_label_gives_back_any_label(prefix: str, label: str) -> None:
    assert layout.hidden_label(layout.hidden_name(prefix, label, "0123456789abcdef")) == label


@pytest.mark.parametrize(
    "name",
    [
        "attempt-1-0123456789abcdef",
        ".attempt-1-0123456789abcde",
        ".attempt-1-0123456789abcdef0",
        ".attempt--0123456789abcdef",
        ".attempt-1-0123456789ABCDEF",
        ".attempt-1-0123456789abcdeg",
        ".trash",
        ".backup-1-0123456789abcdef",
        "x.trash-1-0123456789abcdef",
        ".trash-1-0123456789abcdef.old",
        ".git",
        "",
    ],
)
def test_hidden_label_takes_no_other_name(name: str) -> None:
    assert layout.hidden_label(name) is None


def test_data_files_are_named_as_hugging_face_tools_name_them() -> None:
    assert layout.model_file(1, 1) == "model.safetensors"
    assert layout.model_file(2, 3) == "model-00002-of-00003.safetensors"
    assert layout.state_file(1, 1) == "state-00001-of-00001.safetensors"
    assert layout.trainer_file(0) == "trainer_0.json"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00001-of-00003.safetensors",
        "state-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "trainer_0.json",
        "trainer_12.json",
    ],
)
def test_is_listable_takes_the_names_of_the_format(name: str) -> None:
    assert layout.is_listable(name)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "pinned",
        "../model.safetensors",
        "/model.safetensors",
        "a/model.safetensors",
        "model.safetensors/",
        "model.safetensors\n",
        "model-1-of-3.safetensors",
        "trainer_00.json",
        "trainer_-1.json",
        "trainer_.json",
        "config.json",
        "",
        ".",
        "..",
        "model.safetensors\0",
        "MODEL.safetensors",
        "model-٠٠٠٠١-of-00001.safetensors",
    ],
)
def test_is_listable_takes_no_path_and_no_other_name(name: str) -> None:
    assert not layout.is_listable(name)


def test_parameter_files_are_told_from_others() -> None:
    assert layout.is_parameter_file("model-00001-of-00002.safetensors")
    assert not layout.is_parameter_file("state-00001-of-00002.safetensors")
