"""How two checkpoints differ, and by how much. Reads only variables whose digests differ, in pieces of bounded size.

Equal block digests mean equal bytes, so two checkpoints of 100 GB that share all but one layer are compared by reading
that layer. Beyond the two manifests a comparison holds one block of each side and a few arrays of `PIECE` elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from holdfast import dtypes
from holdfast.engine.commit import storage_errors
from holdfast.engine.progress import ProgressOption, metered
from holdfast.engine.reader import raise_if_damaged
from holdfast.errors import FormatError
from holdfast.format import values
from holdfast.format.digests import BLOCK_BYTES, hexdigest
from holdfast.format.geometry import Box, overlap, relative
from holdfast.format.manifest import Chunk, Entry, check_entry, whole
from holdfast.reading import Checkpoint, is_bare
from holdfast.variables import Predicate, Variable

PIECE = 1 << 18
"""Elements that are compared at once. It divides the number of elements in a block for every dtype."""

Aspect = Literal["shape", "dtype", "kind", "trainable", "values"]


@dataclass(frozen=True, slots=True)
class ChangeSize:
    """How far the values of a variable are apart.

    Attributes:
        elements: how many there are.
        changed: how many differ: in any bit if the dtypes are equal (so 0.0 and -0.0 differ), else in value.
        not_finite: how many of these are NaN or infinite in either checkpoint; the next two leave them out.
        max_abs: the largest absolute difference; an int for integers and bools, exact. None if nothing is left to compare.
        relative_l2: ‖b − a‖₂ / ‖a‖₂ over the elements that are finite in both; None if a is zero in all of them.
    """

    elements: int
    changed: int
    not_finite: int
    max_abs: float | None
    relative_l2: float | None


@dataclass(frozen=True, slots=True)
class ChangedVariable:
    """A variable that both checkpoints have, not in the same form or with the same values.

    Attributes:
        name: its name.
        a: how the first checkpoint describes it.
        b: how the second one does.
        aspects: in what it differs. A different dtype counts as such, and as "values" if these differ too.
        size: None if the values were not compared (their shapes differ) or are equal.
    """

    name: str
    a: Variable
    b: Variable
    aspects: tuple[Aspect, ...]
    size: ChangeSize | None


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """A value beside the variables, such as an epoch or the state of a random generator, as typed JSON (docs/format.md, 5).

    Attributes:
        trainer_id: whose it is.
        name: its name; for trainer arguments that are no mapping, "".
        change: what became of it.
        a: in the first checkpoint; None if it was added.
        b: in the second one; None if it was removed.
    """

    trainer_id: int
    name: str
    change: Literal["added", "removed", "changed"]
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """What has to change to turn checkpoint a into checkpoint b. Steps, metrics and dates are descriptions and not compared.

    Attributes:
        added: variables that only b has, in its order.
        removed: variables that only a has, in its order.
        changed: variables that both have and that differ, in the order of a.
        unchanged: how many variables are equal.
        values: values of the state that are no variables and differ.
        trainer_args: arguments of the trainers that differ.
    """

    added: tuple[Variable, ...]
    removed: tuple[Variable, ...]
    changed: tuple[ChangedVariable, ...]
    unchanged: int
    values: tuple[ChangedValue, ...]
    trainer_args: tuple[ChangedValue, ...]

    @property
    def equal(self) -> bool:
        """Whether loading the one gives what loading the other gives."""
        return not (self.added or self.removed or self.changed or self.values or self.trainer_args)


def compare(
    a: Checkpoint, b: Checkpoint, *, predicate: Predicate | None = None, progress: ProgressOption = None
) -> Comparison:
    """How `b` differs from `a`. Whatever is read is verified; what the digests tell to be equal is not read.

    Memory beyond the two manifests is bounded (about 50 MiB), whatever the size of the variables.

    Args:
        a: an open checkpoint, the older one as a rule.
        b: another one, or the same.
        predicate: only variables that it accepts are compared, and neither values nor trainer arguments. None: everything.
        progress: see `save_params`; counts the bytes that have to be read of `a`.

    Raises:
        CorruptCheckpointError: bytes that had to be read are not those that were saved.
        FormatError: a manifest describes a variable that cannot be.
        ClosedError: a checkpoint is closed.

    Example:
        >>> import numpy as np, holdfast
        >>> from holdfast.comparing import compare
        >>> state = {"w": np.zeros(4), "b": np.ones(2)}
        >>> for step in range(2):
        ...     state["w"][1] = step
        ...     serial = holdfast.save_checkpoint(state, "runs/compared")
        >>> with holdfast.open("runs/compared", serial=0) as a, holdfast.open("runs/compared", serial=1) as b:
        ...     found = compare(a, b)
        >>> [(variable.name, variable.size.changed, variable.size.max_abs) for variable in found.changed]
        [('w', 1, 1.0)]
    """
    ours, theirs = _selected(a, predicate), _selected(b, predicate)
    common = [name for name in ours if name in theirs]
    known = not (is_bare(a.manifest) or is_bare(b.manifest))  # a bare safetensors file does not record kinds
    differing = [name for name in common if not (known and _same_bytes(ours[name], theirs[name]))]
    # Variables of other shapes are not read: there is no element to compare with.
    to_read = {name for name in differing if ours[name].shape == theirs[name].shape}
    found: dict[str, ChangedVariable] = {}
    with metered("load", sum(ours[name].nbytes for name in to_read), progress) as meter:
        for name in common:
            entry, other = ours[name], theirs[name]
            size = None
            if name in to_read:
                with storage_errors(f"cannot read variable {name!r}"):
                    size = _size_of_change(_Side(a, entry), _Side(b, other))
                meter.add(entry.nbytes)
            aspects = _aspects(entry, other, size, known)
            if aspects:
                found[name] = ChangedVariable(
                    name, entry.variable, other.variable, aspects, size if "values" in aspects else None
                )
    return Comparison(
        added=tuple(theirs[name].variable for name in theirs if name not in ours),
        removed=tuple(ours[name].variable for name in ours if name not in theirs),
        changed=tuple(found.values()),
        unchanged=len(common) - len(found),
        values=() if predicate else tuple(_changed_values(a, b, 1)),
        trainer_args=() if predicate else tuple(_changed_values(a, b, 0)),
    )


def _selected(checkpoint: Checkpoint, predicate: Predicate | None) -> dict[str, Entry]:
    found = {}
    for stored in checkpoint.manifest.variables:
        entry = whole(stored)
        if not is_bare(checkpoint.manifest):
            check_entry(checkpoint.manifest, entry, checkpoint.path)
        if predicate is None or predicate(entry.variable):
            found[entry.name] = entry
    return found


def _same_bytes(a: Entry, b: Entry) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and _digests(a) == _digests(b)


def _digests(entry: Entry) -> list[tuple[Box, tuple[str, ...]]]:
    return sorted((chunk.box(entry.shape), chunk.blocks) for chunk in entry.chunks)


def _aspects(a: Entry, b: Entry, size: ChangeSize | None, known: bool) -> tuple[Aspect, ...]:
    checks: list[tuple[Aspect, bool]] = [
        ("shape", a.shape != b.shape),
        ("dtype", a.dtype != b.dtype),
        ("kind", known and a.kind != b.kind),
        ("trainable", known and a.trainable != b.trainable),
        ("values", size is not None and size.changed > 0),
    ]
    return tuple(aspect for aspect, differs in checks if differs)


# ---- values beside the variables


def _changed_values(a: Checkpoint, b: Checkpoint, part: Literal[0, 1]) -> Iterator[ChangedValue]:
    """Differences in the trainers' arguments (part 0) or in the values of their states (part 1)."""
    for trainer_id in sorted({*trainer_ids(a), *trainer_ids(b)}):
        ours, theirs = typed(a.trainer(trainer_id)[part]), typed(b.trainer(trainer_id)[part])
        if not (_is_mapping(ours) and _is_mapping(theirs)):
            if _differ(ours, theirs):
                change: Literal["added", "removed", "changed"]
                change = "added" if ours is None else "removed" if theirs is None else "changed"
                yield ChangedValue(trainer_id, "", change, ours, theirs)
            continue
        for name in {**ours, **theirs}:
            if name not in ours:
                yield ChangedValue(trainer_id, name, "added", None, theirs[name])
            elif name not in theirs:
                yield ChangedValue(trainer_id, name, "removed", ours[name], None)
            elif _differ(ours[name], theirs[name]):
                yield ChangedValue(trainer_id, name, "changed", ours[name], theirs[name])


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and not (len(value) == 1 and next(iter(value)).startswith("$"))


def _differ(a: Any, b: Any) -> bool:
    return values.to_bytes(a) != values.to_bytes(b)  # their text: 1, 1.0 and True are equal in Python


def trainer_ids(checkpoint: Checkpoint) -> list[int]:
    """The trainers that have a file in a checkpoint, ascending."""
    names = (file.name for file in checkpoint.manifest.files)
    return sorted(int(name[len("trainer_") : -len(".json")]) for name in names if name.startswith("trainer_"))


def typed(value: Any) -> Any:
    """A value of a state or of trainer arguments as plain JSON objects (docs/format.md, section 5).

    Raises:
        FormatError: it nests too deep to have been written by a save.
    """
    try:
        return values.encode(value)
    except values.UnsupportedValueError as error:
        raise FormatError(f"a value of the checkpoint cannot be: {error}") from error


# ---- values of variables


class _Side:
    """The values of one variable in one checkpoint, read block by block; each block is checked against its digest."""

    def __init__(self, checkpoint: Checkpoint, entry: Entry) -> None:
        self.entry, self.dtype = entry, dtypes.to_numpy(entry.dtype)
        # Not through LazyVariable, which maps the file: the pages of a large variable would count as our memory.
        self._source = checkpoint.source
        self._verify = checkpoint.verified
        self._buffer = memoryview(bytearray(min(BLOCK_BYTES, entry.nbytes)))
        self._held: tuple[Chunk, int] | None = None

    def flat(self, chunk: Chunk, start: int, stop: int) -> np.ndarray:
        """Elements `start` to `stop` of a chunk, in row-major order."""
        lo, hi = start * self.dtype.itemsize, stop * self.dtype.itemsize
        made = np.empty(hi - lo, np.uint8)
        for number in range(lo // BLOCK_BYTES, -(-hi // BLOCK_BYTES)):
            at = number * BLOCK_BYTES
            first, end = max(lo, at), min(hi, at + BLOCK_BYTES)
            made[first - lo : end - lo] = np.frombuffer(self._block(chunk, number)[first - at : end - at], np.uint8)
        return made.view(self.dtype)

    def box(self, chunk: Chunk, box: Box) -> np.ndarray:
        """The elements of a box (as seen from the variable), flat."""
        whole = chunk.box(self.entry.shape)
        inside = relative(box, whole)
        steps = _steps(whole.shape)
        start = sum(o * s for o, s in zip(inside.offset, steps, strict=True))
        data = self.flat(chunk, start, start + _extent(box.shape, steps))
        strides = [s * self.dtype.itemsize for s in steps]
        return np.lib.stride_tricks.as_strided(data, box.shape, strides, writeable=False).reshape(-1)

    def _block(self, chunk: Chunk, number: int) -> memoryview:
        length = min(BLOCK_BYTES, chunk.nbytes - number * BLOCK_BYTES)
        part = self._buffer[:length]
        if self._held is None or self._held[0] is not chunk or self._held[1] != number:
            self._held = None
            got = self._source.reader(chunk.file).read_into([part], chunk.range[0] + number * BLOCK_BYTES)
            if got != length or (self._verify and hexdigest(part) != chunk.blocks[number]):
                raise_if_damaged(self._source, {chunk.file: {self.entry.name: None}})
            self._held = chunk, number
        return part


def _steps(shape: tuple[int, ...]) -> list[int]:
    """How many elements apart neighbours in each dimension lie."""
    return [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]


def _extent(shape: tuple[int, ...], steps: list[int]) -> int:
    """How many elements from the first to the last of a box, both included."""
    return 1 + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))


def _size_of_change(a: _Side, b: _Side) -> ChangeSize:
    total = _Total(a.entry.dtype == b.entry.dtype)
    find = _Finder(b.entry)
    for chunk in a.entry.chunks:
        ours = chunk.box(a.entry.shape)
        for other in find.overlapping(ours):
            theirs = other.box(b.entry.shape)
            common = overlap(ours, theirs)
            if common is None:
                continue  # without elements
            if ours == theirs:
                # One flat range on both sides, in steps that never cross a block: a block that is equal is read once,
                # for the norm.
                for start in range(0, ours.size, PIECE):
                    stop = min(start + PIECE, ours.size)
                    x = a.flat(chunk, start, stop)
                    same = total.same_dtype and _same_block(chunk, other, start * x.itemsize // BLOCK_BYTES)
                    total.add(x, x if same else b.flat(other, start, stop))
            else:
                for box in _split(common, (_steps(ours.shape), _steps(theirs.shape))):
                    total.add(a.box(chunk, box), b.box(other, box))
    return total.result(math.prod(a.entry.shape))


class _Finder:
    """Finds the chunks of a variable that have elements in common with a box."""

    def __init__(self, entry: Entry) -> None:
        self._chunks = entry.chunks
        boxes = [chunk.box(entry.shape) for chunk in entry.chunks]
        self._equal = dict(zip(boxes, entry.chunks, strict=True))
        table = len(boxes), len(entry.shape)
        self._starts = np.array([box.offset for box in boxes], np.int64).reshape(table)
        self._ends = self._starts + np.array([box.shape for box in boxes], np.int64).reshape(table)

    def overlapping(self, box: Box) -> list[Chunk]:
        if box in self._equal:
            return [self._equal[box]]  # the usual case; chunks do not overlap, so there is no other
        start, extent = np.array(box.offset, np.int64), np.array(box.shape, np.int64)
        found = ((self._starts < start + extent) & (start < self._ends)).all(axis=1)
        return [self._chunks[i] for i in np.flatnonzero(found)]


def _same_block(a: Chunk, b: Chunk, number: int) -> bool:
    return number < len(a.blocks) and number < len(b.blocks) and a.blocks[number] == b.blocks[number]


def _split(box: Box, sides: tuple[list[int], ...]) -> Iterator[Box]:
    """Parts of a box each of which lies within `PIECE` consecutive elements on every side."""
    if all(_extent(box.shape, steps) <= PIECE for steps in sides):
        yield box
        return
    dim = next(d for d, n in enumerate(box.shape) if n > 1)
    half = box.shape[dim] // 2
    for first, count in ((0, half), (half, box.shape[dim] - half)):
        offset = (*box.offset[:dim], box.offset[dim] + first, *box.offset[dim + 1 :])
        yield from _split(Box(offset, (*box.shape[:dim], count, *box.shape[dim + 1 :])), sides)


class _Norm:
    """A Euclidean norm that neither overflows nor vanishes. Source: LAPACK's xLASSQ."""

    def __init__(self) -> None:
        self.scale, self.sum = 0.0, 1.0

    def add(self, magnitudes: np.ndarray) -> None:
        top = float(magnitudes.max(initial=0.0))
        if top == 0.0 or math.isinf(self.scale):
            return
        if math.isinf(top):  # a difference of float64 can exceed them
            self.scale, self.sum = top, 1.0
            return
        added = float(np.square(magnitudes / top).sum())
        if top > self.scale:
            self.sum = added + (self.sum * (self.scale / top) ** 2 if self.scale else 0.0)
            self.scale = top
        else:
            self.sum += added * (top / self.scale) ** 2


class _Total:
    """Adds up pieces of two arrays into a `ChangeSize`."""

    def __init__(self, same_dtype: bool) -> None:
        self.same_dtype = same_dtype
        self.changed = self.not_finite = 0
        self.max_abs: float | None = None
        self.base, self.difference = _Norm(), _Norm()

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        # NaN payloads, overflows and infinities are what is being looked for; none of them is worth a warning.
        with np.errstate(all="ignore"):
            self._add(x, y)

    def _add(self, x: np.ndarray, y: np.ndarray) -> None:
        wide = _widened(x)
        if x is y:
            self.base.add(np.abs(wide[np.isfinite(wide)]))
            return
        other = _widened(y)
        if self.same_dtype:
            differs = x.view(f"u{x.itemsize}") != y.view(f"u{y.itemsize}")
        else:
            differs = (wide != other) & ~(np.isnan(wide) & np.isnan(other))
        finite = np.isfinite(wide) & np.isfinite(other)
        self.base.add(np.abs(wide[finite]))
        self.changed += int(np.count_nonzero(differs))
        self.not_finite += int(np.count_nonzero(differs & ~finite))
        differs &= finite
        if not differs.any():
            return
        if self.same_dtype and x.dtype.kind in "iub":
            apart = _exact_difference(x[differs], y[differs])
            self.max_abs = max(int(apart.max()), self.max_abs or 0)
        else:
            apart = np.abs(other[differs] - wide[differs])
            self.max_abs = max(float(apart.max()), self.max_abs or 0.0)
        self.difference.add(apart.astype(np.float64))

    def result(self, elements: int) -> ChangeSize:
        ratio = None
        if self.base.scale:
            ratio = self.difference.scale / self.base.scale * math.sqrt(self.difference.sum / self.base.sum)
        return ChangeSize(elements, self.changed, self.not_finite, self.max_abs, ratio)


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _exact_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x − y| of integers as uint64, which holds it for every pair; float64 would round."""
    high, low = np.maximum(x, y), np.minimum(x, y)
    wide = np.uint64 if x.dtype.kind in "ub" else np.int64
    difference: np.ndarray = high.astype(wide).view(np.uint64) - low.astype(wide).view(np.uint64)
    return difference
