"""Files of torch.save, written by PyTorch: what it holds comes back bit for bit, and nothing is lost without a word."""

import enum
import os
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import FormatError, MissingExtraError, UnsupportedVariableError
from holdfast.format.values import Tagged
from holdfast.interop.recognise import recognise
from interop.golden import model, narrow
from interop.truth import same

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from holdfast.interop import torch_files  # noqa: E402

ZIP = pytest.mark.parametrize("new", [True, False], ids=["new", "legacy"])


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("executed",))


def save(value: object, path: Path, new: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


@ZIP
def test_every_dtype_is_read_bit_for_bit(new: bool, tmp_path: Path) -> None:
    names = {v: k for k, v in torch_files._NAMES.items()} | {"complex128": None}
    bits = torch.tensor([0, 1, 127, 128, 200, 255, 3, 64] * 4, dtype=torch.uint8)
    given = {n: (bits % 2).bool() if n == "bool" else bits.clone().view(getattr(torch, n)) for n in names}
    save(given, tmp_path / "a.pt", new)

    found = torch_files.read(tmp_path / "a.pt").arrays

    for name, tensor in given.items():
        assert found[name].dtype.name == name
        assert found[name].tobytes() == bytes(tensor.view(torch.uint8).tolist()), name


def test_scalars_empty_parameters_and_views(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    z = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    given = {
        "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2)),
        "slice": base[:, 1, ::2], "turned": base.permute(2, 0, 1), "expanded": torch.ones(1, 3).expand(4, 3),
        "overlapping": base.as_strided((3, 3), (1, 1)), "conjugate": z.conj(), "negative": z.clone().conj().imag,
        "bf": base.bfloat16().permute(2, 1, 0), "f8": base[0].to(torch.float8_e5m2).t(),
    }  # fmt: skip
    save(given, tmp_path / "a.pt")

    found = torch_files.read(tmp_path / "a.pt").arrays

    for name in ("scalar", "empty", "parameter", "slice", "turned", "expanded", "overlapping"):
        assert same(found[name], given[name].detach().contiguous().numpy()), name
    assert same(found["conjugate"], np.array([1 - 2j, 3 + 4j], np.complex64))
    assert same(found["negative"], np.array([-2, 4], np.float32))
    assert same(found["bf"], base.permute(2, 1, 0).contiguous().numpy().astype(ml_dtypes.bfloat16))
    assert same(found["f8"], base[0].t().contiguous().numpy().astype(ml_dtypes.float8_e5m2))


def test_tied_tensors_are_there_under_both_names_in_one_memory(tmp_path: Path) -> None:
    weight = torch.ones(3)
    save({"a": weight, "b": weight}, tmp_path / "a.pt")

    found = torch_files.read(tmp_path / "a.pt").arrays

    assert np.shares_memory(found["a"], found["b"])


@ZIP
def test_a_file_that_would_execute_something_is_refused_and_nothing_is_executed(
    new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"w": torch.ones(2), "evil": Evil()}, Path("evil.pt"), new)

    with pytest.raises(FormatError, match=r"evil\.pt.* refers to posix\.mkdir\. .*nothing of it was executed"):
        torch_files.read("evil.pt")
    assert not Path("executed").exists()


@ZIP
def test_tensors_inside_of_objects_are_refused_with_what_to_do(new: bool, tmp_path: Path) -> None:
    save(torch.nn.Linear(2, 2), tmp_path / "whole.pt", new)
    save(
        {"w": torch.ones(2), "ema": torch.nn.Linear(2, 2), "l": [torch.nn.ReLU(), torch.nn.Linear(1, 1)]},
        tmp_path / "b.pt",
        new,
    )

    with pytest.raises(
        FormatError, match=r"(?s)whole\.pt.*the whole: torch\.nn\.modules\.linear\.Linear.*save the state_dict\(\)"
    ):
        torch_files.read(tmp_path / "whole.pt")
    with pytest.raises(
        FormatError, match=r"(?s)ema: torch\.nn\.modules\.linear\.Linear\n  l\.1: torch\.nn\.modules\.linear"
    ):
        torch_files.read(tmp_path / "b.pt")


class Kind(enum.Enum):
    A = 1


@ZIP
def test_plain_values_are_carried_and_others_left_out_by_name(new: bool, tmp_path: Path) -> None:
    given = {
        "w": torch.ones(2), "epoch": 3, "lr": [0.1, float("inf")],
        "betas": (0.9, 0.999), "note": "é", "none": None, "big": 1 << 100,
        "best": np.float64(0.25), "count": np.int32(7), "milestones": Counter([2, 2, 4]), "size": torch.Size([2, 3]),
        "by": defaultdict(list, a=[1]), "ordered": OrderedDict(z=1, a=2), "keys": {0.5: 1, (1, "x"): 2, None: 3, True: 4},
        "args": Namespace(lr=0.1, out=Path("x"), inner=SimpleNamespace(a=1)), "array": np.arange(6, dtype=">f4").reshape(2, 3),
        "numpy": np.random.RandomState(1).get_state(), "device": torch.device("cpu"), "dtype": torch.float16, "set": {1},
        "list": [1, {2}], "bytes": b"x", "complex": 1j, "when": datetime(2026, 1, 1), "kind": Kind.A, "path": Path("a"),
        "class": torch.nn.Linear, "function": os.path.join, 7: {"x": 1},
    }  # fmt: skip
    save(given, tmp_path / "a.pt", new)

    held = torch_files.read(tmp_path / "a.pt")

    assert held.arrays.keys() == {"w", "array", "numpy.1"}
    assert same(held.arrays["array"], np.arange(6, dtype=np.float32).reshape(2, 3))
    wanted = {
        "epoch": 3, "lr": [0.1, float("inf")], "betas": (0.9, 0.999), "note": "é", "none": None, "big": 1 << 100, "best": 0.25,
        "count": 7, "milestones": {2: 2, 4: 1}, "size": (2, 3), "by": {"a": [1]}, "ordered": {"z": 1, "a": 2},
        "keys": {0.5: 1, (1, "x"): 2, None: 3, True: 4}, "args": {"lr": 0.1, "inner": {"a": 1}}, "7": {"x": 1},
        "numpy.0": "MT19937", "numpy.2": 624, "numpy.3": 0, "numpy.4": 0.0,
    }  # fmt: skip
    assert {name: repr(value) for name, value in held.values.items()} == {n: repr(value) for n, value in wanted.items()}
    left = {what.removeprefix("value ").partition(":")[0]: what for what in held.left_out}
    assert left.keys() == {
        "args.out", "device", "dtype", "set", "list, because of list.1", "bytes", "complex", "when", "kind", "path", "class",
        "function",
    }  # fmt: skip
    assert left["kind"] == f"value kind: {Kind.__module__}.Kind is no plain value"
    assert left["class"] == "value class: torch.nn.modules.linear.Linear is no plain value"
    assert held.notes == [
        "args: argparse.Namespace is carried over as a dict of its attributes",
        "args.inner: types.SimpleNamespace is carried over as a dict of its attributes",
    ]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@ZIP
def test_every_protocol_of_pickle(new: bool, protocol: int, tmp_path: Path) -> None:
    given = {"w": torch.ones(2), "n": (1, "x" * 300, {1, 2}, frozenset({3})), "t": (1, 2.5, None, True, "x" * 300)}
    torch.save(given, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=new)

    held = torch_files.read(tmp_path / "a.pt")

    assert recognise(tmp_path / "a.pt") == "torch"
    assert same(held.arrays["w"], np.ones(2, np.float32))
    assert held.values == {"t": given["t"]}
    assert held.left_out == ["value n, because of n.2: builtins.set is no plain value"]


class Marked(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch says of most of these that they are in beta, or will go
def test_all_tensors_without_such_a_form_are_named_at_once(tmp_path: Path) -> None:
    given = {
        "sparse": torch.eye(2).to_sparse(), "csr": torch.eye(2).to_sparse_csr(), "meta": torch.empty(2, device="meta"),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 2, torch.qint8),
        "channels": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
        "bits": torch.ones(2, dtype=torch.uint8).view(torch.qint8), "nested": torch.nested.nested_tensor([torch.ones(1)]),
        "jagged": torch.nested.nested_tensor([torch.ones(1)], layout=torch.jagged), "half": torch.ones(2, dtype=torch.complex32),
        "f4": torch.ones(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "storage": torch.ones(2).untyped_storage(),
        "marked": torch.ones(2).as_subclass(Marked), "w": torch.ones(1),
    }  # fmt: skip
    save(given, tmp_path / "a.pt")

    with pytest.raises(UnsupportedVariableError, match=r"a\.pt holds what no checkpoint can hold:") as caught:
        torch_files.read(tmp_path / "a.pt")
    assert caught.value.reasons.keys() == given.keys() - {"w"}
    assert "float4_e2m1fn_x2" in caught.value.reasons["f4"]
    assert "Marked, a class of its own" in caught.value.reasons["marked"]


def test_tensors_with_attributes_are_read(tmp_path: Path) -> None:
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(3))
    tensor.note = parameter.note = "x"
    save({"t": tensor, "p": parameter, "b": torch.nn.Buffer(torch.ones(1))}, tmp_path / "a.pt")

    found = torch_files.read(tmp_path / "a.pt").arrays

    assert {name: array.shape for name, array in found.items()} == {"t": (2,), "p": (3,), "b": (1,)}


@ZIP
def test_a_training_script_s_file(new: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    given = {"model": net.state_dict(), "optim": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": 1}
    save(given, tmp_path / "a.pt", new)

    held = torch_files.read(tmp_path / "a.pt")

    assert held.arrays.keys() - held.others == {f"model.{name}" for name in net.state_dict()}
    assert same(held.arrays["optim.state.1.exp_avg_sq"], optimizer.state_dict()["state"][1]["exp_avg_sq"].numpy())
    assert held.values.keys() == {"optim.param_groups", "schedule", "epoch"}
    assert held.values["optim.param_groups"] == optimizer.state_dict()["param_groups"]
    assert held.values["schedule"] == schedule.state_dict()
    assert [(found.name, found.count, found.names) for found in held.optimizers] == [("optim", 4, None)]


def test_what_torch_maps_into_memory_is_what_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = {"w": torch.randn(64, 3), "b": torch.randn(5).bfloat16()}
    save(given, tmp_path / "a.pt")

    mapped = torch.load(tmp_path / "a.pt", mmap=True, weights_only=True)
    found = torch_files.read(tmp_path / "a.pt").arrays

    assert same(found["w"], mapped["w"].numpy())
    assert found["b"].tobytes() == mapped["b"].view(torch.int16).numpy().tobytes()


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save({"w": torch.ones(1000)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)

    assert same(torch_files.read(tmp_path / "a.pt").arrays["w"], np.ones(1000, np.float32))


def test_what_is_written_torch_reads(tmp_path: Path) -> None:
    given = {**model(), **narrow(), "empty": np.zeros((2, 0), np.int8), "turned": np.arange(6.0).reshape(2, 3).T}
    given |= {"c": np.ones(2, np.complex128), "big": np.ones(2, ">f4")}
    given["mask"].flags.writeable = False

    torch_files.write(tmp_path / "a.pt", given)

    there = torch.load(tmp_path / "a.pt", weights_only=True)
    assert there["bf16"].dtype == torch.bfloat16
    assert torch.equal(there["turned"], torch.arange(6, dtype=torch.float64).reshape(2, 3).t())
    found = torch_files.read(tmp_path / "a.pt").arrays
    assert all(same(found[n], np.array(a, a.dtype.newbyteorder("="), order="C")) for n, a in given.items())


def test_values_beside_tensors_and_tensors_inside_of_values(tmp_path: Path) -> None:
    values = {"cfg": {"best": np.float32(0.5), "few": np.arange(3), "n": [1, (2, None)]}}
    values |= {"tied": Tagged("$variable", "w"), "opt": {"m": Tagged("$variable", "m")}}

    torch_files.write(tmp_path / "a.pt", {"w": np.ones(2), "m": np.zeros(2)}, values)

    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert found.keys() == {"w", "tied", "cfg", "opt"}
    assert found["tied"].data_ptr() == found["w"].data_ptr()
    assert (found["cfg"]["best"], found["cfg"]["n"]) == (0.5, [1, (2, None)])
    assert (found["cfg"]["few"].tolist(), found["opt"]["m"].tolist()) == ([0, 1, 2], [0, 0])


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Tagged("$random", ["numpy.Generator", {}]), "state of a random number generator"),
        ([{"a": Tagged("$variable", "absent")}], "refers to the variable 'absent', which is not there"),
        ({"a": [-(1 << 4000)]}, "an integer of more than 2,039 bits"),
        ({1 << 4000: 1}, "an integer of more than 2,039 bits"),
    ],
)
def test_values_that_torch_does_not_read_are_not_written(value: Any, match: str, tmp_path: Path) -> None:
    assert torch_files.value_problem({"a": 1 << 2038}, ()) is None
    with pytest.raises(UnsupportedVariableError, match=match):
        torch_files.write(tmp_path / "a.pt", {"w": np.ones(1)}, {"value": value})
    with pytest.raises(ValueError, match="both have w"):
        torch_files.write(tmp_path / "a.pt", {"w": np.ones(1)}, {"w": 1})
    assert list(tmp_path.iterdir()) == []


def test_what_torch_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        torch_files.write(tmp_path / "a.pt", {"t": np.array(["x"]), "w": np.ones(1)})

    assert caught.value.reasons.keys() == {"t"}
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(MissingExtraError, match=r"new\.pt needs torch: pip install 'holdfast\[torch\]'"):
        torch_files.write("new.pt", model())
