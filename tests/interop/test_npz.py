"""NumPy's archives."""

import copy
import errno
import io
import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import FormatError, StorageError, UnsupportedVariableError
from holdfast.interop import npz
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("executed",))


def test_files_of_numpy_are_read_bit_for_bit() -> None:
    plain = npz.read(HERE / "plain.npz").arrays
    packed = npz.read(HERE / "packed.npz", bfloat16="all").arrays

    assert recognise(HERE / "packed.npz") == "npz"
    assert list(plain) == list(model())
    assert all(same(plain[name], array) and same(packed[name], array) for name, array in model().items())
    assert same(packed["bf16"], narrow()["bf16"])


def test_orders_and_scalars_and_empty_arrays(tmp_path: Path) -> None:
    base = np.arange(12.0).reshape(3, 4)
    given = {
        "fortran": np.asfortranarray(base), "turned": base.T, "step": base[::2, 1::2], "big": base.astype(">f4"),
        "scalar": np.array(3, np.int16), "empty": np.zeros((0, 3)), "complex": np.ones(2, np.complex128),
        "a/b.c": np.ones(1), "ü": np.ones(1),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **given)

    found = npz.read(tmp_path / "a.npz").arrays

    assert found.keys() == given.keys()
    for name, array in given.items():
        assert same(found[name], np.array(array, array.dtype.newbyteorder("="), order="C")), name
        assert found[name].flags.c_contiguous, name


def test_texts_and_other_files_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2), note="text", raw=np.array(b"x"))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme", "x")

    held = npz.read(tmp_path / "a.npz")

    assert list(held.arrays) == ["w"]
    assert held.left_out == ["value note", "value raw", "value readme"]


def test_pickled_objects_are_refused_and_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", w=np.ones(1), evil=np.array([Evil()], object), other=np.array([None]))

    with pytest.raises(
        FormatError, match=r"a\.npz: 'evil\.npy', 'other\.npy' hold pickled objects, .* allow_pickle=True, and save"
    ):
        npz.read("a.npz")
    assert not Path("executed").exists()


def test_bare_bits_need_a_name_for_what_they_are(tmp_path: Path) -> None:
    values = {name: narrow()[name] for name in ("bf16", "f8")}
    np.savez(tmp_path / "a.npz", **values, w=np.ones(2, np.uint16), x=np.ones(2))

    with pytest.raises(UnsupportedVariableError) as caught:
        npz.read(tmp_path / "a.npz")
    assert "--bfloat16" in caught.value.reasons["bf16"]
    assert caught.value.reasons.keys() == values.keys()
    with pytest.raises(ValueError, match="does not hold in 2 bytes each: absent, x"):
        npz.read(tmp_path / "a.npz", bfloat16=["bf16", "x", "absent"])
    np.savez(tmp_path / "b.npz", bf16=values["bf16"], w=np.ones(2, np.uint16))
    assert npz.read(tmp_path / "b.npz", bfloat16=["bf16", "w"]).arrays["w"].dtype == ml_dtypes.bfloat16
    assert npz.read(tmp_path / "b.npz", bfloat16="all").arrays["w"].dtype == np.uint16


@pytest.mark.parametrize("name", ["plain.npz", "packed.npz"])
def test_files_that_are_cut_off_are_refused_and_still_recognised(name: str, tmp_path: Path) -> None:
    data = (HERE / name).read_bytes()
    for size in range(64, len(data), 97):
        (tmp_path / "cut").write_bytes(data[:size])

        assert recognise(tmp_path / "cut") == "npz"
        with pytest.raises(FormatError, match="cut off or malformed"):
            npz.read(tmp_path / "cut")


def test_flipped_bits_never_go_unnoticed(tmp_path: Path) -> None:
    data = (HERE / "packed.npz").read_bytes()
    wanted = npz.read(HERE / "packed.npz", bfloat16="all").arrays
    noticed = 0
    for at in range(0, len(data), 5):
        (tmp_path / "bad").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            found = npz.read(tmp_path / "bad", bfloat16="all")
        except (FormatError, UnsupportedVariableError, ValueError):
            noticed += 1
        else:  # a bit that says nothing about the elements: a date, a name
            assert len(found.arrays) + len(found.left_out) == len(wanted)
            assert {a.tobytes() for a in found.arrays.values()} <= {a.tobytes() for a in wanted.values()}
    assert noticed > 20


def test_a_size_that_no_machine_has_memory_for_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(1000))
        archive.filelist[0].file_size = 1 << 50

    with pytest.raises(StorageError, match=r"a\.npz says that its arrays take 1,125,899,906,842,624 bytes") as caught:
        npz.read(tmp_path / "a.npz")
    assert caught.value.errno == errno.ENOMEM


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(100_000))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w0.npy", buffer.getvalue())
        for number in range(1, 50):
            again = copy.copy(archive.filelist[0])
            again.filename = again.orig_filename = f"w{number}.npy"
            archive.filelist.append(again)

    with pytest.raises(FormatError, match=r"a\.npz is malformed: its parts overlap"):
        npz.read(tmp_path / "a.npz")


def test_a_header_that_says_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", buffer.getvalue())

    with pytest.raises(FormatError, match="its header says"):
        npz.read(tmp_path / "a.npz")


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    "header",
    [HEADER % "(1, 2", HEADER % "(True,)", HEADER % "(-1, -1)", "-" * 9000 + "1", "(" * 9000, "'\n", "{'descr': 3}"],
)
def test_headers_that_numpy_does_not_write_are_refused(header: str, tmp_path: Path) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", data)

    for read, name in ((npz.read_npy, "a.npy"), (npz.read, "a.npz")):
        with pytest.raises(FormatError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("dtype", ["<f4", ">i8", "?", "<c16", "<u2"])
def test_a_single_array_has_the_name_of_its_file(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "fc.weight.npy", np.asfortranarray(array))

    found = npz.read_npy(tmp_path / "fc.weight.npy").arrays

    assert recognise(tmp_path / "fc.weight.npy") == "npy"
    assert same(found["fc.weight"], np.array(array, array.dtype.newbyteorder("=")))
    assert found["fc.weight"].flags.c_contiguous


def test_a_single_array_is_read_by_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("bits.npy", narrow()["bf16"])
    np.save("evil.npy", np.array([Evil()], object), allow_pickle=True)
    np.save("text.npy", np.array("text"))
    np.save("w.npy", np.ones(3))
    Path("cut.npy").write_bytes(Path("w.npy").read_bytes()[:-1])
    Path("more.npy").write_bytes(Path("w.npy").read_bytes() * 2)
    os.mkfifo("pipe.npy")

    assert same(npz.read_npy("bits.npy", bfloat16=["bits"]).arrays["bits"], narrow()["bf16"])
    assert same(npz.read_npy("bits.npy", bfloat16="all").arrays["bits"], narrow()["bf16"])
    for name in ("bits.npy", "text.npy"):
        with pytest.raises(UnsupportedVariableError, match=name):
            npz.read_npy(name)
    with pytest.raises(ValueError, match="does not hold in 2 bytes each: w"):
        npz.read_npy("w.npy", bfloat16=["w"])
    with pytest.raises(FormatError, match=r"evil\.npy: it holds pickled objects, .* nothing of it was executed"):
        npz.read_npy("evil.npy")
    for name in ("cut.npy", "more.npy", "pipe.npy"):
        with pytest.raises(FormatError, match=name):
            npz.read_npy(name)
    assert not Path("executed").exists()


def test_what_is_written_numpy_reads(tmp_path: Path) -> None:
    given = {
        **model(),
        "empty": np.zeros((2, 0), np.int8),
        "file": np.ones(1),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }

    npz.write(tmp_path / "a.npz", given)

    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found.files) == sorted(given)
        assert all(same(found[name], array) for name, array in given.items())
    first = (tmp_path / "a.npz").read_bytes()
    npz.write(tmp_path / "a.npz", given)
    assert (tmp_path / "a.npz").read_bytes() == first


def test_what_numpy_would_not_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        npz.write(tmp_path / "a.npz", {**narrow(), "w.npy": np.ones(1), "w": np.ones(1)})

    assert caught.value.reasons.keys() == {*narrow(), "w.npy"}
    assert list(tmp_path.iterdir()) == []
