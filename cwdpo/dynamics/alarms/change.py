"""How a curve moved between two of its points, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from cwdpo.dynamics.points import Point, step_of


@dataclass(frozen=True)
class Change:
    """From one point to a later one, which may be the same."""

    first: Point
    last: Point

    def of(self, column: str) -> float:
        """By how much a column rose."""
        return self.last[column] - self.first[column]

    def told(self, column: str) -> str:
        """`from 1.2 (step 0) to 0.9 (step 100)`."""
        return f"from {_told(self.first, column)} to {_told(self.last, column)}"

    def values(self, *columns: str) -> dict[str, float]:
        """`entropy_from`, `entropy_to`, ..., and the steps."""
        ends = {"from": self.first, "to": self.last}
        return {f"{column}_{end}": point[column] for column in ("step", *columns) for end, point in ends.items()}


def _told(point: Point, column: str) -> str:
    return f"{point[column]:.4g} (step {step_of(point)})"
