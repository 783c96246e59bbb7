"""Checkpoints of Orbax, written by Orbax."""

import gc
import json
import os
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import holdfast
from cli.calling import call
from holdfast.errors import CheckpointNotFoundError, FormatError, MissingExtraError, StorageError
from holdfast.interop import orbax
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same

ocp = pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
jax = pytest.importorskip("jax", reason="JAX is not installed")

# TensorStore ends reads that Orbax has given up in threads of its own, when their event loop may be closed already: in whichever
# test runs then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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
    assert (held.others, held.values, held.left_out) == ({"opt_state.0.mu"}, {"note": "text"}, [])


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
        assert (held.others, held.values, held.left_out) == (set(), {}, [])  # None: a part without leaves


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


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_every_layout_of_arrays(ocdbt: bool, zarr3: bool, tmp_path: Path) -> None:
    tree = {
        "w": np.arange(12.0).reshape(3, 4),
        "b": np.ones(3, ml_dtypes.bfloat16),
        "z": np.array(2, np.int8),
        "n": {"note": "x"},
    }
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as checkpointer:
        checkpointer.save(tmp_path / "saved", tree)

    held = orbax.read(tmp_path / "saved")

    assert recognise(tmp_path / "saved") == "orbax"
    assert all(same(held.arrays[name], tree[name]) for name in ("w", "b", "z"))
    assert held.values == {"n": {"note": "x"}}


def test_steps_under_other_names(tmp_path: Path) -> None:
    options = ocp.CheckpointManagerOptions(step_prefix="ckpt", step_format_fixed_length=6)
    with ocp.CheckpointManager(tmp_path / "run", options=options) as manager:
        for step in (1, 20):
            manager.save(step, args=ocp.args.StandardSave({"w": np.full(2, step)}), force=True)
        manager.wait_until_finished()

    assert recognise(tmp_path / "run") == "orbax-steps"
    assert orbax.steps(tmp_path / "run") == {1: "ckpt_000001", 20: "ckpt_000020"}
    assert orbax.read_step(tmp_path / "run")[1].arrays["w"].tolist() == [20, 20]


def test_items_in_forms_of_their_own_are_left_out_and_the_others_read(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        items = {
            "state": ocp.args.StandardSave({"w": np.ones(2)}), "alone": ocp.args.ArraySave(np.ones(3)),
            "key": ocp.args.JaxRandomKeySave(jax.random.key(1)),
            "rng": ocp.args.NumpyRandomKeySave(np.random.RandomState(0).get_state()),
        }  # fmt: skip
        manager.save(2, args=ocp.args.Composite(**items))
        manager.wait_until_finished()

    held = orbax.read_step(tmp_path / "run")[1]

    assert (held.arrays.keys(), held.left_out) == ({"state.w"}, ["item alone", "item key", "item rng"])


def test_a_training_state_is_loaded_into_the_live_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    monkeypatch.chdir(tmp_path)

    def state(value: float) -> dict:
        params = {"dense": {"kernel": jax.numpy.full((2, 2), value)}}
        tx = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
        opt_state = tx.update(params, tx.init(params), params)[1]
        return {"params": params, "opt_state": opt_state, "step": int(value)}

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", state(3.0))

    assert call("convert", "saved", "made", "--json").json["serial"] == 0
    loaded = holdfast.load_checkpoint(state(0.0), "made").state
    wanted, found = jax.tree.leaves(state(3.0)), jax.tree.leaves(loaded)
    assert jax.tree.structure(loaded) == jax.tree.structure(state(3.0))
    assert all(same(np.asarray(a), np.asarray(b)) for a, b in zip(found, wanted, strict=True))


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


def test_a_shape_that_was_made_up_is_refused_before_its_memory_is_taken(tmp_path: Path) -> None:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
        checkpointer.save(tmp_path / "saved", {"w": np.ones((2, 3))})
    path = tmp_path / "saved" / "w" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [1 << 40, 4], "chunks": [1 << 20, 4]}))

    # TensorStore would end the process.
    with pytest.raises(
        StorageError, match="saved says that its arrays take 35,184,372,088,832 bytes, and this machine has"
    ):
        orbax.read(tmp_path / "saved")


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
