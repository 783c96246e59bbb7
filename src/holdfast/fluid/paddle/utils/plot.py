"""`paddle.utils.plot.Ploter`, the cost curve of the Paddle book's programs."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any


class Ploter:
    """Curves of values over steps, drawn with matplotlib where it is installed.

    A program must not end for want of a picture: without matplotlib, `plot` warns once and draws nothing. `DISABLE_PLOT=True`
    in the environment turns drawing off silently, as in Paddle.

    Args:
        titles: one curve each.
    """

    def __init__(self, *titles: str) -> None:
        self._curves: dict[str, tuple[list[float], list[float]]] = {title: ([], []) for title in titles}
        self._drawing: Any = None
        if os.environ.get("DISABLE_PLOT") == "True":
            return
        try:
            self._drawing = importlib.import_module("matplotlib.pyplot")
        except ImportError:
            warnings.warn("Ploter draws nothing: matplotlib is not installed (pip install matplotlib)", stacklevel=2)

    def append(self, title: str, step: float, value: float) -> None:
        """Add a point to the curve `title`.

        Raises:
            KeyError: there is no such curve.
        """
        if title not in self._curves:
            raise KeyError(f"Ploter has no curve {title!r}; it was made with {sorted(self._curves)}")
        steps, values = self._curves[title]
        steps.append(step)
        values.append(value)

    def plot(self, path: str | None = None) -> None:
        """Draw all curves with points: into the file `path`, or else into the notebook that this runs in."""
        if self._drawing is None:
            return
        drawn = [title for title, (steps, _) in self._curves.items() if steps]
        for title in drawn:
            self._drawing.plot(*self._curves[title])
        self._drawing.legend(drawn, loc="upper left")
        if path is not None:
            self._drawing.savefig(path)
        else:
            try:
                display = importlib.import_module("IPython.display")
            except ImportError:  # no notebook: there is nowhere to draw to
                pass
            else:
                display.clear_output(wait=True)
                display.display(self._drawing.gcf())
        self._drawing.gcf().clear()

    def reset(self) -> None:
        """Drop all points."""
        for steps, values in self._curves.values():
            steps.clear()
            values.clear()
