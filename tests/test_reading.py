"""holdfast.open: a lazy mapping of named arrays, read by rows, valid beyond its end."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings, strategies as st

import holdfast
from holdfast import ClosedError, CorruptCheckpointError, FormatError, LocalStore, MemoryStore, parameters, reading
from holdfast.format import manifest as manifests
from holdfast.format.digests import BLOCK_BYTES
from holdfast.format.manifest import Chunk
from holdfast.storage import Location
from support import WrappedStore, flip_bit, read_file, tree_of, write_file

RNG = np.random.default_rng(3)
ARRAYS: dict[str, np.ndarray] = {
    "scalar": np.array(3.5),
    "vector": np.arange(10, dtype=np.int16),
    "matrix": np.arange(60.0).reshape(12, 5),
    "cube": np.arange(210, dtype=np.float32).reshape(7, 6, 5),
    "empty": np.zeros((0, 4), np.float32),
    "no-columns": np.zeros((4, 0), np.float32),
    "bfloat16": np.arange(12).astype(ml_dtypes.bfloat16).reshape(4, 3),
    "bool": np.arange(9) % 2 == 0,
    "rows": RNG.integers(0, 255, (3 << 20) + 5, np.uint8)[: 3 << 20].reshape(1024, 3072),
    "large": RNG.random((3 << 20) + 7, np.float32)[: 3 << 20].reshape(3072, 1024),  # 12 MiB: two blocks
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test changes."""
    path = tmp_path_factory.mktemp("reading") / "model"
    holdfast.save_params(ARRAYS, path)
    return path


@pytest.fixture(scope="module")
def checkpoints(saved: Path) -> dict[str, holdfast.Checkpoint]:
    """The same one, opened in several ways."""
    return {
        "verified": holdfast.open(saved),
        "trusted": holdfast.open(saved, verify=False),
        "bare": holdfast.open(saved / "model.safetensors"),
        "chunked": holdfast.open(chunked(MemoryStore().at("m"))),
    }


def chunked(where: Location) -> Location:
    """The same arrays as another world would have saved them: in chunks, of two dimensions where there are two."""
    pieces, boxes = {}, {}
    for name, array in ARRAYS.items():
        cut = [[0, n // 3, n] if n > 2 else [0, n] for n in array.shape[:2]]
        for i, first in enumerate(itertools.product(*(range(len(c) - 1) for c in cut))):
            offset = tuple(c[k] for c, k in zip(cut, first, strict=True)) + (0,) * (array.ndim - len(cut))
            shape = tuple(c[k + 1] - c[k] for c, k in zip(cut, first, strict=True)) + array.shape[len(cut) :]
            index = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
            pieces[f"{name}@{i}"] = np.array(array[index])
            boxes[f"{name}@{i}"] = (name, offset, shape)
    holdfast.save_params(pieces, where)
    raw = manifests.from_bytes(read_file(where / "manifest.json"), "f")
    by_name: dict[str, list[Any]] = {}
    for entry in raw.variables:
        name, offset, shape = boxes[entry.name]
        (chunk,) = entry.chunks
        by_name.setdefault(name, []).append((entry, Chunk(chunk.file, chunk.range, chunk.blocks, offset, shape)))
    entries = tuple(
        manifests.Entry(
            name, "parameter", True, found[0][0].dtype, ARRAYS[name].shape, tuple(chunk for _, chunk in found)
        )
        for name, found in by_name.items()
    )
    fields = {n: getattr(raw, n) for n in manifests.Manifest.__struct_fields__}
    write_file(where / "manifest.json", manifests.to_bytes(manifests.Manifest(**{**fields, "variables": entries})))
    return where


PART = st.one_of(
    st.integers(-12, 11),
    st.builds(slice, *(st.none() | st.integers(-14, 14),) * 2, st.none() | st.sampled_from([1, 2, 3, -1, -2])),
    st.just(Ellipsis),
    st.none(),
    st.sampled_from([[0, 1], np.array([1, 0, 1]), np.int64(2), True, [True, False, True]]),
)
INDEX = st.one_of(PART, st.lists(PART, max_size=4).map(tuple))


@pytest.mark.parametrize("way", ["verified", "trusted", "bare", "chunked"])
@given(st.sampled_from([n for n in ARRAYS if n not in ("rows", "large")]), INDEX)
@settings(max_examples=150)
def test_slices_are_what_numpy_gives(
    checkpoints: dict[str, holdfast.Checkpoint], way: str, name: str, index: Any
) -> None:
    array, lazy = ARRAYS[name], checkpoints[way][name]
    try:
        expected = array[index]
    except IndexError:
        with pytest.raises(IndexError):
            lazy[index]
        return

    found = lazy[index]

    assert found.shape == np.shape(expected)
    assert found.dtype == array.dtype
    assert found.tobytes() == np.asarray(expected).tobytes()
    assert not found.flags.writeable


@pytest.mark.parametrize("way", ["verified", "trusted", "bare", "chunked"])
@pytest.mark.parametrize(
    "index",
    [slice(0, 8), slice(2045, 2060), slice(None, None, 700), -1, (slice(2000, 2100), slice(3, 5)), Ellipsis],
    ids=repr,
)
def test_slices_across_blocks(checkpoints: dict[str, holdfast.Checkpoint], way: str, index: Any) -> None:
    for name in ("rows", "large"):
        if isinstance(index, slice) or name == "large":
            assert checkpoints[way][name][index].tobytes() == ARRAYS[name][index].tobytes()


@pytest.mark.parametrize("way", ["verified", "trusted", "bare", "chunked"])
def test_asarray_and_read_give_the_whole(checkpoints: dict[str, holdfast.Checkpoint], way: str) -> None:
    checkpoint = checkpoints[way]

    for name, array in ARRAYS.items():
        found = np.asarray(checkpoint[name])
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert {name: a.tobytes() for name, a in checkpoint.read().items()} == {
        name: a.tobytes() for name, a in ARRAYS.items()
    }


def test_chunked_checkpoints_are_loaded_too(tmp_path: Path) -> None:
    where = chunked(MemoryStore().at("m"))
    target = {name: np.zeros_like(a, order="F") for name, a in ARRAYS.items()}

    report = holdfast.load_params(target, where)

    assert all(target[name].tobytes() == a.tobytes() for name, a in ARRAYS.items())
    assert report.nbytes == sum(a.nbytes for a in ARRAYS.values())


def test_lazy_variables_know_what_they_are(checkpoints: dict[str, holdfast.Checkpoint]) -> None:
    lazy = checkpoints["verified"]["cube"]

    assert (lazy.name, lazy.shape, lazy.dtype, lazy.nbytes, len(lazy)) == (
        "cube",
        (7, 6, 5),
        np.dtype(np.float32),
        840,
        7,
    )
    assert lazy.variable == holdfast.Variable("cube", "parameter", True, "F32", (7, 6, 5))
    assert repr(lazy) == "<LazyVariable 'cube' F32 (7, 6, 5)>"
    with pytest.raises(TypeError, match="a scalar has no length"):
        len(checkpoints["verified"]["scalar"])


def test_array_protocol_converts_and_copies(checkpoints: dict[str, holdfast.Checkpoint]) -> None:
    lazy = checkpoints["verified"]["matrix"]

    assert np.asarray(lazy, np.float32).dtype == np.float32
    copied = np.array(lazy)
    copied[0, 0] = 99
    assert copied.flags.writeable
    assert lazy[0, 0] == 0
    assert (np.add(lazy, 1) == ARRAYS["matrix"] + 1).all()


def test_array_protocol_refuses_a_conversion_without_a_copy(checkpoints: dict[str, holdfast.Checkpoint]) -> None:
    with pytest.raises(ValueError, match="cop"):
        np.asarray(checkpoints["verified"]["matrix"], np.float32, copy=False)


def test_checkpoint_is_a_mapping(checkpoints: dict[str, holdfast.Checkpoint], saved: Path) -> None:
    checkpoint = checkpoints["verified"]

    assert len(checkpoint) == len(ARRAYS)
    assert set(checkpoint) == set(checkpoint.keys()) == set(ARRAYS)
    assert "cube" in checkpoint
    assert "nothing" not in checkpoint
    assert repr(checkpoint) == f"<Checkpoint {saved}: {len(ARRAYS)} variables>"
    with pytest.raises(KeyError, match="has no variable 'nothing'; list"):
        checkpoint["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        checkpoint.read(["cube", "nothing"])


def test_checkpoint_has_what_was_given_when_it_was_saved(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.zeros(2), "n": (1, 2)}, tmp_path, step=5, metrics={"loss": 1.5}, trainer_args=[1])

    with holdfast.open(tmp_path) as checkpoint:
        assert (checkpoint.serial, checkpoint.step, checkpoint.metrics, checkpoint.trainer_args) == (
            0,
            5,
            {"loss": 1.5},
            [1],
        )
        assert checkpoint.trainer() == ([1], {"n": (1, 2)})
        assert checkpoint.trainer(3) == (None, {})
        assert checkpoint.path == str(tmp_path / "checkpoint_0")
        assert list(checkpoint.variables) == ["w"]
        assert checkpoint.manifest.world_size == 1


# Only what is needed is read


def asked(store: WrappedStore, index: Any, name: str = "rows", verify: bool = True) -> int:
    """Bytes of data files that a slice asks the store for."""
    with holdfast.open(store.at(store.folder), verify=verify) as checkpoint:
        store.asked.clear()
        checkpoint[name][index]
        return sum(length for path, _, length in store.asked if path.endswith(".safetensors"))


@pytest.fixture
def counting(saved: Path) -> WrappedStore:
    """A store that counts, in front of the folder."""
    store = WrappedStore()
    store.folder = saved  # type: ignore[attr-defined]
    return store


def test_rows_that_are_asked_for_are_all_that_is_read(counting: WrappedStore) -> None:
    assert asked(counting, slice(0, 8), verify=False) == 8 * 3072
    assert asked(counting, (slice(10, 12), slice(0, 1)), verify=False) == 2 * 3072
    assert asked(counting, -1, verify=False) == 3072
    assert asked(counting, slice(5, 5), verify=False) == 0


def test_verified_rows_cost_no_more_than_their_blocks(counting: WrappedStore) -> None:
    assert asked(counting, slice(0, 8), "large") <= BLOCK_BYTES + 8 * 4096
    assert asked(counting, slice(3000, 3008), "large") <= (4 << 20) + 8 * 4096
    assert asked(counting, slice(0, 8), "matrix") <= ARRAYS["matrix"].nbytes + 8 * 40


def test_opening_reads_the_manifest_only(saved: Path) -> None:
    store = WrappedStore()

    with holdfast.open(store.at(saved)) as checkpoint:
        assert checkpoint.variables

    # The data file is opened, so that it stays readable when a rotation deletes it; of its bytes none is read.
    assert {Path(path).name for name, path in store.calls if name == "open"} == {"manifest.json", "model.safetensors"}
    heads = 3 * 52
    assert store.asked_bytes == (saved / "manifest.json").stat().st_size + heads


# Damage


@pytest.mark.parametrize(
    ("at", "bad", "good"), [(5, slice(0, 8), slice(2500, 2508)), (BLOCK_BYTES + 5, slice(2500, 2508), slice(0, 8))]
)
def test_slice_of_a_damaged_block_raises_and_others_are_read(
    saved: Path, tmp_path: Path, at: int, bad: slice, good: slice
) -> None:
    path = Path(shutil.copytree(saved, tmp_path / "m"))
    with holdfast.open(path) as checkpoint:
        start = checkpoint["large"]._entry.chunks[0].range[0]
    flip_bit(path / "model.safetensors", start + at)

    with holdfast.open(path) as checkpoint:
        assert checkpoint["large"][good].tobytes() == ARRAYS["large"][good].tobytes()
        with pytest.raises(CorruptCheckpointError, match="'large'") as caught:
            checkpoint["large"][bad]
        assert caught.value.variables == ("large",)
    with holdfast.open(path, verify=False) as checkpoint:
        assert checkpoint["large"][bad].shape == (8, 1024)


def test_damaged_trainer_file_is_noticed(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"n": 1}, tmp_path)
    flip_bit(tmp_path / "checkpoint_0" / "trainer_0.json")

    with (
        holdfast.open(tmp_path) as checkpoint,
        pytest.raises(CorruptCheckpointError, match="trainer_0.json is damaged"),
    ):
        checkpoint.trainer()


# Closing


def test_closed_checkpoint_says_so(saved: Path) -> None:
    with holdfast.open(saved) as checkpoint:
        lazy = checkpoint["matrix"]
        before = lazy[0:2]

    with pytest.raises(ClosedError, match="is closed; open it again"):
        lazy[0:2]
    with pytest.raises(ClosedError):
        checkpoint.read()
    checkpoint.close()
    assert before.tolist() == ARRAYS["matrix"][0:2].tolist()


def test_array_stays_valid_after_close_and_after_rotation_deletes_the_files(tmp_path: Path) -> None:
    state = {"w": np.arange(100_000.0).reshape(100, 1000)}
    holdfast.save_checkpoint(state, tmp_path)
    with holdfast.open(tmp_path) as checkpoint:
        part, whole = checkpoint["w"][10:20], checkpoint["w"][:]
    del checkpoint
    for _ in range(3):
        state["w"][:] = -1
        holdfast.save_checkpoint(state, tmp_path, max_num_checkpoints=1)
    gc.collect()

    assert not (tmp_path / "checkpoint_0").exists()
    assert (part == np.arange(10_000.0, 20_000.0).reshape(10, 1000)).all()
    assert whole[99, 999] == 99_999


def test_checkpoint_goes_on_reading_while_a_rotation_deletes_it(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.arange(10.0), "v": np.ones(3)}, tmp_path)
    with holdfast.open(tmp_path) as checkpoint:
        checkpoint["w"][0:1]
        holdfast.save_checkpoint({"w": np.zeros(10), "v": np.ones(3)}, tmp_path, max_num_checkpoints=1)

        assert checkpoint["w"][:].tolist() == list(range(10))


def test_reading_changes_nothing_on_disk(saved: Path) -> None:
    before = tree_of(saved.parent)

    with holdfast.open(saved) as checkpoint:
        checkpoint.read()
        checkpoint["cube"][1]

    assert tree_of(saved.parent) == before


# Safetensors files of others


def test_file_of_the_official_package_is_opened(tmp_path: Path) -> None:
    safetensors.numpy.save_file(
        {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float16)}, tmp_path / "x.safetensors"
    )

    with holdfast.open(tmp_path / "x.safetensors") as checkpoint:
        assert checkpoint["a"][1].tolist() == [3, 4, 5]
        assert {v.kind for v in checkpoint.variables.values()} == {"parameter"}
        assert (checkpoint.verified, checkpoint.serial, checkpoint.trainer_args) == (False, None, None)
        assert checkpoint.path == str(tmp_path / "x.safetensors")


def test_path_in_a_memory_store_is_opened() -> None:
    where = MemoryStore().at("x.safetensors")
    write_file(where, safetensors.numpy.save({"a": np.arange(3)}))

    with holdfast.open(where) as checkpoint:
        assert checkpoint["a"][:].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a safetensors file"),
        (b"hello world, this is a text", "not a safetensors file"),
        (safetensors.numpy.save({"a\0b": np.zeros(1)}), "tensor 'a.*NUL"),
        (safetensors.numpy.save({"": np.zeros(1)}), "name"),
        (safetensors.numpy.save({"a": np.zeros(9)})[:-1], "x.safetensors"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)

    with pytest.raises(FormatError, match=words):
        holdfast.open(tmp_path / "x.safetensors")


def test_file_has_no_serials(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")

    with pytest.raises(holdfast.CheckpointNotFoundError):
        holdfast.open(tmp_path / "x.safetensors", serial=3)


def test_malformed_variable_is_noticed_when_it_is_asked_for() -> None:
    where = MemoryStore().at("m")
    holdfast.save_params({"good": np.ones(2), "bad": np.ones(3)}, where)
    raw = manifests.from_bytes(read_file(where / "manifest.json"), "f")
    fields = {n: getattr(raw, n) for n in manifests.Manifest.__struct_fields__}
    entries = tuple(
        e if e.name == "good" else manifests.Entry(e.name, e.kind, e.trainable, e.dtype, (9,), e.chunks)
        for e in raw.variables
    )
    write_file(where / "manifest.json", manifests.to_bytes(manifests.Manifest(**{**fields, "variables": entries})))

    with holdfast.open(where) as checkpoint:
        assert checkpoint["good"][:].tolist() == [1, 1]
        with pytest.raises(FormatError, match="variable 'bad': range"):
            checkpoint["bad"]
        with pytest.raises(FormatError, match="'bad'"):
            checkpoint.read()
    with pytest.raises(FormatError, match="'bad'"):
        holdfast.load_params({"good": np.zeros(2), "bad": np.zeros(9)}, where)


def test_trainable_and_kind_are_kept(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"a": parameters([np.zeros(1)], trainable=False), "b": [np.zeros(1)]}, tmp_path)

    with holdfast.open(LocalStore().at(tmp_path)) as checkpoint:
        assert {n: (v.kind, v.trainable) for n, v in checkpoint.variables.items()} == {
            "a.0": ("parameter", False),
            "b.0": ("persistable", True),
        }
        assert not reading.is_bare(checkpoint.manifest)


def test_variable_of_an_unknown_dtype_is_noticed() -> None:
    where = MemoryStore().at("m")
    holdfast.save_params({"w": np.ones(2)}, where)
    raw = manifests.from_bytes(read_file(where / "manifest.json"), "f")
    fields = {n: getattr(raw, n) for n in manifests.Manifest.__struct_fields__}
    (entry,) = raw.variables
    odd = manifests.Entry("w", entry.kind, entry.trainable, "F4", entry.shape, entry.chunks)
    write_file(where / "manifest.json", manifests.to_bytes(manifests.Manifest(**{**fields, "variables": (odd,)})))

    with holdfast.open(where) as checkpoint, pytest.raises(FormatError, match="'w': unknown dtype 'F4'"):
        assert checkpoint.variables


def test_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(holdfast.CheckpointNotFoundError, match="pipe is no folder"):
        holdfast.open(tmp_path / "pipe")
