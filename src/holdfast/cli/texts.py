"""Sizes, times, shapes and values as people read them. Pure, but for the clock and the working directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from holdfast.format.manifest import Manifest

VALUE_CHARACTERS = 200  # of a value in a pipe; on a terminal, what fits in a line


def shortened(text: str, limit: int) -> str:
    """The text, cut to `limit` characters. For values; names are never cut."""
    return text if len(text) <= limit else text[: max(limit, 2) - 1] + "…"


def size(nbytes: int) -> str:
    """Bytes for people, such as `1.5 MiB`."""
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1023.95 or unit == "PiB":
            break
        amount /= 1024
    return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """Such as `1 variable` or `1,200 variables`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shape(extents: Sequence[int]) -> str:
    """A shape as NumPy prints it, shortened in the middle if it has absurdly many dimensions."""
    return (
        str(tuple(extents))
        if len(extents) <= 12
        else f"({', '.join(map(str, extents[:6]))}, … {len(extents)} dimensions)"
    )


def saved(created: str) -> str:
    """When a checkpoint was saved, for people; the text itself if it is no time."""
    moment = _moment(created)
    return shortened(created, 20) if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def age(created: str) -> str:
    """How long ago that was, such as `3 h`; "" if it is no time or in the future."""
    moment = _moment(created)
    return "" if moment is None else age_of(moment.timestamp())


def age_of(timestamp: float) -> str:
    """How long ago a time was."""
    seconds = time.time() - timestamp
    if seconds < 0:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def _moment(created: str) -> datetime | None:
    try:
        return datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def tidy(path: str) -> str:
    """A path as short as it can be: relative if it lies below the working directory."""
    here = os.getcwd().rstrip("/") + "/"
    return path.removeprefix(here) or "."


def reason(error: Exception, folder: str) -> str:
    """What an error says about a checkpoint's folder, without repeating its path."""
    return str(error).replace(f"{folder}/", "").replace(folder, "it")


def summary(manifest: Manifest, *, brief: bool = False) -> str:
    """Step and time of a checkpoint, and who wrote it, in one line."""
    parts = [] if manifest.step is None else [f"step {manifest.step:,}"]
    if manifest.created:
        since = age(manifest.created)
        parts.append(f"saved {saved(manifest.created)} UTC" + (f" ({since} ago)" if since else ""))
    if manifest.writer and not brief:
        parts.append(f"by {manifest.writer[:40]}")
    if manifest.world_size > 1 and not brief:
        parts.append(count(manifest.world_size, "trainer"))
    return ", ".join(parts)


def located(path: str, serial: int | None) -> str:
    """A checkpoint's folder for people."""
    return tidy(path) if serial is None else f"{tidy(os.path.dirname(path))}@{serial}"


def value_text(value: Any) -> str:
    """A typed JSON value (docs/format.md, section 5) for people."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag == "$float":
            return str(content)
        if tag == "$tuple":
            return f"({', '.join(map(value_text, content))}{',' if len(content) == 1 else ''})"
        if tag == "$random" and isinstance(content, list) and content:
            return f"state of a {content[0]}"
        if tag == "$scalar":
            return f"{value_text(content[1])} ({content[0]})"
        if tag == "$array":
            return f"array of {content[0]} {shape(content[1])}"
    return f"{{{', '.join(f'{json.dumps(key, ensure_ascii=False)}: {value_text(v)}' for key, v in value.items())}}}"
