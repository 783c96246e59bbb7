"""Hostile manifests: fields missing, mistyped, out of range or contradicting each other; text that is no JSON."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from hostile.cases import (
    BAD_NUMBERS,
    EVERY,
    LOADS,
    OPENS,
    RESUMES,
    VERIFIES,
    Case,
    Json,
    at,
    plain,
    put,
    with_body,
    with_manifest,
    with_text,
)

TOP = (
    "format", "version", "content", "serial", "step", "created", "writer", "attempt", "world_size", "metrics", "files",
    "variables",
)  # fmt: skip
FILE = ("name", "size", "digest", "header_size", "header_digest")
VARIABLE = ("name", "kind", "trainable", "dtype", "shape", "chunks")
CHUNK = ("file", "range", "blocks")

BAD_NAMES: dict[str, Json] = {
    "parent": "../model.safetensors",
    "absolute": "/etc/passwd",
    "subfolder": "a/model.safetensors",
    "dot": ".",
    "dot dot": "..",
    "empty": "",
    "NUL": "model.safetensors\0",
    "backslash": "..\\model.safetensors",
    "URL": "file:///etc/passwd",
    "trailing newline": "model.safetensors\n",
    "leading space": " model.safetensors",
    "long": "m" * 100_000 + ".safetensors",
    "deep": "../" * 1000 + "etc/passwd",
    "other case": "MODEL.safetensors",
    "itself": "manifest.json",
    "pinned": "pinned",
    "other digits": "model-٠٠٠٠١-of-٠٠٠٠١.safetensors",
    "null": None,
    "number": 1,
    "array": ["model.safetensors"],
}
BAD_DIGESTS: dict[str, Json] = {
    "wrong": "0" * 32,
    "short": "0" * 31,
    "long": "0" * 33,
    "empty": "",
    "no digits": "x" * 32,
    "other digits": "٠" * 32,
    "null": None,
    "number": 0,
    "array": ["0" * 32],
}


def _drop(path: tuple[str | int, ...]) -> Callable[[dict[str, Json]], None]:
    def change(manifest: dict[str, Json]) -> None:
        del at(manifest, path[:-1])[path[-1]]

    return change


# What can be told without looking at any variable; every reader has to.
_FILE_PATHS = [("files", 0, field) for field in FILE]
# variables[0] is fc.w, a parameter: every operation reads it.
_W = ("variables", 0)
_CHUNK0 = (*_W, "chunks", 0)


def manifest_cases() -> Iterator[Case]:
    """Fields that are missing, of a wrong type, out of range, or that contradict each other."""
    base = plain()

    def case(
        name: str,
        change: Callable[[dict[str, Json]], object],
        must: frozenset[str] = EVERY,
        free: frozenset[str] = frozenset(),
    ) -> Case:
        return Case(name, with_manifest(base, change), must, free)

    for path in [(field,) for field in TOP] + _FILE_PATHS:
        yield case(f"missing {path}", _drop(path))
    for path in [(*_W, field) for field in VARIABLE] + [(*_CHUNK0, field) for field in CHUNK]:
        yield case(f"missing {path}", _drop(path))
    wrong: dict[tuple[str | int, ...], list[Json]] = {
        ("format",): [None, 1, "", "Holdfast", "holdfast-trainer", ["holdfast"]],
        ("version",): [
            None,
            1,
            "1.0",
            [],
            [1],
            [1, 0, 0],
            ["1", "0"],
            [1.5, 0],
            [True, 0],
            [0, 9],
            [-1, 0],
            {},
            [None, 0],
        ],
        ("content",): [None, 1, "", "Checkpoint", "weights", ["checkpoint"]],
        ("created",): [None, 1, [], {}],
        ("writer",): [None, 1, [], {}],
        ("attempt",): [None, 1, [], {}],
        ("world_size",): [None, 0, -1, 1.5, True, "1", 10**400],
        ("metrics",): [
            None,
            1,
            "",
            [],
            {"loss": None},
            {"loss": "1"},
            {"loss": True},
            {"loss": [1]},
            {"loss": float("nan")},
        ],
        ("files",): [None, 1, "", {}, [None], [1], [[]], [{}]],
        ("variables",): [None, 1, "", {}, [None], [1], [[]], [{}]],
        (*_W, "name"): [None, 1, "", "a\0b", "__metadata__", "x" * 4097, "é" * 2049, ["fc.w"]],
        (*_W, "kind"): [None, 1, "", "Parameter", "temporary", ["parameter"]],
        (*_W, "trainable"): [None, 0, 1, "true", []],
        (*_W, "dtype"): [None, 1, "", "f32", "F31", "F128", "float32", "object", "O", "F32 ", ["F32"]],
        (*_W, "chunks"): [None, 1, "", {}, [], [None], [1], [[]], [{}]],
        (*_CHUNK0, "blocks"): [None, 1, "", {}, [], [None], [1], [["0" * 32]]],
        (*_CHUNK0, "range"): [None, 1, "", {}, [], [4096], [4096, 4192, 4192], [4192, 4096], [None, None]],
        (*_W, "shape"): [None, 1, "", {}, [24.0], ["24"], [True], [-4, -6], [None], [[4], [6]]],
    }
    for path, values in wrong.items():
        for value in values:
            yield case(f"{path} = {str(value)[:40]!r} ({type(value).__name__})", put(path, value))
    for field in ("serial", "step"):
        for name, value in BAD_NUMBERS.items():
            if value is not None:
                # The specification has no limit for these; a reader may have one.
                may = type(value) is int and 0 < value < 10**400
                yield case(f"{field} = {name}", put((field,), value), frozenset() if may else EVERY)
    for field in ("size", "header_size"):
        for name, value in BAD_NUMBERS.items():
            yield case(f"{field} = {name}", put(("files", 0, field), value))
    for name, value in BAD_NUMBERS.items():
        yield case(f"chunk's file = {name}", put((*_CHUNK0, "file"), value))
        yield case(f"range's begin = {name}", put((*_CHUNK0, "range", 0), value))
        yield case(f"range's end = {name}", put((*_CHUNK0, "range", 1), value))
        yield case(f"shape's number = {name}", put((*_W, "shape", 1), value))
    for name, value in BAD_NAMES.items():
        yield case(f"file name: {name}", put(("files", 0, "name"), value))
    for name, value in BAD_DIGESTS.items():
        yield case(f"block digest: {name}", put((*_CHUNK0, "blocks", 0), value), LOADS)
        must = EVERY if not isinstance(value, str) or len(value) != 32 else VERIFIES
        for field in ("digest", "header_digest"):
            yield case(f"{field} of model.safetensors: {name}", put(("files", 0, field), value), must)
        must = must | RESUMES if must != VERIFIES else RESUMES
        yield case(f"digest of trainer_0.json: {name}", put(("files", 2, "digest"), value), must)
    yield from _geometry_cases(case)


def _geometry_cases(case: Callable[..., Case]) -> Iterator[Case]:
    shapes: dict[str, list[int]] = {
        "more elements than bytes": [4, 7],
        "fewer elements than bytes": [4, 5],
        "product wraps 64 bits to the right number": [2**32 + 0, 2**32, 24],
        "product wraps 64 bits": [2**63, 2, 24],
        "product wraps to zero": [2**32, 2**32],
        "largest": [2**63 - 1] * 64,
        "65 dimensions": [1] * 63 + [4, 6],
        "a million dimensions": [1] * 1_000_000,
        "a million huge dimensions": [2**62] * 100_000,
        "zero": [0, 6],
        "0-d": [],
    }
    for name, shape in shapes.items():
        yield case(f"shape: {name}", put((*_W, "shape"), shape))
    ranges: dict[str, tuple[list[int], frozenset[str]]] = {
        "in the header": ([0, 96], EVERY),
        "begins in the header": ([4092, 4188], EVERY),
        "beyond the file": ([4096 + 96, 4096 + 192], EVERY),
        "far beyond the file": ([2**40, 2**40 + 96], EVERY),
        "at the end of all offsets": ([2**63 - 97, 2**63 - 1], EVERY),
        "too long": ([4096, 4196], EVERY),
        "too short": ([4096, 4188], EVERY),
        "empty": ([4096, 4096], EVERY),
        "on another variable": ([4100, 4196], LOADS),
    }
    for name, (value, must) in ranges.items():
        yield case(f"range: {name}", put((*_CHUNK0, "range"), value), must)
    yield case("block digests: none", put((*_CHUNK0, "blocks"), []))
    yield case("block digests: two", lambda m: m["variables"][0]["chunks"][0]["blocks"].append("0" * 32))
    yield case("block digests: a million", put((*_CHUNK0, "blocks"), ["0" * 32] * 1_000_000))
    yield case("chunk in trainer_0.json", put((*_CHUNK0, "file"), 2))
    yield case("chunk in a file of the other kind", put((*_CHUNK0, "file"), 1))
    yield case("kind contradicts the file", put((*_W, "kind"), "persistable"))
    yield case("frozen beside trainable", put((*_W, "trainable"), False), LOADS)
    yield case("file listed twice", lambda m: m["files"].append(m["files"][0]))
    yield case("variable listed twice", lambda m: m["variables"].append(m["variables"][0]))
    yield case("variable listed a million times", lambda m: m["variables"].extend([m["variables"][0]] * 20_000))
    yield case("two variables of one name", lambda m: m["variables"][1].update(name="fc.w"))
    yield case("variable missing", lambda m: m["variables"].pop(0), LOADS, OPENS)
    yield case("no variables", put(("variables",), []), LOADS, OPENS)
    yield case("no files", put(("files",), []))
    yield case("data file missing from files", lambda m: m["files"].pop(0))
    yield case("file that does not exist", lambda m: m["files"].append(m["files"][2] | {"name": "trainer_7.json"}))
    yield case("size one less", put(("files", 0, "size"), 4096 + 119))
    yield case("size one more", put(("files", 0, "size"), 4096 + 121))
    yield case("header_size zero", put(("files", 0, "header_size"), 0))
    yield case("header_size of the whole file", put(("files", 0, "header_size"), 4096 + 120))
    yield case(
        "header_size without header", lambda m: [m["files"][0].pop(key) for key in ("header_size", "header_digest")]
    )
    yield case("metrics beyond float64", put(("metrics",), {"loss": 10**400}))
    yield case("major version 2", put(("version",), [2, 0]))
    yield case("major version 10**6", put(("version",), [10**6, 0]))
    yield case("major version 2**70", put(("version",), [2**70, 0]))
    swap = {"range": [4096, 4192]}
    yield case(
        "variables of two names on the same bytes",
        lambda m: m["variables"].insert(1, _twin(m, "fc.v", swap)),
        LOADS,
        OPENS,
    )
    yield case("offset alone", lambda m: m["variables"][0]["chunks"][0].update(offset=[0, 0]))
    yield case("box shape alone", lambda m: m["variables"][0]["chunks"][0].update(shape=[4, 6]))


def _twin(manifest: dict[str, Json], name: str, chunk: dict[str, Json]) -> Json:
    twin = copy.deepcopy(manifest["variables"][0]) | {"name": name}
    twin["chunks"][0] |= chunk
    return twin


def text_cases() -> Iterator[Case]:
    """Manifests that are no JSON, or JSON that the format forbids."""
    base = plain()
    manifest = base["manifest.json"]

    def text(name: str, old: str, new: str) -> Case:
        return Case(f"text: {name}", with_text(base, old, new), inside="in a variable" in name or "in a chunk" in name)

    def body(name: str, change: Callable[[bytes], bytes]) -> Case:
        return Case(f"text: {name}", with_body(base, change))

    def whole(name: str, data: bytes) -> Case:
        return Case(f"text: {name}", base | {"manifest.json": data})

    for field, value in [("step", "1"), ("files", "[]"), ("format", '"holdfast"'), ("digest", '"x"'), ("unknown", "1")]:
        yield text(f"key {field} twice", '"format":', f'"{field}":{value},"{field}":{value},"format":')
    yield text("key step twice, once escaped", '"step":null', '"step":null,"st\\u0065p":1')
    yield text("key twice in a file", '"size":', '"size":1,"size":')
    yield text("key twice in a variable", '"kind":', '"kind":"parameter","kind":')
    yield text("key twice in a chunk", '"range":', '"file":1,"range":')
    yield text("key twice in metrics", '"metrics":{}', '"metrics":{"a":1,"a":2}')
    yield text("key twice in an unknown field", '"format":', '"new":[{"a":1,"a":2}],"format":')
    for constant in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "1" + "0" * 400,
        "1e99999999999",
        "0x10",
        "01",
        "+1",
        ".5",
        "1.",
    ):
        yield text(f"number {constant[:20]} in an unknown field", '"format":', f'"new":{constant},"format":')
        yield text(f"number {constant[:20]} as a metric", '"metrics":{}', f'"metrics":{{"loss":{constant}}}')
        yield text(f"number {constant[:20]} as step", '"step":null', f'"step":{constant}')
    yield text("a number of a million digits", '"step":null', f'"step":{"1" * 1_000_000}')
    yield text("a number of a million digits in an unknown field", '"format":', f'"new":{"1" * 1_000_000},"format":')
    for levels in (65, 200, 990, 5_000, 100_000, 3_000_000):
        for begin, end in (("[", "]"), ('{"a":', "}")):
            deep = begin * (levels - 1) + "1" + end * (levels - 1)
            yield text(f"{levels} levels of {begin}", '"format":', f'"new":{deep},"format":')
        if levels > 1_000:
            yield text(f"{levels} brackets never closed", '"format":', '"new":' + "[" * levels)
            yield body(f"only {levels} brackets", lambda _, levels=levels: b'",' + b"[" * levels)
            yield text(f"{levels} levels of files", '"files":[', '"files":[' + "[" * levels)
    yield body("byte order mark", lambda b: b'",' + "\ufeff".encode() + b[2:])
    yield whole("byte order mark first", b"\xef\xbb\xbf" + manifest)
    yield body("not UTF-8 in a key", lambda b: b.replace(b'"writer"', b'"n\xff\xfe":1,"writer"'))
    yield body("not UTF-8 in a string", lambda b: b.replace(b"independent", b"ind\xc0\xafdent"))
    yield body("not UTF-8 in a name", lambda b: b.replace(b'"fc.w"', b'"fc\xff"'))
    yield body("a surrogate in UTF-8", lambda b: b.replace(b'"fc.w"', b'"fc\xed\xa0\x80"'))
    yield body("half a surrogate pair in a name", lambda b: b.replace(b'"fc.w"', b'"fc\\ud800"'))
    yield body("a control character", lambda b: b.replace(b"independent", b"ind\x01"))
    yield body("UTF-16", lambda b: b'",' + b[2:].decode().encode("utf-16-le"))
    yield body("a comment", lambda b: b.replace(b'"writer"', b'/* */"writer"'))
    yield body("a comma too many", lambda b: b.replace(b'"metrics":{}', b'"metrics":{},'))
    yield body("a single quote", lambda b: b.replace(b'"writer"', b"'writer'"))
    yield body("truncated", lambda b: b[: len(b) // 2])
    yield body("without the last brace", lambda b: b[:-1])
    yield body("a second object", lambda b: b + b"{}")
    yield body("NUL at the end", lambda b: b + b"\0")
    yield body("a comma at the end", lambda b: b + b",")
    yield body("nothing else", lambda _: b'"}')
    yield body("empty", lambda _: b"")
    yield whole("empty file", b"")
    yield whole("52 bytes", manifest[:52])
    yield whole("51 bytes", manifest[:51])
    yield whole("other JSON", b'{"digest":"xxh3-128:"}')
    yield whole("null", b"null")
    yield whole("spaces before", b" " + manifest)
    yield whole("digest in capitals", manifest[:20] + manifest[20:52].upper() + manifest[52:])
    yield whole("another hash", manifest.replace(b"xxh3-128", b"xxh3-064", 1))
    yield whole("zeros", bytes(len(manifest)))
    yield whole(
        "a pickle",
        b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
    )
    # The digest not recomputed: nothing else is looked at.
    yield whole("a field changed, digest not", manifest.replace(b'"step":null', b'"step":1234'))
    yield whole("a space changed, digest not", manifest + b" ")
    yield whole("the last byte gone, digest not", manifest[:-1])
