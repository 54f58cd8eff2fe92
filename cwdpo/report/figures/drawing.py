"""A figure before it is drawn: panels of plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cwdpo.report.figures.seeds import Lines, counted, told
from cwdpo.report.figures.style import Look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Draw = Callable[["Axes", "Panel", Mapping[str, Look]], None]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: of the quantity, in the first column of the CSV.
        title: above it.
        y, x: labels with units.
        lines: what it shows.
        draw: how.
        limits: of y, where they are not left to the data; None is either end.
        keys: further columns of its rows in the CSV, the same in all.
    """

    name: str
    title: str
    y: str
    lines: Lines
    draw: Draw
    x: str = ""
    limits: tuple[float | None, float | None] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """Rows of the CSV."""
        rows = self.lines.data.copy()
        for place, (key, value) in enumerate({"panel": self.name, **self.keys}.items()):
            rows.insert(place, key, value)
        return rows

    @property
    def reason(self) -> str | None:
        """Why there is nothing to draw, None where there is something."""
        if len(self.lines.data):
            return None
        reasons = dict.fromkeys(self.lines.missing.values())
        return self.gaps if len(reasons) > 1 else "".join(reasons) or "no runs"

    @property
    def gaps(self) -> str:
        """Which lines are missing, and why."""
        return "; ".join(told(self.lines.missing.items()))


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its files, without an ending.
        panels: row by row.
        columns: panels in a row.
        looks: of each line, in the order of the legend.
        caption: sentences on what it shows.
        title: above the legend; `x` stands below all.
        same_y: all panels share the scale of y.
        counts: the legend says how many seeds are behind each line.
    """

    name: str
    panels: Sequence[Panel]
    columns: int
    looks: Mapping[str, Look]
    caption: Sequence[str]
    title: str = ""
    x: str = ""
    same_y: bool = False
    counts: bool = False

    @property
    def legend(self) -> dict[str, str]:
        """Line -> what the legend calls it, for every line that some panel shows."""
        found = {line: counted([panel.lines for panel in self.panels], line) for line in self.looks}
        return {line: f"{line} ({n})" if self.counts else line for line, n in found.items() if n}

    @property
    def missing(self) -> list[str]:
        """What is not available, and why: a sentence for each reason, with the panels it concerns."""
        found = [(panel.title or panel.name, panel.reason or panel.gaps) for panel in self.panels]
        return told((name, reason) for name, reason in found if reason)


def named(figure: str, case: str) -> str:
    """A file name for the figure of one case."""
    return f"{figure}-" + re.sub(r"[^\w.=-]+", "-", case)
