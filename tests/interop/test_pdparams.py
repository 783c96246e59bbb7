""".pdparams and .pdopt."""

import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.interop import pdparams
from interop.truth import FLUID, PADDLE, arrays, meta, same, values


@pytest.mark.parametrize(
    ("case", "part"),
    [(FLUID / "fluid_dygraph_save", "pdparams"), (FLUID / "fluid_dygraph_save", "pdopt"),
     (PADDLE / "paddle_save", "pdparams"), (PADDLE / "paddle_save", "pdopt")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_dygraph_files_give_what_the_framework_held(case: Path, part: str) -> None:
    found = pdparams.read(case / "model" / f"net.{part}")

    truth = values(case, part)
    # A state dict of an optimizer has keys of its own; the file has them as they are.
    by_variable = {entry.get("variable", name): name for name, entry in meta(case)[part].items() if "npz" in entry}
    assert len(found.arrays) == len(truth)
    for name, array in found.arrays.items():
        assert same(array, truth[name if name in truth else by_variable[name]]), name
    if part == "pdparams":
        assert found.structured_names == {name: meta(case)[part][name]["variable"] for name in truth}
    expected_values = {k: v["python"] for k, v in meta(case)[part].items() if "python" in v}
    assert found.values == expected_values


@pytest.mark.parametrize("case", [FLUID / "fluid_save", PADDLE / "static_save_legacy", PADDLE / "static_save_pir"])
def test_static_files_give_what_the_scope_held(case: Path) -> None:
    parts = [pdparams.read(case / "model" / f"m.{part}") for part in ("pdparams", "pdopt")]

    truth = values(case, "vars" if case.parent == FLUID else "state")
    found = parts[0].arrays | parts[1].arrays
    assert set(found) <= set(truth)
    assert set(truth) - set(found) <= {name for name in truth if name.startswith("learning_rate")}
    for name, array in found.items():
        assert same(array, truth[name]), name


def test_every_dtype_of_paddle_3() -> None:
    case = PADDLE / "dtypes"
    file = case / "model" / "all.pdparams"

    plain, marked = pdparams.read(file), pdparams.read(file, bfloat16=["v_bfloat16"])

    truth = values(case, "pdparams")
    for name, array in marked.arrays.items():
        wanted = truth[name].astype(ml_dtypes.bfloat16) if name == "v_bfloat16" else truth[name]
        assert same(array, wanted), name
    assert plain.arrays["v_bfloat16"].dtype == np.uint16
    assert same(pdparams.read(file, bfloat16="all").arrays["v_bfloat16"], marked.arrays["v_bfloat16"])
    assert marked.arrays["zero_d"].shape == ()
    assert marked.arrays["zero_size"].shape == (0, 3)


def test_bfloat16_must_name_what_is_there_as_uint16() -> None:
    with pytest.raises(ValueError, match="does not hold as uint16: nowhere, v_int8"):
        pdparams.read(PADDLE / "dtypes" / "model" / "all.pdparams", bfloat16=["v_int8", "nowhere"])


def test_nested_parts_and_bare_tensors() -> None:
    model = PADDLE / "dtypes" / "model"
    truth = arrays(PADDLE / "dtypes")

    nested, one = pdparams.read(model / "nested.pd"), pdparams.read(model / "one.pdtensor")

    assert same(nested.arrays["nested.w"], truth["pdparams_004"])
    assert same(nested.arrays["list.0"], truth["pdparams_008"])
    assert nested.values == {"list.1": 3, "list.2": "s"}
    assert list(one.arrays) == ["generated_tensor_2"]
    assert same(one.arrays["generated_tensor_2"], truth["pdparams_004"])


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ({}, ({}, {})),
        ({"lr": 0.5, "empty": {}}, ({}, {"lr": 0.5, "empty": {}})),
        (3, ({}, {"tensor": 3})),
        ([1, 2], ({}, {"tensor": [1, 2]})),
    ],
)
def test_files_without_arrays(held: object, found: tuple, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps(held, 2))

    read = pdparams.read(tmp_path / "x")

    assert (read.arrays, read.values) == found


def test_an_array_by_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps(np.arange(3), 4))

    assert pdparams.read(tmp_path / "x").arrays["tensor"].tolist() == [0, 1, 2]


def test_arrays_that_paddle_cut_into_slices_are_joined(tmp_path: Path) -> None:
    whole = np.arange(10, dtype=np.float32).reshape(2, 5)
    held = {
        "w@@.0": whole.reshape(-1)[:6],
        "w@@.1": whole.reshape(-1)[6:],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (2, 5), "slices": ["w@@.0", "w@@.1"]}},
    }
    (tmp_path / "x").write_bytes(pickle.dumps(held, 2))

    assert same(pdparams.read(tmp_path / "x").arrays["w"], whole)

    del held["w@@.1"]
    (tmp_path / "x").write_bytes(pickle.dumps(held, 2))
    with pytest.raises(FormatError, match="does not fit the arrays"):
        pdparams.read(tmp_path / "x")


@pytest.mark.parametrize(
    "held", [{"a": {"b": np.zeros(1)}, "a.b": np.zeros(1)}, {"StructuredToParameterName@@": {"a": 3}}]
)
def test_names_that_meet_and_tables_that_are_none(held: dict, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps(held, 2))

    with pytest.raises(FormatError):
        pdparams.read(tmp_path / "x")


def test_write_is_read_by_plain_pickle_and_by_us(tmp_path: Path) -> None:
    kinds = ["?", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8"]
    held = {f"v{kind}": np.array([[1, 0], [0, 1]]).astype(kind) for kind in kinds}
    held["special"] = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    held["empty"] = np.zeros((0, 3), np.float32)
    names, more = {"0.weight": "vf4"}, {"LR_Scheduler": {"last_epoch": 5, "last_lr": 0.0025}, "none": None}

    size = pdparams.write(tmp_path / "new" / "m.pdparams", held, structured_names=names, values=more)

    raw = (tmp_path / "new" / "m.pdparams").read_bytes()
    assert len(raw) == size
    plain, ours = pickle.loads(raw), pdparams.read(tmp_path / "new" / "m.pdparams")
    assert plain.pop("StructuredToParameterName@@") == ours.structured_names == names
    for name, array in held.items():
        assert same(plain[name], array)
        assert same(ours.arrays[name], array)
    assert ours.values == more
    assert plain["LR_Scheduler"] == more["LR_Scheduler"]


def test_write_for_paddle_stores_bfloat16_as_it_does(tmp_path: Path) -> None:
    array = np.array([1.5, -2], ml_dtypes.bfloat16)

    pdparams.write(tmp_path / "x", {"w": array, "s": np.array(1.5)}, dialect="paddle")

    assert same(pdparams.read(tmp_path / "x", bfloat16=["w"]).arrays["w"], array)
    assert pickle.loads((tmp_path / "x").read_bytes())["w"].dtype == np.uint16


def test_write_refuses_all_at_once_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 30,), (0,))

    with pytest.raises(UnsupportedVariableError) as caught:
        pdparams.write(tmp_path / "x", {"b": np.zeros(1, ml_dtypes.bfloat16), "h": huge}, values={"o": object()})
    assert sorted(caught.value.reasons) == ["b", "h", "o"]
    assert (tmp_path / "x").read_text() == "old"
    with pytest.raises(ValueError, match="both have a"):
        pdparams.write(tmp_path / "x", {"a": np.zeros(1)}, values={"a": 1})
