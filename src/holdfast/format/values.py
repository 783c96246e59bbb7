"""Typed JSON: what a state holds beside arrays, written as JSON and given back with its exact types (docs/format.md, section 5).

Pure. Random number generators and references to variables pass through as `Tagged`; what they mean is the adapters' business.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.errors import FormatError, VersionError
from holdfast.format.json import parse

MAX_DEPTH = 200
MAX_INT = 10**4298  # of 4,299 digits: Python refuses to write or read more than 4,300 (sys.set_int_max_str_digits)
MAX_INLINE_ELEMENTS = 1 << 16
_KEPT = ("$variable", "$random")


@dataclass(frozen=True, slots=True)
class Tagged:
    """A `$variable` (its name) or a `$random` (type name and state) inside a value."""

    tag: str
    value: Any
    __hash__ = None  # type: ignore[assignment]  # no key of a $dict: arrays and generators cannot be keys


class UnsupportedValueError(TypeError):
    """A value has no form in typed JSON. The message is the reason; `where` is the place inside the value."""

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(reason)
        self.where = where


def encode(value: Any, where: str = "", depth: int = 0) -> Any:
    """`value` as plain JSON objects.

    Args:
        value: None, bool, int, float, str, list, tuple, dict, NumPy scalars, small arrays and `Tagged`, nested.
        where: the place of the value, for messages.
        depth: levels of nesting around it.

    Raises:
        UnsupportedValueError: the value is of another type or nests too deep.
    """
    if depth > MAX_DEPTH:
        raise UnsupportedValueError(f"nests deeper than {MAX_DEPTH} levels", where)
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if not -MAX_INT < value < MAX_INT:
            raise UnsupportedValueError("an integer of more than 4,298 digits", where)
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if kind is list:
        return [encode(item, f"{where}.{i}", depth + 1) for i, item in enumerate(value)]
    if kind is tuple:
        return {"$tuple": [encode(item, f"{where}.{i}", depth + 1) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        pairs = [(key, encode(item, f"{where}.{key}", depth + 1)) for key, item in value.items()]
        if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
            return dict(pairs)
        return {"$dict": [[encode(key, f"{where}.{key}", depth + 1), item] for key, item in pairs]}
    if isinstance(value, Tagged):
        return {value.tag: encode(value.value, where, depth + 1)}
    if isinstance(value, np.generic | np.ndarray):
        return _encode_array(value, where)
    raise UnsupportedValueError(
        f"{kind.__module__}.{kind.__qualname__} is neither an array nor JSON, nor has it state_dict() and load_state_dict()",
        where,
    )


def _encode_array(value: np.generic | np.ndarray, where: str) -> Any:
    name = dtypes.from_numpy(value.dtype)
    if name is None:
        raise UnsupportedValueError(f"dtype {value.dtype} is not one that the format holds", where)
    if isinstance(value, np.ndarray) and value.size > MAX_INLINE_ELEMENTS:
        raise UnsupportedValueError(f"an array of {value.size} elements is too large for a place inside a value", where)
    elements: list[Any] = []
    for item in value.reshape(-1).tolist():
        number = item if isinstance(item, bool | int | float | complex) else float(item)
        elements.append([_float(number.real), _float(number.imag)] if isinstance(number, complex) else _float(number))
    if isinstance(value, np.generic):
        return {"$scalar": [name, elements[0]]}
    return {"$array": [name, list(value.shape), elements]}


def _float(number: Any) -> Any:
    return number if not isinstance(number, float) or math.isfinite(number) else {"$float": str(number)}


def decode(value: Any, what: str) -> Any:
    """What `encode` was given, from plain JSON objects.

    Raises:
        FormatError: a `$` object is unknown or malformed.
    """
    if isinstance(value, list):
        return [decode(item, what) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag.startswith("$"):
            try:
                return _decode_tag(tag, content, what)
            except FormatError:
                raise
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise FormatError(f"{what}: malformed {tag[:40]}: {error}") from error
    return {key: decode(item, what) for key, item in value.items()}


def _decode_tag(tag: str, content: Any, what: str) -> Any:
    if tag == "$float":
        if content not in ("inf", "-inf", "nan"):
            raise FormatError(f"{what}: malformed $float")
        return float(content)
    if tag == "$tuple":
        return tuple(decode(_list(content, what), what))
    if tag == "$dict":
        pairs = [(decode(key, what), decode(item, what)) for key, item in map(_pair, _list(content, what))]
        made = dict(pairs)
        if len(made) != len(pairs):
            raise FormatError(f"{what}: a key stands twice in a $dict")
        return made
    if tag == "$scalar":
        name, element = content
        return _array(name, [], [element], what)[()]
    if tag == "$array":
        name, shape, elements = content
        return _array(name, shape, elements, what)
    if tag in _KEPT:
        kept = decode(content, what)
        if not (isinstance(kept, str) if tag == "$variable" else _is_random(kept)):
            raise FormatError(f"{what}: malformed {tag}")
        return Tagged(tag, kept)
    raise FormatError(f"{what}: unknown {tag[:40]!r}; a newer Holdfast may have written it")


def _is_random(content: Any) -> bool:
    return isinstance(content, list) and len(content) == 2 and isinstance(content[0], str)


def _list(content: Any, what: str) -> list[Any]:
    if not isinstance(content, list):
        raise FormatError(f"{what}: expected a list, found {str(content)[:40]!r}")
    return content


def _pair(item: Any) -> list[Any]:
    if not isinstance(item, list) or len(item) != 2:
        raise ValueError("expected pairs of key and value")
    return item


def _array(name: Any, shape: Any, elements: Any, what: str) -> np.ndarray:
    if not isinstance(name, str) or name not in dtypes.ITEMSIZE:
        raise FormatError(f"{what}: unknown dtype {str(name)[:40]!r}")
    if not all(type(n) is int and 0 <= n <= MAX_INLINE_ELEMENTS for n in _list(shape, what)) or len(shape) > 32:
        raise FormatError(f"{what}: malformed shape")
    dtype = dtypes.to_numpy(name)
    numbers = [_element(element, dtype.kind) for element in _list(elements, what)]
    with np.errstate(over="ignore"):
        made = np.array(numbers, dtype).reshape(shape)
    if dtype.kind not in "iub" and not np.array_equal(np.isfinite(made.reshape(-1)), [np.isfinite(n) for n in numbers]):
        raise FormatError(f"{what}: a number does not fit {name}")
    return made


def _element(element: Any, kind: str) -> Any:
    if kind == "b" or kind in "iu":
        if type(element) is not (bool if kind == "b" else int):
            raise ValueError(f"{str(element)[:40]!r} is not of the dtype")
        return element
    if kind == "c":
        real, imag = _pair(element)
        return complex(_element(real, "f"), _element(imag, "f"))
    number = decode(element, "element")
    if type(number) is not float and type(number) is not int:
        raise ValueError(f"{str(element)[:40]!r} is no number")
    return float(number)


def to_bytes(content: Any) -> bytes:
    """Plain JSON objects as bytes. The standard library writes integers of any size, as random states have; msgspec does not."""
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def trainer_to_bytes(trainer_id: int, trainer_args: Any, values: dict[str, Any]) -> bytes:
    """The contents of `trainer_<id>.json`; the arguments and values are encoded already."""
    head = {"format": "holdfast-trainer", "version": [1, 0], "trainer_id": trainer_id}
    return to_bytes({**head, "trainer_args": trainer_args, "values": values})


def trainer_from_bytes(data: bytes, path: str, trainer_id: int) -> tuple[Any, dict[str, Any]]:
    """`trainer_args` and the values by name, decoded, from the bytes of a `trainer_<id>.json`.

    Raises:
        FormatError: the bytes are not those of this trainer's file.
        VersionError: a newer major version wrote them.
    """
    content = parse(data, path)
    if not isinstance(content, dict) or content.get("format") != "holdfast-trainer" or "trainer_args" not in content:
        raise FormatError(f"{path} is not a trainer's file")
    version, values = content.get("version"), content.get("values")
    if not isinstance(version, list) or len(version) != 2 or any(type(n) is not int or n < 0 for n in version):
        raise FormatError(f"{path}: version must be two integers")
    if version[0] > 1:
        raise VersionError(f"{path} has format version {version[0]}, this Holdfast reads up to 1: upgrade holdfast")
    if version[0] != 1:
        raise FormatError(f"{path}: there is no format version {version[0]}")
    if type(content.get("trainer_id")) is not int or content["trainer_id"] != trainer_id:
        raise FormatError(f"{path}: trainer_id is {str(content.get('trainer_id'))[:40]}, expected {trainer_id}")
    if not isinstance(values, dict):
        raise FormatError(f"{path}: values must be an object")
    try:
        args = decode(content["trainer_args"], path)
        return args, {name: decode(value, f"{path}: {name!r}") for name, value in values.items()}
    except RecursionError as error:
        raise FormatError(f"{path}: nests too deep") from error
