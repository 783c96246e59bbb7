"""Files of the newest checkpoint that the next one may share by hard link: which are like its own, and whether they are sound.

A file is linked only if its header and every block digest equal those of what would be written, so a link is never another
value. What the older file holds on the disk *now* is another question: see `Unchanged` and docs/design/007-linking.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from holdfast.engine import arrays, buffers
from holdfast.engine.catalog import Found, read_manifest
from holdfast.engine.pause import collection_paused
from holdfast.engine.plan import FilePlan
from holdfast.errors import HoldfastError
from holdfast.format import layout
from holdfast.format.digests import BLOCK_BYTES, hasher, hexdigest
from holdfast.format.manifest import File, Manifest, placed
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
    """A data file of the newest checkpoint, and what its bytes were when it was written."""

    file: File
    blocks: tuple[str, ...]
    ends: tuple[int, ...]
    """Where each block ends; the first begins at the file's `header_size`."""

    def matches(self, digests: Iterator[str], seen: list[str]) -> bool:
        """Whether these are the digests of its blocks; the first that differs decides. Those looked at are added to `seen`."""
        for expected in self.blocks:
            seen.append(next(digests))
            if seen[-1] != expected:
                return False
        return True


class Links:
    """The data files of one checkpoint, by the digest of their headers: equal headers hold equal variables."""

    def __init__(self, folder: Location, known: Sequence[Known] = (), *, verify: bool = False) -> None:
        self._folder, self._verify = folder, verify
        self._known = {one.file.header_digest: one for one in known}

    def like(self, plan: FilePlan) -> Known | None:
        """The file with the same header; whether its data are the same is not known yet."""
        known = self._known.get(hexdigest(plan.header))
        return known if known is not None and known.file.size == plan.size else None

    def find(self, plan: FilePlan, values: Sequence[np.ndarray], image: np.ndarray | None) -> Known | None:
        """The file with the same bytes."""
        known = self.like(plan)
        return known if known is not None and known.matches(block_digests(plan, values, image), []) else None

    def link(self, known: Known, target: Location) -> bool:
        """Give the file a second name; False if that cannot be done, or must not: then it is to be written."""
        source = self._folder / known.file.name
        try:
            if self._verify and not _is_sound(source, known):
                log.warning("%s is damaged; what it held is written again, from memory", source)
                return False
            return source.store == target.store and source.store.link(source.path, target.path)
        except OSError as error:  # deleted by a rotation meanwhile, or the system does not like it
            log.info("cannot link %s (%s); it is written again", source, error)
            return False


def links_to(found: Found | None, unchanged: Unchanged) -> Links | None:
    """What may be shared with a checkpoint; None if nothing may. Never an error: all can be written as well."""
    if found is None or unchanged == "write":
        return None
    try:
        with collection_paused():
            known = list(_known(read_manifest(found.folder)))
        entries = {entry.name: entry for entry in found.folder.store.list(found.folder.path)}
        # The manifest is written last. What was changed after it is not what was saved, whatever it may be.
        committed = entries[layout.MANIFEST].modified
        untouched = [k for k in known if (e := entries.get(k.file.name)) and e.modified <= committed]
    except (HoldfastError, OSError, LookupError) as error:
        log.info("nothing of %s can be linked (%s); everything is written", found.folder, error)
        return None
    return Links(found.folder, untouched, verify=unchanged == "verify")


def _known(manifest: Manifest) -> Iterator[Known]:
    """The data files of a checkpoint."""
    for file, chunks in zip(manifest.files, placed(manifest), strict=True):
        if file.header_size is not None:
            ends = [min(at + BLOCK_BYTES, stop) for start, stop, *_ in chunks for at in range(start, stop, BLOCK_BYTES)]
            yield Known(file, tuple(block for *_, chunk in chunks for block in chunk.blocks), tuple(ends))


def block_digests(plan: FilePlan, values: Sequence[np.ndarray], image: np.ndarray | None) -> Iterator[str]:
    """The digests of a file's blocks in their order, each made when it is asked for.

    Args:
        plan: of the file.
        values: the arrays that the plan's `members` count.
        image: the bytes of the file, if there are such already.
    """
    at = len(plan.header)
    memory = None if image is None else image.data
    for i in plan.members:
        value = values[i]
        flat, itemsize = arrays.flat_bytes(value) if memory is None else None, value.dtype.itemsize
        for start in range(0, value.nbytes, BLOCK_BYTES):
            stop = min(start + BLOCK_BYTES, value.nbytes)
            if memory is not None:
                yield hexdigest(memory[at + start : at + stop])
            elif flat is not None:
                yield hexdigest(flat[start:stop].data)
            else:
                yield hexdigest(arrays.gather(value, start // itemsize, stop // itemsize).data)
        at += value.nbytes


def _is_sound(source: Location, known: Known) -> bool:
    """Whether the file holds on the disk what was written to it: all of it is read, past the page cache."""
    file = known.file
    reader = source.store.open(source.path)
    buffer = buffers.take()
    try:
        if reader.size != file.size:
            return False
        expected = iter([(file.header_size or 0, file.header_digest), *zip(known.ends, known.blocks, strict=True)])
        end, wanted = next(expected)
        digest = hasher()
        for at, piece in _pieces(reader, buffer):
            done = 0
            while done < len(piece):
                length = min(len(piece) - done, end - at - done)
                digest.update(piece[done : done + length])
                done += length
                if at + done == end:
                    if digest.hexdigest() != wanted:
                        return False
                    digest = hasher()
                    end, wanted = next(expected, (file.size + 1, ""))
        return end == file.size + 1
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
