"""Pytrees, Flax, optax and Equinox in a state: stable names, right kinds, and objects that go on bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError
from holdfast.adapters.tree import scan

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


def kinds(state: Any) -> dict[str, tuple[str, bool]]:
    return {i.variable.name: (i.variable.kind, i.variable.trainable) for i in scan(state, whole_is_model=True).items}


def same(one: Any, two: Any) -> bool:
    def plain(leaf: Any) -> Any:
        typed = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if typed else leaf)

    leaves = list(zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))
    return bool(leaves) and all(plain(a).tobytes() == plain(b).tobytes() for a, b in leaves)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """A registered node with fields."""

    x: Any
    y: Any
    note: str = dataclasses.field(default="p", metadata={"static": True})


class Bag:
    """A registered node whose parts have no names."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


jax.tree_util.register_pytree_node(Bag, lambda bag: (bag.parts, None), lambda _, parts: Bag(*parts))


def test_registered_nodes_have_the_names_that_jax_gives_them() -> None:
    state = {"p": Point(jnp.zeros(1), {"deep": [jnp.zeros(1), 3]}), "b": Bag(jnp.zeros(1), Point(jnp.zeros(1), None))}

    found = scan(state)

    assert [item.variable.name for item in found.items] == ["p.x", "p.y.deep.0", "b.0", "b.1.x"]
    assert [value.name for value in found.values] == ["p.y.deep.1", "b.1.y"]


def test_registered_nodes_are_made_anew_where_they_stand() -> None:
    old = Point(jnp.zeros(1), (jnp.zeros(1), 4))
    target = {"p": old, "deep": [(Bag(jnp.zeros(1), Point(jnp.zeros(1), 1)), "x")]}

    through(
        {"p": Point(jnp.ones(1), (jnp.ones(1), 5)), "deep": [(Bag(jnp.ones(1), Point(jnp.ones(1), 2)), "y")]}, target
    )

    assert target["p"] == Point(jnp.ones(1), (jnp.ones(1), 5))
    assert old == Point(jnp.zeros(1), (jnp.zeros(1), 4))
    bag, text = target["deep"][0]
    assert (bag.parts, text) == ((jnp.ones(1), Point(jnp.ones(1), 2)), "y")


def test_mark_around_a_tree_is_made_anew_too() -> None:
    target = {"m": holdfast.parameters((jnp.zeros(1),), trainable=False)}

    through({"m": holdfast.parameters((jnp.ones(1),), trainable=False)}, target)

    assert target["m"].tree[0].tolist() == [1]
    assert target["m"].trainable is False


# optax and Flax


def test_optax_state_of_a_plain_loop_goes_on() -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    rule = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2))

    def start(seed: int) -> dict[str, Any]:
        params = {"w": jax.random.normal(jax.random.key(seed), (3, 2)), "b": jnp.zeros(2)}
        return {"params": holdfast.parameters(params), "opt": rule.init(params), "step": 0}

    @jax.jit
    def update(params: Any, opt: Any, step: Any) -> Any:
        gradients = jax.grad(lambda p: ((jnp.arange(3.0) @ p["w"] + p["b"] - step) ** 2).sum())(params)
        updates, opt = rule.update(gradients, opt, params)
        return optax.apply_updates(params, updates), opt, step + 1

    def train(state: dict[str, Any], steps: int) -> None:
        for _ in range(steps):
            params, state["opt"], state["step"] = update(state["params"].tree, state["opt"], state["step"])
            state["params"] = holdfast.parameters(params)

    state, other = start(0), start(1)
    train(state, 3)
    through(state, other)
    train(state, 3)
    train(other, 3)

    assert same([state["params"].tree, state["opt"]], [other["params"].tree, other["opt"]])
    names = kinds(state)
    assert names["params.w"] == ("parameter", True)
    assert names["opt.1.inner_state.0.mu.w"][0] == names["opt.1.hyperparams.learning_rate"][0] == "persistable"


def train_state(seed: int) -> Any:
    linen = pytest.importorskip("flax.linen", reason="Flax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    from flax.training.train_state import TrainState

    class State(TrainState):
        batch_stats: Any

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool = True) -> Any:
            return linen.Dense(2)(linen.BatchNorm(use_running_average=not train)(linen.Dense(3)(x)))

    net = Net()
    made = net.init(jax.random.key(seed), jnp.ones((2, 4)))
    return State.create(apply_fn=net.apply, params=made["params"], batch_stats=made["batch_stats"], tx=optax.adam(1e-2))


@jax.jit
def train_step(state: Any) -> Any:
    inputs = jnp.linspace(-1, 1, 8).reshape(2, 4)

    def loss(params: Any) -> Any:
        held = {"params": params, "batch_stats": state.batch_stats}
        out, changed = state.apply_fn(held, inputs, mutable=["batch_stats"])
        return (out**2).sum(), changed["batch_stats"]

    gradients, statistics = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=statistics)


def trained(state: Any, steps: int) -> Any:
    for _ in range(steps):
        state = train_step(state)
    return state


def test_train_state_goes_on_and_its_optimizer_is_no_parameter() -> None:
    saved, target = trained(train_state(0), 3), {"train": train_state(1)}

    through({"train": saved}, target)

    assert same(trained(target["train"], 3), trained(saved, 3))
    found = kinds({"train": saved})
    assert found["train.params.Dense_0.kernel"] == ("parameter", True)
    assert found["train.batch_stats.BatchNorm_0.mean"] == ("parameter", False)
    assert found["train.opt_state.0.mu.Dense_0.kernel"][0] == found["train.step"][0] == "persistable"


def test_train_state_as_the_whole_state_is_in_the_report() -> None:
    saved, target = trained(train_state(0), 3), train_state(1)

    report = through(saved, target)

    assert same(trained(report.state, 1), trained(saved, 1))
    assert type(report.state) is type(target)


def test_frozen_dicts_and_boxed_parameters_have_plain_names() -> None:
    linen = pytest.importorskip("flax.linen", reason="Flax is not installed")
    from flax.core import freeze

    state = {"f": freeze({"a": {"w": jnp.ones(1)}}), "boxed": {"w": linen.Partitioned(jnp.ones(2), names=("x",))}}
    target = {"f": freeze({"a": {"w": jnp.zeros(1)}}), "boxed": {"w": linen.Partitioned(jnp.zeros(2), names=("x",))}}

    through(state, target)

    assert list(kinds(state)) == ["f.a.w", "boxed.w"]
    assert same(target, state)
    assert target["boxed"]["w"].names == ("x",)


def nnx_pair(seed: int) -> tuple[Any, Any, Any]:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first, self.norm = nnx.Linear(4, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs)])
            self.seen = nnx.Variable(jnp.zeros((), jnp.int32))

        def __call__(self, x: Any) -> Any:
            self.seen[...] += 1
            return self.layers[0](self.drop(self.norm(self.first(x))))

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        gradients = nnx.grad(lambda m: (m(jnp.linspace(-1, 1, 8).reshape(2, 4)) ** 2).sum())(model)
        optimizer.update(model, gradients)

    model = Net(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), step


def test_nnx_module_and_optimizer_go_on_as_the_same_objects() -> None:
    (model, optimizer, step), (other, target, _) = nnx_pair(0), nnx_pair(1)
    for _ in range(3):
        step(model, optimizer)
    weight = other.first.kernel

    report = through({"model": model, "optimizer": optimizer}, {"model": other, "optimizer": target})

    assert other.first.kernel is weight
    for _ in range(3):
        step(model, optimizer)
        step(other, target)
    from flax import nnx

    assert same(nnx.state(other), nnx.state(model))
    assert same(nnx.state(target), nnx.state(optimizer))
    assert "model.drop.rngs.key" in report.values


def test_nnx_variables_are_of_their_own_kinds() -> None:
    model, optimizer, _ = nnx_pair(0)
    from flax import nnx

    found = kinds({"m": model, "o": optimizer})

    assert found["m.layers.0.kernel"] == ("parameter", True)
    assert found["m.norm.mean"] == ("parameter", False)
    assert found["m.seen"][0] == found["o.step"][0] == found["o.opt_state.0.mu.first.kernel"][0] == "persistable"
    assert kinds(nnx.state(model))["first.kernel"] == ("parameter", True)
    assert "first.kernel" in kinds(model)


# Equinox


def test_equinox_module_is_replaced_and_its_functions_are_left_alone() -> None:
    equinox = pytest.importorskip("equinox", reason="Equinox is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    rule = optax.adam(1e-2)

    def start(seed: int) -> dict[str, Any]:
        model = equinox.nn.MLP(4, 2, 3, 1, key=jax.random.key(seed))
        return {"model": model, "opt": rule.init(equinox.filter(model, equinox.is_array))}

    @equinox.filter_jit
    def update(model: Any, opt: Any) -> Any:
        gradients = equinox.filter_grad(lambda m: (m(jnp.ones(4)) ** 2).sum())(model)
        updates, opt = rule.update(gradients, opt)
        return equinox.apply_updates(model, updates), opt

    state, target = start(0), start(1)
    for _ in range(3):
        state["model"], state["opt"] = update(state["model"], state["opt"])

    through(state, target)

    assert equinox.tree_equal(target["model"], state["model"])
    assert target["model"].activation is state["model"].activation
    assert same(target["opt"], state["opt"])
    found = kinds(state)
    assert found["model.layers.0.weight"] == ("parameter", True)
    assert found["opt.0.mu.layers.0.weight"][0] == "persistable"


def test_missing_layer_is_a_mismatch_and_changes_nothing() -> None:
    target = {"p": Point(jnp.zeros(1), {"a": jnp.zeros(1)})}
    before = target["p"]

    with pytest.raises(MismatchError, match=r"'p\.y\.a' is not in the checkpoint"):
        through({"p": Point(jnp.ones(1), {"b": jnp.ones(1)})}, target)

    assert target["p"] is before
