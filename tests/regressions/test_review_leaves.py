"""Faults at the leaves that a review found: errors, adapters, headers, the pipelines and the stores."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import mmap
import os
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import errors
from holdfast.adapters.state import temporary
from holdfast.adapters.tree import scan
from holdfast.engine import arrays, match, reader
from holdfast.engine.plan import plan_files
from holdfast.engine.progress import Meter
from holdfast.engine.writer import write_files
from holdfast.errors import FormatError, MismatchError, Problem, StorageError
from holdfast.format import manifest as manifests, safetensors as container, values
from holdfast.format.digests import BLOCK_BYTES
from holdfast.format.manifest import Chunk, Entry, File, Manifest
from holdfast.storage import AnyPath, LocalStore, Location, MemoryStore, local, resolve
from hostile.cases import with_trainer
from support import WrappedStore, contents, write_file

# --- hostile values ----------------------------------------------------------------------------------------------


class Box:
    """An object with a state of its own."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def plant_value(run: Path, name: str, value: Any) -> None:
    """Put a value into a saved checkpoint; every digest is right."""
    folder = run / "checkpoint_0"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    trainer = json.loads(files["trainer_0.json"])
    trainer["values"][name] = value
    for file, data in with_trainer(files, json.dumps(trainer)).items():
        (folder / file).write_bytes(data)


@pytest.mark.parametrize(
    "value",
    [
        {"$variable": 5},
        {"$variable": None},
        {"$variable": ["w"]},
        {"$variable": {"$tuple": []}},
        {"$random": "random.Random"},
        {"$random": []},
        {"$random": ["random.Random"]},
        {"$random": [5, {}]},
        {"$random": ["random.Random", {}, {}]},
        {"$random": {"$tuple": ["random.Random", {}]}},
        {"$dict": [[{"$variable": "w"}, 1]]},
        {"$dict": [[{"$tuple": [{"$variable": "w"}]}, 1]]},
    ],
    ids=json.dumps,
)
def test_decode_refuses_references_and_random_states_of_another_form(value: Any) -> None:
    with pytest.raises(FormatError, match=r"malformed \$"):
        values.decode([value], "f")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": {"$variable": 5}}, FormatError),
        ({"a": {"$random": ["random.Random", {"$tuple": [3]}]}}, MismatchError),
        ({"a": [{"$random": ["x", 1]}]}, MismatchError),
    ],
)
def test_hostile_state_of_an_object_is_found_before_the_target_changes(
    value: Any, error: type[Exception], tmp_path: Path
) -> None:
    holdfast.save_checkpoint({"w": np.ones(3), "box": Box({"a": np.ones(2)})}, tmp_path)
    plant_value(tmp_path, "box", value)
    target = {"w": np.zeros(3), "box": Box({"a": np.zeros(2)})}
    before = contents(target)

    with pytest.raises(error):
        holdfast.load_checkpoint(target, tmp_path, strict="superset")

    assert contents(target) == before


@pytest.mark.parametrize("tagged", [{"$variable": "w"}, {"$random": ["random.Random", []]}])
@pytest.mark.parametrize("around", [lambda t: t, lambda t: [1, t], lambda t: {"a": {"$tuple": [[t]]}}])
def test_tagged_values_never_reach_a_plain_value(tagged: Any, around: Callable[[Any], Any], tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(3), "seen": [1, 2]}, tmp_path)
    plant_value(tmp_path, "seen", around(tagged))
    target = {"w": np.zeros(3), "seen": [1, 2]}

    with pytest.raises(MismatchError, match="'seen': the checkpoint has .* there, the target a plain value"):
        holdfast.load_checkpoint(target, tmp_path)

    assert contents(target) == contents({"w": np.zeros(3), "seen": [1, 2]})


# --- shapes that no array can have ------------------------------------------------------------------------------

IMPOSSIBLE = [("U8", (0, 2**63 - 1, 2)), ("F32", (0, 2**63 - 1)), ("F32", (2**62, 0)), ("U8", (2**32, 0, 2**31))]
POSSIBLE = [("U8", (0, 2**63 - 1)), ("F32", (2**60, 0)), ("F64", (0, 0)), ("U8", (2**32, 0, 2**30))]


def described(dtype: str, shape: tuple[int, ...]) -> Manifest:
    digest = "0" * 32
    return Manifest(
        format="holdfast", version=(1, 0), content="params", serial=None, step=None, created="", writer="", attempt="",
        world_size=1, metrics={}, files=(File("model.safetensors", 4096, digest, 4096, digest),),
        variables=(Entry("w", "parameter", True, dtype, shape, (Chunk(0, (4096, 4096), ()),)),),
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "shape"), IMPOSSIBLE)
def test_shapes_that_no_array_can_have_are_refused(dtype: str, shape: tuple[int, ...]) -> None:
    text = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}}).encode()
    made = described(dtype, shape)

    with pytest.raises(ValueError, match="too big|too large|maximum"):
        np.empty(shape, holdfast.dtypes.to_numpy(dtype))
    with pytest.raises(FormatError, match="'w' has a shape that no array can have"):
        container.parse_header(text, 8 + len(text), "f")
    with pytest.raises(FormatError, match="'w': a shape that no array can have"):
        manifests.check(made, "f")
    with pytest.raises(FormatError, match="'w': a shape that no array can have"):
        manifests.check_entry(made, made.variables[0], "f")


@pytest.mark.parametrize(("dtype", "shape"), POSSIBLE)
def test_empty_arrays_that_numpy_allows_are_saved_and_loaded(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = np.empty(shape, holdfast.dtypes.to_numpy(dtype))
    manifests.check(described(dtype, shape), "f")

    holdfast.save_params({"w": array}, tmp_path / "m")
    holdfast.load_params({"w": array}, tmp_path / "m")
    holdfast.verify(tmp_path / "m")

    with holdfast.open(tmp_path / "m") as checkpoint:
        assert checkpoint["w"].shape == shape
        assert checkpoint.read()["w"].shape == shape


def test_shape_that_no_array_can_have_is_a_format_error_in_anybodys_file(tmp_path: Path) -> None:
    text = json.dumps({"w": {"dtype": "F32", "shape": [0, 2**63 - 1], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)

    with pytest.raises(FormatError, match="no array can have"):
        holdfast.open(tmp_path / "m.safetensors")


# --- casts in pieces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_blocks_are_inspected_and_cast_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    bytes_ = np.random.default_rng(3).integers(0, 100, 2 * BLOCK_BYTES + 12_345, np.uint8)
    floats = np.arange(BLOCK_BYTES / 8 + 512).reshape(-1, 8)
    holdfast.save_params({"b": bytes_, "f": floats}, tmp_path / "m")
    sizes: list[int] = []
    cast, scatter, loss = arrays.cast, arrays.scatter, match.cast_loss

    def spy(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(values: np.ndarray, *args: Any) -> Any:
            sizes.append(values.size)
            return real(values, *args)

        return called

    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: cached)
    monkeypatch.setattr(arrays, "cast", spy(cast))
    monkeypatch.setattr(match, "cast_loss", spy(loss))
    monkeypatch.setattr(arrays, "scatter", spy(scatter))
    target = {"b": np.zeros(bytes_.size), "f": np.asfortranarray(np.zeros(floats.shape, np.int32))}

    holdfast.load_params(target, tmp_path / "m", cast="allow")

    assert 0 < max(sizes) <= reader.PIECE_ELEMENTS
    assert np.array_equal(target["b"], bytes_)
    assert np.array_equal(target["f"], floats)


def test_loss_is_found_in_the_last_piece_of_a_block(tmp_path: Path) -> None:
    held = np.zeros(BLOCK_BYTES // 8 + 1)
    held[[BLOCK_BYTES // 8 - 1]] = 1e300
    holdfast.save_params({"w": held}, tmp_path / "m")

    with pytest.raises(errors.CastError, match="'w': 1e\\+300 does not fit"):
        holdfast.load_params({"w": np.zeros(held.size, np.float32)}, tmp_path / "m", cast="allow")


# --- errors in other processes ----------------------------------------------------------------------------------


def noted(error: Exception) -> Exception:
    error.add_note("a note")
    return error


ERRORS: list[Exception] = [
    errors.HoldfastError("text"),
    errors.CheckpointNotFoundError("text"),
    errors.CheckpointNotFoundError(errno.ENOENT, "No such file", "/some/file"),
    errors.FormatError("text"),
    errors.VersionError("text"),
    errors.CorruptCheckpointError("text", path="/some/file", variables=["a", "b"]),
    MismatchError("runs/x", [Problem("missing", "a", "'a' is not there"), Problem("shape", "b", "long")], ["a hint"]),
    errors.CastError("text"),
    errors.UnsupportedVariableError({"a.b": "is odd", "c": "is strange"}),
    errors.ForeignFolderError("text"),
    StorageError("text"),
    StorageError.of(OSError(errno.EACCES, "Permission denied", "/some/file"), "cannot read x"),
    StorageError.of(OSError("something odd"), "cannot read x"),
    errors.DiskFullError("text", needed_bytes=7, free_bytes=3),
    StorageError.of(OSError(errno.ENOSPC, "No space left", "/some/file"), "cannot write x"),
    errors.RestoreError("text", [(3, ValueError("x")), (1, errors.CorruptCheckpointError("y", path="/p"))]),
    errors.ClosedError("text"),
    errors.MissingExtraError("text", name="rich", path="/some/file"),
    noted(errors.CorruptCheckpointError("text", path="/some/file")),
]


def fields(error: Any) -> Any:
    if not isinstance(error, Exception):
        return [fields(e) for e in error] if isinstance(error, tuple) else error
    of_builtins = {name: getattr(error, name, None) for name in ("errno", "filename", "name", "path")}
    held = {name: fields(value) for name, value in vars(error).items()}
    return (type(error), str(error), fields(error.args), of_builtins, held)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_errors_survive_a_trip_to_another_process(error: Exception, protocol: int) -> None:
    found = pickle.loads(pickle.dumps(error, protocol))

    assert fields(found) == fields(error)


def test_every_error_makes_the_trip() -> None:
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.HoldfastError)}

    assert {type(error) for error in ERRORS} == classes


# --- descriptors ------------------------------------------------------------------------------------------------


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("cached", [True, False])
def test_checkpoint_that_nobody_closes_is_closed_with_its_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    holdfast.save_params({"w": np.arange(300_000.0)}, tmp_path / "m")
    monkeypatch.setattr(local._LocalReader, "is_cached", lambda *_: cached)
    before = descriptors()

    rows = holdfast.open(tmp_path / "m")["w"][0:2]
    holdfast.open(tmp_path / "m").read()

    assert rows.tolist() == [0.0, 1.0]
    del rows
    assert descriptors() == before


def test_no_number_is_closed_twice(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(8192))
    opened = LocalStore().open(str(tmp_path / "f"))
    opened.read_direct(memoryview(mmap.mmap(-1, 4096)), 0)
    opened.close()
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]  # among them those that were closed

    opened.close()
    del opened
    gc.collect()

    for number in numbers:
        os.close(number)  # OSError if it is closed


# --- subclasses of arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids=["C", "F"])
@pytest.mark.parametrize("kind", [np.matrix, np.recarray, np.memmap])
@pytest.mark.parametrize("rows", [3, 3000])
def test_subclasses_of_arrays_are_saved_and_loaded_in_place(
    layout: Callable[[np.ndarray], np.ndarray], kind: type[np.ndarray], rows: int, tmp_path: Path
) -> None:
    plain = layout(np.arange(rows * 40.0).reshape(rows, 40))
    array = plain.view(kind)
    target = np.zeros_like(plain).view(kind)

    holdfast.save_checkpoint({"w": array, "more": [array[:2], array[:1]]}, tmp_path)
    held = {"w": target, "more": [np.zeros((2, 40)).view(kind), np.zeros((1, 40)).view(kind)]}
    holdfast.load_checkpoint(held, tmp_path)

    assert held["w"] is target
    assert type(target) is kind
    assert np.array_equal(np.asarray(target), plain)


def test_arrays_of_a_file_are_loaded_in_place(tmp_path: Path) -> None:
    holdfast.save_params({"w": np.arange(1000.0)}, tmp_path / "m")
    target = np.memmap(tmp_path / "target", np.float64, "w+", shape=(1000,))

    holdfast.load_params({"w": target}, tmp_path / "m")
    target.flush()

    assert np.array_equal(np.fromfile(tmp_path / "target"), np.arange(1000.0))


def test_masked_arrays_stay_refused() -> None:
    with pytest.raises(errors.UnsupportedVariableError, match="would lose its mask"):
        scan({"w": np.ma.masked_array(np.zeros(2), [True, False])})


# --- temporaries ------------------------------------------------------------------------------------------------


class Untouchable:
    """Every method of a checkpoint's interest fails."""

    def state_dict(self) -> dict[str, Any]:
        raise AssertionError("called")

    load_state_dict = state_dict
    __str__ = state_dict  # type: ignore[assignment]


def cyclic() -> list[Any]:
    ring: list[Any] = [np.zeros(2)]
    ring += [ring, {"again": ring}]
    return ring


def deep() -> list[Any]:
    inner: list[Any] = [np.zeros(2)]
    for _ in range(100_000):
        inner = [inner]
    return inner


def entangled() -> list[Any]:
    nodes: list[Any] = [[] for _ in range(40)]
    for node in nodes:
        node += nodes
    return nodes


@pytest.mark.parametrize("whole_is_model", [True, False])
@pytest.mark.parametrize(
    "tree",
    [
        Untouchable(),
        [Untouchable()],
        {"a": {Untouchable(): np.zeros(2)}},
        cyclic(),
        deep(),
        entangled(),
        random.Random(),
    ],
    ids=["object", "object in a list", "object as key", "cyclic", "deep", "entangled", "generator"],
)
def test_temporaries_are_passed_over_whatever_they_are(tree: Any, whole_is_model: bool) -> None:
    found = scan({"w": np.zeros(1), "scratch": temporary(tree)}, whole_is_model=whole_is_model)

    assert [item.variable.name for item in found.items if item.variable.kind != "temporary"] == ["w"]
    assert found.items[0].variable.kind == ("parameter" if whole_is_model else "persistable")
    assert found.values == []


def test_arrays_of_temporaries_are_noted_in_order() -> None:
    tree = {"a": [np.zeros(1), temporary({"b": np.zeros(2)})], "c": holdfast.parameters(np.zeros(3))}

    found = scan({"scratch": temporary(tree), "w": np.zeros(1)})

    noted = [item.variable.name for item in found.items if item.variable.kind == "temporary"]
    assert noted == ["scratch.a.0", "scratch.a.1.b", "scratch.c"]


# --- skip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["w[0]"], ("w[0]",)),
        (["w[*]"], ("w[0]", "w[1]")),
        (["[a]"], ()),
        (["w?"], ("w?",)),
        (["w*"], ("w[0]", "w[1]", "wx", "w?")),
        (["?"], ("a",)),
    ],
)
def test_skip_knows_names_and_two_wildcards(skip: list[str], left: tuple[str, ...]) -> None:
    names = ["w[0]", "w[1]", "wx", "w?", "a"]

    assert match.match_names(names, names, match.Rules(skip=skip)).skipped == left


def test_check_skip_names_what_matches_nothing() -> None:
    names = ["w[0]", "head.w", "epoch"]

    match.check_skip(names, ["w[0]", "head.*", "epoc?"])
    match.check_skip(names, ())
    with pytest.raises(
        ValueError, match=r"neither the checkpoint nor the target holds: 'w\[1\]', 'heads.\*', 'Epoch'$"
    ):
        match.check_skip(names, ["w[1]", "head.?", "heads.*", "Epoch"])


# --- faults of a store's own ------------------------------------------------------------------------------------


class Exit(BaseException):
    """Something that is no Exception."""


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), Exit("now")])
def test_fault_in_a_writer_thread_keeps_its_cause(fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        direct = False

        def __getattr__(self, name: str) -> Any:
            if name == "write_at":
                raise fault
            return lambda *_: None

    printed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    array = np.zeros(20 << 20, np.uint8)
    plans = plan_files([holdfast.Variable("x", "parameter", True, "U8", array.shape)])
    folder = Location(WrappedStore(MemoryStore(), create=lambda *_, **__: Odd()), "/x")  # type: ignore[arg-type]

    with pytest.raises((StorageError, Exit)) as caught:
        write_files(folder, plans, [array], Meter("save", 0, None))

    assert printed == []
    if isinstance(fault, Exception):
        assert caught.value.__cause__ is fault
        assert "cannot write /x/model.safetensors: RuntimeError: a fault" in str(caught.value)
    else:
        assert caught.value is fault


# --- paths ------------------------------------------------------------------------------------------------------


def test_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="a path must not be empty"):
        resolve("")


@pytest.mark.parametrize("path", ["s3://bucket/run", "gs://bucket/run", "file:///tmp/run", "HTTP://x/y"])
def test_url_is_refused_and_not_taken_for_a_folder(path: str) -> None:
    with pytest.raises(ValueError, match=f"'{path}' is a URL"):
        resolve(path)


@pytest.mark.parametrize("path", ["a:b", "a:/b", "./s3://b", "/tmp/s3://b", "://b", "1://b"])
def test_path_with_a_colon_is_no_url(path: str) -> None:
    assert resolve(path).path == os.path.realpath(path)


@pytest.mark.parametrize("path", ["~", "~/model", Path("~/model")])
def test_home_that_was_not_expanded_is_said(path: AnyPath) -> None:
    with pytest.raises(ValueError, match=r"expanduser\(\) of it is what was meant, or '\./~"):
        resolve(path)


@pytest.mark.parametrize("path", ["./~/model", "a/~", "~model"])
def test_tilde_elsewhere_is_a_name(path: str) -> None:
    assert resolve(path).path == os.path.realpath(path)


@pytest.mark.parametrize("path", [{"w": 1}, None, 3, b"runs/a", Path])
def test_what_is_no_path_is_named(path: Any) -> None:
    with pytest.raises(TypeError, match=f"a path must be a str or a Path, not {type(path).__name__}; the state comes"):
        resolve(path)


@pytest.mark.parametrize("path", ["a\0b", Path("a\0b")])
def test_path_with_nul_is_named(path: AnyPath) -> None:
    with pytest.raises(ValueError, match=r"no path can hold NUL.*'a\\x00b'"):
        resolve(path)


@pytest.mark.parametrize("path", ["", "run", "./run", "../run"])
def test_relative_location_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must be absolute"):
        Location(LocalStore(), path)


def test_path_of_a_location_holds_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    location = resolve("run")

    monkeypatch.chdir("/")

    assert location.path == f"{os.path.realpath(tmp_path)}/run"


# --- locks and mappings -----------------------------------------------------------------------------------------


def test_released_claim_is_free_while_a_forked_child_lives(tmp_path: Path) -> None:
    store = LocalStore()
    claim = store.claim(str(tmp_path))
    assert claim is not None
    copy = os.dup(claim._fd)  # type: ignore[attr-defined]  # what a forked child has

    claim.release()

    again = store.claim(str(tmp_path))
    os.close(copy)
    assert again is not None
    again.release()


def test_forked_child_does_not_give_back_what_its_parent_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore()
    claim = store.claim(str(tmp_path))
    assert claim is not None
    copy = os.dup(claim._fd)  # type: ignore[attr-defined]  # the parent's
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        claim.release()

    assert store.claim(str(tmp_path)) is None
    os.close(copy)


def test_release_closes_although_unlocking_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore()
    before = descriptors()
    claim = store.claim(str(tmp_path))
    assert claim is not None

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        claim.release()

    assert descriptors() == before


@pytest.fixture
def no_mappings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A file system on which no file can be mapped; counts the attempts."""
    tried: list[int] = []
    real = mmap.mmap

    def refuse(fd: int, *args: Any, **options: Any) -> Any:
        if fd == -1:
            return real(fd, *args, **options)
        tried.append(fd)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    return tried


def test_view_is_a_copy_where_files_cannot_be_mapped(tmp_path: Path, no_mappings: list[int]) -> None:
    write_file(LocalStore().at(tmp_path / "f"), bytes(range(200)))
    opened = LocalStore().open(str(tmp_path / "f"))

    views = [opened.view(10, 5), opened.view(190, 10), opened.view(0, 0)]
    opened.forget(0, 200)
    os.truncate(tmp_path / "f", 100)
    with pytest.raises(OSError, match="has become shorter"):
        opened.view(90, 20)
    opened.close()

    assert [bytes(view) for view in views] == [bytes(range(10, 15)), bytes(range(190, 200)), b""]
    assert all(view.readonly for view in views)
    assert len(no_mappings) == 1


def test_checkpoints_are_read_where_files_cannot_be_mapped(tmp_path: Path, no_mappings: list[int]) -> None:
    state = {"w": np.arange(300_000.0), "seen": [1, 2]}
    holdfast.save_checkpoint(state, tmp_path)
    fresh = {"w": np.zeros(300_000), "seen": []}

    holdfast.load_checkpoint(fresh, tmp_path)
    holdfast.verify(tmp_path)
    with holdfast.open(tmp_path) as checkpoint:
        assert checkpoint["w"][5:7].tolist() == [5.0, 6.0]

    assert contents(fresh) == contents(state)
    assert no_mappings


def test_view_of_a_file_that_was_cut_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(200))
    opened = LocalStore().open(str(tmp_path / "f"))
    os.truncate(tmp_path / "f", 100)

    with pytest.raises(OSError, match="has become shorter"):
        opened.view(0, 50)
    opened.close()
