"""Pytrees as people write them: shared dicts, modules with functions in lists, dataclasses, keys that are described or gone."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


class Training(NamedTuple):
    """What a plain JAX program carries through its loop."""

    params: Any
    history: Any
    step: Any


# What cannot be changed


def test_old_tree_that_cannot_be_changed_stays_whole_as_it_was() -> None:
    """Dicts in it are made anew with it: half of the old one would else be loaded, and half not."""
    old = Training({"w": jnp.zeros(2), "deep": [jnp.zeros(1), "old"]}, {"loss": [1.0]}, jnp.asarray(0))
    state = {"training": old}

    through({"training": Training({"w": jnp.ones(2), "deep": [jnp.ones(1), "new"]}, {"loss": [2.0]}, 7)}, state)

    assert old.params["w"].tolist() == [0, 0]
    assert old.params["deep"] == [jnp.zeros(1), "old"]
    assert (old.history, old.step) == ({"loss": [1.0]}, 0)
    new = state["training"]
    assert new.params["w"].tolist() == [1, 1]
    assert new.params["deep"] == [jnp.ones(1), "new"]
    assert (new.history, new.step) == ({"loss": [2.0]}, 7)


def test_dicts_of_other_types_stay_of_their_types() -> None:
    import collections

    target = Training(collections.OrderedDict(b=jnp.zeros(1), a=jnp.zeros(1)), collections.defaultdict(list), 0)
    target.history["x"].append(jnp.zeros(1))

    report = through(Training({"a": jnp.ones(1), "b": jnp.ones(1)}, {"x": [jnp.ones(1)]}, 1), target)

    assert type(report.state.params) is collections.OrderedDict
    assert list(report.state.params) == ["b", "a"]
    assert report.state.history["new"] == []
    assert report.state.history["x"][0] == 1


def test_one_dict_at_two_places_of_an_optimizer_takes_two_values() -> None:
    """A fresh state of optax.lbfgs holds the very same zeros at two places."""
    optax = pytest.importorskip("optax", reason="optax is not installed")
    rule = optax.lbfgs()

    def loss(params: Any) -> Any:
        return ((params["w"] - 3) ** 2).sum() + ((params["b"] + 1) ** 4).sum()

    def train(params: Any, opt: Any) -> Any:
        for _ in range(3):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt = rule.update(gradient, opt, params, value=value, grad=gradient, value_fn=loss)
            params = optax.apply_updates(params, updates)
        return params, opt

    start = {"w": jnp.ones(3), "b": jnp.zeros(2)}
    params, opt = train(start, rule.init(start))
    target = {"params": jax.tree.map(jnp.zeros_like, start), "opt": rule.init(start)}
    through({"params": params, "opt": opt}, target)

    expected, _ = train(params, opt)
    found, _ = train(target["params"], target["opt"])
    assert all((found[name] == expected[name]).all() for name in expected)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Counter:
    """A dataclass that can be changed."""

    total: Any
    inner: Any = None
    count: int = 0


def test_dataclass_that_can_be_changed_stays_the_same_object() -> None:
    held = Counter(jnp.zeros(1), Counter(np.zeros(1)))
    state = {"counter": held}

    through({"counter": Counter(jnp.ones(1), Counter(np.ones(1), count=3), 2)}, state)

    assert state["counter"] is held
    assert (held.total, held.count, held.inner.total, held.inner.count) == (1, 2, 1, 3)
    fixed = {"training": Training(held, None, 0)}
    through({"training": Training(Counter(jnp.full(1, 5.0), Counter(np.ones(1))), None, 0)}, fixed)
    assert held.total == 1
    assert fixed["training"].params.total == 5


def test_dataclass_that_jax_does_not_know_is_refused_with_what_to_do() -> None:
    @dataclasses.dataclass
    class Unknown:
        w: Any

    with pytest.raises(UnsupportedVariableError, match=r"'x': .*register_dataclass\(\) makes its type a tree"):
        scan({"x": Unknown(jnp.zeros(1)), "y": jnp.zeros(1)})


# Equinox


def test_functions_and_rates_may_stand_anywhere_in_an_equinox_module() -> None:
    """`layers=[Linear, relu, Linear]` is how Equinox's own examples are written."""
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")

    class Model(eqx.Module):
        layers: list[Any]
        extra: dict[str, Any]
        pair: tuple[Any, ...]

        def __init__(self, seed: int) -> None:
            keys = jax.random.split(jax.random.key(seed), 2)
            self.layers = [eqx.nn.Linear(3, 4, key=keys[0]), jax.nn.relu, eqx.nn.Linear(4, 2, key=keys[1]), jnp.ravel]
            self.extra = {"scale": jnp.full(2, float(seed)), "act": jnp.tanh, "rate": 0.1 * seed, "none": None}
            self.pair = (jax.nn.gelu, np.full(2, seed), [jnp.full(1, seed), print])

        def __call__(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.extra["act"](x * self.extra["scale"])

    saved, target = Model(1), Model(2)
    state = {"model": target}

    through({"model": saved}, state)

    loaded = state["model"]
    assert [item.variable.name for item in scan(loaded).items] == [
        "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "extra.scale", "pair.1", "pair.2.0",
    ]  # fmt: skip
    assert [value.name for value in scan(loaded).values] == []
    assert loaded(jnp.ones(3)).tolist() == saved(jnp.ones(3)).tolist()
    assert target.layers[0].weight.tolist() != saved.layers[0].weight.tolist()
    assert (loaded.extra["rate"], loaded.layers[1], loaded.pair[2][1]) == (0.2, jax.nn.relu, print)


# Flax


def test_train_state_that_was_saved_before_its_first_step_loads_into_any() -> None:
    """Its step is Python's 0 then, and an array once it has been counted, or described by `jax.eval_shape`."""
    optax = pytest.importorskip("optax", reason="optax is not installed")
    flax = pytest.importorskip("flax.training.train_state", reason="Flax is not installed")

    def make() -> Any:
        return flax.TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=optax.adam(0.1))

    stepped = jax.jit(lambda train: train.apply_gradients(grads={"w": jnp.ones(2)}))(make())

    for target in (make(), stepped, jax.eval_shape(make)):
        loaded = through(make(), target).state
        assert loaded.step == 0
        assert loaded.params["w"].tolist() == [1, 1]
        assert jax.tree.structure(loaded.opt_state) == jax.tree.structure(stepped.opt_state)
    assert through(stepped, make()).state.step == 1


def test_nnx_names_of_what_is_shared_are_noted_however_deep() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    class Block(nnx.Module):
        def __init__(self, rngs: Any, kernel: Any = None) -> None:
            self.linear = nnx.Linear(2, 2, rngs=rngs)
            if kernel is not None:
                self.linear.kernel = kernel

    class Model(nnx.Module):
        def __init__(self, seed: int, *, shared: bool = True) -> None:
            rngs = nnx.Rngs(seed)
            self.first = Block(rngs)
            self.second = Block(rngs, self.first.linear.kernel if shared else None)
            self.again = nnx.List([self.second if shared else Block(rngs)])
            self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs)])
            self.drops.append(self.drops[0] if shared else nnx.Dropout(0.5, rngs=rngs))

    run = MemoryStore().at("run")
    saved, tied, apart = Model(1), Model(2), Model(3, shared=False)
    saved.drops[0].rngs.count.set_value(saved.drops[0].rngs.count.get_value() + 5)
    holdfast.save_checkpoint({"m": saved}, run)

    holdfast.load_checkpoint({"m": tied}, run)
    holdfast.load_checkpoint({"m": apart}, run)

    again = "again.0.linear"
    assert scan(saved).aliases == {
        "second.linear.kernel": f"{again}.kernel", "first.linear.kernel": f"{again}.kernel",
        "second.linear.bias": f"{again}.bias", "drops.1.rngs.count": "drops.0.rngs.count",
    }  # fmt: skip
    assert tied.second is tied.again[0]
    assert tied.first.linear.kernel is tied.second.linear.kernel
    for loaded in (tied, apart):
        for block in (loaded.first, loaded.second, loaded.again[0]):
            assert (block.linear.kernel.get_value() == saved.first.linear.kernel.get_value()).all()
        keys = [jax.random.key_data(drop.rngs.key.get_value()).tolist() for drop in (*loaded.drops, saved.drops[0])]
        assert keys[0] == keys[1] == keys[2]
        assert loaded.drops[1].rngs.count.get_value() == saved.drops[0].rngs.count.get_value()


def test_nnx_key_that_is_shared_takes_one_value() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    class Two(nnx.Module):
        def __init__(self, one: Any, two: Any) -> None:
            self.one, self.two = one, two

    shared = nnx.Rngs(7)

    with pytest.raises(MismatchError, match="'two.default.key' is the same thing as 'one.default.key'"):
        through(Two(nnx.Rngs(1), nnx.Rngs(2)), Two(shared, shared))

    assert jax.random.key_data(shared.default.key.get_value()).tolist() == [0, 7]


def test_nnx_tree_that_is_no_module_is_loaded_in_place_as_a_whole() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    if not hasattr(nnx, "Pytree"):
        pytest.skip("this version of Flax has no nnx.Pytree")

    class Pair(nnx.Pytree):
        def __init__(self, value: float) -> None:
            self.learned = nnx.Param(jnp.full(2, value))
            self.plain = nnx.data(jnp.full(2, value))
            self.parts = nnx.data((jnp.full(1, value), {"deep": [jnp.full(1, value)]}))

    held = Pair(0.0)
    state = {"pair": held}

    through({"pair": Pair(1.0)}, state)

    assert state["pair"] is held
    found = [held.learned.get_value(), held.plain, held.parts[0], held.parts[1]["deep"][0]]
    assert [array.tolist() for array in found] == [[1, 1], [1, 1], [1], [1]]
    names = {item.variable.name for item in scan(held).items}
    assert names == {"learned", "plain", "parts.0", "parts.1.deep.0"}


def test_nnx_module_that_holds_itself_has_names_that_end() -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    module = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    module.itself = module

    assert {item.variable.name for item in scan({"m": module}).items} == {"m.kernel", "m.bias"}


# Keys


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_description_of_keys_is_a_target(impl: str) -> None:
    saved = {"one": jax.random.key(3, impl=impl), "many": jax.random.split(jax.random.key(4, impl=impl), 3)}
    target = jax.eval_shape(
        lambda: {"one": jax.random.key(0, impl=impl), "many": jax.random.split(jax.random.key(0, impl=impl), 3)}
    )

    with pytest.raises(UnsupportedVariableError, match="'one': is a description without values") as caught:
        holdfast.save_checkpoint(target, MemoryStore().at("run"))
    through(saved, target)

    assert set(caught.value.reasons) == {"one", "many"}
    for name, keys in saved.items():
        assert (jax.random.key_data(target[name]) == jax.random.key_data(keys)).all()
        assert target[name].dtype == keys.dtype


def test_key_that_was_donated_is_refused_and_makes_a_good_target() -> None:
    target = {"key": jax.random.key(1)}
    jax.jit(lambda key: jax.random.split(key)[0], donate_argnums=0)(target["key"])

    with pytest.raises(UnsupportedVariableError, match="'key': was deleted, or donated to a jitted function"):
        holdfast.save_checkpoint(target, MemoryStore().at("run"))
    through({"key": jax.random.key(5)}, target)

    assert jax.random.key_data(target["key"]).tolist() == [0, 5]


def test_arrays_and_keys_that_were_deleted_are_named_at_once() -> None:
    state = {"w": jnp.zeros(2), "key": jax.random.key(1)}
    for array in state.values():
        array.delete()

    with pytest.raises(UnsupportedVariableError) as caught:
        holdfast.save_checkpoint(state, MemoryStore().at("run"))

    assert set(caught.value.reasons) == {"w", "key"}


def test_raw_and_typed_keys_are_told_apart_in_one_sentence() -> None:
    raw, typed = {"key": jax.random.PRNGKey(1)}, {"key": jax.random.key(1)}

    with pytest.raises(
        MismatchError, match=r"'key': the checkpoint has an array there, U32 \(2,\), the target the state of a"
    ):
        through(raw, typed)
    with pytest.raises(
        MismatchError, match=r"'key': the checkpoint has the state of a random number generator .*U32 \(2,\)"
    ) as caught:
        through(typed, raw)

    assert len(caught.value.problems) == 1


# What stands at two places


@pytest.mark.parametrize("part", ["array", "key", "pair"])
def test_a_module_at_two_places_takes_one_value_of_each_attribute(part: str) -> None:
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    def made(number: float) -> Any:
        """A module with what is no nnx.Variable."""
        module = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
        module.array, module.key = jnp.full(2, number), jax.random.key(int(number))
        module.pair = nnx.data((jnp.full(1, number), 3))
        return module

    other, target = made(1), made(0)
    setattr(other, part, getattr(made(2), part))

    with pytest.raises(
        MismatchError, match=rf"'b\.{part}.*as 'a\.{part}.*, but the checkpoint has two values"
    ) as caught:
        through({"a": made(1), "b": other}, {"a": target, "b": target})

    assert len(caught.value.problems) == 1
    assert target.array.tolist() == [0, 0]


@pytest.mark.parametrize("field", ["x", "n", "key"])
def test_a_dataclass_at_two_places_takes_one_value_of_each_field(field: str) -> None:
    def made(number: int) -> Any:
        return Fields(jnp.full(2, number), number, jax.random.key(number))

    other, target = made(1), made(0)
    setattr(other, field, getattr(made(2), field))

    with pytest.raises(MismatchError, match=rf"'b\.{field}' .*as 'a\.{field}', but the checkpoint has two values"):
        through({"a": made(1), "b": other}, {"a": target, "b": target})
    assert (target.x.tolist(), target.n) == ([0, 0], 0)
    through({"a": made(1), "b": made(1)}, {"a": target, "b": target})
    assert (target.x.tolist(), target.n) == ([1, 1], 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Fields:
    x: Any
    n: Any
    key: Any


def test_a_module_with_rngs_in_it_may_stand_at_two_places() -> None:
    """Rngs have every attribute that they are asked for, and were taken for arrays."""
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    saved, target = (nnx.Dict(inner=nnx.Rngs(seed)) for seed in (3, 0))
    saved.inner.default()

    through({"a": saved, "b": saved}, {"a": target, "b": target})

    assert jax.random.key_data(target.inner.default()).tolist() == jax.random.key_data(saved.inner.default()).tolist()


def test_a_key_that_is_empty_is_said_to_be_no_name() -> None:
    with pytest.raises(UnsupportedVariableError, match="'': names must not be empty"):
        holdfast.save_checkpoint({"": jnp.zeros(1)}, MemoryStore().at("run"))


# Types


def test_weak_type_of_any_shape_stays() -> None:
    """Else what it is multiplied with is widened: bfloat16 times a weak float32 is bfloat16."""
    target = {"w": jax.lax.broadcast(jnp.asarray(0.0), (3,)), "n": jnp.asarray(0), "strong": jnp.zeros(3)}

    through({"w": jnp.arange(3.0), "n": jnp.asarray(4), "strong": jnp.ones(3)}, target)

    assert target["w"].tolist() == [0, 1, 2]
    assert [target[name].weak_type for name in target] == [True, True, False]
    assert (target["w"] * jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


def test_weak_type_of_eight_bytes_stays_where_only_the_target_has_them() -> None:
    with jax.enable_x64(True):
        saved = {"one": jnp.asarray(1 / 3), "many": jax.lax.broadcast(jnp.asarray(1 / 3), (2,))}
        target = {"one": jnp.asarray(0.0), "many": jax.lax.broadcast(jnp.asarray(0.0), (2,))}

    through(saved, target)

    assert [(array.dtype, array.weak_type) for array in target.values()] == [(jnp.dtype("float64"), True)] * 2
    assert (np.asarray(target["one"]), np.asarray(target["many"]).tolist()) == (1 / 3, [1 / 3] * 2)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_wide_target_gets_wide_values_outside_of_its_context(dtype: str) -> None:
    value = np.array([1, 2**40 + 1]).astype(dtype)
    with jax.enable_x64(True):
        target = {"x": jnp.zeros(2, dtype), "described": jax.ShapeDtypeStruct((2,), dtype)}

    through({"x": value, "described": value}, target)

    for name in target:
        assert target[name].dtype == dtype
        assert np.asarray(target[name]).tolist() == value.tolist()
