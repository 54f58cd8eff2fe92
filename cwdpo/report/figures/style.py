"""How figures look: colours that colour-blind readers tell apart, sizes for a text width of 6.9 inches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 6.9
"""Inches: the text width of a page of two columns."""

GREY = "#666666"

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008), without their yellow, which is too light for a line."""

RC: Mapping[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "figure.titlesize": 9, "lines.linewidth": 1.4, "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.formatter.limits": (-3, 4),
    "legend.frameon": False, "figure.dpi": 200, "pdf.fonttype": 42,
}  # fmt: skip
"""Laid over matplotlib's own defaults, so that no matplotlibrc changes a figure."""


@dataclass(frozen=True)
class Look:
    """How a line is drawn; a bar of a dashed line is hatched."""

    colour: str
    dash: Any = "-"
    hatch: str = ""


DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)))
"""When colours are used up, they come again with the next dashes and hatches."""

_HATCHES = ("", "//", "..")

KINDS: Mapping[str, Look] = {
    "chosen": Look("#000000"),
    "greedy": Look("#CC79A7"),
    "hard": Look("#009E73"),
    "medium": Look("#E69F00"),
    "easy": Look("#0072B2"),
    "shuffled": Look("#D55E00", DASHES[1]),
    "other": Look("#56B4E9", DASHES[1]),
}
"""Kinds of response (`cwdpo.dynamics.rows.KINDS`), in the order of a legend; controls are dashed."""


def looks(lines: Iterable[str]) -> dict[str, Look]:
    """A look for each line, by its place."""
    return {line: _look(place) for place, line in enumerate(lines)}


def _look(place: int) -> Look:
    rounds, colour = divmod(place, len(PALETTE))
    return Look(PALETTE[colour], DASHES[rounds % len(DASHES)], _HATCHES[rounds % len(_HATCHES)])
