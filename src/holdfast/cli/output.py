"""What a command says: text for people, or one JSON document for programs. Knows no command.

Names in a checkpoint may be anybody's: every text is escaped here, so that none can move the cursor, change colours, reorder
what stands beside it, or be taken for markup.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len as rich_cell_len
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress as Bar, TextColumn, TransferSpeedColumn
from rich.text import Text

from holdfast.engine.progress import Callback

MIN_FLEXIBLE = 16  # columns; below this a folded name is less readable than a line that the terminal wraps
GAP = "  "


def escaped(text: str) -> str:
    r"""The text with whatever is not printable (controls, directions, line ends, lone surrogates) as `\x1b` and the like."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OutputError(Exception):
    """The system does not take what a command says, such as a full disk behind `>`."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. A flexible one is folded on a terminal that is too narrow; nothing is ever cut off."""

    header: str
    right: bool = False
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its cells, or a heading that is one text across all columns."""

    cells: tuple[str, ...]
    style: str = ""


def cell_len(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return len(text) if text.isascii() else rich_cell_len(text)  # a fourth of the time for 100,000 names


class Output:
    """Where a command writes. With JSON only `document` writes, once."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(highlight=False, markup=False, emoji=False)
        # In a pipe lines have any length: a name that is folded cannot be searched for.
        self._styled = self._console.is_terminal
        self.width = self._console.width if sys.stdout.isatty() else None

    def line(self, text: str = "", style: str = "") -> None:
        """One line; folded between words where a terminal is too narrow."""
        if not self.as_json:
            for part in self._fold(escaped(text), self.width or sys.maxsize):
                self._write(part, style)

    def note(self, text: str) -> None:
        """A remark that is not the result: on standard error, also beside JSON; folded as a line is."""
        width = Console(stderr=True).width if sys.stderr.isatty() else sys.maxsize
        for line in text.split("\n"):
            for part in self._fold(escaped(line), width):
                print(part, file=sys.stderr)

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callback | None]:
        """What to give as `progress=`: draws a bar on a terminal, which vanishes in the end."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(escaped(label), total=None)
            yield lambda p: bar.update(task, completed=p.done_bytes, total=p.total_bytes)

    def document(self, content: dict[str, Any]) -> None:
        """The result as JSON; ASCII only. Numbers that JSON lacks are written as docs/format.md, section 5, writes them."""
        if self.as_json:
            indent = None if self.width is None else 2
            with _told():
                print(json.dumps(_writable(content), allow_nan=False, indent=indent))

    def table(self, columns: Sequence[Column], rows: Iterable[Row]) -> None:
        """A header and rows."""
        if self.as_json:
            return
        lines = [Row(tuple(c.header for c in columns), "bold")]
        lines += [Row(tuple(map(escaped, row.cells)), row.style) for row in rows]
        widths = [0] * len(columns)
        for row in lines:
            if len(row.cells) == len(columns):
                widths = [max(width, cell_len(cell)) for width, cell in zip(widths, row.cells, strict=True)]
        self._squeeze(columns, widths)
        for row in lines:
            if len(row.cells) != len(columns):
                self._write(row.cells[0], row.style)
                continue
            folded = [self._fold(cell, width) for cell, width in zip(row.cells, widths, strict=True)]
            for pieces in zip_longest(*folded, fillvalue=""):
                parts = []
                for column, width, piece in zip(columns, widths, pieces, strict=True):
                    space = " " * (width - cell_len(piece))
                    parts.append(space + piece if column.right else piece + space)
                self._write(GAP.join(parts).rstrip(), row.style)

    def _squeeze(self, columns: Sequence[Column], widths: list[int]) -> None:
        if self.width is None:
            return
        over = sum(widths) + len(GAP) * (len(columns) - 1) - self.width
        for number, column in enumerate(columns):
            if column.flexible and over > 0:
                less = min(over, widths[number] - min(widths[number], MIN_FLEXIBLE))
                widths[number] -= less
                over -= less

    def _fold(self, cell: str, width: int) -> list[str]:
        if cell_len(cell) <= width:
            return [cell]
        return [line.plain.rstrip() for line in Text(cell).wrap(self._console, width, overflow="fold")]

    def flush(self) -> None:
        """Hand everything to the system, which may refuse it only now."""
        with _told():
            sys.stdout.flush()

    def _write(self, text: str, style: str) -> None:
        with _told():
            if self._styled:
                self._console.print(Text(text, style), soft_wrap=True)
            else:
                print(text)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell a refusal of standard output from any other; that nobody reads it any more is left as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the output: {error.strerror or error}") from error


def _writable(content: Any) -> Any:
    """The content with floats that JSON lacks written as in docs/format.md, section 5."""
    if isinstance(content, float) and not math.isfinite(content):
        return {"$float": str(content)}
    if isinstance(content, dict):
        return {key: _writable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_writable(value) for value in content]
    return content
