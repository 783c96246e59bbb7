"""LoDTensor files."""

import io
import os
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import FormatError, StorageError, UnsupportedVariableError
from holdfast.interop import lodtensor, tensor
from holdfast.interop.lodtensor import LoDTensor, from_bytes, read_file, to_bytes
from holdfast.interop.source import of_bytes
from interop.truth import FLUID, arrays, meta, same, tensor_files

FILES = tensor_files()
GOLDEN = bytes.fromhex("00000000 0000000000000000 00000000 04000000 0805 1001 0000803e")  # [1] float32 0.25, by Fluid


def test_there_are_as_many_fixtures_as_fluid_wrote() -> None:
    assert len(FILES) == 110


@pytest.mark.parametrize(("case", "name", "path"), FILES, ids=[f"{c.name}-{n}" for c, n, _ in FILES])
def test_read_gives_what_fluid_held_and_rewriting_gives_the_same_bytes(case: Path, name: str, path: Path) -> None:
    entry = meta(case)["vars"][name]

    found = read_file(path)

    assert same(found.array, arrays(case)[entry["npz"]])
    assert found.lod == tuple(map(tuple, entry["lod"]))
    assert found.array.flags.owndata
    assert found.array.flags.writeable
    assert to_bytes(found) == path.read_bytes()


def test_every_truncation_and_padding_of_every_file_is_refused() -> None:
    for _, name, path in FILES:
        data = path.read_bytes()
        for size in range(len(data)) if len(data) < 300 else (*range(60), *range(60, len(data), 37), len(data) - 1):
            with pytest.raises(FormatError, match="file"):
                from_bytes(data[:size], "file")
        for more in (b"\0", b"x", data):
            with pytest.raises(FormatError, match=f"expected {len(data):,} bytes, found {len(data) + len(more):,}"):
                from_bytes(data + more, name)


def test_golden_bytes() -> None:
    assert to_bytes(LoDTensor(np.array([0.25], np.float32))) == GOLDEN
    assert from_bytes(GOLDEN).array.tolist() == [0.25]


@given(
    hnp.arrays(
        st.sampled_from([d for d in tensor.DTYPES.values() if d.kind != "V"]),
        hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4),
        elements=None,
    ),
    st.booleans(),
)
def test_round_trip_keeps_every_bit(array: np.ndarray, fortran: bool) -> None:
    given_array = np.asfortranarray(array) if fortran else array

    data = to_bytes(LoDTensor(given_array), dialect="paddle")

    assert same(from_bytes(data).array, array)
    assert to_bytes(from_bytes(data), dialect="paddle") == data


@given(st.data())
def test_whatever_is_read_is_written_again_as_the_same_bytes(data: st.DataObject) -> None:
    changed = bytearray(to_bytes(LoDTensor(np.arange(6, dtype=np.int64).reshape(6, 1), ((0, 2, 3), (0, 1, 3, 6)))))
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))

    try:
        found = from_bytes(bytes(changed))
    except FormatError:
        return
    assert to_bytes(found, dialect="paddle") == bytes(changed)


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), max_size=3))
def test_lod_round_trip(lengths: list[list[int]]) -> None:
    # Each level counts the sequences of the next; the last one counts rows.
    lod: list[tuple[int, ...]] = []
    count = len(lengths[0]) if lengths else 0
    for level in lengths:
        sizes = [level[i % len(level)] for i in range(count)]
        lod.append(tuple(np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()))
        count = lod[-1][-1]
        if not count:
            break
    value = LoDTensor(np.zeros((lod[-1][-1] if lod else 2, 3), np.float32), tuple(lod))

    assert from_bytes(to_bytes(value)).lod == value.lod


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.complex64, np.complex128])
def test_dtypes_of_paddle_2_are_read_and_written_on_request(dtype: type) -> None:
    array = np.array([[1, -2.5]], dtype)

    assert same(from_bytes(to_bytes(LoDTensor(array), dialect="paddle")).array, array)
    with pytest.raises(UnsupportedVariableError, match="Paddle 2 and later can read it"):
        to_bytes(LoDTensor(array))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(2, np.uint16), "cannot hold uint16"),
        (np.zeros(2, np.uint64), "cannot hold uint64"),
        (np.array(["a"]), "cannot hold <U1"),
        (np.array([None]), "cannot hold object"),
        (np.array(2.5), r"reshape it to \(1,\)"),
        (np.zeros((1,) * 10), "10 dimensions"),
    ],
)
def test_write_refuses_what_fluid_cannot_hold(array: np.ndarray, reason: str) -> None:
    with pytest.raises(UnsupportedVariableError, match=reason):
        to_bytes(LoDTensor(array))


def test_big_endian_and_views_are_written_as_values() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]

    assert from_bytes(to_bytes(LoDTensor(array))).array.tolist() == array.tolist()


def test_scalar_of_paddle_3() -> None:
    data = GOLDEN[:16] + bytes.fromhex("02000000 0805 0000803e")

    assert same(from_bytes(data).array, np.array(0.25, np.float32))
    assert to_bytes(from_bytes(data), dialect="paddle") == data


@pytest.mark.parametrize(
    ("lod", "reason"),
    [
        (((0, 2, 1),), "do not ascend"),
        (((1, 3),), "do not ascend"),
        (((0,),), "do not ascend"),
        (((),), "do not ascend"),
        (((0, 2),), r"ends at 2, but there are 3 rows"),
        (((0, 3), (0, 1, 3)), "ends at 3, but there are 2 sequences"),
    ],
)
def test_lod_that_does_not_fit_is_refused_on_both_sides(lod: lodtensor.Lod, reason: str) -> None:
    value = LoDTensor(np.zeros((3, 1), np.float32), lod)

    with pytest.raises(UnsupportedVariableError, match=reason):
        to_bytes(value)
    with pytest.raises(FormatError, match=reason):
        from_bytes(b"".join(bytes(piece) for piece in lodtensor.encoded(value)))


def header(**fields: int | bytes) -> bytes:
    """A header with some fields replaced; nothing else changes."""
    parts: dict[str, int | bytes] = {
        "lod_version": 0, "levels": 0, "version": 0, "size": 4, "description": bytes.fromhex("08051001"),
    }  # fmt: skip
    parts |= fields
    sizes = {"lod_version": 4, "levels": 8, "version": 4, "size": 4}
    return b"".join(v if isinstance(v, bytes) else v.to_bytes(sizes[k], "little") for k, v in parts.items()) + bytes(4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header(lod_version=1), "version 1 of a LoDTensor"),
        (header(version=7), "version 7 of a tensor"),
        (header(levels=1 << 63), "levels of LoD takes bytes"),
        (header(levels=1), "cut off"),
        (header(levels=(1).to_bytes(8, "little") + (12).to_bytes(8, "little") + bytes(12)), "no whole number"),
        (header(size=1 << 31), "cannot have -2,147,483,648 bytes"),
        (header(size=0, description=b""), "cannot have 0 bytes"),
        (header(size=100_000), "cannot have 100,000 bytes"),
        (header(description=bytes.fromhex("08161001")), "expected 26 bytes, found 28"),
        (header(description=bytes.fromhex("08631001")), "dtype code 99"),
        (header(description=bytes.fromhex("08131001")), r"dtype code 19 \(SIZE_T\)"),
        (header(description=bytes.fromhex("10010805")), "not one that Fluid writes"),
        (header(description=bytes.fromhex("08050805")), "not one that Fluid writes"),
        (header(description=bytes.fromhex("0a020101")), "not one that Fluid writes"),
        (header(size=5, description=bytes.fromhex("0805108100")), "shortest form"),
        (header(description=bytes.fromhex("08051080")), "cut off"),
        (header(size=13, description=b"\x08\x05\x10" + b"\xff" * 9 + b"\x01"), r"no tensor has the shape \(-1,\)"),
        (header(size=15, description=b"\x08\x05\x10\x00\x10" + b"\xff" * 8 + b"\x7f" + b"\x10"), "cut off"),
        (header(size=22, description=b"\x08\x05" + (b"\x10" + b"\xff" * 8 + b"\x7f") * 2), "no tensor has the shape"),
        (header(size=14, description=b"\x08\x05\x10\x00\x10" + b"\xff" * 8 + b"\x7f"), "no tensor has the shape"),
        (header(size=132, description=b"\x08\x05" + b"\x10\x01" * 65), "65 dimensions"),
    ],
)  # fmt: skip
def test_hostile_headers(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=f"evil.*{reason}"):
        from_bytes(data, "evil")


def test_absurd_sizes_are_refused_before_memory_is_taken() -> None:
    data = header(size=8, description=b"\x08\x05\x10" + b"\x80\x80\x80\x80\x20")  # 8 Gi elements

    tracemalloc.start()
    with pytest.raises(FormatError, match="takes bytes"):
        from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 20


def test_bool_that_is_neither_0_nor_1() -> None:
    data = bytearray(to_bytes(LoDTensor(np.array([True, False]))))
    data[-1] = 2

    with pytest.raises(FormatError, match="neither 0 nor 1"):
        from_bytes(bytes(data))


def test_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FormatError, match="not a regular file"):
            read_file(path)
    with pytest.raises(StorageError, match="cannot read") as caught:
        read_file(tmp_path / "absent")
    assert caught.value.errno == 2


def test_a_file_that_shrinks_while_it_is_read() -> None:
    source = of_bytes(GOLDEN, "file")
    source.file = io.BytesIO(GOLDEN[:-1])

    with pytest.raises(FormatError, match="became shorter"):
        lodtensor.read(source)


def test_headers_of_several_records_read_no_data() -> None:
    path = FLUID / "lod" / "combined" / "all"

    found = list(lodtensor.headers(of_bytes(path.read_bytes(), "all")))

    assert [record.shape for record in found] == [(2, 2), (5, 2), (6, 1)]
    assert [len(record.lod) for record in found] == [0, 1, 2]
