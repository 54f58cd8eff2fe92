"""The figures of learning dynamics, drawn as for print, where a grid has probes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError
from cwdpo.jobs.plan import Plan
from cwdpo.report.figures.draw import FIGURES
from cwdpo.report.figures.drawing import Drawing
from cwdpo.report.figures.runs import Runs
from cwdpo.report.figures.saving import csv, svg
from cwdpo.report.figures.seeds import WORDS
from cwdpo.report.gathered import gather
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import slug
from cwdpo.report.site.trainings import STAGES

TITLES = {
    "figure3": "Does training squeeze?",
    "figure4": "Shift, peakedness, calibration and quality",
    "figure5": "What one update does to other samples",
    "figure6": "The curriculum of cooling weights",
    "delta_logp": "Which answers become likelier",
}
"""Beginning of the name of a figure -> its title."""

ROWS = 60
"""Of the table beside a figure; the CSV has all."""


@dataclass(frozen=True)
class ShownFigure:
    """One figure.

    Attributes:
        image, data: of the SVG and the CSV, from the top of the folder; "" where nothing of it is available.
        header, rows: the last value of each line.
    """

    name: str
    title: str
    image: str
    data: str
    caption: str
    missing: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Probed:
    """One stage.

    Attributes:
        cases: those that are shown.
        left_out: how many more are probed.
        fault: why no figure could be drawn; else nothing.
    """

    stage: str
    cases: tuple[str, ...]
    left_out: int
    figures: tuple[ShownFigure, ...]
    fault: str = ""


def draw_probed(plan: Plan, folder: Path) -> list[Probed]:
    """Draw the figures of every stage that is probed into `folder/figures`."""
    return [_stage(plan, stage, cases, folder) for stage in STAGES if (cases := _cases(plan, stage))]


def _cases(plan: Plan, stage: str) -> list[str]:
    cells = (cell for cell in plan.grid.cells if any(one.stage == stage for one in plan.wired[cell.name].probed))
    return list(dict.fromkeys(cell.case for cell in cells))


def _stage(plan: Plan, stage: str, cases: list[str], folder: Path) -> Probed:
    shown = cases[: LIMITS.probed]
    left_out = len(cases) - len(shown)
    try:
        found = gather(plan, stage, shown)
    except CwdpoError as error:  # a file that figures need is damaged
        return Probed(stage, tuple(shown), left_out, (), str(error))
    return Probed(stage, tuple(shown), left_out, tuple(draw(found, folder)))


def draw(runs: Runs, folder: Path) -> Iterator[ShownFigure]:
    """Every figure of one stage."""
    drawings = (drawing for figure in FIGURES.values() for drawing in figure(runs))
    for place, drawing in enumerate(drawings):
        yield _drawn(drawing, f"figures/{runs.stage}-{slug(drawing.name, place)}", folder)


def _drawn(drawing: Drawing, stem: str, folder: Path) -> ShownFigure:
    kind = drawing.name.partition("-")[0]
    about = (drawing.name, TITLES[kind])
    caption = " ".join([*drawing.caption, WORDS])
    if all(panel.reason is not None for panel in drawing.panels):
        return ShownFigure(*about, "", "", "", tuple(drawing.missing))
    files.write_bytes(folder / f"{stem}.svg", svg(drawing))
    files.write_text(folder / f"{stem}.csv", csv(drawing))
    header, rows = _last(drawing)
    return ShownFigure(*about, f"{stem}.svg", f"{stem}.csv", caption, tuple(drawing.missing), header, rows)


def _last(drawing: Drawing) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The last value of each line of each panel, as a table."""
    header = ("panel", "line", "at", "mean", "smallest", "largest", "seeds")
    found: list[tuple[str, ...]] = []
    for panel in drawing.panels:
        title = panel.title or " ".join([panel.name, *panel.keys.values()])
        for line, rows in panel.lines.data.groupby("line", sort=False) if panel.reason is None else ():
            row = rows.iloc[-1]
            values = (f"{float(row[name]):.4g}" for name in ("mean", "low", "high"))
            at = next((f"{name} {row[name]:g}" for name in ("step", "bin") if name in row), "the end")
            found.append((title, str(line), at, *values, str(int(row["n"]))))
    return header, tuple(found[:ROWS])
