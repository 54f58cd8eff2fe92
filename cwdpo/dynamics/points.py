"""Points of a curve: what was measured at one step, by name. Probes and training curves are lists of them, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cwdpo.dynamics.rows import Probes

Point = Mapping[str, float]
"""Column -> value; `step` is among them."""


def points_of(probes: Probes) -> list[dict[str, Any]]:
    """A point per probed step, in order: `step` and every column of `curves.curve`."""
    from cwdpo.dynamics.curves import curve

    return [{"step": step, **row} for step, row in curve(probes).to_dict("index").items()]


def finite(point: Point, column: str) -> bool:
    """Whether a point has a number there."""
    value: float | None = point.get(column)
    return value is not None and math.isfinite(value)


def step_of(point: Point) -> int:
    """The step it was measured at."""
    return int(point["step"])


def smoothed(points: Sequence[Point], columns: Sequence[str], window: int) -> list[dict[str, float]]:
    """Means of columns over the last `window` points, at each point that has as many."""
    return [
        {"step": points[end - 1]["step"], **{name: _mean(points[end - window : end], name) for name in columns}}
        for end in range(window, len(points) + 1)
    ]


def _mean(points: Sequence[Point], column: str) -> float:
    return sum(point[column] for point in points) / len(points)


def since(points: Sequence[Point], holds: Sequence[bool]) -> int | None:
    """Step from which on something holds at every point up to the last one; None where it does not hold there."""
    step = None
    for point, held in zip(reversed(points), reversed(holds), strict=True):
        if not held:
            break
        step = step_of(point)
    return step


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for numbers that JSON has no form for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
