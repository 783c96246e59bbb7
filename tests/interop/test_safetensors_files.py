"""Safetensors files of others."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.interop import huggingface, safetensors_files


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: list[int], start: int, stop: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_metadata_are_left_out_by_name_but_for_the_one_that_every_file_has(tmp_path: Path) -> None:
    safetensors.numpy.save_file(
        {"w": np.ones(2)}, tmp_path / "a.safetensors", {"format": "pt", "modelspec.title": "x", "ss_epoch": "3"}
    )

    held = huggingface.read_file(tmp_path / "a.safetensors")

    assert sorted(held.left_out) == ["metadata modelspec.title", "metadata ss_epoch"]
    assert held.arrays.keys() == {"w"}


def test_some_tensors_of_a_file(tmp_path: Path) -> None:
    given = {"a": np.arange(3.0), "b": np.ones((2, 2), ml_dtypes.bfloat16), "c": np.zeros(0, np.int8)}
    safetensors.numpy.save_file(given, tmp_path / "a.safetensors")

    assert safetensors_files.tensors(str(tmp_path / "a.safetensors"), {"b"}).keys() == {"b"}
    assert sorted(safetensors_files.described(str(tmp_path / "a.safetensors"))[0]) == ["a", "b", "c"]


def test_dtypes_smaller_than_a_byte_are_all_named_with_what_to_do(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"}, "four": tensor("F4", [2, 4], 0, 4), "six": tensor("F6_E2M3", [4], 4, 7),
        "w": tensor("F32", [1], 7, 11),
    }  # fmt: skip

    with pytest.raises(UnsupportedVariableError, match=r"a\.safetensors holds what no checkpoint can hold") as caught:
        huggingface.read_file(written(tmp_path / "a.safetensors", header, bytes(11)))
    assert caught.value.reasons == {
        "four": "has dtype F4, which NumPy has no form for: store its bytes as U8",
        "six": "has dtype F6_E2M3, which NumPy has no form for: store its bytes as U8",
    }


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"w": tensor("F99", [1], 0, 4)}, bytes(4), "unknown dtype 'F99'"),
        ({"w": tensor("F32", [1 << 40, 1 << 40], 0, 4)}, bytes(4), "does not fit its shape"),
        ({"w": tensor("F32", [1], 0, 4), "v": tensor("F32", [1], 2, 6)}, bytes(6), "overlaps, leaves a hole"),
        ({"w": tensor("F32", [1], 4, 8)}, bytes(8), "leaves a hole"),
        ({"w": tensor("F32", [1], 0, 4)}, bytes(5), "the data has 5 bytes, the header describes 4"),
        ({"w": tensor("F32", [1], 0, 4)}, bytes(3), "the data has 3 bytes, the header describes 4"),
        (b'{"w":1}', b"", "a.safetensors"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a":{},"a":{}}', b"", "a.safetensors"),
        (b"{" * 1000, b"", "a.safetensors"),
    ],
)
def test_hostile_headers_are_refused(header: object, data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=said):
        huggingface.read_file(written(tmp_path / "a.safetensors", header, data))
