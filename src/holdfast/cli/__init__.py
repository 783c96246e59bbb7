"""The command line. Importing this loads neither typer nor rich; calling `main` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (docs/cli.md).

    Args:
        arguments: what stands after the program's name; None for those of this process.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print("holdfast: the command line needs typer and rich: pip install 'holdfast[cli]'", file=sys.stderr)
        return USAGE
    from holdfast.cli.app import app

    try:
        app(None if arguments is None else list(arguments), prog_name="holdfast")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0
