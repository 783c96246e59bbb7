"""`holdfast export`."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import holdfast
from cli.calling import call, state_at
from holdfast.storage import LocalStore

MODEL = "model-00001-of-00002.safetensors"


def test_export_links_the_parameters(run: str) -> None:
    called = call("export", f"{run}@1", "exported")

    assert called.status == 0
    assert called.out.startswith("exported the parameters of runs/digits@1 to exported: 3 files, ")
    assert called.out.endswith("(hard links: no data was copied)\n")
    assert os.path.samefile(f"{run}/checkpoint_1/{MODEL}", f"exported/{MODEL}")
    assert load_file(f"exported/{MODEL}")["model.fc.weight"][0, 1] == 11
    holdfast.load_params(state_at(0), "exported")


def test_export_json_has_the_documented_keys(run: str) -> None:
    found = call("export", run, "exported", "--json").json

    assert found.keys() == {"source", "serial", "path", "files", "bytes"}
    assert found["source"] == os.path.realpath(f"{run}/checkpoint_2")
    assert found["serial"] == 2
    assert found["path"] == os.path.realpath("exported")
    assert {f["name"] for f in found["files"]} == {p for p in os.listdir("exported") if p != "manifest.json"}
    assert all(f["linked"] for f in found["files"])
    assert found["bytes"] == sum(f["bytes"] for f in found["files"])


def test_export_copies_where_links_are_not_possible(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "link", lambda self, source, target: False)

    called = call("export", run, "exported")

    assert called.out.endswith("(copied)\n")
    assert not os.path.samefile(f"{run}/checkpoint_2/{MODEL}", f"exported/{MODEL}")


def test_export_replaces_an_earlier_one(run: str) -> None:
    call("export", f"{run}@0", "exported")
    call("export", f"{run}@1", "exported")

    assert load_file(f"exported/{MODEL}")["model.fc.weight"][0, 1] == 11


def test_export_never_replaces_what_is_foreign(run: str) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("text")

    called = call("export", run, "thesis")

    assert (called.status, called.out) == (2, "")
    assert "holds no save of Holdfast" in called.err
    assert os.listdir("thesis") == ["chapter.txt"]


def test_export_makes_no_checkpoint_of_a_run(run: str) -> None:
    called = call("export", run, f"{run}/checkpoint_9/")

    assert called.status == 2
    assert "would be taken for one" in called.err
    assert holdfast.serials(run) == [0, 1, 2]


def test_export_without_parameters_says_how_to_mark_them(run: str) -> None:
    holdfast.save_checkpoint({"w": np.ones(2)}, "runs/unmarked")

    called = call("export", "runs/unmarked", "exported")

    assert called.status == 2
    assert "holds no parameters" in called.err


@pytest.mark.parametrize("path", ["nowhere", "runs", "runs/digits@9", f"runs/digits/checkpoint_1/{MODEL}"])
def test_export_of_nothing(run: str, path: str) -> None:
    assert call("export", path, "exported").status == 2
    assert not os.path.exists("exported")


def test_export_of_a_checkpoint_that_is_deleted_meanwhile_is_reported(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = holdfast.export

    def export(path: object, out: object) -> object:
        names = real(path, out)
        shutil.rmtree(f"{run}/checkpoint_2")
        return names

    monkeypatch.setattr(holdfast, "export", export)

    found = call("export", f"{run}@2", "exported", "--json")

    assert found.status == 0
    assert {file["linked"] for file in found.json["files"]} == {False}
