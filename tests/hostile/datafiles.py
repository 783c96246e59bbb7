"""Hostile data files: safetensors headers, sizes and bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hostile.cases import (
    BAD_NUMBERS,
    LOADS,
    MODEL,
    RESUMES,
    STATE,
    TRAINER,
    VERIFIES,
    Case,
    Json,
    any_json,
    chunked,
    header_of,
    manifest_of,
    plain,
    with_header,
)
from spec.independent import (
    file_digest,
    seal_manifest,
)
from spec.typed import digest


def bare_headers() -> Iterator[tuple[str, bytes]]:
    """Safetensors files that every reader must refuse, as (what is wrong, all bytes)."""
    good = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    two = good | {"b": {"dtype": "I8", "shape": [8], "data_offsets": [24, 32]}}

    def packed(header: Json, data: int = 32, length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else any_json(header).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)

    def tensor(**fields: Json) -> bytes:
        return packed({"a": good["a"] | fields, "b": two["b"]})

    for length in (0, 1, 7):
        yield f"{length} bytes", bytes(length)
    for length in (2**63, 2**64 - 1, 2**64 - 8, 2**40, 100_000_001, 10_000, 0, 1):
        yield f"header of {length}", packed(two, length=length)
    yield "header cut by one", packed(two, length=len(any_json(two)) - 1)
    yield "header takes data", packed(two, length=len(any_json(two)) + 1)
    for text in (
        b"",
        b"[]",
        b"null",
        b"1",
        b'"a"',
        b"{",
        b"{}x",
        b"{}\0",
        b"\xef\xbb\xbf{}",
        b'{"a":1}',
        b'{"a":[]}',
        b'{"a":null}',
    ):
        yield f"header is {text!r}", packed(text, 0)
    for key in good["a"]:
        yield f"{key} missing", packed({"a": {k: v for k, v in good["a"].items() if k != key}, "b": two["b"]})
    for name, value in BAD_NUMBERS.items():
        yield f"begin = {name}", tensor(data_offsets=[value, 24])
        yield f"end = {name}", tensor(data_offsets=[0, value])
        yield f"shape has {name}", tensor(shape=[2, value])
    for value in (None, 1, "", {}, [], [0], [0, 24, 24], ["0", "24"], [24, 0], [-24, 0], [0.0, 24.0], [[0], [24]]):
        yield f"data_offsets = {value}", tensor(data_offsets=value)
    for value in (None, 1, "", "f32", "F31", "float32", "O", [], {}, ["F32"], "F4", "F6_E2M3"):
        yield f"dtype = {value}", tensor(dtype=value)
    for value in (
        None,
        6,
        "2,3",
        {},
        [6.0],
        [2, 4],
        [2, 2],
        [],
        [2**32, 2**32],
        [2**63, 2, 3],
        [1] * 1_000_000,
        [2**62] * 100_000,
    ):
        yield f"shape = {str(value)[:30]}", tensor(shape=value)
    yield "65 dimensions", tensor(shape=[1] * 63 + [2, 3])
    yield "overlap", packed({"a": good["a"], "b": two["b"] | {"data_offsets": [20, 28]}}, 28)
    yield "the same bytes twice", packed({"a": good["a"], "b": good["a"]}, 24)
    yield "hole", packed({"a": good["a"], "b": two["b"] | {"data_offsets": [25, 33]}}, 33)
    yield "hole at the beginning", packed({"a": good["a"] | {"data_offsets": [8, 32]}}, 32)
    yield "data longer than the last", packed(two, 33)
    yield "data shorter than the last", packed(two, 31)
    yield "no data", packed(two, 0)
    yield "far outside", packed({"a": good["a"] | {"data_offsets": [2**62, 2**62 + 24]}}, 24)
    entry = any_json(good["a"]).encode()
    yield "tensor twice", packed(b'{"a":' + entry + b',"a":' + entry + b"}", 24)
    yield "tensor twice, once escaped", packed(b'{"a":' + entry + b',"\\u0061":' + entry + b"}", 24)
    yield "key twice in a tensor", packed(b'{"a":{"dtype":"I32",' + entry[1:] + b"}", 24)
    yield "key twice in a tensor, once escaped", packed(b'{"a":{"dtyp\\u0065":"I32",' + entry[1:] + b"}", 24)
    yield "__metadata__ twice", packed(b'{"__metadata__":{},"__metadata__":{},"a":' + entry + b"}", 24)
    for levels in (1_000, 100_000, 3_000_000):
        yield f"{levels} brackets", packed(b"[" * levels, 24)
        yield (
            f"{levels} brackets in a shape",
            packed(b'{"a":{"dtype":"F32","data_offsets":[0,24],"shape":' + b"[" * levels, 24),
        )
        yield (
            f"{levels} brackets in an unknown field",
            packed(b'{"a":{"x":' + b"[" * levels + b"]" * levels + b"," + entry[1:] + b"}", 24),
        )
        yield (
            f"{levels} brackets in __metadata__",
            packed(b'{"__metadata__":' + b'{"a":' * levels + b"1" + b"}" * levels + b',"a":' + entry + b"}", 24),
        )
    yield "not UTF-8", packed(b'{"\xff\xfe":' + entry + b"}", 24)
    yield "NaN", packed(b'{"x":NaN,"a":' + entry + b"}", 24)
    yield "NaN in an offset", packed(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[NaN,24]}}', 24)
    yield (
        "offset of a million digits",
        packed(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,' + b"1" * 1_000_000 + b"]}}", 24),
    )
    yield "a second object", packed(b'{"a":' + entry + b"}{}", 24)
    yield "zeros", bytes(5_000)
    yield (
        "a pickle",
        b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
    )


def header_cases() -> Iterator[Case]:
    """Checkpoints whose data files have a header that contradicts the manifest, or none. Verifying must notice (3.4)."""
    base = plain()
    header = header_of(base[MODEL])

    def case(name: str, value: Json, data: str = MODEL) -> Case:
        text = value if isinstance(value, bytes) else any_json(value).encode()
        return Case(f"header: {name}", with_header(base, data, text), VERIFIES)

    w, b = header["fc.w"], header["fc.b"]
    yield case("empty", {})
    yield case("no JSON", b"x" * 100)
    yield case("spaces only", b"")
    yield case("a name is missing", {"fc.w": w})
    yield case("a name too many", header | {"extra": {"dtype": "F32", "shape": [0], "data_offsets": [120, 120]}})
    yield case("another name", {"fc.x": w, "fc.b": b})
    yield case("names exchanged", {"fc.b": w, "fc.w": b})
    yield case("another dtype", header | {"fc.w": w | {"dtype": "I32"}})
    yield case("another shape", header | {"fc.w": w | {"shape": [6, 4]}})
    yield case("one dimension more", header | {"fc.w": w | {"shape": [4, 6, 1]}})
    yield case("other offsets", {"fc.b": b | {"data_offsets": [0, 24]}, "fc.w": w | {"data_offsets": [24, 120]}})
    yield case("overlap", header | {"fc.b": b | {"data_offsets": [72, 96]}})
    yield case("key twice", b'{"fc.w":' + b"{}," + any_json(header).encode()[1:])
    yield case("dtype as a whole of other kind", header | {"fc.w": w | {"dtype": 1}})
    yield case("state: another name", {"steps": header_of(base[STATE])["steps"]}, STATE)
    yield case("a box for the whole", {"fc.w@0,0": w, "fc.b": b})
    boxes = chunked()
    second = "model-00002-of-00002.safetensors"
    entries = {k: v for k, v in header_of(boxes[second]).items() if k != "__metadata__"}
    assert set(entries) == {"fc.w@2,0", "fc.w@2,3"}
    for name, renamed in {
        "exchanged": {"fc.w@2,0": entries["fc.w@2,3"], "fc.w@2,3": entries["fc.w@2,0"]},
        "without offset": {"fc.w": entries["fc.w@2,0"], "fc.w@2,3": entries["fc.w@2,3"]},
        "written otherwise": {"fc.w@2, 0": entries["fc.w@2,0"], "fc.w@2,3": entries["fc.w@2,3"]},
    }.items():
        yield Case(f"header: boxes {name}", with_header(boxes, second, any_json(renamed).encode()), VERIFIES)
    prefix = {
        "N is 2**63": 2**63,
        "N is 2**64 - 1": 2**64 - 1,
        "N is 0": 0,
        "N is one less": 4087,
        "N is 100,000,001": 100_000_001,
    }
    for name, length in prefix.items():
        data = struct.pack("<Q", length) + base[MODEL][8:]
        manifest = manifest_of(base)
        manifest["files"][0]["header_digest"] = digest(data[:4096])
        manifest["files"][0]["digest"] = file_digest(
            manifest["files"][0]["header_digest"], [v["chunks"][0] for v in manifest["variables"][:2]]
        )
        files = base | {MODEL: data, "manifest.json": seal_manifest(manifest)}
        yield Case(f"header: {name}", files, VERIFIES)


def data_cases() -> Iterator[Case]:
    """Files that are not what the manifest says: sizes and bytes. The digests are those of the right bytes."""
    base = plain()
    for name in (MODEL, STATE, TRAINER):
        data = base[name]
        # The size is part of what makes a checkpoint exist (1.2), so everybody must look at all sizes.
        yield Case(f"{name}: empty", base | {name: b""})
        yield Case(f"{name}: last byte gone", base | {name: data[:-1]})
        yield Case(f"{name}: a byte too many", base | {name: data + b"\0"})
        yield Case(f"{name}: a space too many", base | {name: data + b" "})
        yield Case(f"{name}: missing", {key: value for key, value in base.items() if key != name})
        must = {MODEL: LOADS, STATE: RESUMES, TRAINER: RESUMES}[name]
        yield Case(f"{name}: zeros", base | {name: bytes(len(data))}, must)
        yield Case(f"{name}: last byte changed", base | {name: data[:-1] + bytes([data[-1] ^ 1])}, must)
        yield Case(f"{name}: first byte changed", base | {name: bytes([data[0] ^ 1]) + data[1:]}, VERIFIES)
    yield Case("manifest.json: missing", {key: value for key, value in base.items() if key != "manifest.json"})
    swapped = base | {MODEL: base[MODEL][:4096] + base[STATE][-120:]}
    yield Case("model.safetensors: bytes of another file", swapped, LOADS)
