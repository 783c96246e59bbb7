"""Files of torch.save, written and read by PyTorch."""

import os
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from holdfast.errors import FormatError, MissingExtraError, UnsupportedVariableError
from holdfast.interop.recognise import recognise
from interop.golden import HERE, model, narrow
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


@pytest.mark.parametrize("name", ["new.pt", "legacy.pt"])
def test_golden_files_are_read_bit_for_bit(name: str) -> None:
    held = torch_files.read(HERE / name)

    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    rest = narrow() if name == "new.pt" else {"bf16": narrow()["bf16"]}
    wanted = {f"model.{n}": a for n, a in {**model(), **rest}.items()} | {
        "model.tied": model()["enc.weight"],
        "model.turned": base.T,
        "model.row": base[1],
        "model.many": np.zeros(3, np.float32),
        "optimizer.state.0.step": np.array(4, np.float32),
    }
    assert recognise(HERE / name) == "torch"
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[n], a) for n, a in wanted.items())
    assert held.others == {"optimizer.state.0.step"}
    assert held.left_out == ["value optimizer.param_groups", "value epoch"]


@ZIP
def test_every_dtype_is_read_bit_for_bit(new: bool, tmp_path: Path) -> None:
    names = {v: k for k, v in torch_files._NAMES.items()} | {"complex128": None}
    bits = torch.tensor([0, 1, 127, 128, 200, 255, 3, 64] * 4, dtype=torch.uint8)
    if not new:  # the old way to save has no name for the younger dtypes
        names = {n: ours for n, ours in names.items() if not n.startswith(("float8", "uint"))}
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

    with pytest.raises(FormatError, match=r"refers to posix\.mkdir: .*nothing of it was executed"):
        torch_files.read("evil.pt")
    assert not Path("executed").exists()


def test_a_whole_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")

    with pytest.raises(FormatError, match=r"refers to torch\.nn\.modules\.linear\.Linear.*save its state_dict\(\)"):
        torch_files.read(tmp_path / "whole.pt")


@ZIP
def test_files_that_are_cut_off_are_refused_and_still_recognised(new: bool, tmp_path: Path) -> None:
    data = save({"w": torch.ones(50)}, tmp_path / "a.pt", new).read_bytes()
    for size in [*range(60, len(data), 61), len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:size])

        assert recognise(tmp_path / "cut.pt") == "torch"
        with pytest.raises(FormatError, match=r"cut\.pt"):
            torch_files.read(tmp_path / "cut.pt")


def test_programs_and_compressed_parts_are_refused(tmp_path: Path) -> None:
    data = save({"w": torch.zeros(1000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(data) as old, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in old.namelist():
            packed.writestr(name, old.read(name))
    with zipfile.ZipFile(data) as old, zipfile.ZipFile(tmp_path / "c.pt", "w") as program:
        for name in [*old.namelist(), "a/constants.pkl"]:
            program.writestr(name, old.read("a/data.pkl"))

    with pytest.raises(FormatError, match=r"compressed parts \(a/data\.pkl\)"):
        torch_files.read(tmp_path / "b.pt")
    with pytest.raises(FormatError, match="is a TorchScript program"):
        torch_files.read(tmp_path / "c.pt")


def test_a_few_elements_shown_very_often_take_no_memory(tmp_path: Path) -> None:
    save({"w": torch.ones(1).expand(1 << 40)}, tmp_path / "a.pt")

    with pytest.raises(UnsupportedVariableError, match="expanded"):
        torch_files.read(tmp_path / "a.pt")


def test_all_tensors_without_such_a_form_are_named_at_once(tmp_path: Path) -> None:
    save({"s": torch.eye(2).to_sparse(), "m": torch.empty(2, device="meta"), "w": torch.ones(1)}, tmp_path / "a.pt")

    with pytest.raises(UnsupportedVariableError) as caught:
        torch_files.read(tmp_path / "a.pt")
    assert caught.value.reasons.keys() == {"s", "m"}


def test_a_training_script_s_file(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    save({"model": net.state_dict(), "optim": optimizer.state_dict(), "epoch": 1, "best": 0.5}, tmp_path / "a.pt")

    held = torch_files.read(tmp_path / "a.pt")

    assert held.arrays.keys() - held.others == {f"model.{name}" for name in net.state_dict()}
    assert same(held.arrays["optim.state.1.exp_avg_sq"], optimizer.state_dict()["state"][1]["exp_avg_sq"].numpy())
    assert held.left_out == ["value optim.param_groups", "value epoch", "value best"]


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


def test_what_torch_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVariableError) as caught:
        torch_files.write(tmp_path / "a.pt", {"t": np.array(["x"]), "w": np.ones(1)})

    assert caught.value.reasons.keys() == {"t"}
    assert list(tmp_path.iterdir()) == []


def test_versions_that_can_be_made_to_execute_a_file_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")

    with pytest.raises(MissingExtraError, match=r"CVE-2025-32434.*torch>=2\.6"):
        torch_files.read(HERE / "new.pt")


def test_without_torch_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(MissingExtraError, match=r"new\.pt needs torch: pip install 'holdfast\[torch\]'"):
        torch_files.read(HERE / "new.pt")
