"""A drawing as files: PNG to look at, PDF to print, CSV to plot anew, and the caption as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.report.figures.drawing import Drawing, Panel
from cwdpo.report.figures.panels import draw_reason
from cwdpo.report.figures.seeds import WORDS
from cwdpo.report.figures.style import RC, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 1.8
"""Inches from one row of panels to the next."""

CHARACTERS = 16
"""That fit into an inch."""

INSIDE = 0.85
"""Of the width of a panel: its axes without their labels."""

AROUND, ENTRY = 0.35, 0.17
"""Inches for what stands above or below all panels, and for each row of the legend."""


def save(drawing: Drawing, folder: Path) -> tuple[Path, ...]:
    """Write NAME.png, NAME.pdf, NAME.csv and NAME.md; the same data gives the same bytes."""
    with _styled():
        figure = render(drawing)
        content = {
            "png": _png(figure),
            "pdf": _pdf(figure),
            "csv": csv(drawing).encode(),
            "md": caption(drawing).encode(),
        }
    paths = tuple(folder / f"{drawing.name}.{ending}" for ending in content)
    for path, content_of in zip(paths, content.values(), strict=True):
        files.write_bytes(path, content_of)
    return paths


def svg(drawing: Drawing) -> bytes:
    """As SVG, letters drawn as outlines; the same data gives the same bytes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = BytesIO()
    with _styled({"svg.hashsalt": drawing.name}):
        FigureCanvasSVG(render(drawing)).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def csv(drawing: Drawing) -> str:
    """All that is drawn, a row per panel, line and point."""
    import pandas as pd

    tables = [panel.table for panel in drawing.panels if panel.reason is None]
    return pd.concat(tables, ignore_index=True).to_csv(index=False, float_format="%.9g", lineterminator="\n")


def caption(drawing: Drawing) -> str:
    """What is shown, how to read it, and what is missing."""
    missing = [f"- Not available: {sentence.rstrip('.')}." for sentence in drawing.missing]
    text = [f"# {drawing.name}", " ".join([*drawing.caption, WORDS]), f"The numbers are in {drawing.name}.csv."]
    return "\n\n".join([*text, *(["\n".join(missing)] if missing else [])]) + "\n"


def render(drawing: Drawing) -> Figure:
    """The figure, drawn without pyplot and its global state."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(drawing.panels) / drawing.columns)
    entries = math.ceil(len(drawing.legend) / _columns(list(drawing.legend.values())))
    figure = Figure(figsize=(WIDTH, rows * ROW + entries * ENTRY + AROUND), layout="constrained")
    first: Axes | None = None
    for place, panel in enumerate(drawing.panels, 1):
        axes = figure.add_subplot(rows, drawing.columns, place, sharey=first if drawing.same_y else None)
        _panel(axes, panel, drawing)
        first = first or axes
    _around(figure, drawing)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough: it takes as long as drawing
    return figure


def _panel(axes: Axes, panel: Panel, drawing: Drawing) -> None:
    width = int(WIDTH / drawing.columns * CHARACTERS * INSIDE)
    axes.set_title("\n".join(textwrap.wrap(panel.title, width)))
    if panel.reason is not None:
        draw_reason(axes, panel, width)
        return
    panel.draw(axes, panel, drawing.looks)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.limits:
        axes.set_ylim(*panel.limits)


def _around(figure: Figure, drawing: Drawing) -> None:
    """The legend, its title, and the label below all."""
    from matplotlib.lines import Line2D

    if drawing.x:
        figure.supxlabel(drawing.x, fontsize=RC["axes.labelsize"])
    labels = drawing.legend
    handles = [Line2D([], [], color=drawing.looks[line].colour, linestyle=drawing.looks[line].dash) for line in labels]
    texts, title = list(labels.values()), drawing.title or None
    figure.legend(handles, texts, loc="outside upper center", ncols=_columns(texts), title=title, handlelength=2.2)


def _columns(labels: list[str]) -> int:
    """So many entries beside each other that there are few rows, all full; the line of each takes half an inch."""
    fitting = max(1, int(WIDTH / (max(map(len, labels)) / CHARACTERS + 0.5)))
    return math.ceil(len(labels) / math.ceil(len(labels) / fitting))


def _png(figure: Figure) -> bytes:
    """By the canvas itself: `savefig` draws everything twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _pdf(figure: Figure) -> bytes:
    """Without the time, so that the same figure is the same file. Leaves the figure at 72 dots an inch."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    buffer = BytesIO()
    FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
    return buffer.getvalue()


@contextmanager
def _styled(more: Mapping[str, Any] = {}) -> Iterator[None]:
    import matplotlib.style

    with matplotlib.style.context(["default", {**RC, **more}]):
        yield
