"""JAX arrays in a state: replaced by new ones of the same dtype and placement; deleted ones are refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast import CastError, MemoryStore, MismatchError, UnsupportedVariableError
from holdfast.adapters.tree import scan

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy

TYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "complex64", "bfloat16",
         "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]  # fmt: skip


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_comes_back_bit_for_bit(name: str) -> None:
    dtype = jnp.dtype(name)
    bits = np.random.default_rng(0).integers(0, 2 if name == "bool" else 256, 24 * dtype.itemsize, np.uint8)
    saved = jnp.asarray(bits.view(dtype))
    target = {"flat": jnp.zeros(24, dtype), "scalar": jnp.zeros((), dtype), "empty": jnp.zeros((0, 3), dtype)}

    through({"flat": saved, "scalar": saved[3], "empty": jnp.ones((0, 3), dtype)}, target)

    assert target["flat"].dtype == dtype
    assert np.asarray(target["flat"]).tobytes() == bits.tobytes()
    assert np.asarray(target["scalar"]).tobytes() == np.asarray(saved[3]).tobytes()


def test_dicts_and_lists_are_refilled_and_tuples_replaced_where_they_stand() -> None:
    layers, weights = [jnp.zeros(2)], {"w": jnp.zeros(2)}
    target = {"layers": layers, "weights": weights, "pair": (jnp.zeros(1), {"x": jnp.zeros(1)})}
    inner = target["pair"][1]

    report = through(
        {"layers": [jnp.ones(2)], "weights": {"w": jnp.ones(2)}, "pair": (jnp.ones(1), {"x": jnp.ones(1)})}, target
    )

    assert report.state is target
    assert target["layers"] is layers
    assert layers[0].tolist() == weights["w"].tolist() == [1, 1]
    assert target["pair"][0].tolist() == [1]
    assert target["pair"][1] is inner
    assert inner["x"].tolist() == [1]


def test_bare_array_or_tuple_is_in_the_report() -> None:
    assert through(jnp.ones(2), jnp.zeros(2)).state.tolist() == [1, 1]
    assert through((jnp.ones(2), 3), (jnp.zeros(2), 4)).state[1] == 3
    with pytest.warns(RuntimeWarning, match="nobody took"):
        through(jnp.ones(2), jnp.zeros(2))


def test_one_dict_at_two_places_takes_one_value() -> None:
    shared = {"w": jnp.zeros(2)}

    with pytest.raises(MismatchError, match=r"'target\.w' stands in the same place as 'params\.w'"):
        through({"params": {"w": jnp.ones(2)}, "target": {"w": jnp.full(2, 5.0)}}, {"params": shared, "target": shared})

    assert shared["w"].tolist() == [0, 0]
    through({"params": {"w": jnp.ones(2)}, "target": {"w": jnp.ones(2)}}, {"params": shared, "target": shared})
    assert shared["w"].tolist() == [1, 1]


def test_one_array_at_two_places_takes_two_values() -> None:
    zero = jnp.zeros(2)
    target = {"params": {"w": zero}, "target": {"w": zero}}

    through({"params": {"w": jnp.ones(2)}, "target": {"w": jnp.full(2, 5.0)}}, target)

    assert target["params"]["w"].tolist() == [1, 1]
    assert target["target"]["w"].tolist() == [5, 5]


def test_deleted_arrays_are_refused_by_name_and_make_good_targets(tmp_path: Path) -> None:
    gone, donated = jnp.zeros(2), jnp.zeros(2)
    gone.delete()
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)

    with pytest.raises(UnsupportedVariableError, match="was deleted, or donated to a jitted function") as caught:
        holdfast.save_checkpoint({"fine": jnp.ones(2), "gone": gone, "donated": donated}, tmp_path / "run")

    assert set(caught.value.reasons) == {"gone", "donated"}
    assert list(tmp_path.iterdir()) == []
    target = {"x": gone}
    through({"x": jnp.ones(2)}, target)
    assert target["x"].tolist() == [1, 1]


def test_held_array_is_not_overwritten_by_a_donation() -> None:
    array = jnp.arange(1000.0) * 2
    (item,) = scan({"x": array}).items

    made = jax.jit(lambda x: x + 1, donate_argnums=0)(array)

    assert item.immutable
    assert item.array.tolist() == (np.arange(1000.0) * 2).tolist()
    assert made[0] == 1


def test_tracers_are_refused() -> None:
    def inside(x: Any) -> Any:
        with pytest.raises(UnsupportedVariableError, match="'x': is a tracer"):
            scan({"x": x})
        return x

    jax.jit(inside)(jnp.zeros(1))


def test_weak_type_stays() -> None:
    target = {"strong": jnp.zeros(()), "weak": jnp.asarray(0.0), "many": jnp.asarray(0) + jnp.zeros((), int)}
    before = {name: array.weak_type for name, array in target.items()}

    through({"strong": jnp.ones(()), "weak": jnp.ones(()), "many": jnp.asarray(3)}, target)

    assert {name: array.weak_type for name, array in target.items()} == before
    assert before["weak"]
    assert target["many"] == 3


def test_description_of_an_array_is_a_target() -> None:
    target = jax.eval_shape(lambda: {"w": jnp.zeros((2, 3), jnp.bfloat16)})

    through({"w": jnp.ones((2, 3), jnp.bfloat16)}, target)

    assert target["w"].dtype == jnp.bfloat16
    assert target["w"].tolist() == [[1] * 3] * 2
    with pytest.raises(UnsupportedVariableError, match="is a description without values"):
        holdfast.save_checkpoint(jax.eval_shape(lambda: {"w": jnp.zeros(2)}), MemoryStore().at("run"))


def test_casts_follow_the_rules_of_the_core() -> None:
    state = {"x": jnp.asarray([1.5, 70000.0])}

    with pytest.raises(MismatchError, match='cast="allow" converts it'):
        through(state, {"x": jnp.zeros(2, jnp.bfloat16)})
    with pytest.raises(CastError, match="'x': 70000.0 does not fit"):
        through(state, {"x": jnp.zeros(2, jnp.float16)}, cast="allow")
    target = {"x": jnp.zeros(2, jnp.bfloat16)}
    through(state, target, cast="allow")
    assert target["x"].dtype == jnp.bfloat16


def test_mismatch_changes_nothing() -> None:
    target = {"a": jnp.zeros(2), "b": (jnp.zeros(3),), "key": jax.random.key(1)}
    before = dict(target)

    with pytest.raises(MismatchError, match=r"'b\.0'"):
        through({"a": jnp.ones(2), "b": (jnp.ones(4),), "key": jax.random.key(2)}, target)

    assert all(target[name] is before[name] for name in target)


def test_step_that_begins_as_a_number_and_is_counted_as_an_array_comes_back() -> None:
    count = jax.jit(lambda step: step + 1)
    target = {"step": 0, "pair": (jnp.zeros(1), 0)}

    through({"step": count(6), "pair": (jnp.ones(1), count(7))}, target)

    assert target["step"] == 7
    assert type(target["step"]) is int
    assert target["pair"][1] == 8
    with pytest.raises(
        MismatchError, match=r"'step': the checkpoint has an array there, F32 \(\), the target a plain value"
    ):
        through({"step": jnp.ones(())}, {"step": 0})


def test_step_that_was_saved_as_a_number_loads_into_an_array() -> None:
    """A run that goes back to before its first step, and a target made by `jax.eval_shape`, have an array there."""
    target = {"step": jnp.asarray(5), "pair": (jnp.zeros(1), jnp.asarray(4.0)), "described": jnp.asarray(True)}
    described = jax.eval_shape(lambda: target)
    saved = {"step": 0, "pair": (jnp.ones(1), 0.5), "described": False}

    through(saved, target)
    through(saved, described)

    for found in (target, described):
        assert (found["step"], found["pair"][1], found["described"]) == (0, 0.5, False)
        assert found["step"].weak_type
        assert isinstance(found["step"], jax.Array)


@pytest.mark.parametrize(
    ("number", "array", "words"),
    [
        (2**40, jnp.asarray(0), "has the number 1099511627776, which the target's I32 cannot hold"),
        (1e300, jnp.asarray(0.0), r"has the number 1e\+300, which the target's F32 cannot hold"),
        (-1, jnp.asarray(0, jnp.uint32), "has the number -1, which the target's U32 cannot hold"),
        (0.5, jnp.asarray(0), r"has a plain value there, the target an array, I32 \(\)"),
        (1, jnp.zeros(1), r"has a plain value there, the target an array, F32 \(1,\)"),
    ],
)
def test_number_that_an_array_cannot_hold_is_refused(number: Any, array: Any, words: str) -> None:
    target = {"x": array, "y": jnp.ones(1)}

    with pytest.raises(MismatchError, match=f"'x': the checkpoint {words}") as caught:
        through({"x": number, "y": jnp.zeros(1)}, target)

    assert len(caught.value.problems) == 1
    assert target["y"] == 1


# Keys


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_both_kinds_go_on(impl: str) -> None:
    saved = {
        "typed": jax.random.key(3, impl=impl),
        "many": jax.random.split(jax.random.key(4, impl=impl), 5),
        "raw": jax.random.PRNGKey(5),
    }
    target = {
        "typed": jax.random.key(0, impl=impl),
        "many": jax.random.split(jax.random.key(0, impl=impl), 5),
        "raw": jax.random.PRNGKey(0),
    }

    report = through(saved, target)

    assert report.values == ("typed", "many")
    assert target["many"].shape == (5,)
    for name in saved:
        one, two = (state[name][0] if name == "many" else state[name] for state in (saved, target))
        assert jax.random.normal(one, 3).tolist() == jax.random.normal(two, 3).tolist()


def test_keys_must_be_of_one_kind() -> None:
    target = {"k": jax.random.key(0)}

    for other in (jax.random.key(0, impl="rbg"), jax.random.split(jax.random.key(0)), 3, np.random.default_rng(0)):
        with pytest.raises(MismatchError, match="'k': the checkpoint has"):
            through({"k": other}, target)


# Several devices

SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, holdfast
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
both, rows = NamedSharding(mesh, P("x", "y")), NamedSharding(mesh, P("y"))
state = {"w": jax.device_put(jnp.arange(32.0).reshape(4, 8), both), "v": jax.device_put(jnp.arange(4), rows)}
holdfast.save_checkpoint(state, sys.argv[1])
target = {"w": jax.device_put(jnp.zeros((4, 8)), rows), "v": jnp.zeros(4, int)}
holdfast.load_checkpoint(target, sys.argv[1])
assert target["w"].sharding == rows and (target["w"] == state["w"]).all()
assert len(target["v"].devices()) == 1 and not target["v"].committed and target["v"].tolist() == [0, 1, 2, 3]
print("devices", len(jax.devices()))
"""


def test_sharded_arrays_are_saved_whole_and_loaded_with_the_targets_sharding(tmp_path: Path) -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                   "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # fmt: skip
    command = [sys.executable, "-c", SHARDED, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "devices 4\n"


def test_long_keys_at_two_places_are_compared_whole(tmp_path: Path) -> None:
    keys = jax.random.split(jax.random.key(0), 1200)
    others = keys.at[600].set(jax.random.key(99))
    holdfast.save_checkpoint({"a": {"k": keys}, "b": {"k": others}}, tmp_path)
    one = {"k": jax.random.split(jax.random.key(5), 1200)}

    with pytest.raises(MismatchError, match="two values"):
        holdfast.load_checkpoint({"a": one, "b": one}, tmp_path)
