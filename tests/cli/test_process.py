"""The program as a process: entry points, help, exit statuses, signals and what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import holdfast
from cli.calling import call, call_process, damage, environment

COMMANDS = ("ls", "show", "verify", "diff", "prune", "pin", "unpin", "export")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment())


def test_python_m_holdfast_is_the_program(run: str) -> None:
    called = call_process("ls", run)

    assert called.status == 0
    assert len(called.out.splitlines()) == 4


def test_script_returns_the_exit_status(run: str) -> None:
    done = python("import sys; from holdfast.cli import main; sys.exit(main())", "verify", "nowhere")

    assert done.returncode == 2
    assert done.stderr == f"holdfast: {os.getcwd()}/nowhere does not exist\n"


def test_version() -> None:
    called = call("--version")

    assert (called.status, called.out) == (0, f"holdfast {holdfast.__version__}\n")


def test_import_of_holdfast_and_of_the_entry_point_loads_neither_typer_nor_rich() -> None:
    done = python(
        "import sys, holdfast, holdfast.cli; print([m for m in ('typer', 'rich', 'click') if m in sys.modules])"
    )

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from holdfast.cli import main; sys.exit(main(['ls', 'x']))"

    done = python(code)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "holdfast: the command line needs typer and rich: pip install 'holdfast[cli]'\n"


def test_a_broken_module_of_ours_is_not_taken_for_a_missing_extra() -> None:
    code = "import sys; sys.modules['holdfast.cli.app'] = None; from holdfast.cli import main; main(['ls', 'x'])"

    assert "ModuleNotFoundError" in python(code).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(command: str) -> None:
    called = call(command, "--help")

    assert called.status == 0
    assert f"\n    $ holdfast {command} " in called.out
    assert "--json" in called.out
    assert call(command, "-h").out == called.out


def test_help_lists_commands_and_exit_statuses() -> None:
    out = call("--help").out

    for command in COMMANDS:
        assert f"\n  {command} " in out
    for status in range(4):
        assert f"\n    {status}  " in out


def test_without_a_command_help_is_shown_and_nothing_was_done() -> None:
    called = call()

    assert (called.status, called.out) == (2, "")
    assert "Commands:" in called.err


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["ls"], ["ls", "a", "b"], ["ls", "--frob", "x"], ["diff", "x"], ["--frob"]]
)
def test_wrong_arguments_are_a_usage_error(arguments: list[str]) -> None:
    called = call(*arguments)
    told = call(*arguments, "--json")

    assert (called.status, called.out) == (2, "")
    assert called.err.startswith("Usage: holdfast")
    assert (told.status, told.err) == (2, "")
    assert told.json["error"]["type"] == "UsageError"
    assert told.json["error"]["message"]


def test_json_after_two_dashes_is_a_path() -> None:
    called = call("ls", "--", "--json")

    assert (called.status, called.out) == (2, "")
    assert "--json does not exist" in called.err


def test_errors_in_json_have_type_message_and_fields(run: str) -> None:
    damage(f"{run}/checkpoint_2/trainer_0.json", 30)

    called = call("show", run, "--json")

    assert (called.status, called.err) == (1, "")
    assert called.json.keys() == {"error"}
    error = called.json["error"]
    assert error.keys() == {"type", "message", "path", "variables"}
    assert (error["type"], error["variables"]) == ("CorruptCheckpointError", [])
    assert error["path"] == os.path.realpath(f"{run}/checkpoint_2/trainer_0.json")


def test_a_refusal_of_the_system_is_3_and_no_traceback(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: holdfast.LocalStore, path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(holdfast.LocalStore, "open", refuse)

    called = call("show", run)
    told = call("show", run, "--json")

    assert (called.status, called.out) == (3, "")
    assert called.err.startswith("holdfast: cannot ")
    assert "Traceback" not in called.err
    assert told.status == 3
    assert (told.json["error"]["type"], told.json["error"]["errno"]) == ("StorageError", 13)


def test_a_bug_is_3_with_a_traceback_and_never_1(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdfast, "verify", lambda *_, **__: 1 / 0)

    called = call("verify", run, "--json")

    assert called.status == 3
    assert "ZeroDivisionError" in called.err
    assert called.json["error"]["type"] == "ZeroDivisionError"


def test_an_interrupt_is_130_and_no_traceback(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(holdfast, "verify", interrupt)

    called = call("verify", run)

    assert (called.status, called.err) == (130, "holdfast: interrupted\n")


def test_output_that_nobody_reads_is_141_and_no_traceback(run: str) -> None:
    command = [sys.executable, "-m", "holdfast", "show", run]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, "")


def test_output_on_a_full_disk_is_said_and_no_bug(run: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "holdfast", "show", run]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment())

    assert (done.returncode, done.stderr) == (3, "holdfast: cannot write the output: No space left on device\n")


def test_json_is_one_line_in_a_pipe(run: str) -> None:
    out = call_process("verify", "--all", run, "--json").out

    assert out.count("\n") == 1
    assert json.loads(out)["ok"] is True
