"""Promise 1 as a check: what must hold of a folder that a crash left behind, given what had been reported before it.

A *note* (`RunNote`, `ParamsNote`) says what had been reported; the recorder writes it into its log. The checks go
through the public calls only, as a program would that starts again after the crash: list, load, verify, and save the
next one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import holdfast
from holdfast.storage import Location, MemoryStore

from .disk import Snapshot

RECOVERED = 900  # the step that is saved after the crash
HIDDEN = (".attempt-", ".trash-", ".previous-")


class Violation(AssertionError):
    """Promise 1 does not hold."""


def state_of(step: int) -> dict[str, Any]:
    """A small training state that differs everywhere from that of another step, so that a mixture of two is noticed.

    One array is longer than several blocks of 4,096 bytes, one is shorter than one, one is frozen (the same in every
    step, in a file of its own), and the random generator and the counter go into the trainer's file.
    """
    rng = np.random.default_rng(step)
    return {
        "model": holdfast.parameters({"w": rng.standard_normal((37, 91)).astype(np.float32), "b": rng.random(5)}),
        "frozen": holdfast.parameters({"e": np.arange(1200, dtype=np.int64) * 3}, trainable=False),
        "optimizer": {"m": rng.integers(0, 1 << 60, 700), "count": step},
        "rng": rng,
    }


@functools.cache
def contents_of(step: int) -> dict[str, object]:
    """What a load of that step's state must give."""
    return _contents(state_of(step))


def blank() -> dict[str, Any]:
    """A state of the same names and shapes that equals none of them."""
    state = state_of(0xBAD)
    for array in _arrays(state).values():
        array[...] = 0
    return state


def _arrays(state: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in state.items():
        tree = getattr(value, "tree", value)
        if isinstance(tree, dict):
            found |= _arrays(tree, f"{prefix}{name}.")
        elif isinstance(tree, np.ndarray):
            found[prefix + name] = tree
    return found


def _contents(state: dict[str, Any]) -> dict[str, object]:
    contents: dict[str, object] = {name: array.tobytes() for name, array in _arrays(state).items()}
    return contents | {"count": state["optimizer"]["count"], "rng": state["rng"].bit_generator.state}


def _parameters(contents: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in contents.items() if name.startswith(("model.", "frozen."))}


@dataclass(frozen=True)
class RunNote:
    """What is known about a run folder: by now, or (for a call in progress) at any moment of this call.

    Attributes:
        saved: serial -> the step whose state it holds; also the one being saved. Nothing else may be listed.
        required: these must be there.
        until: (old, new): the old one must be there unless the new one is.
        pinned: these must outlive a rotation as well.
        recovery_keeps: max_num_checkpoints of the save after the crash.
    """

    saved: Mapping[int, int]
    required: frozenset[int] = frozenset()
    until: tuple[tuple[int, int], ...] = ()
    pinned: frozenset[int] = frozenset()
    recovery_keeps: int = 50

    def saving(self, step: int, retires: tuple[int, ...] = ()) -> RunNote:
        """The note for the duration of a save, which retires these once the new one is durable."""
        serial = max(self.saved, default=-1) + 1
        until = tuple((old, serial) for old in retires)
        return replace(self, saved={**self.saved, serial: step}, required=self.required - set(retires), until=until)

    def done(self) -> RunNote:
        """The note once that save has returned."""
        return replace(self, required=self.required | {max(self.saved)}, until=())


@dataclass(frozen=True)
class ParamsNote:
    """What is known about a folder of parameters.

    Attributes:
        allowed: the steps of which it may hold the parameters.
        required: whether it must be there at all.
    """

    allowed: frozenset[int]
    required: bool = True


@dataclass
class Tally:
    """How much was tried, by kind and by scenario, for the summary."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, kind: str, scenario: str, count: int) -> None:
        """Count more of a kind."""
        scenarios = self.counts.setdefault(kind, {})
        scenarios[scenario] = scenarios.get(scenario, 0) + count


TALLY = Tally()


def in_memory(snapshot: Snapshot, *, exchange: bool = True) -> Location:
    """The root folder of a memory store that holds the state."""
    store = MemoryStore(exchange=exchange)
    root = store.at("disk")
    _ensure(root)
    for path in sorted(snapshot):
        content, where = snapshot[path], f"{root.path}/{path}"
        if content is None:
            store.make_folder(where)
        else:
            writer = store.create(where, len(content))
            writer.write_at(memoryview(content), 0)
            writer.truncate(len(content))
            writer.close()
    return root


def _ensure(root: Location) -> None:
    if root.path not in ("", "/") and root.store.stat(root.path) is None:
        _ensure(root.parent)
        root.store.make_folder(root.path)


def names_below(root: Location) -> dict[str, int]:
    """Every path below a folder with its size."""
    found: dict[str, int] = {}
    for entry in root.store.list(root.path):
        found[entry.name] = entry.size if entry.kind == "file" else -1
        if entry.kind == "folder":
            found |= {f"{entry.name}/{name}": size for name, size in names_below(root / entry.name).items()}
    return found


def check_run(root: Location, folder: str, note: RunNote) -> None:
    """Promise 1 for the run folder of this name below the root, recovery included.

    Raises:
        Violation: it does not hold.
    """
    runs = Location(root.store, f"{root.path}/{folder}")
    before = names_below(root)
    listed = check_listed(runs, note)
    _demand(names_below(root) == before, "a reader changed the folder")
    _check_recovery(runs, note, listed)


def check_listed(runs: Location, note: RunNote) -> list[int]:
    """The serials of a run, after a check that each of them is whole, and that none is missing.

    Raises:
        Violation: it does not hold.
    """
    listed = holdfast.serials(runs)
    _demand(not (lost := note.required - set(listed)), f"reported complete and not listed: {sorted(lost)} of {listed}")
    for old, new in note.until:
        _demand(old in listed or new in listed, f"{old} was retired before {new} was durable")
    _demand(set(listed) <= set(note.saved), f"listed and never saved: {sorted(set(listed) - set(note.saved))}")
    _demand(listed == sorted(listed), f"not in order: {listed}")
    _demand(holdfast.latest_serial(runs) == (listed[-1] if listed else None), "latest_serial is not the last listed")
    for serial in listed:
        _loads(runs, serial, note.saved[serial])
        _succeeds(f"verify {serial}", lambda serial=serial: holdfast.verify(runs, serial=serial))
    if listed:
        _loads(runs, None, note.saved[listed[-1]])
    else:
        _raises_not_found(lambda: holdfast.load_checkpoint(blank(), runs))
    return listed


def _check_recovery(runs: Location, note: RunNote, listed: list[int]) -> None:
    serial = _succeeds(
        "the next save",
        lambda: holdfast.save_checkpoint(
            state_of(RECOVERED), runs, trainer_args={"step": RECOVERED}, max_num_checkpoints=note.recovery_keeps
        ),
    )
    _demand(serial not in note.saved or serial not in listed, f"serial {serial} was given twice")
    _demand(all(serial > old for old in listed), f"the next save got serial {serial} after {listed}")
    left = holdfast.serials(runs)
    kept = set(listed) if len(listed) < note.recovery_keeps else note.pinned
    _demand(kept <= set(left), f"the next save lost {sorted(kept - set(left))}")
    _demand(set(left) <= {*listed, serial}, f"the next save made {left} of {listed}")
    _loads(runs, None, RECOVERED)
    for old in left:
        _succeeds(f"verify {old} after the next save", lambda old=old: holdfast.verify(runs, serial=old))
    hidden = [entry.name for entry in runs.store.list(runs.path) if entry.name.startswith(HIDDEN)]
    _demand(not hidden, f"left behind by the next save: {hidden}")


def check_params(root: Location, folder: str, note: ParamsNote) -> None:
    """Promise 1 for the folder of parameters of this name below the root: the old or the new, whole; and recovery.

    Raises:
        Violation: it does not hold.
    """
    where = Location(root.store, f"{root.path}/{folder}")
    before = names_below(root)
    check_loaded(where, note)
    _demand(names_below(root) == before, "a reader changed the folder")

    _succeeds("the next save_params", lambda: holdfast.save_params(state_of(RECOVERED), where))
    check_loaded(where, ParamsNote(allowed=frozenset({RECOVERED})))
    hidden = [entry.name for entry in where.store.list(where.parent.path) if entry.name.startswith(HIDDEN)]
    _demand(not hidden, f"left behind by the next save_params: {hidden}")


def check_loaded(where: Location, note: ParamsNote) -> None:
    """Check that the parameters in a folder are one of those allowed, whole.

    Raises:
        Violation: they are not.
    """
    target = blank()
    try:
        holdfast.load_params(target, where)
    except holdfast.CheckpointNotFoundError as error:
        if note.required:
            raise Violation(f"no parameters are found: {error}") from error
        _demand(_contents(target) == _contents(blank()), "a load that failed changed its target")
        return
    except Exception as error:
        raise Violation(f"the parameters do not load: {error!r}") from error
    found = _parameters(_contents(target))
    _demand(
        any(found == _parameters(contents_of(step)) for step in note.allowed),
        f"the parameters are not those of one of the steps {sorted(note.allowed)}",
    )
    _succeeds("verify", lambda: holdfast.verify(where))


def _loads(runs: Location, serial: int | None, step: int) -> None:
    target = blank()
    what = f"load_checkpoint(serial={serial})"
    report = _succeeds(what, lambda: holdfast.load_checkpoint(target, runs, serial=serial))
    _demand(_contents(target) == contents_of(step), f"{what} gave something else than what was saved")
    _demand(report.trainer_args == {"step": step}, f"{what} gave the trainer_args {report.trainer_args}")


def _raises_not_found(call: Callable[[], object]) -> None:
    try:
        call()
    except holdfast.CheckpointNotFoundError:
        return
    except Exception as error:
        raise Violation(f"CheckpointNotFoundError was due, not {error!r}") from error
    raise Violation("something was loaded from a folder that lists nothing")


def _succeeds(what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise Violation(f"{what} failed: {error!r}") from error


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)
