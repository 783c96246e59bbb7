"""`holdfast verify`."""

import os
import shutil
from pathlib import Path

import pytest

import holdfast
from cli.calling import call, damage, state_at
from holdfast.storage import LocalStore

STATE = "state-00001-of-00001.safetensors"
MODEL = "model-00001-of-00002.safetensors"


def test_verify_of_a_sound_run_looks_at_the_newest(run: str) -> None:
    called = call("verify", run)

    assert called.status == 0
    assert called.out.startswith("runs/digits@2  ok  4 variables, ")
    assert called.err == ""


def test_verify_names_every_damaged_variable(run: str) -> None:
    damage(f"{run}/checkpoint_1/{MODEL}")
    damage(f"{run}/checkpoint_1/{STATE}")

    called = call("verify", f"{run}@1")
    found = call("verify", f"{run}@1", "--json")

    assert (called.status, found.status) == (1, 1)
    assert called.out.splitlines() == [
        "runs/digits@1  DAMAGED  2 variables, use another checkpoint or a copy:",
        "  model.fc.weight",
        "  adam.m",
    ]
    (check,) = found.json["checkpoints"]
    assert check["error"]["type"] == "CorruptCheckpointError"
    assert check["error"]["variables"] == ["model.fc.weight", "adam.m"]


def test_verify_all_looks_at_every_checkpoint(run: str) -> None:
    damage(f"{run}/checkpoint_0/{STATE}", 10)
    os.remove(f"{run}/checkpoint_1/{STATE}")

    called = call("verify", run, "--all")
    found = call("verify", "--all", "--json", run)

    assert (called.status, found.status) == (1, 1)
    assert [line[:25] for line in called.out.splitlines()] == [
        "runs/digits@0  DAMAGED  d",
        "runs/digits@1  INCOMPLETE",
        "runs/digits@2  ok  4 vari",
        "1 of 3 checkpoints in run",
    ]
    assert found.json.keys() == {"path", "ok", "checkpoints"}
    assert found.json["ok"] is False
    assert [(c["serial"], c["ok"]) for c in found.json["checkpoints"]] == [(0, False), (1, False), (2, True)]
    assert found.json["checkpoints"][2].keys() == {"serial", "path", "ok", "files", "variables", "bytes"}


def test_verify_all_of_a_sound_run(run: str) -> None:
    called = call("verify", run, "--all")

    assert called.status == 0
    assert called.out.splitlines()[-1] == "3 of 3 checkpoints in runs/digits are sound"


def test_verify_counts_a_newer_checkpoint_that_cannot_be_used_as_damage(run: str) -> None:
    damage(f"{run}/checkpoint_2/manifest.json", 100)

    called = call("verify", run)

    assert called.status == 1
    assert called.out.splitlines()[0].startswith("runs/digits@1  ok")
    assert called.out.splitlines()[1].startswith("runs/digits@2  DAMAGED  manifest.json is damaged")


def test_verify_does_not_count_an_older_one(run: str) -> None:
    damage(f"{run}/checkpoint_0/manifest.json", 100)

    assert call("verify", run).status == 0


@pytest.mark.parametrize("path", ["runs/digits@1", "runs/digits/checkpoint_1"])
def test_verify_of_an_incomplete_checkpoint_finds_damage(run: str, path: str) -> None:
    os.remove(f"{run}/checkpoint_1/manifest.json")

    called = call("verify", path)

    assert called.status == 1
    assert called.out.startswith("runs/digits@1  INCOMPLETE  no manifest.json in it")


def test_verify_of_a_damaged_trainer_file(run: str) -> None:
    damage(f"{run}/checkpoint_2/trainer_0.json", 30)

    called = call("verify", run)

    assert called.status == 1
    assert "DAMAGED  trainer_0.json is damaged" in called.out


def test_run_of_which_nothing_can_be_used_is_damage_and_not_nothing(run: str) -> None:
    for serial in range(3):
        (Path(run) / f"checkpoint_{serial}" / "trainer_0.json").unlink()

    called = call("verify", run)

    assert (called.status, called.err) == (1, "")
    assert called.out.count("INCOMPLETE  it is not complete: trainer_0.json is missing") == 3
    assert called.out.endswith("0 of 3 checkpoints in runs/digits are sound\n")
    assert call("verify", run, "--json").json["ok"] is False


def test_verify_of_a_params_folder(run: str) -> None:
    holdfast.save_params(state_at(0), "model")

    called = call("verify", "model")

    assert called.status == 0
    assert called.out.startswith("model  ok  3 variables")
    assert call("verify", "model", "--json").json["checkpoints"][0]["serial"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["runs/digits@9"], "no checkpoint_9 in"),
        (["runs"], "no complete checkpoint in"),
        (["runs/digits/checkpoint_0/manifest.json"], "a file without digests"),
        (["runs/digits@1", "--all"], "verify --all takes a run folder"),
        (["runs", "--all"], "no checkpoints in"),
    ],
)
def test_verify_of_nothing(run: str, arguments: list[str], words: str) -> None:
    called = call("verify", *arguments)

    assert (called.status, called.out) == (2, "")
    assert words in called.err


def test_verify_that_cannot_read_is_no_verdict(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LocalStore, path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    real = LocalStore.open
    monkeypatch.setattr(
        LocalStore, "open", lambda self, path: refuse(self, path) if path.endswith(STATE) else real(self, path)
    )

    called = call("verify", run, "--all")

    assert called.status == 3
    assert "FAILED" in called.out


def test_verify_passes_over_what_rotation_deletes_meanwhile(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = holdfast.verify

    def verify(path: object, **options: object) -> object:
        if options["serial"] == 0:
            shutil.rmtree(Path(run, "checkpoint_0"))
        return real(path, **options)

    monkeypatch.setattr(holdfast, "verify", verify)

    called = call("verify", run, "--all", "--json")

    assert called.status == 0
    assert [c["serial"] for c in called.json["checkpoints"]] == [1, 2]


def test_verify_of_one_that_rotation_deletes_meanwhile(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(path: object, **options: object) -> object:
        shutil.rmtree(Path(run, "checkpoint_0"))
        raise holdfast.StorageError("it has vanished")

    monkeypatch.setattr(holdfast, "verify", verify)

    called = call("verify", f"{run}@0")

    assert called.status == 2
    assert "was deleted meanwhile" in called.err
