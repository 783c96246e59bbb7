"""Programs of Paddle 3 as JSON, and folders of paddle.distributed."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import CheckpointNotFoundError, FormatError
from holdfast.interop import distcp, pir
from holdfast.interop.expected import Expected
from interop.truth import PADDLE, meta, same, values

DISTRIBUTED = PADDLE / "distributed"
JIT = PADDLE / "jit_save" / "model" / "m.json"


def test_parameters_of_a_program_sorted_by_name() -> None:
    found = pir.parameters(JIT)

    state = meta(PADDLE / "jit_save")["state"]
    assert list(found) == sorted(entry["variable"] for entry in state.values())
    assert {name: e.shape for name, e in found.items()} == {e["variable"]: tuple(e["shape"]) for e in state.values()}
    assert found["conv2d_0.w_0"] == Expected(np.dtype("f4"), (4, 1, 3, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["base_code"].update(magic="other"),
        lambda d: d.pop("base_code"),
        lambda d: d.pop("program"),
        lambda d: d.update(program=[]),
        lambda d: d["program"]["regions"][0]["blocks"][0]["ops"][0].pop("A"),
        lambda d: d["program"]["regions"][0]["blocks"][0]["ops"][0].update(A=[0, 0, 0, 7]),
        lambda d: d["program"]["regions"][0]["blocks"][0]["ops"][0]["O"]["TT"].update(D=[{"#": "0.t_f32"}, ["x"]]),
        lambda d: d["program"]["regions"][0]["blocks"][0]["ops"][0]["O"].update(TT=3),
    ],
)
def test_programs_that_are_none(change: Any, tmp_path: Path) -> None:
    document = json.loads(JIT.read_text())
    change(document)
    (tmp_path / "m.json").write_text(json.dumps(document))

    with pytest.raises(FormatError, match=r"m\.json"):
        pir.parameters(tmp_path / "m.json")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff{}", b"3"])
def test_files_that_are_no_json(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(text)

    with pytest.raises(FormatError, match=r"m\.json"):
        pir.parameters(tmp_path / "m.json")


def test_a_distributed_folder_gives_what_paddle_held() -> None:
    found = distcp.read(DISTRIBUTED / "model")

    truth = values(DISTRIBUTED, "state")
    assert sorted(found) == sorted(truth)
    assert all(same(found[name], truth[name]) for name in truth)
    assert distcp.is_distributed(DISTRIBUTED / "model")
    assert not distcp.is_distributed(DISTRIBUTED)
    assert not distcp.is_distributed(DISTRIBUTED / "absent")


MODULE = "paddle.distributed.flex_checkpoint.dcp.metadata"


def sharded(
    folder: Path, chunks: list[tuple[tuple[int, ...], np.ndarray]], shape: tuple[int, ...] | None, **more: Any
) -> None:
    """A folder with one array "w" in several pieces, each in a file of its own."""
    folder.mkdir()

    def plain(value: Any) -> bytes:
        if isinstance(value, tuple):
            return b"(" + b"".join(map(plain, value)) + b"t"
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + value.to_bytes(4, "little", signed=True)
        if isinstance(value, str):
            return b"X" + len(value).to_bytes(4, "little") + value.encode()
        return b"N"

    def made(kind: str, **fields: Any) -> bytes:
        state = b"}(" + b"".join(plain(k) + plain(v) for k, v in fields.items()) + b"u"
        return f"c{MODULE}\n{kind}\n".encode() + b")\x81" + state + b"b"

    locals_, places = b"", b""
    for number, (offset, array) in enumerate(chunks):
        dtype = "bfloat16" if array.dtype == np.uint16 else str(array.dtype)
        given = {"global_shape": shape} if shape is not None else {}
        locals_ += made(
            "LocalTensorMetadata", global_offset=offset, local_shape=array.shape, dtype=dtype, **given, **more
        )
        places += made("LocalTensorIndex", tensor_key="w", global_offset=offset) + plain(f"{number}_0.distcp")
        (folder / f"{number}_0.distcp").write_bytes(pickle.dumps({"w": array}, 4))
    state = plain("state_dict_metadata") + b"}(" + plain("w") + b"](" + locals_ + b"eu"
    state += plain("storage_metadata") + b"}(" + places + b"u"
    (folder / "0.metadata").write_bytes(b"\x80\x02c" + f"{MODULE}\nMetadata\n".encode() + b")\x81}(" + state + b"ub.")


@pytest.mark.parametrize("known", [True, False])
def test_pieces_of_several_processes_are_put_together(known: bool, tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    pieces = [((0, 0), whole[:3, :2]), ((3, 0), whole[3:, :2]), ((0, 2), whole[:, 2:])]

    sharded(tmp_path / "d", pieces, (4, 6) if known else None)

    assert same(distcp.read(tmp_path / "d")["w"], whole)


def test_bfloat16_is_marked_in_the_metadata(tmp_path: Path) -> None:
    array = np.array([1.5, -2], ml_dtypes.bfloat16)

    sharded(tmp_path / "d", [((0,), array.view(np.uint16))], (2,))

    assert same(distcp.read(tmp_path / "d")["w"], array)


HALF = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("chunks", "shape", "more", "reason"),
    [
        ([((0, 0), HALF)], (4, 3), {}, "do not make up"),
        ([((0, 0), HALF), ((3, 0), HALF)], (4, 3), {}, "do not make up"),
        (
            [((0, 0), HALF), ((0, 1), HALF), ((0, 2), HALF), ((2, 0), np.zeros((1, 5), np.float32))],
            None,
            {},
            "do not|overlap",
        ),
        ([((0, 0), HALF), ((1, 0), np.zeros((2, 3), np.float32))], (3, 4), {}, "do not make up"),
        ([((0, 0), HALF), ((2, 0), HALF.astype("f8"))], (4, 3), {}, "several dtypes"),
        ([((0,), HALF)], (2, 3), {}, "is not there as"),
        ([((0, 0), HALF)], (1 << 30, 1 << 30), {}, "do not make up"),
        ([((0, 0), HALF)], (2, 3), {"is_flattened": True}, "flattened pieces"),
    ],
)
def test_pieces_that_do_not_make_up_the_array(chunks, shape, more, reason, tmp_path: Path) -> None:
    sharded(tmp_path / "d", chunks, shape, **more)

    with pytest.raises(FormatError, match=reason):
        distcp.read(tmp_path / "d")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="is no folder"):
        distcp.read(tmp_path / "absent")
    with pytest.raises(CheckpointNotFoundError, match=r"holds 0 \.metadata files"):
        distcp.read(tmp_path)
    shutil.copytree(DISTRIBUTED / "model", tmp_path / "d")
    (tmp_path / "d" / "0.metadata").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(FormatError, match=r"0\.metadata is not as this version knows"):
        distcp.read(tmp_path / "d")
    (tmp_path / "d" / "0.metadata").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(FormatError, match=r"refers to os\.system"):
        distcp.read(tmp_path / "d")


def test_a_file_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    sharded(tmp_path / "d", [((0, 0), HALF)], (2, 3))
    metadata = (tmp_path / "d" / "0.metadata").read_bytes()
    name = b"X\x0a\x00\x00\x000_0.distcp"
    assert name in metadata
    (tmp_path / "d" / "0.metadata").write_bytes(metadata.replace(name, b"X\x09\x00\x00\x00../x.pkl1"))

    with pytest.raises(FormatError, match="is no name of a data file"):
        distcp.read(tmp_path / "d")
