"""What a path holds is told from its content."""

import os
from pathlib import Path

import pytest

from holdfast.interop.recognise import combined_files, recognise
from interop.truth import FLUID, PADDLE
from support import tree_of


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (FLUID / "checkpoint_layout" / "model", "fluid-checkpoints"),
        (FLUID / "checkpoint_layout" / "model" / "checkpoint_1", "fluid-checkpoint"),
        (FLUID / "checkpoint_layout" / "model" / "checkpoint_1" / "__model__", "fluid-variables"),
        (FLUID / "save_inference_model" / "model", "fluid-model"),
        (FLUID / "save_inference_model" / "model" / "__model__", "program"),
        (FLUID / "save_inference_model_combined" / "model", "fluid-combined"),
        (FLUID / "save_inference_model_combined" / "model" / "weights.bin", "fluid-combined"),
        (FLUID / "save_inference_model_combined" / "model" / "model.pb", "program"),
        (FLUID / "save_params" / "model", "fluid-variables"),
        (FLUID / "save_params" / "model" / "fc_0.w_0", "fluid-tensor"),
        (FLUID / "selected_rows" / "model", "fluid-variables"),
        (FLUID / "selected_rows" / "model" / "table", "fluid-tensor"),
        (FLUID / "names" / "model", "fluid-variables"),
        (FLUID / "lod" / "combined", "fluid-combined"),
        (FLUID / "fluid_save" / "model" / "m.pdparams", "pdparams"),
        (FLUID / "fluid_save" / "model" / "m.pdmodel", "program"),
        (FLUID / "fluid_save" / "model", None),
        (PADDLE / "paddle_save" / "model" / "net.pdopt", "pdparams"),
        (PADDLE / "jit_save" / "model" / "m.json", "pir-program"),
        (PADDLE / "jit_save" / "model" / "m.pdiparams", "fluid-combined"),
        (PADDLE / "distributed" / "model", "paddle-distributed"),
        (FLUID / "save_params" / "expected.json", None),
        (FLUID / "save_params" / "expected.npz", "npz"),
        (FLUID / "absent", None),
    ],
)
def test_recognise(path: Path, kind: str | None) -> None:
    assert recognise(path) == kind


def test_damaged_files_are_recognised_so_that_their_reader_says_what_is_wrong(tmp_path: Path) -> None:
    data = (FLUID / "save_params" / "model" / "fc_0.w_0").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-1])
    (tmp_path / "padded").write_bytes(data + b"\0")

    assert recognise(tmp_path / "cut") == recognise(tmp_path / "padded") == "fluid-tensor"
    assert recognise(tmp_path) == "fluid-variables"


def test_links_to_nowhere_and_pipes_are_passed_over_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("text")
    before = tree_of(tmp_path)

    assert recognise(tmp_path) is None
    assert recognise(tmp_path / "pipe") is None
    assert recognise(tmp_path / "empty") is None
    assert tree_of(tmp_path) == before


def test_combined_files_of_a_folder() -> None:
    assert combined_files(FLUID / "save_inference_model_combined" / "model") == ["weights.bin"]
    assert combined_files(FLUID / "save_params" / "model") == []
