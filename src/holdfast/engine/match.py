"""Which variable of a checkpoint goes where: every difference is found before anything is changed. Pure."""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast import dtypes
from holdfast.dtypes import ITEMSIZE
from holdfast.engine.arrays import cast
from holdfast.errors import Problem
from holdfast.format.manifest import Entry
from holdfast.variables import Variable

Strict = Literal["exact", "subset", "superset"]
Cast = Literal["forbid", "widen", "allow"]
Rename = Mapping[str, str] | Callable[[str], str] | None

_NEAR_MISSES = 10  # missing names that get a "did you mean"
_CANDIDATES = 2000  # names that are compared for it: each comparison takes some 20 µs


@dataclass(frozen=True, slots=True)
class Rules:
    """How strictly a checkpoint must match its target.

    Attributes:
        strict: `"exact"`: both hold the same names; `"subset"`: the target may hold fewer; `"superset"`: it may hold more.
        rename: name in the checkpoint → name in the target: a mapping, in which a key that ends with `.` renames the
            beginning of names, or a function.
        skip: names, or patterns with `*` and `?`, in the target's naming, that are left alone on both sides. What is the
            name of something is no pattern.
        cast: `"forbid"`: dtypes must be equal; `"widen"`: the checkpoint's may be converted if no value can change;
            `"allow"`: to any dtype, with rounding.
    """

    strict: Strict = "exact"
    rename: Rename = None
    skip: Collection[str] = ()
    cast: Cast = "forbid"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("strict", self.strict, ("exact", "subset", "superset")),
            ("cast", self.cast, ("forbid", "widen", "allow")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")
        if isinstance(self.skip, str):
            object.__setattr__(self, "skip", (self.skip,))


@dataclass(frozen=True, slots=True)
class Match:
    """What goes where.

    Attributes:
        pairs: name in the target → name in the checkpoint.
        skipped: names of the target that `skip` leaves alone.
        missing: names that only the target has.
        unexpected: names that only the checkpoint has, in the checkpoint's naming.
    """

    pairs: dict[str, str]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def match_names(held: Collection[str], wanted: Collection[str], rules: Rules) -> Match:
    """Pair the names of a checkpoint with those of a target.

    Raises:
        ValueError: `rename` gives two variables one name, or names what the checkpoint does not hold.
    """
    target_of = _renamed(held, rules.rename)
    if rules.skip:
        skipped = skipping({*target_of.values(), *wanted}, rules.skip)
        kept = {name: target for name, target in target_of.items() if not skipped(target)}
        left = tuple(name for name in wanted if skipped(name))
        wanted = [name for name in wanted if not skipped(name)]
    else:
        kept, left = target_of, ()
    source_of = {target: name for name, target in kept.items()}
    pairs = {name: source_of[name] for name in wanted if name in source_of}
    return Match(
        pairs,
        left,
        tuple(name for name in wanted if name not in pairs),
        tuple(name for target, name in source_of.items() if target not in pairs),
    )


def skipping(names: Collection[str], skip: Collection[str]) -> Callable[[str], bool]:
    """Whether a name is to be left alone, as a function; what is one of `names` is no pattern."""
    exact = {entry for entry in skip if entry in names}
    patterns = [_glob(entry) for entry in skip if entry not in exact]
    return lambda name: name in exact or any(fnmatch.fnmatchcase(name, p) for p in patterns)


def _glob(entry: str) -> str:
    return entry.replace("[", "[[]")  # fnmatch knows sets of characters too; here w[0] is a name


def check_skip(names: Collection[str], skip: Collection[str]) -> None:
    """Refuse what would skip nothing: a slip of the pen there loads what was meant to be left alone.

    Args:
        names: every name of both sides, of variables and of values, in the target's naming.
        skip: as in `Rules`.

    Raises:
        ValueError: entries match no name; all of them are named.
    """
    held = names if isinstance(names, set | frozenset | dict) else set(names)
    # What `optimizer` and `optimizer.*` leave alone together is a thing with all that is in it, which may be nothing.
    skip = [e for e in skip if not (e.endswith(".*") and e[:-2] in skip and e[:-2] in held)]
    unused = [e for e in skip if e not in held and not any(fnmatch.fnmatchcase(name, _glob(e)) for name in held)]
    if unused:
        raise ValueError(
            f"skip= names what neither the checkpoint nor the target holds: {', '.join(map(repr, unused))}"
        )


def renaming(held: Collection[str], rename: Rename) -> Callable[[str], str]:
    """`rename` as a function.

    Args:
        held: every name in the checkpoint, of variables and of values.
        rename: as in `Rules`.

    Raises:
        ValueError: a mapping names what the checkpoint does not hold.
    """
    if rename is None or callable(rename):
        return rename or (lambda name: name)
    mapping = dict(rename)
    prefixes = sorted((key for key in mapping if key.endswith(".")), key=len, reverse=True)

    def key_of(name: str) -> str | None:
        return name if name in mapping else next((p for p in prefixes if name.startswith(p)), None)

    used = {key_of(name) for name in held}
    if unused := [key for key in mapping if key not in used]:
        raise ValueError(f"rename= names what the checkpoint does not hold: {', '.join(map(repr, unused))}")

    def renamed(name: str) -> str:
        key = key_of(name)
        return name if key is None else mapping[key] + name[len(key) :]

    return renamed


def _renamed(held: Collection[str], rename: Rename) -> dict[str, str]:
    if rename is None:
        return {name: name for name in held}
    rename = renaming(held, rename)
    target_of = {name: rename(name) for name in held}
    doubled = [target for target, n in Counter(target_of.values()).items() if n > 1]
    if doubled:
        both = [name for name, target in target_of.items() if target == doubled[0]]
        raise ValueError(f"rename= gives {both[0]!r} and {both[1]!r} the same name {doubled[0]!r}")
    return target_of


def name_problems(match: Match, rules: Rules) -> list[Problem]:
    """The names that `strict` does not allow to be absent on one side, with near misses."""
    problems = []
    if rules.strict != "superset":
        for i, name in enumerate(match.missing):
            near = _near(name, match.unexpected[:_CANDIDATES]) if i < _NEAR_MISSES else []
            hint = f"; did you mean the checkpoint's {near[0]!r}? Then rename={{{near[0]!r}: {name!r}}}" if near else ""
            problems.append(Problem("missing", name, f"{name!r} is not in the checkpoint{hint}"))
    if rules.strict != "subset":
        for name in match.unexpected:
            problems.append(
                Problem("unexpected", name, f"{name!r} is in the checkpoint, and the target has no place for it")
            )
    return problems


def _near(name: str, candidates: Sequence[str]) -> list[str]:
    """The candidate that may have been meant, if there is one.

    Each part of it must be like its counterpart: a moment `opt.0.mu.bias` is no `opt.0.trace.bias` and no parameter, and to load
    one for the other would be a wrong value.
    """
    parts = name.split(".")
    for candidate in difflib.get_close_matches(name, candidates, 3, 0.6):
        others = candidate.split(".")
        if all(map(_is_like, parts, others)) if len(others) == len(parts) else _is_like(name, candidate, 0.85):
            return [candidate]
    return []


def _is_like(a: str, b: str, ratio: float = 0.6) -> bool:
    return a == b or difflib.SequenceMatcher(None, a, b).ratio() >= ratio


def pair_problems(source: Entry, target: Variable, rules: Rules) -> Problem | None:
    """Why a variable of a checkpoint cannot be loaded into its counterpart; None if it can."""
    if source.shape == target.shape and source.dtype == target.dtype:
        return None
    name = target.name
    wanted = f"the target expects {target.dtype} {target.shape}"
    held = f"{name!r}: the checkpoint has {source.dtype} {source.shape}, {wanted}"
    if source.shape != target.shape:
        return Problem("shape", name, f"{held}; rename= or skip= it")
    if rules.cast == "forbid":
        safe = can_widen(source.dtype, target.dtype)
        return Problem(
            "dtype",
            name,
            f"{held}; " + ('cast="widen" converts it' if safe else 'cast="allow" converts it, with rounding'),
        )
    if rules.cast == "widen" and not can_widen(source.dtype, target.dtype):
        return Problem("dtype", name, f'{held}, which cannot hold every value; cast="allow" converts it, with rounding')
    return None


_WIDER = {"F32": ("F64", "C64"), "I32": ("I64", "F64"), "U32": ("I64", "U64", "F64")}


@functools.cache
def can_widen(source: str, target: str) -> bool:
    """Whether every value of one dtype is a value of the other. NumPy's "safe" casts are not that: int64 to float64 is one."""
    if source == target:
        return True
    if ITEMSIZE[source] > 2:
        return target in _WIDER.get(source, ())
    # The smaller types are tried out as a whole; zero keeps its sign.
    bits = np.arange(2 if source == "BOOL" else 1 << 8 * ITEMSIZE[source], dtype=f"u{ITEMSIZE[source]}")
    values = bits.view(dtypes.to_numpy(source))
    made = cast(values, dtypes.to_numpy(target))
    if made.dtype.kind == "c":
        made = made.real
    before, after = cast(values, np.dtype(np.float64)), cast(made, np.dtype(np.float64))
    same = np.array_equal(before, after, equal_nan=True)
    return same and np.array_equal(np.signbit(before[before == 0]), np.signbit(after[before == 0]))


def hints(match: Match, sources: Sequence[str], targets: Sequence[str]) -> list[str]:
    """What would mend many missing names at once: a prefix that one side has and the other has not."""
    if not match.missing or not match.unexpected:
        return []
    held, wanted = set(sources), set(targets)
    first_held, first_wanted = match.unexpected[0], match.missing[0]
    for prefix in _prefixes(first_held):
        if (
            all(name.startswith(prefix) for name in match.unexpected)
            and {n[len(prefix) :] for n in match.unexpected} & wanted
        ):
            return [
                f"All these names of the checkpoint begin with {prefix!r}: rename={{{prefix!r}: ''}} may be what you want."
            ]
    for prefix in _prefixes(first_wanted):
        if all(name.startswith(prefix) for name in match.missing) and {n[len(prefix) :] for n in match.missing} & held:
            return [
                f"All these names of the target begin with {prefix!r}: rename=lambda name: {prefix!r} + name may be what you want."
            ]
    return []


def part_hints(
    missing: Sequence[str], unexpected: Sequence[str], sources: Sequence[str], targets: Sequence[str]
) -> list[str]:
    """What would mend that one side has whole parts that the other has not, such as an optimizer with all that is in it.

    Args:
        missing: names that only the target has, of variables and of values.
        unexpected: names that only the checkpoint has.
        sources: all names of the checkpoint.
        targets: all names of the target.
    """
    if missing and unexpected:
        return []
    if unexpected and (parts := _parts(unexpected, targets)):
        remedy = f"put it into the state, or skip={_skipped(parts, unexpected)}"
        return [
            f'Of {_listed(parts)} the target has nothing: {remedy}; strict="subset" leaves out whatever the target has not.'
        ]
    if missing and (parts := _parts(missing, sources)):
        remedy = f'skip={_skipped(parts, missing)} leaves it as it is; strict="superset" does so with whatever'
        return [f"Of {_listed(parts)} the checkpoint has nothing: {remedy} the checkpoint has not."]
    return []


def _parts(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The first parts of names, if the others have none of them; else none."""
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return [] if {name.partition(".")[0] for name in others} & {*parts} else parts[:_NEAR_MISSES]


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(map(repr, parts))


def _skipped(parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """`skip=` for these parts, and for no other name that begins like one of them."""
    entries = [part for part in parts if part in names]
    return entries + [f"{part}.*" for part in parts if any(name.startswith(f"{part}.") for name in names)]


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) + "." for i in range(1, len(parts))]


class Losses:
    """Looks for values that a cast would change by more than rounding; `found` has a reason for each bad variable."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def inspector(self, name: str, target: str) -> Callable[[np.ndarray], None]:
        """A function that looks at values bound for a variable of the dtype `target`."""
        dtype = dtypes.to_numpy(target)

        def inspect(values: np.ndarray) -> None:
            if name not in self.found and (reason := cast_loss(values, dtype)):
                self.found[name] = reason

        return inspect


def cast_loss(values: np.ndarray, dtype: np.dtype) -> str | None:
    """What a cast would do to some value beyond rounding it; None if nothing.

    A finite number must stay finite, an integer type must hold exactly the numbers there are, a complex number without
    an imaginary part may become real.
    """
    if values.dtype.kind == "c" and dtype.kind != "c":
        if np.any(values.imag != 0):
            return f"{_example(values, values.imag != 0)} has an imaginary part"
        values = values.real
    made = cast(values, dtype)
    if _is_integer(dtype):
        # Back in the old type (in float64, for types that lack the range), the number must be the same.
        wide = values if _is_integer(values.dtype) else cast(values, np.dtype(np.float64))
        bad = cast(made, wide.dtype) != wide
        if _is_integer(values.dtype):
            bad |= (made < 0) != (values < 0)
        elif dtype.kind in "iu":
            bad |= (wide >= 2.0 ** (dtype.itemsize * 8 - (dtype.kind == "i"))) | (wide < np.iinfo(dtype).min)
    else:
        bad = _special(values) != _special(made)
    return f"{_example(values, bad)} does not fit" if np.any(bad) else None


def _is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iub"


def _special(values: np.ndarray) -> np.ndarray:
    """0 where a number is finite, 1 and 2 for infinity and NaN."""
    if _is_integer(values.dtype):
        return np.zeros(values.shape, np.int8)
    plain = values if values.dtype.kind in "fc" else cast(values, np.dtype(np.float32))
    special: np.ndarray = np.isinf(plain) + 2 * np.isnan(plain).astype(np.int8)
    return special


def _example(values: np.ndarray, bad: np.ndarray) -> str:
    return str(values[np.argmax(bad)])
