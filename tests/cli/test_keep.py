"""`holdfast prune`, `pin` and `unpin`."""

import os
from pathlib import Path

import pytest

import holdfast
from cli.calling import call, state_at


def test_prune_deletes_all_but_the_newest_and_the_pinned(run: str) -> None:
    holdfast.pin(run, 0)

    called = call("prune", run, "--keep", "1")

    assert called.status == 0
    assert holdfast.serials(run) == [0, 2]
    assert called.out.startswith("deleted 1 checkpoint (")
    assert called.out.endswith("): 1\nkept 2 checkpoints: 0 (pinned), 2\n")


def test_prune_keeps_every_period_of_steps(run: str) -> None:
    call("prune", run, "--keep", "1", "--keep-period", "20")

    assert holdfast.serials(run) == [0, 2]


def test_prune_dry_run_deletes_nothing_and_says_the_same(run: str) -> None:
    Path(run, ".trash-9-0123456789abcdef").mkdir()

    tried = call("prune", run, "--keep", "1", "--dry-run", "--json").json

    assert holdfast.serials(run) == [0, 1, 2]
    assert Path(run, ".trash-9-0123456789abcdef").exists()
    done = call("prune", run, "--keep", "1", "--json").json
    assert tried.pop("dry_run") is True
    assert done.pop("dry_run") is False
    assert tried == done
    assert done.pop("bytes") > 0
    assert done == {"path": os.path.realpath(run), "deleted": [0, 1], "kept": [2], "not_deleted": []}


def test_prune_with_nothing_to_delete(run: str) -> None:
    assert call("prune", run, "--keep", "9").out == "nothing to delete\nkept 3 checkpoints: 0, 1, 2\n"
    assert call("prune", run, "--keep", "2", "--dry-run").out.startswith("would delete 1 checkpoint (")


def test_prune_that_cannot_delete_fails(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.storage import LocalStore

    def refuse(self: LocalStore, source: str, target: str) -> None:
        raise PermissionError(13, "Permission denied", source)

    monkeypatch.setattr(LocalStore, "rename", refuse)

    called = call("prune", run, "--keep", "1")
    found = call("prune", run, "--keep", "1", "--json")

    assert (called.status, found.status) == (3, 3)
    assert "could not delete 0, 1" in called.err
    assert found.json["not_deleted"] == [0, 1]
    assert found.json["kept"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/digits"], "--keep"),
        (["runs/digits", "--keep", "0"], "--keep"),
        (["runs/digits", "--keep", "x"], "--keep"),
        (["runs/digits", "--keep", "1", "--keep-period", "0"], "--keep-period"),
        (["runs/digits@1", "--keep", "1"], "prune takes a run folder; runs/digits@1 is one checkpoint"),
        (["runs/digits/checkpoint_1", "--keep", "1"], "is one checkpoint"),
        (["model", "--keep", "1"], "is one checkpoint"),
        (["model/manifest.json", "--keep", "1"], "is a file"),
        (["nowhere", "--keep", "1"], "nowhere does not exist"),
        (["runs", "--keep", "1"], "no complete checkpoint in runs"),
    ],
)
def test_prune_of_what_is_no_run_deletes_nothing(run: str, arguments: list[str], words: str) -> None:
    holdfast.save_params(state_at(0), "model")

    called = call("prune", *arguments)

    assert (called.status, called.out) == (2, "")
    assert words in called.err
    assert holdfast.serials(run) == [0, 1, 2]


@pytest.mark.parametrize("path", ["runs/digits@1", "runs/digits/checkpoint_1"])
def test_pin_and_unpin(run: str, path: str) -> None:
    called = call("pin", path)

    assert called.status == 0
    assert called.out == "runs/digits@1 is pinned: neither rotation nor prune deletes it\n"
    assert Path(run, "checkpoint_1", "pinned").exists()
    assert call("unpin", path).status == 0
    assert not Path(run, "checkpoint_1", "pinned").exists()


def test_pin_json_has_the_documented_keys(run: str) -> None:
    expected = {"path": os.path.realpath(run), "serial": 1}

    assert call("pin", f"{run}@1", "--json").json == {**expected, "pinned": True}
    assert call("pin", f"{run}@1", "--json").json == {**expected, "pinned": True}
    assert call("unpin", f"{run}@1", "--json").json == {**expected, "pinned": False}


def test_pin_does_not_guess_which(run: str) -> None:
    called = call("pin", run)

    assert called.status == 2
    assert "which checkpoint? Say holdfast pin runs/digits@SERIAL" in called.err


@pytest.mark.parametrize("path", ["runs/digits@9", "nowhere@1", "nowhere", "model", "model@1"])
@pytest.mark.parametrize("command", ["pin", "unpin"])
def test_pin_of_nothing(run: str, command: str, path: str) -> None:
    holdfast.save_params(state_at(0), "model")

    assert call(command, path).status == 2
