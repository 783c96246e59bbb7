"""The table of element types against safetensors' own."""

import ml_dtypes
import numpy as np
import pytest

from holdfast import dtypes


def test_table_has_the_dtypes_of_the_specification() -> None:
    assert dtypes.ITEMSIZE == {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "U16": 2,
        "I16": 2,
        "U32": 4,
        "I32": 4,
        "U64": 8,
        "I64": 8,
        "F16": 2,
        "F32": 4,
        "F64": 8,
        "C64": 8,
        "BF16": 2,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "F8_E8M0": 1,
        "F8_E4M3FNUZ": 1,
        "F8_E5M2FNUZ": 1,
    }


@pytest.mark.parametrize("name", dtypes.ITEMSIZE)
def test_names_and_numpy_dtypes_map_both_ways(name: str) -> None:
    dtype = dtypes.to_numpy(name)

    assert dtypes.from_numpy(dtype) == name
    assert dtype.itemsize == dtypes.ITEMSIZE[name]
    assert dtype.isnative


@pytest.mark.parametrize("kind", [np.int16, np.uint64, np.float16, np.float32, np.float64, np.complex64])
def test_from_numpy_takes_any_byte_order(kind: type) -> None:
    native = np.dtype(kind)

    assert dtypes.from_numpy(native.newbyteorder(">")) == dtypes.from_numpy(native) is not None


@pytest.mark.parametrize(
    "dtype",
    [
        "O",
        "c16",
        "U3",
        "S3",
        "M8[s]",
        "m8[s]",
        "V4",
        [("a", "f4")],
        ml_dtypes.int4,
        ml_dtypes.float8_e3m4,
        np.longdouble,
    ],
)
def test_from_numpy_refuses_what_the_format_lacks(dtype: object) -> None:
    assert dtypes.from_numpy(np.dtype(dtype)) is None  # type: ignore[call-overload]


def test_to_numpy_knows_no_other_name() -> None:
    with pytest.raises(KeyError):
        dtypes.to_numpy("F4")
