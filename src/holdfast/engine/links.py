"""Files of the newest checkpoint that the next one may share by hard link: which are like its own, and whether they are sound.

A file is linked only if its header and every block digest equal those of what would be written, so a link is never another
value. What the older file holds on the disk *now* is another question: see `Unchanged` and docs/design/007-linking.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from holdfast.engine import arrays, buffers, devices, fetching
from holdfast.engine.catalog import Found
from holdfast.engine.devices import AnyArray
from holdfast.engine.plan import FilePlan
from holdfast.engine.snapshot import Image
from holdfast.errors import FormatError
from holdfast.format import layout
from holdfast.format.digests import BLOCK_BYTES, file_digest, hasher, hexdigest
from holdfast.format.manifest import File, UnreadEntry
from holdfast.storage import Location, Reader

log = logging.getLogger(__name__)

Unchanged = Literal["link", "verify", "write"]
"""What is done with a file in which nothing has changed: linked; linked if it is read back and found sound; written again."""

_PAGE = 4096


def checked_unchanged(value: Unchanged) -> Unchanged:
    """The option, if it is one.

    Raises:
        ValueError: it is none.
    """
    if value not in get_args(Unchanged):
        raise ValueError(f'unchanged must be "link", "verify" or "write", not {value!r}')
    return value


class Known(NamedTuple):
    """A data file of the newest checkpoint with the same header as one that is to be written."""

    file: File
    first_blocks: tuple[str, ...]
    """The digests of its first variable's blocks, or none: where those differ, the others need no look."""

    def matches(self, digests: Iterator[str], seen: list[str]) -> bool:
        """Whether these are the digests of its blocks. Those that were looked at are added to `seen`."""
        for number, digest in enumerate(digests):
            seen.append(digest)
            if number < len(self.first_blocks) and digest != self.first_blocks[number]:
                return False
        return file_digest(self.file.header_digest or "", seen) == self.file.digest


class Links:
    """The data files of one checkpoint, by the digest of their headers: equal headers hold equal variables."""

    def __init__(
        self,
        folder: Location,
        files: Iterable[File],
        entries: Iterable[UnreadEntry],
        *,
        committed: float = math.inf,
        verify: bool = False,
    ) -> None:
        self._folder, self._committed, self._verify = folder, committed, verify
        self._files = {file.header_digest: file for file in files}
        self._entries = {entry.name: entry for entry in entries}

    def like(self, plan: FilePlan) -> Known | None:
        """The file with the same header; whether its data are the same is not known yet."""
        file = self._files.get(hexdigest(plan.header))
        if file is None or file.size != plan.size:
            return None
        try:
            blocks = tuple(block for chunk in self._entries[plan.first].chunks for block in chunk.blocks)
        except (FormatError, LookupError):
            blocks = ()
        return Known(file, blocks)

    def find(self, plan: FilePlan, values: Sequence[AnyArray], image: Image | None) -> bool:
        """Whether there is a file with the same bytes."""
        known = self.like(plan)
        return known is not None and known.matches(block_digests(plan, values, image), [])

    def link(self, known: Known, target: Location, blocks: Sequence[tuple[int, str]]) -> bool:
        """Give the file a second name; False if that cannot be done, or must not: then it is to be written.

        Args:
            known: the file.
            target: its second name.
            blocks: where each block ends, and its digest.
        """
        source = self._folder / known.file.name
        try:
            if self._verify and not _is_sound(source, known.file, blocks):
                log.warning("%s is damaged; what it held is written again, from memory", source)
                return False
            return source.store == target.store and self._is_linked(known.file, source, target)
        except OSError as error:  # deleted by a rotation meanwhile, or the system does not like it
            log.info("cannot link %s (%s); it is written again", source, error)
            return False

    def _is_linked(self, file: File, source: Location, target: Location) -> bool:
        if not source.store.link(source.path, target.path):
            return False
        there = target.store.stat(target.path)
        if there is not None and (there.kind, there.size) == ("file", file.size) and there.modified <= self._committed:
            return True
        target.store.remove(target.path)  # somebody has put something else there since it was looked at
        return False


def links_to(found: Found | None, unchanged: Unchanged) -> Links | None:
    """What may be shared with a checkpoint; None if nothing may. Never an error: all can be written as well."""
    if found is None or unchanged == "write":
        return None
    try:
        entries = {entry.name: entry for entry in found.folder.store.list(found.folder.path)}
        # The manifest is written last. What was changed after it is not what was saved, whatever it may be.
        committed = entries[layout.MANIFEST].modified
        files = [
            file
            for file in found.manifest.files
            if file.header_digest is not None and entries[file.name].modified <= committed
        ]
    except (OSError, LookupError) as error:
        log.info("nothing of %s can be linked (%s); everything is written", found.folder, error)
        return None
    return Links(found.folder, files, found.manifest.variables, committed=committed, verify=unchanged == "verify")


def block_ends(plan: FilePlan, values: Sequence[AnyArray]) -> Iterator[int]:
    """Where each block of a file ends."""
    at = len(plan.header)
    for i in plan.members:
        stop = at + values[i].nbytes
        yield from (min(start + BLOCK_BYTES, stop) for start in range(at, stop, BLOCK_BYTES))
        at = stop


def block_digests(plan: FilePlan, values: Sequence[AnyArray], image: Image | None) -> Generator[str]:
    """The digests of a file's blocks in their order, each made when it is asked for.

    Args:
        plan: of the file.
        values: the arrays that the plan's `members` count.
        image: the file, if there is a copy of the values already.
    """
    if image is not None:
        start = len(plan.header)
        for digest, end in zip(image.digests, block_ends(plan, values), strict=True):
            yield digest or hexdigest(image.memory[start:end].data)
            start = end
        return
    members = [values[i] for i in plan.members]
    if not devices.are_local(members):
        yield from fetching.block_digests(plan, values)
        return
    for value in members:
        flat, itemsize = arrays.flat_bytes(value), value.dtype.itemsize
        for start in range(0, value.nbytes, BLOCK_BYTES):
            stop = min(start + BLOCK_BYTES, value.nbytes)
            if flat is not None:
                yield hexdigest(flat[start:stop].data)
            else:
                yield hexdigest(arrays.gather(value, start // itemsize, stop // itemsize).data)


def _is_sound(source: Location, file: File, blocks: Sequence[tuple[int, str]]) -> bool:
    """Whether the file holds on the disk what was written to it: all of it is read, past the page cache."""
    reader = source.store.open(source.path)
    buffer = buffers.take()
    try:
        expected = iter([(file.header_size or 0, file.header_digest), *blocks])
        end, wanted = next(expected)
        digest = hasher()
        for at, piece in _pieces(reader, buffer):
            done = 0
            while done < len(piece):
                length = min(len(piece), end - at) - done
                digest.update(piece[done : done + length])
                done += length
                if at + done == end:
                    if digest.hexdigest() != wanted:
                        return False
                    digest = hasher()
                    end, wanted = next(expected, (file.size + 1, ""))
        return reader.size == file.size and end == file.size + 1
    finally:
        buffers.give(buffer)
        reader.close()


def _pieces(reader: Reader, buffer: buffers.Buffer) -> Iterator[tuple[int, memoryview]]:
    for at in range(0, reader.size, buffers.STAGING_BYTES):
        length = min(buffers.STAGING_BYTES, reader.size - at)
        count = reader.read_direct(buffer.view[: -(-length // _PAGE) * _PAGE], at)
        yield at, buffer.view[: min(count, length)]
        if count < length:
            return
