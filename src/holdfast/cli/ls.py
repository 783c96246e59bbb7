"""`holdfast ls`: every checkpoint of a run, those that cannot be used and why, and what dead writers left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.cli.exits import DONE, UsageError
from holdfast.cli.output import Column, Output, Row
from holdfast.cli.survey import Survey, Unusable, survey
from holdfast.cli.targets import target
from holdfast.cli.texts import age, age_of, saved, size, tidy
from holdfast.engine import catalog
from holdfast.engine.commit import list_or_empty, storage_errors
from holdfast.format import layout
from holdfast.format.manifest import Manifest
from holdfast.storage import Location, resolve

MAX_HINTS = 5


def ls(path: str, out: Output) -> int:
    """List a run folder, or the one checkpoint that stands alone there."""
    chosen = target(path)
    if chosen.kind == "file":
        raise UsageError(f"{path} is a file; 'holdfast show' lists its variables")
    location = resolve(chosen.path)
    serial = chosen.serial
    if chosen.kind != "run" or serial is not None:
        # Located even if there is nothing: an exchange that was cut off may have left the folder under another name.
        with storage_errors(f"cannot read {location}"):
            location, serial = catalog.locate(location, serial)
            manifest = catalog.read_outline(location)
            pinned = location.store.stat((location / layout.PINNED).path) is not None
        return _say(out, location, [_Line(serial, location, manifest, pinned)], Survey([], [], []))
    seen = survey(location)
    lines = [_Line(f.serial, f.folder, f.manifest, f.pinned) for f in seen.found]
    return _say(out, location, lines, seen)


@dataclass(frozen=True, slots=True)
class _Line:
    serial: int | None
    folder: Location
    manifest: Manifest
    pinned: bool

    def document(self) -> dict[str, Any]:
        return {
            "serial": self.serial,
            "path": str(self.folder),
            "step": self.manifest.step,
            "created": self.manifest.created,
            "content": self.manifest.content,
            "variables": len(self.manifest.variables),
            "bytes": self.manifest.nbytes,
            "metrics": dict(self.manifest.metrics),
            "pinned": self.pinned,
        }


def _say(out: Output, location: Location, lines: list[_Line], seen: Survey) -> int:
    out.document(
        {
            "path": str(location),
            "checkpoints": [line.document() for line in lines],
            "unusable": [bad.document() for bad in seen.unusable],
            "leftovers": [
                {"name": left.name, "kind": left.kind, "modified": int(left.modified)} for left in seen.leftovers
            ],
        }
    )
    if lines or seen.unusable:
        out.table(*_table(lines, seen.unusable))
    else:
        out.line(f"no checkpoints in {tidy(str(location))}")
        if runs := _runs_below(location):
            out.line(f"there are some in {', '.join(runs)}")
    for bad in seen.unusable:
        out.line(f"checkpoint_{bad.serial} cannot be used: {bad.reason}", "dim")
    for left in seen.leftovers:
        since = f" (last changed {age_of(left.modified)} ago)" if age_of(left.modified) else ""
        what = "a save that is running, or" if left.kind == "attempt" else "a deletion that is running, or"
        out.line(f"{left.name}{since}: {what} what a crash left; then the next save removes it", "dim")
    return DONE


def _table(lines: list[_Line], unusable: list[Unusable]) -> tuple[list[Column], list[Row]]:
    columns = [
        Column("SERIAL", right=True),
        Column("STEP", right=True),
        Column("SAVED (UTC)"),
        Column("AGE", right=True),
        Column("VARS", right=True),
        Column("SIZE", right=True),
        Column("PINNED"),
        Column("METRICS", flexible=True),
    ]
    rows: list[tuple[int, Row]] = []
    for line in lines:
        manifest = line.manifest
        cells = (
            "–" if line.serial is None else str(line.serial),
            "–" if manifest.step is None else str(manifest.step),
            saved(manifest.created),
            age(manifest.created).replace(" ", ""),
            f"{len(manifest.variables):,}",
            size(manifest.nbytes),
            "pinned" if line.pinned else "",
            " ".join(f"{name}={value:.5g}" for name, value in manifest.metrics.items()),
        )
        rows.append((line.serial or 0, Row(cells)))
    rows += [
        (bad.serial, Row((str(bad.serial), "–", "cannot be used", "", "–", "–", "", ""), "dim")) for bad in unusable
    ]
    rows.sort(key=lambda row: row[0])
    # Columns that say nothing cost width that the others need.
    shown = [
        i for i, c in enumerate(columns) if c.header not in ("PINNED", "METRICS") or any(r.cells[i] for _, r in rows)
    ]
    return [columns[i] for i in shown], [Row(tuple(r.cells[i] for i in shown), r.style) for _, r in rows]


def _runs_below(location: Location) -> list[str]:
    """Folders in this one that hold checkpoints: what a caller who is one level too high may have meant."""
    found: list[str] = []
    for entry in sorted(list_or_empty(location), key=lambda e: e.name):
        if entry.kind == "folder" and len(found) < MAX_HINTS:
            try:
                if catalog.candidates(location / entry.name):
                    found.append(tidy((location / entry.name).path))
            except OSError:
                continue  # a folder that may not be read is no hint
    return found
