"""`holdfast ls`."""

import os
import re
from pathlib import Path

import holdfast
from cli.calling import call, damage, rewrite_manifest, state_at


def test_ls_lists_the_checkpoints_with_the_oldest_first(run: str) -> None:
    holdfast.pin(run, 1)

    called = call("ls", run)

    header, *rows = called.out.splitlines()
    assert called.status == 0
    assert header.split() == ["SERIAL", "STEP", "SAVED", "(UTC)", "AGE", "VARS", "SIZE", "PINNED", "METRICS"]
    assert [row.split()[:2] for row in rows] == [["0", "0"], ["1", "10"], ["2", "20"]]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d +\d+s +4 +[\d.]+ KiB +loss=1$", rows[0])
    assert "pinned" in rows[1]
    assert "pinned" not in rows[2]
    assert called.err == ""


def test_ls_leaves_out_columns_that_say_nothing(run: str) -> None:
    holdfast.save_checkpoint(state_at(0), "runs/plain")

    assert call("ls", "runs/plain").out.splitlines()[0].split()[-1] == "SIZE"


def test_ls_json_has_the_documented_keys(run: str) -> None:
    holdfast.pin(run, 2)

    found = call("ls", run, "--json").json

    assert found.keys() == {"path", "checkpoints", "unusable", "leftovers"}
    assert found["path"] == os.path.realpath(run)
    assert [c["serial"] for c in found["checkpoints"]] == [0, 1, 2]
    newest = found["checkpoints"][-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", newest.pop("created"))
    assert newest.pop("bytes") == holdfast.verify(run).nbytes
    assert newest == {
        "serial": 2,
        "path": os.path.realpath(f"{run}/checkpoint_2"),
        "step": 20,
        "content": "checkpoint",
        "variables": 4,
        "metrics": {"loss": 1 / 21},
        "pinned": True,
    }


def test_ls_tells_what_cannot_be_used_and_why(run: str) -> None:
    os.remove(f"{run}/checkpoint_0/trainer_0.json")
    damage(f"{run}/checkpoint_1/manifest.json", 200)
    Path(run, "checkpoint_7").mkdir()
    Path(run, "checkpoint_8").write_text("a file")

    called = call("ls", run)
    found = call("ls", run, "--json").json

    assert called.status == 0
    assert [c["serial"] for c in found["checkpoints"]] == [2]
    assert [bad["serial"] for bad in found["unusable"]] == [0, 1, 7, 8]
    assert [line.split()[0] for line in called.out.splitlines()[1:6]] == ["0", "1", "2", "7", "8"]
    assert "checkpoint_0 cannot be used: it is not complete: trainer_0.json is missing" in called.out
    assert "checkpoint_1 cannot be used: manifest.json is damaged" in called.out
    assert "checkpoint_7 cannot be used: no manifest.json in it" in called.out
    assert "checkpoint_8 cannot be used: it is not a folder" in called.out


def test_ls_mentions_what_interrupted_saves_left(run: str) -> None:
    attempt, trash = ".attempt-3-0123456789abcdef", ".trash-0-0123456789abcdef"
    for name in (attempt, trash, ".attempt-other-0123456789abcdef", ".hidden"):
        Path(run, name).mkdir()
    os.utime(Path(run, attempt), (0, 0))

    called = call("ls", run)
    found = call("ls", run, "--json").json

    assert [(left["name"], left["kind"]) for left in found["leftovers"]] == [(attempt, "attempt"), (trash, "trash")]
    assert found["leftovers"][0]["modified"] == 0
    assert f"{attempt} (last changed " in called.out
    assert "the next save removes it" in called.out
    assert ".hidden" not in called.out


def test_ls_changes_nothing(run: str) -> None:
    attempt = Path(run, ".attempt-3-0123456789abcdef")
    attempt.mkdir()

    call("ls", run)

    assert attempt.is_dir()


def test_ls_of_a_params_folder_lists_it_alone(run: str) -> None:
    holdfast.save_params(state_at(0), "model")

    (found,) = call("ls", "model", "--json").json["checkpoints"]

    assert (found["serial"], found["content"], found["variables"]) == (None, "params", 3)
    assert call("ls", "model").out.splitlines()[1].split()[:2] == ["–", "–"]


def test_ls_of_one_checkpoint_of_a_run_lists_it_alone(run: str) -> None:
    for path in (f"{run}@1", f"{run}/checkpoint_1", f"{run}/checkpoint_1/"):
        (found,) = call("ls", path, "--json").json["checkpoints"]

        assert found["serial"] == 1


def test_ls_of_an_empty_folder_says_so_and_where_there_are_some(run: str) -> None:
    Path("empty").mkdir()

    assert call("ls", "empty").out == "no checkpoints in empty\n"
    assert call("ls", "runs").out == "no checkpoints in runs\nthere are some in runs/digits\n"
    assert call("ls", "runs", "--json").json["checkpoints"] == []


def test_ls_of_nothing_is_not_found(run: str) -> None:
    called = call("ls", "nowhere")

    assert (called.status, called.out) == (2, "")
    assert "nowhere does not exist" in called.err


def test_ls_of_a_file_is_a_usage_error(run: str) -> None:
    called = call("ls", f"{run}/checkpoint_0/model-00001-of-00002.safetensors")

    assert called.status == 2
    assert "holdfast show" in called.err


def test_ls_of_a_run_through_a_link(run: str) -> None:
    os.symlink(os.path.realpath(run), "link")

    assert len(call("ls", "link", "--json").json["checkpoints"]) == 3


def test_ls_shows_a_time_that_is_none_as_it_stands(run: str) -> None:
    rewrite_manifest(f"{run}/checkpoint_2", created="y" * 100, writer="x\x1b[2J" * 100, metrics={"a\nb": 1e308})

    row = call("ls", run).out.splitlines()[3]

    assert "y" * 19 + "…" in row
    assert row.endswith(r"a\nb=1e+308")
