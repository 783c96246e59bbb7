"""A folder that stands alone: how it is replaced as a whole, and what of others' it keeps (docs/format.md, section 6)."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.engine import catalog, commit
from holdfast.errors import ForeignFolderError, FormatError
from holdfast.format import layout
from holdfast.format.manifest import from_bytes
from holdfast.storage import Location


def replace_folder(
    target: Location, needed_bytes: int, fill: Callable[[commit.Attempt], bytes], *, check_space: bool = True
) -> None:
    """Make a folder that stands alone: at every instant there is the old one or the new one.

    Args:
        target: its place.
        needed_bytes: about how much will be written.
        fill: writes the files into an attempt, and returns the manifest's bytes.
        check_space: whether to refuse at once if there is less space.

    Raises:
        ForeignFolderError: the folder is not Holdfast's own; what it holds is untouched.
    """
    with commit.storage_errors(f"cannot write {target}"):
        store = target.store
        if store.stat(target.path) is None and (previous := catalog.previous_of(target)) is not None:
            store.rename(previous.path, target.path)  # with what somebody has laid beside it
        foreign_files(target)  # now, so that nothing is written in vain
        commit.make_folders(target.parent)
        if store.stat(target.path) is None:
            commit.sync_above(target.parent)
        commit.sweep(target.parent, target.name)
    with commit.attempt(target.parent, target.name, needed_bytes, in_advance=check_space) as attempt:
        manifest = fill(attempt)
        with commit.storage_errors(f"cannot take over what lies beside {target}"):
            for name in foreign_files(target):  # as it is after the time that writing took
                copy_file(target / name, attempt.folder / name)
        attempt.commit_alone(target, manifest)


def foreign_files(target: Location) -> list[str]:
    """Names of the files in a folder that is to be replaced which are not Holdfast's, and are to be kept.

    Raises:
        ForeignFolderError: the folder as a whole is not Holdfast's own, or holds what cannot be carried over.
    """
    store = target.store
    if layout.serial_of(target.name) is not None:
        raise ForeignFolderError(
            f"{target} has the name of a checkpoint of a run; choose another for a folder of its own"
        )
    entry = store.stat(target.path)
    if entry is None:
        return []
    if entry.kind != "folder":
        raise ForeignFolderError(f"{target} is a file; choose a folder of its own for the save, or remove it")
    entries = {e.name: e for e in store.list(target.path)}
    if not entries:
        return []
    if layout.MANIFEST not in entries:
        if catalog.candidates(target):
            raise ForeignFolderError(
                f"{target} is a run folder, whose checkpoints are never replaced. Choose another folder"
            )
        raise ForeignFolderError(
            f"{target} is not empty and holds no save of Holdfast; it is never replaced. Choose another folder"
        )
    ours = {layout.MANIFEST}
    try:
        manifest = from_bytes(catalog.read_small(target / layout.MANIFEST), str(target / layout.MANIFEST))
        ours |= {file.name for file in manifest.files}
    except FormatError as error:
        raise ForeignFolderError(
            f"{target} holds a manifest.json that is not a sound one of Holdfast ({error}); remove it yourself"
        ) from error
    if manifest.content == "checkpoint":
        raise ForeignFolderError(
            f"{target} is a checkpoint of a run; save_params never replaces one. Choose another folder"
        )
    foreign = [e for e in entries.values() if e.name not in ours]
    if stuck := [e.name for e in foreign if e.kind != "file" or layout.is_listable(e.name)]:
        raise ForeignFolderError(
            f"{target} holds {', '.join(sorted(stuck))} beside the save; they are not Holdfast's own, and cannot be kept. Move them"
        )
    return [e.name for e in foreign]


def copy_file(source: Location, target: Location) -> None:
    """Give a file a second name, or copy and sync it where that is not possible."""
    if source.store != target.store or not source.store.link(source.path, target.path):
        reader = source.store.open(source.path)
        try:
            writer = target.store.create(target.path, reader.size)
            try:
                for at in range(0, reader.size, 8 << 20):
                    with reader.view(at, min(8 << 20, reader.size - at)) as view:
                        writer.write_at(view, at)
                    reader.forget(at, min(8 << 20, reader.size - at))
                writer.sync()
            finally:
                writer.close()
        finally:
            reader.close()
