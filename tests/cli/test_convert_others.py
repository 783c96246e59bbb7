"""`holdfast convert` of files of other libraries than Fluid and Paddle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import holdfast
from cli.calling import call, environment, state_at
from interop.golden import HERE, model, narrow
from interop.truth import same

EVERYTHING = {**model(), **narrow()}
OF_TRAINING = ["optimizer.param_groups", "epoch"]
LIBRARIES = {"orbax": "orbax.checkpoint"}  # kinds that are not read without one


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(path: str) -> dict[str, np.ndarray]:
    with holdfast.open(path) as checkpoint:
        return checkpoint.read()


@pytest.mark.parametrize(
    ("source", "kind", "prefix", "wanted", "others", "values"),
    [
        ("plain.npz", "npz", "", model(), 0, []),
        ("sharded", "huggingface", "", EVERYTHING, 0, []),
        ("bins", "huggingface", "", EVERYTHING, 0, []),
        ("new.pt", "torch", "model.", EVERYTHING, 1, OF_TRAINING),
        ("dcp", "dcp", "model.", EVERYTHING, 1, OF_TRAINING),
        ("orbax", "orbax", "params.", EVERYTHING, 1, ["note"]),
    ],
)  # fmt: skip
def test_a_source_becomes_a_folder_or_a_checkpoint_of_a_run_if_it_has_values(
    source: str, kind: str, prefix: str, wanted: dict, others: int, values: list[str]
) -> None:
    if library := LIBRARIES.get(kind):
        pytest.importorskip(library, reason=f"{library} is not installed")

    called = call("convert", HERE / source, "made", "--json")

    assert called.status == 0, called.err
    assert (called.json["source_kind"], called.json["kind"], called.json["left_out"]) == (kind, "holdfast", [])
    assert (called.json["values"], called.json["serial"]) == (values, 0 if values else None)
    assert os.path.isdir("made/checkpoint_0") == bool(values)
    assert [v["kind"] for v in called.json["variables"]].count("persistable") == others
    found = held("made")
    assert all(same(found[prefix + name], array) for name, array in wanted.items())


def test_a_training_script_s_file_is_a_checkpoint_with_names_as_holdfast_gives_them() -> None:
    called = call("convert", HERE / "training.pt", "made", "--json")

    names = [f"{layer}.{name}" for layer in (0, 1) for name in ("weight", "bias")]
    assert called.json["notes"] == ["args: argparse.Namespace is carried over as a dict of its attributes"]
    with holdfast.open("made") as checkpoint:
        variables = {name: (v.kind, v.trainable) for name, v in checkpoint.variables.items()}
        values = checkpoint.trainer()[1]
    assert {n for n, (kind, _) in variables.items() if kind == "persistable"} == {
        f"optimizer.{slot}.{name}" for slot in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    assert {n for n, mark in variables.items() if mark == ("parameter", False)} == {
        f"model.1.{buffer}" for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert values["optimizer"]["param_groups"][0]["params"] == [f"model.{name}" for name in names]
    assert values["optimizer"]["state"]["model.0.bias"]["exp_avg"].value == "optimizer.exp_avg.0.bias"
    assert (values["epoch"], values["schedule"]["milestones"]) == (3, {2: 1, 4: 2})


def test_a_converted_folder_is_loaded_in_place() -> None:
    call("convert", HERE / "sharded", "made")
    target = {name: np.zeros_like(array) for name, array in EVERYTHING.items()}

    holdfast.load_params(target, "made")

    assert all(same(target[name], array) for name, array in EVERYTHING.items())


def test_a_safetensors_file_becomes_a_folder() -> None:
    safetensors.numpy.save_file(model(), "m.safetensors")

    called = call("convert", "m.safetensors", "made", "--json")

    assert (called.json["source_kind"], called.json["kind"]) == ("safetensors", "holdfast")
    assert all(same(held("made")[name], array) for name, array in model().items())
    assert call("convert", "m.safetensors", "made.npz", "--to", "npz").status == 0


def test_names_that_are_no_parameters_are_said_by_patterns() -> None:
    found = call("convert", HERE / "plain.npz", "made", "--persistable", "count", "--json").json

    assert {v["name"]: v["kind"] for v in found["variables"]}["count"] == "persistable"


def test_a_single_array_becomes_a_folder_of_one_variable() -> None:
    np.save("bias.npy", narrow()["bf16"])

    assert "--bfloat16 NAME" in call("convert", "bias.npy", "made").err
    assert not os.path.exists("made")
    called = call("convert", "bias.npy", "made", "--bfloat16", "bias", "--json")
    assert (called.json["source_kind"], called.json["kind"], called.json["left_out"]) == ("npy", "holdfast", [])
    assert list(held("made")) == ["bias"]
    assert same(held("made")["bias"], narrow()["bf16"])


def test_bfloat16_of_npz_is_named_by_the_caller() -> None:
    assert "--bfloat16" in call("convert", HERE / "packed.npz", "made").err
    assert call("convert", HERE / "packed.npz", "made", "--bfloat16", "absent").status == 2
    assert call("convert", HERE / "packed.npz", "made", "--bfloat16", "bf16").status == 0
    assert same(held("made")["bf16"], narrow()["bf16"])


def test_to_npz() -> None:
    holdfast.save_checkpoint(state_at(3), "run")

    called = call("convert", "run", "made.npz", "--to", "npz")

    assert called.status == 0, called.err
    assert "left out: value adam.step" in called.out
    with np.load("made.npz") as found:
        assert all(same(found[name], array) for name, array in held("run").items())
    again = call("convert", "run", "made.npz", "--to", "npz")
    assert (again.status, "never overwritten" in again.err) == (2, True)


def test_to_pt() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    holdfast.save_params(EVERYTHING, "mine")

    assert call("convert", "mine", "made.pt", "--to", "pt").status == 0
    assert torch.load("made.pt", weights_only=True)["bf16"].dtype == torch.bfloat16
    assert call("convert", "made.pt", "again").status == 0
    assert all(same(held("again")[name], array) for name, array in EVERYTHING.items())
    assert call("convert", "mine", "made.pt", "--to", "pt").status == 2


def test_values_of_a_checkpoint_come_back_from_pt_as_they_were() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = {
        "epoch": 3,
        "history": [0.5, float("inf")],
        "t": (1, "x"),
        "none": None,
        "cfg": {"a": {7: True, (1, 2): "b"}},
    }
    refused = {"rng": np.random.default_rng(0), "big": 1 << 4000}
    arrays = {"w": holdfast.parameters(np.ones(2, np.float32)), "adam": {"m": np.zeros(2), "step": 3}}
    holdfast.save_checkpoint({**arrays, **values, **refused, "best": np.float32(0.5)}, "run", trainer_args={"a": 1})

    called = call("convert", "run", "made.pt", "--to", "pt", "--json")

    assert called.status == 0, called.err
    assert sorted(called.json["left_out"]) == [
        "arguments of trainer 0",
        "value big: it has an integer of more than 2,039 bits, which PyTorch does not read",
        "value rng: it has the state of a random number generator in it",
    ]
    found = torch.load("made.pt", weights_only=True)
    assert (found.pop("w").tolist(), found.pop("adam.m").tolist()) == ([1, 1], [0, 0])
    assert found == {**values, "adam.step": 3, "best": 0.5}
    assert sorted(called.json["values"]) == sorted(found)
    assert call("convert", "made.pt", "again").status == 0
    with holdfast.open("again") as checkpoint:
        assert checkpoint.trainer()[1] == found


@pytest.mark.parametrize("is_run", [True, False])
def test_second_names_are_in_pt_and_said_elsewhere(is_run: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    (holdfast.save_checkpoint if is_run else holdfast.save_params)({"m": model}, "mine")

    assert call("convert", "mine", "made.pt", "--to", "pt", "--json").json["left_out"] == []
    found = torch.load("made.pt", weights_only=True)
    assert found["m.b.weight"].data_ptr() == found["m.a.weight"].data_ptr()
    assert call("convert", "mine", "b.pt", "--to", "pt", "--part", "m.b", "--json").json["left_out"] == ["part m"]
    assert torch.load("b.pt", weights_only=True).keys() == {"weight", "bias"}
    called = call("convert", "mine", "made.npz", "--to", "npz", "--json")
    assert called.json["left_out"] == ["name m.b.weight: a second one of 'm.a.weight'"]


def test_a_step_of_orbax_by_its_number() -> None:
    pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
    os.mkdir("run")
    for step in ("1", "12"):
        shutil.copytree(HERE / "orbax", f"run/{step}/default")

    assert call("convert", "run", "newest", "--json").json["source_serial"] == 12
    assert call("convert", "run@1", "first", "--json").json["source_serial"] == 1
    assert call("convert", "run", "second", "--serial", "1").status == 0
    assert call("convert", "run@2", "third").status == 2
    assert call("convert", "run/12", "fourth", "--json").json["source_kind"] == "orbax"
    with holdfast.open("newest") as checkpoint:
        assert checkpoint.manifest.step == 12


@pytest.mark.parametrize(("source", "library", "to"), [("orbax", "orbax", "holdfast"), ("plain.npz", "torch", "pt")])
def test_without_the_library_the_command_that_installs_it_is_said(source: str, library: str, to: str) -> None:
    block = f"import sys; sys.modules[{library!r}] = None; from holdfast.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", block, "convert", HERE / source, "made", "--to", to],
        capture_output=True,
        text=True,
        env=environment(),
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'holdfast[{library}]'" in done.stderr
    assert not os.path.exists("made")


def test_a_hostile_index_is_damage() -> None:
    shutil.copytree(HERE / "sharded", "bad")
    index = Path("bad/model.safetensors.index.json")
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))

    called = call("convert", "bad", "made")

    assert (called.status, called.out) == (1, "")
    assert "only .safetensors files beside it can be meant" in called.err
    assert not os.path.exists("made")


@pytest.mark.parametrize("source", ["new.pt", "legacy.pt", "plain.npz", "dcp", "orbax", "sharded"])
def test_open_and_load_say_that_it_has_to_be_converted(source: str) -> None:
    path = HERE / source
    for attempt in (holdfast.open, lambda path: holdfast.load_params({"w": np.zeros(1)}, path)):
        with pytest.raises((holdfast.FormatError, holdfast.CheckpointNotFoundError), match="holdfast convert"):
            attempt(path)


def test_open_says_nothing_of_converting_where_that_would_not_help() -> None:
    holdfast.save_params(model(), "mine")
    holdfast.save_checkpoint(model(), "run")
    data = Path("mine/model.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(data[:-1])
    Path("text").write_text("text, no file of any library")
    for path in ("mine/manifest.json", "run/checkpoint_0/manifest.json"):
        Path(path).unlink()
    Path("damaged").mkdir()
    shutil.copy("mine/model.safetensors", "damaged")
    Path("damaged/manifest.json").write_text("{}")

    for path in ("cut.safetensors", "text", "absent", "run", "run/checkpoint_0", "damaged"):
        with pytest.raises((holdfast.FormatError, holdfast.CheckpointNotFoundError)) as caught:
            holdfast.open(path)
        assert "convert" not in str(caught.value), path
