"""PyTorch modules in a state: names, kinds, ties, wrappers, modules without memory."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn


class Language(nn.Module):
    """A model with a tied weight, a norm with buffers, and a buffer that is not to be saved."""

    def __init__(self, *, head_first: bool = False, tied: bool = True) -> None:
        super().__init__()
        if head_first:
            self.head = nn.Linear(4, 10, bias=False)
        self.embedding = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        if not head_first:
            self.head = nn.Linear(4, 10, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.norm.bias.requires_grad_(False)


class Layered(nn.Module):
    """Layers of its own that have the names of wrappers' attributes."""

    def __init__(self, wrap: Any = lambda module: module) -> None:
        super().__init__()
        self.module = wrap(nn.Linear(2, 2))
        self._orig_mod = nn.Sequential(wrap(nn.Linear(2, 2)))


LAYERED = ["module.weight", "module.bias", "_orig_mod.0.weight", "_orig_mod.0.bias"]


def names(state: Any) -> list[str]:
    return [item.variable.name for item in scan(state).items]


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_everything_in_a_module_is_a_parameter_and_buffers_are_not_trainable() -> None:
    found = {
        item.variable.name: (item.variable.kind, item.variable.trainable) for item in scan({"m": Language()}).items
    }

    assert found == {
        "m.embedding.weight": ("parameter", True),
        "m.norm.weight": ("parameter", True),
        "m.norm.bias": ("parameter", False),
        "m.norm.running_mean": ("parameter", False),
        "m.norm.running_var": ("parameter", False),
        "m.norm.num_batches_tracked": ("parameter", False),
    }


def test_names_of_a_bare_module_are_those_of_its_state_dict(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = Language(tied=False)

    holdfast.save_params(model, tmp_path / "model")

    held: dict[str, Any] = {}
    for file in sorted((tmp_path / "model").glob("*.safetensors")):
        held |= load_file(file)
    assert set(held) == set(model.state_dict())
    assert all(torch.equal(held[name], tensor) for name, tensor in model.state_dict().items())


def test_module_loads_into_the_same_memory() -> None:
    saved, target = Language(), Language()
    places = {name: tensor.data_ptr() for name, tensor in target.state_dict().items()}
    saved.norm.running_mean += 3
    run = MemoryStore().at("run")

    holdfast.save_checkpoint({"m": saved}, run)
    holdfast.load_checkpoint({"m": target}, run)

    assert same(saved, target)
    assert {name: tensor.data_ptr() for name, tensor in target.state_dict().items()} == places


def test_mark_around_a_module_counts_more_than_its_own_kinds() -> None:
    frozen = scan({"m": holdfast.parameters(nn.Linear(2, 2), trainable=False)}).items

    assert {(item.variable.kind, item.variable.trainable) for item in frozen} == {("parameter", False)}
    assert scan({"m": holdfast.temporary(nn.Linear(2, 2))}).items == []


def test_bare_parameters_are_parameters_and_bare_tensors_are_not() -> None:
    state = {"p": nn.Parameter(torch.zeros(2), requires_grad=False), "t": torch.zeros(2)}

    kinds = {i.variable.name: (i.variable.kind, i.variable.trainable) for i in scan(state, whole_is_model=True).items}

    assert kinds == {"p": ("parameter", False), "t": ("persistable", True)}


# Tied weights


@pytest.mark.parametrize("head_first", [False, True])
def test_tied_weight_is_stored_once_and_stays_tied_whatever_it_was_called(head_first: bool) -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"m": (saved := Language())}, run)
    target = Language(head_first=head_first)

    holdfast.load_checkpoint({"m": target}, run)

    assert torch.equal(target.embedding.weight, saved.embedding.weight)
    assert target.head.weight is target.embedding.weight
    with holdfast.open(run) as checkpoint:
        assert "m.head.weight" not in checkpoint
        assert checkpoint.trainer()[1]["m.head.weight"].value == "m.embedding.weight"


def test_tied_weight_loads_into_a_model_without_the_tie() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"m": (saved := Language())}, run)
    target = Language(tied=False)

    holdfast.load_checkpoint({"m": target}, run)

    assert torch.equal(target.head.weight, saved.embedding.weight)
    assert torch.equal(target.embedding.weight, saved.embedding.weight)
    holdfast.load_params(Language(tied=False), run, rename={"m.": ""})


def test_weights_that_were_not_tied_load_into_a_tie_only_if_they_are_equal() -> None:
    run = MemoryStore().at("run")
    saved = Language(tied=False)
    holdfast.save_params(saved, run)
    target = Language()
    before = target.embedding.weight.detach().clone()

    with pytest.raises(MismatchError, match=r"'head.weight' is the same array as 'embedding.weight'"):
        holdfast.load_params(target, run)

    assert torch.equal(target.embedding.weight, before)
    with torch.no_grad():
        saved.head.weight.copy_(saved.embedding.weight)
    holdfast.save_params(saved, run)
    holdfast.load_params(target, run)
    assert torch.equal(target.embedding.weight, saved.head.weight)


def test_tie_by_memory_alone_is_a_tie() -> None:
    model = Language(tied=False)
    model.head.weight.data = model.embedding.weight.data

    assert "head.weight" not in names(model)
    assert scan(model).aliases == {"head.weight": "embedding.weight"}


def test_module_at_two_places_is_stored_once() -> None:
    encoder = nn.Linear(2, 2)
    state = {"all": nn.Sequential(encoder, nn.Linear(2, 1)), "encoder": encoder}

    assert names(state) == ["all.0.weight", "all.0.bias", "all.1.weight", "all.1.bias"]
    assert scan(state).aliases == {"encoder.weight": "all.0.weight", "encoder.bias": "all.0.bias"}


# Wrappers


def test_layers_that_are_called_like_wrappers_keep_their_names() -> None:
    assert names(Layered()) == LAYERED


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_wrappers_leave_no_trace_in_names_at_any_depth() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    def compiled(module: Any) -> Any:
        return torch.compile(module, backend="eager")

    assert names(compiled(Layered())) == LAYERED
    assert names(compiled(Layered(compiled))) == LAYERED
    assert names(checkpoint_wrapper(Layered(lambda m: compiled(checkpoint_wrapper(m))))) == LAYERED
    assert names(nn.DataParallel(compiled(Layered(checkpoint_wrapper)))) == LAYERED
    assert sorted(names(torch.optim.swa_utils.AveragedModel(Layered()))) == sorted([*LAYERED, "n_averaged"])


def test_what_a_wrapped_model_saved_a_bare_one_loads_and_back() -> None:
    run = MemoryStore().at("run")
    bare, wrapped = Layered(), torch.compile(Layered(), backend="eager")

    holdfast.save_checkpoint({"m": wrapped}, run)
    holdfast.load_checkpoint({"m": bare}, run)
    assert same(bare, wrapped._orig_mod)

    other = torch.compile(Layered(), backend="eager")
    holdfast.save_checkpoint({"m": bare}, run)
    holdfast.load_checkpoint({"m": other}, run)
    assert same(bare, other._orig_mod)


def test_ddp_and_its_optimizer_have_the_names_of_the_bare_model(group: None) -> None:
    run = MemoryStore().at("run")
    wrapped = nn.parallel.DistributedDataParallel(torch.compile(Layered(), backend="eager"))
    adam = torch.optim.Adam(wrapped.parameters())
    wrapped.module.module(torch.ones(1, 2)).sum().backward()
    adam.step()
    bare = Layered()
    plain = torch.optim.Adam(bare.parameters())

    holdfast.save_checkpoint({"m": wrapped, "o": adam}, run)
    report = holdfast.load_checkpoint({"m": bare, "o": plain}, run)

    assert names(wrapped) == LAYERED
    assert same(bare, wrapped.module._orig_mod)
    assert torch.equal(plain.state[bare.module.weight]["exp_avg"], adam.state[wrapped.module.module.weight]["exp_avg"])
    assert "o.exp_avg.module.weight" in {variable.name for variable in report.loaded}


@pytest.mark.filterwarnings("ignore")
def test_fsdp_of_one_process_has_the_names_of_the_bare_model(group: None) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    inner = Layered(lambda m: FullyShardedDataParallel(m, use_orig_params=True, device_id=torch.device("cpu")))
    wrapped = FullyShardedDataParallel(inner, use_orig_params=True, device_id=torch.device("cpu"))
    run = MemoryStore().at("run")
    bare = Layered()

    assert sorted(names(wrapped)) == sorted(LAYERED)
    holdfast.save_params(wrapped, run)
    holdfast.load_params(bare, run)
    assert torch.equal(bare.module.weight, wrapped.module.module.weight)

    second = fully_shard(Layered())
    holdfast.load_params(second, run)
    assert torch.equal(second.module.weight.to_local(), bare.module.weight)
    with pytest.raises(UnsupportedVariableError, match="use_orig_params=True"):
        scan(FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device("cpu")))


# Without memory, and odd ones


def test_meta_module_gets_its_memory_with_the_load(caplog: pytest.LogCaptureFixture) -> None:
    run = MemoryStore().at("run")
    holdfast.save_params((saved := Language()), run)
    with torch.device("meta"):
        target = Language()
    weight = target.head.weight
    sgd = torch.optim.SGD([p for p in target.parameters() if p.requires_grad], lr=0.1)

    with caplog.at_level(logging.WARNING):
        holdfast.load_params(target, run)

    assert same(saved, target)
    assert target.head.weight is target.embedding.weight is weight
    assert not target.norm.bias.requires_grad
    assert "scratch is a buffer that no checkpoint has" in caplog.text
    target.head(torch.ones(1, 4)).sum().backward()
    sgd.step()
    assert not torch.equal(target.head.weight, saved.head.weight)


def test_what_has_no_values_is_not_saved(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)

    with pytest.raises(UnsupportedVariableError, match="'weight': is on the meta device and has no values") as caught:
        holdfast.save_params(model, tmp_path / "m")

    assert set(caught.value.reasons) == {"weight", "bias"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lazy_module_is_refused_until_it_has_a_shape() -> None:
    with pytest.raises(UnsupportedVariableError, match="'m.weight': is not initialized yet: run the model once first"):
        scan({"m": nn.LazyLinear(3)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_module_that_hides_its_weights_is_refused() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 3)), {nn.Linear})

    with pytest.raises(UnsupportedVariableError, match="'m.0': a Linear saves .* in a way of its own"):
        scan({"m": quantized})


class Hooked(nn.Linear):
    """A layer that saves something besides its weights, in a hook."""

    def __init__(self, key: str = "seen") -> None:
        super().__init__(2, 2)
        self.seen = torch.zeros(2)
        self._register_state_dict_hook(lambda module, found, prefix, _: found.update({prefix + key: module.seen}))


class Overriding(nn.Linear):
    """A layer that saves something besides its weights, in a `state_dict` of its own."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("seen", torch.zeros(2), persistent=False)

    def state_dict(self, *args: Any, prefix: str = "", **options: Any) -> Any:
        return super().state_dict(*args, prefix=prefix, **options) | {f"{prefix}seen": self.seen}


@pytest.mark.parametrize("kind", [Hooked, Overriding])
def test_module_that_saves_what_it_does_not_show_is_refused(kind: Any) -> None:
    with pytest.raises(UnsupportedVariableError, match=rf"'m.0': a {kind.__name__} saves seen in a way of its own"):
        scan({"m": nn.Sequential(kind())})


def test_module_that_saves_its_weights_by_other_names_or_less_of_them_is_saved_whole() -> None:
    layer = Hooked()
    layer.seen = layer.weight
    part = nn.Linear(2, 2)
    part._register_state_dict_hook(lambda module, found, prefix, _: {f"{prefix}weight": found[f"{prefix}weight"]})
    state = {"m": nn.Sequential(layer, part)}

    assert [item.variable.name for item in scan(state).items] == ["m.0.weight", "m.0.bias", "m.1.weight", "m.1.bias"]


def test_hook_that_runs_before_a_module_is_saved_is_called() -> None:
    run = MemoryStore().at("run")
    layer = nn.BatchNorm1d(2)
    layer.register_state_dict_pre_hook(lambda module, *_: module.num_batches_tracked.fill_(7))

    holdfast.save_params(layer, run)

    holdfast.load_params(target := nn.BatchNorm1d(2), run)
    assert target.num_batches_tracked == 7


class Counted(nn.Module):
    """A module with state that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.seen: Any = {"count": 0, "last": torch.zeros(2)}

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


@pytest.mark.parametrize(
    "extra", [{"count": 3, "last": torch.ones(2)}, torch.ones(3), 7], ids=["dict", "tensor", "number"]
)
def test_extra_state_comes_back(extra: Any) -> None:
    saved, target = Counted(), Counted()
    saved.seen = extra
    run = MemoryStore().at("run")

    holdfast.save_checkpoint({"m": saved}, run)
    holdfast.load_checkpoint({"m": target}, run)

    assert str(target.seen) == str(extra)


def test_extra_state_keeps_its_type() -> None:
    saved, target = Counted(), Counted()
    saved.seen, target.seen = OrderedDict(b=1, a=2), OrderedDict()
    run = MemoryStore().at("run")

    holdfast.save_checkpoint({"m": saved}, run)
    holdfast.load_checkpoint({"m": target}, run)

    assert type(target.seen) is OrderedDict
    assert list(target.seen) == ["b", "a"]


def test_averaged_model_comes_back() -> None:
    model, run = nn.Linear(2, 2), MemoryStore().at("run")
    saved, target = (torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)) for _ in range(2))
    saved.update_parameters(model)

    holdfast.save_checkpoint({"ema": saved}, run)
    holdfast.load_checkpoint({"ema": target}, run)

    assert target.n_averaged == 1
    assert torch.equal(target.module.weight, model.weight)
    holdfast.load_params(model, run, rename={"ema.": ""}, strict="subset")
