"""What a path on the command line means."""

import os
from pathlib import Path

import pytest

import holdfast
from cli.calling import call, state_at
from holdfast.cli.exits import UsageError
from holdfast.cli.targets import Target, one_of_run, run_folder, target


def test_target_with_and_without_serial(run: str) -> None:
    assert target(run) == Target(run, None, "run")
    assert target(f"{run}@1") == Target(run, 1, "run")
    assert target(f"{run}/@1") == Target(f"{run}/", 1, "run")
    assert target("nowhere@1") == Target("nowhere", 1, "nothing")


@pytest.mark.parametrize("text", ["x@", "x@01", "x@-1", "x@1.0", "x@latest", "x@1@", "@1", "x@²", "x@" + "1" * 30])
def test_target_takes_nothing_else_for_a_serial(run: str, text: str) -> None:
    assert target(text) == Target(text, None, "nothing")


def test_target_with_an_at_sign_in_the_folder_name(run: str) -> None:
    for name in ("runs@2026", "me@home"):
        holdfast.save_checkpoint(state_at(0), name)

    assert target("runs@2026") == Target("runs@2026", None, "run")
    assert target("runs@2026@0") == Target("runs@2026", 0, "run")
    assert target("me@home@0") == Target("me@home", 0, "run")
    assert call("show", "runs@2026@0").status == 0
    assert call("verify", "runs@2026").status == 0


def test_target_that_exists_under_exactly_this_name_wins(run: str) -> None:
    holdfast.save_checkpoint(state_at(0), "digits@1")
    holdfast.save_checkpoint(state_at(0), "digits")
    os.symlink("nowhere", "broken@1")

    assert target("digits@1") == Target("digits@1", None, "run")
    assert target("broken@1").serial is None


def test_target_of_a_checkpoint_of_a_run_is_its_serial(run: str) -> None:
    expected = Target(os.path.realpath(run), 1, "run")
    os.symlink(f"{run}/checkpoint_1", "link")

    for text in (f"{run}/checkpoint_1", f"{run}/checkpoint_1/", f"{run}/../digits/checkpoint_1", "link"):
        assert target(text) == expected


def test_target_that_stands_alone(run: str) -> None:
    holdfast.save_params(state_at(0), "model")

    assert target("model") == Target("model", None, "checkpoint")
    with pytest.raises(UsageError, match="model is a single checkpoint; only the checkpoints of a run have serials"):
        target("model@1")


def test_target_that_is_a_file(run: str) -> None:
    Path("weights.safetensors").write_bytes(b"")

    assert target("weights.safetensors") == Target("weights.safetensors", None, "file")
    with pytest.raises(UsageError, match="is a file"):
        target("weights.safetensors@1")


def test_run_folder_and_one_of_run(run: str) -> None:
    assert run_folder(run, "prune") == run
    assert one_of_run(f"{run}@1", "pin") == (run, 1)
    for text, call_ in ((f"{run}@1", run_folder), (run, one_of_run)):
        with pytest.raises(UsageError):
            call_(text, "command")
    for call_ in (run_folder, one_of_run):
        with pytest.raises(holdfast.CheckpointNotFoundError, match="nowhere does not exist"):
            call_("nowhere@1", "command")
        with pytest.raises(
            holdfast.CheckpointNotFoundError, match="runs/digit does not exist; did you mean .*/runs/digits"
        ):
            call_("runs/digit@1", "command")


def test_a_folder_that_a_replacing_save_left_under_its_other_name_is_found(run: str) -> None:
    holdfast.save_params(state_at(0), "model")
    os.rename("model", ".previous-model-0123456789abcdef")

    for command in ("ls", "show", "verify"):
        assert call(command, "model").status == 0


@pytest.mark.parametrize("path", ["", "s3://bucket/run", "~/run"])
@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("ls", []),
        ("show", []),
        ("verify", []),
        ("verify", ["--all"]),
        ("diff", ["runs/digits"]),
        ("prune", ["--keep", "1"]),
        ("pin", []),
        ("export", ["out"]),
        ("convert", ["out"]),
    ],
)
def test_what_can_be_no_path_is_wrong_usage(command: str, rest: list[str], path: str, run: str) -> None:
    called = call(command, path, *rest)

    assert called.status == 2
    assert called.err.startswith("holdfast: ")
    assert "Traceback" not in called.err


@pytest.mark.parametrize("command", ["export", "convert"])
def test_destination_that_can_be_no_path_is_wrong_usage(command: str, run: str) -> None:
    called = call(command, run, "s3://bucket/run")

    assert (called.status, called.err) == (
        2,
        "holdfast: 's3://bucket/run' is a URL; a path is a file or folder of this machine, or one mounted into it\n",
    )
    assert os.listdir() == ["runs"]
