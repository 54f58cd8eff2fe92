"""How panels are drawn: lines over steps, bars at the end of training, reliability, or why there is nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cwdpo.report.figures.style import GREY, Look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cwdpo.report.figures.drawing import Panel

DOTS = 12
"""A line of no more points shows them."""

AREA = 120
"""Square points of the dot of a bin that has all tokens."""

EDGES = (-0.04, 1.04)
"""Of both axes of a reliability diagram, so that no dot is cut."""

LONGEST = 160
"""Characters of a reason that a panel has room for; the caption has all of it."""


def draw_lines(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    """Means over steps with their bands; dotted where seeds are missing."""
    for name, rows in panel.lines.data.groupby("line", sort=False):
        look = looks[str(name)]
        _line(axes, rows, look)
        _band(axes, rows, rows["step"], look)


def draw_reliability(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    """Accuracy over confidence, a dot's area by its share of tokens, and the diagonal of perfect calibration."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, zorder=0)
    for name, rows in panel.lines.data.groupby("line", sort=False):
        look = looks[str(name)]
        axes.plot(rows["confidence"], rows["mean"], color=look.colour, linestyle=look.dash, linewidth=0.8)
        axes.scatter(rows["confidence"], rows["mean"], AREA * rows["share"], color=look.colour)
        _band(axes, rows, rows["confidence"], look)
    axes.set(xlim=EDGES, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def draw_bars(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    """A bar for each line from zero, with its value; whiskers reach from the smallest to the largest seed."""
    found = panel.lines.data.set_index("line")
    shown = [line for line in looks if line in found.index or line in panel.lines.missing]
    for place, line in enumerate(shown):
        if line in found.index:
            _bar(axes, place, found.loc[line], looks[line])
        else:
            axes.text(0, place, f" {line}: not available", va="center", color=GREY, fontsize=7)
    # Colours and the order of the legend name the bars: names beside them would take the room of two columns.
    axes.set(yticks=[], ylim=(len(shown) - 0.4, -0.6), xlim=(0, 1.25 * max(found["high"].max(), 0) or 1))


def draw_reason(axes: Axes, panel: Panel, width: int) -> None:
    """No axes, but why, in lines of so many characters."""
    assert panel.reason is not None, "a panel with data is drawn"
    axes.set_axis_off()
    text = "not available: " + textwrap.shorten(panel.reason, LONGEST, placeholder=" ...")
    wrapped = "\n".join(textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False))
    axes.text(0.5, 0.5, wrapped, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=7)


def _line(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    whole = rows["n"] == rows["seeds"]
    style: dict[str, Any] = {"color": look.colour, "markersize": 2.5, "marker": "o" if len(rows) <= DOTS else None}
    if not whole.all():
        axes.plot(rows["step"], rows["mean"], linestyle=":", **{**style, "marker": None})
    axes.plot(rows["step"], rows["mean"].where(whole), linestyle=look.dash, **style)


def _band(axes: Axes, rows: pd.DataFrame, x: pd.Series, look: Look) -> None:
    several = rows["n"] > 1
    if several.any():
        axes.fill_between(x, rows["low"], rows["high"], where=several, color=look.colour, alpha=0.18, linewidth=0)


def _bar(axes: Axes, place: int, row: pd.Series, look: Look) -> None:
    axes.barh(place, row["mean"], 0.7, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0)
    if row["n"] > 1:
        reach = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar(row["mean"], place, xerr=reach, color="black", linewidth=0.8, capsize=2)
    axes.annotate(
        f"{row['mean']:.1f}", (row["high"], place), (4, 0), textcoords="offset points", va="center", fontsize=7
    )
