"""Small files that other libraries wrote (`make.py`), and what they hold."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

HERE = Path(__file__).parent


def model() -> dict[str, np.ndarray]:
    """What every file holds, bit for bit: NaN with a payload, -0.0 and subnormals too."""
    bits = np.array([0x7FC12345, 0x80000000, 0x00000001, 0xFF800000, 0x3F800000, 0x40490FDB], np.uint32)
    return {
        "enc.weight": bits.view(np.float32).reshape(2, 3),
        "enc.bias": np.arange(3, dtype=np.float64) / 7,
        "count": np.array(-5, np.int64),
        "mask": np.array([True, False, True]),
    }


def narrow() -> dict[str, np.ndarray]:
    """What NumPy's own dtypes cannot hold."""
    return {
        "bf16": np.array([0x7FC1, 0x8000, 0x0001, 0x3F80], np.uint16).view(ml_dtypes.bfloat16).reshape(2, 2),
        "f8": np.array([0x80, 0x01, 0x38, 0x7E], np.uint8).view(ml_dtypes.float8_e4m3fn),
        "f8b": np.array([0x80, 0x01, 0x3C, 0x7B], np.uint8).view(ml_dtypes.float8_e5m2),
    }
