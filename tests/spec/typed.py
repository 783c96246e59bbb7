"""JSON as docs/format.md allows it, and typed JSON (section 5): part of the independent reader. Imports no Holdfast."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}


class SpecError(ValueError):
    """A file that docs/format.md does not allow."""


def require(condition: bool, rule: str, message: str) -> None:
    """Raise SpecError unless the condition holds; `rule` is its number in docs/format.md."""
    if not condition:
        raise SpecError(f"{rule}: {message}")


def digest(*parts: bytes | memoryview) -> str:
    """XXH3-128 (seed 0) of the parts, one after the other: 32 lowercase hexadecimal digits."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return str(state.hexdigest())


# --- JSON -------------------------------------------------------------------------------------------------------------


def _integer(text: str) -> int:
    require(len(text.lstrip("-")) <= 4_298, "5", "an integer of more than 4,298 digits")
    return int(text)


def _bounded_integer(text: str) -> int:
    require(len(text) < 400 and abs(int(text)) < 2**1024, "2.1", f"number beyond the range of a float64: {text[:20]}")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    require(math.isfinite(value), "2.1", f"number beyond the range of a float64: {text[:20]}")
    return value


def _constant(text: str) -> None:
    raise SpecError(f"2.1: {text} is not JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    require(len(result) == len(pairs), "2.1", "a key stands twice in one object")
    return result


def _depth(text: str) -> int:
    deepest = depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def parse_json(data: bytes, levels: int | None = None) -> Any:
    """Strict JSON by section 2.1: UTF-8 without BOM, no NaN, no key twice, at most so many levels.

    With `levels` (of a manifest) integers are bounded as well; those of a trainer's file have up to 4,298 digits.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError("JSON is UTF-8") from error
    require(not text.startswith("\ufeff"), "0", "a byte order mark")
    require(levels is None or _depth(text) <= levels, "2.1", f"more than {levels} levels")
    integer = _integer if levels is None else _bounded_integer
    try:
        return json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=integer
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"2.1: not JSON: {error}") from error


def compact(value: object) -> str:
    """JSON text without white space between tokens, as a writer should write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# --- typed JSON (section 5) -------------------------------------------------------------------------------------------


def is_shape(value: Any) -> bool:
    """An array of integers that are not negative."""
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


@dataclass(frozen=True)
class Ref:
    """`{"$variable": name}`."""

    name: str


@dataclass(frozen=True)
class Random:
    """`{"$random": [type, state]}`: the state is decoded typed JSON, its meaning is the generator's."""

    type: str
    state: Any


def _is_key(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_key, value))
    return value is None or isinstance(value, str | int | float | np.generic)


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def _element(dtype: str, value: Any) -> Any:
    if dtype == "C64":
        require(isinstance(value, list) and len(value) == 2, "5", "a complex element is a pair")
        return complex(_element("F32", value[0]), _element("F32", value[1]))
    value = _decode_tag("$float", value["$float"]) if isinstance(value, dict) and list(value) == ["$float"] else value
    if dtype == "BOOL":
        require(isinstance(value, bool), "5", "a BOOL element is true or false")
    elif dtype[0] in "UI":
        info = np.iinfo(DTYPES[dtype])
        require(type(value) is int and info.min <= value <= info.max, "5", f"{value!r} is no {dtype}")
    else:
        require(type(value) in (int, float), "5", f"{value!r} is no {dtype}")
        require(type(value) is float or abs(value) < 2**1024, "5", f"an integer is beyond {dtype}")
        if math.isfinite(value):
            with np.errstate(over="ignore"):
                held = float(DTYPES[dtype].type(value))
            require(math.isfinite(held), "5", f"{value!r} is beyond {dtype}")
    return value


def _decode_tag(tag: str, value: Any) -> Any:
    if tag == "$float":
        require(value in ("inf", "-inf", "nan"), "5", f"$float of {value!r}")
        return float(value)
    if tag == "$tuple":
        require(isinstance(value, list), "5", "$tuple of no array")
        return tuple(decode(element) for element in value)
    if tag == "$dict":
        require(isinstance(value, list), "5", "$dict of no array")
        require(all(isinstance(pair, list) and len(pair) == 2 for pair in value), "5", "$dict of no pairs")
        pairs = [(decode(key), decode(element)) for key, element in value]
        for key, _ in pairs:
            require(_is_key(key), "5", "$dict: a key")
        require(len(dict(pairs)) == len(pairs), "5", "$dict: a key stands twice")
        return dict(pairs)
    if tag == "$scalar":
        require(isinstance(value, list) and len(value) == 2 and _is_dtype(value[0]), "5", "$scalar")
        return DTYPES[value[0]].type(_element(*value))
    if tag == "$array":
        require(isinstance(value, list) and len(value) == 3 and _is_dtype(value[0]), "5", "$array")
        dtype, shape, elements = value
        require(is_shape(shape) and isinstance(elements, list), "5", "$array")
        require(
            len(shape) <= 64 and math.prod(shape) == len(elements), "5", "$array: shape and number of elements differ"
        )
        return np.array([_element(dtype, element) for element in elements], DTYPES[dtype]).reshape(shape)
    if tag == "$variable":
        require(isinstance(value, str), "5", "$variable of no name")
        return Ref(value)
    if tag == "$random":
        require(isinstance(value, list) and len(value) == 2 and isinstance(value[0], str), "5", "$random")
        return Random(value[0], decode(value[1]))
    raise SpecError(f"5: unknown tag {tag!r}")


def decode(value: Any) -> Any:
    """What typed JSON means."""
    if isinstance(value, list):
        return [decode(element) for element in value]
    if isinstance(value, dict):
        if len(value) == 1 and (tag := next(iter(value))).startswith("$"):
            return _decode_tag(tag, value[tag])
        return {key: decode(element) for key, element in value.items()}
    return value


def _plain(dtype: str, value: Any) -> Any:
    if dtype == "C64":
        return [encode(float(value.real)), encode(float(value.imag))]
    return encode(bool(value) if dtype == "BOOL" else int(value) if dtype[0] in "UI" else float(value))


def encode(value: Any) -> Any:
    """Typed JSON of a value."""
    if isinstance(value, Ref):
        return {"$variable": value.name}
    if isinstance(value, Random):
        return {"$random": [value.type, encode(value.state)]}
    if isinstance(value, np.generic):
        tag = TAGS[value.dtype]
        return {"$scalar": [tag, _plain(tag, value)]}
    if isinstance(value, np.ndarray):
        tag = TAGS[value.dtype]
        return {"$array": [tag, list(value.shape), [_plain(tag, element) for element in value.reshape(-1)]]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, tuple):
        return {"$tuple": [encode(element) for element in value]}
    if isinstance(value, list):
        return [encode(element) for element in value]
    if isinstance(value, dict):
        tagged = len(value) == 1 and isinstance(next(iter(value)), str) and next(iter(value)).startswith("$")
        if tagged or not all(isinstance(key, str) for key in value):
            return {"$dict": [[encode(key), encode(element)] for key, element in value.items()]}
        return {key: encode(element) for key, element in value.items()}
    return value
