"""Two readers, one specification: what the independent reader refuses, `verify` refuses, and what it accepts is accepted.

Every place of every JSON text of a checkpoint gets every hostile value; all digests are right again after that.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from hostile.cases import (
    MODEL,
    OPERATIONS,
    TRAINER,
    Files,
    any_json,
    chunked,
    header_of,
    manifest_of,
    plain,
    with_header,
    with_trainer,
)
from hostile.operations import SOUND, outcome, put_in_memory
from spec.independent import read_checkpoint, reseal, seal, seal_manifest
from spec.typed import SpecError

Json = Any
Path = tuple[str | int, ...]

VALUES: list[Json] = [
    None, True, False, 0, 1, -1, 2, 6, 24, 96, 4096, 4192, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400,
    0.0, -0.0, 0.5, 1.0, 1e300, float("nan"), float("inf"), "", "0", "fc.w", "F32", "I32", "parameter", "persistable", "x" * 5000,
    "0" * 32, "\0", "é", [], [0], [4096], [0, 0], [4, 6], [1, 0], [2, 0], [[]], [None], {}, {"a": 1}, {"$float": "nan"},
    {"$scalar": ["F32", 0.5]}, {"$tuple": []}, {"$nobody": 1}, {"$": 1},
]  # fmt: skip


def places(value: Json, here: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value."""
    if here:
        yield here
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*here, key))


def changed(value: Json, path: Path, change: Callable[[Json, str | int], None]) -> Json:
    """A copy of a JSON value, with a change made to the container of one place."""
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return made


def _remove(container: Json, key: str | int) -> None:
    del container[key]


def _double(container: Json, key: str | int) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key}2"] = copy.deepcopy(container[key])


def _store(value: Json) -> Callable[[Json, str | int], None]:
    def change(container: Json, key: str | int) -> None:
        container[key] = copy.deepcopy(value)

    return change


def variants(value: Json) -> Iterator[tuple[str, Json]]:
    """The value with one place changed, removed or doubled, and what was done."""
    for path in places(value):
        yield f"{path} removed", changed(value, path, _remove)
        yield f"{path} doubled", changed(value, path, _double)
        for new in VALUES:
            if path[0] in UNLIMITED and type(new) is int and LARGE < new < 10**400:
                continue
            yield f"{path} = {str(new)[:50]!r}", changed(value, path, _store(new))


def with_fields(files: Files, manifest: Json) -> Files:
    """The files with this manifest, its own digest right."""
    return files | {"manifest.json": seal_manifest(manifest, any_json)}


# No limit is specified for these, and a reader may have one.
UNLIMITED = ("serial", "step", "world_size", "version")
LARGE = 2**31


def disagreement(files: Files) -> str | None:
    """What is wrong with how a checkpoint is read, if anything is."""
    try:
        read_checkpoint(files)
        reason = None
    except SpecError as error:
        reason = str(error)
    run = put_in_memory(files)
    for operation in OPERATIONS:
        result, complaints = outcome(operation, run)
        if complaints or not result.startswith(SOUND):
            return f"{operation}: {result} {complaints}"
        if operation == "verify" and (result == "refused") != (reason is not None):
            return f"verify: {result}, but the independent reader says {reason or 'it is sound'}"
        if reason is None and result == "refused" and operation == "open":
            return "open: refused, but the independent reader says it is sound"
    return None


def _judge(kind: str, made: Iterator[tuple[str, Files]]) -> None:
    failures, count = [], 0
    for name, files in made:
        count += 1
        if problem := disagreement(files):
            failures.append(f"{name}: {problem}")

    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:200])
    print(f"{count} changes of {kind}")


@pytest.mark.parametrize("base", [plain, chunked])
def test_every_change_of_the_manifest_is_judged_alike(base: Callable[[], Files]) -> None:
    files = base()
    manifest = manifest_of(files)
    del manifest["digest"]

    _judge("the manifest", ((name, with_fields(files, new)) for name, new in variants(manifest)))


@pytest.mark.parametrize("resealed", [True, False])
def test_every_change_of_a_header_is_judged_alike(resealed: bool) -> None:
    files = plain()
    header = header_of(files[MODEL])

    def made() -> Iterator[tuple[str, Files]]:
        for name, new in variants(header):
            text = any_json(new).encode("utf-8", "surrogatepass")
            changed_files = with_header(files, MODEL, text)
            yield name, changed_files if resealed else changed_files | {"manifest.json": files["manifest.json"]}

    _judge("a header", made())


def test_every_change_of_a_trainer_file_is_judged_alike() -> None:
    files = plain()
    trainer = json.loads(files[TRAINER]) | {
        "trainer_args": {"a": {"$tuple": [1, {"$float": "inf"}]}, "b": {"$array": ["U8", [2, 1], [1, 2]]}},
        "values": {"epoch": {"$dict": [[1, 2], [{"$tuple": [1]}, {"$scalar": ["C64", [1.0, 2.0]]}]]}},
    }

    _judge("a trainer's file", ((name, with_trainer(files, any_json(new))) for name, new in variants(trainer)))


PIECES = [b"{", b"[", b'"', b",", b"\\", b"null", b"-", b"1e999", b":0", b"\xff"]
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "truncate", "copy", "overwrite"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.binary(min_size=1, max_size=12)
        | st.sampled_from([b"{", b"[", b'"', b",", b"\\", b"null", b"-", b"1e999", b":0", b"\xff"]),
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    """The bytes after some edits."""
    for what, where, number, piece in changes:
        at = int(where * len(data))
        if what == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << number % 8)]) + data[at + 1 :]
        elif what == "insert":
            data = data[:at] + piece + data[at:]
        elif what == "delete":
            data = data[:at] + data[at + 1 + number % 16 :]
        elif what == "truncate":
            data = data[:at]
        elif what == "copy":
            data = data[:at] + data[at : at + number] + data[at:]
        else:
            data = data[:at] + piece + data[at + len(piece) :]
    return data


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([plain, chunked]), st.data(), edits)
def test_any_edit_of_any_file_is_refused_or_changes_nothing(
    base: Callable[[], Files], data: st.DataObject, changes: Any
) -> None:
    files = base()
    name = data.draw(st.sampled_from(sorted(files)))
    new = edited(files[name], changes)
    run = put_in_memory(files | {name: new})

    for operation in OPERATIONS:
        result, complaints = outcome(operation, run)
        assert not complaints
        assert result in (("right", "refused") if new == files[name] or operation != "verify" else ("refused",)), (
            operation
        )


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([plain, chunked]), st.data(), edits)
def test_any_edit_with_right_digests_is_judged_alike(
    base: Callable[[], Files], data: st.DataObject, changes: Any
) -> None:
    files = base()
    name = data.draw(st.sampled_from(sorted(files)))
    if name == "manifest.json":
        made = files | {name: seal(b'",' + edited(files[name][54:], changes))}
    elif name.endswith(".json"):
        made = reseal(files | {name: edited(files[name], changes)}, manifest_of(files))
    else:
        size = 8 + int.from_bytes(files[name][:8], "little")
        made = with_header(files, name, edited(files[name][8:size].rstrip(), changes))

    assert disagreement(made) is None
