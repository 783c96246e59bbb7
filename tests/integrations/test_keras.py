"""A Keras run that was killed ends bit for bit where an undisturbed one ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import holdfast
from frameworks.resuming import ROOT, kill_at, result, start

Undisturbed = Callable[..., dict[str, str]]
PROGRAM = "../integrations/digits_keras.py"


@pytest.fixture(params=["jax", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", request.param)
    pytest.importorskip("keras", reason="Keras is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return request.param


def test_killed_run_ends_where_an_undisturbed_one_ends(tmp_path: Path, undisturbed: Undisturbed, backend: str) -> None:
    expected = undisturbed(PROGRAM, backend)

    kill_at(PROGRAM, tmp_path / "killed", 3)
    assert holdfast.serials(tmp_path / "killed")
    killed = result(PROGRAM, tmp_path / "killed")

    assert killed == expected
    assert killed["logs"].startswith("5 ")


def test_run_that_is_asked_to_end_goes_on_with_the_epoch_it_was_in(
    tmp_path: Path, undisturbed: Undisturbed, backend: str
) -> None:
    expected = undisturbed(PROGRAM, backend)

    process = start(PROGRAM, tmp_path / "run", "--end-by-signal")
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    with holdfast.open(tmp_path / "run") as checkpoint:
        assert checkpoint.step == 2, "complete epochs"
        variables = checkpoint.variables.values()
        assert {one.kind for one in variables if one.name.startswith("optimizer.")} == {"persistable"}
        assert sum(one.trainable and one.kind == "parameter" for one in variables) == 6

    assert result(PROGRAM, tmp_path / "run") == expected


def test_callback_refuses_a_backend_it_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    pytest.importorskip("jax", reason="JAX is not installed")
    code = "import holdfast, holdfast.integrations.keras as k; k.HoldfastBackup(holdfast.CheckpointManager('run'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "numpy", "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip

    assert "NotImplementedError: the backend is numpy; HoldfastBackup knows jax and torch" in done.stderr


@pytest.mark.filterwarnings("ignore")  # what libraries warn of when they are imported
def test_model_that_is_not_built_and_paths_that_stand_twice_are_named(tmp_path: Path, backend: str) -> None:
    import keras

    from holdfast.integrations.keras import HoldfastBackup, _by_path

    model = keras.Sequential([keras.layers.Dense(2)], name="empty")
    callback = HoldfastBackup(holdfast.CheckpointManager(tmp_path))
    callback.set_model(model)
    with pytest.raises(ValueError, match="the model 'empty' is not built"):
        callback.on_train_begin()
    with pytest.raises(ValueError, match="two variables have the path 'same'"):
        _by_path([keras.Variable(0.0, name="same"), keras.Variable(0.0, name="same")])


@pytest.mark.filterwarnings("ignore")  # what libraries warn of when they are imported
def test_end_of_training_is_saved_whatever_the_interval(tmp_path: Path, backend: str) -> None:
    import keras

    from holdfast.integrations.keras import HoldfastBackup

    manager = holdfast.CheckpointManager(tmp_path, save_interval_steps=2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[HoldfastBackup(manager)])

    assert manager.all_steps() == [2, 3]
