"""`.pt`, `.pth`, `.ckpt`, `.bin`: what `torch.save` writes, read without PyTorch, and dicts of tensors and values written by it.

PyTorch's own restricted unpickler (`weights_only=True`) is not asked. It bounds no memory: of a file of a kilobyte it makes
gigabytes, by encoding text again and again. And it gives up a whole file for one number of NumPy or one object in it. Here
the pickle is read by a machine that calls nothing (`pickles.py`), and an object in it is left out, by name.

Source: torch/_utils.py, torch/_tensor.py and torch/_weights_only_unpickler.py of PyTorch 2.13.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from holdfast import dtypes
from holdfast.errors import FormatError, UnsupportedVariableError
from holdfast.format.values import Tagged
from holdfast.interop import extras, files, foreign, source, torch_archive
from holdfast.interop.foreign import Held, LeftOut, Refused
from holdfast.interop.pickle_parts import STORED, Record
from holdfast.interop.plain import NotPlainError, plain, references
from holdfast.interop.source import Source

_ROOM = 1 << 30
_MAX_DIMENSIONS = 32  # of arrays of every NumPy
_MAX_BITS = 2039  # of an integer of 255 bytes, the longest that PyTorch's restricted unpickler reads
_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_DTYPES = {f"torch.{theirs}": dtypes.to_numpy(ours) for ours, theirs in _NAMES.items()}
_DTYPES["torch.complex128"] = np.dtype(np.complex128)
_STORAGES = {
    f"{begin}Storage": _DTYPES[f"torch.{name}"]
    for begin, name in {
        "Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Half": "float16",
        "BFloat16": "bfloat16", "Float": "float32", "Double": "float64", "ComplexFloat": "complex64",
        "ComplexDouble": "complex128", "Untyped": "uint8",
    }.items()
}  # fmt: skip
_ATTRIBUTES = {
    "argparse.Namespace", "types.SimpleNamespace", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
}  # fmt: skip
_PLAIN = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

# Functions of modules that a file has no other business with; none is called.
_VALUES = frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset", "bytearray", "complex", "slice", "range", "getattr")
)


def read(path: str | os.PathLike[str]) -> Held:
    """All tensors and plain values of a file, by the keys on the way, joined with `.`; objects are left out, by name.

    Tensors that share memory are there under each of their names. Those of optimizers are no parameters.

    Raises:
        FormatError: the file is cut off or malformed, calls functions, or holds tensors inside of objects, such as a whole
            module.
        UnsupportedVariableError: a tensor has no form as an array (sparse, quantized, nested, on no device).
        StorageError: the system refused to read.
    """
    where = os.fspath(path)
    with source.opened(where) as opened:
        notes: list[str] = []
        held = foreign.collect(tree_of(opened, notes), opened.size, where)
    held.notes.extend(notes)
    return held


def tree_of(opened: Source, notes: list[str]) -> Any:
    """What `torch.save` was given: tensors as arrays, or as `Refused` if they have no such form; objects as `LeftOut`.

    Args:
        opened: the file, at its beginning.
        notes: gets what people should know besides.

    Raises:
        FormatError: as `read`.
    """
    archive = torch_archive.opened(opened, _KNOWN)
    reader = _Reader(archive, opened)
    tree = reader.of(archive.tree)
    if reader.hidden:
        named = "".join(f"\n  {name}: {kind}" for name, kind in list(reader.hidden.items())[:50])
        raise FormatError(
            f"{opened.name} holds tensors inside of objects, which are not read:{named}\nNothing of it was executed. If you trust "
            "it, load it where it was made, and save the state_dict() of these objects in their place"
        )
    notes.extend(reader.notes)
    return tree


class _Reader:
    """Makes arrays of what a pickle says of tensors, of the same memory where that is possible; copies only so much."""

    def __init__(self, archive: torch_archive.Archive, opened: Source) -> None:
        self._archive, self._where = archive, opened.name
        self._room = _ROOM + 16 * opened.size  # an expanded tensor shows one element any number of times
        self._storages: dict[str, np.ndarray] = {}
        self.hidden: dict[str, str] = {}
        """Objects with tensors in them: name → class."""
        self.notes: list[str] = []
        self._way: list[Any] = []

    def bad(self, problem: str) -> FormatError:
        return FormatError(f"{self._where} is malformed: {problem}")

    def of(self, node: Any) -> Any:
        """A node of the tree, with arrays in place of the records of tensors."""
        if type(node) is dict:
            return {
                LeftOut(key.kind) if type(key) is Record else key: self._below(key, item) for key, item in node.items()
            }
        if type(node) is list or type(node) is tuple:
            return type(node)(self._below(number, item) for number, item in enumerate(node))
        return self._made(node) if type(node) is Record else node

    def _below(self, key: Any, node: Any) -> Any:
        self._way.append(key)
        made = self.of(node)
        self._way.pop()
        return made

    @property
    def _name(self) -> str:
        return ".".join(map(str, self._way))[:500]

    def _made(self, record: Record) -> Any:
        function = _FUNCTIONS.get(record.kind)
        if function is not None:
            try:
                return function(self, *record.arguments)
            except (TypeError, ValueError) as error:
                if isinstance(error, FormatError):
                    raise
                raise self.bad(f"{record.kind} is given what PyTorch does not give it: {error}") from error
        if record.kind == STORED:
            return Refused("is a bare storage, without dtype and shape: save the tensor")
        if record.kind == "torch.Size" and len(record.arguments) == 1 and type(record.arguments[0]) in (list, tuple):
            return tuple(record.arguments[0])
        kind = record.kind.replace("__builtin__.", "builtins.")
        if kind in _ATTRIBUTES and not record.arguments:
            self.notes.append(f"{self._name}: {kind} is carried over as a dict of its attributes")
            return self.of(record.fields)
        if any(r.kind in _FUNCTIONS or r.kind == STORED for r in torch_archive.records_in(record)):
            self.hidden[self._name or "the whole"] = kind[:200]
        return LeftOut(f"{kind[:200]} is no plain value")

    def tensor(self, stored: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray | Refused:
        """`_rebuild_tensor` and `_rebuild_tensor_v2`: requires_grad, hooks, and perhaps whether it is conjugate or negative."""
        return self._strided(stored, offset, size, stride, None, rest[2] if len(rest) > 2 else None)

    def tensor_v3(
        self,
        stored: Any,
        offset: Any,
        size: Any,
        stride: Any,
        _grad: Any,
        _hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> np.ndarray | Refused:
        """`_rebuild_tensor_v3`: of a storage that is bytes."""
        return self._strided(stored, offset, size, stride, _kind(dtype), metadata)

    def parameter(self, data: Any, *_: Any) -> Any:
        """`_rebuild_parameter`, `_rebuild_parameter_with_state`."""
        return self.of(data)

    def typed(self, function: Any, kind: Any, arguments: Any, _state: Any) -> Any:
        """`_rebuild_from_type_v2`: a subclass, or a tensor with attributes."""
        if _kind(function) == "torch._utils._rebuild_wrapper_subclass" or _kind(kind) not in _PLAIN:
            return _of_class(_kind(kind))
        if _kind(function) not in _FUNCTIONS or type(arguments) is not tuple:
            raise self.bad(f"a tensor is made by {_kind(function)[:100]}")
        return self.of(Record(_kind(function), {}, arguments))

    def _strided(
        self, stored: Any, offset: Any, size: Any, stride: Any, dtype: str | None, metadata: Any
    ) -> np.ndarray | Refused:
        if type(stored) is not Record or stored.kind != STORED:
            raise self.bad("a tensor is made of something else than a storage")
        if type(size) is Record and size.kind == "torch.Size" and len(size.arguments) == 1:
            size = size.arguments[0]
        if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
            raise self.bad(f"a tensor has offset {offset}, shape {str(size)[:100]} and strides {str(stride)[:100]}")
        kind, key = torch_archive.storage_kind(stored, self._where)
        if stored.arguments[3] == "meta":
            return _META()
        if len(size) > _MAX_DIMENSIONS:
            return Refused(f"has {len(size)} dimensions, of which an array can have {_MAX_DIMENSIONS}")
        known = _STORAGES.get(kind) if dtype is None else _DTYPES.get(dtype)
        if known is None:
            missing = Refused(f"has dtype {dtype or kind}, which NumPy has no form for")
            return _QUANTIZED() if kind.startswith("Q") else missing
        elements = self._elements(stored, kind, key, known)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if count and last >= len(elements):
            raise self.bad(
                f"a tensor reaches to element {last:,} of the storage {key[:100]!r}, which has {len(elements):,}"
            )
        if count >= 1 << 60:
            return Refused("is a few elements shown very often (expanded): save it before it is expanded")
        if count == 0:
            return np.empty(tuple(size), known)
        steps = tuple(step * known.itemsize for step in stride)
        made: np.ndarray = np.ndarray(tuple(size), known, elements.view(np.uint8), offset * known.itemsize, steps)
        conjugate, negative = (type(metadata) is dict and bool(metadata.get(bit)) for bit in ("conj", "neg"))
        if made.flags.c_contiguous and not conjugate and not negative:
            return made
        self._room -= count * known.itemsize
        if self._room < 0:
            return Refused("is a few elements shown very often (expanded): save it before it is expanded")
        made = np.array(made, order="C")
        if conjugate:
            np.conjugate(made, out=made)
        return np.negative(made, out=made) if negative else made

    def _elements(self, stored: Record, kind: str, key: str, dtype: np.dtype) -> np.ndarray:
        if key not in self._storages:
            data = self._archive.storage(key)
            announced = stored.arguments[4]
            if type(announced) is not int or announced * torch_archive.ITEMSIZES[kind] != data.size:
                raise self.bad(
                    f"the storage {key[:100]!r} has {data.size:,} bytes, announced are {str(announced)[:20]} of {kind}"
                )
            self._storages[key] = data
        data = self._storages[key]
        view = stored.arguments[5] if len(stored.arguments) > 5 else None
        if view is not None:  # PyTorch 0.x had storages that are a part of another
            if type(view) is not tuple or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
                raise self.bad(f"the storage {key[:100]!r} has a view that is none")
            data = data[view[1] * dtype.itemsize : (view[1] + view[2]) * dtype.itemsize]
        data = data[: data.size - data.size % dtype.itemsize]
        if dtype == np.bool_ and data.size and data.max() > 1:
            raise FormatError(f"{self._where} is damaged: a bool of the storage {key[:100]!r} is neither 0 nor 1")
        if self._archive.swapped and dtype.itemsize > 1:
            part = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
            data = data.view(f">u{part}").astype(f"<u{part}").view(np.uint8)
        return data.view(dtype)


def _kind(value: Any) -> str:
    return value.kind if type(value) is Record else str(value)[:100]


def _of_class(kind: str) -> Refused:
    if kind.startswith("torch.distributed"):
        return Refused(
            f"is a {kind}, of which each process has a piece: save its full_tensor(), or read what DCP saved"
        )
    return Refused(f"is a {kind[:200]}, a class of its own: save it as a plain tensor")


def _refusing(reason: str) -> Callable[..., Refused]:
    return lambda *_: Refused(reason)


def _from_device(reader: _Reader, data: Any, dtype: Any, *_: Any) -> Any:
    """Devices whose tensors PyTorch saves as ones of NumPy or of the CPU, sometimes of a wider dtype."""
    made, known = reader.of(data), _DTYPES.get(_kind(dtype))
    if not isinstance(made, np.ndarray) or known is None:
        return made if isinstance(made, Refused) else Refused(f"has dtype {_kind(dtype)}, which NumPy has no form for")
    return made.astype(known, copy=False)


_QUANTIZED = _refusing("is quantized: save its int_repr(), scale and zero point, or dequantize()")
_META = _refusing("is on the meta device: the file has its shape, and no elements")
_SPARSE = _refusing("is sparse: save what it is made of, or to_dense()")
_NESTED = _refusing("is nested: save what it is made of, or to_padded_tensor()")
_UTILS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _Reader.tensor,
    "_rebuild_tensor_v2": _Reader.tensor,
    "_rebuild_tensor_v3": _Reader.tensor_v3,
    "_rebuild_parameter": _Reader.parameter,
    "_rebuild_parameter_with_state": _Reader.parameter,
    "_rebuild_qtensor": _QUANTIZED,
    "_rebuild_sparse_tensor": _SPARSE,
    "_rebuild_sparse_csr_tensor": _SPARSE,
    "_rebuild_nested_tensor": _NESTED,
    "_rebuild_meta_tensor_no_storage": _META,
    "_rebuild_wrapper_subclass": lambda _, kind, *__: _of_class(_kind(kind)),
    "_rebuild_device_tensor_from_numpy": _from_device,
    "_rebuild_device_tensor_from_cpu_tensor": _from_device,
    "_rebuild_xla_tensor": _from_device,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"torch._utils.{name}": function for name, function in _UTILS.items()},
    **{f"{module}._rebuild_from_type_v2": _Reader.typed for module in ("torch._tensor", "torch.tensor")},
    "torch.nested._internal.nested_tensor._rebuild_njt": _NESTED,
}
"""What PyTorch calls to make a tensor, and what is done here instead."""
_KNOWN = frozenset(_FUNCTIONS) | _VALUES


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], values: Mapping[str, Any] | None = None
) -> None:
    """Write a dict of tensors and values that `torch.load(path, weights_only=True)` gives back; whole or not at all.

    Args:
        path: the file.
        arrays: by name.
        values: plain values by name. `Tagged("$variable", name)` in one stands for the tensor of that name: as a whole value it is
            a second name of it; a tensor that stands inside of a value is not there by its own name too. Scalars of NumPy become
            numbers of Python, small arrays tensors.

    Raises:
        UnsupportedVariableError: PyTorch has no such dtype, or does not read such a value; nothing was written.
        ValueError: a name is given twice.
        MissingExtraError: PyTorch is not installed.
        StorageError, DiskFullError: the system refused; what was at `path` is still there.
    """
    where, values = os.fspath(path), values or {}
    if twice := sorted(arrays.keys() & values.keys()):
        raise ValueError(f"arrays and values both have {', '.join(twice)}")
    with extras.needed("torch", where):
        import torch

    def tensor(array: np.ndarray) -> Any:
        theirs = getattr(torch, _NAMES.get(dtypes.from_numpy(array.dtype) or "", "-"), None)
        if theirs is None and array.dtype == np.complex128:
            theirs = torch.complex128
        if theirs is None:
            return None
        # As bytes, because NumPy's dtypes and PyTorch's are not all each other's; a copy, as PyTorch wants memory to write to.
        flat = np.array(array, array.dtype.newbyteorder("="), order="C").reshape(-1).view(np.uint8)
        return torch.from_numpy(flat).view(theirs).reshape(array.shape)

    made = {name: tensor(array) for name, array in arrays.items()}
    reasons = {n: f"PyTorch {torch.__version__} has no {arrays[n].dtype}" for n, held in made.items() if held is None}
    reasons |= {n: reason for n, value in values.items() if (reason := value_problem(value, arrays))}
    if reasons:
        raise UnsupportedVariableError(reasons, f"{where} was not written: a file of PyTorch cannot hold all of it")
    given = {name: plain(value, made, tensor) for name, value in values.items()}
    inside = {name for value in values.values() if not isinstance(value, Tagged) for name in references(value)}
    with files.new_file(where) as file:
        torch.save({name: held for name, held in made.items() if name not in inside} | given, file)


def value_problem(value: Any, names: Collection[str]) -> str | None:
    """Why a value has no place in a file for `torch.load(weights_only=True)`; None if it has.

    Args:
        value: see `write`.
        names: of the tensors beside it.
    """
    if absent := next((name for name in references(value) if name not in names), None):
        return f"it refers to the variable {absent!r}, which is not there"
    try:
        made = plain(value, dict.fromkeys(names))
    except NotPlainError as error:
        return str(error)
    return f"it has an integer of more than {_MAX_BITS:,} bits, which PyTorch does not read" if _is_huge(made) else None


def _is_huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_huge(key) or _is_huge(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(map(_is_huge, value))
    return type(value) is int and value.bit_length() > _MAX_BITS
