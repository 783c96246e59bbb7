"""Reads the pickles in which some data sets come, without pickle: plain values and arrays are built, nothing is called.

A machine for the few opcodes that a dictionary of numbers, strings, lists and NumPy arrays needs. Any other opcode, and any
name but those by which NumPy spells an array, is an error; so a hostile file can name `os.system`, and nothing happens.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.errors import FormatError

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # of Python 2: bytes, which pickletools shows as latin-1 text
_IGNORED = {"PROTO", "FRAME"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "reconstruct" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "frombuffer" for core in ("core", "_core")},
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
}


@dataclass(slots=True)
class _Name:
    kind: str


@dataclass(slots=True)
class _DType:
    code: str


@dataclass(slots=True)
class _Array:
    value: np.ndarray[Any, Any] | None = None


def loads(data: bytes, source: str) -> Any:
    """The value that a pickle holds: dictionaries, lists, tuples, numbers, strings and arrays of plain numbers.

    Strings that Python 2 wrote come as bytes, as with `encoding="bytes"`.

    Args:
        data: the pickle.
        source: its name, for messages.

    Raises:
        FormatError: it is damaged, or holds anything else; nothing of it was executed.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _finished(stack.pop())
            _step(opcode.name, argument, stack, memo, source)
    except FormatError:
        raise
    except Exception as error:  # whatever a damaged file leads to: the machine's memory is its own
        raise FormatError(f"{source} is no readable pickle: {type(error).__name__}: {error}") from error
    raise FormatError(f"{source} ends before its pickle does")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], source: str) -> None:
    if name in _IGNORED:
        return
    if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _NUMBERS or name in _TEXTS:
        stack.append(argument)
    elif name in _BYTES:
        stack.append(bytes(argument))
    elif name in _STRINGS:
        stack.append(argument.encode("latin-1"))
    elif name in _PUT:
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in _GET:
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        module, attribute = argument.split(" ") if name == "GLOBAL" else (stack.pop(-2), stack.pop())
        if (module, attribute) not in _NAMES:
            raise FormatError(
                f"{source} names {module}.{attribute}: only plain values and NumPy arrays are read; nothing was run"
            )
        stack.append(_Name(_NAMES[module, attribute]))
    elif name == "REDUCE":
        arguments = stack.pop()
        stack[-1] = _made(stack[-1], arguments)
    elif name == "BUILD":
        _set(stack[-2], stack.pop())
    else:
        _collect(name, stack, source)


def _collect(name: str, stack: list[Any], source: str) -> None:
    if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name == "APPEND":
        value = stack.pop()
        stack[-1].append(value)
    elif name == "APPENDS":
        values = _marked(stack)
        stack[-1].extend(values)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif name == "SETITEMS":
        values = _marked(stack)
        stack[-1].update(zip(values[::2], values[1::2], strict=True))
    elif name == "DICT":
        values = _marked(stack)
        stack.append(dict(zip(values[::2], values[1::2], strict=True)))
    elif name == "LIST":
        stack.append(_marked(stack))
    elif name == "TUPLE":
        stack.append(tuple(_marked(stack)))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    else:
        raise FormatError(
            f"{source} uses the pickle opcode {name}: only plain values and NumPy arrays are read; nothing was run"
        )


def _marked(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1 - next(back for back, value in enumerate(reversed(stack)) if value is _MARK)
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _made(name: Any, arguments: tuple[Any, ...]) -> Any:
    """What NumPy's own functions of these names would make."""
    kind = name.kind
    if kind == "dtype":
        return _DType(_text(arguments[0]))
    if kind == "reconstruct":
        return _Array()
    if kind == "frombuffer":
        data, dtype, shape, order = arguments
        return _Array(np.frombuffer(data, _plain(dtype)).reshape(shape, order="F" if _text(order) == "F" else "C"))
    if kind == "encode" and _text(arguments[1]) == "latin1":  # Python 3 writes bytes so in the old protocols
        return arguments[0].encode("latin-1")
    if kind == "bytes" and not arguments:
        return b""
    raise TypeError(f"{kind} is not called here")


def _set(target: Any, state: tuple[Any, ...]) -> None:
    if isinstance(target, _DType):
        target.code = _text(state[1]).replace("|", "") + target.code  # the byte order; the rest is of no plain number
    elif isinstance(target, _Array):
        _version, shape, dtype, fortran, data = state
        # A Python 3 that read a Python 2 file and wrote it again leaves the bytes as text.
        raw = data.encode("latin-1") if isinstance(data, str) else data
        target.value = np.frombuffer(raw, _plain(dtype)).reshape(shape, order="F" if fortran else "C")
    else:
        raise TypeError(f"{type(target).__name__} has no state")


def _plain(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype.code)
    if found.kind not in "biuf":
        raise TypeError(f"arrays of {found} are not read")
    return found


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _finished(value: Any) -> Any:
    """The value with the arrays in the place of what stood for them."""
    if isinstance(value, _Array):
        if value.value is None:
            raise TypeError("an array without contents")
        return value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finished(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_finished(item) for item in value)
    if isinstance(value, _Name | _DType) or value is _MARK:
        raise TypeError("a name in the place of a value")
    return value
