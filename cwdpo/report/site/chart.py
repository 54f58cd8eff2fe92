"""The geometry of a line chart with bands: ticks, and paths in the units of an SVG of fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from cwdpo.report.site.pages import plural, short

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 34
"""Around the axes."""
TICKS = 5
"""About so many on an axis."""
STRETCHES = 3
"""Of a line with fewer seeds that are told one by one, at most."""


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
        path: through the means that are of all seeds, "" where there are no two in a row.
        dotted: the rest of the line, where some of its seeds have no value; "" where all have one.
        band: around the extremes, "" of one seed.
        dot: centre of the only point, or None.
        label: what a reader is told of it.
    """

    index: int
    path: str
    dotted: str
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
    said = "; ".join(filter(None, (f"{line}, {plural(int(rows['seeds'].iloc[0]), 'seed')}", fewer(rows))))
    # A piece of the line is of all seeds where both of its ends are.
    pieces = [one and other for one, other in pairwise(rows["n"] == rows["seeds"])]
    solid, dotted = (
        "".join(_path(points[start : end + 1]) for whole, start, end in _stretches(pieces) if whole == wanted)
        for wanted in (True, False)
    )
    return Drawn(index, solid, dotted, _band(rows, x, y), points[0] if len(points) == 1 else None, said)


def fewer(rows: pd.DataFrame) -> str:
    """Where a line has fewer seeds than it has in all: `from step 21 on, 1 of 3 seeds`; nothing where it has all."""
    steps, seeds = [int(step) for step in rows["step"]], int(rows["seeds"].iloc[0])
    found = [(int(n), start, end) for n, start, end in _stretches(rows["n"]) if n < seeds]
    if len(found) <= STRETCHES:
        return "; ".join(f"{_where(steps, start, end)}, {n} of {seeds} seeds" for n, start, end in found)
    least, most = min(n for n, *_ in found), max(n for n, *_ in found)
    points = sum(end - start for _, start, end in found)
    count = f"{least}" if least == most else f"{least} to {most}"
    return f"at {points} of {len(steps)} points, {count} of {seeds} seeds"


def _where(steps: Sequence[int], start: int, end: int) -> str:
    """A stretch of a line in words."""
    if end == len(steps):
        return f"from step {steps[start]} on"
    return f"at step {steps[start]}" if end - start == 1 else f"from step {steps[start]} to {steps[end - 1]}"


def _stretches(values: Iterable[Any]) -> Iterator[tuple[Any, int, int]]:
    """Each value that stands several times in a row, once, with the place where it begins and the one behind it."""
    end = 0
    for value, found in groupby(values):
        start, end = end, end + len(list(found))
        yield value, start, end


def _band(rows: pd.DataFrame, x: Scale, y: Scale) -> str:
    """Around the extremes where there are several seeds; it does not bridge where there are not."""
    over = [(x(step), y(high)) for step, high in zip(rows["step"], rows["high"], strict=True)]
    under = [(x(step), y(low)) for step, low in zip(rows["step"], rows["low"], strict=True)]
    return "".join(
        f"{_path([*over[start:end], *reversed(under[start:end])])}Z"
        for several, start, end in _stretches(rows["n"] > 1)
        if several and end - start > 1
    )


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
