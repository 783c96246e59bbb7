"""Safetensors headers: built as the official package reads them, refused where the container's rules are broken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, strategies as st

from holdfast import dtypes
from holdfast.errors import FormatError
from holdfast.format import safetensors as container
from holdfast.format.safetensors import Tensor


def header_of(tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def parse(tensors: Any, data_bytes: int) -> dict[str, Tensor]:
    text = tensors if isinstance(tensors, bytes) else header_of(tensors)
    return container.parse_header(text, 8 + len(text) + data_bytes, "f")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TENSORS = st.dictionaries(NAMES, st.tuples(st.sampled_from(list(dtypes.ITEMSIZE)), SHAPES), max_size=8)


@given(TENSORS)
def test_built_headers_are_read_back_and_padded(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    listed = [
        (name, dtype, shape, int(np.prod(shape)) * dtypes.ITEMSIZE[dtype]) for name, (dtype, shape) in tensors.items()
    ]
    total = sum(nbytes for *_, nbytes in listed)

    header = container.build_header(listed)

    assert len(header) % 4096 == 0
    assert container.header_size(header[:8], len(header) + total, "f") == len(header)
    found = container.parse_header(header[8:], len(header) + total, "f")
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == tensors
    assert sum(t.data_offsets[1] - t.data_offsets[0] for t in found.values()) == total


def test_official_package_reads_what_is_built(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int8)
    header = container.build_header([("a.b", "F32", (2, 3), 24), ("ü", "I8", (), 1)])
    (tmp_path / "f").write_bytes(header + a.tobytes() + b.tobytes())

    found = safetensors.numpy.load_file(tmp_path / "f")

    assert found["a.b"].tolist() == a.tolist()
    assert found["ü"].tolist() == 7


def test_headers_of_the_official_package_are_read() -> None:
    written = safetensors.numpy.save({"x": np.ones((2, 2), np.float16), "y": np.zeros(0)}, {"some": "metadata"})
    size = container.header_size(written[:8], len(written), "f")

    found = container.parse_header(written[8:size], len(written), "f")

    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {"x": ("F16", (2, 2)), "y": ("F64", (0,))}


def test_build_header_refuses_what_is_over_the_limit() -> None:
    with pytest.raises(FormatError, match="over the format's limit of 100,000,000"):
        container.build_header([("n" * 100_000_000, "F32", (), 4)])


@pytest.mark.parametrize(
    ("prefix", "file_size"),
    [(b"", 0), (b"\x01", 1), (b"\0" * 7, 7), ((100).to_bytes(8, "little"), 107), ((2**63).to_bytes(8, "little"), 2**63 + 8),
     ((100_000_001).to_bytes(8, "little"), 200_000_000), (b"\xff" * 8, 100)],
)  # fmt: skip
def test_header_size_refuses_other_files(prefix: bytes, file_size: int) -> None:
    with pytest.raises(FormatError, match="f is not a safetensors file"):
        container.header_size(prefix, file_size, "f")


def test_tensors_come_in_the_order_of_their_position() -> None:
    found = parse({"b": tensor("U8", [2], 1, 3), "a": tensor("U8", [1], 0, 1), "c": tensor("U8", [0], 3, 3)}, 3)

    assert list(found) == ["a", "b", "c"]


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("tensors", "data_bytes", "words"),
    [
        ({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, 3, "'b' at 1..3 overlaps"),
        ({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 2, 3)}, 3, "'b' at 2..3"),
        ({"a": tensor("U8", [1], 1, 2)}, 2, "'a' at 1..2"),
        ({"a": tensor("F32", [2], 0, 7)}, 7, "does not fit its shape"),
        ({"a": tensor("U8", [2], 2, 0)}, 0, "'a' at 2..0"),
        ({"a": tensor("U8", [2], 0, 2)}, 3, "has 3 bytes, the header describes 2"),
        ({"a": tensor("U8", [2], 0, 2)}, 1, "has 1 bytes, the header describes 2"),
        ({}, 1, "the header describes 0"),
        ({"a": tensor("F4", [2], 0, 1)}, 1, "unknown dtype 'F4'"),
        ({"a": tensor("U8", [1] * 65, 0, 1)}, 1, "65 dimensions"),
        ({"a": tensor("U8", [-1], 0, 1)}, 1, "f: "),
        ({"a": tensor("U8", [2**64], 0, 1)}, 1, "f: "),
        ({"a": {"dtype": "U8", "shape": [1]}}, 1, "data_offsets"),
        ({"a": 3}, 1, "f: "),
        ({"__metadata__": {"a": 1}}, 0, "f: "),
        ({"__metadata__": []}, 0, "f: "),
        (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0,
         "'a' stands twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "'dtype' stands twice"),
        (b'{"__metadata__":{"x":"1","x":"2"}}', 0, "'x' stands twice"),
        (b"[]", 0, "not a JSON object"),
        (b" {}", 0, "not a JSON object"),
        (b"", 0, "not a JSON object"),
        (b"{", 0, "f: "),
        (b'{"\xff":1}', 0, "f: "),
        (b'{"a":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 0, "f: "),
    ],
)  # fmt: skip
def test_parse_header_refuses_what_breaks_a_rule(tensors: Any, data_bytes: int, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(tensors, data_bytes)

    assert words in str(caught.value)


def test_huge_shapes_are_compared_exactly() -> None:
    # Their product is 2**64, which a fixed-width multiplication would take for 0.
    with pytest.raises(FormatError, match="does not fit its shape"):
        parse({"a": tensor("U8", [2**32, 2**32], 0, 0)}, 0)


def test_unknown_fields_and_metadata_are_ignored() -> None:
    found = parse({"__metadata__": {"format": "np"}, "a": {**tensor("U8", [1], 0, 1), "new": [1]}}, 1)

    assert list(found) == ["a"]
