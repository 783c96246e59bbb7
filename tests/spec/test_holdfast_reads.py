"""What docs/format.md allows, Holdfast reads bit for bit, whoever wrote it: the independent writer, or safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings, strategies as st

import holdfast
from spec.independent import BLOCK, Piece, SpecVariable, build_checkpoint, read_checkpoint, write_folder
from spec.states import every_value
from spec.typed import DTYPES, Ref, SpecError, compact


def check(folder: Path, variables: list[SpecVariable]) -> None:
    """Every way to read gives exactly these variables."""
    expected = {variable.name: variable for variable in variables}
    holdfast.verify(folder)
    with holdfast.open(folder) as checkpoint:
        assert set(checkpoint) == expected.keys()
        for name, variable in checkpoint.variables.items():
            wanted = expected[name]
            assert (variable.kind, variable.trainable) == (wanted.kind, wanted.trainable)
            assert (variable.dtype, variable.shape) == (wanted.dtype, wanted.array.shape)
        read = checkpoint.read()
        for name, wanted in expected.items():
            assert read[name].tobytes() == wanted.array.tobytes(), name
            assert np.array(checkpoint[name]).tobytes() == wanted.array.tobytes(), name
            if wanted.array.ndim:
                rows = wanted.array.shape[0]
                for index in (slice(rows // 3, rows - rows // 3), slice(1, None, 2), slice(0, 0), (..., slice(0, 1))):
                    assert checkpoint[name][index].tobytes() == wanted.array[index].tobytes(), (name, index)
    state = {name: np.full_like(variable.array, 1) for name, variable in expected.items()}
    holdfast.load_persistables(state, folder)
    for name, wanted in expected.items():
        assert state[name].tobytes() == wanted.array.tobytes(), name


def variable(name: str, array: np.ndarray, kind: str = "parameter", trainable: bool = True) -> SpecVariable:
    return SpecVariable(name, kind, trainable and kind == "parameter", array)


def small() -> list[SpecVariable]:
    return [
        variable("fc.w", every_value("F32", (4, 6))),
        variable("fc.b", every_value("BF16", (6,))),
        variable("step", np.array(7, "<i8"), "persistable"),
    ]


PLACES: dict[str, list[Piece | str]] = {
    "model.safetensors": ["fc.w", "fc.b"],
    "state-00001-of-00001.safetensors": ["step"],
}


def _shuffled(value: object) -> str:
    """JSON with the fields of every object in reverse order."""

    def turn(item: Any) -> Any:
        if isinstance(item, dict):
            # A key that a reader of a stream may want first stays: the tag of typed JSON is alone in its object anyway.
            return {key: turn(item[key]) for key in reversed(item)}
        return [turn(element) for element in item] if isinstance(item, list) else item

    return compact(turn(value))


def _with_unknown_fields(value: object) -> str:
    """JSON in which every object of the manifest has fields that nobody knows yet."""

    def add(item: Any) -> Any:
        if isinstance(item, list):
            return [add(element) for element in item]
        if not isinstance(item, dict):
            return item
        grown = {key: add(element) for key, element in item.items()}
        known = {"format", "blocks", "digest", "chunks", "header_size"}
        if known & item.keys() and item.get("format") not in ("pt", "holdfast-trainer"):
            grown = {"a_new": {"b": [1, None, {"c": 1.5e300}]}, **grown, "zz_new": "\u00e9", "null": None}
        return grown

    return compact(add(value))


WAYS: dict[str, Callable[[object], str]] = {
    "compact": compact,
    "indented": lambda value: json.dumps(value, indent=4),
    "windows lines": lambda value: json.dumps(value, indent="\t").replace("\n", "\r\n"),
    "ASCII": lambda value: json.dumps(value, ensure_ascii=True),
    "spaces": lambda value: json.dumps(value, separators=(" \t, ", "\n:  ")) + " \n",
    "other order": _shuffled,
    "unknown fields": _with_unknown_fields,
}


@pytest.mark.parametrize("way", WAYS)
def test_json_may_be_written_in_any_way(way: str, tmp_path: Path) -> None:
    files = build_checkpoint(small(), PLACES, dumps=WAYS[way])
    read_checkpoint(files)

    check(write_folder(files, tmp_path / "checkpoint_0"), small())


@pytest.mark.parametrize("minor", [1, 7, 2**40])
def test_greater_minor_version_is_read(minor: int, tmp_path: Path) -> None:
    files = build_checkpoint(small(), PLACES, version=[1, minor], dumps=_with_unknown_fields)

    check(write_folder(files, tmp_path / "checkpoint_0"), small())


@pytest.mark.parametrize("content", ["params", "variables"])
def test_second_names_are_read(content: str, tmp_path: Path) -> None:
    aliases = {"head.w": "fc.w", "t\u00e9te": "fc.b"}
    variables = small()[:2]
    files = build_checkpoint(
        variables, {"model.safetensors": ["fc.w", "fc.b"]}, trainers=(), content=content, serial=None, world_size=1,
        aliases=aliases,
    )  # fmt: skip
    read_checkpoint(files, writer=True)
    folder = write_folder(files, tmp_path / "model")

    check(folder, variables)
    target = {"fc.w": np.zeros((4, 6), "f4"), "head.w": np.ones((4, 6), "f4")}
    holdfast.load_params(target, folder, strict="subset")
    renamed = {"last": np.zeros((4, 6), "f4")}
    holdfast.load_params(renamed, folder, strict="subset", rename={"head.w": "last"})

    for array in (*target.values(), *renamed.values()):
        assert array.tobytes() == variables[0].array.tobytes()


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({"head.w": "absent"}, "'head.w' cannot be a second name: there is no variable 'absent'"),
        ({"fc.b": "fc.w"}, "'fc.b' cannot be a second name: it is a variable of its own"),
        ({"x": "y", "y": "fc.w"}, "'x' cannot be a second name: there is no variable 'y'"),
        ({"": "fc.w"}, "names must not be empty"),
        ({"n" * 5000: "fc.w"}, "the name has 5000 bytes"),
        ({"head.w": 3}, "aliases"),
        (["head.w"], "aliases"),
    ],
)
def test_second_names_that_stand_for_nothing_are_refused(aliases: Any, words: str, tmp_path: Path) -> None:
    files = build_checkpoint(
        small()[:2], {"model.safetensors": ["fc.w", "fc.b"]}, trainers=(), content="params", serial=None, world_size=1,
        aliases=aliases,
    )  # fmt: skip
    folder = write_folder(files, tmp_path / "model")
    target = {"fc.w": np.zeros((4, 6), "f4")}

    with pytest.raises(SpecError, match=r"^2"):
        read_checkpoint(files)
    with pytest.raises(holdfast.FormatError, match=words):
        holdfast.load_params(target, folder, strict="subset")

    assert not target["fc.w"].any()


@pytest.mark.parametrize("align", [1, 8, 64, 512, 3])
def test_headers_may_have_any_length(align: int, tmp_path: Path) -> None:
    files = build_checkpoint(small(), PLACES, align=align)

    check(write_folder(files, tmp_path / "checkpoint_0"), small())


def test_every_dtype_and_shape_is_read(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(), (0,), (256,), (3, 5), (2, 0, 3), (1,) * 64, (2, 3, 1, 4)]
    variables = [variable(f"{tag} {shape}", every_value(tag, shape)) for tag in DTYPES for shape in shapes]
    files = build_checkpoint(variables, {"model.safetensors": [v.name for v in variables]})

    check(write_folder(files, tmp_path / "checkpoint_0"), variables)


def test_boxes_in_several_files_are_read(tmp_path: Path) -> None:
    w, slots = every_value("F32", (5, 7)), every_value("I16", (4, 3, 6))
    variables = [variable("w", w), variable("whole", every_value("F64", (3,))), variable("slots", slots, "persistable")]
    frozen = variable("frozen", every_value("U8", (9,)), trainable=False)
    boxes = [Piece("w", (0, 0), (2, 7)), Piece("w", (2, 0), (3, 4)), Piece("w", (2, 4), (3, 3))]
    cubes = [Piece("slots", (a, 0, c), (2, 3, 3)) for a in (0, 2) for c in (0, 3)]
    places: dict[str, list[Piece | str]] = {
        "model-00001-of-00003.safetensors": ["whole", boxes[2]],
        "model-00002-of-00003.safetensors": [boxes[0], boxes[1]],
        "model-00003-of-00003.safetensors": [Piece("frozen", (4,), (5,)), Piece("frozen", (0,), (4,))],
        "state-00001-of-00002.safetensors": [cubes[3], cubes[0]],
        "state-00002-of-00002.safetensors": [cubes[2], cubes[1]],
    }
    files = build_checkpoint([*variables, frozen], places)
    read_checkpoint(files)

    check(write_folder(files, tmp_path / "checkpoint_0"), [*variables, frozen])


def test_long_boxes_have_blocks_of_their_own(tmp_path: Path) -> None:
    rows = BLOCK // 4096 + 3
    long = np.random.default_rng(0).integers(0, 256, (2 * rows, 4096), np.uint8)
    boxes: list[Piece | str] = [Piece("long", (0, 0), (rows, 4096)), Piece("long", (rows, 0), (rows, 4096))]
    state = [variable("long", long)]
    files = build_checkpoint(state, {"model.safetensors": boxes})

    check(write_folder(files, tmp_path / "checkpoint_0"), state)


def test_several_trainers_are_read(tmp_path: Path) -> None:
    trainers = [({"rank": rank}, {"seen": [rank] * rank}) for rank in range(3)]
    files = build_checkpoint(small(), PLACES, trainers=trainers)
    write_folder(files, tmp_path / "checkpoint_0")
    state = {v.name: v.array.copy() for v in small()} | {"seen": []}

    report = holdfast.load_checkpoint(state, tmp_path, trainer_id=2)

    assert report.trainer_args == {"rank": 2}
    assert state["seen"] == [2, 2]
    holdfast.verify(tmp_path)


class Counter:
    """An object with a state of arrays and values."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"counts": np.zeros(3, "i4"), "name": ""}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


def test_variables_of_objects_are_put_in_their_place(tmp_path: Path) -> None:
    counts = variable("counter.counts", np.array([3, 1, 2], "<i4"), "persistable")
    values = {"counter": {"counts": Ref("counter.counts"), "name": "c", "\u00e9": (1, float("inf"))}}
    files = build_checkpoint([counts], {"state-00001-of-00001.safetensors": [counts.name]}, trainers=[(None, values)])
    write_folder(files, tmp_path / "checkpoint_0")
    counter = Counter()

    holdfast.load_checkpoint({"counter": counter}, tmp_path)

    assert counter.state["counts"].tolist() == [3, 1, 2]
    assert (counter.state["name"], counter.state["\u00e9"]) == ("c", (1, float("inf")))


def test_long_integer_is_read(tmp_path: Path) -> None:
    files = build_checkpoint(small(), PLACES, trainers=[({"huge": -(10**4297)}, {})])
    write_folder(files, tmp_path / "checkpoint_0")

    with holdfast.open(tmp_path) as checkpoint:
        assert checkpoint.trainer_args == {"huge": -(10**4297)}


def test_foreign_files_are_ignored(tmp_path: Path) -> None:
    folder = write_folder(build_checkpoint(small(), PLACES), tmp_path / "checkpoint_0")
    (folder / "README.md").write_text("mine")
    (folder / "model-00001-of-00009.safetensors").write_bytes(b"\0" * 100)
    (folder / "trainer_7.json").mkdir()
    (folder / "pinned").write_bytes(b"")

    check(folder, small())
    assert holdfast.serials(tmp_path) == [0]


@st.composite
def cut(draw: st.DrawFn, shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes that cover a shape: a box is cut in two again and again."""
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        offset, extent = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        dims = [dim for dim, size in enumerate(extent) if size > 1]
        if not dims:
            boxes.append((offset, extent))
            continue
        dim = draw(st.sampled_from(dims))
        at = draw(st.integers(1, extent[dim] - 1))
        first, second, begin = list(extent), list(extent), list(offset)
        first[dim], second[dim], begin[dim] = at, extent[dim] - at, offset[dim] + at
        boxes += [(offset, tuple(first)), (tuple(begin), tuple(second))]
    return boxes


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[list[SpecVariable], dict[str, list[Piece | str]]]:
    """Variables, cut into boxes, and laid out over files."""
    variables, pieces = [], []
    for number in range(draw(st.integers(0, 5))):
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
        kind = draw(st.sampled_from(["parameter", "frozen", "persistable"]))
        array = every_value(draw(st.sampled_from(sorted(DTYPES))), shape)
        name = draw(st.sampled_from(["w", "w@0", "model.w", "\u00e9 ", "@1,2", "a"])) + str(number)
        variables.append(
            variable(name, array, "parameter" if kind != "persistable" else kind, trainable=kind == "parameter")
        )
        boxes = draw(cut(shape))
        whole = len(boxes) == 1
        pieces += [(kind, Piece(name) if whole else Piece(name, *box)) for box in boxes]
    pieces = draw(st.permutations(pieces))
    groups: dict[tuple[str, int], list[Piece | str]] = {}
    for kind, piece in pieces:
        groups.setdefault((kind, draw(st.integers(0, 1))), []).append(piece)
    model = [members for (kind, _), members in groups.items() if kind != "persistable"]
    state = [members for (kind, _), members in groups.items() if kind == "persistable"]
    places: dict[str, list[Piece | str]] = {}
    for stem, parts in (("model", model), ("state", state)):
        for number, members in enumerate(parts, 1):
            single = stem == "model" and len(parts) == 1
            name = "model" if single else f"{stem}-{number:05d}-of-{len(parts):05d}"
            places[f"{name}.safetensors"] = members
    return variables, places


@settings(max_examples=120, deadline=None)
@given(checkpoints(), st.sampled_from(sorted(WAYS)), st.sampled_from([1, 8, 4096]))
def test_any_layout_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[list[SpecVariable], dict[str, list[Piece | str]]],
    way: str,
    align: int,
) -> None:
    variables, places = made
    files = build_checkpoint(variables, places, dumps=WAYS[way], align=align)
    read_checkpoint(files)

    check(write_folder(files, tmp_path_factory.mktemp("run") / "checkpoint_0"), variables)


# --- files of the official package ------------------------------------------------------------------------------------


def test_official_safetensors_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "any name.safetensors"
    official = [tag for tag, dtype in DTYPES.items() if dtype.kind in "iufcb" and not tag.startswith(("F8", "BF"))]
    tensors = {
        f"{tag}.{len(shape)}": every_value(tag, shape) for tag in official for shape in ((), (0, 2), (5,), (3, 4))
    }
    safetensors.numpy.save_file(tensors, path, metadata={"who": "the official package", "\u00e9": ""})

    with holdfast.open(path) as file:
        assert set(file) == set(tensors)
        read = file.read()
        for name, array in tensors.items():
            assert np.asarray(file[name]).tobytes() == read[name].tobytes() == array.tobytes(), name
            assert (file[name].dtype, file[name].shape) == (array.dtype, array.shape)
        assert file["F32.2"][1:].tobytes() == tensors["F32.2"][1:].tobytes()


@pytest.mark.parametrize("tag", DTYPES)
def test_official_bytes_of_every_dtype_are_opened(tag: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    array = every_value(tag, (16, 16))
    safetensors.numpy.save_file({"x": array}, path)

    with holdfast.open(path) as file:
        assert np.asarray(file["x"]).tobytes() == array.tobytes()
        assert file["x"].dtype == array.dtype
    state = {"x": np.zeros_like(array)}
    holdfast.load_params(state, path)
    assert state["x"].tobytes() == array.tobytes()
