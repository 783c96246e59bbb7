"""What is in a run folder: checkpoints, what looks like one and cannot be used, and what dead writers left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.cli.texts import reason
from holdfast.engine import catalog
from holdfast.engine.catalog import Found
from holdfast.engine.commit import list_or_empty, storage_errors
from holdfast.errors import FormatError, HoldfastError
from holdfast.format import layout
from holdfast.storage import Location


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that is named like a checkpoint and is none."""

    serial: int
    folder: Location
    error: HoldfastError

    @property
    def reason(self) -> str:
        """Why it cannot be used, without its path."""
        return reason(self.error, str(self.folder))

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "serial": self.serial,
            "path": str(self.folder),
            "type": type(self.error).__name__,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Leftover:
    """A hidden folder that is being written or deleted, or that a crash left so."""

    name: str
    kind: str
    modified: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in a run folder. Serials ascend."""

    found: list[Found]
    unusable: list[Unusable]
    leftovers: list[Leftover]


def survey(run: Location) -> Survey:
    """Look at everything in a run folder that is ours. Reads only, and takes no lock."""
    found, unusable, leftovers = [], [], []
    with storage_errors(f"cannot list {run}"):
        for serial, is_folder in reversed(catalog.candidates(run)):
            folder = run / layout.checkpoint_folder(serial)
            try:
                if not is_folder:
                    raise FormatError(f"{folder} is not a folder")
                manifest = catalog.read_outline(folder)
            except HoldfastError as error:
                if run.store.stat(folder.path) is not None:  # else rotation has deleted it meanwhile
                    unusable.append(Unusable(serial, folder, error))
                continue
            found.append(Found(serial, folder, manifest, run.store.stat((folder / layout.PINNED).path) is not None))
        for entry in list_or_empty(run):
            label = layout.hidden_label(entry.name)
            if label is not None and label.isascii() and label.isdigit():
                leftovers.append(Leftover(entry.name, entry.name[1:].partition("-")[0], entry.modified))
    return Survey(found, unusable, sorted(leftovers, key=lambda left: left.name))


def newer_unusable(run: Location, serial: int) -> list[Unusable]:
    """Unusable checkpoints above a serial."""
    return [bad for bad in survey(run).unusable if bad.serial > serial]
