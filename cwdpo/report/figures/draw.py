"""All figures of a stage into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwdpo.report.figures.delta_logp import delta_logp
from cwdpo.report.figures.drawing import Drawing
from cwdpo.report.figures.figure3 import figure3
from cwdpo.report.figures.figure4 import figure4
from cwdpo.report.figures.figure5 import figure5
from cwdpo.report.figures.figure6 import figure6
from cwdpo.report.figures.runs import Runs
from cwdpo.report.figures.saving import save

FIGURES: Mapping[str, Callable[[Runs], list[Drawing]]] = {
    "figure3": figure3,
    "figure4": figure4,
    "figure5": figure5,
    "figure6": figure6,
    "delta_logp": delta_logp,
}


@dataclass(frozen=True)
class Drawn:
    """What came of one figure.

    Attributes:
        name: of its files, without an ending.
        files: PNG, PDF, CSV and caption; empty where nothing of it is available.
        missing: what is not available, and why.
    """

    name: str
    files: tuple[Path, ...]
    missing: tuple[str, ...]


def draw_figures(folder: Path, runs: Runs, names: Sequence[str] = tuple(FIGURES)) -> list[Drawn]:
    """Draw figures by their names in `FIGURES`; files of the same name are replaced.

    Raises:
        StoreError: the folder cannot be written.
    """
    return [_drawn(folder, drawing) for name in names for drawing in FIGURES[name](runs)]


def _drawn(folder: Path, drawing: Drawing) -> Drawn:
    """Save a figure unless all its panels are empty."""
    available = any(panel.reason is None for panel in drawing.panels)
    return Drawn(drawing.name, save(drawing, folder) if available else (), tuple(drawing.missing))
