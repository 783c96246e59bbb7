"""Tables out of results: the full ones for docs/benchmarks.md, a short one for the README. Measures nothing."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import limits

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
OURS = ("holdfast", "holdfast, verify=False")
NONE = "–"
WRONG = "**wrong values**"


@dataclass(frozen=True)
class Row:
    """One kind of work in the tables.

    Attributes:
        title: what is done; `{…}` are sizes of the workload.
        workload, metric: where its figures are.
        limit: the limits of which the best is 100 %; () if there is none.
        milliseconds: for people.
        own: metric that says whether the library has a call of its own for it.
        short: in the README too.
        percent: a share, not a time; its limits are shares too.
    """

    title: str
    workload: str
    metric: str
    limit: tuple[str, ...] = ()
    milliseconds: bool = False
    own: str = ""
    short: bool = True
    percent: bool = False


ROWS = (
    Row("save {mib} MiB in arrays of {array_mib} MiB, durable", "big", "save", limits.WRITE),
    Row("load them into arrays that exist, page cache warm", "big", "load", limits.READ_WARM),
    Row("the same from the disk", "big", "load_cold", limits.READ_COLD),
    Row("load them into new arrays, page cache warm", "big", "read", limits.READ_FRESH, short=False),
    Row("one of the {number}, opened for it, page cache warm", "big", "one", milliseconds=True, own="own_one"),
    Row("save {number} arrays of {array_bytes} bytes, durable", "many", "save"),
    Row("load them into new arrays", "many", "read"),
    Row("load them into arrays that exist", "many", "load", short=False),
    Row("one of them, opened for it", "many", "one", milliseconds=True, own="own_one"),
    Row("list their names and shapes", "many", "names", milliseconds=True, own="own_names"),
    Row("{saves} saves of {mib} MiB, {keep} kept, durable", "rotate", "rotate", limits.WRITE),
    Row("save GPT-2 with Adam ({layers} layers) beside training: the loop is held", "train", "stall", limits.COPY),
    Row("the same, the first time", "train", "stall_first", limits.COPY, short=False),
    Row("the same, until durable", "train", "beside", limits.WRITE),
    Row("steps take longer meanwhile, on all cores", "train", "slowdown", limits.SLOWDOWN, short=False, percent=True),
    Row("save it while training waits, durable", "train", "train_save", limits.WRITE),
    Row("resume: load it into arrays that exist, page cache warm", "train", "train_load", limits.READ_WARM),
    Row("save it again after 1 % of its variables has changed, durable", "train", "again"),
    Row("bytes written by that, of the state's", "train", "again_part", percent=True),
    Row(
        "bytes written if the model is frozen and trains by low-rank weights, of theirs",
        "train",
        "frozen_part",
        short=False,
        percent=True,
    ),
)
MEMORY = (
    ("save", "save_memory"),
    ("load into arrays that exist", "load_memory"),
    ("load into new arrays", "read_memory"),
)


class Results:
    """The figures of a run, by library, workload and metric."""

    def __init__(self, data: dict) -> None:
        self.data = data
        self.libraries = list(dict.fromkeys(c["library"] for c in data["cells"] if c["library"] != "limits"))
        self.libraries.sort(key=lambda name: name not in OURS)  # the order of the rounds otherwise

    def values(self, library: str, workload: str, metric: str) -> list[float]:
        """One figure for each round in which there was one."""
        cells = (c for c in self.data["cells"] if c["library"] == library and c["workload"] == workload)
        return [c["metrics"][metric] for c in cells if c["metrics"].get(metric) is not None]

    def limit(self, keys: tuple[str, ...]) -> float:
        """Bytes per second of the best of these limits, median by median."""
        found = [statistics.median(v) for key in keys if (v := self.values("limits", "limits", key))]
        return max(found, default=0.0)

    def title(self, row: Row) -> str:
        """The row's title with the sizes of this run."""
        sizes = dict(self.data["sizes"][row.workload])
        if "array_bytes" not in sizes:
            return row.title.format_map(sizes)
        sizes["array_mib"] = sizes["array_bytes"] >> 20
        sizes["number"] = f"{sizes['count']:,}" if "count" in sizes else (sizes["mib"] << 20) // sizes["array_bytes"]
        return row.title.format_map(sizes)

    def limit_text(self, row: Row) -> str:
        """What nothing can be better than in a row."""
        if not row.percent:
            return f"{self.limit(row.limit) / 1e9:.2f} GB/s" if row.limit else NONE
        found = [(key, v) for key in row.limit if (v := self.values("limits", row.workload, key))]
        return "<br>".join(f"{limits.TITLES[key]}: {_spread(v, 100, '%', 1)}" for key, v in found) or NONE

    def wrong(self, row: Row, library: str) -> int:
        """How many of the arrays that were loaded were not those that had been saved."""
        return int(max(self.values(library, row.workload, f"{row.metric}_wrong"), default=0))

    def time(self, row: Row, library: str, *, spread: bool) -> str:
        """The median, and the extremes in parentheses; none if it was for values that are wrong."""
        values = self.values(library, row.workload, row.metric)
        if not values:
            return NONE
        if wrong := self.wrong(row, library):
            return f"{WRONG} ({wrong})"
        scale, unit, digits = (100, "%", 1) if row.percent else (1e3, "ms", 1) if row.milliseconds else (1, "s", 2)
        star = "*" if row.own and not all(self.values(library, row.workload, row.own)) else ""
        return _spread(values, scale, unit + star, digits, extremes=spread)

    def share(self, row: Row, library: str) -> str:
        """GB/s and share of the limit; nothing where there is no limit."""
        values, limit = self.values(library, row.workload, row.metric), self.limit(row.limit)
        if row.percent or not values or not limit or self.wrong(row, library):
            return ""
        metrics = {key: self.values(library, row.workload, key) for key in ("bytes", "saves")}
        size = metrics["bytes"][0] * (metrics["saves"] or [1])[0]
        rate = size / statistics.median(values)
        return f"{rate / 1e9:.2f} GB/s, {100 * rate / limit:.0f} %"


def _spread(values: list[float], scale: float, unit: str, digits: int, *, extremes: bool = True) -> str:
    text = f"{statistics.median(values) * scale:.{digits}f} {unit}"
    if extremes and len(values) > 1:
        text += f" ({min(values) * scale:.{digits}f}–{max(values) * scale:.{digits}f})"
    return text


def is_wrong(cell: dict) -> bool:
    """Whether Holdfast itself has loaded what was not saved. Of another library that is a result, of this one a failure."""
    return cell["library"] in OURS and any(key.endswith("_wrong") for key in cell["metrics"])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _by_library(results: Results, rows: list[Row], cell: Callable[[Row, str], str], *, limits_too: bool) -> str:
    libraries = [n for n in results.libraries if any(results.values(n, row.workload, row.metric) for row in rows)]
    if not libraries:
        return ""
    lines = []
    for row in rows:
        line = [results.title(row), *(cell(row, name) for name in libraries)]
        if limits_too:
            line.insert(1, results.limit_text(row))
        if set(line[1 + limits_too :]) != {NONE}:
            lines.append(line)
    return _table(["work", *(["limit"] if limits_too else []), *libraries], lines)


def _limits(results: Results) -> str:
    rows = []
    for key, title in limits.TITLES.items():
        if values := [v / 1e9 for v in results.values("limits", "limits", key)]:
            rows.append([title, f"{statistics.median(values):.2f}", f"{min(values):.2f}–{max(values):.2f}"])
    return _table(["limit", "GB/s", "min–max"], rows)


def _memory(results: Results) -> str:
    libraries = [name for name in results.libraries if results.values(name, "big", MEMORY[0][1])]
    rows = []
    for title, metric in MEMORY:
        found = [results.values(name, "big", metric) for name in libraries]
        rows.append([title, *(f"{statistics.median(values) / 2**20:.0f}" if values else NONE for values in found)])
    return _table(["MiB above the state", *libraries], rows)


def _origin(results: Results) -> str:
    data = results.data
    each = {c["workload"]: c["round"] + 1 for c in data["cells"] if c["library"] != "limits"}  # the last one counts
    fewest, most = min(each.values()), max(each.values())
    rounds = str(most) if fewest == most else f"{fewest} to {most}"
    machine = "; ".join(f"{key} {value}" for key, value in data["machine"].items())
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    return f"{data['date']}, median (min–max) of {rounds} rounds. {machine}. {versions}."


def _on_wrong(results: Results) -> str:
    """A word about wrong values, if there are any."""
    if not any(results.wrong(row, name) for row in ROWS for name in results.libraries):
        return ""
    return f"{WRONG} (so many): arrays that, once loaded, were not bit for bit what had been saved; no time is given for that.\n"


def full(results_data: dict) -> str:
    """Everything, as Markdown."""
    results = Results(results_data)

    def both(row: Row, name: str) -> str:
        share = results.share(row, name)
        return results.time(row, name, spread=True) + (f"<br>{share}" if share else "")

    parts = [_origin(results), "### The machine\n\n" + _limits(results)]
    for heading, workload in [
        ("Large arrays", "big"),
        ("Small arrays", "many"),
        ("Rotation", "rotate"),
        ("Beside training", "train"),
    ]:
        rows = [row for row in ROWS if row.workload == workload]
        if table := _by_library(results, rows, both, limits_too=workload != "many"):
            parts.append(f"### {heading}\n\n{table}")
    if results.values(OURS[0], "big", "save_memory"):
        parts.append("### Memory\n\n" + _memory(results))
    if errors := {(c["library"], c["workload"], c["error"]) for c in results_data["cells"] if c["error"]}:
        parts.append("\n".join(f"- {library}, {workload}: {error}" for library, workload, error in sorted(errors)))
    if any(row.own and "*" in results.time(row, n, spread=False) for row in ROWS for n in results.libraries):
        parts.append("\\* It has no call for this: everything is loaded.")
    parts.append(_on_wrong(results))
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def short(results_data: dict) -> str:
    """What a reader of the README wants to know."""
    results = Results(results_data)

    def cell(row: Row, name: str) -> str:
        share = results.share(row, name).partition(", ")[2]
        return results.time(row, name, spread=False) + (f" ({share})" if share else "")

    table = _by_library(results, [row for row in ROWS if row.short], cell, limits_too=False)
    data = results.data
    where = f"{data['machine']['processor']}, {data['machine']['file system']}, {data['date']}"
    return (
        f"{table}\nTime, and share of what the machine itself can do in the same run (% of the limit of the disk or of memory).\n"
        f"{_on_wrong(results)}Holdfast verifies every digest. {where}; [all figures](docs/benchmarks.md).\n"
    )


def publish(results_data: dict, root: Path) -> list[Path]:
    """Put the tables between the markers of the pages below `root`; returns the pages."""
    pages = {root / "docs" / "benchmarks.md": full(results_data), root / "README.md": short(results_data)}
    texts = {}
    for page, table in pages.items():
        text, count = re.subn(
            f"{re.escape(BEGIN)}.*?{re.escape(END)}",
            lambda _, table=table: f"{BEGIN}\n{table}{END}",
            page.read_text(),
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"{page} has {count} places for the tables, between {BEGIN} and {END}, instead of one")
        texts[page] = text
    for page, text in texts.items():
        page.write_text(text)
    return list(pages)
