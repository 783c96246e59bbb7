"""A reader of pickles that can build arrays, dicts, lists, tuples, strings and numbers, and nothing else.

It is no `pickle.Unpickler` with a filter: it has its own small machine, in which a global is a name that a table knows or
does not know. Nothing is imported, called or executed, and what it makes is bounded by the size of the file.

It knows protocols 2 to 5, of Python 2 and 3 and of every NumPy; not what is only in 5, buffers outside of the pickle.

Source: the opcodes' description in Python's pickletools; the files under tests/fixtures.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import FormatError

_MAX_DEPTH = 64
_MAX_KEY = 1 << 31  # an int as a key; greater ones could be chosen to collide in a dict
DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
"""NumPy's names of the dtypes that a pickle may hold."""
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What the caller allowed by name: an instance of a class, what a function gave, or the thing itself. No behaviour.

    Attributes:
        kind: the name, without the module.
        fields: those of an instance.
        arguments: what it is made of, where that is no fields.
    """

    kind: str
    fields: dict[str, Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class _Dict:
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Array:
    made: np.ndarray | None = None


@dataclass(slots=True, eq=False)
class _DType:
    name: str
    order: str = "|"

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(("<" if self.order == "|" else self.order) + self.name)


@dataclass(slots=True, eq=False)
class _Instance:
    kind: str
    state: _Dict | tuple[Any, ...] | None = None


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, data: bytes, where: str, records: frozenset[str]) -> None:
        self.data, self.where, self.records = data, where, records
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # Each byte of the file can become data once as text and once in an array: more is an attack.
        self.encodable = self.arrayable = len(data)

    def bad(self, problem: str) -> NoReturn:
        raise FormatError(f"{self.where}: {problem} (before byte {self.at:,} of {len(self.data):,})")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError(
                f"{self.where} is cut off: bytes {self.at:,} to {self.at + count:,} are needed, but there are {len(self.data):,}"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            self.bad("a line has no end")
        text = self.take(end + 1 - self.at)[:-1]
        if not text.isascii():
            self.bad("a name is not ASCII")
        return text.decode()

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.bad("a value is missing: the pickle is malformed")
        return self.stack.pop()

    def popped(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def since_mark(self) -> list[Any]:
        if not self.marks:
            self.bad("a mark is missing: the pickle is malformed")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type[Any], what: str) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or type(self.stack[-1]) is not kind:
            self.bad(f"there is no {what} to add to: the pickle is malformed")
        return self.stack[-1]

    def run(self) -> Any:
        if self.take(1) != b"\x80" or not 2 <= (protocol := self.take(1)[0]) <= 5:
            raise FormatError(f"{self.where} is no pickle of protocol 2 to 5")
        while True:
            opcode = self.take(1)
            if opcode == b".":
                break
            step = _STEPS.get(opcode)
            if step is None:
                self.bad(f"opcode {opcode!r} of protocol {protocol} is not one that files of parameters need")
            step(self)
        if len(self.stack) != 1 or self.marks:
            self.bad("the pickle ends with another number of values than one")
        if self.at != len(self.data):
            raise FormatError(
                f"{self.where} is longer than its content: expected {self.at:,} bytes, found {len(self.data):,}"
            )
        return _Finished(self).of(self.stack[0], 0)

    def found(self, module: Any, name: Any) -> _Global:
        if type(module) is not str or type(name) is not str:
            self.bad("a global's name is no text")
        known = _Global(module, name)
        if known not in _CALLS and known not in _TYPES and str(known) not in self.records:
            self.bad(
                f"it refers to {known}. Files of parameters hold arrays, dicts, lists, tuples, strings and numbers only; "
                "nothing of it was executed"
            )
        return known

    def reduce(self) -> None:
        function, arguments = self.popped(2)
        if type(function) is _Global and str(function) in self.records and type(arguments) is tuple:
            self.stack.append(_Instance(function.name, arguments))
            return
        call = _CALLS.get(function) if type(function) is _Global else None
        if call is None or type(arguments) is not tuple:
            self.bad("it calls what is no function of the list of allowed ones; nothing was executed")
        self.stack.append(call(self, arguments))

    def new(self) -> None:
        kind, arguments = self.popped(2)
        if type(kind) is not _Global or str(kind) not in self.records or arguments != ():
            self.bad("it makes an object that files of parameters do not have; nothing was executed")
        self.stack.append(_Instance(kind.name))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if len(self.stack) > (self.marks[-1] if self.marks else 0) else None
        if type(target) is _Array and target.made is None:
            target.made = self.array(state)
        elif type(target) is _DType and type(state) is tuple and len(state) >= 2 and state[1] in ("<", ">", "|"):
            target.order = state[1]
        elif type(target) is _Instance and target.state is None and type(state) in (_Dict, tuple):
            target.state = state
        else:
            self.bad("it sets the state of what has none; nothing was executed")

    def array(self, state: Any) -> np.ndarray:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not _DType:
            self.bad("the state of an array is not what NumPy writes")
        _, shape, kind, fortran, data = state
        if type(data) is str:  # Python 2 wrote bytes as such
            data = self.encoded(data)
        if type(shape) is not tuple or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
            self.bad("the shape of an array is not one")
        if type(data) is not bytes or type(fortran) is not bool:
            self.bad("the data of an array are no bytes")
        needed = math.prod(shape) * kind.numpy.itemsize
        if math.prod(max(n, 1) for n in shape) >= 1 << 60 or needed != len(data):
            self.bad(f"an array {kind.name} {shape} has {len(data):,} bytes, expected {needed:,}")
        self.arrayable -= needed
        if self.arrayable < 0:
            self.bad("its arrays hold more bytes than the file")
        if kind.name == "b1" and data and max(data) > 1:
            self.bad("a bool is neither 0 nor 1: the data are damaged")
        made = np.frombuffer(data, kind.numpy).reshape(shape, order="F" if fortran else "C")
        return np.array(made, kind.numpy.newbyteorder("="), order="C")  # its own memory, not the file's

    def encoded(self, text: str) -> bytes:
        self.encodable -= len(text)
        if self.encodable < 0:
            self.bad("its strings hold more bytes than the file")
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            self.bad("data are given as text that is not Latin-1")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.bad("a string is not UTF-8")


class _Finished:
    """Makes what a pickle held of what the machine built: a tree of at most as many nodes as the file has bytes."""

    def __init__(self, machine: _Machine) -> None:
        self._bad, self._left, self._records = machine.bad, len(machine.data), machine.records

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            self._bad("its parts refer to each other without end")
        kind = type(value)
        if kind in (str, int, float, bool, bytes) or value is None:
            return value
        if kind is _Array and value.made is not None:
            return value.made
        if kind in (list, tuple):
            return kind(self.of(item, depth + 1) for item in value)
        if kind is _Dict:
            return self._dict(value, depth)
        if kind is _Instance:
            if type(value.state) is tuple:
                return Record(value.kind, {}, self.of(value.state, depth + 1))
            return Record(value.kind, self._dict(value.state or _Dict(), depth))
        if kind is _Global and str(value) in self._records:
            return Record(value.name, {})
        return self._bad("it holds a part of an array, or a class, instead of a value")

    def _dict(self, value: _Dict, depth: int) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for raw, item in value.pairs:
            key = self.of(raw, depth + 1)
            if not (type(key) in (str, Record) or (type(key) is int and abs(key) < _MAX_KEY)):
                self._bad(f"a dict has a key of type {type(key).__name__}")
            if key in made:
                self._bad(f"a dict has the key {str(key)[:100]!r} twice")
            made[key] = self.of(item, depth + 1)
        return made


def _reconstruct(machine: _Machine, arguments: tuple[Any, ...]) -> _Array:
    if len(arguments) != 3 or arguments[0] != _NDARRAY or arguments[1] != (0,) or arguments[2] not in (b"b", "b"):
        machine.bad("an array is begun as NumPy does not begin one")
    return _Array()


def _dtype(machine: _Machine, arguments: tuple[Any, ...]) -> _DType:
    if not arguments or type(arguments[0]) is not str or arguments[0] not in DTYPES:
        machine.bad(f"the dtype {str(arguments[:1])[:100]} is not one of numbers")
    return _DType(arguments[0])


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        machine.bad("bytes are encoded as Python does not encode them")
    return machine.encoded(arguments[0])


def _scalar(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or type(arguments[0]) is not _DType:
        machine.bad("a scalar is not what NumPy writes")
    return machine.array((1, (), arguments[0], False, arguments[1])).item()


def _tuple(machine: _Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or type(arguments[0]) not in (list, tuple):
        machine.bad("a tuple is made of something else than a list or tuple")
    machine.encodable -= len(arguments[0])  # it is a copy
    if machine.encodable < 0:
        machine.bad("its tuples hold more than the file")
    return tuple(arguments[0])


def _empty(make: Callable[[], Any]) -> Callable[[_Machine, tuple[Any, ...]], Any]:
    def made(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
        if arguments != ():
            machine.bad("bytes or a dict are made in a way that Python does not make them")
        return make()

    return made


_NDARRAY = _Global("numpy", "ndarray")
_TYPES = {_NDARRAY}
_CALLS: dict[_Global, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    **{_Global(module, "_reconstruct"): _reconstruct for module in _NUMPY},
    **{_Global(module, "scalar"): _scalar for module in _NUMPY},
    _Global("numpy", "dtype"): _dtype,
    _Global("_codecs", "encode"): _encode,
    **{_Global(module, "tuple"): _tuple for module in ("builtins", "__builtin__")},
    **{_Global(module, "bytes"): _empty(bytes) for module in ("builtins", "__builtin__")},
    _Global("collections", "OrderedDict"): _empty(_Dict),
}
"""All that a pickle may refer to."""


def _push(read: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(read(m))


def _long(machine: _Machine, size: int) -> int:
    if not 0 <= size <= 16:
        machine.bad(f"an integer of {size:,} bytes")
    return int.from_bytes(machine.take(size), "little", signed=True)


def _text_int(machine: _Machine) -> int | bool:
    text = machine.line()
    if text in ("00", "01"):
        return text == "01"
    if not text.removeprefix("-").isdigit() or len(text) > 20:
        machine.bad("an integer is malformed")
    return int(text)


def _append(machine: _Machine, values: list[Any]) -> None:
    machine.top(list, "list").extend(values)


def _set(machine: _Machine, values: list[Any]) -> None:
    if len(values) % 2:
        machine.bad("a key has no value: the pickle is malformed")
    machine.top(_Dict, "dict").pairs.extend(zip(values[::2], values[1::2], strict=True))


def _get(machine: _Machine, index: int) -> Any:
    if index not in machine.memo:
        machine.bad(f"it refers to part {index}, which is not there: the pickle is malformed")
    return machine.memo[index]


def _put(machine: _Machine, index: int) -> None:
    value = machine.pop()
    machine.stack.append(value)
    machine.memo[index] = value


def _frame(machine: _Machine) -> None:
    if (length := machine.number("Q")) > len(machine.data) - machine.at:
        machine.bad(f"it is cut off: a frame of {length:,} bytes is announced")


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"N": _push(lambda _: None),
    b"\x88": _push(lambda _: True),
    b"\x89": _push(lambda _: False),
    b"I": _push(_text_int),
    b"J": _push(lambda m: m.number("i")),
    b"K": _push(lambda m: m.number("B")),
    b"M": _push(lambda m: m.number("H")),
    b"\x8a": _push(lambda m: _long(m, m.number("B"))),
    b"\x8b": _push(lambda m: _long(m, m.number("i"))),
    b"G": _push(lambda m: struct.unpack(">d", m.take(8))[0]),
    # Python 2's str: the names of its pickles, or bytes.
    b"U": _push(lambda m: m.take(m.number("B")).decode("latin-1")),
    b"T": _push(lambda m: m.take(m.number("I")).decode("latin-1")),
    b"\x8c": _push(lambda m: m.text(m.number("B"))),
    b"X": _push(lambda m: m.text(m.number("I"))),
    b"\x8d": _push(lambda m: m.text(m.number("Q"))),
    b"C": _push(lambda m: m.take(m.number("B"))),
    b"B": _push(lambda m: m.take(m.number("I"))),
    b"\x8e": _push(lambda m: m.take(m.number("Q"))),
    b"]": _push(lambda _: []),
    b"}": _push(lambda _: _Dict()),
    b")": _push(lambda _: ()),
    b"t": _push(lambda m: tuple(m.since_mark())),
    b"\x85": _push(lambda m: m.popped(1)),
    b"\x86": _push(lambda m: m.popped(2)),
    b"\x87": _push(lambda m: m.popped(3)),
    b"a": lambda m: _append(m, [m.pop()]),
    b"e": lambda m: _append(m, m.since_mark()),
    b"s": lambda m: _set(m, list(m.popped(2))),
    b"u": lambda m: _set(m, m.since_mark()),
    b"c": _push(lambda m: m.found(m.line(), m.line())),
    b"\x93": _push(lambda m: m.found(*m.popped(2))),
    b"R": _Machine.reduce,
    b"\x81": _Machine.new,
    b"b": _Machine.build,
    b"h": _push(lambda m: _get(m, m.number("B"))),
    b"j": _push(lambda m: _get(m, m.number("I"))),
    b"q": lambda m: _put(m, m.number("B")),
    b"r": lambda m: _put(m, m.number("I")),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"\x95": _frame,
}


def read(data: bytes, where: str, *, records: frozenset[str] = frozenset()) -> Any:
    """What a pickle holds.

    Args:
        data: all bytes of the file.
        where: the file's name, for messages.
        records: classes, functions and constants, as `module.name`, that are read as `Record`; they are not imported.

    Returns:
        Arrays (new, writable, of native byte order), dicts, lists, tuples, str, bytes, int, float, bool, None and `Record`.

    Raises:
        FormatError: the pickle is cut off, padded or malformed, or refers to anything else.
    """
    return _Machine(data, where, records).run()
