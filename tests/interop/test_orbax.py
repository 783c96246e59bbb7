"""Checkpoints of Orbax, written by Orbax."""

import gc
import os
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import CheckpointNotFoundError, FormatError, MissingExtraError
from holdfast.interop import orbax
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same

ocp = pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
jax = pytest.importorskip("jax", reason="JAX is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden folder."""
    return Path(shutil.copytree(HERE / "orbax", tmp_path / "orbax"))


def test_the_golden_folder_is_read_bit_for_bit() -> None:
    wanted = {f"params.{n}": a for n, a in {**model(), **narrow()}.items()} | {"opt_state.0.mu": np.ones(2)}

    held = orbax.read(HERE / "orbax")

    assert recognise(HERE / "orbax") == "orbax"
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[n], a) for n, a in wanted.items())
    assert (held.others, held.left_out) == ({"opt_state.0.mu"}, ["value note"])


def test_jax_arrays_scalars_and_lists_of_either_checkpointer(tmp_path: Path) -> None:
    tree = {
        "w": jax.numpy.arange(6.0, dtype="bfloat16").reshape(2, 3), "l": [np.ones(1), (np.zeros(2, np.int8),)],
        "step": 3, "x": 2.5, "zero": jax.numpy.float32(1), "none": None, "haiku/~/w": np.ones(2), "key": jax.random.PRNGKey(1),
    }  # fmt: skip
    with ocp.PyTreeCheckpointer() as one:
        one.save(tmp_path / "one", tree)
    with ocp.StandardCheckpointer() as two:
        two.save(tmp_path / "two", tree)

    for name in ("one", "two"):
        held = orbax.read(tmp_path / name)
        assert same(held.arrays["w"], np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16))
        assert held.arrays.keys() == {"w", "l.0", "l.1.0", "step", "x", "zero", "haiku/~/w", "key"}
        assert (int(held.arrays["step"]), float(held.arrays["x"])) == (3, 2.5)
        assert held.arrays["step"].shape == held.arrays["zero"].shape == ()
        assert same(held.arrays["key"], np.array(jax.random.PRNGKey(1)))
        assert (held.others, held.left_out) == (set(), ["value none"])


def test_steps_of_a_manager(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 10, 9):
            manager.save(
                step, args=ocp.args.StandardSave({"params": {"w": np.full(2, step)}, "step": step}), force=True
            )
        manager.wait_until_finished()
    os.makedirs(tmp_path / "run" / "11.orbax-checkpoint-tmp" / "default")

    assert recognise(tmp_path / "run") == "orbax-steps"
    assert list(orbax.steps(tmp_path / "run")) == [1, 9, 10]
    step, held = orbax.read_step(tmp_path / "run")
    assert (step, held.arrays["params.w"].tolist(), held.others) == (10, [10, 10], {"step"})
    assert orbax.read_step(tmp_path / "run", 9)[1].arrays["params.w"].tolist() == [9, 9]
    assert recognise(tmp_path / "run" / "1") == "orbax"
    assert orbax.read(tmp_path / "run" / "1").arrays["params.w"].tolist() == [1, 1]
    with pytest.raises(CheckpointNotFoundError, match=r"has no step 2; there are \[1, 9, 10\]"):
        orbax.read_step(tmp_path / "run", 2)
    with pytest.raises(CheckpointNotFoundError, match="never finished"):
        orbax.read(tmp_path / "run" / "11.orbax-checkpoint-tmp")


def test_items_of_a_step_begin_their_names(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        items = {
            "state": ocp.args.PyTreeSave({"params": {"w": np.ones(2)}, "step": 1}),
            "ema": ocp.args.PyTreeSave({"w": np.zeros(2)}),
            "config": ocp.args.JsonSave({"a": 1}),
        }
        manager.save(2, args=ocp.args.Composite(**items))
        manager.wait_until_finished()

    step, held = orbax.read_step(tmp_path / "run")

    assert (step, held.arrays.keys()) == (2, {"ema.w", "state.params.w", "state.step"})
    assert (held.others, held.left_out) == ({"state.step"}, ["item config"])


# After an error threads of Orbax speak to its event loop, which is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_is_an_error(folder: Path) -> None:
    data = sorted((folder / "ocdbt.process_0" / "d").iterdir()) + sorted((folder / "d").iterdir())
    failed = []
    for path in [*data, folder / "manifest.ocdbt", folder / "_METADATA"]:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        try:
            found = orbax.read(folder).arrays
        except FormatError:
            failed.append(path)
        else:  # the pieces of one process are not needed once they are merged
            assert "ocdbt.process_0" in str(path)
            assert same(found["params.enc.weight"], model()["enc.weight"])
        path.write_bytes(whole)
    assert {folder / "manifest.ocdbt", folder / "_METADATA"} < {*failed}
    shutil.rmtree(folder / "d")
    with pytest.raises(FormatError, match="Orbax cannot read it"):
        orbax.read(folder)
    gc.collect()


def test_names_that_leave_the_folder_are_refused(folder: Path) -> None:
    text = (folder / "_METADATA").read_text()
    assert '"mask"' in text
    (folder / "_METADATA").write_text(text.replace("'mask'", "'../../mask'").replace('"mask"', '"../../mask"'))

    with pytest.raises(FormatError, match=r"the name '\.\./\.\./mask' would leave the folder"):
        orbax.read(folder)


def test_a_folder_without_a_tree_is_refused(folder: Path) -> None:
    os.remove(folder / "_METADATA")

    with pytest.raises(CheckpointNotFoundError, match="holds no tree of arrays"):
        orbax.read(folder)


def test_without_orbax_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)

    with pytest.raises(MissingExtraError, match=r"needs orbax: pip install 'holdfast\[orbax\]'"):
        orbax.read(HERE / "orbax")
