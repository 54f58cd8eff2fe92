"""The geometry of a line chart with bands: ticks, and paths in the units of an SVG of fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cwdpo.report.site.pages import short

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 34
"""Around the axes."""
TICKS = 5
"""About so many on an axis."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands there."""

    place: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """One line.

    Attributes:
        index: of its look.
        path: through the means; a dot where there is one point only.
        band: around the extremes, "" of one seed.
        dot: centre of the only point, or None.
        label: what a reader is told of it.
    """

    index: int
    path: str
    band: str
    dot: tuple[float, float] | None
    label: str


@dataclass(frozen=True)
class Chart:
    """Lines in one pair of axes."""

    lines: tuple[Drawn, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


@dataclass(frozen=True)
class Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def chart(data: pd.DataFrame, lines: Sequence[str]) -> Chart:
    """A chart of rows with `line`, `step`, `mean`, `low`, `high`, `n`.

    Args:
        lines: all there are, in the order of their looks; those without rows are left out.
    """
    x = _scale(data["step"].min(), data["step"].max(), LEFT, WIDTH - RIGHT)
    y = _scale(data["low"].min(), data["high"].max(), HEIGHT - BOTTOM, TOP, around=0.04)
    rows = {str(name): found for name, found in data.groupby("line", sort=False)}
    drawn = tuple(_drawn(place, line, rows[line], x, y) for place, line in enumerate(lines) if line in rows)
    return Chart(drawn, _ticks(x, whole=True), _ticks(y))


def _scale(low: float, high: float, start: float, end: float, around: float = 0.0) -> Scale:
    """A scale from `low` to `high` and a bit around it; of one value alone, with room on both sides."""
    reach = high - low
    if reach <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(high) * 0.1 or 1.0
        return Scale(low - room, high + room, start, end)
    return Scale(low - around * reach, high + around * reach, start, end)


def _drawn(index: int, line: str, rows: pd.DataFrame, x: Scale, y: Scale) -> Drawn:
    points = [(x(step), y(mean)) for step, mean in zip(rows["step"], rows["mean"], strict=True)]
    seeds = int(rows["seeds"].iloc[0])
    label = f"{line}, {seeds} seed{'' if seeds == 1 else 's'}"
    return Drawn(index, _path(points), _band(rows, x, y), points[0] if len(points) == 1 else None, label)


def _band(rows: pd.DataFrame, x: Scale, y: Scale) -> str:
    several = rows[rows["n"] > 1]
    if len(several) < 2:
        return ""
    over = [(x(step), y(high)) for step, high in zip(several["step"], several["high"], strict=True)]
    under = [(x(step), y(low)) for step, low in zip(several["step"], several["low"], strict=True)]
    return f"{_path([*over, *reversed(under)])}Z"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def _ticks(scale: Scale, whole: bool = False) -> tuple[Tick, ...]:
    """Round values within the scale, about `TICKS` of them."""
    step = _round((scale.high - scale.low) / TICKS)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return tuple(Tick(scale(k * step), short(k * step) if k else "0") for k in range(first, last + 1))


def _round(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))
