"""States of NumPy programs: every dtype, every value and every generator comes back; what cannot is refused by name first."""

from __future__ import annotations

import collections
import copy
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import holdfast
from holdfast import MemoryStore, MismatchError, UnsupportedVariableError, dtypes, parameters, temporary
from holdfast.adapters.tree import scan
from support import contents


def through(state: Any, target: Any, **options: Any) -> holdfast.LoadReport:
    """Save one state and load it into another."""
    run = MemoryStore().at("run")
    holdfast.save_checkpoint(state, run)
    return holdfast.load_checkpoint(target, run, **options)


class Pair(NamedTuple):
    weight: Any
    value: Any


class Nothing(NamedTuple):
    """As optax has some: a state without anything in it."""


# Arrays

DTYPES = st.sampled_from([dtypes.to_numpy(name) for name in dtypes.ITEMSIZE])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every dtype with any bits, in any byte order and layout."""
    dtype = draw(DTYPES)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count = int(np.prod(shape))
    bits = np.frombuffer(draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)), np.uint8)
    array = (bits % 2).astype(bool) if dtype.kind == "b" else bits.view(dtype)
    array = array.reshape(shape)
    layout = draw(st.sampled_from(["plain", "fortran", "strided", "reversed", "big"]))
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "big" and dtype.kind in "iufc":
        return array.astype(dtype.newbyteorder(">"))
    return array


@given(st.lists(arrays(), min_size=1, max_size=5), st.sampled_from("CF"))
@settings(max_examples=60)
def test_every_array_comes_back_bit_for_bit(state: list[np.ndarray], order: Any) -> None:
    target = [np.ones_like(a, order=order) if a.dtype.kind != "V" else np.empty_like(a, order=order) for a in state]

    through(state, target)

    for saved, loaded in zip(state, target, strict=True):
        little = saved.dtype.newbyteorder("<")
        assert loaded.astype(loaded.dtype.newbyteorder("<")).tobytes() == saved.astype(little).tobytes()


@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_every_bit_pattern_of_every_dtype_comes_back(name: str, tmp_path: Path) -> None:
    dtype = dtypes.to_numpy(name)
    bits = np.random.default_rng(0).integers(0, 2 if name == "BOOL" else 256, 4096 * dtype.itemsize, np.uint8)
    state, target = {"x": bits.view(dtype)}, {"x": np.zeros(4096, dtype)}

    holdfast.save_checkpoint(state, tmp_path)
    holdfast.load_checkpoint(target, tmp_path)

    assert target["x"].view(np.uint8).tolist() == bits.tolist()


NESTED = st.recursive(
    arrays().filter(lambda a: a.size < 20),
    lambda inner: st.one_of(
        st.dictionaries(st.text("abcxyz_1", min_size=1, max_size=3), inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3),
        st.tuples(inner, inner),
        inner.map(parameters),
    ),
    max_leaves=8,
)


@given(NESTED)
@settings(max_examples=60)
def test_every_nesting_comes_back(state: Any) -> None:
    target = blank(state)

    report = through(state, target)

    assert flat(target) == flat(state)
    assert len(report.loaded) == len(flat(state))
    assert report.values == ()


def blank(tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        return np.zeros_like(tree)
    if isinstance(tree, dict):
        return {key: blank(child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(blank(child) for child in tree)
    return parameters(blank(tree.tree))


def flat(tree: Any) -> list[bytes]:
    return [item.array.astype(item.array.dtype.newbyteorder("<")).tobytes() for item in scan(tree).items]


def test_names_are_the_keys_on_the_way() -> None:
    state = {
        "model": parameters({"fc": {"w": np.zeros(2)}, "layers": [np.zeros(1), {"b": np.zeros(3)}]}),
        3: (np.zeros(1),),
    }

    found = scan(state)

    assert [item.variable.name for item in found.items] == ["model.fc.w", "model.layers.0", "model.layers.1.b", "3.0"]


def test_marks_give_the_kind_and_inner_marks_win() -> None:
    state = {
        "model": parameters(
            {"w": np.zeros(1), "scratch": temporary(np.zeros(1)), "frozen": parameters([np.zeros(1)], trainable=False)}
        ),
        "optimizer": {"m": np.zeros(1)},
    }

    kinds = {i.variable.name: (i.variable.kind, i.variable.trainable) for i in scan(state).items}

    assert kinds == {
        "model.w": ("parameter", True),
        "model.scratch": ("temporary", False),
        "model.frozen.0": ("parameter", False),
        "optimizer.m": ("persistable", True),
    }


@pytest.mark.parametrize(
    ("state", "marked"),
    [(parameters({"w": np.zeros(1)}), ["w"]), (parameters(np.zeros(1)), ["state"]), (np.zeros(1), ["state"]),
     ([np.zeros(1)], ["0"]),
     (parameters(parameters([np.zeros(1)])), ["0"])],
)  # fmt: skip
def test_root_may_be_anything(state: Any, marked: list[str]) -> None:
    assert [item.variable.name for item in scan(state, whole_is_model=True).items] == marked
    assert all(item.variable.kind == "parameter" for item in scan(state, whole_is_model=True).items)


def test_unmarked_states_are_parameters_for_prediction_only() -> None:
    assert scan({"w": np.zeros(1)}, whole_is_model=True).items[0].variable.kind == "parameter"
    assert scan({"w": np.zeros(1)}).items[0].variable.kind == "persistable"
    half = scan({"w": parameters([np.zeros(1)]), "m": [np.zeros(1)]}, whole_is_model=True)
    assert [item.variable.kind for item in half.items] == ["parameter", "persistable"]


def test_mark_is_around_the_tree_itself() -> None:
    tree = {"w": np.zeros(1)}

    assert parameters(tree).tree is tree
    assert temporary(tree).tree is tree


def test_read_only_arrays_are_saved() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    target = {"x": np.zeros(3)}

    through({"x": array}, target)

    assert target["x"].tolist() == [0, 1, 2]


def test_state_is_not_changed_by_a_save() -> None:
    state = {
        "w": np.asfortranarray(np.ones((2, 3))),
        "v": [1, (2,)],
        "g": np.random.default_rng(0),
        "p": parameters([np.zeros(1)]),
    }
    before = contents(copy.deepcopy(state))

    holdfast.save_checkpoint(state, MemoryStore().at("run"))

    assert contents(state) == before
    assert state["w"].flags.f_contiguous


# Values

FLOATS = st.floats(allow_nan=True)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    FLOATS,
    st.text(max_size=5),
    st.sampled_from([np.float32(0.1), np.int8(-1)]),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(-3, 3))
VALUES = st.recursive(
    LEAVES,
    lambda v: st.one_of(st.lists(v, max_size=3), st.tuples(v, v), st.dictionaries(KEYS, v, max_size=3)),
    max_leaves=10,
)


@given(VALUES, VALUES)
@settings(max_examples=60)
def test_every_value_comes_back_with_its_exact_types(value: Any, other: Any) -> None:
    target = {"v": other, "w": np.zeros(1)}

    through({"v": value, "w": np.ones(1)}, target)

    assert contents(target["v"]) == contents(value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -0.0, 10**40, True, None, "ü\0", (1, [2, (3,)]), {1: "int", "1": "str"}, {(1, 2): 3}, {"$x": 1},
     {None: 1},
     np.float32(0.1), np.int8(3), np.bool_(True), np.complex64(1j), ml_dtypes.bfloat16(1.5), [np.float64("nan")], {}, [], ()],
    ids=repr,
)  # fmt: skip
def test_value_comes_back(value: Any) -> None:
    target = {"v": "other", "w": np.zeros(1)}

    report = through({"v": value, "w": np.zeros(1)}, target)

    assert contents(target["v"]) == contents(value)
    assert report.values == ("v",)


def test_largest_part_without_arrays_is_one_value() -> None:
    found = scan({"history": {"loss": [1.0, 2.0], "acc": []}, "model": {"w": np.zeros(1), "name": "x"}, "epoch": 3})

    assert {value.name for value in found.values} == {"model.name", "history", "epoch"}


def test_history_that_has_grown_since_is_given_back_as_it_was() -> None:
    target = {"w": np.zeros(1), "history": {"loss": [9.0] * 5, "extra": 1}}

    through({"w": np.zeros(1), "history": {"loss": [1.0]}}, target)

    assert target["history"] == {"loss": [1.0]}


def test_dicts_and_lists_are_refilled_in_place() -> None:
    history, table = [1, 2, 3], {"a": 1}
    target = {"w": np.zeros(1), "history": history, "table": table}

    through({"w": np.zeros(1), "history": [7], "table": {"b": 2}}, target)

    assert target["history"] is history
    assert history == [7]
    assert target["table"] is table
    assert table == {"b": 2}


def test_dict_of_another_class_keeps_its_class() -> None:
    counts: collections.Counter[str] = collections.Counter()
    target = {"w": np.zeros(1), "counts": counts, "order": collections.OrderedDict(z=1)}

    through(
        {"w": np.zeros(1), "counts": collections.Counter("aab"), "order": collections.OrderedDict(b=1, a=2)}, target
    )

    assert target["counts"] is counts
    assert counts == collections.Counter("aab")
    assert type(target["order"]) is collections.OrderedDict
    assert list(target["order"]) == ["b", "a"]


def test_state_of_values_only_is_saved_too() -> None:
    target = {"epoch": 0, "note": None}

    through({"epoch": 3, "note": "x"}, target)

    assert target == {"epoch": 3, "note": "x"}


def test_tuple_with_a_value_in_it_is_replaced_where_it_stands() -> None:
    weight = np.zeros(1)
    target = {"deep": [((weight, 4), "x")]}

    report = through({"deep": [((np.ones(1), 3), "x")]}, target)

    assert target["deep"][0][0][1] == 3
    assert target["deep"][0][0][0] is weight
    assert weight[0] == 1
    assert report.state is target


def test_value_right_inside_a_mark_is_refilled_or_its_mark_replaced() -> None:
    values, number = parameters({"a": 1}), parameters(6)
    target = {"p": values, "n": number, "w": np.zeros(1)}

    through({"p": parameters({"a": 5}), "n": parameters(5), "w": np.zeros(1)}, target)

    assert target["p"] is values
    assert values.tree == {"a": 5}
    assert target["n"] == parameters(5)


def test_state_that_cannot_be_changed_is_in_the_report() -> None:
    weight = np.zeros(1)

    report = through((np.ones(1), 3), (weight, 4))

    assert report.state == (weight, 3)
    assert report.state[0] is weight


def test_new_state_that_nobody_takes_is_noticed() -> None:
    with pytest.warns(RuntimeWarning, match=r"a tuple cannot be changed.*load_checkpoint\(state, …\)\.state"):
        through((np.ones(1), 3), (np.zeros(1), 4))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert through((np.ones(1), 3), (np.zeros(1), 4)).state[1] == 3
        through([np.ones(1), 3], [np.zeros(1), 4])


def test_named_tuples_have_the_names_of_their_fields() -> None:
    state = Pair(np.ones(1), {"note": "x"}), Nothing()
    target = [Pair(np.zeros(1), {"note": "y"}), Nothing()]

    through(list(state), target)

    assert [item.variable.name for item in scan(state).items] == ["0.weight"]
    assert target == list(state)


# Random numbers

GENERATORS: dict[str, Callable[[int], Any]] = {
    "PCG64": lambda seed: np.random.Generator(np.random.PCG64(seed)),
    "PCG64DXSM": lambda seed: np.random.Generator(np.random.PCG64DXSM(seed)),
    "MT19937": lambda seed: np.random.Generator(np.random.MT19937(seed)),
    "Philox": lambda seed: np.random.Generator(np.random.Philox(seed)),
    "SFC64": lambda seed: np.random.Generator(np.random.SFC64(seed)),
}
GENERATORS["RandomState"] = np.random.RandomState
GENERATORS["RandomState-PCG64"] = lambda seed: np.random.RandomState(np.random.PCG64(seed))
GENERATORS["random.Random"] = random.Random


def draw(generator: Any) -> list[float]:
    """Numbers of several kinds, an odd count of each: Gaussian ones come in pairs, the second of which waits in the state."""
    if isinstance(generator, random.Random):
        return [
            generator.random(),
            generator.gauss(0, 1),
            generator.randrange(10**30),
            generator.gauss(0, 1),
            generator.gauss(0, 1),
        ]
    normal = generator.standard_normal(3).tolist()
    integers = (generator.integers if hasattr(generator, "integers") else generator.randint)(
        0, 2**31 - 1, 3, dtype=np.int32
    ).tolist()
    return [*normal, *integers, *generator.permutation(5).tolist()]


@pytest.mark.parametrize("kind", GENERATORS)
def test_generator_goes_on_where_it_was(kind: str, tmp_path: Path) -> None:
    saved, target = GENERATORS[kind](1), GENERATORS[kind](2)
    for _ in range(3):
        draw(saved)
    holdfast.save_checkpoint({"deep": [{"rng": saved}]}, tmp_path)
    expected = [draw(saved) for _ in range(5)]

    report = holdfast.load_checkpoint({"deep": [{"rng": target}]}, tmp_path)

    assert [draw(target) for _ in range(5)] == expected
    assert report.values == ("deep.0.rng",)


def test_gauss_next_is_part_of_the_state() -> None:
    saved, target = random.Random(1), random.Random(2)
    saved.gauss(0, 1)

    through({"r": saved}, {"r": target})

    assert target.getstate() == saved.getstate()
    assert target.getstate()[2] is not None


def test_generators_are_loaded_in_place() -> None:
    shared = np.random.default_rng(5)
    target = {"a": shared}
    saved = np.random.default_rng(1)

    through({"a": saved}, target)

    assert target["a"] is shared
    assert shared.random() == saved.random()


def test_one_generator_at_two_places_takes_one_state() -> None:
    shared = np.random.default_rng(5)
    target = {"a": shared, "b": shared}
    saved = np.random.default_rng(1)

    through({"a": saved, "b": saved}, target)
    assert shared.random() == saved.random()

    before = contents(shared)
    with pytest.raises(MismatchError, match="'b'"):
        through({"a": np.random.default_rng(1), "b": np.random.default_rng(2)}, target)
    assert contents(shared) == before


@pytest.mark.parametrize(
    ("saved", "target", "words"),
    [
        (
            np.random.default_rng(0),
            np.random.RandomState(0),
            "the state of a numpy.random.Generator, the target is a numpy.random.RandomState",
        ),
        (random.Random(0), np.random.default_rng(0), "the state of a random.Random"),
        (GENERATORS["PCG64"](0), GENERATORS["MT19937"](0), "its random state does not fit"),
        (3, np.random.default_rng(0), "the checkpoint has a plain value there, the target a random number generator"),
        (np.random.default_rng(0), 3, "the checkpoint has the state of a random number generator there"),
    ],
)
def test_generators_must_be_of_one_kind(saved: Any, target: Any, words: str) -> None:
    state = {"w": np.zeros(2), "r": target}
    before = contents(state)

    with pytest.raises(MismatchError, match=words):
        through({"w": np.ones(2), "r": saved}, state)

    assert contents(state) == before


def test_generator_without_a_state_is_refused() -> None:
    with pytest.raises(UnsupportedVariableError, match="'r': random.SystemRandom"):
        scan({"r": random.SystemRandom(), "w": np.zeros(1)})


# Objects


class Optimizer:
    """Creates its slots with the first step, as optimizers do."""

    def __init__(self) -> None:
        self.slots: dict[str, np.ndarray] = {}
        self.settings: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.99)}

    def state_dict(self) -> dict[str, Any]:
        return {"slots": self.slots, "settings": self.settings, "list": [*self.slots.values(), ("x", 1)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert all(isinstance(item, np.ndarray) for item in state["list"][:-1])
        assert state["list"][-1] == ("x", 1)
        self.slots, self.settings = state["slots"], state["settings"]


def trained() -> Optimizer:
    optimizer = Optimizer()
    optimizer.slots = {"m": np.arange(3.0), "v": np.full(3, 2, np.float16)}
    optimizer.settings = {"lr": 0.01, "betas": (0.8, 0.9), 3: None}
    return optimizer


def test_object_comes_back_with_arrays_that_it_has_not_created_yet() -> None:
    fresh = Optimizer()

    report = through({"opt": trained(), "w": np.ones(1)}, {"opt": fresh, "w": np.zeros(1)})

    assert contents(fresh) == contents(trained())
    assert {v.name for v in report.loaded} == {"w", "opt.slots.m", "opt.slots.v", "opt.list.0", "opt.list.1"}
    assert report.values == ("opt",)


def test_object_with_arrays_gets_new_ones_and_keeps_none_of_the_checkpoint() -> None:
    run = MemoryStore().at("run")
    holdfast.save_checkpoint({"opt": trained()}, run)
    target = trained()
    target.slots["m"][:] = 9
    old = target.slots["m"]

    holdfast.load_checkpoint({"opt": target}, run)
    target.slots["m"][:] = 5

    assert old.tolist() == [9, 9, 9]
    again = Optimizer()
    holdfast.load_checkpoint({"opt": again}, run)
    assert again.slots["m"].tolist() == [0, 1, 2]


def test_objects_are_variables_for_prediction_too() -> None:
    where = MemoryStore().at("m")
    holdfast.save_params({"opt": trained()}, where)
    target = trained()
    target.slots["m"] = np.zeros(3)
    target.settings["lr"] = 7

    holdfast.load_params({"opt": target}, where)

    assert target.slots["m"].tolist() == [0, 1, 2]
    assert target.settings["lr"] == 7


def test_root_may_be_an_object() -> None:
    fresh = Optimizer()

    through(trained(), fresh)

    assert contents(fresh) == contents(trained())


def test_error_of_load_state_dict_says_whose() -> None:
    class Picky(Optimizer):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise KeyError("momentum")

    with pytest.raises(KeyError, match="momentum") as caught:
        through({"opt": trained()}, {"opt": Picky()})

    assert "'opt'" in caught.value.__notes__[0]


def test_object_and_plain_value_do_not_fit() -> None:
    with pytest.raises(MismatchError, match="'opt': the checkpoint has a plain value there, the target an object"):
        through({"opt": 3, "w": np.zeros(1)}, {"opt": Optimizer(), "w": np.zeros(1)}, strict="superset")


def test_classes_are_no_objects_of_a_state() -> None:
    with pytest.raises(UnsupportedVariableError, match="'opt'"):
        scan({"opt": Optimizer, "w": np.zeros(1)})


def test_object_inside_an_object_is_refused_by_name() -> None:
    outer = Optimizer()
    outer.settings = {"inner": {1, 2}}

    with pytest.raises(UnsupportedVariableError, match=r"'opt.settings.inner': in a state_dict\(\): builtins.set"):
        scan({"opt": outer})


def test_state_dict_must_be_a_dict() -> None:
    class Odd:
        def state_dict(self) -> list[int]:
            return [1]

        def load_state_dict(self, state: Any) -> None: ...

    with pytest.raises(UnsupportedVariableError, match=r"'odd': its state_dict\(\) must return a dict, not list"):
        scan({"odd": Odd()})


# Temporaries


def test_temporaries_are_neither_saved_nor_loaded() -> None:
    target = {"w": np.zeros(1), "scratch": temporary({"a": np.full(2, 7.0), "n": 3})}

    report = through({"w": np.ones(1), "scratch": temporary({"a": np.zeros(2), "n": 4})}, target)

    assert [v.name for v in report.loaded] == ["w"]
    assert target["scratch"].tree["a"].tolist() == [7, 7]
    assert target["scratch"].tree["n"] == 3


def test_temporaries_may_be_anything() -> None:
    state = {
        "w": np.zeros(1),
        "scratch": temporary({"o": np.array([None]), "f": print, "z": np.zeros(1, complex), "set": {1}}),
    }

    assert holdfast.save_checkpoint(state, MemoryStore().at("run")) == 0


# What cannot be held

LOOP: dict[str, Any] = {"w": np.zeros(1)}
LOOP["self"] = LOOP
PLAIN_LOOP: list[Any] = [1]
PLAIN_LOOP.append(PLAIN_LOOP)
DEEP: Any = np.zeros(1)
for _ in range(20_000):
    DEEP = [DEEP]

UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "masked": (
        {"a": {"m": np.ma.masked_array([1.0, 2.0], [True, False])}},
        r"'a.m': a masked array would lose its mask",
    ),
    "object": ({"o": np.array([None, 1])}, "'o': dtype object is not one"),
    "complex128": ({"c": np.zeros(2, complex)}, "'c': dtype complex128"),
    "datetime": ({"d": np.zeros(2, "M8[s]")}, r"'d': dtype datetime64\[s\]"),
    "string": ({"s": np.array(["a"])}, "'s': dtype <U1"),
    "structured": ({"r": np.zeros(2, [("x", "f4")])}, "'r': dtype"),
    "longdouble": ({"l": np.zeros(1, np.longdouble)}, "'l': dtype float128|'l': dtype longdouble"),
    "int4": ({"i": np.zeros(2, ml_dtypes.int4)}, "'i': dtype int4"),
    "set": ({"s": {"deep": [1, {2}]}}, r"'s.deep.1': builtins.set is neither an array nor JSON"),
    "function": ({"f": print, "w": np.zeros(1)}, "'f': builtins.builtin_function_or_method"),
    "bytes": ({"b": b"x"}, "'b': builtins.bytes"),
    "array-like": (
        {"a": type("Tensor", (), {"__array__": lambda self: np.zeros(1)})()},
        r"'a': .*numpy.asarray\(\) makes it an array",
    ),
    "same name": ({"a": {"b": np.zeros(1)}, "a.b": np.zeros(1)}, "'a.b': two leaves have this name"),
    "same key": ({1: np.zeros(1), "1": np.zeros(1)}, "'1': two leaves have this name"),
    "value and array": ({"a": {"b": np.zeros(1)}, "a.b": 3}, "'a.b': two leaves have this name"),
    "empty name": ({"": np.zeros(1)}, "name"),
    "long name": ({"n" * 5000: np.zeros(1)}, "5000 bytes"),
    "NUL": ({"a\0": np.zeros(1)}, "NUL"),
    "metadata": ({"__metadata__": np.zeros(1)}, "__metadata__"),
    "surrogate": ({"\ud800": np.zeros(1)}, "Unicode"),
    "key": ({(1, 2): np.zeros(1)}, "keys on the way to an array must be strings or integers"),
    "bool key": ({True: np.zeros(1)}, "keys on the way"),
    "loop": (LOOP, "contains itself"),
    "loop of values": ({"v": PLAIN_LOOP, "w": np.zeros(1)}, "contains itself"),
    "deep": ({"v": DEEP}, "nests too deep"),
}


@pytest.mark.parametrize(
    "save", [holdfast.save_checkpoint, holdfast.save_params, holdfast.save_persistables, holdfast.save_vars]
)
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_is_refused_by_name_before_a_byte_is_written(case: str, save: Any, tmp_path: Path) -> None:
    state, words = UNSUPPORTED[case]

    with pytest.raises(UnsupportedVariableError, match=words) as caught:
        save(state, tmp_path / "run")

    assert "nothing was written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_all_unsupported_leaves_are_named_at_once() -> None:
    state = {"a": np.zeros(1, complex), "b": {1}, "c": np.zeros(1), "d": [np.array([None])]}

    with pytest.raises(UnsupportedVariableError) as caught:
        scan(state)

    assert set(caught.value.reasons) == {"a", "b", "d.0"}


def test_trainer_args_are_refused_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVariableError, match=r"'trainer_args.a.0': builtins.set"):
        holdfast.save_checkpoint({"w": np.zeros(1)}, tmp_path / "run", trainer_args={"a": [{1}]})

    assert list(tmp_path.iterdir()) == []


def test_unsupported_target_is_refused_when_loading(tmp_path: Path) -> None:
    holdfast.save_checkpoint({"w": np.ones(1)}, tmp_path)
    target = {"w": np.zeros(1), "bad": np.zeros(1, complex)}

    with pytest.raises(
        UnsupportedVariableError, match=r"^nothing can be loaded into this state; it is unchanged:\n  'bad'"
    ):
        holdfast.load_checkpoint(target, tmp_path)

    assert target["w"].tolist() == [0]
