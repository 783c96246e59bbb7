"""Saving: what is written, what is kept beside it, what is refused, and what stays when it fails."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import holdfast
from holdfast import DiskFullError, ForeignFolderError, LocalStore, MemoryStore, StorageError, parameters
from holdfast.engine import alone
from support import WrappedStore, contents, flip_bit, tree_of

STATE = {
    "model": parameters({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3)}),
    "m": np.zeros(3),
    "epoch": 4,
}


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


# save_params, save_persistables, save_vars


def test_save_params_writes_the_parameters_as_plain_safetensors(tmp_path: Path) -> None:
    holdfast.save_params(STATE, tmp_path / "deep" / "model")

    assert names(tmp_path / "deep" / "model") == ["manifest.json", "model.safetensors"]
    found = safetensors.numpy.load_file(tmp_path / "deep" / "model" / "model.safetensors")
    assert {name: a.tolist() for name, a in found.items()} == {"model.w": [[0, 1, 2], [3, 4, 5]], "model.b": [1, 1, 1]}


@pytest.mark.parametrize(
    "save", [holdfast.save_params, holdfast.save_persistables, holdfast.save_vars, holdfast.save_checkpoint]
)
def test_path_in_front_of_the_state_is_said(save: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"not dict; the state comes before the path, as in save_params\(state, path\)"):
        save("model", STATE)


def test_save_params_of_an_unmarked_state_takes_all_arrays(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(1), "deep": [np.zeros(2)], "n": 3}, tmp_path / "m")

    with holdfast.open(tmp_path / "m") as checkpoint:
        assert {v.name: v.kind for v in checkpoint.variables.values()} == {"w": "parameter", "deep.0": "parameter"}
        assert checkpoint.manifest.content == "params"
        assert checkpoint.serial is None


def test_save_persistables_takes_every_array_and_no_value(tmp_path: Path) -> None:
    holdfast.save_persistables(STATE, tmp_path / "m")

    assert names(tmp_path / "m") == ["manifest.json", "model.safetensors", "state-00001-of-00001.safetensors"]
    with holdfast.open(tmp_path / "m") as checkpoint:
        assert set(checkpoint) == {"model.w", "model.b", "m"}
        assert checkpoint.manifest.content == "variables"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"predicate": holdfast.is_parameter}, {"model.w", "model.b"}),
        ({"predicate": lambda v: v.shape == (3,)}, {"model.b", "m"}),
        ({"vars": ["m"]}, {"m"}),
        ({"vars": "m"}, {"m"}),
        ({"vars": [holdfast.Variable("model.w", "parameter", True, "F32", (2, 3))]}, {"model.w"}),
        ({}, {"model.w", "model.b", "m"}),
    ],
)
def test_save_vars_takes_what_is_chosen(options: dict[str, Any], expected: set[str], tmp_path: Path) -> None:
    holdfast.save_vars(STATE, tmp_path / "m", **options)

    with holdfast.open(tmp_path / "m") as checkpoint:
        assert set(checkpoint) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"predicate": lambda _: False}, "there is nothing to save"),
        ({"vars": []}, "there is nothing to save"),
        ({"vars": ["nothing"]}, "does not hold: nothing"),
        ({"vars": ["m"], "predicate": holdfast.is_parameter}, "not both"),
    ],
)
def test_save_vars_refuses_before_a_byte_is_written(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        holdfast.save_vars(STATE, tmp_path / "m", **options)

    assert names(tmp_path) == []


def test_save_params_without_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing to save.*holdfast.parameters"):
        holdfast.save_params({"n": 3}, tmp_path / "m")
    with pytest.raises(ValueError, match="there is nothing to save"):
        holdfast.save_params({"p": parameters({"n": 3}), "w": np.zeros(1)}, tmp_path / "m")

    assert names(tmp_path) == []


def test_several_parameter_files_come_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"a": parameters(np.ones(3)), "frozen": parameters([np.zeros(2, np.float32)], trainable=False)}

    holdfast.save_params(state, tmp_path / "m")

    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert names(tmp_path / "m") == ["manifest.json", one, two, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_bytes())
    assert index == {"metadata": {"total_size": 32}, "weight_map": {"a": one, "frozen.0": two}}
    holdfast.verify(tmp_path / "m")


# Replacing


@pytest.mark.parametrize("exchange", [True, False])
def test_saving_again_replaces(exchange: bool) -> None:
    where = MemoryStore(exchange=exchange).at("models/m")
    holdfast.save_params({"old": np.ones(3)}, where)

    holdfast.save_params({"new": np.zeros(2)}, where)

    with holdfast.open(where) as checkpoint:
        assert list(checkpoint) == ["new"]
    assert [e.name for e in where.store.list("/models")] == ["m"]


def test_saving_again_keeps_what_somebody_laid_beside_it(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(3)}, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"layers": 3}')
    (tmp_path / "m" / "README.md").write_text("hello")

    holdfast.save_params({"w": np.zeros(3)}, tmp_path / "m")

    assert names(tmp_path / "m") == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    assert (tmp_path / "m" / "config.json").read_text() == '{"layers": 3}'
    assert names(tmp_path) == ["m"]


def test_saving_again_copies_where_links_are_not_possible(tmp_path: Path) -> None:
    where = WrappedStore(link=lambda *_: False).at(tmp_path / "m")
    holdfast.save_params({"w": np.ones(3)}, where)
    data = os.urandom((8 << 20) + 5)
    (tmp_path / "m" / "notes").write_bytes(data)
    (tmp_path / "m" / "empty").write_bytes(b"")

    holdfast.save_params({"w": np.zeros(3)}, where)

    assert (tmp_path / "m" / "notes").read_bytes() == data
    assert (tmp_path / "m" / "empty").read_bytes() == b""


def test_saving_into_an_empty_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()

    holdfast.save_params({"w": np.ones(3)}, tmp_path / "m")

    assert names(tmp_path) == ["m"]
    assert names(tmp_path / "m") == ["manifest.json", "model.safetensors"]


def foreign_file(path: Path) -> None:
    path.write_text("mine")


def foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def foreign_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"name": "a web page"}')


def damaged_manifest(path: Path) -> None:
    holdfast.save_params({"w": np.zeros(1)}, path)
    flip_bit(path / "manifest.json")


def checkpoint_of_a_run(path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, path.parent / "run")
    (path.parent / "run" / "checkpoint_0").rename(path)


def folder_inside(path: Path) -> None:
    holdfast.save_params({"w": np.zeros(1)}, path)
    (path / "logs").mkdir()


def run_folder(path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(1)}, path)


def file_of_the_format_inside(path: Path) -> None:
    holdfast.save_params({"w": np.zeros(1)}, path)
    (path / "model-00001-of-00002.safetensors").write_bytes(b"somebody's")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign_file, "is a file; choose a folder of its own"),
        (foreign_folder, "is not empty and holds no save of Holdfast"),
        (run_folder, "is a run folder, whose checkpoints are never replaced. Choose another folder"),
        (foreign_manifest, "not a sound one of Holdfast"),
        (damaged_manifest, "not a sound one of Holdfast"),
        (checkpoint_of_a_run, "is a checkpoint of a run"),
        (folder_inside, "holds logs beside the save"),
        (file_of_the_format_inside, "holds model-00001-of-00002.safetensors beside the save"),
    ],
)
@pytest.mark.parametrize("save", [holdfast.save_params, holdfast.save_persistables, holdfast.save_vars])
def test_what_is_not_ours_is_never_replaced(make: Any, words: str, save: Any, tmp_path: Path) -> None:
    make(tmp_path / "m")
    before = tree_of(tmp_path)

    with pytest.raises(ForeignFolderError, match=words):
        save({"w": np.zeros(1)}, tmp_path / "m")

    assert tree_of(tmp_path) == before


def test_link_to_a_folder_is_followed_when_the_path_is_given(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    holdfast.save_params({"w": np.ones(1)}, tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["manifest.json", "model.safetensors"]


def test_failed_replacement_leaves_the_old_one(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(1)}, tmp_path / "m")
    before = tree_of(tmp_path / "m")

    with pytest.raises(KeyboardInterrupt):
        holdfast.save_params({"w": np.zeros(4_000_000)}, tmp_path / "m", progress=interrupt)

    assert tree_of(tmp_path / "m") == before
    assert names(tmp_path) == ["m"]


def interrupt(progress: holdfast.Progress) -> None:
    if progress.done_bytes > progress.total_bytes // 2:
        raise KeyboardInterrupt


# save_checkpoint


def test_save_checkpoint_returns_serials_from_zero(tmp_path: Path) -> None:
    assert [holdfast.save_checkpoint(STATE, tmp_path / "run") for _ in range(5)] == [0, 1, 2, 3, 4]
    assert holdfast.serials(tmp_path / "run") == [2, 3, 4]
    assert names(tmp_path / "run") == ["checkpoint_2", "checkpoint_3", "checkpoint_4"]


def test_checkpoint_has_the_files_of_the_specification(tmp_path: Path) -> None:
    holdfast.save_checkpoint(STATE, tmp_path, step=7, metrics={"loss": 0.5}, trainer_args={"epoch_id": 2})

    assert names(tmp_path / "checkpoint_0") == [
        "manifest.json",
        "model.safetensors",
        "state-00001-of-00001.safetensors",
        "trainer_0.json",
    ]
    manifest = json.loads((tmp_path / "checkpoint_0" / "manifest.json").read_bytes())
    assert {k: manifest[k] for k in ("format", "version", "content", "serial", "step", "metrics", "world_size")} == {
        "format": "holdfast", "version": [1, 0], "content": "checkpoint", "serial": 0, "step": 7,
        "metrics": {"loss": 0.5}, "world_size": 1,
    }  # fmt: skip
    trainer = json.loads((tmp_path / "checkpoint_0" / "trainer_0.json").read_bytes())
    assert trainer == {
        "format": "holdfast-trainer", "version": [1, 0], "trainer_id": 0, "trainer_args": {"epoch_id": 2}, "values": {"epoch": 4},
    }  # fmt: skip


@pytest.mark.parametrize(("keep", "left"), [(1, [5]), (2, [4, 5]), (None, [0, 1, 2, 3, 4, 5])])
def test_max_num_checkpoints_rotates_after_the_commit(keep: int | None, left: list[int], tmp_path: Path) -> None:
    for _ in range(6):
        holdfast.save_checkpoint(STATE, tmp_path, max_num_checkpoints=keep)

    assert holdfast.serials(tmp_path) == left


def test_serial_is_above_every_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_9").mkdir()
    (tmp_path / "checkpoint_011").mkdir()
    (tmp_path / "checkpoint_12").write_text("a file")

    assert holdfast.save_checkpoint(STATE, tmp_path) == 13
    assert holdfast.serials(tmp_path) == [13]


def test_save_never_reports_a_checkpoint_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_999999999999999999").mkdir()

    with pytest.raises(StorageError, match="the greatest serial there is; rename or remove it"):
        holdfast.save_checkpoint(STATE, tmp_path)
    assert names(tmp_path) == ["checkpoint_999999999999999999"]


def test_hidden_names_beyond_the_greatest_serial_are_foreign(tmp_path: Path) -> None:
    (tmp_path / ".attempt-9999999999999999999-0123456789abcdef").mkdir()

    assert holdfast.save_checkpoint(STATE, tmp_path) == holdfast.latest_serial(tmp_path) == 0


@pytest.mark.parametrize(
    "args",
    [None, {}, {"epoch_id": 2, "step_id": 20}, [1, (2, 3)], float("inf"), "text", {1: {"a": None}}, np.int64(3)],
    ids=repr,
)
def test_trainer_args_come_back_with_their_types(args: Any, tmp_path: Path) -> None:
    holdfast.save_checkpoint(STATE, tmp_path, trainer_args=args)

    report = holdfast.load_checkpoint(STATE, tmp_path)

    assert contents(report.trainer_args) == contents(args)
    with holdfast.open(tmp_path) as checkpoint:
        assert contents(checkpoint.trainer_args) == contents(args)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trainer_id": 1}, "trainer_id=1: only trainer 0"),
        ({"step": -1}, "step must be a whole number from 0.*, not -1"),
        ({"step": 1.0}, "step must be a whole number"),
        ({"step": True}, "step must be a whole number"),
        ({"step": 2**63}, "step"),
        ({"max_num_checkpoints": 0}, "whole number from 1, not 0"),
        ({"max_num_checkpoints": -3}, "whole number from 1"),
        ({"metrics": {"loss": "low"}}, "metric 'loss' must be a number, not 'low'"),
        ({"metrics": {"loss": None}}, "metric 'loss' must be a number"),
        ({"metrics": {3: 0.5}}, "names of metrics must be"),
        ({"metrics": {"\ud800": 0.5}}, "names of metrics must be"),
    ],
)
def test_save_checkpoint_refuses_other_arguments_before_a_byte_is_written(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        holdfast.save_checkpoint(STATE, tmp_path / "run", **options)

    assert names(tmp_path) == []


def test_metrics_are_numbers_of_any_kind_and_non_finite_ones_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = {"a": np.float32(0.5), "b": 3, "c": np.array(1.5), "d": float("nan"), "e": float("inf"), "f": True}
    with caplog.at_level(logging.WARNING):
        holdfast.save_checkpoint(STATE, tmp_path, metrics=metrics)

    assert holdfast.load_checkpoint(STATE, tmp_path).metrics == {"a": 0.5, "b": 3.0, "c": 1.5, "f": 1.0}
    assert "metric 'd' is nan" in caplog.text
    assert "metric 'e' is inf" in caplog.text


def test_checkpoint_inside_a_checkpoint_is_refused(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.ones(1)}, tmp_path / "m")
    before = tree_of(tmp_path)

    with pytest.raises(ForeignFolderError, match="is a checkpoint itself; save into the folder that it is in"):
        holdfast.save_checkpoint(STATE, tmp_path / "m")

    assert tree_of(tmp_path) == before


def test_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(ForeignFolderError, match="run is not a folder"):
        holdfast.save_checkpoint(STATE, tmp_path / "run")


def test_interrupt_leaves_the_older_checkpoints_and_no_half_written_one(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(1)}, tmp_path)
    before = tree_of(tmp_path / "checkpoint_0")

    with pytest.raises(KeyboardInterrupt):
        holdfast.save_checkpoint({"w": np.zeros(4_000_000)}, tmp_path, progress=interrupt)

    assert names(tmp_path) == ["checkpoint_0"]
    assert tree_of(tmp_path / "checkpoint_0") == before
    assert holdfast.save_checkpoint({"w": np.ones(1)}, tmp_path) == 1


def test_full_disk_is_found_before_anything_is_written(tmp_path: Path) -> None:
    store = WrappedStore(free_bytes=lambda _: 1000)

    with pytest.raises(DiskFullError, match="1,000 are free.*older checkpoints are untouched") as caught:
        holdfast.save_checkpoint({"w": np.zeros(1000)}, store.at(tmp_path))

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.needed_bytes is not None
    assert 8000 < caught.value.needed_bytes < 50_000
    assert not [call for call in store.calls if call[0] in ("create", "make_folder")]
    assert names(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        holdfast.save_checkpoint(STATE, tmp_path / "run")
        holdfast.pin(tmp_path / "run", 0)
        holdfast.save_params(STATE, tmp_path / "m")
    finally:
        os.umask(old)

    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*"), *(tmp_path / "m").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_one_line_is_logged_for_each_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        holdfast.save_checkpoint(STATE, tmp_path / "run")
        holdfast.save_params(STATE, tmp_path / "m")

    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len(lines) == 2
    assert lines[0].startswith(f"saved {tmp_path}/run/checkpoint_0: ")
    assert lines[1].startswith(f"saved {tmp_path}/m: ")
    assert " bytes in " in lines[0]


def test_frozen_parameters_stand_in_files_of_their_own(tmp_path: Path) -> None:
    state = {"a": parameters([np.ones(3)]), "b": parameters([np.zeros(3)], trainable=False)}

    holdfast.save_checkpoint(state, tmp_path)

    with holdfast.open(tmp_path) as checkpoint:
        assert [v.trainable for v in checkpoint.variables.values()] == [True, False]
    assert len([n for n in names(tmp_path / "checkpoint_0") if n.startswith("model-")]) == 2


def test_tied_arrays_are_saved_under_both_names(tmp_path: Path) -> None:
    shared = np.arange(3.0)

    holdfast.save_checkpoint({"a": shared, "b": shared}, tmp_path)

    with holdfast.open(tmp_path) as checkpoint:
        assert checkpoint["a"][:].tolist() == checkpoint["b"][:].tolist() == [0, 1, 2]


def test_state_without_arrays_is_a_checkpoint(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"epoch": 3}, tmp_path)

    assert names(tmp_path / "checkpoint_0") == ["manifest.json", "trainer_0.json"]
    assert holdfast.verify(tmp_path).variables == 0


def test_copy_between_stores_writes_the_bytes(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "file").write_bytes(b"data")

    alone.copy_file(holdfast.LocalStore().at(tmp_path / "file"), store.at("copy"))

    assert bytes(store.open("/copy").view(0, 4)) == b"data"


def test_another_process_may_take_the_serial_meanwhile(tmp_path: Path) -> None:
    def other(progress: holdfast.Progress) -> None:
        if progress.done_bytes == progress.total_bytes:
            holdfast.save_checkpoint({"w": np.zeros(2)}, tmp_path)

    serial = holdfast.save_checkpoint({"w": np.ones(2)}, tmp_path, progress=other)

    assert holdfast.serials(tmp_path) == [0, 1] or holdfast.serials(tmp_path) == [1, 2]
    with holdfast.open(tmp_path, serial=serial) as checkpoint:
        assert checkpoint["w"][:].tolist() == [1, 1]
        assert checkpoint.manifest.serial == serial


def test_folder_that_stands_alone_cannot_have_the_name_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ForeignFolderError, match="has the name of a checkpoint of a run; choose another"):
        holdfast.save_params({"w": np.ones(1)}, tmp_path / "checkpoint_3")

    assert names(tmp_path) == []


def test_rotation_that_fails_is_logged_and_the_save_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = WrappedStore()
    real_list = store.inner.list

    def refusing(path: str) -> Any:
        if (tmp_path / "checkpoint_0").exists():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_list(path)

    store.instead["list"] = refusing
    with caplog.at_level(logging.WARNING):
        serial = holdfast.save_checkpoint(STATE, store.at(tmp_path))

    assert serial == 0
    assert holdfast.verify(tmp_path).serial == 0
    assert "could not look for checkpoints to delete" in caplog.text


def test_threads_that_save_at_once_get_serials_of_their_own(tmp_path: Path) -> None:
    got: list[tuple[int, int]] = []

    def save(number: int) -> None:
        for i in range(5):
            value = 10 * number + i
            got.append(
                (holdfast.save_checkpoint({"w": np.full(300_000, value)}, tmp_path, max_num_checkpoints=None), value)
            )

    in_threads(save)

    assert holdfast.serials(tmp_path) == sorted(serial for serial, _ in got) == list(range(15))
    for serial, value in got:
        with holdfast.open(tmp_path, serial=serial) as checkpoint:
            assert (checkpoint["w"][:] == value).all()
    assert gc.isenabled()


@pytest.mark.parametrize("where", ["local", "memory"])
def test_threads_that_replace_one_folder_leave_one_of_theirs(where: str, tmp_path: Path) -> None:
    target = LocalStore().at(tmp_path / "m") if where == "local" else MemoryStore().at("p/m")

    def save(number: int) -> None:
        for _ in range(5):
            holdfast.save_params({"w": np.full(1000, number)}, target)

    in_threads(save)

    with holdfast.open(target) as checkpoint:
        assert len(set(checkpoint["w"][:].tolist())) == 1
    assert holdfast.verify(target).variables == 1
    assert [entry.name for entry in target.store.list(target.parent.path)] == ["m"]


def in_threads(work: Callable[[int], None]) -> None:
    """Three threads; whatever goes wrong in one is raised here."""
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, number) for number in range(3)]:
            done.result()


def test_shapes_at_the_limits(tmp_path: Path) -> None:
    state = {
        "wide": np.zeros((0, 2**40)),
        "deep": np.full((1,) * 64, 3, ">f4"),
        "cube": np.arange(2.0**12).reshape((2,) * 12).T,
    }
    target = {"wide": np.zeros((0, 2**40)), "deep": np.zeros((1,) * 64, np.float32), "cube": np.zeros((2,) * 12)}

    holdfast.save_checkpoint(state, tmp_path)
    holdfast.load_checkpoint(target, tmp_path)

    assert all((target[name] == array).all() for name, array in state.items())
