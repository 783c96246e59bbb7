"""Sound checkpoints of the independent writer, and ways to change them while every digest stays right. Imports no Holdfast.

An attacker can compute digests too: with them right, it is the checks behind the digests that are tested.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spec.independent import (
    Files,
    Piece,
    SpecVariable,
    build_checkpoint,
    reseal,
    seal,
    seal_manifest,
    write_folder,
)

Json = Any

MODEL, STATE, TRAINER = "model.safetensors", "state-00001-of-00001.safetensors", "trainer_0.json"

ARRAYS: dict[str, np.ndarray] = {
    "fc.w": np.linspace(-1, 1, 24, dtype="<f4").reshape(4, 6),
    "fc.b": np.arange(6, dtype="<f4"),
    "momentum": np.linspace(0, 9, 24, dtype="<f4").reshape(4, 6),
    "steps": np.array(41, "<i8"),
}
TRAINER_ARGS = {"epoch": 2, "rate": 0.125}
VALUES = {"epoch": 3}
PARAMETERS = ("fc.w", "fc.b")

OPERATIONS = ("open", "verify", "load_checkpoint", "load_params")
EVERY = frozenset(OPERATIONS)
# Not every reader looks at everything: one that loads parameters need not open the state.
VERIFIES = frozenset({"verify"})
LOADS = frozenset({"verify", "load_checkpoint", "load_params"})
RESUMES = frozenset({"verify", "load_checkpoint"})
OPENS = frozenset({"open"})  # lazily: it checks the variables that it is asked for


def _variables() -> list[SpecVariable]:
    return [
        SpecVariable(name, "parameter" if name in PARAMETERS else "persistable", name in PARAMETERS, array)
        for name, array in ARRAYS.items()
    ]


def plain() -> Files:
    """A valid checkpoint: one file of parameters, one of state, one trainer."""
    placement = {MODEL: ["fc.w", "fc.b"], STATE: ["steps", "momentum"]}
    return build_checkpoint(_variables(), placement, trainers=[(TRAINER_ARGS, VALUES)])


def chunked() -> Files:
    """The same in which the parameter `fc.w` lies in four boxes in two files."""
    boxes = [Piece("fc.w", (row, column), (2, 3)) for row in (0, 2) for column in (0, 3)]
    placement = {
        "model-00001-of-00002.safetensors": [*boxes[:2], "fc.b"],
        "model-00002-of-00002.safetensors": boxes[2:],
        STATE: ["steps", "momentum"],
    }
    return build_checkpoint(_variables(), placement, trainers=[(TRAINER_ARGS, VALUES)])


@dataclass(frozen=True)
class Case:
    """One hostile checkpoint.

    Attributes:
        name: what is wrong.
        files: the bytes.
        must: operations that have to raise; the others may also give back exactly what was saved.
        free: operations that may give back other values: what they look at is sound, it is just another checkpoint.
        inside: what is wrong is inside of a variable, which a listing need not look at.
        plant: what bytes cannot express, done to the folder.
    """

    name: str
    files: Files
    must: frozenset[str] = EVERY
    free: frozenset[str] = frozenset()
    inside: bool = False
    plant: Callable[[Path], None] | None = None

    def write(self, folder: Path) -> Path:
        """The checkpoint on disk."""
        write_folder(self.files, folder)
        if self.plant is not None:
            self.plant(folder)
        return folder


def manifest_of(files: Files) -> dict[str, Json]:
    """The manifest as plain objects, a copy."""
    return dict(json.loads(files["manifest.json"]))


def with_manifest(files: Files, change: Callable[[dict[str, Json]], object]) -> Files:
    """The files with a changed manifest whose own digest is right."""
    manifest = manifest_of(files)
    change(manifest)
    # allow_nan: floats such as 1e999 are written as Infinity here and are wrong in that way.
    return files | {"manifest.json": seal_manifest(manifest, any_json)}


def any_json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def with_text(files: Files, old: str, new: str) -> Files:
    """The files with the text of the manifest changed at its first `old`; its own digest is right."""
    body = files["manifest.json"][52:]
    changed = body.replace(old.encode(), new.encode("utf-8", "surrogatepass"), 1)
    assert changed != body
    return files | {"manifest.json": seal(changed)}


def with_body(files: Files, change: Callable[[bytes], bytes]) -> Files:
    """The files with the bytes after the manifest's digest changed; the digest is right."""
    return files | {"manifest.json": seal(change(files["manifest.json"][52:]))}


def with_header(files: Files, name: str, header: bytes) -> Files:
    """The files with another JSON header (of any length) in a data file; every digest and range is right."""
    data = files[name]
    old = 8 + int.from_bytes(data[:8], "little")
    header = header.ljust(old - 8)
    changed = files | {name: struct.pack("<Q", len(header)) + header + data[old:]}
    manifest = manifest_of(files)
    number = next(i for i, entry in enumerate(manifest["files"]) if entry["name"] == name)
    for variable in manifest["variables"]:
        for chunk in variable["chunks"]:
            if chunk["file"] == number:
                chunk["range"] = [position + 8 + len(header) - old for position in chunk["range"]]
    return reseal(changed, manifest)


def header_of(data: bytes) -> dict[str, Json]:
    """The header of a safetensors file as plain objects."""
    return dict(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


def with_data(files: Files, name: str, data: bytes) -> Files:
    """The files with other bytes in one of them; every digest is right, ranges stay."""
    return reseal(files | {name: data}, manifest_of(files))


def with_trainer(files: Files, text: str | bytes) -> Files:
    """The files with another trainer_0.json; every digest is right."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return with_data(files, TRAINER, data)


BAD_NUMBERS: dict[str, Json] = {
    "2**63": 2**63,
    "2**64": 2**64,
    "2**64 + 4096": 2**64 + 4096,  # right again after a wrap to 64 bits
    "10**400": 10**400,
    "-1": -1,
    "-(2**63)": -(2**63),
    "float": 4096.0,
    "1e300": 1e300,
    "1e999": float("inf"),
    "NaN": float("nan"),
    "bool": True,
    "string": "4096",
    "null": None,
    "array": [1],
    "object": {},
}


def at(manifest: dict[str, Json], path: tuple[str | int, ...]) -> Json:
    for step in path:
        manifest = manifest[step]
    return manifest


def put(path: tuple[str | int, ...], value: Json) -> Callable[[dict[str, Json]], None]:
    def change(manifest: dict[str, Json]) -> None:
        at(manifest, path[:-1])[path[-1]] = value

    return change
