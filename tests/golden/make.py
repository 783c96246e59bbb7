"""What the golden files of version 1 hold, and how they were made.

Everything is arithmetic: no generator of random numbers decides about a value, so that they are the same for ever.
`python -m golden.make` (in tests/) writes the files of a new version; those that exist are never overwritten.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

import holdfast
from holdfast.format import manifest as manifests

FOLDER = Path(__file__).parent / "v1"
CREATED, WRITER, ATTEMPT = "2026-11-23T12:00:00Z", "holdfast 0.1.0", "0123456789abcdef"

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}


def array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array whose bytes count in steps of 37: every bit pattern comes up, NaN and -0 among them."""
    kind = np.dtype(DTYPES[dtype])
    count = int(np.prod(shape)) * kind.itemsize
    pattern = (np.arange(count) * 37 + 11) % (2 if dtype == "BOOL" else 256)
    return pattern.astype(np.uint8).view(kind).reshape(shape)


def generator() -> np.random.Generator:
    """A generator in a state that no seeding decides about."""
    bits = np.random.PCG64(0)
    numbers = {"state": 0x853C49E6748FEA9BDA3E39CB94B95BDB, "inc": 0xDA3E39CB94B95BDB853C49E6748FEA9B}
    bits.state = {"bit_generator": "PCG64", "state": numbers, "has_uint32": 1, "uinteger": 0xDEADBEEF}
    return np.random.Generator(bits)


def state() -> dict[str, Any]:
    """Variables of every dtype, of several shapes and of every kind, values and random generators."""
    return {
        "model": holdfast.parameters({name: array(name, (5, 3)) for name in DTYPES}),
        "frozen": holdfast.parameters({"w": array("F32", (4, 2, 3)), "names": [array("U8", (3,))]}, trainable=False),
        "slots": {name: array(name, (4,)) for name in DTYPES},
        "scalar": array("F64", ()),
        "empty": array("F32", (0, 7)),
        "grid": array("I16", (2, 3, 2, 2)),
        "a/b c.\u00e9\u6f22": array("U8", (2,)),
        "epoch": 3,
        "rate": 0.1,
        "history": [{"loss": 0.5, "at": (1, 2.5)}, None, True, "text \u00e9 \"\\\n", float("-inf")],
        "lookup": {1: "one", (2, 3): [-0.0, 1e300], None: 2**70},
        "precise": np.float32(0.1),
        "generator": generator(),
        "python": random.Random(7),
    }  # fmt: skip


TRAINER_ARGS: Any = {"epoch_id": 2, "step_id": 20, "table": np.arange(6, dtype=np.uint16).reshape(2, 3), "$tag": 1}


def fixed(manifest: bytes) -> bytes:
    """A manifest with the fields that differ from save to save set to fixed values."""
    found = manifests.from_bytes(manifest, "manifest.json")
    return manifests.to_bytes(msgspec.structs.replace(found, created=CREATED, writer=WRITER, attempt=ATTEMPT))


def files() -> dict[str, bytes]:
    """Every golden file by its path, as this Holdfast writes it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        holdfast.save_checkpoint(
            state(), root / "run", trainer_args=TRAINER_ARGS, step=20, metrics={"loss": 0.5, "n": 3}
        )
        holdfast.save_params({"fc": {"w": array("F32", (4, 6)), "b": array("BF16", (6,))}}, root / "params")
        made = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: fixed(data) if name.endswith("/manifest.json") else data for name, data in made.items()}


if __name__ == "__main__":
    for name, data in files().items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        with (FOLDER / name).open("xb") as file:
            file.write(data)
