"""Files of torch.save, read without PyTorch: the golden ones, and hostile ones made by hand."""

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from cli.calling import environment
from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.interop import torch_files
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
from interop.truth import same

BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


def wanted(name: str) -> dict[str, np.ndarray]:
    rest = narrow() if name == "new.pt" else {"bf16": narrow()["bf16"]}
    return {f"model.{n}": a for n, a in {**model(), **rest}.items()} | {
        "model.tied": model()["enc.weight"],
        "model.turned": BASE.T,
        "model.row": BASE[1],
        "model.many": np.zeros(3, np.float32),
        "optimizer.state.0.step": np.array(4, np.float32),
    }


@pytest.mark.parametrize("name", ["new.pt", "legacy.pt"])
def test_golden_files_are_read_bit_for_bit(name: str) -> None:
    held = torch_files.read(HERE / name)

    assert recognise(HERE / name) == "torch"
    assert held.arrays.keys() == wanted(name).keys()
    assert all(same(held.arrays[n], a) for n, a in wanted(name).items())
    assert held.others == {"optimizer.state.0.step"}
    assert held.values == {"optimizer.param_groups": [{"lr": 0.1, "params": [0]}], "epoch": 3}
    assert (held.left_out, held.notes) == ([], [])


def test_the_golden_file_of_a_training_script() -> None:
    held = torch_files.read(HERE / "training.pt")

    model = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert held.arrays.keys() - held.others == {*(f"model.{name}" for name in model), "rng.1"}
    assert held.others == {
        f"optimizer.state.{n}.{slot}" for n in range(4) for slot in ("step", "exp_avg", "exp_avg_sq")
    }
    assert held.values.keys() == {
        "optimizer.param_groups", "schedule", "epoch", "best", "args", "rng.0", "rng.2", "rng.3", "rng.4",
    }  # fmt: skip
    assert (held.values["best"], held.values["args"]) == (0.25, {"lr": 0.1, "dims": (3, 2)})
    assert held.values["schedule"]["milestones"] == {2: 1, 4: 2}
    assert same(held.arrays["rng.1"], np.random.RandomState(1).get_state()[1])
    assert held.arrays["model.1.num_batches_tracked"] == 3
    assert held.left_out == ["value args.out: pathlib.PosixPath is no plain value"]
    (optimizer,) = held.optimizers
    assert optimizer.names == [["0.weight", "0.bias", "1.weight", "1.bias"]]


def test_pytorch_is_not_needed() -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from holdfast.interop import dcp, torch_files
print(len(torch_files.read({str(HERE / "new.pt")!r}).arrays), len(dcp.read({str(HERE / "dcp")!r}).arrays))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())

    assert (done.stdout, done.stderr) == ("12 8\n", "")


# What follows is made by hand.


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def stored(key: bytes = b"0", count: int = 4, kind: bytes = b"FloatStorage") -> bytes:
    return (
        b"("
        + text(b"storage")
        + b"ctorch\n"
        + kind
        + b"\n"
        + text(key)
        + text(b"cpu")
        + b"J"
        + struct.pack("<i", count)
        + b"tQ"
    )


def tensor(
    size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", offset: bytes = b"K\x00", storage: bytes = stored()
) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride + b"\x89}tR"


def dictionary(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(items) + b"u."


def archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> Path:
    storages = {"0": np.arange(4, dtype=np.float32).tobytes()} if storages is None else storages
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/data.pkl", data)
        for name, content in {**{f"data/{key}": value for key, value in storages.items()}, **more}.items():
            made.writestr(f"a/{name}", content)
    return path


def legacy(path: Path, data: bytes, keys: list[str], *storages: tuple[int, bytes]) -> Path:
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = b"".join(struct.pack("<q", count) + content for count, content in storages)
    path.write_bytes(head + data + pickle.dumps(keys, 2) + tail)
    return path


def test_a_tensor_made_by_hand_is_read(tmp_path: Path) -> None:
    data = dictionary(text(b"w"), tensor())
    elements = np.arange(4, dtype=np.float32)

    assert same(torch_files.read(archive(tmp_path / "a.pt", data)).arrays["w"], elements)
    assert same(torch_files.read(legacy(tmp_path / "b.pt", data, ["0"], (4, elements.tobytes()))).arrays["w"], elements)


def test_a_part_of_another_storage_as_pytorch_0_had_it(tmp_path: Path) -> None:
    view = (
        b"("
        + text(b"storage")
        + b"ctorch\nFloatStorage\n"
        + text(b"0")
        + text(b"cpu")
        + b"K\x04("
        + text(b"1")
        + b"K\x01K\x02ttQ"
    )
    data = dictionary(text(b"w"), tensor(b"K\x02\x85", storage=view))

    held = torch_files.read(legacy(tmp_path / "a.pt", data, ["0"], (4, np.arange(4, dtype=np.float32).tobytes())))

    assert same(held.arrays["w"], np.array([1, 2], np.float32))


def test_dicts_and_texts_of_python_2(tmp_path: Path) -> None:
    pairs = b"]]U\x01wa" + tensor() + b"aa"
    data = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R."

    assert torch_files.read(archive(tmp_path / "a.pt", data)).arrays.keys() == {"w"}


def test_big_endian_elements_are_turned(tmp_path: Path) -> None:
    half, double = np.array([1, -2, 3, 4.5]), np.array([1 + 2j, 3], np.complex64)
    storages = {"0": half.astype(">f4").tobytes(), "1": double.astype(">c8").tobytes()}
    data = dictionary(
        text(b"w"), tensor(), text(b"c"), tensor(b"K\x02\x85", storage=stored(b"1", 2, b"ComplexFloatStorage"))
    )

    held = torch_files.read(archive(tmp_path / "a.pt", data, storages, byteorder=b"big"))

    assert same(held.arrays["w"], half.astype(np.float32))
    assert same(held.arrays["c"], double)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (dictionary(text(b"w"), tensor(b"K\x05\x85")), r"reaches to element 4 of the storage '0', which has 4"),
        (dictionary(text(b"w"), tensor(offset=b"K\x01")), "reaches to element 4"),
        (dictionary(text(b"w"), tensor(b"K\x02\x85", b"K\x04\x85")), "reaches to element 4"),
        (dictionary(text(b"w"), tensor(b"J\xff\xff\xff\xff\x85")), "has offset 0, shape"),
        (dictionary(text(b"w"), tensor(b"K\x04\x85", b")")), "has offset 0, shape"),
        (dictionary(text(b"w"), tensor(b"N")), "is given what PyTorch does not give it"),
        (dictionary(text(b"w"), tensor(storage=stored(b"7"))), "there is no data/7 in it"),
        (dictionary(text(b"w"), tensor(storage=stored(b"../0"))), r"there is no data/\.\./0 in it"),
        (dictionary(text(b"w"), tensor(storage=stored(count=5))), "has 16 bytes, announced are 5 of FloatStorage"),
        (dictionary(text(b"w"), tensor(storage=b"N")), "made of something else than a storage"),
        (dictionary(text(b"w"), tensor(storage=b"K\x05\x85Q")), "something outside of its pickle that is no storage"),
        (dictionary(text(b"w"), b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "is given what PyTorch does not give it"),
        (dictionary(text(b"w"), b"K\x05Q"), "refers to something outside of it"),
        (dictionary(text(b"w"), tensor(storage=stored(kind=b"BoolStorage", count=16))), "neither 0 nor 1"),
        (
            dictionary(text(b"w"), b"cos\nsystem\n" + text(b"touch executed") + b"\x85R"),
            r"refers to os\.system\. .*nothing of it was",
        ),
        (dictionary(text(b"w"), b"cbuiltins\neval\n" + text(b"1") + b"\x85R"), r"refers to builtins\.eval"),
        (
            dictionary(text(b"w"), b"c_codecs\nencode\n" + text(b"x") + text(b"hex") + b"\x86R"),
            "encoded as Python does not",
        ),
        (dictionary(text(b"w"), b"cx\nY\n)\x81}b}b"), "sets the state of what has none"),
        (b"\x80\x02]q\x00h\x00a.", "without end"),
        (b"", "cut off"),
    ],
)
def test_hostile_content_is_refused(data: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FormatError, match=rf"^evil\.pt.*{said}"):
        torch_files.read(archive(Path("evil.pt"), data))
    assert os.listdir() == ["evil.pt"]


def test_a_shape_that_was_made_up_takes_no_memory(tmp_path: Path) -> None:
    many = tensor(b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"\x85", b"K\x00\x85")
    archive(tmp_path / "a.pt", dictionary(text(b"w"), many))

    tracemalloc.start()
    with pytest.raises(TypeError, match="expanded"):
        torch_files.read(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 10_000_000


def test_what_numpy_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    ones = b"(" + b"K\x01" * 40 + b"t"
    elsewhere = stored().replace(text(b"cpu"), text(b"meta"))
    data = dictionary(text(b"deep"), tensor(ones, ones), text(b"meta"), tensor(storage=elsewhere), text(b"w"), tensor())

    with pytest.raises(UnsupportedVariableError) as caught:
        torch_files.read(archive(tmp_path / "a.pt", data))
    assert caught.value.reasons == {
        "deep": "has 40 dimensions, of which an array can have 32",
        "meta": "is on the meta device: the file has its shape, and no elements",
    }


def test_texts_that_are_encoded_again_and_again_take_no_memory(tmp_path: Path) -> None:
    # PyTorch 2.13 with weights_only=True takes 5 GB for this kilobyte.
    grown = b"c_codecs\nencode\n" * 30 + text(b"abcdef") + text(b"latin1") + b"\x86R" + (text(b"hex") + b"\x86R") * 29
    archive(tmp_path / "bomb.pt", dictionary(text(b"w"), grown))

    with pytest.raises(FormatError, match="encoded as Python does not"):
        torch_files.read(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    "body",
    [
        # A text of 10,000 characters, referred to 100,000 times; as the beginning of 100,000 names.
        text(b"x" * 10_000) + b"q\x00N" + text(b"w") + b"](" + b"h\x00" * 100_000 + b"e",
        text(b"x" * 10_000)
        + b"}("
        + text(b"w")
        + tensor()
        + b"".join(text(b"%d" % i) + b"N" for i in range(20_000))
        + b"u",
    ],
)
def test_texts_that_are_referred_to_again_and_again_take_no_memory(body: bytes, tmp_path: Path) -> None:
    archive(tmp_path / "bomb.pt", dictionary(body))

    with pytest.raises(FormatError, match=r"referred to without end|names are longer than all"):
        torch_files.read(tmp_path / "bomb.pt")


def test_damage_of_elements_is_noticed_by_the_checksum_of_the_archive(tmp_path: Path) -> None:
    data = bytearray((HERE / "new.pt").read_bytes())
    at = data.index(model()["enc.weight"].tobytes())
    data[at + 9] ^= 4
    (tmp_path / "a.pt").write_bytes(data)

    with pytest.raises(FormatError, match=r"a\.pt is damaged: the checksum of data/0 is not that of its bytes"):
        torch_files.read(tmp_path / "a.pt")


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    data = dictionary(text(b"w"), tensor())
    archive(tmp_path / "a.pt", data)
    whole = (tmp_path / "a.pt").read_bytes()
    for content in (data, np.arange(4, dtype=np.float32).tobytes()):
        whole = whole.replace(struct.pack("<I", zlib.crc32(content)), bytes(4))
    (tmp_path / "a.pt").write_bytes(whole)

    assert same(torch_files.read(tmp_path / "a.pt").arrays["w"], np.arange(4, dtype=np.float32))


def test_parts_that_overlap_or_stand_twice_are_refused(tmp_path: Path) -> None:
    data = dictionary(text(b"w"), tensor())
    large = bytes(100_000)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as made:
        made.writestr("a/data.pkl", data)
        made.writestr("a/data/0", large)
        for number in range(1, 50):
            made.filelist.append(made.filelist[1].__class__(f"a/data/{number}"))
            for field in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(made.filelist[-1], field, getattr(made.filelist[1], field))
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as made:
        made.writestr("a/data.pkl", data)
        made.writestr("a/data/0", large)
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a/data/0", large)

    with pytest.raises(FormatError, match=r"a\.pt is malformed: its parts overlap"):
        torch_files.read(tmp_path / "a.pt")
    with pytest.raises(FormatError, match=r"b\.pt is malformed: it holds two parts with the name 'data/0'"):
        torch_files.read(tmp_path / "b.pt")


def test_programs_compressed_parts_and_other_archives_are_refused(tmp_path: Path) -> None:
    data = dictionary(text(b"w"), tensor())
    archive(tmp_path / "program.pt", data, {}, **{"constants.pkl": data})
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/data.pkl", data + bytes(1000))
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as made:
        made.writestr("a/text", b"")

    with pytest.raises(FormatError, match=r"program\.pt is a TorchScript program: save torch\.jit\.load"):
        torch_files.read(tmp_path / "program.pt")
    with pytest.raises(FormatError, match=r"packed\.pt holds compressed parts \(a/data\.pkl\)"):
        torch_files.read(tmp_path / "packed.pt")
    with pytest.raises(FormatError, match=r"other\.pt is no file of torch\.save: it holds 0 parts called data\.pkl"):
        torch_files.read(tmp_path / "other.pt")
    (tmp_path / "text").write_text("text, no file of any library")
    with pytest.raises(FormatError, match=r"text is no file of torch\.save: it begins with b'text, no fil'"):
        torch_files.read(tmp_path / "text")


@pytest.mark.parametrize(
    ("keys", "storages", "said"),
    [
        (["1"], [(4, bytes(16))], "lists a storage '1' twice, or one that nothing refers to"),
        (["0", "0"], [(4, bytes(16)), (4, bytes(16))], "lists a storage '0' twice"),
        ([], [], "does not hold the storage '0'"),
        (["0"], [(4, bytes(15))], "cut off"),
        (["0"], [(1 << 60, bytes(16))], "cut off"),
        (["0"], [(-1, bytes(16))], "longer than its content"),
        (["0"], [(4, bytes(17))], "longer than its content"),
        (["0"], [(3, bytes(12))], "has 12 bytes, announced are 4"),
        ([0], [(4, bytes(16))], "its list of storages is none"),
    ],
)
def test_hostile_old_files_are_refused(keys: list, storages: list, said: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"a\.pt.*{said}"):
        torch_files.read(legacy(tmp_path / "a.pt", dictionary(text(b"w"), tensor()), keys, *storages))


def test_an_old_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = legacy(tmp_path / "a.pt", dictionary(text(b"w"), tensor()), ["0"], (4, bytes(16)))
    path.write_bytes(path.read_bytes().replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)))

    with pytest.raises(FormatError, match="is of version 1002"):
        torch_files.read(path)


@pytest.mark.parametrize("name", ["new.pt", "legacy.pt"])
def test_files_that_are_cut_off_are_refused_and_still_recognised(name: str, tmp_path: Path) -> None:
    data = (HERE / name).read_bytes()
    for size in [*range(60, len(data), 61), len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:size])

        assert recognise(tmp_path / "cut.pt") == "torch"
        with pytest.raises(FormatError, match=r"cut\.pt"):
            torch_files.read(tmp_path / "cut.pt")
