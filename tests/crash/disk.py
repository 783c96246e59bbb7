"""Disk model: which trees a file system may show after a power cut, given the calls before it. Pure: no I/O.

The model decides what an unsynced call may come to; it knows nothing of checkpoints. It grants what a careful program
may assume of any POSIX file system, and no more:

* `fsync` of a file makes its data and its size durable, not its name. `fsync` of a folder makes the names in that
  folder durable, neither the data behind them nor the folder's own name in its parent.
* Everything else is lost or kept on its own, in any order: each write, each change of size, each change of a folder.
  A file whose name survived alone is empty.
* One call that changes two names of one folder (rename, exchange) happens as a whole or not at all. A rename from one
  folder into another has no such promise, so the model refuses it.
* A write can be torn: a prefix of any length arrives. The rest is missing (the file is shorter), zero (the size
  arrived, the blocks did not: delayed allocation), or garbage (blocks of a deleted file).
* What is durable stays: bit rot is another test's concern.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

ROOT = 0
Snapshot = dict[str, bytes | None]  # path below the root -> content; None: a folder


@dataclass(frozen=True, slots=True)
class Entries:
    """One atomic change of a folder: each name gets an inode, or (None) goes away. `born` makes that inode first."""

    folder: int
    changes: tuple[tuple[str, int | None], ...]
    born: Literal["file", "folder"] | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that arrive at an offset of a file and extend it if they must."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file gets a size: by truncation, or (`grow_only`) by reserving space."""

    inode: int
    size: int
    grow_only: bool = False


@dataclass(frozen=True, slots=True)
class Sync:
    """What was done to this file or folder so far is durable."""

    inode: int


@dataclass(frozen=True, slots=True)
class Note:
    """What the program had reported when the log had come so far. No effect on the disk."""

    about: object


Effect = Entries | Write | Resize
Operation = Effect | Sync | Note


@dataclass(frozen=True, slots=True)
class Torn:
    """The fate of a write of which only the first `kept` bytes arrived."""

    kept: int
    rest: Literal["missing", "zeros", "garbage"]


Fate = Literal["kept", "lost"] | Torn


@dataclass(slots=True)
class Tree:
    """Inodes and their content. Unreachable ones stay: they are files that were unlinked or never linked."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> Tree:
        """A tree of its own; contents are immutable and shared."""
        return Tree({inode: dict(names) for inode, names in self.folders.items()}, dict(self.files))

    def born(self, effect: Effect) -> None:
        """Make the inode of an effect, empty and without a name."""
        if isinstance(effect, Entries) and effect.born is not None:
            inode = effect.changes[0][1]
            assert inode is not None
            if effect.born == "file":
                self.files[inode] = b""
            else:
                self.folders[inode] = {}

    def apply(self, effect: Effect, fate: Fate = "kept") -> None:
        """Do the effect, or what its fate left of it."""
        if fate == "lost":
            return
        if isinstance(effect, Entries):
            names = self.folders[effect.folder]
            for name, inode in effect.changes:
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
            return
        content = self.files[effect.inode]
        if isinstance(effect, Write):
            data = effect.data if isinstance(fate, str) else _torn(effect.data, fate)
            if data:
                head = content[: effect.offset].ljust(effect.offset, b"\0")
                content = head + data + content[effect.offset + len(data) :]
        elif effect.size > len(content) or not effect.grow_only:
            content = content[: effect.size].ljust(effect.size, b"\0")
        self.files[effect.inode] = content

    def snapshot(self) -> Snapshot:
        """What a program finds that walks the tree from its root."""
        found: Snapshot = {}
        walk = [("", ROOT)]
        while walk:
            folder, inode = walk.pop()
            for name, child in self.folders[inode].items():
                path = folder + name
                if child in self.folders:
                    found[path] = None
                    walk.append((path + "/", child))
                else:
                    found[path] = self.files[child]
        return found


def _torn(data: bytes, fate: Torn) -> bytes:
    lost = len(data) - fate.kept
    match fate.rest:
        case "missing":
            return data[: fate.kept]
        case "zeros":
            return data[: fate.kept] + bytes(lost)
        case "garbage":
            return data[: fate.kept] + b"\xa5" * lost


class Disk:
    """A durable tree, and the effects since then that a power cut may lose."""

    def __init__(self, durable: Tree) -> None:
        self.durable = durable.copy()
        self.pending: list[Effect] = []

    def run(self, operation: Operation) -> None:
        """Take in the next operation of a log."""
        if isinstance(operation, Sync):
            synced = [effect for effect in self.pending if _owner(effect) == operation.inode]
            self.pending = [effect for effect in self.pending if _owner(effect) != operation.inode]
            for effect in synced:
                self.durable.apply(effect)
        elif not isinstance(operation, Note):
            self.durable.born(operation)
            self.pending.append(operation)

    def after_crash(self, fates: Sequence[Fate]) -> Snapshot:
        """The tree that is found when each pending effect has met its fate."""
        tree = self.durable.copy()
        for effect, fate in zip(self.pending, fates, strict=True):
            tree.apply(effect, fate)
        return tree.snapshot()

    def fates(self, rng: random.Random, subsets: int, singles: int) -> Iterator[list[Fate]]:
        """The crashes worth trying here: the plain ones, at most `singles` single losses, `subsets` drawn at random."""
        pending = self.pending
        yield ["kept"] * len(pending)  # the process died, the machine lives
        if not pending:
            return
        yield ["lost"] * len(pending)
        yield ["kept" if isinstance(effect, Entries) else "lost" for effect in pending]
        yield ["lost" if isinstance(effect, Entries) else "kept" for effect in pending]
        yield [Torn(0, "zeros") if isinstance(effect, Write) else "kept" for effect in pending]

        if isinstance(pending[-1], Write):
            for torn in _tears(len(pending[-1].data)):
                yield [*itertools.repeat("kept", len(pending) - 1), torn]

        chosen = range(len(pending)) if len(pending) <= singles else rng.sample(range(len(pending)), singles)
        for position in chosen:
            yield ["lost" if i == position else "kept" for i in range(len(pending))]
            yield ["kept" if i == position else "lost" for i in range(len(pending))]

        for _ in range(subsets):
            yield [_drawn(effect, rng) for effect in pending]


def _owner(effect: Effect) -> int:
    return effect.folder if isinstance(effect, Entries) else effect.inode


def _tears(size: int) -> Iterator[Torn]:
    """Sectors and a length that is none; half of it; nothing but the size."""
    for kept in sorted({0, 512, 1000, size // 2, size - 1}):
        if kept < size:
            yield Torn(kept, "missing")
            yield Torn(kept, "zeros")
            yield Torn(kept, "garbage")


def _drawn(effect: Effect, rng: random.Random) -> Fate:
    if isinstance(effect, Write) and rng.random() < 0.25:
        return Torn(rng.randrange(len(effect.data) + 1), rng.choice(("missing", "zeros", "garbage")))
    return rng.choice(("kept", "lost"))


def digest(snapshot: Snapshot) -> bytes:
    """Equal for equal snapshots, so that a state is checked once however many crashes lead to it."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(snapshot):
        content = snapshot[path]
        state.update(f"{path}\0{'folder' if content is None else len(content)}\0".encode())
        state.update(content or b"")
    return state.digest()


@dataclass(frozen=True, slots=True)
class CrashState:
    """A tree that may be found, and how it comes about."""

    snapshot: Snapshot
    about: object  # of the last note before the crash
    done: Sequence[Operation]
    pending: Sequence[Effect]
    fates: Sequence[Fate]

    def story(self) -> str:
        """The crash in words, for the message of a failed check."""
        done = [operation for operation in self.done if not isinstance(operation, Note)]
        last = describe(done[-1]) if done else "nothing"
        fates = zip(self.pending, self.fates, strict=True)
        met = [f"({describe(effect)}) {fate}" for effect, fate in fates if fate != "kept"]
        return f"crash after {len(done)} operations, the last: ({last}); unsynced: {'; '.join(met) or 'all kept'}"


def crash_states(
    start: Tree, log: Sequence[Operation], *, seed: int, subsets: int = 4, singles: int = 16, first: int = 0
) -> Iterator[CrashState]:
    """Every distinct state after a crash at every prefix of the log that has at least `first` operations.

    A state is yielded again for another note: what was promised by then decides whether it is right.
    """
    rng = random.Random(seed)
    disk = Disk(start)
    about: object = None
    seen: set[tuple[bytes, int]] = set()
    for prefix in range(len(log) + 1):
        if prefix > 0:
            operation = log[prefix - 1]
            disk.run(operation)
            if isinstance(operation, Note):
                about = operation.about
        if prefix < first:
            continue
        for fates in disk.fates(rng, subsets, singles):
            snapshot = disk.after_crash(fates)
            key = (digest(snapshot), id(about))
            if key not in seen:
                seen.add(key)
                yield CrashState(snapshot, about, log[:prefix], tuple(disk.pending), fates)


def describe(operation: Operation) -> str:
    """The operation in a few words, without its bytes."""
    match operation:
        case Entries(folder, changes, _):
            return f"folder {folder}: " + ", ".join(f"{name} -> {inode or 'gone'}" for name, inode in changes)
        case Write(inode, offset, data):
            return f"file {inode}: {len(data)} bytes at {offset}"
        case Resize(inode, size, grow_only):
            return f"file {inode}: {'reserve' if grow_only else 'resize to'} {size}"
        case Sync(inode):
            return f"sync {inode}"
        case Note(about):
            return f"note: {about}"
