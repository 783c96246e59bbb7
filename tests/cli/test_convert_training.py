"""`holdfast convert` of what training scripts save: it goes on in the live objects, bit for bit, as if Holdfast had saved it."""

import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import holdfast
from cli.calling import call
from interop.truth import same

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


class Net(torch.nn.Module):
    """Layers of one shape, buffers and a tied weight: nothing tells by itself which number is which parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = torch.nn.Embedding(5, 4)
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.out = torch.nn.Linear(4, 5, bias=False)
        self.out.weight = self.emb.weight

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        return self.out(self.norm(self.two(self.one(self.emb(x)))))


class Run:
    def __init__(self, seed: int = 0, optimizer: str = "AdamW", wrap: bool = False) -> None:
        torch.manual_seed(seed)
        self.net = Net()
        groups = [{"params": [p for p in self.net.parameters() if p.ndim > 1]}, {"params": [], "weight_decay": 0.0}]
        groups[1]["params"] = [p for p in self.net.parameters() if p.ndim == 1]
        extra = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = getattr(torch.optim, optimizer)(groups, lr=0.01, **extra)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 4, 4])
        self.model = torch.nn.DataParallel(self.net) if wrap else self.net

    @property
    def names(self) -> list[str]:
        """Of the optimizer's parameters, in its order, which is not the model's."""
        by_id = {id(parameter): name for name, parameter in self.net.named_parameters()}
        return [by_id[id(parameter)] for group in self.optimizer.param_groups for parameter in group["params"]]

    def train(self, steps: int) -> "Run":
        for _ in range(steps):
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.net(torch.arange(5)), torch.tensor([1, 2, 3, 4, 0])).backward()
            self.optimizer.step()
            self.schedule.step()
        return self

    def file(self) -> dict:
        """What scripts write."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "epoch": 3,
        }  # fmt: skip

    def state(self) -> dict:
        return {"model": self.net, "optimizer": self.optimizer, "schedule": self.schedule, "epoch": 0}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_names(run: Run) -> str:
    Path("names.txt").write_text("".join(f"{name}\n" for name in run.names))
    return "names.txt"


def equal(a: Run, b: Run) -> bool:
    left, right = a.file(), b.file()
    tensors = [(left["model"], right["model"])]
    tensors += [(left["optimizer"]["state"][k], right["optimizer"]["state"][k]) for k in left["optimizer"]["state"]]
    return (
        all(torch.equal(torch.as_tensor(x[k]), torch.as_tensor(y[k])) for x, y in tensors for k in x)
        and left["optimizer"]["param_groups"] == right["optimizer"]["param_groups"]
        and left["schedule"] == right["schedule"]
    )


def is_as_saved(native: str, made: str) -> bool:
    """Whether two checkpoints are equal, but for the optimizer's types, of which a file of PyTorch says nothing."""
    values = []
    for path in (native, made):
        with holdfast.open(path) as checkpoint:
            values.append(checkpoint.trainer()[1])
    assert values[0]["optimizer"].pop("kinds")
    assert "kinds" not in values[1]["optimizer"]
    return values[0] == values[1] and "0 changed, 0 added, 0 removed" in call("diff", native, made).out


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "Adagrad", "Adafactor", "RMSprop", "NAdam"])
@pytest.mark.parametrize("new", [True, False], ids=["new", "legacy"])
def test_with_names_a_script_s_file_is_what_holdfast_would_have_saved_and_goes_on_bit_for_bit(
    optimizer: str, new: bool
) -> None:
    run = Run(optimizer=optimizer).train(3)
    torch.save(run.file(), "old.pt", _use_new_zipfile_serialization=new)
    holdfast.save_checkpoint({**run.state(), "epoch": 3}, "native")

    called = call("convert", "old.pt", "made", "--names", write_names(run))

    assert called.status == 0, called.err
    assert "to made@0 (holdfast): " in called.out
    assert called.out.endswith("; 3 values\n")
    assert is_as_saved("native", "made")
    again = Run(seed=9, optimizer=optimizer)
    state = again.state()
    holdfast.load_checkpoint(state, "made")
    assert state["epoch"] == 3
    assert equal(run, again)
    assert equal(run.train(4), again.train(4))


def test_steps_that_are_plain_numbers_as_pytorch_before_1_12_had_them() -> None:
    run = Run()
    run.optimizer = torch.optim.Adam(run.net.parameters())
    run.schedule = torch.optim.lr_scheduler.StepLR(run.optimizer, 5)
    run.train(3)
    old = run.file()
    for number, slots in old["optimizer"]["state"].items():
        old["optimizer"]["state"][number] = {**slots, "step": int(slots["step"])}
    torch.save(old, "old.pt")

    assert call("convert", "old.pt", "made", "--names", write_names(run)).status == 0
    again = Run(seed=9)
    again.optimizer = torch.optim.Adam(again.net.parameters())
    again.schedule = torch.optim.lr_scheduler.StepLR(again.optimizer, 5)
    holdfast.load_checkpoint(again.state(), "made")
    assert equal(run.train(3), again.train(3))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # DCP says that there is one process only
def test_what_dcp_saved_goes_on_in_the_live_objects() -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    run = Run()
    run.optimizer = torch.optim.AdamW(run.net.parameters())
    run.schedule = torch.optim.lr_scheduler.StepLR(run.optimizer, 2)
    run.train(3)
    model, optimizer = get_state_dict(run.net, run.optimizer)
    whole = {"model": model, "optimizer": optimizer, "schedule": run.schedule.state_dict(), "epoch": 3}
    dcp.save(whole, checkpoint_id="step_3")

    called = call("convert", "step_3", "made", "--json")

    assert (called.json["source_kind"], called.json["notes"], called.json["left_out"]) == ("dcp", [], [])
    again = Run(seed=9)
    again.optimizer = torch.optim.AdamW(again.net.parameters())
    again.schedule = torch.optim.lr_scheduler.StepLR(again.optimizer, 2)
    state = again.state()
    with holdfast.open("made") as checkpoint:  # DCP has parted the scheduler's dict
        assert checkpoint.trainer()[1]["schedule"] == run.schedule.state_dict()
    holdfast.load_checkpoint(state, "made")
    assert state["epoch"] == 3
    assert equal(run.train(3), again.train(3))


def test_names_that_the_optimizer_was_given_are_believed() -> None:
    run = Run()
    run.optimizer = torch.optim.Adam(run.net.named_parameters())
    run.schedule = torch.optim.lr_scheduler.MultiStepLR(run.optimizer, [2])
    run.train(2)
    torch.save(run.file(), "old.pt")
    holdfast.save_checkpoint({**run.state(), "epoch": 3}, "native")

    assert call("convert", "old.pt", "made", "--json").json["notes"] == []
    assert is_as_saved("native", "made")


def test_without_names_nothing_is_guessed_and_it_is_said() -> None:
    run = Run().train(2)
    torch.save(run.file(), "old.pt")

    called = call("convert", "old.pt", "made")

    assert called.status == 0
    assert (
        "note: optimizer: its state stays under numbers (optimizer.state.0.step), and no live optimizer can load it: the file has "
        "numbers in place of names. Say the names of its 7 parameters, in its order and one a line, by --names FILE; or load"
    ) in called.out
    with holdfast.open("made") as checkpoint:
        assert same(
            checkpoint["optimizer.state.1.exp_avg"][...], run.optimizer.state_dict()["state"][1]["exp_avg"].numpy()
        )
        assert checkpoint.trainer()[1]["optimizer.param_groups"] == run.optimizer.state_dict()["param_groups"]
    again = Run(seed=9)
    state = {"model": again.net, "schedule": again.schedule, "epoch": 0}
    holdfast.load_checkpoint(state, "made", skip=["optimizer.*"])
    assert all(
        torch.equal(a, b) for a, b in zip(run.net.state_dict().values(), again.net.state_dict().values(), strict=True)
    )
    assert (state["epoch"], again.schedule.state_dict()) == (3, run.schedule.state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda names: names[:-1], "--names has 6 names, and the optimizers of .*old.pt have 7 parameters"),
        (lambda names: [*names[:-1], "absent"], "holds no variables of these names: absent"),
        (
            lambda names: [names[1], names[0], *names[2:]],
            r"shapes do not fit: .*emb\.weight is \(5, 4\), its exp_avg \(4, 4\)",
        ),
        (lambda names: [*names[:-1], names[0]], "names stand twice: emb.weight"),
    ],
)
def test_names_that_do_not_fit_are_refused_and_nothing_is_written(change: object, said: str) -> None:
    run = Run().train(1)
    torch.save(run.file(), "old.pt")
    Path("names.txt").write_text("\n".join(change(run.names)))

    called = call("convert", "old.pt", "made", "--names", "names.txt", "--json")

    assert called.status == 2
    assert called.json["error"]["type"] == "UsageError"
    assert re.search(said, called.json["error"]["message"]), called.out
    assert not os.path.exists("made")


def test_names_without_a_meaning_are_refused() -> None:
    torch.save(Run().train(1).file(), "old.pt")
    torch.save({"w": torch.ones(2)}, "w.pt")
    np.savez("w.npz", w=np.ones(2))
    Path("names.txt").write_text("w\n")

    for source, to, said in (
        ("old.pt", "npz", "--names has no meaning for old.pt (torch) and --to npz"),
        ("w.npz", "holdfast", "--names has no meaning for w.npz (npz) and --to holdfast"),
        ("w.pt", "holdfast", "w.pt holds no optimizer whose parameters could have these names"),
    ):
        called = call("convert", source, "made", "--to", to, "--names", "names.txt")
        assert (called.status, said in called.err) == (2, True), called.err
    assert "cannot read the names in absent" in call("convert", "old.pt", "made", "--names", "absent").err


def test_a_copy_of_the_model_makes_names_ambiguous_and_full_names_are_taken() -> None:
    run = Run()
    run.optimizer = torch.optim.Adam(run.net.named_parameters())
    run.schedule = torch.optim.lr_scheduler.StepLR(run.optimizer, 1)
    run.train(1)
    torch.save({**run.file(), "ema": run.net.state_dict()}, "old.pt")

    note = call("convert", "old.pt", "made", "--json").json["notes"][0]
    Path("names.txt").write_text("\n".join(f"model.{name}" for name, _ in run.net.named_parameters()))
    full = call("convert", "old.pt", "full", "--names", "names.txt", "--json")

    assert "several parts of the file have all of these names: 'model.', 'ema.'" in note
    assert full.json["notes"] == []
    again = Run(seed=9)
    again.optimizer = torch.optim.Adam(again.net.named_parameters())
    holdfast.load_checkpoint(
        {"model": again.net, "optimizer": again.optimizer}, "full", skip=["ema.*", "schedule", "epoch"]
    )
    assert torch.equal(
        again.optimizer.state[again.net.two.bias]["exp_avg"], run.optimizer.state[run.net.two.bias]["exp_avg"]
    )


def test_two_optimizers_get_their_names_one_after_the_other() -> None:
    nets = {"g": torch.nn.Linear(2, 2), "d": torch.nn.Linear(2, 3)}
    optimizers = {f"opt_{n}": torch.optim.Adam(net.parameters()) for n, net in nets.items()}
    for net, optimizer in zip(nets.values(), optimizers.values(), strict=True):
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    torch.save({n: held.state_dict() for n, held in {**nets, **optimizers}.items()}, "gan.pt")
    Path("names.txt").write_text("g.weight\ng.bias\nd.weight\nd.bias\n")

    assert call("convert", "gan.pt", "made", "--names", "names.txt", "--json").json["notes"] == []
    with holdfast.open("made") as checkpoint:
        values = checkpoint.trainer()[1]
        assert values["opt_g"]["param_groups"][0]["params"] == ["g.weight", "g.bias"]
        assert values["opt_d"]["param_groups"][0]["params"] == ["d.weight", "d.bias"]


def test_an_optimizer_without_state_and_one_that_is_the_whole_file() -> None:
    run = Run(optimizer="SGD")
    run.optimizer = torch.optim.SGD(run.net.parameters(), lr=0.5)
    torch.save({"model": run.net.state_dict(), "optimizer": run.optimizer.state_dict()}, "sgd.pt")
    torch.save(Run().train(1).optimizer.state_dict(), "optimizer.pt")

    assert call("convert", "sgd.pt", "made", "--names", write_names(run)).status == 0
    again = Run(seed=3)
    again.optimizer = torch.optim.SGD(again.net.parameters(), lr=0.1)
    holdfast.load_checkpoint({"model": again.net, "optimizer": again.optimizer}, "made")
    assert again.optimizer.param_groups[0]["lr"] == 0.5
    called = call("convert", "optimizer.pt", "alone", "--json")
    assert "the optimizer: its state stays under numbers (state.0.step)" in called.json["notes"][0]
    assert {v["kind"] for v in called.json["variables"]} == {"persistable"}


def test_names_of_wrappers_are_noted() -> None:
    run = Run(wrap=True).train(1)
    torch.save(run.model.state_dict(), "wrapped.pt")
    torch.save({"net": {f"module._orig_mod.{n}": t for n, t in run.net.state_dict().items()}}, "both.pt")

    note = call("convert", "wrapped.pt", "made", "--json").json["notes"]
    other = call("convert", "both.pt", "both", "--json").json["notes"]

    (said,) = note
    assert said.startswith(
        "all names begin with module., as DistributedDataParallel and DataParallel write them; into a model"
    )
    assert said.endswith("rename={'module.': ''}")
    assert other[0].endswith("rename={'net.module._orig_mod.': 'net.'}")
    again = Net()
    holdfast.load_params(again, "made", rename={"module.": ""})
    holdfast.load_params({"net": again}, "both", rename={"net.module._orig_mod.": "net."})
    assert torch.equal(again.two.weight, run.net.two.weight)


def test_a_part_of_a_file_becomes_a_model_for_prediction() -> None:
    run = Run().train(1)
    torch.save({**run.file(), "args": Namespace(lr=1)}, "old.pt")

    called = call("convert", "old.pt", "weights", "--part", "model", "--json")

    assert called.json["left_out"] == ["part optimizer", "part schedule", "part epoch", "part args"]
    assert (called.json["serial"], called.json["values"]) == (None, [])
    import safetensors.torch

    found = safetensors.torch.load_file("weights/model.safetensors")
    assert found.keys() == run.net.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in run.net.state_dict().items())
    again = Net()
    holdfast.load_params(again, "weights")
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), run.net.state_dict().values(), strict=True)
    )
    absent = call("convert", "old.pt", "x", "--part", "net")
    assert (absent.status, "it has model, optimizer, schedule, epoch" in absent.err) == (2, True)
    assert call("convert", "old.pt", "x", "--part", "epoch").status == 2


def test_a_run_goes_on_that_was_a_pt_file_in_between() -> None:
    run = Run().train(3)
    state = {"model": run.net, "optimizer": run.optimizer, "schedule": run.schedule}
    holdfast.save_checkpoint(state, "run")

    assert call("convert", "run", "made.pt", "--to", "pt", "--json").json["left_out"] == []
    held = torch.load("made.pt", weights_only=True)
    slots = held["optimizer"]["state"]["model.one.weight"]
    assert torch.equal(slots["exp_avg"], run.optimizer.state[run.net.one.weight]["exp_avg"])
    assert not any(name.startswith("optimizer.") for name in held)
    assert call("convert", "made.pt", "again").status == 0
    other = Run(1)
    holdfast.load_checkpoint({"model": other.net, "optimizer": other.optimizer, "schedule": other.schedule}, "again")
    run.train(2)
    other.train(2)
    for mine, theirs in zip(run.net.state_dict().values(), other.net.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_pt_file_of_a_pt_file_has_its_values_names_and_ties() -> None:
    run = Run().train(2)
    torch.save(run.file(), "old.pt")
    Path("names").write_text("\n".join(run.names))

    called = call("convert", "old.pt", "new.pt", "--to", "pt", "--names", "names", "--json")

    assert (called.status, called.json["left_out"], called.json["notes"]) == (0, [], [])
    found = torch.load("new.pt", weights_only=True)
    assert (found["epoch"], found["schedule"]) == (run.file()["epoch"], run.file()["schedule"])
    assert found["model.out.weight"].data_ptr() == found["model.emb.weight"].data_ptr()
    slots = found["optimizer"]["state"]["model.one.weight"]
    assert torch.equal(slots["exp_avg"], run.optimizer.state[run.net.one.weight]["exp_avg"])


def test_what_is_inside_of_a_part_goes_with_it_and_what_refers_outside_is_said() -> None:
    run = Run().train(1)
    holdfast.save_checkpoint({"a": {"model": run.net, "optimizer": run.optimizer}, "b": 1}, "run")

    called = call("convert", "run", "whole.pt", "--to", "pt", "--part", "a", "--json")
    assert (called.json["left_out"], called.json["values"]) == (["part b"], ["optimizer"])
    assert "exp_avg" in torch.load("whole.pt", weights_only=True)["optimizer"]["state"]["a.model.one.weight"]
    called = call("convert", "run", "half.pt", "--to", "pt", "--part", "a.optimizer", "--json")
    assert sorted(called.json["values"]) == ["kinds", "param_groups", "state"]
    called = call("convert", "run", "net.pt", "--to", "pt", "--part", "a.model", "--json")
    assert called.json["values"] == []
    run.net.load_state_dict(torch.load("net.pt", weights_only=True))


def test_what_is_left_out_and_noted_is_said_in_text_and_json() -> None:
    torch.save({"w": torch.ones(2), "args": Namespace(lr=0.1, out=Path("x")), "when": Path("y")}, "old.pt")

    called = call("convert", "old.pt", "made")

    assert called.out.splitlines()[1:] == [
        "left out: value args.out: pathlib.PosixPath is no plain value",
        "left out: value when: pathlib.PosixPath is no plain value",
        "note: args: argparse.Namespace is carried over as a dict of its attributes",
    ]
    assert call("convert", "old.pt", "made.npz", "--to", "npz", "--json").json["left_out"] == [
        "value args.out: pathlib.PosixPath is no plain value",
        "value when: pathlib.PosixPath is no plain value",
        "value args",
    ]
    with holdfast.open("made") as checkpoint:
        assert checkpoint.trainer()[1] == {"args": {"lr": 0.1}}


def test_values_load_with_their_types() -> None:
    values = {"lr": [0.1, float("nan")], "betas": (0.9, 0.99), "best": None, "cfg": {"a": {1: True}}, "n": 1 << 80}
    torch.save({"w": torch.ones(2), **values}, "old.pt")
    call("convert", "old.pt", "made")
    state = {"w": np.zeros(2, np.float32), **dict.fromkeys(values, 0)}

    holdfast.load_checkpoint(state, "made")

    assert repr({name: state[name] for name in values}) == repr(values)


def test_a_file_with_values_only_and_one_part_of_many_are_said() -> None:
    torch.save({"epoch": 3}, "values.pt")
    torch.save({"w": torch.ones(2)}, "pytorch_model-00001-of-00003.bin")

    assert "values.pt holds no variables" in call("convert", "values.pt", "made").err
    note = call("convert", "pytorch_model-00001-of-00003.bin", "part", "--json").json["notes"]
    assert note == [
        "pytorch_model-00001-of-00003.bin is one of 3 files of a model: its folder, or the index in it, is all of it"
    ]


def test_a_run_gets_the_next_checkpoint_and_a_folder_that_stands_alone_is_not_replaced() -> None:
    torch.save(Run().train(1).file(), "old.pt")
    holdfast.save_params({"w": np.ones(2)}, "alone")

    assert call("convert", "old.pt", "run", "--json").json["serial"] == 0
    assert call("convert", "old.pt", "run", "--json").json["serial"] == 1
    called = call("convert", "old.pt", "alone")
    assert (called.status, "is a checkpoint itself" in called.err) == (2, True)
