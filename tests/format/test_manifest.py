"""The commit record: written as the specification says, and every departure from it refused by name."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.errors import FormatError, VersionError
from holdfast.format import manifest as manifests
from holdfast.format.digests import hexdigest
from holdfast.format.manifest import Chunk, Entry, File, Manifest, check, from_bytes, outline_from_bytes, to_bytes

D = "0" * 32
MANIFEST = Manifest(
    format="holdfast", version=(1, 0), content="checkpoint", serial=7, step=70, created="2025-01-01T00:00:00Z", writer="holdfast 0",
    attempt="0123456789abcdef", world_size=1, metrics={"loss": 0.5},
    files=(
        File("model.safetensors", 4096 + 24, D, 4096, D),
        File("state-00001-of-00001.safetensors", 4096 + 4, D, 4096, D),
        File("trainer_0.json", 10, D),
    ),
    variables=(
        Entry("w", "parameter", True, "F32", (2, 3), (Chunk(0, (4096, 4120), (D,)),)),
        Entry("step", "persistable", True, "I32", (), (Chunk(1, (4096, 4100), (D,)),)),
    ),
)  # fmt: skip


Read = Callable[[bytes, str], Manifest]


@pytest.fixture(params=[from_bytes, outline_from_bytes])
def read(request: pytest.FixtureRequest) -> Read:
    """Both ways to decode a manifest: as a whole, and with the chunks left for later."""
    return request.param


def sealed(body: dict[str, Any] | str) -> bytes:
    """Bytes of a manifest whose own digest is right, whatever it says."""
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
    rest = ('",' + text[1:]).encode()
    return b'{"digest":"xxh3-128:' + hexdigest(rest).encode() + rest


def plain() -> dict[str, Any]:
    found = json.loads(to_bytes(MANIFEST))
    del found["digest"]
    return found


def changed(**fields: Any) -> bytes:
    return sealed({name: value for name, value in {**plain(), **fields}.items() if value is not ...})


def test_manifest_comes_back() -> None:
    data = to_bytes(MANIFEST)

    found = from_bytes(data, "f")

    assert {n: getattr(found, n) for n in Manifest.__struct_fields__} == {
        n: getattr(MANIFEST, n) for n in Manifest.__struct_fields__
    }
    assert found.nbytes == 4120 + 4100 + 10
    check(found, "f")


def test_outline_leaves_the_chunks_for_later() -> None:
    outline = outline_from_bytes(to_bytes(MANIFEST), "f")

    assert [(v.name, v.variable) for v in outline.variables] == [(v.name, v.variable) for v in MANIFEST.variables]
    assert tuple(map(manifests.whole, outline.variables)) == MANIFEST.variables
    assert outline.files == MANIFEST.files
    assert manifests.whole(MANIFEST.variables[0]) is MANIFEST.variables[0]


@pytest.mark.parametrize(
    "chunks",
    [3, [{"file": 0}], [{"file": "0", "range": [0, 1], "blocks": []}], [{"file": -1, "range": [0, 1], "blocks": []}]],
)
def test_malformed_chunks_are_noticed_when_they_are_needed(chunks: Any) -> None:
    fields = plain()
    fields["variables"][0]["chunks"] = chunks
    outline = outline_from_bytes(sealed(fields), "f")

    with pytest.raises(FormatError, match="variable 'w'"):
        manifests.whole(outline.variables[0])
    with pytest.raises(FormatError, match="f: "):
        from_bytes(sealed(fields), "f")


def test_bytes_begin_with_the_digest_of_the_rest() -> None:
    data = to_bytes(MANIFEST)

    assert data[:20] == b'{"digest":"xxh3-128:'
    assert data[20:52].decode() == hexdigest(data[52:])
    assert data[52:54] == b'",'
    assert b" " not in data.replace(b"holdfast 0", b"")


def test_order_of_fields_white_space_and_unknown_fields_do_not_matter(read: Read) -> None:
    fields = dict(reversed({**plain(), "new": {"deep": [1, None]}}.items()))
    fields["variables"][0]["colour"] = "blue"

    found = read(sealed(json.dumps(fields, indent=2)), "f")

    assert tuple(map(manifests.whole, found.variables)) == MANIFEST.variables


def test_greater_minor_version_is_read_and_greater_major_version_is_named(read: Read) -> None:
    assert read(changed(version=[1, 99]), "f").version == (1, 99)
    with pytest.raises(VersionError, match="format version 2.*upgrade holdfast"):
        read(changed(version=[2, 0]), "f")


def test_greater_major_version_is_named_whatever_else_it_changed(read: Read) -> None:
    with pytest.raises(VersionError, match="format version 3"):
        read(changed(version=[3, 0], files={"all": "new"}, variables=..., serial="x"), "f")


REQUIRED = [name for name in Manifest.__struct_fields__ if name not in ("format", "version", "aliases")]


@pytest.mark.parametrize("name", REQUIRED)
def test_lack_of_a_field_is_named(read: Read, name: str) -> None:
    with pytest.raises(FormatError, match=f"f: .*`{name}`"):
        read(changed(**{name: ...}), "f")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "other"}, "format is 'other', expected 'holdfast'"),
        ({"format": ...}, "expected 'holdfast'"),
        ({"version": ...}, "version"),
        ({"version": [0, 9]}, "no format version 0"),
        ({"version": "1.0"}, "version"),
        ({"version": [1]}, "version"),
        ({"content": "other"}, "content"),
        ({"serial": -1}, "serial"),
        ({"serial": 1.5}, "serial"),
        ({"serial": 2**63}, "serial"),
        ({"step": "3"}, "step"),
        ({"step": True}, "step"),
        ({"world_size": 0}, "world_size"),
        ({"metrics": {"loss": None}}, "metrics"),
        ({"metrics": {"loss": "0.5"}}, "metrics"),
        ({"files": [{"name": "../x", "size": 1, "digest": D}]}, "lists a file '../x': not a name"),
        ({"files": [{"name": "/etc/passwd", "size": 1, "digest": D}]}, "not a name"),
        ({"files": [{"name": "manifest.json", "size": 1, "digest": D}]}, "not a name"),
        ({"files": [{"name": "trainer_0.json", "size": 1, "digest": D}] * 2}, "'trainer_0.json' twice"),
        ({"files": [{"name": "trainer_0.json", "size": -1, "digest": D}]}, "size"),
        ({"files": [{"name": "trainer_0.json", "size": 1, "digest": "0"}]}, "digest"),
        ({"files": [{"name": "model.safetensors", "size": 9, "digest": D}]}, "must have header_size"),
        ({"files": [{"name": "model.safetensors", "size": 9, "digest": D, "header_size": 8}]}, "must have header_size"),
        (
            {"files": [{"name": "trainer_0.json", "size": 9, "digest": D, "header_size": 8, "header_digest": D}]},
            "only then",
        ),
        (
            {"files": [{"name": "model.safetensors", "size": 9, "digest": D, "header_size": 10, "header_digest": D}]},
            "outside of the file",
        ),
        (
            {"files": [{"name": "model.safetensors", "size": 9, "digest": D, "header_size": 7, "header_digest": D}]},
            "outside of the file",
        ),
        ({"variables": [{"name": "x"}]}, "variables"),
        ({"variables": {}}, "variables"),
    ],
)
def test_from_bytes_refuses_and_names_the_field(read: Read, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match="^f") as caught:
        read(changed(**fields), "f")

    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"format":"holdfast","format":"holdfast","version":[1,0]}',
        '{"format":"holdfast","version":[1,0],"metrics":{"x":NaN}}',
        '{"format":"holdfast","version":[1,0],"metrics":{"x":1e999}}',
        '{"format":"holdfast","version":[1,0]',
        '{"format":"holdfast","version":' + "[" * 5000 + "]" * 5000 + "}",
        "{}",
    ],
)
def test_from_bytes_refuses_json_that_is_not_allowed(read: Read, text: str) -> None:
    with pytest.raises(FormatError, match="f"):
        read(sealed(text), "f")


@pytest.mark.parametrize("key", ["serial", "metrics", "new"])
def test_from_bytes_refuses_a_key_that_stands_twice(read: Read, key: str) -> None:
    text = json.dumps({**plain(), "new": 1})
    text = text[:-1] + f', "{key}": {json.dumps({**plain(), "new": 1}[key])}}}'

    with pytest.raises(FormatError, match=f"'{key}' stands twice"):
        read(sealed(text), "f")


def test_from_bytes_refuses_nesting_deeper_than_64_levels(read: Read) -> None:
    assert read(changed(new=json.loads("[" * 60 + "]" * 60)), "f")
    with pytest.raises(FormatError, match="f"):
        read(changed(new=json.loads("[" * 65 + "]" * 65)), "f")


def test_every_flipped_bit_is_noticed(read: Read) -> None:
    data = to_bytes(MANIFEST)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit

            with pytest.raises(FormatError):
                read(bytes(damaged), "f")


@pytest.mark.parametrize("length", [0, 1, 19, 20, 51, 52, 53, 60])
def test_truncation_is_noticed(read: Read, length: int) -> None:
    with pytest.raises(FormatError, match="f"):
        read(to_bytes(MANIFEST)[:length], "f")
    with pytest.raises(FormatError, match="f"):
        read(to_bytes(MANIFEST)[:-1], "f")
    with pytest.raises(FormatError, match="f"):
        read(to_bytes(MANIFEST) + b" " * (length + 1), "f")


def entry(**fields: Any) -> Callable[[], Manifest]:
    """A manifest whose first variable differs in these fields."""
    return lambda: replaced(variables=(msgspec.structs.replace(MANIFEST.variables[0], **fields), MANIFEST.variables[1]))


def chunk(**fields: Any) -> Callable[[], Manifest]:
    return entry(chunks=(msgspec.structs.replace(MANIFEST.variables[0].chunks[0], **fields),))


def replaced(**fields: Any) -> Manifest:
    return msgspec.structs.replace(MANIFEST, **fields)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (entry(dtype="F4"), "'w': unknown dtype 'F4'"),
        (entry(name=""), "name"),
        (entry(name="__metadata__"), "__metadata__"),
        (entry(name="a\0b"), "NUL"),
        (entry(name="n" * 4097), "4097 bytes"),
        (entry(name="ü" * 2049), "4098 bytes"),
        (entry(name="a\ud800"), "Unicode"),
        (entry(shape=(1,) * 65), "65 dimensions"),
        (entry(chunks=()), "no chunk"),
        (entry(kind="persistable"), "a persistable must not stand in model.safetensors"),
        (chunk(file=3), "file 3 is not a data file"),
        (chunk(file=2), "file 2 is not a data file"),
        (chunk(file=1, range=(4096, 4100)), "a parameter must not stand in state-"),
        (chunk(range=(4095, 4119)), "outside of the data"),
        (chunk(range=(4100, 4124)), "outside of the data"),
        (chunk(range=(4120, 4096)), "outside of the data"),
        (chunk(range=(4096, 4116)), "does not fit shape and dtype"),
        (chunk(offset=(0, 0)), "both offset and shape or neither"),
        (chunk(shape=(2, 3)), "both offset and shape or neither"),
        (chunk(shape=(6,), offset=(0,)), "1 dimensions, the variable has 2"),
        (chunk(shape=(2, 3), offset=(0, 1)), "reaches beyond"),
        (chunk(blocks=()), "0 block digests for 24 bytes"),
        (chunk(blocks=(D, D)), "2 block digests for 24 bytes"),
        (entry(shape=(4, 3)), "does not fit"),
        (lambda: replaced(variables=MANIFEST.variables[:1]), "4 bytes that belong to no variable"),
        (lambda: replaced(variables=(*MANIFEST.variables, MANIFEST.variables[0])), "'w' twice"),
    ],
)
def test_check_refuses_and_names_the_variable(made: Callable[[], Manifest], words: str) -> None:
    with pytest.raises(FormatError, match="^f") as caught:
        check(made(), "f")

    assert words in str(caught.value)


def rows(*spans: tuple[int, int, int, int], trainable: tuple[bool, ...] = ()) -> Manifest:
    """`w` in chunks of (first row, rows, first byte, end)."""
    chunks = tuple(Chunk(0, (lo, hi), (D,), (first, 0), (count, 3)) for first, count, lo, hi in spans)
    return replaced(variables=(msgspec.structs.replace(MANIFEST.variables[0], chunks=chunks), MANIFEST.variables[1]))


def test_check_takes_chunks_in_any_order() -> None:
    check(rows((1, 1, 4096, 4108), (0, 1, 4108, 4120)), "f")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: rows((0, 1, 4096, 4108), (1, 1, 4096, 4108)), "'w' overlaps another variable in model.safetensors"),
        (lambda: rows((0, 1, 4096, 4108), (0, 1, 4108, 4120)), "chunks overlap"),
        (lambda: rows((0, 1, 4096, 4108)), "do not cover"),
    ],
)
def test_check_refuses_chunks_that_overlap_or_leave_holes(made: Callable[[], Manifest], words: str) -> None:
    with pytest.raises(FormatError) as caught:
        check(made(), "f")

    assert words in str(caught.value)


def two(first: Entry, second: Entry, size: int) -> Manifest:
    return replaced(files=(File("model.safetensors", size, D, 4096, D),), variables=(first, second))


def test_check_refuses_a_hole_between_variables() -> None:
    a = Entry("a", "parameter", True, "U8", (2,), (Chunk(0, (4096, 4098), (D,)),))
    b = Entry("b", "parameter", True, "U8", (2,), (Chunk(0, (4100, 4102), (D,)),))

    with pytest.raises(FormatError, match="'b' leaves a hole of 2 bytes before it"):
        check(two(a, b, 4102), "f")


def test_check_refuses_frozen_beside_trainable_parameters() -> None:
    a = Entry("a", "parameter", True, "U8", (2,), (Chunk(0, (4096, 4098), (D,)),))
    b = Entry("b", "parameter", False, "U8", (2,), (Chunk(0, (4098, 4100), (D,)),))

    with pytest.raises(FormatError, match="mixes trainable and frozen"):
        check(two(a, b, 4100), "f")


def test_check_takes_variables_without_bytes_anywhere_between_others() -> None:
    a = Entry("a", "parameter", True, "U8", (2,), (Chunk(0, (4096, 4098), (D,)),))
    empty = Entry("b", "parameter", True, "F32", (0, 3), (Chunk(0, (4096, 4096), ()),))

    check(two(a, empty, 4098), "f")


def test_entries_know_their_variables() -> None:
    assert [(e.variable.name, e.nbytes) for e in MANIFEST.variables] == [("w", 24), ("step", 4)]
    assert list(manifests.by_name(MANIFEST.variables, "f")) == ["w", "step"]


def test_placed_gives_the_chunks_of_every_file_in_the_order_of_their_position() -> None:
    first, second, third = manifests.placed(rows((1, 1, 4108, 4120), (0, 1, 4096, 4108)))

    assert [(start, end, e.name) for start, end, e, _ in first] == [(4096, 4108, "w"), (4108, 4120, "w")]
    assert [(start, end, e.name) for start, end, e, _ in second] == [(4096, 4100, "step")]
    assert third == []


def test_integers_that_no_float64_can_hold_are_refused(read: Read) -> None:
    assert read(changed(new=10**300), "f")
    with pytest.raises(FormatError, match="f: "):
        read(changed(new=10**400), "f")
