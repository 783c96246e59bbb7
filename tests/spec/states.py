"""States with everything that the format holds, for the tests of the specification."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import holdfast
from spec.typed import DTYPES


def every_value(tag: str, shape: tuple[int, ...] = (256,)) -> np.ndarray:
    """An array of a dtype with all its corner cases: extremes, infinities, several NaNs, subnormals, -0."""
    dtype = DTYPES[tag]
    count = int(np.prod(shape))
    if tag == "BOOL":
        return np.asarray(np.arange(count).reshape(shape) % 3 == 0)
    if dtype.itemsize == 1:
        return np.arange(count).astype("u1").view(dtype).reshape(shape)
    bits = np.random.default_rng(len(tag)).integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    corners = {
        "F16": [0x0000, 0x8000, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF, 0x0001, 0x7BFF],
        "BF16": [0x0000, 0x8000, 0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0xFFFF, 0x0001, 0x7F7F],
        "F32": [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 1, 0x7F7FFFFF],
        "F64": [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, (0x7FF << 52) + 1, 0x7FF8 << 48, (1 << 64) - 1, 1],
        "C64": [0x7F80000180000000, 0x800000007FC00000],
    }.get(tag, [0, (1 << 8 * dtype.itemsize) - 1, 1 << (8 * dtype.itemsize - 1)])
    begin = b"".join(corner.to_bytes(dtype.itemsize, "little") for corner in corners)[: bits.nbytes]
    bits[: len(begin)] = np.frombuffer(begin, np.uint8)
    return bits.view(dtype).reshape(shape)


def every_dtype() -> dict[str, Any]:
    """Parameters, frozen parameters and other variables of every dtype, and shapes of all kinds."""
    return {
        "model": holdfast.parameters({tag: every_value(tag) for tag in DTYPES}),
        "frozen": holdfast.parameters({tag: every_value(tag, (3, 5)) for tag in DTYPES}, trainable=False),
        "slots": {tag: every_value(tag, (2, 3, 4)) for tag in DTYPES},
        "scalars": {tag: every_value(tag, ()) for tag in DTYPES},
        "empty": {tag: every_value(tag, (0, 3)) for tag in DTYPES},
        "shapes": [np.zeros((1,) * 32, "f4"), np.zeros((3, 0, 2), "i8"), np.arange(7, dtype="u2")],
        "layouts": {
            "fortran": np.asfortranarray(np.arange(24.0).reshape(4, 6)),
            "strided": np.arange(100, dtype="i4")[3:90:7],
            "reversed": np.arange(10, dtype="f8")[::-1],
            "big-endian": np.arange(9, dtype=">f4").reshape(3, 3),
            "broadcast": np.broadcast_to(np.float32(2.5), (4, 5)),
        },
        "a name/with ../every thing": {"\u00e9\u6f22\U0001f40c \"'\\\n\t": np.array([1, 2], "u1")},
    }


def every_kind_of_value() -> dict[str, Any]:
    """What stands in a trainer's file: values of every type."""
    return {
        "epoch": 3,
        "rate": 0.1,
        "nothing": None,
        "flags": [True, False, []],
        "texts": ["", "\u00e9\u6f22\U0001f40c \"'\\\n\x01\x7f\u2028", "$float"],
        "floats": [float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 1e22, 1e23],
        "numbers": [0, -1, 2**63, -(2**64), 10**300],
        "tuples": ((), (1,), (1, (2.5, [None]))),
        "mappings": {
            "plain": {"a": 1, "b": {}},
            "keys": {1: "a", (2, 3): "b", None: 1, 2.5: 2, False: 3},
            "tag": {"$float": "inf"},
        },
        "dollars": {"$a": 1, "$b": 2},
        "scalars": [every_value(tag, (9,))[1] for tag in DTYPES] + [np.float32(0.1), np.uint64(2**64 - 1), np.complex64(1 - 2j)],
        "python": random.Random(7),
        "generator": np.random.default_rng(7),
        "legacy": np.random.RandomState(7),
    }  # fmt: skip


def flat(state: Any, name: str = "") -> dict[str, np.ndarray]:
    """The arrays of a state by name, as docs/guide-core.md says that they are named."""
    state = getattr(state, "tree", state)
    if isinstance(state, np.ndarray):
        return {name: state}
    found: dict[str, np.ndarray] = {}
    if isinstance(state, dict | list):
        for key, child in state.items() if isinstance(state, dict) else enumerate(state):
            found |= flat(child, f"{name}.{key}" if name else str(key))
    return found


def little(array: np.ndarray) -> bytes:
    """The bytes that the format has for an array: little-endian, row-major."""
    order = array.dtype.newbyteorder("<") if array.dtype.kind in "iufc" else array.dtype
    return np.ascontiguousarray(array, order).tobytes()
