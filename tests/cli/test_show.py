"""`holdfast show`."""

import os
import re
from pathlib import Path

import numpy as np

import holdfast
from cli.calling import call, damage, rewrite_manifest, state_at


def test_show_lists_variables_by_kind_with_totals(run: str) -> None:
    called = call("show", run)

    lines = called.out.splitlines()
    assert called.status == 0
    assert lines[0] == "runs/digits/checkpoint_2"
    assert re.match(r"step 20, saved \d{4}-\d\d-\d\d \d\d:\d\d UTC \(\d+ s ago\), by holdfast ", lines[1])
    assert lines[2] == "metrics: loss=0.047619"
    assert [line.split() for line in lines[4:12]] == [
        ["DTYPE", "SHAPE", "BYTES", "NAME"],
        ["Parameters,", "trainable:", "2", "variables,", "36", "B"],
        ["F32", "(3,)", "12", "model.fc.bias"],
        ["F32", "(2,", "3)", "24", "model.fc.weight"],
        ["Parameters,", "frozen:", "1", "variable,", "16", "B"],
        ["F16", "(4,", "2)", "16", "frozen.embedding"],
        ["Other", "persistables:", "1", "variable,", "24", "B"],
        ["F64", "(3,)", "24", "adam.m"],
    ]
    assert lines[12] == "All: 4 variables, 76 B"


def test_show_lists_trainer_arguments_values_and_files(run: str) -> None:
    out = call("show", run).out

    assert '\nTrainer arguments\n  epoch = 2\n  tag = ("a", nan)\n' in out
    assert "\nValues\n  adam.step = 20\n" in out
    assert re.search(r"\nFiles: 5 files, [\d.]+ KiB\n", out)
    assert re.search(r"\n +[\d,]+  trainer_0.json\n", out)


def test_show_takes_a_serial_or_the_checkpoint_itself(run: str) -> None:
    for path in (f"{run}@1", f"{run}/checkpoint_1"):
        assert call("show", path, "--json").json["serial"] == 1


def test_show_json_has_the_documented_keys(run: str) -> None:
    found = call("show", run, "--json").json

    assert found.pop("path") == os.path.realpath(f"{run}/checkpoint_2")
    assert found.pop("created").endswith("Z")
    assert found.pop("writer") == f"holdfast {holdfast.__version__}"
    assert {f["name"] for f in found.pop("files")} == {
        p for p in os.listdir(f"{run}/checkpoint_2") if p != "manifest.json"
    }
    assert found.pop("variables")[1] == {
        "name": "model.fc.weight", "kind": "parameter", "trainable": True, "dtype": "F32", "shape": [2, 3], "bytes": 24,
    }  # fmt: skip
    assert found == {
        "serial": 2,
        "content": "checkpoint",
        "step": 20,
        "world_size": 1,
        "metrics": {"loss": 1 / 21},
        "totals": {
            "parameter": {"variables": 3, "bytes": 52},
            "persistable": {"variables": 1, "bytes": 24},
            "all": {"variables": 4, "bytes": 76},
        },
        "trainers": [
            {
                "trainer_id": 0,
                "trainer_args": {"epoch": 2, "tag": {"$tuple": ["a", {"$float": "nan"}]}},
                "values": {"adam.step": 20},
            }
        ],
    }


def test_show_of_a_safetensors_file_claims_no_kinds(run: str) -> None:
    path = f"{run}/checkpoint_2/model-00001-of-00002.safetensors"

    found = call("show", path, "--json").json

    assert found["path"] == os.path.realpath(path)
    assert (found["serial"], found["content"], found["created"], found["trainers"]) == (None, None, None, [])
    assert [(v["name"], v["kind"], v["trainable"]) for v in found["variables"]] == [
        ("model.fc.bias", None, None),
        ("model.fc.weight", None, None),
    ]
    assert found["totals"] == {"all": {"variables": 2, "bytes": 36}}
    assert "it records no kinds and no digests" in call("show", path).out


def test_show_abbreviates_values_but_not_in_json(run: str) -> None:
    state = {
        "rng": np.random.default_rng(0),
        "notes": "n" * 5000,
        "p": np.float32(0.5),
        "table": [1, {"a": (1,)}],
        "1": {2: 3},
    }
    holdfast.save_checkpoint(state, "runs/values")

    out = call("show", "runs/values").out

    assert "  rng = state of a numpy.random.Generator\n" in out
    assert f'  notes = "{"n" * 198}…\n' in out
    assert call("show", "runs/values", "--json").json["trainers"][0]["values"]["notes"] == "n" * 5000


def test_show_of_a_checkpoint_without_trainer_or_step(run: str) -> None:
    holdfast.save_params(state_at(0), "model")

    out = call("show", "model").out

    assert "Trainer" not in out
    assert "step" not in out


def test_show_of_an_older_serial_that_is_gone_says_what_is_there(run: str) -> None:
    called = call("show", f"{run}@7")

    assert called.status == 2
    assert "no checkpoint_7 in " in called.err
    assert "the complete ones are 2, 1, 0" in called.err


def test_show_of_a_damaged_manifest_finds_damage(run: str) -> None:
    damage(f"{run}/checkpoint_2/manifest.json", 300)

    called = call("show", f"{run}@2")

    assert (called.status, called.out) == (1, "")
    assert "is damaged" in called.err


def test_show_of_what_is_no_safetensors_file(run: str) -> None:
    Path("notes.txt").write_text("these are notes")

    called = call("show", "notes.txt")

    assert called.status == 1
    assert "is not a safetensors file" in called.err


def test_show_of_several_trainers_tells_them_apart(run: str) -> None:
    from spec.independent import SpecVariable, build_checkpoint, write_folder

    variable = SpecVariable("w", "parameter", True, np.zeros(1, "f4"))
    trainers = [({"epoch": 1}, {"cursor": 10}), ("text", {"cursor": 20})]
    write_folder(build_checkpoint([variable], {"model.safetensors": ["w"]}, trainers=trainers), "runs/two/checkpoint_0")

    out = call("show", "runs/two").out

    assert "2 trainers" in out.splitlines()[1]
    assert '\nTrainer arguments of trainer 1\n  "text"\n' in out
    assert "\nValues of trainer 1\n  cursor = 20\n" in out


def test_show_refuses_a_newer_version_without_calling_it_damage(run: str) -> None:
    rewrite_manifest(f"{run}/checkpoint_2", version=[2, 0])

    called = call("show", f"{run}@2")

    assert called.status == 3
    assert "upgrade holdfast" in called.err
