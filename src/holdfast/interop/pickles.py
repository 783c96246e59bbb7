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
from typing import Any, NoReturn

import numpy as np

from holdfast.errors import FormatError
from holdfast.interop.pickle_parts import STORED, Array, CutOffError, Dict, DType, Finished, Global, Instance

DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
"""NumPy's names of the dtypes that a pickle may hold."""
_HOSTILE = {
    "os", "posix", "nt", "sys", "subprocess", "builtins", "__builtin__", "runpy", "importlib", "pty", "socket", "shutil", "ctypes",
    "pickle", "_pickle", "cPickle", "marshal", "codecs", "_codecs", "webbrowser", "code", "timeit", "multiprocessing", "io", "_io",
}  # fmt: skip
"""Modules of which an honest file calls nothing but what is known here."""
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, data: bytes, where: str, records: frozenset[str], objects: bool) -> None:
        self.data, self.where, self.records, self.objects = data, where, records, objects
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
            raise CutOffError(
                f"{self.where} is cut off: bytes {self.at:,} to {self.at + count:,} are needed, but there are {len(self.data):,}"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            self.take(256)
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

    def object(self) -> Instance | None:
        """The instance on top of the stack, of a class that may be a list or a dict too."""
        found = self.stack[-1] if self.objects and len(self.stack) > (self.marks[-1] if self.marks else 0) else None
        return found if type(found) is Instance else None

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
        return Finished(self.bad, self.at, self.kind_of, self.objects).of(self.stack[0])

    def found(self, module: Any, name: Any) -> Global:
        if type(module) is not str or type(name) is not str:
            self.bad("a global's name is no text")
        known = Global(module, name)
        if known not in _CALLS and known not in _TYPES and str(known) not in self.records and not self.objects:
            self.refers_to(known)
        return known

    def refers_to(self, name: Global) -> NoReturn:
        hint = ". If you trust it, load it where it was made, and save it without that" if self.objects else ""
        self.bad(
            f"it refers to {str(name)[:200]}. Files of parameters hold arrays, dicts, lists, tuples, strings and numbers only; "
            f"nothing of it was executed{hint}"
        )

    def named(self, known: Global) -> str:
        return str(known) if self.objects else known.name

    def kind_of(self, known: Global) -> str | None:
        return self.named(known) if self.objects or str(known) in self.records else None

    def reduce(self) -> None:
        function, arguments = self.popped(2)
        if type(function) is Global and str(function) in self.records and type(arguments) is tuple:
            self.stack.append(Instance(self.named(function), arguments))
            return
        call = _CALLS.get(function) if type(function) is Global else None
        if self.objects and type(function) is Global:
            call = _OBJECT_CALLS.get(function, call)
        if call is None and type(function) is Global and self.objects and type(arguments) is tuple:
            if function.module.partition(".")[0] in _HOSTILE:
                self.refers_to(function)  # nothing would happen, but somebody meant it to
            self.stack.append(Instance(self.named(function), arguments))
            return
        if call is None or type(arguments) is not tuple:
            self.bad("it calls what is no function of the list of allowed ones; nothing was executed")
        self.stack.append(call(self, arguments))

    def new(self) -> None:
        kind, arguments = self.popped(2)
        known = type(kind) is Global and (self.objects or (str(kind) in self.records and arguments == ()))
        if not known or type(arguments) is not tuple:
            self.bad("it makes an object that files of parameters do not have; nothing was executed")
        self.stack.append(Instance(self.named(kind), arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if len(self.stack) > (self.marks[-1] if self.marks else 0) else None
        if type(target) is Array and target.made is None:
            target.made = self.array(state)
        elif type(target) is DType and type(state) is tuple and len(state) >= 2 and state[1] in ("<", ">", "|"):
            target.order = state[1]
        elif type(target) is Instance and target.state is None and (self.objects or type(state) in (Dict, tuple)):
            target.state = state if type(state) in (Dict, tuple) else (state,)
        elif type(target) is Dict and self.objects:
            pass  # attributes of an OrderedDict: `_metadata` of a module's state
        else:
            self.bad("it sets the state of what has none; nothing was executed")

    def array(self, state: Any) -> np.ndarray:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not DType:
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


def _reconstruct(machine: _Machine, arguments: tuple[Any, ...]) -> Array:
    if len(arguments) != 3 or arguments[0] != _NDARRAY or arguments[1] != (0,) or arguments[2] not in (b"b", "b"):
        machine.bad("an array is begun as NumPy does not begin one")
    return Array()


def _dtype(machine: _Machine, arguments: tuple[Any, ...]) -> DType:
    if not arguments or type(arguments[0]) is not str or arguments[0] not in DTYPES:
        machine.bad(f"the dtype {str(arguments[:1])[:100]} is not one of numbers")
    return DType(arguments[0])


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        machine.bad("bytes are encoded as Python does not encode them")
    return machine.encoded(arguments[0])


def _scalar(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or type(arguments[0]) is not DType:
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


def _mapping(_: _Machine, arguments: tuple[Any, ...]) -> Dict:
    """An OrderedDict has no argument, or pairs (in Python 2); a Counter a dict; a defaultdict what makes its values."""
    given = arguments[0] if len(arguments) == 1 else None
    if type(given) is list and all(type(pair) is list and len(pair) == 2 for pair in given):
        return Dict([(key, item) for key, item in given])
    return given if type(given) is Dict else Dict()


_NDARRAY = Global("numpy", "ndarray")
_TYPES = {_NDARRAY}
_CALLS: dict[Global, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    **{Global(module, "_reconstruct"): _reconstruct for module in _NUMPY},
    **{Global(module, "scalar"): _scalar for module in _NUMPY},
    Global("numpy", "dtype"): _dtype,
    Global("_codecs", "encode"): _encode,
    **{Global(module, "tuple"): _tuple for module in ("builtins", "__builtin__")},
    **{Global(module, "bytes"): _empty(bytes) for module in ("builtins", "__builtin__")},
    Global("collections", "OrderedDict"): _empty(Dict),
}
"""All that a pickle may refer to."""
_OBJECT_CALLS = {Global("collections", name): _mapping for name in ("OrderedDict", "Counter", "defaultdict")}


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
    if (owner := machine.object()) is not None:
        owner.items.extend(values)
    else:
        machine.top(list, "list").extend(values)


def _set(machine: _Machine, values: list[Any]) -> None:
    if len(values) % 2:
        machine.bad("a key has no value: the pickle is malformed")
    if (owner := machine.object()) is not None:
        owner.items.extend(values)
    else:
        machine.top(Dict, "dict").pairs.extend(zip(values[::2], values[1::2], strict=True))


def _set_of(kind: str) -> Callable[[_Machine], None]:
    def made(machine: _Machine) -> None:
        if not machine.objects:
            machine.bad("it has a set, which files of parameters do not have")
        machine.stack.append(Instance(kind, tuple(machine.since_mark()) if kind == "builtins.frozenset" else ()))

    return made


def _stored(machine: _Machine) -> Any:
    place = machine.pop()
    if not machine.objects or type(place) is not tuple:
        machine.bad("it refers to something outside of it")
    # Of classes PyTorch once kept the source too.
    return place[1] if len(place) > 1 and place[0] == "module" else Instance(STORED, place)


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
    b"}": _push(lambda _: Dict()),
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
    b"\x8f": _set_of("builtins.set"),
    b"\x90": lambda m: _append(m, m.since_mark()),
    b"\x91": _set_of("builtins.frozenset"),
    b"Q": _push(_stored),
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


def read(data: bytes, where: str, *, records: frozenset[str] = frozenset(), objects: bool = False) -> Any:
    """What a pickle holds.

    Args:
        data: all bytes of the file.
        where: the file's name, for messages.
        records: classes, functions and constants, as `module.name`, that are read as `Record`; they are not imported.
        objects: whether objects of any other class are read as `Record` too, with the class's full name, and so are
            references to what is kept outside of the pickle (`STORED`), and what calls of other functions would give, unless
            these are of modules with which a file could do harm.

    Returns:
        Arrays (new, writable, of native byte order), dicts, lists, tuples, str, bytes, int, float, bool, None and `Record`.

    Raises:
        FormatError: the pickle is cut off, padded or malformed, or refers to anything else.
    """
    value, end = read_first(data, where, records=records, objects=objects)
    if end != len(data):
        raise FormatError(f"{where} is longer than its content: expected {end:,} bytes, found {len(data):,}")
    return value


def read_first(
    data: bytes, where: str, *, records: frozenset[str] = frozenset(), objects: bool = False
) -> tuple[Any, int]:
    """What the pickle at the beginning of some bytes holds, and how many bytes it has; else like `read`."""
    machine = _Machine(data, where, records, objects)
    return machine.run(), machine.at
