"""`holdfast convert`."""

import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import holdfast
from cli.calling import call, state_at
from holdfast.interop import checkpoint_tree, combined, fluid_folder, pdparams
from interop.truth import FLUID, PADDLE, arrays, meta, same, values

TREE = FLUID / "checkpoint_layout" / "model"
KEYS = {"source", "source_kind", "source_serial", "path", "kind", "serial", "variables", "bytes"}
KEYS |= {"values", "left_out", "notes"}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(path: str, serial: int | None = None) -> dict[str, np.ndarray]:
    with holdfast.open(path, serial=serial) as checkpoint:
        return checkpoint.read()


def test_an_old_checkpoint_becomes_one_of_a_run() -> None:
    called = call("convert", TREE, "run")

    assert called.status == 0
    assert "(fluid-checkpoints) to run@0 (holdfast): 33 variables, 6 parameters among them" in called.out
    assert "left out: arguments of trainer 1\n" in called.out
    found, truth = held("run"), values(FLUID / "checkpoint_layout")
    assert all(same(found[name], truth[name]) for name in truth)
    assert found["__lookup_table__/table_pserver_1@ROWS"].tolist() == [1, 3, 9]
    with holdfast.open("run") as checkpoint:
        assert checkpoint.trainer_args == {"epoch_id": "1", "step_id": "10"}
        parameters = {n for n, v in checkpoint.variables.items() if v.kind == "parameter"}
    entries = meta(FLUID / "checkpoint_layout")["vars"]
    assert parameters == {name for name, entry in entries.items() if entry["kind"] == "Parameter"}


@pytest.mark.parametrize("arguments", [(f"{TREE}@0",), (TREE, "--serial", "0"), (TREE / "checkpoint_0",)])
def test_an_older_checkpoint_by_its_serial(arguments: tuple) -> None:
    path, *options = arguments
    found = call("convert", path, "run", *options, "--json").json

    assert (found["source_serial"], found["serial"]) == (0, 0)
    truth = arrays(FLUID / "checkpoint_layout")
    assert same(held("run")["fc_0.w_0"], truth[meta(FLUID / "checkpoint_layout")["checkpoint_0"]["fc_0.w_0"]])


def test_a_checkpoint_that_was_moved_elsewhere_is_read_too() -> None:
    shutil.copytree(TREE / "checkpoint_1", "final")

    assert call("convert", "final", "run", "--json").json["source_kind"] == "fluid-checkpoint"
    assert same(held("run")["fc_0.w_0"], values(FLUID / "checkpoint_layout")["fc_0.w_0"])


def test_back_and_forth_gives_the_same_tree() -> None:
    call("convert", TREE, "run")

    called = call("convert", "run", "tree", "--to", "fluid-checkpoint")

    assert called.status == 0, called.err
    original, made = TREE / "checkpoint_1", Path("tree/checkpoint_0")
    for path in original.rglob("*"):
        name = path.relative_to(original)
        if path.is_file() and path.name != "_SUCCESS" and name.parts[0] != "trainer_1":
            assert (made / name).read_bytes() == path.read_bytes()
    assert checkpoint_tree.serials("tree") == [0]
    assert call("convert", "run", "tree", "--to", "fluid-checkpoint", "--json").json["serial"] == 1


@pytest.mark.parametrize(
    "case", ["save_params", "save_persistables_adam_bn_decay", "lod", "selected_rows", "dtypes", "shapes", "names"]
)
def test_folders_there_and_back_byte_for_byte(case: str) -> None:
    model = FLUID / case / "model"

    assert call("convert", model, "new").status == 0
    assert call("convert", "new", "old").status == 0

    assert fluid_folder.variable_names("old") == fluid_folder.variable_names(model)
    for name in fluid_folder.variable_names(model):
        assert (Path("old") / name).read_bytes() == (model / name).read_bytes(), name


@pytest.mark.parametrize(
    ("source", "program", "original"),
    [
        (FLUID / "save_inference_model_combined/model", "model.pb", "weights.bin"),
        (FLUID / "save_inference_model_combined/model/weights.bin", "model.pb", "weights.bin"),
        (PADDLE / "jit_save/model/m.pdiparams", None, "m.pdiparams"),
        (PADDLE / "static_save_inference_model_pir/model", None, "m.pdiparams"),
        (PADDLE / "static_save_inference_model_legacy/model/m.pdiparams", None, "m.pdiparams"),
    ],
)
def test_combined_files_there_and_back_byte_for_byte(source: Path, program: str | None, original: str) -> None:
    folder = source if source.is_dir() else source.parent
    more = ["--program", folder / program] if program else []

    assert call("convert", source, "new", *more).status == 0
    assert call("convert", "new", "deep/old.bin", "--to", "fluid-combined").status == 0

    assert Path("deep/old.bin").read_bytes() == (folder / original).read_bytes()


def test_combined_files_with_a_list_of_names() -> None:
    case = FLUID / "save_persistables_momentum_combined"
    Path("names.txt").write_text("\n".join(meta(case)["combined_order"]) + "\n")

    called = call("convert", case / "model" / "__persistables__", "new", "--names", "names.txt", "--json")

    assert called.status == 0
    kinds = {v["name"]: v["kind"] for v in called.json["variables"]}
    assert kinds == {
        name: "parameter" if entry["kind"] == "Parameter" else "persistable"
        for name, entry in meta(case)["vars"].items()
    }
    assert all(same(held("new")[name], value) for name, value in values(case).items())


def test_combined_files_without_names_are_refused_with_what_to_do() -> None:
    called = call("convert", FLUID / "save_params_combined" / "model", "new")

    assert called.status == 2
    assert "--program" in called.err
    assert "--names" in called.err
    assert call("convert", FLUID / "save_params_combined" / "model", "new", "--names", "absent").status == 2
    Path("few.txt").write_text("a\nb\n")
    called = call("convert", FLUID / "save_params_combined" / "model", "new", "--names", "few.txt")
    assert called.status == 3
    assert "holds 6 variables, 2 names are given" in called.err
    assert not os.path.exists("new")


def test_a_model_whose_weights_are_in_one_file_beside_its_program() -> None:
    source = FLUID / "save_inference_model_combined" / "model"
    os.mkdir("model")
    shutil.copy(source / "model.pb", "model/__model__")
    shutil.copy(source / "weights.bin", "model/weights")

    assert call("convert", "model", "new", "--json").json["source_kind"] == "fluid-model"
    assert sorted(held("new")) == sorted(meta(FLUID / "save_inference_model_combined")["vars"])


def test_a_pair_of_pickles_by_what_their_names_begin_with() -> None:
    called = call("convert", PADDLE / "paddle_save/model/net", "new", "--json")

    found = called.json
    assert found["left_out"] == ["the names of variables in net.pdparams"]
    assert (found["values"], found["serial"]) == (["LR_Scheduler"], 0)
    kinds = [v["kind"] for v in found["variables"]]
    assert (kinds.count("parameter"), kinds.count("persistable")) == (8, 24)
    assert call("convert", "new", "back/net", "--to", "pdparams").status == 0
    for part in ("pdparams", "pdopt"):
        original = pdparams.read(PADDLE / f"paddle_save/model/net.{part}").arrays
        again = pdparams.read(f"back/net.{part}").arrays
        assert sorted(again) == sorted(original)
        assert all(same(again[name], original[name]) for name in original)
    values = pdparams.read(PADDLE / "paddle_save/model/net.pdopt").values
    assert pdparams.read("back/net.pdopt").values == values == {"LR_Scheduler": {"last_epoch": 5, "last_lr": 0.0025}}
    with holdfast.open("new") as checkpoint:
        assert checkpoint.trainer()[1] == values


def test_values_of_pickles_are_those_of_a_checkpoint_and_tables_of_names_are_none() -> None:
    weights, moments = {"w": np.ones(2, np.float32)}, {"w_moment1_0": np.zeros(2, np.float32)}
    plain = {"epoch": 3, "history": [0.5, float("inf")], "t": (1, "x"), "none": None, "1": {7: True}}
    table = {"StructuredToParameterName@@": {"fc.weight": "w"}}
    pdparams.write("m.pdparams", {}, values={"model": weights | table, "seed": 1, "same": {"a": 1}, **plain})
    pdparams.write("m.pdopt", moments, values={"LR_Scheduler": {"last_epoch": 2, "last_lr": 0.1}, "same": {"a": 1}})

    called = call("convert", "m", "run", "--json")

    assert called.json["left_out"] == ["the names of variables in m.pdparams"]
    wanted = {**plain, "seed": 1, "same": {"a": 1}, "LR_Scheduler": {"last_epoch": 2, "last_lr": 0.1}}
    assert sorted(called.json["values"]) == sorted(wanted)
    with holdfast.open("run") as checkpoint:
        assert {n: v.kind for n, v in checkpoint.variables.items()} == {
            "model.w": "parameter",
            "w_moment1_0": "persistable",
        }
        assert checkpoint.trainer()[1] == wanted
    pdparams.write("m.pdopt", moments, values={"seed": 2})
    assert "both hold seed; convert them one by one" in call("convert", "m", "other").err


def test_one_of_a_pair_of_pickles_is_enough() -> None:
    holdfast.save_checkpoint({"moment": np.ones(2, np.float32), "epoch": 3}, "run")
    assert call("convert", "run", "m", "--to", "pdparams").status == 0

    assert sorted(os.listdir()) == ["m.pdopt", "run"]
    assert call("convert", "m", "again", "--json").json["values"] == ["epoch"]


def test_values_that_paddle_s_pickles_cannot_hold_are_left_out_and_said() -> None:
    values = {"best": np.float64(0.5), "keys": {(1, 2): 3}, "big": 1 << 4000, "rng": np.random.default_rng(0)}
    holdfast.save_checkpoint({"w": holdfast.parameters(np.ones(2, np.float32)), "epoch": 3, **values}, "run")

    called = call("convert", "run", "m", "--to", "pdparams", "--json")

    assert (called.status, sorted(called.json["values"])) == (0, ["best", "epoch"])
    assert sorted(called.json["left_out"]) == [
        "value big: an integer of 4,001 bits is too large for such a file",
        "value keys: a dict has the key (1, 2), and keys are texts and small integers",
        "value rng: it has the state of a random number generator in it",
    ]
    assert pdparams.read("m.pdopt").values == {"epoch": 3, "best": 0.5}
    assert call("convert", "m", "again").status == 0


def test_of_a_pair_of_pickles_none_is_written_if_one_cannot_be() -> None:
    holdfast.save_checkpoint({"w": holdfast.parameters(np.ones(2, ml_dtypes.bfloat16)), "m": np.ones(2)}, "run")

    called = call("convert", "run", "m", "--to", "pdparams")

    assert (called.status, "'w': Fluid's files cannot hold bfloat16" in called.err) == (3, True)
    assert sorted(os.listdir()) == ["run"]
    assert call("convert", "run", "m", "--to", "pdparams", "--paddle").status == 0


def test_bfloat16_of_pickles_is_named_by_the_caller() -> None:
    source = PADDLE / "dtypes/model/all.pdparams"

    assert call("convert", source, "plain").status == 0
    assert call("convert", source, "named", "--bfloat16", "v_bfloat16").status == 0
    assert call("convert", source, "all", "--bfloat16", "*").status == 0

    assert held("plain")["v_bfloat16"].dtype == np.uint16
    assert held("named")["v_bfloat16"].dtype == held("all")["v_bfloat16"].dtype == ml_dtypes.bfloat16
    called = call("convert", "named", "old")
    assert called.status == 3
    assert "'v_bfloat16': Fluid's files cannot hold bfloat16" in called.err
    assert call("convert", "named", "old", "--paddle").status == 0
    assert same(fluid_folder.read_variables("old")["v_bfloat16"].array, held("named")["v_bfloat16"])


def test_a_distributed_folder_and_a_single_file() -> None:
    assert call("convert", PADDLE / "distributed/model", "a").status == 0
    assert call("convert", FLUID / "save_params/model/fc_0.w_0", "b").status == 0
    assert call("convert", FLUID / "selected_rows/model/table", "c").status == 0

    assert len(held("a")) == 8
    assert list(held("b")) == ["fc_0.w_0"]
    assert sorted(held("c")) == ["table", "table@HEIGHT", "table@ROWS"]


def test_old_files_become_other_old_files() -> None:
    assert call("convert", FLUID / "save_params/model", "w.bin", "--to", "fluid-combined").status == 0

    names = meta(FLUID / "save_params")["vars"]
    assert all(same(v.array, values(FLUID / "save_params")[n]) for n, v in combined.read("w.bin", names).items())


def test_a_run_of_holdfast_becomes_a_folder_of_fluid_and_says_what_is_left_out() -> None:
    holdfast.save_checkpoint(state_at(3), "run", trainer_args={"epoch_id": 2, "loss": 0.5})

    called = call("convert", "run@0", "old", "--json")

    assert called.json.keys() == KEYS
    assert called.json["source_serial"] == 0
    assert called.json["left_out"] == ["value adam.step", "arguments of trainer 0"]
    found = fluid_folder.read_variables("old")
    assert sorted(found) == ["adam.m", "frozen.embedding", "model.fc.bias", "model.fc.weight"]
    assert found["model.fc.weight"].array[0, 1] == 4
    assert call("convert", "run", "tree", "--to", "fluid-checkpoint").status == 0
    assert checkpoint_tree.read("tree").trainers == {0: {"epoch_id": "2", "loss": "0.5"}}


def test_trainer_arguments_that_fluid_cannot_hold_are_said() -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, "run", trainer_args=[1, 2])

    called = call("convert", "run", "tree", "--to", "fluid-checkpoint")

    assert "left out: arguments of trainer 0: Fluid's are texts under names" in called.out


def test_persistable_patterns() -> None:
    called = call(
        "convert", FLUID / "save_params/model", "new", "--persistable", "fc_2.*", "--persistable", "*.b_0", "--json"
    )

    kinds = {v["name"]: v["kind"] for v in called.json["variables"]}
    assert [name for name, kind in kinds.items() if kind == "parameter"] == ["fc_0.w_0", "fc_1.w_0"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("absent", "x"), 2, "does not exist"),
        ((FLUID / "fluid_save", "x"), 2, "is not recognised"),
        ((FLUID / "save_params" / "model", "x", "--serial", "1"), 2, "has no serials"),
        ((f"{TREE}@0", "x", "--serial", "1"), 2, "--serial says 1"),
        ((f"{TREE}@2", "x"), 2, "incomplete [2]"),
        ((FLUID / "save_inference_model" / "model" / "__model__", "x"), 2, "is a program, without values"),
        ((FLUID / "save_params" / "model", "x", "--to", "torch"), 2, "must be one of"),
        (("mine", "x", "--to", "holdfast"), 2, "is Holdfast's already"),
        (("mine", "taken"), 2, "never overwritten"),
        (("mine", "taken/file", "--to", "fluid-combined"), 2, "never overwritten"),
        (("mine", "taken/file", "--to", "pdparams"), 2, "never overwritten"),
        ((FLUID / "save_params" / "model", "taken"), 2, "holds no save of Holdfast"),
        (("cut", "x"), 1, "cut off"),
    ],
)
def test_what_is_refused(arguments: tuple, status: int, said: str) -> None:
    holdfast.save_params({"w": np.zeros(2, np.float32)}, "mine")
    os.mkdir("taken")
    for name in ("file", "file.pdparams"):
        Path("taken", name).write_text("mine")
    os.mkdir("cut")
    Path("cut/w").write_bytes((FLUID / "save_params/model/fc_0.w_0").read_bytes()[:-1])

    called = call("convert", *arguments)

    assert (called.status, called.out) == (status, "")
    assert said in called.err
    assert not os.path.exists("x")
    assert Path("taken/file").read_text() == "mine"


def test_hostile_pickles_are_refused_and_nothing_is_executed() -> None:
    Path("evil.pdparams").write_bytes(b"\x80\x02cos\nsystem\n(X\x05\x00\x00\x00touch x\x85tR.")

    called = call("convert", "evil.pdparams", "new", "--json")

    assert called.status == 1
    assert called.json["error"]["type"] == "FormatError"
    assert sorted(os.listdir()) == ["evil.pdparams"]
