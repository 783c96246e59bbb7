"""Text that anybody may have chosen, in pipes and on terminals; sizes and times."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

import holdfast
from cli.calling import call, call_process, damage, environment, rewrite_manifest
from holdfast.cli import texts
from holdfast.cli.output import escaped

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
STYLES = re.compile(r"\x1b\[[\d;]*m")


def on_terminal(*arguments: str, columns: int = 80, **more: str) -> tuple[int, str]:
    """Call the program with a terminal for its output; the exit status and what it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "holdfast", *arguments]
    env = environment(TERM="xterm-256color", **more)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: nobody writes any more
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode().replace("\r\n", "\n")


def test_escaped_leaves_what_can_be_printed() -> None:
    assert escaped("model.fc_1/weight [x] ü 日本 \\n") == "model.fc_1/weight [x] ü 日本 \\n"
    assert escaped("\x1b\x00\x9b\u202e\n\udc80\U000e0001") == r"\x1b\x00\x9b\u202e\n\udc80\U000e0001"


@pytest.mark.parametrize("command", ["show", "diff"])
def test_hostile_names_are_escaped_and_whole_in_a_pipe(hostile: dict[str, str], command: str) -> None:
    holdfast.save_params(holdfast.parameters({"other": 1.0 * __import__("numpy").ones(1)}), "other")

    called = call_process(command, "evil", *(["other"] if command == "diff" else []))

    assert called.err == ""
    assert not CONTROLS.search(called.out)
    assert [line for line in called.out.splitlines() if line.startswith(("F32", "  F32", "-"))]
    for shown in hostile.values():
        assert called.out.count(f"  {shown}\n") == 1


def test_hostile_names_are_escaped_on_a_terminal(hostile: dict[str, str]) -> None:
    status, shown = on_terminal("show", "evil")

    plain = STYLES.sub("", shown)
    assert status == 0
    assert not CONTROLS.search(plain)
    assert "[bold red]markup[/bold red]" in plain
    assert max(map(len, plain.splitlines())) <= 80
    unfolded = re.sub(r"\n {20,}", "", plain)
    for name in hostile.values():
        assert unfolded.count(name) == 1


def test_hostile_names_are_escaped_in_json(hostile: dict[str, str]) -> None:
    called = call("show", "evil", "--json")

    assert called.out.isascii()
    assert called.out.count("\n") == 1
    assert {v["name"] for v in called.json["variables"]} == set(hostile)


def test_hostile_names_are_escaped_in_errors_and_damage(hostile: dict[str, str]) -> None:
    damage("evil/model.safetensors")
    damage("evil/model.safetensors", 4096)

    for arguments in (["verify", "evil"], ["diff", "evil", "evil/model.safetensors"]):
        called = call(*arguments)

        assert called.status == 1
        assert not CONTROLS.search(called.out + called.err)


def test_hostile_fields_of_the_manifest_are_escaped(run: str) -> None:
    evil = "\x1b]0;title\x07"
    rewrite_manifest(f"{run}/checkpoint_2", created=evil, writer=evil, metrics={evil: 1})

    for arguments in (["ls", run], ["show", run], ["diff", f"{run}@0", f"{run}@2"]):
        called = call(*arguments)

        assert called.err == ""
        assert not CONTROLS.search(called.out)


def test_hostile_paths_are_escaped(run: str) -> None:
    path = "no\x1b[2Jwhere"

    for command in ("ls", "show", "verify"):
        called = call(command, path)

        assert called.status == 2
        assert not CONTROLS.search(called.err)
    assert not CONTROLS.search(call("\x1b[2J").err)


def test_names_that_the_locale_cannot_write_are_escaped(hostile: dict[str, str]) -> None:
    called = call_process("show", "evil", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert called.status == 0
    assert r"\u65e5\u672c\u8a9e" in called.out


def test_paths_that_are_no_unicode_are_shown(run: str) -> None:
    os.rename(run, os.fsencode(run) + b"\xff")

    called = call_process("verify", os.fsdecode(os.fsencode(run) + b"\xff"))

    assert called.status == 0
    assert called.out.startswith(r"runs/digits\udcff@2  ok")


def test_error_on_a_terminal_is_folded_between_words(run: str) -> None:
    status, shown = on_terminal("show", f"{run}@77", columns=40)

    assert status == 2
    assert all(len(line) <= 40 for line in shown.splitlines())
    assert "the complete ones are" in shown.replace("\n", " ")
    assert on_terminal("show", f"{run}@77", columns=200)[1].count("\n") == 1


def test_a_pipe_has_no_colours_and_no_progress_bar(run: str) -> None:
    for arguments in (
        ["ls", run],
        ["show", run],
        ["verify", run, "--all"],
        ["diff", f"{run}@0", f"{run}@1"],
        ["--help"],
    ):
        called = call_process(*arguments)

        assert "\x1b" not in called.out
        assert called.err == ""


@pytest.mark.parametrize("command", ["ls", "show", "verify"])
def test_a_terminal_has_colours_unless_they_are_unwanted(run: str, command: str) -> None:
    status, shown = on_terminal(command, run)
    _, plain = on_terminal(command, run, NO_COLOR="1")

    assert status == 0
    assert STYLES.search(shown)
    assert "\x1b[32m" not in plain
    assert "\x1b[31m" not in plain


def test_a_terminal_of_any_width_shows_everything(run: str) -> None:
    for columns in (20, 60, 80, 200):
        _, shown = on_terminal("show", f"{run}@1", columns=columns)

        assert "model.fc.weight" in re.sub(r"\s", "", STYLES.sub("", shown))


def test_a_terminal_shows_progress_and_then_removes_it(run: str) -> None:
    _, shown = on_terminal("verify", run)

    assert "verifying checkpoint_2" in shown
    assert shown.index("verifying checkpoint_2") < shown.index("ok")


def test_json_on_a_terminal_is_indented_and_plain(run: str) -> None:
    _, shown = on_terminal("ls", run, "--json")

    assert shown.startswith('{\n  "path"')
    assert "\x1b" not in shown
    assert len(json.loads(shown)["checkpoints"]) == 3


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (1 << 63, "8192.0 PiB"),
    ],
)
def test_size(nbytes: int, shown: str) -> None:
    assert texts.size(nbytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 400, "400 d"), (-100, "")]
)
def test_age(monkeypatch: pytest.MonkeyPatch, seconds: int, shown: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000 + seconds)

    assert texts.age_of(1_800_000_000) == shown
    assert texts.age("2027-01-15T08:00:00Z") == shown


@pytest.mark.parametrize("created", ["", "today", "2027-13-01T00:00:00Z", "2027-01-15T08:00:00+01:00", "9" * 10000])
def test_a_time_that_is_none_has_no_age(created: str) -> None:
    assert texts.age(created) == ""
    assert len(texts.saved(created)) <= 20


def test_shape() -> None:
    assert texts.shape(()) == "()"
    assert texts.shape((3,)) == "(3,)"
    assert texts.shape([2] * 64) == "(2, 2, 2, 2, 2, 2, … 64 dimensions)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ("ü", '"ü"'),
        ({"$tuple": [1]}, "(1,)"),
        ({"$tuple": [1, {"$float": "-inf"}]}, "(1, -inf)"),
        ({"$scalar": ["F32", 0.5]}, "0.5 (F32)"),
        ({"$array": ["U32", [624], []]}, "array of U32 (624,)"),
        ({"$random": ["random.Random", 1]}, "state of a random.Random"),
        ({"$dict": [[1, 2]]}, '{"$dict": [[1, 2]]}'),
        ({"a": [1, {"b": True}]}, '{"a": [1, {"b": true}]}'),
    ],
)
def test_value_text(value: object, shown: str) -> None:
    assert texts.value_text(value) == shown
