"""`holdfast export`: the parameters of a checkpoint as a folder of their own."""

from __future__ import annotations

import os
from typing import Any

import holdfast
from holdfast.cli.exits import DONE, UsageError
from holdfast.cli.output import Output
from holdfast.cli.targets import target
from holdfast.cli.texts import count, located, size, tidy
from holdfast.engine import catalog
from holdfast.engine.commit import storage_errors
from holdfast.errors import HoldfastError
from holdfast.format import layout
from holdfast.storage import Location, resolve


def export(path: str, destination: str, out: Output) -> int:
    """Export by hard links, or by copies where links are not possible."""
    chosen = target(path)
    if chosen.kind == "file":
        raise UsageError(f"{path} is a file; only a checkpoint can be exported")
    if layout.serial_of(os.path.basename(os.path.realpath(destination))) is not None:
        raise UsageError(f"{destination} is the name of a run's checkpoint, and would be taken for one; choose another")
    with storage_errors(f"cannot read {chosen.path}"):
        # Found once, so that what is reported is what was exported even if a save comes between.
        source, serial = catalog.locate(resolve(chosen.path), chosen.serial)
    try:
        names = holdfast.export(source, destination)
    except HoldfastError:
        raise
    except ValueError as error:  # it holds no parameters
        raise UsageError(str(error)) from error
    target_folder = resolve(destination)
    files = [_file(source / name, target_folder / name) for name in names]
    total = sum(file["bytes"] for file in files)
    linked = sum(file["linked"] for file in files)
    out.document({"source": str(source), "serial": serial, "path": str(target_folder), "files": files, "bytes": total})
    how = (
        "hard links: no data was copied"
        if linked == len(files)
        else "copied"
        if not linked
        else f"{linked} of them hard links"
    )
    where = tidy(str(target_folder))
    out.line(
        f"exported the parameters of {located(str(source), serial)} to {where}: {count(len(files), 'file')}, {size(total)} ({how})"
    )
    return DONE


def _file(source: Location, made: Location) -> dict[str, Any]:
    with storage_errors(f"cannot read {made}"):
        info = os.stat(made.path)
    try:
        linked = os.path.samestat(os.stat(source.path), info)
    except OSError:
        linked = False  # the source was deleted meanwhile; the file has no other name now
    return {"name": made.name, "bytes": info.st_size, "linked": linked}
