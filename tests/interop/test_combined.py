"""Combined files: names and order come from elsewhere, so everything else is checked."""

from pathlib import Path

import numpy as np
import pytest

from holdfast.errors import FormatError, MismatchError, UnsupportedVariableError
from holdfast.interop import combined, pir, program_wire
from holdfast.interop.expected import Expected
from holdfast.interop.lodtensor import LoDTensor
from interop.truth import PADDLE, arrays, combined_files, meta, same, values

FILES = combined_files()


@pytest.mark.parametrize(("case", "path", "names"), FILES, ids=[c.name for c, _, _ in FILES])
def test_read_gives_what_fluid_held_and_rewriting_gives_the_same_bytes(
    case: Path, path: Path, names: list[str], tmp_path: Path
) -> None:
    found = combined.read(path, reversed(names))

    assert list(found) == names
    for name, value in found.items():
        assert same(value.array, arrays(case)[meta(case)["vars"][name]["npz"]]), name
        assert value.lod == tuple(map(tuple, meta(case)["vars"][name]["lod"]))
    shuffled = dict(sorted(found.items(), reverse=True))
    assert combined.write(tmp_path / "made" / "all", shuffled) == path.stat().st_size
    assert (tmp_path / "made" / "all").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", ["static_save_inference_model_legacy", "static_save_inference_model_pir", "jit_save"])
def test_pdiparams_with_the_names_of_their_program(case: str) -> None:
    model = PADDLE / case / "model"
    if (model / "m.json").exists():
        expected = pir.parameters(model / "m.json")
    else:
        expected = program_wire.read_file(model / "m.pdmodel").persistables()

    found = combined.read(model / "m.pdiparams", expected, expected=expected)

    truth = values(PADDLE / case, "state")
    if case == "jit_save":
        truth = {entry["variable"]: truth[name] for name, entry in meta(PADDLE / case)["state"].items()}
    assert len(found) == (8 if case == "jit_save" else 4)
    for name, value in found.items():
        assert same(value.array, truth[name]), name


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    _, path, names = FILES[0]
    data = path.read_bytes()

    for size in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises((FormatError, MismatchError)):
            combined.read(tmp_path / "cut", names)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    held = {"a": (2, 3), "b": (4,), "c": (1,)}
    combined.write(tmp_path / "all", {n: LoDTensor(np.zeros(s, np.float32)) for n, s in held.items()})
    return tmp_path / "all"


@pytest.mark.parametrize(("names", "kind"), [(["a", "b"], "unexpected"), (["a", "b", "c", "d"], "missing")])
def test_the_number_of_names_must_be_that_of_the_records(file: Path, names: list[str], kind: str) -> None:
    with pytest.raises(MismatchError, match=f"holds 3 variables, {len(names)} names are given") as caught:
        combined.read(file, names)
    assert [p.kind for p in caught.value.problems] == [kind]


def test_a_name_that_shifts_the_others_is_shown(file: Path) -> None:
    expected = {"a": Expected(shape=(2, 3)), "aa": Expected(shape=(9,)), "b": Expected(shape=(4,)), "c": Expected()}

    with pytest.raises(MismatchError, match=r"the first that does not fit: 'aa': the file holds \(4,\)"):
        combined.read(file, expected, expected=expected)


def test_shapes_and_dtypes_are_checked_and_all_are_listed(file: Path) -> None:
    expected = {
        "a": Expected(np.dtype("f4"), (3, 2)),
        "b": Expected(np.dtype("f8"), (-1,)),
        "c": Expected(kind="selected_rows"),
    }

    with pytest.raises(MismatchError) as caught:
        combined.read(file, ["a", "b", "c"], expected=expected)
    assert [(p.kind, p.name) for p in caught.value.problems] == [("shape", "a"), ("dtype", "b"), ("kind", "c")]


def test_a_name_given_twice_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="given twice: a"):
        combined.read(file, ["a", "a", "b"])


def test_names_are_sorted_by_code_points(tmp_path: Path) -> None:
    names = ["b", "B", "参", "a_1", "a.1", "a1", "é", "\U0001f600", "\uffff"]
    variables = {name: LoDTensor(np.array([i], np.int64)) for i, name in enumerate(names)}
    combined.write(tmp_path / "all", variables)

    order = [int(combined.read(tmp_path / "all", names)[n].array[0]) for n in sorted(names, key=lambda n: n.encode())]

    raw = (tmp_path / "all").read_bytes()
    assert [raw[at - 8] for at in range(len(raw) // len(names), len(raw) + 1, len(raw) // len(names))] == order


def test_write_refuses_all_at_once_and_leaves_the_old_file(file: Path) -> None:
    before = file.read_bytes()

    with pytest.raises(UnsupportedVariableError) as caught:
        combined.write(file, {"x": LoDTensor(np.zeros(1, np.uint32)), "y": LoDTensor(np.array(1.0))})
    assert sorted(caught.value.reasons) == ["x", "y"]
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["all"]


def test_records_lists_what_a_file_holds(file: Path) -> None:
    assert [record.shape for record in combined.records(file)] == [(2, 3), (4,), (1,)]


def test_an_empty_file_holds_no_variable(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert combined.read(tmp_path / "empty", []) == {}
    with pytest.raises(MismatchError, match="holds 0 variables, 1 names"):
        combined.read(tmp_path / "empty", ["a"])
