"""ProgramDesc: what Fluid wrote is read, and written again as the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from holdfast.errors import FormatError
from holdfast.interop import program_wire, wire
from holdfast.interop.expected import Expected
from holdfast.interop.program_desc import (
    Attr,
    AttrCode,
    BlockDesc,
    LoDTensorDesc,
    Message,
    OpDesc,
    OpVar,
    ProgramDesc,
    TensorDesc,
    VarCode,
    VarDesc,
    VarType,
    Version,
)
from holdfast.interop.program_wire import from_bytes, read_file, to_bytes
from interop.truth import FLUID, PADDLE, meta, program_files

FILES = program_files()
MODEL = FLUID / "save_inference_model" / "model" / "__model__"


@pytest.mark.parametrize("path", FILES, ids=[p.parents[1].name for p in FILES])
def test_every_program_is_written_again_byte_for_byte(path: Path) -> None:
    program = read_file(path)

    assert to_bytes(program) == path.read_bytes()
    assert from_bytes(to_bytes(program)) == program


def test_there_are_programs_of_both() -> None:
    assert len(FILES) == 6


@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("save_inference_model", "__model__"),
        ("save_inference_model_combined", "model.pb"),
        ("save_inference_model_embedding", "__model__"),
    ],
)
def test_operators_feeds_fetches_and_persistables_are_those_of_fluid(case: str, file: str) -> None:
    program = read_file(FLUID / case / "model" / file)
    truth = meta(FLUID / case)

    assert [op.type for op in program.blocks[0].ops] == truth["ops"]
    assert program.feeds() == truth["feed_target_names"]
    assert program.fetches() == truth["fetch_target_names"]
    assert program.persistables() == {
        name: Expected(np.dtype(entry["actual_dtype"]), tuple(entry["actual_shape"]))
        for name, entry in truth["vars"].items()
    }


def test_every_variable_of_a_training_program() -> None:
    program = read_file(FLUID / "fluid_save" / "model" / "m.pdmodel")

    assert set(program.persistables()) == set(meta(FLUID / "fluid_save")["vars"])


def test_attributes_and_slots_of_an_operator() -> None:
    (op,) = [op for op in read_file(MODEL).blocks[0].ops if op.type == "pool2d"]

    assert op.attr("ksize") == [2, 2]
    assert op.attr("pooling_type") == "max"
    assert op.attr("global_pooling") is False
    assert op.attr("no such") is None
    assert len(op.input("X")) == len(op.output("Out")) == 1
    assert op.input("no such") == []


def test_paddle_2_marks_parameters() -> None:
    program = read_file(PADDLE / "static_save_legacy" / "model" / "m.pdmodel")

    marked = {var.name for block in program.blocks for var in block.vars if var.is_parameter}

    assert len(marked) == 4
    assert all(name.startswith("fc_") and name.endswith(("w_0", "b_0")) for name in marked)


TEXT = st.text(max_size=6)
INT32, INT64 = st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
FLOAT = st.floats(width=32, allow_nan=False)
VALUES: dict[AttrCode, st.SearchStrategy[Any]] = {
    AttrCode.INT: INT32, AttrCode.FLOAT: FLOAT, AttrCode.STRING: TEXT, AttrCode.INTS: st.lists(INT32, max_size=3),
    AttrCode.FLOATS: st.lists(FLOAT, max_size=3), AttrCode.STRINGS: st.lists(TEXT, max_size=3),
    AttrCode.BOOLEAN: st.booleans(), AttrCode.BOOLEANS: st.lists(st.booleans(), max_size=3), AttrCode.BLOCK: INT32,
    AttrCode.LONG: INT64, AttrCode.BLOCKS: st.lists(INT32, max_size=3), AttrCode.LONGS: st.lists(INT64, max_size=3),
}  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> ProgramDesc:
    def one_var() -> VarDesc:
        tensor = TensorDesc(data_type=draw(st.sampled_from([0, 3, 5])), dims=draw(st.lists(INT64, max_size=3)))
        kind = draw(st.sampled_from([VarCode.LOD_TENSOR, VarCode.SELECTED_ROWS, VarCode.RAW]))
        made = VarType(type=int(kind))
        if kind == VarCode.LOD_TENSOR:
            made.lod_tensor = LoDTensorDesc(tensor=tensor, lod_level=draw(st.none() | INT32))
        elif kind == VarCode.SELECTED_ROWS:
            made.selected_rows = tensor
        return VarDesc(name=draw(TEXT), type=made, persistable=draw(st.none() | st.booleans()))

    def one_op() -> OpDesc:
        slots = st.lists(st.builds(OpVar, parameter=TEXT, arguments=st.lists(TEXT, max_size=2)), max_size=2)
        codes = draw(st.lists(st.sampled_from(list(AttrCode)), max_size=3))
        attrs = [Attr.of(draw(TEXT), code, draw(VALUES[code])) for code in codes]
        return OpDesc(type=draw(TEXT), inputs=draw(slots), outputs=draw(slots), attrs=attrs)

    vars, ops = ([make() for _ in range(draw(st.integers(0, 2)))] for make in (one_var, one_op))
    block = BlockDesc(idx=draw(INT32), parent_idx=-1, vars=vars, ops=ops, forward_block_idx=draw(st.none() | INT32))
    return ProgramDesc(blocks=[block], version=draw(st.none() | st.builds(Version, version=st.none() | INT64)))


@given(programs())
@settings(max_examples=60)
def test_round_trip_of_programs_that_are_made(program: ProgramDesc) -> None:
    assert from_bytes(to_bytes(program)) == program


@given(st.sampled_from(list(AttrCode)), st.data())
def test_an_attribute_gives_back_its_value(code: AttrCode, data: st.DataObject) -> None:
    value = data.draw(VALUES[code])

    assert Attr.of("a", code, value).value == value


def test_an_attribute_of_a_type_that_is_not_known_has_no_value() -> None:
    assert Attr(name="a", type=17).value is None


@given(st.data())
@settings(max_examples=200)
def test_damaged_programs_are_refused_or_read_as_what_they_say(data: st.DataObject) -> None:
    changed = bytearray(MODEL.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=3)):
        changed[at] = data.draw(st.integers(0, 255))

    try:
        found = from_bytes(bytes(changed))
    except FormatError:
        return
    again = from_bytes(to_bytes(found))
    assert to_bytes(again) == to_bytes(found)


def test_every_truncation_is_refused_unless_a_field_of_the_program_ends_there() -> None:
    data = MODEL.read_bytes()
    whole = {end for *_, end in wire.fields(data, "x")}
    read = set()

    tried = {*range(0, len(data), 5), *whole} - {len(data)}
    for size in tried:
        try:
            from_bytes(data[:size])
            read.add(size)
        except FormatError:
            continue
    assert read == whole & tried


def field(number: int, kind: int, content: bytes | int) -> bytes:
    return wire.put_field(number, kind, content)


BLOCK = field(1, 0, 0) + field(2, 0, -1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no block"),
        (b"no program", "wire type 6"),
        (field(1, wire.BYTES, field(1, 0, 0)), "BlockDesc: the required field 'parent_idx' is missing"),
        (field(1, wire.BYTES, BLOCK + BLOCK), "'idx' is there twice"),
        (field(1, wire.VARINT, 1), "'blocks' has wire type 0, expected 2"),
        (field(1, wire.BYTES, field(1, 0, 1 << 31) + field(2, 0, 0)), "'idx' is 2147483648, which is no int32"),
        (
            field(1, 2, BLOCK + field(3, 2, field(1, 2, b"x") + field(2, 2, field(1, 0, 7)) + field(3, 0, 2))),
            "'persistable' is 2, which is no bool",
        ),
        (field(1, wire.BYTES, BLOCK + field(4, 2, b"")), "OpDesc: the required field 'type'"),
    ],
)
def test_malformed_programs(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=f"evil.*{reason}"):
        from_bytes(data, "evil")


def test_absurdly_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_wire, "MAX_MESSAGES", 10)

    with pytest.raises(FormatError, match="more than 10 parts"):
        read_file(MODEL)


def test_absurdly_large_files_are_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(program_wire.MAX_BYTES + 1)

    with pytest.raises(FormatError, match="no such file has more than"):
        read_file(tmp_path / "huge")


def messages(value: Any) -> Iterator[Message]:
    if isinstance(value, Message):
        yield value
        for name in value.__struct_fields__:
            yield from messages(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from messages(item)


def test_all_that_fluid_writes_is_known_and_unknown_fields_are_kept() -> None:
    known = read_file(MODEL)
    unknown = read_file(PADDLE / "static_save_legacy" / "model" / "m.pdmodel")

    assert all(message.unknown == b"" for message in messages(known))
    assert unknown.unknown, "the map of operator versions"


def test_strings_that_are_not_utf8_are_kept() -> None:
    program = ProgramDesc(blocks=[BlockDesc(vars=[VarDesc(name=b"\xff\xfe".decode("utf-8", "surrogateescape"))])])

    data = to_bytes(program)

    assert b"\xff\xfe" in data
    assert to_bytes(from_bytes(data)) == data


def test_messages_do_not_share_their_lists() -> None:
    first, second = BlockDesc(), BlockDesc()
    first.vars.append(VarDesc(name="x"))

    assert second.vars == []
    assert msgspec.structs.asdict(second)["ops"] == []
