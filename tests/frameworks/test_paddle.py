"""PaddlePaddle in a state: layers and optimizers by the names of their structure, static programs by those of their variables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan
from holdfast.format.values import Tagged

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Paddle finds missing on this machine
    paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")

TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "bfloat16",
         "float8_e4m3fn", "float8_e5m2"]  # fmt: skip


class Net(paddle.nn.Layer):
    """Two layers of one shape in either order, a norm with statistics, a tied weight, a buffer that is not to be saved."""

    def __init__(self, order: str = "ab", tied: bool = True) -> None:
        super().__init__()
        for name in order:
            setattr(self, name, paddle.nn.Linear(4, 4))
        self.norm = paddle.nn.BatchNorm1D(4)
        self.head = paddle.nn.Linear(4, 4, bias_attr=False)
        if tied:
            self.head.weight = self.b.weight
        self.register_buffer("kept", paddle.ones([2]))
        self.register_buffer("scratch", paddle.zeros([3]), persistable=False)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.b(paddle.tanh(self.a(x)))))


def start(order: str = "ab", kind: str = "AdamW") -> dict[str, Any]:
    model = Net(order)
    scheduler = paddle.optimizer.lr.CosineAnnealingDecay(0.05, 10)
    optimizer = getattr(paddle.optimizer, kind)(scheduler, parameters=model.parameters())
    return {"model": model, "optimizer": optimizer, "random": holdfast.global_random()}


def train(state: dict[str, Any], steps: int) -> None:
    for _ in range(steps):
        loss = (state["model"](paddle.randn([8, 4])) ** 2).mean()
        loss.backward()
        state["optimizer"].step()
        state["optimizer"].clear_grad()
        state["optimizer"]._learning_rate.step()


def weights(layer: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in layer.state_dict().items()}


@pytest.fixture
def static() -> Iterator[None]:
    """Paddle's static mode."""
    paddle.enable_static()
    yield
    paddle.disable_static()


@pytest.mark.parametrize("name", TYPES)
def test_every_type_comes_back_bit_for_bit_into_the_same_memory(name: str) -> None:
    run = MemoryStore().at("run")
    saved = paddle.to_tensor([0.0, 1.0, 2.0, 5.0]).astype(name)
    target = paddle.zeros([4]).astype(name)
    place = target.data_ptr()

    holdfast.save_checkpoint({"x": saved, "t": saved.reshape([2, 2]).T}, run)
    holdfast.load_checkpoint({"x": target, "t": (turned := paddle.zeros([2, 2]).astype(name))}, run)

    assert target.astype("float32").tolist() == saved.astype("float32").tolist()
    assert turned.astype("float32").tolist() == saved.reshape([2, 2]).T.astype("float32").tolist()
    assert target.data_ptr() == place


def test_layers_go_by_their_structure_and_statistics_are_not_trainable() -> None:
    found = {item.variable.name: item.variable for item in scan({"m": Net()}).items}

    assert {variable.kind for variable in found.values()} == {"parameter"}
    assert {name for name, variable in found.items() if not variable.trainable} == {
        "m.norm._mean",
        "m.norm._variance",
        "m.kept",
    }
    assert "m.scratch" not in found
    assert scan({"m": Net()}).aliases == {"m.head.weight": "m.b.weight"}
    assert {item.variable.name for item in scan(Net(tied=False)).items} == set(Net(tied=False).state_dict())


@pytest.mark.parametrize("kind", ["AdamW", "Momentum", "SGD", "Lamb", "RMSProp", "Adagrad", "Adamax"])
@pytest.mark.parametrize("used", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_training_goes_on_bit_for_bit_whatever_the_order_of_layers(order: str, used: int, kind: str) -> None:
    run = MemoryStore().at("run")
    state, other = start(kind=kind), start(order, kind)
    train(state, 3)
    holdfast.save_checkpoint(state, run)
    train(state, 3)
    train(other, used)

    holdfast.load_checkpoint(other, run)
    train(other, 3)

    assert weights(other["model"]) == weights(state["model"])
    assert other["optimizer"].get_lr() == state["optimizer"].get_lr()


def test_accumulators_are_named_by_slot_and_parameter_and_stay_where_they_are() -> None:
    run = MemoryStore().at("run")
    state = start()
    train(state, 1)
    holdfast.save_checkpoint(state, run)
    model, optimizer = state["model"], state["optimizer"]
    held = optimizer._accumulators["moment1"][model.a.weight.name]
    place, before = held.data_ptr(), held.numpy().copy()
    train(state, 1)

    report = holdfast.load_checkpoint(state, run)

    assert {"optimizer.moment1.a.weight", "optimizer.beta1_pow_acc.norm.bias"} <= {v.name for v in report.loaded}
    assert held.data_ptr() == place
    assert held.numpy().tolist() == before.tolist()


def test_optimizer_that_had_no_state_yet_has_none_again() -> None:
    run = MemoryStore().at("run")
    state = start()
    holdfast.save_checkpoint(state, run)
    train(state, 2)
    holdfast.load_checkpoint(state, run)
    twin = start()
    holdfast.load_checkpoint(twin, run)

    train(state, 2)
    holdfast.load_checkpoint({"random": holdfast.global_random()}, run, strict="subset")
    train(twin, 2)

    assert weights(twin["model"]) == weights(state["model"])


def test_optimizer_without_its_layer_is_refused() -> None:
    with pytest.raises(UnsupportedVariableError, match="put the module that has it into the state"):
        scan({"o": paddle.optimizer.SGD(0.1, parameters=Net().parameters())})


def test_optimizer_of_other_parameters_is_a_mismatch() -> None:
    run = MemoryStore().at("run")
    model = Net()
    holdfast.save_checkpoint({"m": model, "o": paddle.optimizer.SGD(0.1, parameters=model.a.parameters())}, run)

    with pytest.raises(MismatchError, match=r"optimizer knows nothing of m\.b\.weight"):
        holdfast.load_checkpoint({"m": model, "o": paddle.optimizer.SGD(0.1, parameters=model.parameters())}, run)


def test_schedulers_go_on() -> None:
    rate = paddle.optimizer.lr
    run = MemoryStore().at("run")
    saved, target = (rate.LinearWarmup(rate.StepDecay(0.1, 3), 5, 0.0, 0.1) for _ in range(2))
    for _ in range(7):
        saved.step()

    holdfast.save_checkpoint({"s": saved}, run)
    holdfast.load_checkpoint({"s": target}, run)

    assert [(target.step(), target.get_lr()) for _ in range(5)] == [(saved.step(), saved.get_lr()) for _ in range(5)]


@pytest.mark.parametrize("is_warmed_up", [False, True])
@pytest.mark.parametrize("is_in_optimizer", [False, True])
def test_a_scheduler_with_warm_restarts_goes_on_in_its_cycle(is_warmed_up: bool, is_in_optimizer: bool) -> None:
    """Its own state_dict() has the epoch only; without the cycle it would begin a new one."""
    rate, run = paddle.optimizer.lr, MemoryStore().at("run")
    states: list[Any] = []
    for _ in range(2):
        schedule = rate.CosineAnnealingWarmRestarts(0.1, 3, 2)
        schedule = rate.LinearWarmup(schedule, 2, 0.0, 0.1) if is_warmed_up else schedule
        model = paddle.nn.Linear(1, 1)
        optimizer = paddle.optimizer.SGD(schedule, parameters=model.parameters())
        states.append((schedule, {"m": model, "o": optimizer} if is_in_optimizer else {"s": schedule}))
    (saved, state), (target, other) = states
    for _ in range(5):
        saved.step()

    holdfast.save_checkpoint(state, run)
    holdfast.load_checkpoint(other, run)

    assert target.get_lr() == saved.get_lr()
    assert [(target.step(), target.get_lr()) for _ in range(12)] == [(saved.step(), saved.get_lr()) for _ in range(12)]


@pytest.mark.parametrize(
    ("saved", "target", "match"),
    [
        ("StepDecay", "ReduceOnPlateau", "it has no cooldown_counter, best, num_bad_epochs, which a ReduceOnPlateau needs"),
        ("ReduceOnPlateau", "StepDecay", "it has cooldown_counter, best, num_bad_epochs, which a StepDecay has not"),
        ("StepDecay", "LinearWarmup", "it has no LinearWarmup_LR, which a LinearWarmup needs"),
        ("LinearWarmup", "LinearWarmup of ReduceOnPlateau", "it has no cooldown_counter"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_in_optimizer", [False, True])
def test_the_state_of_another_kind_of_scheduler_is_a_mismatch_and_changes_nothing(
    saved: str, target: str, match: str, is_in_optimizer: bool
) -> None:
    rate, run = paddle.optimizer.lr, MemoryStore().at("run")
    kinds = {
        "StepDecay": lambda: rate.StepDecay(0.1, 3), "ReduceOnPlateau": lambda: rate.ReduceOnPlateau(0.1),
        "LinearWarmup": lambda: rate.LinearWarmup(rate.StepDecay(0.1, 3), 5, 0.0, 0.1),
        "LinearWarmup of ReduceOnPlateau": lambda: rate.LinearWarmup(rate.ReduceOnPlateau(0.1), 5, 0.0, 0.1),
    }  # fmt: skip
    states = []
    for kind in (saved, target):
        model, schedule = paddle.nn.Linear(2, 2), kinds[kind]()
        optimizer = paddle.optimizer.SGD(schedule, parameters=model.parameters())
        states.append({"m": model, "s": optimizer if is_in_optimizer else schedule})
    before = states[1]["m"].weight.numpy()
    holdfast.save_checkpoint(states[0], run)

    with pytest.raises(MismatchError, match=match):
        holdfast.load_checkpoint(states[1], run)

    assert (states[1]["m"].weight.numpy() == before).all()


@pytest.mark.parametrize("text", ["", "1 2", "x " * 312 + "1", "1 " * 312 + "313", "-1 " * 312 + "1", 3])
def test_state_that_no_generator_can_have_is_refused(text: Any) -> None:
    generator = paddle.framework.core.default_cpu_generator()
    (value,) = scan({"g": generator}).values
    before = generator.get_state().__getstate__()

    assert value.problem(value.value) is None
    assert value.problem(Tagged("$random", ["paddle.Generator", [*value.value.value[1][:3], text]]))
    assert value.problem(3)
    assert generator.get_state().__getstate__() == before


def test_static_program_goes_on_in_another_scope(static: None) -> None:
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.utils.unique_name.guard(), paddle.static.program_guard(main, startup):
        inputs = paddle.static.data("x", [None, 3])
        # Without a name it would get a number, and this count goes on under any guard.
        loss = paddle.mean(paddle.static.nn.fc(inputs, 2, name="head") ** 2)
        paddle.optimizer.Adam(0.1).minimize(loss)
    executor, run = paddle.static.Executor(), MemoryStore().at("run")

    def losses(steps: int) -> list[float]:
        return [
            executor.run(main, feed={"x": np.eye(3, dtype=np.float32)}, fetch_list=[loss])[0].item()
            for _ in range(steps)
        ]

    with paddle.static.scope_guard(paddle.static.Scope()):
        with pytest.raises(UnsupportedVariableError, match="run the startup program first"):
            scan({"program": main})
        executor.run(startup)
        losses(3)
        holdfast.save_checkpoint({"program": main}, run)
        undisturbed = losses(3)
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor.run(startup)
        holdfast.load_checkpoint({"program": main}, run)
        assert losses(3) == undisturbed

    with holdfast.open(run) as checkpoint:
        kinds = {name: variable.kind for name, variable in checkpoint.variables.items()}
    assert {name for name, kind in kinds.items() if kind == "parameter"} == {"program.head.w_0", "program.head.b_0"}
    assert kinds["program.head.w_0_moment1_0"] == "persistable"


def test_names_that_paddle_counts_do_not_matter() -> None:
    run = MemoryStore().at("run")
    holdfast.save_params((saved := Net()), run)
    [paddle.paddle.nn.Linear(1, 1) for _ in range(3)]
    target = Net()

    holdfast.load_params(target, run)

    assert target.a.weight.name != saved.a.weight.name
    assert weights(target) == weights(saved)
