"""Programs as JSON: what is malformed, damaged or unknown is refused by name."""

import json

import msgspec
import pytest
from tests.fluid.io.small_model import predicted, save
from tests.fluid.trained import Trained

import holdfast.fluid as fluid
from holdfast.errors import (
    FormatError,
    VersionError,
)


@pytest.fixture(scope="module")
def shared():
    return Trained()


def changed(path, change):
    """The document after a change of its program, without its digest."""
    document = json.loads(path.read_text())
    del document["digest"]
    change(document)
    path.write_text(json.dumps(document))


def variable(program, name):
    return next(v for v in program["blocks"][0]["variables"] if v["name"] == name)


HOSTILE = {
    "unknown operator": (lambda p: p["blocks"][0]["operators"][0].update(type="os_system"), "no operator 'os_system'"),
    "unknown attribute": (
        lambda p: p["blocks"][0]["operators"][0].update(attrs={"x_num_col_dims": 1, "command": "rm"}),
        "(?s)operator mul.*no attribute 'command'",
    ),
    "unknown slot": (lambda p: p["blocks"][0]["operators"][0]["inputs"].update(W=["x"]), "no input slot 'W'"),
    "unknown variable": (lambda p: p["blocks"][0]["operators"][0]["inputs"].update(X=["q"]), "variable 'q'"),
    "unknown output": (lambda p: p["blocks"][0]["operators"][0]["outputs"].update(Out=["q"]), "no variable.*q"),
    "unknown dtype": (lambda p: p["blocks"][0]["variables"][0].update(dtype="FP128"), "FP128"),
    "variable twice": (lambda p: p["blocks"][0]["variables"].append(p["blocks"][0]["variables"][0]), "twice"),
    "unknown field": (lambda p: p.update(code="print()"), "unknown field `code`"),
    "no block": (lambda p: p.update(blocks=[]), "no global block"),
    "loop of blocks": (
        lambda p: p["blocks"].append({"parent": 1, "variables": [], "operators": []}),
        "block 1 stands in",
    ),
    "unknown feed": (lambda p: p.update(feeds=["q"]), "'q' is fed or fetched"),
    "parameters outside": (lambda p: p.update(params=".."), "outside of the folder"),
    "bad shapes": (lambda p: variable(p, "fc_0.w_0").update(shape=[7, 8]), "operator mul does not fit its inputs"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_malformed_program_is_refused(shared, tmp_path, case):
    change, match = HOSTILE[case]
    save(shared, tmp_path / "m")
    changed(tmp_path / "m" / "__model__", lambda document: change(document["program"]))

    with fluid.scope_guard(fluid.Scope()), pytest.raises(ValueError, match=match):
        fluid.io.load_inference_model(tmp_path / "m", shared.exe)


def test_every_problem_of_a_program_is_listed(shared, tmp_path):
    save(shared, tmp_path / "m")

    def change(document):
        for op in document["program"]["blocks"][0]["operators"][:2]:
            op["type"] = "no_" + op["type"]

    changed(tmp_path / "m" / "__model__", change)
    with pytest.raises(FormatError, match=r"(?s)2 problem.*no_mul.*no_elementwise_add"):
        predicted(shared, tmp_path / "m")


def test_flipped_byte_in_the_program_is_found(shared, tmp_path):
    save(shared, tmp_path / "m")
    path = tmp_path / "m" / "__model__"
    text = path.read_text()
    path.write_text(text.replace('"x_num_col_dims":1', '"x_num_col_dims":2', 1))

    with pytest.raises(FormatError, match="digest"):
        predicted(shared, tmp_path / "m")


def test_newer_version_is_told_apart(shared, tmp_path):
    save(shared, tmp_path / "m")
    changed(tmp_path / "m" / "__model__", lambda document: document.update(version=2, more="of it"))

    with pytest.raises(VersionError, match="version 2"):
        predicted(shared, tmp_path / "m")


@pytest.mark.parametrize("data", [b"{}", b"{", b'{"format": "x", "version": 1}', b"\x00" * 40, b"[" * 9000, b"{\xff}"])
def test_what_is_no_program_is_refused(shared, tmp_path, data):
    save(shared, tmp_path / "m")
    (tmp_path / "m" / "__model__").write_bytes(data)

    with pytest.raises(FormatError):
        predicted(shared, tmp_path / "m")


def test_attributes_that_json_lacks_come_back(tmp_path):
    from holdfast.fluid.io import program_json

    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()), fluid.unique_name.guard():
        x = fluid.layers.data("x", [2])
        fluid.layers.scale(x, scale=float("inf"), bias=-0.0)
    record = program_json.ProgramRecord(
        ["x"], ["scale_0.tmp_0"], "", program_json.StableHLO(None), program_json.blocks_of(program)
    )
    again = program_json.program_of(program_json.from_bytes(program_json.to_bytes(record), "m"), "m")

    attrs = again.global_block().ops[0].attrs
    assert attrs["scale"] == float("inf")
    assert str(attrs["bias"]) == "-0.0"
    assert msgspec.json.decode(program_json.to_bytes(record))["program"]["blocks"]
