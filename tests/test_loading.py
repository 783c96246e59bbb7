"""Loading: everything is compared first; what fails leaves every byte of the target as it was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import holdfast
from holdfast import (
    CastError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FormatError,
    MismatchError,
    UnsupportedVariableError,
    dtypes,
    parameters,
    temporary,
)
from support import contents, flip_bit, tree_of


def state(fill: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """A training state; `fill` and `seed` say what is in it."""
    fill = float(fill)
    return {
        "model": parameters(
            {"fc": {"weight": np.full((4, 3), fill, np.float32), "bias": np.full(4, fill, np.float32)}}
        ),
        "optimizer": {"m": [np.full((4, 3), fill), np.full(4, fill)], "step": np.array(int(fill), np.int64)},
        "rng": np.random.default_rng(seed),
        "history": [fill, {"best": fill}],
        "epoch": int(fill),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints 0 and 1, which no test changes."""
    path = tmp_path_factory.mktemp("loading") / "run"
    holdfast.save_checkpoint(state(1, 1), path, step=10, metrics={"loss": 0.5}, trainer_args={"epoch_id": 1})
    holdfast.save_checkpoint(state(2, 2), path, step=20, metrics={"loss": 0.25}, trainer_args={"epoch_id": 2})
    return path


# What a load gives


def test_load_checkpoint_gives_back_the_whole_state(run: Path) -> None:
    target = state()

    report = holdfast.load_checkpoint(target, run)

    assert contents(target) == contents(state(2, 2))
    assert (report.path, report.serial, report.step) == (str(run / "checkpoint_1"), 1, 20)
    assert (report.trainer_args, report.metrics) == ({"epoch_id": 2}, {"loss": 0.25})
    assert report.verified
    assert report.nbytes == 48 + 16 + 96 + 32 + 8 == sum(v.nbytes for v in report.loaded)
    assert report.seconds > 0
    assert set(report.values) == {"rng", "history", "epoch"}
    assert (report.skipped, report.missing, report.unexpected) == ((), (), ())


def test_report_says_what_was_loaded_from_where(run: Path) -> None:
    target = state()
    target["optimizer"]["m"][1] = np.zeros(4, np.float32)

    report = holdfast.load_checkpoint(target, run, cast="allow")

    loaded = {v.name: v for v in report.loaded}
    assert loaded["model.fc.weight"] == holdfast.LoadedVariable(
        "model.fc.weight", "model.fc.weight", "model.safetensors", 48
    )
    assert loaded["optimizer.m.1"] == holdfast.LoadedVariable(
        "optimizer.m.1", "optimizer.m.1", "state-00001-of-00001.safetensors", 32, "F64"
    )


def test_serial_chooses_the_checkpoint(run: Path) -> None:
    target = state()

    assert holdfast.load_checkpoint(target, run, serial=0).step == 10
    assert contents(target) == contents(state(1, 1))


def test_checkpoint_folder_itself_is_loaded(run: Path) -> None:
    target = state()

    assert holdfast.load_checkpoint(target, run / "checkpoint_0").serial == 0
    assert target["epoch"] == 1


def test_parameters_are_loaded_out_of_a_training_checkpoint(run: Path) -> None:
    target = {"model": parameters(state()["model"].tree)}

    report = holdfast.load_params(target, run)

    assert contents(target["model"]) == contents(state(2)["model"])
    assert (report.serial, report.values, report.trainer_args) == (1, (), None)
    assert holdfast.load_params(target, run, serial=0).serial == 0
    assert contents(target["model"]) == contents(state(1)["model"])


def test_load_params_leaves_everything_else_alone(run: Path) -> None:
    target = state(7, 7)

    holdfast.load_params(target, run)

    expected = state(7, 7)
    expected["model"] = state(2)["model"]
    assert contents(target) == contents(expected)


def test_load_params_takes_a_plain_dict_for_the_model(run: Path) -> None:
    target = state()["model"].tree

    holdfast.load_params({"model": target}, run)

    assert contents(target) == contents(state(2)["model"].tree)


def test_load_persistables_takes_all_arrays_and_no_value(run: Path) -> None:
    target = state(7, 7)

    report = holdfast.load_persistables(target, run)

    assert len(report.loaded) == 5
    assert (target["epoch"], target["history"]) == (7, [7, {"best": 7}])
    assert contents(target["optimizer"]) == contents(state(2)["optimizer"])


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"vars": ["optimizer.step"]}, {"optimizer.step"}),
        ({"vars": [holdfast.Variable("model.fc.bias", "parameter", True, "F32", (4,))]}, {"model.fc.bias"}),
        ({"predicate": lambda v: v.dtype == "F64"}, {"optimizer.m.0", "optimizer.m.1"}),
        ({"predicate": holdfast.is_parameter}, {"model.fc.weight", "model.fc.bias"}),
    ],
)
def test_load_vars_takes_what_is_chosen(options: dict[str, Any], changed: set[str], run: Path) -> None:
    target = state(7)

    report = holdfast.load_vars(target, run, **options)

    assert {v.name for v in report.loaded} == changed
    assert (target["model"].tree["fc"]["bias"][0] == 2) == ("model.fc.bias" in changed)
    assert (target["optimizer"]["step"] == 2) == ("optimizer.step" in changed)


def test_load_vars_of_what_the_target_lacks_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="does not hold: nothing"):
        holdfast.load_vars(state(), run, vars=["nothing"])


def test_load_vars_of_what_the_checkpoint_lacks_is_a_mismatch(run: Path) -> None:
    target = {**state(), "new": np.zeros(1)}

    with pytest.raises(MismatchError, match="'new' is not in the checkpoint"):
        holdfast.load_vars(target, run, vars=["new", "optimizer.step"])

    assert target["optimizer"]["step"] == 0


def test_load_vars_with_a_rename_that_also_names_others(run: Path) -> None:
    target = {"net": {"fc": {"bias": np.zeros(4, np.float32)}}}

    holdfast.load_vars(target, run, vars=["net.fc.bias"], rename={"model.": "net.", "optimizer.": "opt."})

    assert target["net"]["fc"]["bias"].tolist() == [2, 2, 2, 2]


def test_plain_safetensors_file_of_the_official_package_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(
        {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int8)}, path, {"made": "elsewhere"}
    )
    target = {"w": np.zeros((2, 3), np.float32), "b": np.array(0, np.int8)}

    report = holdfast.load_params(target, path)

    assert target["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert target["b"] == 3
    assert not report.verified
    assert report.path == str(path)
    assert {v.file for v in report.loaded} == {"theirs.safetensors"}


def test_parameter_files_are_read_by_the_official_package(run: Path) -> None:
    found = safetensors.numpy.load_file(run / "checkpoint_1" / "model.safetensors")

    assert {name: a.tolist() for name, a in found.items()} == {
        "model.fc.weight": [[2] * 3] * 4,
        "model.fc.bias": [2] * 4,
    }


def test_single_data_file_of_ours_is_loaded_as_anybodys(run: Path) -> None:
    target = {"model": {"fc": {"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(4, np.float32)}}}

    assert not holdfast.load_params(target, run / "checkpoint_1" / "model.safetensors").verified
    assert target["model"]["fc"]["bias"].tolist() == [2] * 4


# Strict, rename, skip


def test_every_difference_is_listed_at_once(run: Path) -> None:
    target = state(7, 7)
    target["model"].tree["fc"]["weight"] = np.zeros((3, 4), np.float32)
    target["model"].tree["fc"]["bias"] = np.zeros(4, np.float64)
    target["optimizer"]["mm"] = target["optimizer"].pop("m")
    del target["epoch"]
    target["epochs"] = 3
    target["rng"] = 5
    before = contents(target)

    with pytest.raises(MismatchError, match="does not match its target in 9 places; nothing was loaded") as caught:
        holdfast.load_checkpoint(target, run)

    error = caught.value
    assert error.named("shape") == ["model.fc.weight"]
    assert error.named("dtype") == ["model.fc.bias"]
    assert set(error.named("missing")) == {"optimizer.mm.0", "optimizer.mm.1", "epochs"}
    assert set(error.named("unexpected")) == {"optimizer.m.0", "optimizer.m.1", "epoch"}
    assert error.named("kind") == ["rng"]
    assert "F32 (4, 3), the target expects F32 (3, 4)" in str(error)
    assert "did you mean the checkpoint's 'optimizer.m.0'" in str(error)
    assert "did you mean the checkpoint's 'epoch'" in str(error)
    assert contents(target) == before


@pytest.mark.parametrize(
    ("strict", "names"), [("exact", {"missing", "unexpected"}), ("subset", {"missing"}), ("superset", {"unexpected"})]
)
def test_strict_modes(strict: Any, names: set[str], run: Path) -> None:
    target = {"model": state(7)["model"], "new": np.full(2, 9.0), "mine": "x"}
    before = contents(target)

    with pytest.raises(MismatchError) as caught:
        holdfast.load_checkpoint(target, run, strict=strict)

    assert {p.kind for p in caught.value.problems} == names
    assert contents(target) == before


def test_subset_takes_what_the_target_has(run: Path) -> None:
    target = {"model": state()["model"], "epoch": 0}

    report = holdfast.load_checkpoint(target, run, strict="subset")

    assert target["epoch"] == 2
    assert set(report.unexpected) == {"optimizer.m.0", "optimizer.m.1", "optimizer.step", "rng", "history"}
    assert report.missing == ()


def test_superset_leaves_the_rest_as_it_is(run: Path) -> None:
    target = {**state(), "new": np.full(2, 9.0), "mine": ["x"]}

    report = holdfast.load_checkpoint(target, run, strict="superset")

    assert target["new"].tolist() == [9, 9]
    assert target["mine"] == ["x"]
    assert report.missing == ("new", "mine")
    assert target["epoch"] == 2


@pytest.mark.parametrize(
    "rename",
    [{"model.": "net.", "epoch": "done"}, lambda name: {"epoch": "done"}.get(name, name.replace("model.", "net."))],
    ids=["mapping", "function"],
)
def test_rename_concerns_variables_and_values(rename: Any, run: Path) -> None:
    target = state()
    target["net"], target["done"] = target.pop("model"), target.pop("epoch")

    report = holdfast.load_checkpoint(target, run, rename=rename)

    assert target["done"] == 2
    assert target["net"].tree["fc"]["bias"].tolist() == [2] * 4
    assert {v.name: v.source for v in report.loaded}["net.fc.bias"] == "model.fc.bias"


def test_rename_of_values_only(run: Path) -> None:
    target = state()
    target["done"] = target.pop("epoch")

    holdfast.load_checkpoint(target, run, rename={"epoch": "done"})

    assert target["done"] == 2


def test_rename_of_what_is_not_there_is_refused(run: Path) -> None:
    target = state(7, 7)
    before = contents(target)

    with pytest.raises(ValueError, match="rename= names what the checkpoint does not hold: 'nothing'"):
        holdfast.load_checkpoint(target, run, rename={"nothing": "x"})

    assert contents(target) == before


def test_prefix_that_one_side_lacks_is_suggested(run: Path) -> None:
    target = parameters({"fc": {"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(4, np.float32)}})

    with pytest.raises(MismatchError, match=r"rename=\{'model.': ''\}"):
        holdfast.load_params(target, run)

    holdfast.load_params(target, run, rename={"model.": ""})
    assert target.tree["fc"]["bias"].tolist() == [2] * 4


def test_skip_leaves_names_alone(run: Path) -> None:
    target = state(7, 7)
    target["model"].tree["fc"]["weight"] = np.full((9, 9), 7.0)

    report = holdfast.load_checkpoint(target, run, skip=["model.fc.weight", "optimizer.*", "rng"])

    assert set(report.skipped) == {"model.fc.weight", "optimizer.m.0", "optimizer.m.1", "optimizer.step", "rng"}
    assert target["model"].tree["fc"]["weight"][0, 0] == 7
    assert target["model"].tree["fc"]["bias"][0] == 2
    assert target["optimizer"]["step"] == 7
    assert target["rng"].bit_generator.state == np.random.default_rng(7).bit_generator.state


@pytest.mark.parametrize(
    ("options", "words"),
    [({"strict": "no"}, "strict='no': expected one of 'exact', 'subset', 'superset'"),
     ({"cast": "yes"}, "cast='yes': expected one of"),
     ({"verify": "after"}, "verify='after': expected True, False or \"before\"")],
)  # fmt: skip
def test_other_options_are_refused(options: dict[str, Any], words: str, run: Path) -> None:
    with pytest.raises(ValueError, match=words):
        holdfast.load_checkpoint(state(), run, **options)


# Casts


@pytest.mark.parametrize("cast", ["forbid", "widen"])
def test_narrowing_must_be_allowed(cast: Any, run: Path) -> None:
    target = state(7, 7)
    target["optimizer"]["m"][0] = np.full((4, 3), 7, np.float16)
    before = contents(target)

    with pytest.raises(MismatchError, match="F64 .*the target expects F16") as caught:
        holdfast.load_checkpoint(target, run, cast=cast)

    assert caught.value.named("dtype") == ["optimizer.m.0"]
    assert contents(target) == before


def test_widening_and_rounding_give_the_nearest_values(tmp_path: Path) -> None:
    saved = {"half": np.array([0.1, np.inf, np.nan], np.float16), "double": np.array([0.1, 1e-300, -np.inf])}
    holdfast.save_checkpoint(saved, tmp_path)
    target = {"half": np.zeros(3, np.float32), "double": np.zeros(3, np.float32)}

    with pytest.raises(MismatchError) as caught:
        holdfast.load_checkpoint(target, tmp_path, cast="widen")
    assert caught.value.named("dtype") == ["double"]
    report = holdfast.load_checkpoint(target, tmp_path, cast="allow")

    assert target["half"].tobytes() == saved["half"].astype(np.float32).tobytes()
    assert target["double"].tobytes() == saved["double"].astype(np.float32).tobytes()
    assert {v.name: v.cast_from for v in report.loaded} == {"half": "F16", "double": "F64"}


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (np.array([1.0, 70000.0], np.float32), np.float16),
        (np.array([1.0, 300.0], np.float32), np.int8),
        (np.array([-1], np.int8), np.uint8),
        (np.array([1 + 2j], np.complex64), np.float32),
        (np.array([np.nan]), np.int64),
        (np.array([1e39]), ml_dtypes.bfloat16),
        (np.array([np.inf], np.float32), ml_dtypes.float8_e4m3fn),
        (np.array([2**53 + 1]), np.bool_),
    ],
)
def test_cast_that_would_lose_more_than_precision_leaves_the_target_untouched(
    held: np.ndarray, wanted: Any, tmp_path: Path
) -> None:
    many = np.zeros(3_000_000, held.dtype)
    many[-1] = held[-1]
    holdfast.save_checkpoint({"a": np.ones(2), "bad": held, "late": many, "z": np.ones(2)}, tmp_path)
    target = {
        "a": np.zeros(2),
        "bad": np.ones(held.shape, wanted),
        "late": np.ones(many.shape, wanted),
        "z": np.zeros(2),
    }
    before = contents(target)

    with pytest.raises(CastError, match="nothing was loaded") as caught:
        holdfast.load_checkpoint(target, tmp_path, cast="allow")

    assert "'bad': " in str(caught.value)
    assert "'late': " in str(caught.value)
    assert contents(target) == before


def test_complex_numbers_without_imaginary_part_become_real(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"z": np.array([1, -2], np.complex64)}, tmp_path)
    target = {"z": np.zeros(2)}

    holdfast.load_checkpoint(target, tmp_path, cast="allow")

    assert target["z"].tolist() == [1, -2]


@pytest.mark.parametrize("source", dtypes.ITEMSIZE)
def test_ones_of_every_dtype_load_into_every_other(source: str, tmp_path: Path) -> None:
    holdfast.save_checkpoint({name: np.ones(3, dtypes.to_numpy(source)) for name in dtypes.ITEMSIZE}, tmp_path)
    target = {name: np.empty(3, dtypes.to_numpy(name)) for name in dtypes.ITEMSIZE}

    holdfast.load_checkpoint(target, tmp_path, cast="allow")

    assert all(complex(one) == 1 for array in target.values() for one in array)


# Targets that share memory, or cannot be written


def test_tied_targets_take_tied_values(tmp_path: Path) -> None:
    shared = np.arange(4.0)
    holdfast.save_checkpoint({"a": shared, "b": shared, "c": np.ones(2)}, tmp_path)
    tied = np.zeros(4)

    holdfast.load_checkpoint({"a": tied, "b": tied, "c": np.zeros(2)}, tmp_path)

    assert tied.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda value: {"w": np.zeros(1), "n": value},
        lambda value: [np.zeros(1), value],
        lambda value: {"t": (np.zeros(1), {"n": value})},
    ],
    ids=["dict", "list", "tuple"],
)
def test_one_dict_at_two_places_takes_one_value_of_each_key(make: Callable[[int], Any], tmp_path: Path) -> None:
    holdfast.save_checkpoint({"a": make(1), "b": make(2)}, tmp_path / "two")
    holdfast.save_checkpoint({"a": make(1), "b": make(1)}, tmp_path / "one")
    shared = make(0)
    target = {"a": shared, "b": shared}

    with pytest.raises(MismatchError, match=r"'b\..*' is the same thing as 'a\..*', but the checkpoint has two values"):
        holdfast.load_checkpoint(target, tmp_path / "two")
    assert target["a"] == make(0)
    holdfast.load_checkpoint(target, tmp_path / "one")
    assert target["b"] == make(1)


@pytest.mark.parametrize(
    "views",
    [
        lambda m: (m, m),
        lambda m: (m[:3], m[1:]),
        lambda m: (m, m[::-1]),
        lambda m: (m[:2].view(np.float32), m[1:3].view(np.float32)),
    ],
    ids=["same", "shifted", "reversed", "viewed"],
)
def test_targets_that_overlap_with_two_values_are_refused(
    views: Callable[[np.ndarray], tuple[np.ndarray, ...]], tmp_path: Path
) -> None:
    memory = np.full(4, 7.0)
    a, b = views(memory)
    holdfast.save_checkpoint({"a": np.zeros_like(a), "b": np.ones_like(b), "c": np.zeros(1)}, tmp_path)
    target = {"a": a, "b": b, "c": np.full(1, 7.0)}

    with pytest.raises(MismatchError, match="shares memory with 'a', but the checkpoint has two values") as caught:
        holdfast.load_checkpoint(target, tmp_path)

    assert caught.value.named("unwritable") == ["b"]
    assert memory.tolist() == [7] * 4
    assert target["c"].tolist() == [7]


def test_targets_that_lie_between_each_other_are_loaded(tmp_path: Path) -> None:
    matrix = np.zeros((3, 2))
    holdfast.save_checkpoint({"left": np.arange(3.0), "right": np.arange(10.0, 13.0)}, tmp_path)

    holdfast.load_checkpoint({"left": matrix[:, 0], "right": matrix[:, 1]}, tmp_path)

    assert matrix.tolist() == [[0, 10], [1, 11], [2, 12]]


def test_views_side_by_side_are_loaded(tmp_path: Path) -> None:
    memory = np.zeros(6)
    holdfast.save_checkpoint({"a": np.ones(3), "b": np.full(3, 2.0)}, tmp_path)

    holdfast.load_checkpoint({"a": memory[:3], "b": memory[3:]}, tmp_path)

    assert memory.tolist() == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("layout", ["plain", "broadcast"])
def test_read_only_target_is_refused(layout: str, run: Path) -> None:
    target = state(7, 7)
    frozen = np.broadcast_to(np.array(7.0), (4, 3)) if layout == "broadcast" else np.full((4, 3), 7.0)
    frozen.flags.writeable = False
    target["optimizer"]["m"][0] = frozen
    before = contents(target)

    with pytest.raises(
        MismatchError, match="'optimizer.m.0': the target's array is read-only; copy it first"
    ) as caught:
        holdfast.load_checkpoint(target, run)

    assert caught.value.named("unwritable") == ["optimizer.m.0"]
    assert contents(target) == before


def test_target_that_no_checkpoint_can_hold_is_refused_in_words_of_a_load(run: Path) -> None:
    with pytest.raises(
        UnsupportedVariableError, match="^nothing can be loaded into this state; it is unchanged:\n  'x': "
    ):
        holdfast.load_checkpoint({"x": object()}, run)


def test_target_with_overlap_of_its_own_is_refused(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"a": np.arange(6.0).reshape(2, 3)}, tmp_path)
    memory = np.full(4, 7.0)
    windows = np.lib.stride_tricks.as_strided(memory, (2, 3), (8, 8))  # its rows share two of three elements

    with pytest.raises(MismatchError, match="'a'"):
        holdfast.load_checkpoint({"a": windows}, tmp_path)

    assert memory.tolist() == [7] * 4


# Failures leave the target as it was


def failing_object() -> Any:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"x": 1}

        def load_state_dict(self, state: Any) -> None: ...

    return Odd()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.pop("epoch"), MismatchError),
        (lambda t: t.update(extra=1), MismatchError),
        (lambda t: t.update(extra=np.zeros(1)), MismatchError),
        (lambda t: t.update(rng=np.random.RandomState(1)), MismatchError),
        (lambda t: t.update(epoch=failing_object()), MismatchError),
        (lambda t: t.update(epoch=np.zeros(1)), MismatchError),
        (lambda t: t.update(epoch=temporary(3)), MismatchError),
        (lambda t: t["optimizer"].update(step=np.zeros(1, np.int64)), MismatchError),
        (lambda t: t.update(bad={1}), holdfast.UnsupportedVariableError),
    ],
)
def test_failure_leaves_every_byte_as_it_was(change: Callable[[Any], Any], error: type[Exception], run: Path) -> None:
    target = state(7, 7)
    change(target)
    before = contents({k: v for k, v in target.items() if k != "bad"})

    with pytest.raises(error):
        holdfast.load_checkpoint(target, run)

    assert contents({k: v for k, v in target.items() if k != "bad"}) == before


@pytest.mark.parametrize("name", ["trainer_0.json", "model.safetensors"])
def test_damage_beside_the_data_is_found_first(name: str, tmp_path: Path) -> None:
    holdfast.save_checkpoint(state(1, 1), tmp_path)
    flip_bit(tmp_path / "checkpoint_0" / name, 20)
    target = state(7, 7)
    before = contents(target)

    with pytest.raises(CorruptCheckpointError, match=name):
        holdfast.load_checkpoint(target, tmp_path)

    assert contents(target) == before


def test_damaged_data_raises_and_before_leaves_the_target(tmp_path: Path) -> None:
    holdfast.save_checkpoint(state(1, 1), tmp_path)
    flip_bit(tmp_path / "checkpoint_0" / "state-00001-of-00001.safetensors")
    target = state(7, 7)
    before = contents(target)

    with pytest.raises(CorruptCheckpointError, match=r"state-00001-of-00001.safetensors: 'optimizer\.") as caught:
        holdfast.load_checkpoint(target, tmp_path, verify="before")

    assert contents(target) == before
    assert len(caught.value.variables) == 1
    with pytest.raises(CorruptCheckpointError):
        holdfast.load_checkpoint(target, tmp_path)


def test_damaged_trainer_file_is_noticed_whatever_is_verified(tmp_path: Path) -> None:
    holdfast.save_checkpoint(state(1, 1), tmp_path)
    path = tmp_path / "checkpoint_0" / "trainer_0.json"
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":3'))

    with pytest.raises(CorruptCheckpointError, match="trainer_0.json is damaged"):
        holdfast.load_checkpoint(state(), tmp_path, verify=False)


def test_value_that_refers_to_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.format.values import Tagged

    class Liar:
        def state_dict(self) -> dict[str, Any]:
            return {"x": Tagged("$variable", "w.not.there")}

        def load_state_dict(self, state: Any) -> None:
            raise AssertionError

    holdfast.save_checkpoint({"w": np.ones(1), "liar": Liar()}, tmp_path)
    target = np.zeros(1)

    with pytest.raises(FormatError, match="the value 'liar' refers to 'w.not.there', which is not in the checkpoint"):
        holdfast.load_checkpoint({"w": target, "liar": Liar()}, tmp_path)

    assert target.tolist() == [0]


# Places


@pytest.mark.parametrize(
    "load", [holdfast.load_checkpoint, holdfast.load_params, holdfast.load_persistables, holdfast.load_vars]
)
def test_missing_checkpoint_is_named(load: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="none does not exist"):
        load({"w": np.zeros(1)}, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFoundError, match="nothing was saved there yet"):
        load({"w": np.zeros(1)}, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


def test_variables_alone_are_no_checkpoint_to_resume_from(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(1)}, tmp_path / "m")

    with pytest.raises(CheckpointNotFoundError, match="holds variables only, no checkpoint to resume from"):
        holdfast.load_checkpoint({"w": np.zeros(1)}, tmp_path / "m")
    with pytest.raises(CheckpointNotFoundError, match="holds variables only"):
        holdfast.load_checkpoint({"w": np.zeros(1)}, tmp_path / "m" / "model.safetensors")


@pytest.mark.parametrize("trainer_id", [1, -1])
def test_trainer_that_did_not_save_is_named(trainer_id: int, run: Path) -> None:
    with pytest.raises(ValueError, match=r"was saved by 1 trainer\(s\), counted from 0"):
        holdfast.load_checkpoint(state(), run, trainer_id=trainer_id)


def test_newer_checkpoint_that_is_passed_over_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for fill in (1, 2, 3):
        holdfast.save_checkpoint(state(fill), tmp_path)
    (tmp_path / "checkpoint_2" / "manifest.json").unlink()
    target = state()

    with caplog.at_level(logging.WARNING):
        report = holdfast.load_checkpoint(target, tmp_path)

    assert report.serial == 1
    assert "checkpoint_2 is passed over, checkpoint_1 is loaded" in caplog.text


def test_loads_change_nothing_on_disk(run: Path) -> None:
    before = tree_of(run)

    holdfast.load_checkpoint(state(), run)
    holdfast.load_params({"model": state()["model"]}, run)
    with pytest.raises(MismatchError):
        holdfast.load_checkpoint({"x": np.zeros(1)}, run)

    assert tree_of(run) == before


def test_interrupt_from_the_callback_is_passed_on(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(6_000_000), "epoch": 1}, tmp_path)
    target = {"w": np.zeros(6_000_000), "epoch": 0}

    def interrupt(progress: holdfast.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        holdfast.load_checkpoint(target, tmp_path, progress=interrupt)

    assert target["epoch"] == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("holdfast")]
    assert holdfast.load_checkpoint(target, tmp_path).verified


def test_one_line_is_logged_for_each_load(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        holdfast.load_checkpoint(state(), run)

    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith(f"loaded {run}/checkpoint_1: 200 bytes in ")


# Objects


class Box:
    """An object with two arrays and a number."""

    def __init__(self, fill: float) -> None:
        self.a, self.b, self.n = np.full(2, fill), np.full(3, fill, np.float32), fill

    def state_dict(self) -> dict[str, Any]:
        return {"a": self.a, "inner": {"b": self.b}, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.a, self.b, self.n = state["a"], state["inner"]["b"], state["n"]


def test_object_under_another_name_is_renamed_with_its_arrays(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"old": Box(1)}, tmp_path)
    target = Box(0)

    holdfast.load_checkpoint({"new": target}, tmp_path, rename={"old": "new", "old.": "new."})

    assert contents(target) == contents(Box(1))


def test_arrays_of_an_object_must_match(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"box": Box(1)}, tmp_path)
    target = Box(0)
    target.a = np.zeros(5)
    before = contents(target)

    with pytest.raises(MismatchError, match="'box.a'"):
        holdfast.load_checkpoint({"box": target}, tmp_path)

    assert contents(target) == before


def test_arrays_of_an_object_are_cast_to_its_dtype(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"box": Box(1)}, tmp_path)
    target = Box(0)
    target.b = target.b.astype(np.float64)

    holdfast.load_checkpoint({"box": target}, tmp_path, cast="widen")

    assert target.b.dtype == np.float64
    assert target.b.tolist() == [1, 1, 1]


def test_array_of_an_object_that_is_skipped_stays(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"box": Box(1)}, tmp_path)
    target = Box(7)

    report = holdfast.load_checkpoint({"box": target}, tmp_path, skip=["box.a"])

    assert target.a.tolist() == [7, 7]
    assert target.b.tolist() == [1, 1, 1]
    assert report.skipped == ("box.a",)


def test_object_that_is_skipped_as_a_whole_stays(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"box": Box(1), "w": np.ones(1)}, tmp_path)
    target = {"box": Box(7), "w": np.zeros(1)}

    holdfast.load_checkpoint(target, tmp_path, skip=["box", "box.*"])

    assert contents(target["box"]) == contents(Box(7))
    assert target["w"].tolist() == [1]


def test_load_vars_of_one_array_of_an_object_keeps_the_others(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"box": Box(1)}, tmp_path)
    target = Box(7)

    holdfast.load_vars({"box": target}, tmp_path, vars=["box.inner.b"])

    assert target.b.tolist() == [1, 1, 1]
    assert target.a.tolist() == [7, 7]
    assert target.n == 7


def test_targets_that_are_too_entangled_to_tell_apart_are_tried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.full((3, 2), 7.0)
    holdfast.save_checkpoint({"left": np.arange(3.0), "right": np.arange(3.0, 6.0)}, tmp_path)

    def too_hard(*_: Any, **__: Any) -> bool:
        raise np.exceptions.TooHardError

    monkeypatch.setattr(np, "shares_memory", too_hard)
    with pytest.raises(MismatchError, match="'right' shares memory with 'left'"):
        holdfast.load_checkpoint({"left": matrix[:, 0], "right": matrix[::-1, 0]}, tmp_path)

    assert (matrix == 7).all()
    holdfast.load_checkpoint({"left": matrix[:, 0], "right": matrix[:, 1]}, tmp_path)
    assert matrix.T.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", ["f4", ">f4", "bfloat16"])
def test_buffer_and_its_views_come_back_if_they_agree(tmp_path: Path, dtype: str) -> None:
    def state(fill: float) -> dict[str, np.ndarray]:
        flat = (np.arange(12.0) * fill).astype(np.dtype(dtype))
        matrix = flat[2:10].reshape(2, 4)
        return {"flat": flat, "matrix": matrix, "turned": matrix.T, "back": flat[::-1], "rows": matrix[:, 1:3]}

    saved, target = state(1), state(0)
    holdfast.save_checkpoint(saved, tmp_path)

    holdfast.load_checkpoint(target, tmp_path)

    assert all((target[name] == saved[name]).all() for name in saved)
    saved["turned"] = saved["turned"] + np.asarray(1, saved["turned"].dtype)
    holdfast.save_checkpoint(saved, tmp_path)
    target["flat"][:] = 0
    with pytest.raises(MismatchError, match="'turned' shares memory with"):
        holdfast.load_checkpoint(target, tmp_path)
    assert (target["flat"] == 0).all()


def test_load_vars_refuses_both_ways_at_once(run: Path) -> None:
    target = state(7)
    before = contents(target)

    with pytest.raises(ValueError, match="not both"):
        holdfast.load_vars(target, run, vars=["optimizer.step"], predicate=holdfast.is_parameter)

    assert contents(target) == before


def test_load_vars_never_touches_temporaries(run: Path) -> None:
    scratch = np.full((4, 3), 7.0)
    target = {"optimizer": {"m": [temporary(scratch), np.zeros(4)]}}

    with pytest.raises(ValueError, match=r"never saved or loaded: optimizer\.m\.0"):
        holdfast.load_vars(target, run, vars=["optimizer.m.0"])
    with pytest.raises(ValueError, match=r"never saved or loaded: optimizer\.m\.0"):
        holdfast.load_vars(target, run, predicate=lambda _: True, strict="subset")
    holdfast.load_vars(target, run, strict="subset")

    assert (scratch == 7).all()
    assert target["optimizer"]["m"][1].tolist() == [2] * 4


def test_number_in_a_dict_that_is_in_the_state_twice_takes_one_value_only(tmp_path: Path) -> None:
    def state(first: float, second: float) -> dict[str, Any]:
        return {"a": {"n": np.asarray(first), "w": np.ones(1)}, "b": {"n": np.asarray(second), "w": np.ones(1)}}

    shared: dict[str, Any] = {"n": 0.0, "w": np.zeros(1)}
    holdfast.save_checkpoint(state(3.0, 4.0), tmp_path / "two")
    with pytest.raises(MismatchError, match=r"'b\.n' is the same thing as 'a\.n', but the checkpoint has two values"):
        holdfast.load_checkpoint({"a": shared, "b": shared}, tmp_path / "two")
    assert shared["n"] == 0
    holdfast.save_checkpoint(state(3.0, 3.0), tmp_path / "one")
    holdfast.load_checkpoint({"a": shared, "b": shared}, tmp_path / "one")
    assert shared["n"] == 3


@pytest.mark.parametrize(("first", "second"), [(np.asarray(3.0), 4.0), (4.0, np.asarray(3.0)), (3.0, 4.0)])
def test_one_thing_at_two_places_takes_one_value_whether_number_or_array(
    first: Any, second: Any, tmp_path: Path
) -> None:
    weights = {"w": np.ones(1)}
    holdfast.save_checkpoint({"a": {"n": first} | weights, "b": {"n": second} | weights}, tmp_path / "two")
    holdfast.save_checkpoint({"a": {"n": first} | weights, "b": {"n": float(first)} | weights}, tmp_path / "one")
    array = np.asarray(0.0)
    shared: dict[str, Any] = {"n": 0.0, "w": np.zeros(1)}
    targets = [{"a": shared, "b": shared}, {"a": {"n": array, "w": np.zeros(1)}, "b": {"n": array, "w": np.zeros(1)}}]

    for target in targets:
        with pytest.raises(MismatchError, match="is the same thing as '[ab].n', but the checkpoint has two values"):
            holdfast.load_checkpoint(target, tmp_path / "two")
        assert target["a"]["n"] == 0
        holdfast.load_checkpoint(target, tmp_path / "one")
        assert target["a"]["n"] == target["b"]["n"] == float(first)
