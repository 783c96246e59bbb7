"""Which variable goes into which file."""

import random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from holdfast import Variable, dtypes
from holdfast.engine.plan import FILE_BYTES, MAX_FILES, linkable_file_bytes, plan_files
from holdfast.format import layout, safetensors


def variable(name: str, nbytes: int, kind: str = "parameter", trainable: bool = True) -> Variable:
    return Variable(name, kind, trainable, "U8", (nbytes,))  # type: ignore[arg-type]


VARIABLES = st.lists(
    st.builds(
        Variable,
        st.text("abc.", min_size=1, max_size=6),
        st.sampled_from(["parameter", "persistable"]),
        st.booleans(),
        st.sampled_from(list(dtypes.ITEMSIZE)),
        st.lists(st.integers(0, 7), max_size=3).map(tuple),
    ),
    unique_by=lambda v: v.name,
    max_size=12,
)


@given(VARIABLES, st.integers(1, 300))
def test_every_variable_stands_in_one_file_of_its_kind(variables: list[Variable], file_bytes: int) -> None:
    plans = plan_files(variables, file_bytes)

    assert sorted(i for plan in plans for i in plan.members) == list(range(len(variables)))
    for plan in plans:
        members = [variables[i] for i in plan.members]
        assert plan.name.startswith("model" if members[0].kind == "parameter" else "state")
        assert len({v.kind for v in members}) == 1
        assert members[0].kind != "parameter" or len({v.trainable for v in members}) == 1
        assert len(members) == 1 or sum(v.nbytes for v in members) <= file_bytes
        assert layout.is_listable(plan.name)
    assert len({plan.name for plan in plans}) == len(plans)


@given(VARIABLES)
def test_headers_describe_the_members_and_every_tensor_is_aligned(variables: list[Variable]) -> None:
    for plan in plan_files(variables):
        found = safetensors.parse_header(plan.header[8:], plan.size, "f")

        assert list(found) == [variables[i].name for i in plan.members] or len({v.nbytes for v in variables}) < len(
            variables
        )
        for i in plan.members:
            v = variables[i]
            assert (found[v.name].dtype, found[v.name].shape) == (v.dtype, v.shape)
            assert (len(plan.header) + found[v.name].data_offsets[0]) % dtypes.ITEMSIZE[v.dtype] == 0


@given(VARIABLES, st.randoms())
def test_order_of_the_variables_does_not_matter(variables: list[Variable], rng: random.Random) -> None:
    shuffled = rng.sample(variables, len(variables))

    one, two = plan_files(variables, 100), plan_files(shuffled, 100)

    assert [(p.name, p.header, [variables[i] for i in p.members]) for p in one] == [
        (p.name, p.header, [shuffled[i] for i in p.members]) for p in two
    ]


def test_one_file_of_parameters_has_the_plain_name() -> None:
    plans = plan_files([variable("w", 3), variable("m", 4, "persistable")])

    assert [plan.name for plan in plans] == ["model.safetensors", "state-00001-of-00001.safetensors"]


def test_files_are_cut_before_they_would_be_too_large() -> None:
    plans = plan_files([variable(name, 60) for name in "abcde"], 130)

    assert [plan.name for plan in plans] == [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    assert [len(plan.members) for plan in plans] == [2, 2, 1]


def test_variable_larger_than_a_file_gets_one_of_its_own() -> None:
    plans = plan_files([variable("a", 3), variable("b", 999), variable("c", 3), variable("d", 6)], 10)

    assert [plan.members for plan in plans] == [(0, 2), (1,), (3,)]


def test_frozen_parameters_get_files_of_their_own() -> None:
    plans = plan_files([variable("a", 3), variable("b", 3, trainable=False), variable("c", 3, "persistable", False)])

    assert [(plan.name, plan.members) for plan in plans] == [
        ("model-00001-of-00002.safetensors", (0,)),
        ("model-00002-of-00002.safetensors", (1,)),
        ("state-00001-of-00001.safetensors", (2,)),
    ]


def test_no_variables_need_no_files() -> None:
    assert plan_files([]) == []
    assert FILE_BYTES == 2 << 30


def floats(name: str, count: int, **options: Any) -> Variable:
    return Variable(name, options.pop("kind", "parameter"), options.pop("trainable", True), "F32", (count,))


def test_small_states_are_not_cut_for_the_sake_of_linking() -> None:
    assert linkable_file_bytes([]) == FILE_BYTES
    assert linkable_file_bytes([floats(f"{i}", 40_000) for i in range(100)]) == FILE_BYTES


def gpt2_adam() -> list[Variable]:
    """The 592 variables of GPT-2 small (124 M parameters) with Adam: 1.5 GB."""
    width, shapes = 768, {"wte": 50257 * 768, "wpe": 1024 * 768, "ln_f.w": 768, "ln_f.b": 768}
    for i in range(12):
        shapes |= {f"h.{i}.{n}.w": k * width * width for n, k in (("attn", 3), ("proj", 1), ("fc", 4), ("mlp", 4))}
        shapes |= {f"h.{i}.{n}.b": k * width for n, k in (("attn", 3), ("proj", 1), ("fc", 4), ("mlp", 1))}
        shapes |= {f"h.{i}.ln_{n}.{p}": width for n in (1, 2) for p in "wb"}
    variables = [floats(name, count) for name, count in shapes.items()]
    for slot in ("exp_avg", "exp_avg_sq"):
        variables += [floats(f"{slot}.{name}", count, kind="persistable") for name, count in shapes.items()]
    return variables + [floats(f"step.{name}", 1, kind="persistable") for name in shapes]


UNIFORM = [floats(f"{i}", 500_000) for i in range(800)]


@pytest.mark.parametrize("variables", [gpt2_adam(), UNIFORM, UNIFORM[:30], [floats("a", 5_000_000), *UNIFORM[:200]]])
@pytest.mark.parametrize("seed", range(20))
def test_any_percent_of_the_variables_touches_two_percent_of_the_bytes_beside_its_own(
    variables: list[Variable], seed: int
) -> None:
    changed = set(random.Random(seed).sample(range(len(variables)), -(-len(variables) // 100)))

    plans = plan_files(variables, linkable_file_bytes(variables))

    written = sum(plan.size - len(plan.header) for plan in plans if changed & set(plan.members))
    own = sum(variables[i].nbytes for i in changed)
    assert written - own <= 0.02 * sum(v.nbytes for v in variables)
    assert len(plans) <= MAX_FILES + 3


def test_very_many_variables_make_no_more_files_than_a_reader_can_hold_open() -> None:
    variables = [floats(f"{i}", 400 + i) for i in range(50_000)]

    assert 100 < len(plan_files(variables, linkable_file_bytes(variables))) <= MAX_FILES + 3
